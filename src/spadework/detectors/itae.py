"""ITAE: a network learns to restore normal pictures from which colour and upright position were taken; what it restores badly is anomalous.

In: normal pictures. Out, for a new one: for each pixel the error of the restored picture, as a map, and its mean, the image score.
Letters: `T` the four rotations, by 0, 90, 180 and 270 degrees, each of the picture made gray.

Recipe, with how sure each part is: gray pictures in four rotations in, the upright coloured picture out; trained with L2, scored with L1; each
rotation's error divided by its mean over the training pictures, then averaged; U-Net of four halvings with 64-128-256-512-512 filters; SGD at 0.1,
batch 32, 125 epochs, the rate halved after every tenth of the training; horizontal mirroring; values are not normalised (secondary, all). Momentum 0.9,
one rotation drawn for each picture of a batch, values 0..1 (recalled). Pictures of 256 x 256: the size taken for MVTec AD is not known.
The paper scores pictures and gives no pixel-level numbers; the map here is its error before the mean is taken.
Differences: a tenth of the normal pictures is held out of the training for the threshold.
Cannot: tell more than restoring for parts that look the same in all rotations, such as textures.
Source: Huang, Cao, Ye, Li, Zhang and Lu 2019, Inverse-Transform AutoEncoder for Anomaly Detection, arXiv:1911.10676; later Attribute Restoration
Framework for Anomaly Detection (ARNet), IEEE Transactions on Multimedia 2022.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from spadework import check
from spadework.detectors.autoencoder import IMAGE_SCORES, gray
from spadework.detectors.costs import AFTERWARDS
from spadework.detectors.trained import TrainedDetector, Views, to_tensor
from spadework.detectors.training import Course
from spadework.prediction import Judgement
from spadework.storage import ModelFolder

ROTATIONS = 4
HALVINGS, MOMENTUM = 10, 0.9


class ITAE(TrainedDetector):
    """ITAE. The defaults are the published ones.

    Args:
        image_size: side that pictures are resized to, a multiple of 16.
        width: filters of the first layers; the deeper ones have twice to eight times as many.
        epochs: times that all pictures are seen.
        batch_size: pictures a step.
        learning_rate: of SGD at first; halved after every tenth of the training.
        held_out: share of the normal pictures that is not trained on; the threshold rests on it. 0 for no threshold.
        image_score: "mean" of the map, or "map", its highest value.
        smoothing: sigma of a Gaussian on the map, in pixels of the view.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        checkpoints: a folder where the training is kept every minute, and taken up from; None for none.
        device: "cpu", or "cuda" to train and inspect on a GPU.
        threads: of the network; None for the environment's SPADEWORK_THREADS or PyTorch's own choice.
        seed: of first weights, order, rotations and held-out pictures.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("itae").quick().fit("good/").predict("new.png").is_anomalous  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "itae"
    summary: ClassVar[str] = "error of restoring colour and upright position; map and image score"
    source: ClassVar[str] = "Huang et al. 2019, arXiv:1911.10676"
    cannot: ClassVar[str] = "more than restoring colour, for parts that look the same when turned"
    cost: ClassVar[str] = "days on a CPU as published, hours on a GPU; 4 passes a picture"
    judging: ClassVar[tuple[str, ...]] = ("restorer",)
    QUICK: ClassVar[Mapping[str, Any]] = {
        "image_size": 64,
        "width": 16,
        "epochs": 30,
        "batch_size": 8,
        "learning_rate": 0.05,
    }

    def __init__(
        self,
        *,
        image_size: int = 256,
        width: int = 64,
        epochs: int = 125,
        batch_size: int = 32,
        learning_rate: float = 0.1,
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
        self.width = width
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.held_out = held_out
        self.image_score = image_score
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.checkpoints = checkpoints
        self.device = device
        self.threads = threads
        self.seed = seed

    def _check_settings(self) -> None:
        self._check_training(multiple=16, least=32)
        check.positive_int(self.width, "width")
        check.one_of(self.image_score, "image_score", IMAGE_SCORES)

    def _build(self) -> dict[str, Any]:
        from spadework.detectors.unet import UNet

        return {"restorer": UNet(1, 3, width=int(self.width))}

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _course(self, networks: dict[str, Any], views: Views) -> Course:
        import torch

        network = networks["restorer"]
        sgd = torch.optim.SGD(network.parameters(), lr=self.learning_rate, momentum=MOMENTUM)

        def learn(batch: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
            pictures = views[batch]
            mirrored, turns = rng.random(len(batch)) < 0.5, rng.integers(ROTATIONS, size=len(batch))
            pictures[mirrored] = pictures[mirrored, :, ::-1].copy()
            turned = np.stack([rotate(picture, int(turn)) for picture, turn in zip(pictures, turns, strict=True)])
            loss = ((network(gray(turned, network)) - to_tensor(pictures, network)) ** 2).mean()
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            return {"loss": loss.detach()}

        return Course(networks, [sgd], len(views), learn, rate=lambda share: 0.5 ** int(share * HALVINGS))

    def _afterwards(self, networks: dict[str, Any], views: Views, folder: ModelFolder) -> None:
        """The mean error of each rotation over the training pictures."""
        errors = []
        for place in range(len(views)):
            errors.append(self._errors(networks, views[slice(place, place + 1)][0]).mean(axis=(1, 2)))
            self._tell(AFTERWARDS, place + 1, len(views))
        folder.replace("training_errors", np.mean(errors, axis=0))

    def _open(self, folder: ModelFolder) -> None:
        super()._open(folder)
        self.training_errors_ = np.array(folder.read("training_errors"))  # (4,) float64

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _errors(self, networks: dict[str, Any], view: np.ndarray) -> np.ndarray:
        """Mean absolute error over the colours, of what each rotation is restored to: (4, s, s) float64."""
        network = networks["restorer"]
        turned = np.stack([rotate(view, turn) for turn in range(ROTATIONS)])
        restored = network(gray(turned, network))
        found: np.ndarray = (restored - to_tensor(view[None], network)).abs().mean(dim=1).double().cpu().numpy()
        return found

    def _inspect(self, networks: dict[str, Any], view: np.ndarray) -> Judgement:
        errors = self._errors(networks, view) / self.training_errors_[:, None, None]
        found = errors.mean(axis=0)
        return Judgement(found, float(found.mean()) if self.image_score == "mean" else None)


def rotate(view: np.ndarray, turn: int) -> np.ndarray:
    """Return a square picture (s, s, 3) turned by so many times 90 degrees, against the clock."""
    return np.ascontiguousarray(np.rot90(view, turn))
