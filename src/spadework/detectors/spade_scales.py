"""SPADE at several scales: each sees and searches the whole picture at its own size, and their maps are fused.

In: normal pictures. Out, for a new one: for each scale the distance of each place to the nearest normal descriptor, as SPADE has it; one map,
their mean, each scale divided by its weight. Weights come from normal pictures alone: a scale's is the median of the peaks of its maps of normal
pictures, each left out in turn. So 1 is usual for the highest place of a normal picture, at whatever scale, and none drowns another by its numbers.
Letters: `S` scales, the largest first; `H x W` the fine grid of the largest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import cv2
import numpy as np

from spadework import check
from spadework.calibration import choose_images
from spadework.detectors.costs import PREPARING, THRESHOLD, Growth
from spadework.detectors.explaining import Explanation
from spadework.detectors.features import NetworkDetector
from spadework.detectors.reading import Decoded, Progress, Seen
from spadework.detectors.spade import MAPS_FOR_PEAKS, SEARCHED, Spade
from spadework.errors import InputError
from spadework.gallery import Gallery
from spadework.images import Picture, View
from spadework.kernels import kernel_name
from spadework.prediction import Failure, Judgement, Prediction, Predictions
from spadework.pyramid import Pyramid
from spadework.sections import Section
from spadework.storage import ModelFolder

WEIGHTS = "scale_weights"  # their array in the model


@dataclass(frozen=True)
class SeenAtScales(Seen):
    """A picture as the largest scale sees it. coarser: as each of the others does."""

    coarser: tuple[Seen, ...] = ()


class SpadeScales(NetworkDetector):
    """SPADE at several scales in one model. For parts whose defects are of very different sizes.

    Args:
        backbone: as in `Spade`.
        weights: a local weights file of the network, as in `Spade`; the weights of the scales follow from the pictures.
        image_size: of the largest scale, as in `Spade`.
        scales: sides of the views relative to the largest: 1 first, then smaller ones.
        levels: as in `Spade`, at each scale.
        level_weights: as in `Spade`, at each scale.
        grid_stride: as in `Spade`, at each scale.
        pooling: as in `Spade`, at each scale.
        upsampling: as in `Spade`, at each scale.
        gallery_k: as in `Spade`, at each scale.
        kappa: as in `Spade`, at each scale.
        smoothing: sigma of the Gaussian on the map, in pixels of the largest view.
        max_false_alarms: as in `Spade`.
        calibration_images: as in `Spade`; with 0 there is no threshold, and 20 images are left out in turn to weigh the scales.
        storage: as in `Spade`.
        kernel: as in `Spade`.
        threads: as in `Spade`.
        seed: as in `Spade`.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("spade-scales")().fit("good/").predict("new.png").is_anomalous  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "spade-scales"
    summary: ClassVar[str] = "SPADE at several scales, their maps fused with weights from normal pictures"
    source: ClassVar[str] = "Cohen and Hoshen 2020, arXiv:2005.02357, at each scale; the fusion is Spadework's own"
    cannot: ClassVar[str] = "append, remove"
    cost: ClassVar[str] = "that of spade at its image_size, and a quarter more with a second scale of half the side"

    crop = None  # the whole picture is seen

    def __init__(
        self,
        backbone: str = "embedded",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: int | Sequence[int] | str = 512,
        scales: Sequence[float] = (1.0, 0.5),
        levels: Sequence[int] | None = None,
        level_weights: Sequence[float] | None = None,
        grid_stride: int = 8,
        pooling: int = 1,
        upsampling: str = "bilinear",
        gallery_k: int = 50,
        kappa: int = 1,
        smoothing: float = 8.0,
        max_false_alarms: float = 0.01,
        calibration_images: int = 100,
        storage: str = "float32",
        kernel: str = "auto",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.scales = scales
        self.levels = levels
        self.level_weights = level_weights
        self.grid_stride = grid_stride
        self.pooling = pooling
        self.upsampling = upsampling
        self.gallery_k = gallery_k
        self.kappa = kappa
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.calibration_images = calibration_images
        self.storage = storage
        self.kernel = kernel
        self.threads = threads
        self.seed = seed

    def _check_settings(self) -> None:
        self._check_scales()
        Spade(**self._shared(), image_size=self.image_size, smoothing=self.smoothing)._check_settings()

    def _check_scales(self) -> tuple[float, ...]:
        """The scales as numbers; raises InputError for what are none."""
        rule = f"scales must be a list of numbers that begins with 1 and falls, like 1, 0.5, not {self.scales!r}."
        if isinstance(self.scales, str) or not isinstance(self.scales, (Sequence, np.ndarray)) or len(self.scales) == 0:
            raise InputError(rule)
        found = tuple(check.not_negative(each, "scales") for each in self.scales)
        if found[0] != 1 or found[-1] == 0 or any(b >= a for a, b in pairwise(found)):
            raise InputError(rule)
        return found

    # ---- one Spade a scale -------------------------------------------------------------------------------------------------

    def _shared(self) -> dict[str, Any]:
        """The settings that are the same at each scale."""
        known = {*Spade.setting_names()} - {"image_size", "smoothing"}
        return {name: getattr(self, name) for name in self.setting_names() if name in known}

    def _views(self) -> list[View]:
        """What each scale sees."""
        whole = self._view()
        scales: Sequence[float] = getattr(self, "scales_", None) or self._check_scales()
        return [replace(whole, resize=_scaled(whole.size, scale, whole.step)) for scale in scales]

    def _parts(self) -> list[Spade]:
        """One Spade a scale, with these settings and, once there are any, the normal pictures as that scale sees them."""
        parts, shared, views = [], self._shared(), self._views()
        for index, view in enumerate(views):
            size = list(view.size)
            part = Spade(**shared, image_size=size, smoothing=self.smoothing * view.size[0] / views[0].size[0])
            part.canvas_, part.canvas_of_ = view, size
            if hasattr(self, "backbone_"):
                part.backbone_ = self.backbone_
            if hasattr(self, "galleries_"):
                part.gallery_ = self.galleries_[index]
            parts.append(part)
        return parts

    def _choose_canvas(self, pictures: Sequence[Picture]) -> View | None:
        if self.backbone_.fixed_size is not None and len(self._check_scales()) > 1:
            raise InputError(
                f"scales: {self.backbone_.name} takes pictures of {self.backbone_.fixed_size} only, so it has one scale. Use another network, or spade."
            )
        found = super()._choose_canvas(pictures)
        assert found is not None  # only a crop has none
        for scale in self._check_scales():
            self.backbone_.check_size(*_scaled(found.size, scale, found.step))
        return found

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _see_one(self, name: str, picture: Picture, decoded: Decoded) -> Seen | Failure:
        """As the base, at each scale."""
        found: list[Seen] = []
        for part in self._parts():
            if found:
                decoded = Future()
                decoded.set_result((found[0].image, part._view().see(found[0].image)))
            seen = part._see_one(name, picture, decoded)
            if isinstance(seen, Failure):
                return seen
            found.append(seen)
        return SeenAtScales(name, found[0].image, found[0].view, found[0].pyramid, tuple(found[1:]))

    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        parts = self._parts()
        sections = [Section(folder, _section(index)) for index in range(len(parts))]
        galleries: list[Gallery] = []
        for seen in normal:
            pyramids = _pyramids(seen)
            if not galleries:
                galleries = [
                    part._new_gallery(section, first)
                    for part, section, first in zip(parts, sections, pyramids, strict=True)
                ]
            for gallery, pyramid in zip(galleries, pyramids, strict=True):
                gallery.append(pyramid, name=seen.name, image=seen.image, sha256=seen.pixel_hash, threads=self.threads)
        for gallery, section in zip(galleries, sections, strict=False):  # no gallery where no picture could be used
            gallery.complete(threads=self.threads, progress=partial(self._tell, PREPARING))
            section.join()
        folder.header["scales"] = list(self._check_scales())

    def _open(self, folder: ModelFolder) -> None:
        self.scales_ = tuple(float(scale) for scale in folder.header["scales"])
        weighed = WEIGHTS in folder.header["arrays"]  # not yet while it is fitted
        self.scale_weights_ = np.array(folder.read(WEIGHTS)) if weighed else np.ones(len(self.scales_))
        opened = []
        for index, part in enumerate(self._parts()):
            part._open(Section(folder, _section(index)))
            opened.append(part.gallery_)
        self.galleries_ = opened
        self.gallery_ = opened[0]  # the normal pictures, for those who show them

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _judge(self, seen: Seen) -> Judgement:
        assert isinstance(seen, SeenAtScales)
        each = (seen, *seen.coarser)
        return self._fused([part._judge(one) for part, one in zip(self._parts(), each, strict=True)], seen.image.shape)

    def _fused(self, judged: Sequence[Judgement], shape: Sequence[int]) -> Judgement:
        """Of one picture of `shape`: the fused distances, and what the largest scale tells beside."""
        maps = [_map_of(each) for each in judged]
        places = [
            view.cells(tuple(shape), (each.shape[0], each.shape[1]))
            for view, each in zip(self._views(), maps, strict=True)
        ]
        return replace(judged[0], distances=fuse(maps, places, self.scale_weights_))

    def _normal_scores(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
        """Weigh the scales, then score each image against all the others, from what the galleries hold of it."""
        parts, count = self._parts(), len(self.gallery_)
        most = int(self.calibration_images) or MAPS_FOR_PEAKS
        chosen = choose_images(count, most, self.seed) if count > 1 else np.arange(0)
        shapes = [self.gallery_.entries[int(index)].size for index in chosen]
        judged, peaks = [], []
        for done, (index, shape) in enumerate(zip(map(int, chosen), shapes, strict=True), 1):
            judged.append([replace(part.judge_normal(index, None), correspondence=None) for part in parts])
            peaks.append([part._scores(each, shape)[0] for part, each in zip(parts, judged[-1], strict=True)])
            if progress:
                progress(THRESHOLD, done, len(chosen))
        self.scale_weights_ = weigh(np.array(peaks, np.float64).reshape(-1, len(parts)))
        if not self.calibration_images:
            return np.empty(0), np.empty(0)
        fused = [self._scores(self._fused(each, shape), shape)[0] for each, shape in zip(judged, shapes, strict=True)]
        return np.array(fused, np.float64), np.array(fused, np.float64)

    def _calibrate(self, folder: ModelFolder, progress: Progress | None) -> None:
        super()._calibrate(folder, progress)
        folder.replace(WEIGHTS, self.scale_weights_)

    def verify(self) -> None:
        """Read the whole model and check every checksum. Raises ModelError at the first damage."""
        super().verify()
        for gallery in self.galleries_:
            gallery.verify()

    # ---- explaining --------------------------------------------------------------------------------------------------------

    def explain(self, prediction: Prediction | Predictions, y: int, x: int, *, patch: int = 48) -> Explanation:
        """Show the normal place that the largest scale compared a place of a picture with; its distance is that scale's alone.

        Args:
            prediction: as in `Spade.explain`.
            y, x: as in `Spade.explain`.
            patch: as in `Spade.explain`.

        Raises:
            InputError: as in `Spade.explain`.
        """
        self._check_fitted()
        return self._parts()[0].explain(prediction, y, x, patch=patch)

    def explain_regions(self, prediction: Prediction | Predictions, *, limit: int = 3) -> tuple[Explanation, ...]:
        """Explain the peaks of the highest regions, as `Spade.explain_regions`, from the largest scale.

        Args:
            prediction: of this model.
            limit: at most so many.

        Raises:
            InputError: the prediction has no map or no correspondence.
        """
        self._check_fitted()
        return self._parts()[0].explain_regions(prediction, limit=limit)

    # ---- what it costs -----------------------------------------------------------------------------------------------------

    def _stages(self, count: int) -> dict[str, Growth]:
        left_out = min(count, int(self.calibration_images) or MAPS_FOR_PEAKS)
        threshold = replace(self._inspecting(count - 1), steps=left_out)
        prepared = count * len(self.scales) if kernel_name(self.kernel) == "pruned" else 0
        return super()._stages(count) | {THRESHOLD: threshold, PREPARING: Growth(prepared)}

    def _inspecting(self, count: int) -> Growth:
        return Growth(1, max(1, min(count, int(self.gallery_k))), SEARCHED)

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        """What each scale's search holds, its share of the arrays that of its area."""
        own: dict[str, float] = {}
        for name, size in sizes.items():
            own[name.rpartition(".")[2]] = own.get(name.rpartition(".")[2], 0.0) + size
        areas = np.square(self._check_scales())
        spade = Spade(**self._shared())
        shares = [float(area) for area in areas / areas.sum()]
        return sum(spade._resident(count, {name: size * share for name, size in own.items()}) for share in shares)


def weigh(peaks: np.ndarray) -> np.ndarray:
    """Return the weight of each scale, float64 (S,): the median of its column of `peaks` (n, S); 1 where that is 0 or there are none."""
    if not len(peaks):
        return np.ones(peaks.shape[1])
    medians = np.median(peaks, axis=0)
    return np.where(medians > 0, medians, 1.0)


def fuse(maps: Sequence[np.ndarray], places: Sequence[tuple[slice, slice]], weights: np.ndarray) -> np.ndarray:
    """Return the mean of maps, each divided by its weight: float64 (H, W), on the grid of the first.

    Args:
        maps: S maps of distances, each on its own grid.
        places: where each shows the picture; that part of a coarser one is brought to the first's, bilinear. Outside, the first stands alone.
        weights: (S,), above 0.
    """
    fused = np.asarray(maps[0] / weights[0], np.float64)
    height, width = fused[places[0]].shape
    shown = [
        cv2.resize(np.asarray(found[place], np.float64), (width, height), interpolation=cv2.INTER_LINEAR) / weight
        for found, place, weight in zip(maps, places, weights, strict=True)
    ]
    fused[places[0]] = np.mean(shown, axis=0)
    return fused


def _pyramids(seen: Seen) -> list[Pyramid]:
    assert isinstance(seen, SeenAtScales)
    found = [each.pyramid for each in (seen, *seen.coarser)]
    return [pyramid for pyramid in found if pyramid is not None]  # needs == "pyramid": none is None


def _map_of(judged: Judgement) -> np.ndarray:
    assert judged.distances is not None  # SPADE always has a map
    return judged.distances


def _scaled(size: tuple[int, int], scale: float, step: int) -> tuple[int, int]:
    height, width = (max(1, round(side * scale / step)) * step for side in size)
    return height, width


def _section(index: int) -> str:
    return f"scale-{index + 1}"
