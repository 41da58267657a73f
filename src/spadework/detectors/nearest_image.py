"""Nearest image: SPADE's first stage alone. How far the whole of a picture lies from the nearest normal pictures.

In: normal pictures. Out, for a new one: the mean squared Euclidean distance of its global vector to the `image_k` nearest normal ones, and which
these are. No map: the stage says whether, not where.
Letters: `N` normal images, `D` numbers of a global vector.

Recipe, with how sure each part is: the pooled last stage of a network, squared Euclidean distances, their mean over K = 50 (certain, paper 3.2).
Substitution: the everyday K is 5: public re-implementations reach the paper's 85.5 % on MVTec AD with 3 to 5 and fall to 80.1 % with 50
(secondary, their own readmes); `NearestImage.paper()` has 50.

What the threshold rests on: each normal picture against all the others, as SPADE's. A mean over all, while there are no more than `image_k`
others, can rise with a further picture: with few pictures the promise is nearly, not strictly, kept.
Source: Cohen and Hoshen 2020, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, section 3.2, arXiv:2005.02357.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from spadework import check
from spadework.calibration import choose_images
from spadework.detectors.features import NetworkDetector
from spadework.detectors.reading import Progress, Seen, gather_normal
from spadework.entries import Entries
from spadework.images import Picture
from spadework.prediction import Judgement
from spadework.pyramid import Pyramid
from spadework.retrieval import Retrieval
from spadework.storage import ModelFolder

NAMED = 5  # nearest pictures that an answer names


class NearestImage(NetworkDetector):
    """Nearest image, the first stage of SPADE: image score only.

    Args:
        backbone: "embedded", a path to an ONNX file, "timm:NAME" or "torchvision:NAME"; see `spadework backbones`.
        weights: a local weights file for "timm:" and "torchvision:".
        image_size: how large pictures are seen: the side of a square of the same area, "auto" for what their own size asks for, or
            (height, width), multiples of the network's coarsest stride (16). Aspect is kept; see docs/resolution.md.
        crop: keep only the centre, one side or (height, width); the resize then keeps the aspect of the shorter side.
        image_k: nearest images whose mean squared distance is the score.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        calibration_images: at most this many normal images are left out in turn to set the threshold; 0 for no threshold.
        threads: of the network; None for the environment's SPADEWORK_THREADS or all cores.
        seed: of the draw of calibration images.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("nearest-image")().fit("good/").predict("new.png").nearest_images  # doctest: +SKIP
        (('good/017.png', 11.3), ('good/004.png', 11.9), ...)
    """

    name: ClassVar[str] = "nearest-image"
    summary: ClassVar[str] = (
        "distance of the whole picture to the nearest normal ones, SPADE's first stage; image score"
    )
    source: ClassVar[str] = "Cohen and Hoshen 2020, section 3.2, arXiv:2005.02357"
    localises: ClassVar[bool] = False
    cannot: ClassVar[str] = "say where"
    cost: ClassVar[str] = "one forward pass a picture; 4 KB a normal picture"

    def __init__(
        self,
        backbone: str = "embedded",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: int | Sequence[int] | str = 256,
        crop: int | Sequence[int] | None = None,
        image_k: int = 5,
        max_false_alarms: float = 0.01,
        calibration_images: int = 100,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.crop = crop
        self.image_k = image_k
        self.max_false_alarms = max_false_alarms
        self.calibration_images = calibration_images
        self.threads = threads
        self.seed = seed

    @classmethod
    def paper(cls, **changes: Any) -> NearestImage:
        """Return the paper's configuration: Wide-ResNet-50-2 with torchvision's V1 weights, resize 256, centre crop 224, K = 50. `changes`
        replace single settings."""
        settings: dict[str, Any] = {
            "backbone": "timm:wide_resnet50_2.tv_in1k",
            "image_size": 256,
            "crop": 224,
            "image_k": 50,
        }
        return cls(**{**settings, **changes})

    def _check_settings(self) -> None:
        self._check_network()
        check.positive_int(self.image_k, "image_k")
        check.share(self.max_false_alarms, "max_false_alarms")
        check.whole(self.calibration_images, "calibration_images")
        check.whole(self.seed, "seed")

    def _pyramid(self, view: np.ndarray) -> Pyramid:
        """The global vector alone."""
        return Pyramid((), self.backbone_(view[None])[1][0])

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        for seen in normal:
            if "globals" not in folder.header["arrays"]:
                folder.add_array("globals", "<f4", (len(self._vector(seen)),))
                folder.add_array("entries", "|u1", ())
            self._keep(seen, folder)

    def _keep(self, seen: Seen, folder: ModelFolder) -> None:
        entry = {
            "name": seen.name,
            "size": list(seen.image.shape[:2]),
            "thumbnail": [0, 0, 0],
            "sha256": seen.pixel_hash,
        }
        folder.append("globals", self._vector(seen)[None])
        folder.append("entries", np.frombuffer(json.dumps(entry).encode() + b"\n", np.uint8))

    def _vector(self, seen: Seen) -> np.ndarray:
        assert seen.pyramid is not None  # needs == "pyramid"
        return seen.pyramid.global_vector

    def _open(self, folder: ModelFolder) -> None:
        self.entries_ = Entries(partial(folder.read, "entries"), folder.rows("entries"))
        self.retrieval_ = Retrieval(
            partial(folder.read, "globals"), folder.rows("globals"), pick=partial(folder.pick, "globals")
        )

    def _known_pictures(self) -> set[str]:
        return {entry.sha256 for entry in self.entries_} if hasattr(self, "entries_") else set()

    def append(
        self, images: Picture | Iterable[Picture], *, bad_files: str = "raise", progress: Progress | None = None
    ) -> Self:
        """Add normal pictures in a forward pass each, and set the threshold anew. Scores then equal those of a fresh fit on the union.

        A model on disk is changed at once, completely or not at all.

        Args:
            images: as in `fit`; pictures that the model holds already are passed over.
            bad_files: as in `fit`; with "raise" nothing is added if any picture cannot be used.
            progress: called with (what, done, total).
        """
        check.one_of(bad_files, "bad_files", {"raise", "skip"})
        folder = self._check_fitted()
        pictures = gather_normal(images)
        self._open_backbone()
        rate = self._rate()
        try:
            with folder.writing():
                for seen in self._see_normal(pictures, folder, bad_files, progress, "appending"):
                    self._keep(seen, folder)
                self._open(folder)
                self._calibrate(folder, progress)
                folder.header["calibration"]["max_false_alarms"] = rate
                folder.commit()
        finally:  # whatever stands on disk now, that is what the model is
            self._open(folder)
            self._read_calibration()
        return self

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _judge(self, seen: Seen) -> Judgement:
        images, distances = self.retrieval_.nearest(self._vector(seen), self.image_k)
        names = [self.entries_[int(index)].name for index in images[:NAMED]]
        nearest = tuple(zip(names, (float(d) for d in distances), strict=False))
        return Judgement(None, float(distances.mean()), nearest_images=nearest)

    def _normal_scores(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
        """Each image against all the others."""
        count = len(self.entries_)
        chosen = choose_images(count, int(self.calibration_images), self.seed) if count > 1 else np.arange(0)
        scores = []
        for index in map(int, chosen):
            vector = np.array(self.retrieval_.row(index))
            scores.append(self.retrieval_.nearest(vector, self.image_k, exclude=index)[1].mean())
            if progress:
                progress("setting the threshold", len(scores), len(chosen))
        return np.array(scores, np.float64), np.empty(0)
