"""AE-L2: a convolutional autoencoder that learns to copy normal pictures; what it copies badly is anomalous.

In: normal pictures. Out, for a new one: for each pixel the squared difference to its copy, summed over the colours, as a map.

Recipe: that of `autoencoder`, with the mean squared difference as loss (verified), in colour (secondary). Map: per-pixel L2 over channels (verified),
squared here, as the loss is. Image score: the mean of the map (recalled for the published image-level number, which others measured); or its highest value.
Left out: nothing of the method. Cannot: tell a defect that looks like something normal, or that the network copies well.
Source: Bergmann, Fauser, Sattlegger and Steger 2019, MVTec AD, CVPR, section 4; for the layers see `autoencoder`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from spadework.detectors.autoencoder import Autoencoder
from spadework.detectors.trained import to_tensor


class AutoencoderL2(Autoencoder):
    """AE-L2. The defaults are the published ones for objects; `patch=128` is that for textures.

    Args:
        image_size: side that pictures are resized to.
        patch: None copies the whole picture (objects); a side in pixels cuts patches (textures, 128 as published).
        stride: from one patch to the next when inspecting; overlapping maps are averaged.
        latent: numbers in the code.
        width: filters of the first layers.
        examples: patches to learn from, drawn from the normal pictures once.
        rotation: they are turned by at most so many degrees either way; None for 5 (whole pictures) or 180 (patches).
        shift: whole pictures are shifted by at most this share of their side either way.
        mirror: whether half of them are mirrored; only where the object permits.
        epochs: times that all patches are seen.
        batch_size: patches a step.
        learning_rate: of Adam.
        weight_decay: of Adam.
        held_out: share of the normal pictures that is not trained on; the threshold rests on it. 0 for no threshold.
        image_score: "mean" of the map, or "map", its highest value.
        smoothing: sigma of a Gaussian on the map, in pixels of the view.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        checkpoints: a folder where the training is kept every minute, and taken up from; None for none.
        device: "cpu", or "cuda" to train and inspect on a GPU.
        threads: of the network; None for the environment's SPADEWORK_THREADS or PyTorch's own choice.
        seed: of first weights, order, patches and held-out pictures.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("ae-l2").quick().fit("good/").predict("new.png").score_map.shape  # doctest: +SKIP
        (1024, 1024)
    """

    name: ClassVar[str] = "ae-l2"
    summary: ClassVar[str] = "squared difference to an autoencoder's copy; map and image score"
    source: ClassVar[str] = "Bergmann et al. 2019, MVTec AD, CVPR; network of arXiv:1807.02011"
    cannot: ClassVar[str] = "defects that the network copies well"
    channels: ClassVar[int] = 3
    QUICK: ClassVar[Mapping[str, Any]] = {
        "image_size": 128,
        "examples": 320,
        "epochs": 8,
        "batch_size": 16,
        "learning_rate": 1e-3,
    }

    def __init__(
        self,
        *,
        image_size: int = 256,
        patch: int | None = None,
        stride: int = 30,
        latent: int = 100,
        width: int = 32,
        examples: int = 10_000,
        rotation: float | None = None,
        shift: float = 0.05,
        mirror: bool = False,
        epochs: int = 200,
        batch_size: int = 128,
        learning_rate: float = 2e-4,
        weight_decay: float = 1e-5,
        held_out: float = 0.1,
        image_score: str = "mean",
        smoothing: float = 0.0,
        max_false_alarms: float = 0.01,
        checkpoints: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.image_size = image_size
        self.patch = patch
        self.stride = stride
        self.latent = latent
        self.width = width
        self.examples = examples
        self.rotation = rotation
        self.shift = shift
        self.mirror = mirror
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.held_out = held_out
        self.image_score = image_score
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.checkpoints = checkpoints
        self.device = device
        self.threads = threads
        self.seed = seed

    def _tensor(self, pictures: np.ndarray, network: Any) -> Any:
        return to_tensor(pictures, network)

    def _loss(self, pictures: Any, copies: Any) -> Any:
        return ((pictures - copies) ** 2).mean()

    def _residual(self, pictures: Any, copies: Any) -> Any:
        return ((pictures - copies) ** 2).sum(dim=1)
