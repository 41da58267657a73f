"""Measures of a detector: ROCAUC, average precision, best F1 and PRO, for images and for pixels, exact, from one sort.

In: one score per image and its label, or one map of scores per image and its mask. A higher score is more anomalous.
Out: `Measures`: numbers in 0..1, or None with the reason where a measure is undefined; curves for drawing.

Here are the public faces and the store of pixels; the arithmetic is in `ranking`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from spadework import ranking
from spadework.errors import InputError
from spadework.ranking import Curve, Floats

__all__ = [
    "Curve",
    "Measures",
    "PixelAccumulator",
    "average_precision",
    "best_f1",
    "check_limit",
    "image_measures",
    "pro",
    "roc_auc",
]

STORE = 1 << 24  # elements in a block of a growing store: 64 MB of float32, which goes back to the system when freed

NO_SCORES = "nothing was measured"
NO_DEFECTS = "nothing anomalous to be found"
NO_NORMALS = "nothing normal to compare with"
NO_REGIONS = "defined on maps and masks only"


@dataclass(frozen=True)
class Measures:
    """What was measured. None means undefined; `reasons` then says why, by field name.

    `f1` is the best over all thresholds, reached by calling anomalous what scores `f1_threshold` or more.
    """

    auroc: float | None = None
    ap: float | None = None
    f1: float | None = None
    f1_threshold: float | None = None
    pro: float | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    roc: Curve | None = field(default=None, compare=False)
    pro_curve: Curve | None = field(default=None, compare=False)


def image_measures(scores: npt.ArrayLike, is_anomalous: npt.ArrayLike) -> Measures:
    """Measure how well one score per image tells anomalous images from normal ones.

    Arguments:
        scores: one per image, (N,) numbers, finite.
        is_anomalous: (N,) bool, or 0 and 1.

    Returns:
        Measures without PRO, which is defined on maps. All are None where a class is missing.

    Raises:
        InputError: the lengths differ, a score is NaN or infinite, or a label is neither 0 nor 1.

    >>> image_measures([0.1, 0.4, 0.3, 0.9], [False, False, True, True]).auroc
    0.75
    """
    normal, anomalous = _split(scores, is_anomalous)
    reason = _undefined(normal.size, anomalous.size)
    if reason:
        return _nothing(reason)
    normal.sort()
    anomalous.sort()
    ranks = ranking.rank(normal, anomalous)
    return _measures(ranks, ranking.roc_curve(normal, anomalous), reasons={"pro": NO_REGIONS})


def roc_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Return the chance that an anomalous score exceeds a normal one, a tie counting half; None if a class lacks."""
    return image_measures(scores, labels).auroc


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Return the mean, over the anomalous scores, of the precision at that score; None if a class is missing."""
    return image_measures(scores, labels).ap


def best_f1(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, float] | None:
    """Return the best F1 and the highest threshold that reaches it; None if a class is missing.

    A score is called anomalous where it is at or above the threshold.
    """
    measures = image_measures(scores, labels)
    if measures.f1 is None or measures.f1_threshold is None:
        return None
    return measures.f1, measures.f1_threshold


def pro(maps: Iterable[Floats], masks: Iterable[npt.NDArray[np.bool_]], *, limit: float = 0.3) -> float | None:
    """Return the per-region overlap up to a false-positive rate of `limit`; None without regions or normal pixels.

    Arguments:
        maps: score maps (H, W) float32 or float64, one per test image, sizes may differ.
        masks: bool (H, W) beside each; all False for a normal image.
        limit: largest false-positive rate, in (0, 1]. The area is divided by it, so that 1 is the best.

    Raises:
        InputError: as `PixelAccumulator.add` and `PixelAccumulator.result`, or one of the two runs out first.
    """
    pixels = PixelAccumulator()
    for score_map, mask in zip_longest(maps, masks):
        if score_map is None or mask is None:
            raise InputError("maps and masks must be equally many: give a mask to each map, all False for normal.")
        pixels.add(score_map, mask)
    return pixels.result(limit=limit).pro


class PixelAccumulator:
    """Collects the pixels of a test set, map by map, and measures them together.

    Keeps 4 bytes for a normal pixel and 8 for an anomalous one (8 and 12 with float64 maps).

    >>> pixels = PixelAccumulator()
    >>> pixels.add(np.array([[0.1, 0.2], [0.3, 0.9]]), np.array([[False, False], [False, True]]))
    >>> pixels.result().pro
    1.0
    """

    def __init__(self) -> None:
        self._normal = _Store()
        self._anomalous = _Store()
        self._region = _Store()
        self._sizes: list[npt.NDArray[np.intp]] = []
        self._regions = 0
        self._maps = 0
        self._without_mask = 0

    def add(self, score_map: Floats, mask: npt.NDArray[np.bool_] | None) -> None:
        """Take in one test image.

        Arguments:
            score_map: (H, W) float32 or float64, finite; higher is more anomalous.
            mask: (H, W) bool, True where defective; all False for a normal image. None for a defective image whose
                mask is missing: pixel measures are undefined from then on.

        Raises:
            InputError: dtype, shape or a value breaks a rule. Nothing is taken in then.
        """
        name = f"map {self._maps + 1}"
        _check_map(score_map, name)
        if mask is not None:
            _check_mask(mask, score_map.shape, name)
        self._maps += 1
        if mask is None:
            self._without_mask += 1
        elif not mask.any():
            self._normal.append(score_map.ravel())
        else:
            self._add_regions(score_map, mask)

    def _add_regions(self, score_map: Floats, mask: npt.NDArray[np.bool_]) -> None:
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
        region = labels[mask] - 1  # (p,) in this image; label 0 is what the mask leaves out
        sizes = np.bincount(region)
        self._normal.append(score_map[~mask])
        self._anomalous.append(score_map[mask])
        self._region.append((region + self._regions).astype(np.int32))
        self._sizes.append(sizes)
        self._regions += len(sizes)

    def result(self, *, limit: float = 0.3) -> Measures:
        """Measure all pixels taken in so far; more can be added afterwards.

        Arguments:
            limit: largest false-positive rate of PRO and of its curve, in (0, 1].

        Returns:
            Measures; all None, with the reason, where there are no regions, no normal pixels, or a mask was missing.

        Raises:
            InputError: `limit` is not in (0, 1].
        """
        limit = check_limit(limit)
        reason = self._undefined()
        if reason:
            return _nothing(reason)
        dtype = np.result_type(self._normal.dtype, self._anomalous.dtype)
        normal = self._normal.joined(dtype)
        anomalous = self._anomalous.joined(dtype)
        normal.sort()  # in place, also within the store: the order of normal pixels means nothing
        sizes = np.concatenate(self._sizes)
        pro, pro_curve = ranking.overlap(normal, anomalous, self._region.joined(), sizes, limit=limit)
        anomalous = np.sort(anomalous)  # a copy: the store's order goes with the region numbers
        ranks = ranking.rank(normal, anomalous)
        return _measures(ranks, ranking.roc_curve(normal, anomalous), pro=pro, pro_curve=pro_curve)

    def _undefined(self) -> str | None:
        if self._without_mask:
            return f"{self._without_mask} of the defective images have no mask"
        return _undefined(self._normal.size, self._anomalous.size)


class _Store:
    """A growing array in blocks. Joining frees each block once copied: the peak is the data and a block, not twice."""

    def __init__(self) -> None:
        self._blocks: list[npt.NDArray[Any]] = []
        self._filled = 0  # elements in use of the last block; all blocks before it are full
        self.size = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*self._blocks)

    def append(self, values: npt.NDArray[Any]) -> None:
        self.size += values.size
        while values.size:
            if not self._room_for(values.dtype):
                self._blocks[-1:] = [block[: self._filled] for block in self._blocks[-1:]]
                self._blocks.append(np.empty(STORE, values.dtype))
                self._filled = 0
            block = self._blocks[-1]
            taken = values[: block.size - self._filled]
            block[self._filled : self._filled + taken.size] = taken
            self._filled += taken.size
            values = values[taken.size :]

    def _room_for(self, dtype: np.dtype[Any]) -> bool:
        if not self._blocks or self._filled == self._blocks[-1].size:
            return False
        return np.can_cast(dtype, self._blocks[-1].dtype)

    def joined(self, dtype: np.dtype[Any] | None = None) -> npt.NDArray[Any]:
        """Return all values as one array, which stays the store's own."""
        dtype = self.dtype if dtype is None else dtype
        if len(self._blocks) == 1 and self._blocks[0].dtype == dtype:
            return self._blocks[0][: self._filled]
        whole = np.empty(self.size, dtype)
        blocks, self._blocks = self._blocks[::-1], [whole]
        blocks[0] = blocks[0][: self._filled]
        start = 0
        while blocks:
            block = blocks.pop()
            whole[start : start + block.size] = block
            start += block.size
        self._filled = whole.size
        return whole


def _undefined(normal: int, anomalous: int) -> str | None:
    if not normal and not anomalous:
        return NO_SCORES
    if not anomalous:
        return NO_DEFECTS
    return None if normal else NO_NORMALS


def _measures(
    ranks: ranking.Ranking,
    roc: Curve,
    *,
    pro: float | None = None,
    pro_curve: Curve | None = None,
    reasons: dict[str, str] | None = None,
) -> Measures:
    return Measures(ranks.auroc, ranks.ap, ranks.f1, ranks.f1_threshold, pro, reasons or {}, roc, pro_curve)


def _nothing(reason: str) -> Measures:
    return Measures(reasons=dict.fromkeys(("auroc", "ap", "f1", "f1_threshold", "pro"), reason))


def _split(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Normal and anomalous scores, as copies."""
    values, truth = np.asarray(scores), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise InputError(f"scores and labels must be 1-D and equally long, not {values.shape} and {truth.shape}.")
    if values.dtype not in (np.float32, np.float64):
        if values.dtype.kind not in "iufb" and values.size:
            raise InputError(f"scores must be numbers, not {values.dtype}.")
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("scores must be finite: found NaN or infinity. Leave out what could not be inspected.")
    if truth.dtype != np.bool_ and not np.isin(truth, (0, 1)).all():
        raise InputError("labels must be True or False (or 1 and 0), one per score; True means anomalous.")
    truth = truth.astype(np.bool_)
    return values[~truth], values[truth]


def _check_map(score_map: Floats, name: str) -> None:
    if not isinstance(score_map, np.ndarray) or score_map.dtype not in (np.float32, np.float64):
        found = getattr(score_map, "dtype", type(score_map).__name__)
        raise InputError(f"{name} must be a float32 or float64 array, not {found}: use .astype(np.float32).")
    if score_map.ndim != 2 or not score_map.size:
        raise InputError(f"{name} must have the shape (H, W), each at least 1, not {score_map.shape}.")
    if not np.isfinite(score_map).all():
        raise InputError(f"{name} must be finite: found NaN or infinity. Measures need a score for every pixel.")


def _check_mask(mask: npt.NDArray[np.bool_], shape: tuple[int, ...], name: str) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        found = getattr(mask, "dtype", type(mask).__name__)
        raise InputError(f"the mask of {name} must be a bool array, not {found}: compare it, for example mask > 0.")
    if mask.shape != shape:
        raise InputError(f"the mask of {name} has the shape {mask.shape}, its map {shape}: both must be equal.")


def check_limit(limit: float) -> float:
    """Return a limit of PRO's false-positive rate as a float. Raises InputError outside (0, 1]."""
    if isinstance(limit, bool) or not isinstance(limit, (int, float, np.floating)) or not 0.0 < limit <= 1.0:
        raise InputError(f"limit must lie above 0 and be at most 1, not {limit!r}: 0.3 is the usual rate.")
    return float(limit)
