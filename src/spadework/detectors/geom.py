"""Geom: a network learns to tell which of 72 geometric transforms was done to a normal picture; where it is unsure, the picture is anomalous.

In: normal pictures. Out, for a new one: an image score; no map.
Letters: `T` the 72 transforms, `p_t(x)` the network's probabilities, (72,), for the picture `x` transformed by `t`.

Recipe, all verified in the authors' code. Transforms: mirrored or not, shifted by 0, +s or -s pixels down and along, s a quarter of the
side, reflected where nothing is known, then turned by 0, 90, 180 or 270 degrees. Pictures of 32 x 32: WRN-10-4 (at 64 x 64 WRN-16-8: `image_size=64,
depth=16, widen=8`), means over blocks of 8 x 8 places before the last layer. Adam at 1e-3, batch 128, 3 epochs over all transformed pictures, values -1..1,
0.00025 of the squares of all weights in the loss. For each t a Dirichlet distribution
is fitted to p_t of the training pictures by maximum likelihood, with parameters a_t. Score: minus the mean over t of sum (a_t - 1) log p_t(x).
The fit is that of `dirichlet`, to the maximum itself; the authors take at most 1,000 fixed-point steps, until little changes.
Differences: a tenth of the normal pictures is held out for the threshold. Which size was taken for MVTec AD in the published table is not known.
Cannot: say where; work for parts that look the same when turned, mirrored or shifted, such as textures: there no transform can be told.
Source: Golan and El-Yaniv 2018, Deep Anomaly Detection Using Geometric Transformations, NeurIPS, arXiv:1805.10917.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from spadework import check
from spadework.detectors.costs import AFTERWARDS
from spadework.detectors.dcgan import signed
from spadework.detectors.dirichlet import fit_dirichlet
from spadework.detectors.trained import TrainedDetector, Views
from spadework.detectors.training import Course
from spadework.errors import InputError
from spadework.prediction import Judgement
from spadework.storage import ModelFolder

TRANSFORMS = [
    (mirror, down, along, turns)
    for mirror in (False, True)
    for down in (0, -1, 1)
    for along in (0, -1, 1)
    for turns in range(4)
]  # the shifts in units of a quarter of the side
DECAY = 5e-4  # of each weight in its gradient, twice its part in the loss
PART = 8  # pictures at a time, 72 times that many passes


class Geom(TrainedDetector):
    """Geom. The defaults are those of the authors' code at 32 x 32.

    Args:
        image_size: side that pictures are resized to, a multiple of 4.
        depth: of the network, 4 more than a multiple of 6.
        widen: how many times wider than the narrowest the network is.
        epochs: times that all pictures are seen in all transforms.
        batch_size: transformed pictures a step.
        learning_rate: of Adam.
        held_out: share of the normal pictures that is not trained on; the threshold rests on it. 0 for no threshold.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        checkpoints: a folder where the training is kept every minute, and taken up from; None for none.
        device: "cpu", or "cuda" to train and inspect on a GPU.
        threads: of the network; None for the environment's SPADEWORK_THREADS or PyTorch's own choice.
        seed: of first weights, order and held-out pictures.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("geom").quick().fit("good/").predict("new.png").is_anomalous  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "geom"
    summary: ClassVar[str] = "how unsure a network is which geometric transform it sees; image score, no map"
    source: ClassVar[str] = "Golan and El-Yaniv 2018, arXiv:1805.10917"
    localises: ClassVar[bool] = False
    cannot: ClassVar[str] = "say where; parts that look the same turned, mirrored or shifted"
    cost: ClassVar[str] = "a quarter of an hour on a CPU; 72 small passes a picture"
    judging: ClassVar[tuple[str, ...]] = ("classifier",)
    QUICK: ClassVar[Mapping[str, Any]] = {"widen": 2, "epochs": 1}

    def __init__(
        self,
        *,
        image_size: int = 32,
        depth: int = 10,
        widen: int = 4,
        epochs: int = 3,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        held_out: float = 0.1,
        max_false_alarms: float = 0.01,
        checkpoints: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.image_size = image_size
        self.depth = depth
        self.widen = widen
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.held_out = held_out
        self.max_false_alarms = max_false_alarms
        self.checkpoints = checkpoints
        self.device = device
        self.threads = threads
        self.seed = seed

    def _check_settings(self) -> None:
        self._check_training(multiple=4, least=8)
        check.positive_int(self.widen, "widen")
        if check.positive_int(self.depth, "depth") < 10 or (self.depth - 4) % 6:
            raise InputError(f"depth must be 10, 16, 22 or 4 more than a further multiple of 6, not {self.depth}.")

    def _build(self) -> dict[str, Any]:
        from spadework.detectors.wide_resnet import WideResNet

        depth, widen, side = int(self.depth), int(self.widen), int(self.image_size)
        return {"classifier": WideResNet(depth=depth, widen=widen, classes=len(TRANSFORMS), side=side)}

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _course(self, networks: dict[str, Any], views: Views) -> Course:
        import torch
        from torch.nn.functional import cross_entropy

        network = networks["classifier"]
        adam = torch.optim.Adam(network.parameters(), lr=self.learning_rate, weight_decay=DECAY)

        def learn(batch: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
            pictures, kinds = views[batch // len(TRANSFORMS)], batch % len(TRANSFORMS)
            changed = np.stack([transform(picture, int(kind)) for picture, kind in zip(pictures, kinds, strict=True)])
            loss = cross_entropy(network(signed(changed, network)), torch.from_numpy(kinds).to(self._where(network)))
            adam.zero_grad()
            loss.backward()
            adam.step()
            return {"loss": loss.detach()}

        return Course(networks, [adam], len(views) * len(TRANSFORMS), learn)

    @staticmethod
    def _where(network: Any) -> Any:
        return network.last.weight.device

    def _afterwards(self, networks: dict[str, Any], views: Views, folder: ModelFolder) -> None:
        """Fit a Dirichlet distribution to what the network says of the training pictures, for each transform."""
        sums = np.zeros((len(TRANSFORMS), len(TRANSFORMS)))
        for first in range(0, len(views), PART):
            for view in views[slice(first, first + PART)]:
                sums += self._log_probabilities(networks, view)
            self._tell(AFTERWARDS, min(first + PART, len(views)), len(views))
        folder.replace("dirichlet", fit_dirichlet(sums / len(views)))

    def _open(self, folder: ModelFolder) -> None:
        super()._open(folder)
        self.dirichlet_ = np.array(folder.read("dirichlet"))  # (72, 72) float64: a_t, transform by transform

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _log_probabilities(self, networks: dict[str, Any], view: np.ndarray) -> np.ndarray:
        """log p_t of one picture in all transforms, (72, 72) float64: no probability is rounded to 0."""
        network = networks["classifier"]
        changed = np.stack([transform(view, kind) for kind in range(len(TRANSFORMS))])
        found: np.ndarray = network(signed(changed, network)).double().log_softmax(dim=1).cpu().numpy()
        return found

    def _inspect(self, networks: dict[str, Any], view: np.ndarray) -> Judgement:
        logs = self._log_probabilities(networks, view)
        return Judgement(None, -float(((self.dirichlet_ - 1) * logs).sum(axis=1).mean()))


def transform(view: np.ndarray, kind: int) -> np.ndarray:
    """Return a square picture in one of the 72 transforms.

    Args:
        view: (s, s, 3), s a multiple of 4.
        kind: which one, from 0, that which changes nothing.
    """
    mirror, down, along, turns = TRANSFORMS[kind]
    side, step = len(view), len(view) // 4
    changed = view[:, ::-1] if mirror else view
    if down or along:
        wide = np.pad(changed, ((step, step), (step, step), (0, 0)), mode="symmetric")
        top, left = step - down * step, step - along * step
        changed = wide[top : top + side, left : left + side]
    return np.ascontiguousarray(np.rot90(changed, turns))
