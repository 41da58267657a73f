"""Variation model: how far each pixel's gray value lies from what is normal at that place of the part, in units of how much it varies there.

In: normal pictures of a part. Out, for a new one: |gray - centre| / spread for each pixel, as a map.
Letters: `n` pictures learnt from, `h x w` the working size.

Recipe, with how sure each part is: gray pictures at their original size, 30 random normal ones to learn from, the part aligned, the mean and standard
deviation of each pixel, the map |x - mean| / std (certain, from the protocol of the MVTec AD baselines); median and median absolute deviation
as the robust alternative, a floor on the deviation (certain that there are such, from the book; the floor's value is not published: 2 gray levels here).
Substitution: the original aligns by a commercial library's shape matcher; here by an angle and a shift, found by phase correlation and
refined (`spadework.alignment`). All pictures are aligned to one of them, then once more to their mean. The model is brought to the picture's
place, not the picture to the model's: the map is of the picture as it is. Places that no picture of the model showed are scored 0: nothing is
known of them.

Which parts can be aligned is measured on the normal pictures: the median, over those learnt from, of the share of a picture's variance that
the mean of the others explains, both aligned. Below `LEAST`, a half, `fit` refuses and says so. `align="none"` compares pictures as they lie,
whatever they show.

What the threshold rests on: pictures that were not learnt from, scored by the very model that is kept.
Source: Steger, Ulrich and Wiedemann 2018, Machine Vision Algorithms and Applications, section 3.4.1.2; Bergmann et al. 2019, MVTec AD, CVPR (protocol).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from spadework import check
from spadework.alignment import STILL, Aligner, Motion, correlation
from spadework.detectors.costs import LEARNING, Growth
from spadework.detectors.features import check_smoothing
from spadework.detectors.held_out import Draw, dealt
from spadework.detectors.pixels import PixelDetector
from spadework.detectors.reading import Seen, work_ahead
from spadework.errors import InputError
from spadework.images import View
from spadework.kernels import thread_count
from spadework.prediction import Judgement
from spadework.storage import ModelFolder

MODES = frozenset({"mean", "median"})
ALIGNMENTS = frozenset({"phase", "none"})
LEAST = 0.5  # share of variance
NORMAL_MAD = 1.4826  # standard deviations of a normal distribution in its median absolute deviation


class VariationModel(PixelDetector):
    """Variation model, for parts that can be aligned.

    Args:
        image_size: working size, one side or (height, width); None for the size that the pictures have, which must be one.
        align: "phase", turned and shifted by phase correlation, or "none", as they lie.
        mode: "mean" and standard deviation, or "median" and median absolute deviation.
        floor: least deviation of a pixel, in gray levels.
        training_images: normal pictures drawn at random to learn from.
        smoothing: sigma of the Gaussian on the map, in pixels of the working size.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        calibration_images: at most this many pictures that are not learnt from set the threshold; 0 for no threshold.
        threads: pictures that are aligned at once in `fit`; None for the environment's SPADEWORK_THREADS or all cores.
        seed: of the draw.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("variation-model")().fit("good/").predict("new.png").is_anomalous  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "variation-model"
    summary: ClassVar[str] = "gray value less the normal one at that place, by its deviation; map and image score"
    source: ClassVar[str] = "Steger, Ulrich and Wiedemann 2018, section 3.4.1.2"
    cannot: ClassVar[str] = "textures and parts that cannot be aligned"
    cost: ClassVar[str] = "seconds to fit, 25 ms a picture"

    def __init__(
        self,
        *,
        image_size: int | Sequence[int] | None = 256,
        align: str = "phase",
        mode: str = "mean",
        floor: float = 2.0,
        training_images: int = 30,
        smoothing: float = 4.0,
        max_false_alarms: float = 0.01,
        calibration_images: int = 100,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.image_size = image_size
        self.align = align
        self.mode = mode
        self.floor = floor
        self.training_images = training_images
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.calibration_images = calibration_images
        self.threads = threads
        self.seed = seed

    @classmethod
    def paper(cls, **changes: Any) -> VariationModel:
        """Return the protocol's configuration: pictures at their original size, the map as it is. `changes` replace single settings."""
        return cls(**{"image_size": None, "smoothing": 0.0, **changes})

    def _check_settings(self) -> None:
        self._check_pixels()
        check.one_of(self.align, "align", ALIGNMENTS)
        check.one_of(self.mode, "mode", MODES)
        if check.not_negative(self.floor, "floor") == 0:
            raise InputError("floor must be above 0: a pixel that never varied would divide by nothing.")

    def _view(self) -> View:
        return super()._view() if self.image_size is not None else View(getattr(self, "size_", (1, 1)))

    # ---- what it costs -------------------------------------------------------------------------------------------------------

    def _stages(self, count: int) -> dict[str, Growth]:
        learnt = dealt(count, learn=self.training_images, hold=int(self.calibration_images))[0]
        return super()._stages(count) | {LEARNING: Growth(1, learnt)}

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        """The pictures drawn, and of those learnt from four copies in single precision."""
        learnt = dealt(count, learn=self.training_images, hold=int(self.calibration_images))[0]
        return super()._resident(count, sizes) + 4 * learnt * sizes.get("centre", 0.0)

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        draw = Draw(self.training_images + int(self.calibration_images), seed=self.seed)
        size: tuple[int, int] | None = None
        for seen in normal:
            picture = gray(seen.image if self.image_size is None else seen.view)
            size = size or (picture.shape[0], picture.shape[1])
            if picture.shape != size:
                raise InputError(
                    f"{seen.name} has {picture.shape[0]} x {picture.shape[1]} pixels, those before it {size[0]} x {size[1]}: "
                    "set image_size, which brings all to one."
                )
            draw.add(seen.pixel_hash, picture)
        learn, held = draw.deal(learn=self.training_images, hold=int(self.calibration_images))
        if size is None:
            return
        check_smoothing(self.smoothing, View(size))
        pictures = [picture.astype(np.float32) for picture in learn]
        self._tell(LEARNING, 0, 1)
        motions = self._aligned(pictures)
        self._tell(LEARNING, 1, 1)
        centre, spread, known = summarise(pictures, motions, mode=self.mode)
        folder.header["size"] = list(size)
        for name, array in (("centre", centre), ("spread", spread), ("known", known.astype(np.uint8))):
            folder.replace(name, array)
        aligner = self._aligner(centre)
        maps = work_ahead(
            held, lambda each: self._deviation(each, aligner, centre, spread, known), threads=self._workers()
        )
        self._hold(folder, maps, size, len(held))

    def _aligned(self, pictures: list[np.ndarray]) -> list[Motion]:
        """How the pictures lie, to the first of them, then to the mean of all.

        Raises:
            InputError: they have too little in common.
        """
        motions = [STILL] * len(pictures)
        if self.align == "none" or len(pictures) < 2:
            return motions
        reference = pictures[0]
        for _ in range(2):
            motions = list(work_ahead(pictures, Aligner(reference).find, threads=self._workers()))
            reference = summarise(pictures, motions, mode="mean")[0]
        explained = float(np.median(explained_shares(pictures, motions)))
        if explained < LEAST:
            raise InputError(
                f"the normal pictures cannot be aligned: turned and shifted, the mean of the others explains {explained:.0%} of a picture's "
                f"variance, and it takes {LEAST:.0%}. The variation model is for parts that look alike; take align='none' to compare "
                "pictures as they lie, or another detector."
            )
        return motions

    def _workers(self) -> int:
        return thread_count(self.threads)

    def _aligner(self, centre: np.ndarray) -> Aligner | None:
        return None if self.align == "none" else Aligner(centre)

    def _open(self, folder: ModelFolder) -> None:
        super()._open(folder)
        self.size_ = (int(folder.header["size"][0]), int(folder.header["size"][1]))
        self.centre_, self.spread_ = (np.array(folder.read(name)) for name in ("centre", "spread"))
        self.known_ = np.array(folder.read("known")) > 0
        self.aligner_ = self._aligner(self.centre_)

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _judge(self, seen: Seen) -> Judgement:
        picture = gray(seen.view)
        if picture.shape != self.size_:
            raise InputError(f"pictures come as {picture.shape}, the model holds {self.size_}: fit again.")
        return Judgement(self._deviation(picture, self.aligner_, self.centre_, self.spread_, self.known_))

    def _deviation(
        self, picture: np.ndarray, aligner: Aligner | None, centre: np.ndarray, spread: np.ndarray, known: np.ndarray
    ) -> np.ndarray:
        """The map (h, w) of a gray picture (h, w)."""
        picture = picture.astype(np.float32)
        motion = STILL if aligner is None else aligner.find(picture)
        sure = motion.to_picture(known.astype(np.float32)) > 0.99  # not where it is mixed with what is not known
        off = np.abs(picture - motion.to_picture(centre)) / np.maximum(motion.to_picture(spread), self.floor)
        return np.where(sure & motion.known(picture.shape), off, 0.0)


def gray(picture: np.ndarray) -> np.ndarray:
    """Return (h, w, 3) RGB as gray uint8 (h, w)."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))


def summarise(
    pictures: Sequence[np.ndarray], motions: Sequence[Motion], *, mode: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centre, spread, float32 (h, w), and where anything is known, bool (h, w), of pictures brought to one place.

    Args:
        pictures: float32 (h, w) each.
        motions: how each lies.
        mode: "mean" and standard deviation, or "median" and median absolute deviation, scaled to that of a normal distribution.
    """
    brought = np.stack([motion.to_reference(picture) for picture, motion in zip(pictures, motions, strict=True)])
    seen = np.stack([motion.seen(picture.shape) for picture, motion in zip(pictures, motions, strict=True)])
    known = np.asarray(seen.any(axis=0))
    brought[~seen & known] = np.nan  # where nobody saw anything the pictures' borders go on, and `known` says so
    middle, scale = (np.nanmean, 1.0) if mode == "mean" else (np.nanmedian, NORMAL_MAD)
    centre = middle(brought, axis=0)
    off = np.abs(brought - centre)
    spread = np.sqrt(np.nanmean(off * off, axis=0)) if mode == "mean" else scale * np.nanmedian(off, axis=0)
    return centre.astype(np.float32), spread.astype(np.float32), known


def explained_shares(pictures: Sequence[np.ndarray], motions: Sequence[Motion]) -> list[float]:
    """Return, for each picture, the share of its variance that the mean of the others explains, where both are seen."""
    brought = np.stack([motion.to_reference(picture) for picture, motion in zip(pictures, motions, strict=True)])
    total = brought.sum(axis=0, dtype=np.float64)
    shares = []
    for own, motion in zip(brought, motions, strict=True):
        seen = motion.seen(own.shape)
        shares.append(max(0.0, correlation(own[seen], (total - own)[seen])) ** 2)
    return shares
