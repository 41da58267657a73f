"""Run a fitted detector over a test set and measure it: one row of numbers, curves to draw, cases worth a look.

In: a detector, a category of a data set. Out: `Evaluation`. Maps are taken up by the measures one at a time and let go.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spadework import check
from spadework.datasets import Category, Sample
from spadework.detectors.base import Detector
from spadework.detectors.reading import Progress
from spadework.errors import InputError
from spadework.images import read_image, shrink
from spadework.metrics import Curve, Measures, PixelAccumulator, check_limit, image_measures
from spadework.prediction import Failure, Prediction

PICTURE_SIDE = 480  # longer side of the pictures that a case keeps
CASES = 4  # of each kind
KINDS_OF_CASES = 4
MEASURING, DRAWING = "measuring", "gathering cases"
PATCHES = 3  # matched patches a case shows
RESOLUTIONS = frozenset({"original", "view"})
MEASURES = ("image_auroc", "pixel_auroc", "pro", "image_ap", "pixel_ap", "image_f1", "pixel_f1")


@dataclass(frozen=True)
class MatchedPatch:
    """A suspicious place beside the normal place it was compared with.

    box: (y0, x0, y1, x1) in the case's `picture`. picture_patch, normal_patch: uint8 (h, w, 3).
    """

    region: int
    box: tuple[int, int, int, int]
    picture_patch: np.ndarray
    normal_patch: np.ndarray
    normal_name: str
    distance: float


@dataclass(frozen=True)
class Case:
    """A test picture worth a look; `picture`, `score_map` and `mask` share one size, the longer side at most PICTURE_SIDE.

    why: "missed", "false alarm", "doubtful" (nearest the threshold) or "worst" (highest score).
    """

    path: str
    kind: str
    is_anomalous: bool
    score: float
    verdict: bool | None
    picture: np.ndarray
    score_map: np.ndarray | None
    mask: np.ndarray | None
    matches: tuple[MatchedPatch, ...]
    why: str


@dataclass(frozen=True)
class Evaluation:
    """What a test showed. `row` holds the numbers (null where undefined, with the reason under "reasons"); the rest is for drawing.

    `row["n_test_learnt"]` counts test pictures that the model was fitted on: above 0, the measures say nothing about new pictures.
    """

    row: dict[str, Any]
    image_scores: np.ndarray
    image_labels: np.ndarray
    kinds: tuple[str, ...]
    paths: tuple[str, ...]
    threshold: float | None
    max_false_alarms: float | None
    promised_false_alarms: float | None
    map_threshold: float | None
    image_roc: Curve | None
    pixel_roc: Curve | None
    pro_curve: Curve | None
    cases: tuple[Case, ...]

    @property
    def counts(self) -> dict[str, int] | None:
        """Pictures at the threshold: "false_alarms" of "normal", "found" of "anomalous"; None without a threshold."""
        if self.threshold is None:
            return None
        alarm, bad = self.image_scores > self.threshold, self.image_labels
        found = {"false_alarms": alarm & ~bad, "normal": ~bad, "found": alarm & bad, "anomalous": bad}
        return {name: int(which.sum()) for name, which in found.items()}


def evaluate(
    detector: Detector,
    category: Category,
    *,
    pro_limit: float = 0.3,
    resolution: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Inspect a category's test pictures and measure the answers. Nothing is fitted on them.

    Args:
        detector: fitted.
        category: of `open_dataset(root).categories`.
        pro_limit: false-positive rate up to which PRO is integrated.
        resolution: "original" compares maps and masks at the picture's size; "view" at the network's, as the paper does. None takes
            "view" for a detector that crops, else "original".
        progress: called with (what, done, total).

    Raises:
        InputError: a test picture or mask cannot be used; a measure of part of a test set would mislead.
    """
    resolution = check_measuring(detector, pro_limit, resolution)
    pixels, picked = PixelAccumulator(), _Picker(detector.threshold_.value)
    scores, seconds, learnt = [], 0.0, 0
    has_maps, has_masks = False, True
    started = time.perf_counter()
    samples = category.test
    for sample, found in zip(samples, detector.predict_each([s.path for s in samples], progress=progress), strict=True):
        if isinstance(found, Failure):
            raise found.error
        seconds += time.perf_counter() - started
        scores.append(found.score)
        learnt += bool(found.nearest_images and found.nearest_images[0][1] == 0.0)
        mask = sample.read_mask(found.size)
        has_masks &= mask is not None
        score_map = found.score_map if resolution == "original" else found.view_map
        if score_map is not None and has_masks and mask is not None:
            has_maps = True
            pixels.add(score_map, mask if resolution == "original" else detector._view().see_mask(mask))
        picked.add(sample, found)
        started = time.perf_counter()
    labels = np.array([sample.is_anomalous for sample in samples], bool)
    image = image_measures(np.array(scores, np.float64), labels)
    pixel = pixels.result(limit=pro_limit) if has_maps and has_masks else None
    if progress:
        progress(MEASURING, 1, 1)
    cases = []
    for why, sample, found in picked.chosen():
        cases.append(_case(detector, why, sample, found))
        if progress:
            progress(DRAWING, len(cases), len(picked.chosen()))
    why_none = no_map(detector) if has_masks else "the data set has no masks for its anomalous pictures"
    return Evaluation(
        row=_row(detector, category, image, pixel, why_none)
        | {
            "pro_limit": pro_limit,
            "resolution": resolution,
            "n_test_learnt": learnt,
            "predict_seconds_per_image": round(seconds / max(1, len(samples)), 4),
        },
        image_scores=np.array(scores, np.float64),
        image_labels=labels,
        kinds=tuple(sample.kind for sample in samples),
        paths=tuple(os.fspath(sample.path) for sample in samples),
        threshold=detector.threshold_.value,
        max_false_alarms=detector.threshold_.asked,
        promised_false_alarms=detector.threshold_.promised,
        map_threshold=detector.map_threshold_.value,
        image_roc=image.roc,
        pixel_roc=pixel.roc if pixel else None,
        pro_curve=pixel.pro_curve if pixel else None,
        cases=tuple(cases),
    )


def check_measuring(detector: Detector, pro_limit: float, resolution: str | None) -> str:
    """Return the resolution that `evaluate` compares pixels at, before any work is done.

    Raises:
        InputError: a limit outside (0, 1], an unknown resolution, or the original one for a detector that crops.
    """
    check_limit(pro_limit)
    cropped = detector._view().crop is not None
    resolution = check.one_of(resolution or ("view" if cropped else "original"), "resolution", RESOLUTIONS)
    if cropped and resolution == "original":
        raise InputError(
            "resolution 'original' needs a map of the whole picture, and this detector crops: take 'view'."
        )
    return resolution


def no_map(detector: Detector) -> str:
    """Return why a detector gives no map, with what else it cannot do, in words."""
    return f"{detector.name} gives no map" + (f"; it cannot do: {detector.cannot}" if detector.cannot else "")


def _row(
    detector: Detector, category: Category, image: Measures, pixel: Measures | None, why_none: str
) -> dict[str, Any]:
    from spadework import __version__

    reasons = {f"image_{key}": why for key, why in image.reasons.items() if key in {"auroc", "ap", "f1"}}
    if pixel is None:
        reasons |= dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1", "pro"), why_none)
    else:
        reasons |= {("pro" if key == "pro" else f"pixel_{key}"): why for key, why in pixel.reasons.items()}
    backbone = detector.folder_.header["backbone"]
    tuning = detector.folder_.header.get("tuning")
    return {
        "dataset": category.dataset,
        "root": os.fspath(category.root),
        "category": category.name,
        "detector": detector.name,
        "backbone": backbone["name"] if backbone else None,
        "settings": detector.settings(),
        "scale": detector.scale,
        "n_train": detector.n_normal_,
        "n_test": len(category.test),
        "image_auroc": image.auroc,
        "pixel_auroc": pixel.auroc if pixel else None,
        "pro": pixel.pro if pixel else None,
        "image_ap": image.ap,
        "pixel_ap": pixel.ap if pixel else None,
        "image_f1": image.f1,
        "pixel_f1": pixel.f1 if pixel else None,
        "fit_seconds": _rounded(getattr(detector, "fit_seconds_", None)),
        "predict_seconds_per_image": None,
        "peak_memory_mb": peak_memory_mb(),
        "model_mb": model_mb(detector),
        "model_hash": detector.model_hash(),
        "backbone_hash": backbone["hash"] if backbone else None,
        "spadework": __version__,
        "reasons": reasons,
    } | ({"tuning": tuning} if tuning else {})


def failed_row(category: Category, detector: str, settings: dict[str, Any], reason: str) -> dict[str, Any]:
    """Return a row of nulls for a run that ended with an error; "error" says why."""
    from spadework import __version__

    known: dict[str, Any] = {"dataset": category.dataset, "root": os.fspath(category.root), "category": category.name}
    known |= {"detector": detector, "settings": settings, "scale": None}
    empty = dict.fromkeys(
        ("backbone", *MEASURES, "fit_seconds", "predict_seconds_per_image", "peak_memory_mb", "model_mb")
    )
    counts = {"n_train": len(category.train), "n_test": len(category.test), "spadework": __version__}
    return known | counts | empty | {"error": reason, "reasons": dict.fromkeys(empty, reason)}


def model_mb(detector: Detector) -> float:
    """Size of a fitted model's folder in MiB."""
    folder = detector.folder_.path
    return round(sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 2**20, 2)


def peak_memory_mb() -> float | None:
    """Highest resident memory of this process so far, in MiB; None where the system does not tell."""
    with contextlib.suppress(
        OSError
    ):  # Linux; what `getrusage` says there begins with the peak of the process that started this one
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


class _Picker:
    """Keeps the few predictions worth a look while the many go by."""

    def __init__(self, threshold: float | None) -> None:
        self.threshold = threshold
        self.kept: dict[str, list[tuple[float, int, Sample, Prediction]]] = {}
        self.count = 0

    def add(self, sample: Sample, found: Prediction) -> None:
        self.count += 1
        self._keep("worst", -found.score, sample, found)
        if self.threshold is None:
            return
        self._keep("doubtful", abs(found.score - self.threshold), sample, found)
        if sample.is_anomalous and not found.is_anomalous:
            self._keep("missed", found.score, sample, found)
        if found.is_anomalous and not sample.is_anomalous:
            self._keep("false alarm", -found.score, sample, found)

    def _keep(self, why: str, rank: float, sample: Sample, found: Prediction) -> None:
        kept = self.kept.setdefault(why, [])
        kept.append((rank, self.count, sample, found))
        kept.sort(key=lambda item: item[:2])
        del kept[CASES:]

    def chosen(self) -> list[tuple[str, Sample, Prediction]]:
        """Each picture once, under its most telling reason."""
        taken, out = set(), []
        for why in ("missed", "false alarm", "doubtful", "worst"):
            for _, number, sample, found in self.kept.get(why, []):
                if number not in taken:
                    taken.add(number)
                    out.append((why, sample, found))
        return out


def _case(detector: Detector, why: str, sample: Sample, found: Prediction) -> Case:
    original = read_image(sample.path)
    picture = shrink(original, PICTURE_SIDE)
    mask = sample.read_mask(found.size)
    return Case(
        path=os.fspath(sample.path),
        kind=sample.kind,
        is_anomalous=sample.is_anomalous,
        score=found.score,
        verdict=found.is_anomalous,
        picture=picture,
        score_map=None if found.score_map is None else _to_size(found.score_map, picture.shape),
        mask=None if mask is None else _to_size(mask.astype(np.float32), picture.shape) >= 0.5,
        matches=matched_patches(detector, found, original, picture.shape),
        why=why,
    )


def _to_size(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    import cv2

    return np.asarray(cv2.resize(array, (shape[1], shape[0]), interpolation=cv2.INTER_AREA))


def matched_patches(
    detector: Detector, found: Prediction, original: np.ndarray, shape: Sequence[int], *, limit: int = PATCHES
) -> tuple[MatchedPatch, ...]:
    """Return the normal places that the highest regions were matched with; without a region, the map's highest place.

    Args:
        detector: that made `found`.
        found: the prediction.
        original: its picture, uint8 (H, W, 3).
        shape: (height, width) of the picture whose pixels the boxes shall be in.
        limit: at most so many.
    """
    explain_regions = getattr(detector, "explain_regions", None)
    if explain_regions is None or found.score_map is None:
        return ()
    sy, sx = shape[0] / original.shape[0], shape[1] / original.shape[1]
    out = []
    for region, match in enumerate(explain_regions(found, limit=limit)):
        y0, x0, y1, x1 = match.box
        box = (int(y0 * sy), int(x0 * sx), round(y1 * sy), round(x1 * sx))
        patch = original[y0:y1, x0:x1].copy()
        out.append(MatchedPatch(region, box, patch, match.normal_patch, match.name, match.distance))
    return tuple(out)
