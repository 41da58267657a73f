"""AE-SSIM: as AE-L2, but picture and copy are compared by their structural similarity.

In: normal pictures. Out, for a new one: for each pixel 1 - SSIM of its neighbourhood and the copy's, as a map, 0 to 2.
Letters as in `autoencoder`. SSIM of two windows x, y, with Gaussian weights:
(2 mean(x) mean(y) + c1) (2 cov(x, y) + c2) / ((mean(x)^2 + mean(y)^2 + c1) (var(x) + var(y) + c2)).

Recipe: that of `autoencoder`, on gray pictures, with windows of 11 x 11 (verified) and c1 = 0.01^2, c2 = 0.03^2 on values 0 to 1 (secondary). Gaussian
weights of sigma 1.5, as where SSIM comes from (recalled). Pictures are reflected at their borders, in training as in the map, so that every pixel has a
window (our choice; where training leaves out windows that reach beyond the picture, maps are highest along its borders).
Left out: nothing of the method. Cannot: see colour.
Source: Bergmann, Loewe, Fauser, Sattlegger and Steger 2019, VISAPP, arXiv:1807.02011; Wang, Bovik, Sheikh and Simoncelli 2004, Image Quality Assessment:
From Error Visibility to Structural Similarity, IEEE Transactions on Image Processing 13.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from spadework.detectors.autoencoder import Autoencoder, gray

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


class AutoencoderSSIM(Autoencoder):
    """AE-SSIM. The defaults are the published ones for objects; `patch=128` is that for textures.

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
        image_score: "map", the highest value of the map, or its "mean".
        smoothing: sigma of a Gaussian on the map, in pixels of the view.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        checkpoints: a folder where the training is kept every minute, and taken up from; None for none.
        device: "cpu", or "cuda" to train and inspect on a GPU.
        threads: of the network; None for the environment's SPADEWORK_THREADS or PyTorch's own choice.
        seed: of first weights, order, patches and held-out pictures.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("ae-ssim").quick().fit("good/").predict("new.png").score_map.shape  # doctest: +SKIP
        (1024, 1024)
    """

    name: ClassVar[str] = "ae-ssim"
    summary: ClassVar[str] = "structural difference to an autoencoder's copy; map and image score"
    source: ClassVar[str] = "Bergmann et al. 2019, arXiv:1807.02011"
    cannot: ClassVar[str] = "colour, and defects that the network copies well"
    channels: ClassVar[int] = 1
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
        image_score: str = "map",
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
        return gray(pictures, network)

    def _loss(self, pictures: Any, copies: Any) -> Any:
        return self._residual(pictures, copies).mean()

    def _residual(self, pictures: Any, copies: Any) -> Any:
        from torch.nn.functional import pad

        edge = [WINDOW // 2] * 4
        return 1 - similarity(pad(pictures, edge, mode="reflect"), pad(copies, edge, mode="reflect"))[:, 0]


def similarity(first: Any, second: Any) -> Any:
    """Return the SSIM of all windows that lie within the pictures, (n, 1, s - 10, s - 10).

    Args:
        first: pictures (n, 1, s, s) in 0..1.
        second: what they are compared with.
    """
    mean_1, mean_2 = _window_mean(first), _window_mean(second)
    variance_1 = _window_mean(first * first) - mean_1**2
    variance_2 = _window_mean(second * second) - mean_2**2
    covariance = _window_mean(first * second) - mean_1 * mean_2
    above = (2 * mean_1 * mean_2 + C1) * (2 * covariance + C2)
    return above / ((mean_1**2 + mean_2**2 + C1) * (variance_1 + variance_2 + C2))


def _window_mean(pictures: Any) -> Any:
    """Gaussian means of windows, along one axis and then along the other."""
    import torch
    from torch.nn.functional import conv2d

    away = torch.arange(WINDOW, dtype=pictures.dtype, device=pictures.device) - WINDOW // 2
    weights = torch.exp(-0.5 * (away / SIGMA) ** 2)
    weights = weights / weights.sum()
    return conv2d(conv2d(pictures, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
