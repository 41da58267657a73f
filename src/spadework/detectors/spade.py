"""SPADE: sub-image anomaly detection with deep pyramid correspondences.

In: normal pictures. Out, for a new one: the nearest normal images, for each place the nearest normal descriptor, its distance as a map.
Letters as in `spadework.pyramid`; `K` nearest images.
Source: Cohen and Hoshen 2020, arXiv:2005.02357, section 3. `Spade.paper()` is its configuration.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from spadework import check
from spadework.backbones import open_backbone
from spadework.calibration import choose_images
from spadework.correspondence import MATCHINGS, correspond, correspond_tiles
from spadework.detectors.costs import ON_TRIAL, PREPARING, THRESHOLD, Growth
from spadework.detectors.explaining import Explanation, cut, grid_place, patch_box
from spadework.detectors.features import PyramidDetector
from spadework.detectors.placing import Alignment, measure, warn_of_harm, window_of
from spadework.detectors.reading import Progress, Seen, gather_normal
from spadework.errors import InputError
from spadework.gallery import STORAGE_TYPES, Gallery
from spadework.images import Picture
from spadework.kernels import KERNELS, kernel_name, pruned, thread_count, window
from spadework.kernels.team import Team
from spadework.kernels.window import Window
from spadework.prediction import Judgement, Prediction, Predictions
from spadework.pyramid import Pyramid
from spadework.retrieval import Likely
from spadework.search_index import HELD_BYTES
from spadework.storage import ModelFolder
from spadework.tiling import Tiling

IMAGE_SCORES = frozenset({"map", "nearest-images"})
# With what power of the images searched a search's time grows: little where most are passed over, 1 in noise.
SEARCHED = (0.1, 1.0)
MAPS_FOR_PEAKS = 20  # where the image score needs no map, this many maps are searched to set the map threshold


class Spade(PyramidDetector):
    """SPADE. The defaults are for daily use: embedded backbone, whole picture, image score from the map.

    Args:
        backbone: "embedded", a path to an ONNX file, "timm:NAME" or "torchvision:NAME"; see `spadework backbones`.
        weights: a local weights file for "timm:" and "torchvision:".
        image_size: how large pictures are seen: the side of a square of the same area, "auto" for what their own size asks for, or
            (height, width), multiples of the network's coarsest stride (16). Aspect is kept; see docs/resolution.md.
        crop: keep only the centre, one side or (height, width); the resize then keeps the aspect of the shorter side, as in the paper.
        levels: which levels to use, counted from 1 at the finest; None for all.
        level_weights: how much each of them counts in a squared distance, against what the network gives it: one number a level; None for 1 each.
        grid_stride: stride of the fine grid in pixels of the view. 4 is the paper's; 8 searches 16 times fewer pairs.
        pooling: average each feature over a neighbourhood of this many positions of its own grid; 1 for none, as in the paper.
        pyramid: "concatenate" searches the levels jointly, "ensemble" each on its own.
        upsampling: how coarser levels reach the fine grid, "bilinear" or "nearest".
        image_k: nearest images in the image score "nearest-images".
        gallery_k: nearest images whose descriptors are searched.
        kappa: nearest descriptors whose mean squared distance is the score of a place.
        search_radius: for parts that lie alike in all pictures: each place is compared only with what lies at most so many pixels of the
            picture from the same place; finds a right thing in the wrong place, and faster. None compares with everything.
        image_score: "map", the highest value of the smoothed map, or "nearest-images", the mean squared distance to the
            `image_k` nearest global vectors.
        smoothing: sigma of the Gaussian on the map, in pixels of the view.
        wide_smoothing: sigma of a second, wider one, in pixels of the view; the map is then the mean of both: small flaws stand out by the one,
            large faint ones by the other. None for no other.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        calibration_images: at most this many normal images are left out in turn to set the threshold; 0 for no threshold.
        storage: "float32", or "float16" for half the room.
        kernel: "auto", "pruned" (compiled), "blocked" or "reference".
        threads: of the network and of the search; None for the environment's SPADEWORK_THREADS or all cores.
        seed: of the draw of calibration images.

    Example:
        >>> from spadework import Spade  # doctest: +SKIP
        >>> Spade().fit("good/").predict("new.png").is_anomalous  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "spade"
    summary: ClassVar[str] = (
        "nearest descriptors of a feature pyramid among the nearest normal images; map, image score, explanation"
    )
    source: ClassVar[str] = "Cohen and Hoshen 2020, arXiv:2005.02357"
    cost: ClassVar[str] = "fit: forward passes, all features kept; a picture: a forward pass and an exact search"

    def __init__(
        self,
        backbone: str = "embedded",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: int | Sequence[int] | str = "auto",
        crop: int | Sequence[int] | None = None,
        levels: Sequence[int] | None = None,
        level_weights: Sequence[float] | None = None,
        grid_stride: int = 8,
        pooling: int = 1,
        pyramid: str = "concatenate",
        upsampling: str = "bilinear",
        image_k: int = 50,
        gallery_k: int = 50,
        kappa: int = 1,
        search_radius: float | None = None,
        image_score: str = "map",
        smoothing: float = 4.0,
        wide_smoothing: float | None = None,
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
        self.crop = crop
        self.levels = levels
        self.level_weights = level_weights
        self.grid_stride = grid_stride
        self.pooling = pooling
        self.pyramid = pyramid
        self.upsampling = upsampling
        self.image_k = image_k
        self.gallery_k = gallery_k
        self.kappa = kappa
        self.search_radius = search_radius
        self.image_score = image_score
        self.smoothing = smoothing
        self.wide_smoothing = wide_smoothing
        self.max_false_alarms = max_false_alarms
        self.calibration_images = calibration_images
        self.storage = storage
        self.kernel = kernel
        self.threads = threads
        self.seed = seed

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Return the paper's configuration: Wide-ResNet-50-2 with torchvision's V1 weights, resize 256, centre crop 224, grids
        56, 28 and 14, both K = 50, kappa = 1, image score from the nearest images, sigma 4. `changes` replace single settings."""
        settings: dict[str, Any] = {
            "backbone": "timm:wide_resnet50_2.tv_in1k",
            "image_size": 256,
            "crop": 224,
            "grid_stride": 4,
            "image_score": "nearest-images",
        }
        return cls(**{**settings, **changes})

    def _check_settings(self) -> None:
        self._check_features()
        for name in ("image_k", "gallery_k", "kappa"):
            check.positive_int(getattr(self, name), name)
        for name, choices in (
            ("pyramid", MATCHINGS),
            ("image_score", IMAGE_SCORES),
            ("storage", STORAGE_TYPES.keys()),
            ("kernel", {"auto", *KERNELS}),
        ):
            check.one_of(getattr(self, name), name, choices)
        if self.search_radius is not None:
            check.not_negative(self.search_radius, "search_radius")
        check.share(self.max_false_alarms, "max_false_alarms")
        check.whole(self.calibration_images, "calibration_images")
        check.whole(self.seed, "seed")

    def _tune(
        self, pictures: list[Picture], minutes: float, progress: Progress | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        from spadework.rehearsal import rehearse  # it lets detectors judge

        weights = None if self.weights is None else Path(self.weights)
        network = open_backbone(os.fspath(self.backbone), weights=weights, threads=self.threads)
        earlier = self.folder_.header.get("tuning", {}).get("chosen", {}) if hasattr(self, "folder_") else {}
        start = self.settings()
        for name in earlier:
            if start[name] == earlier[name]:  # a tuning chose it, nobody asked for it
                start[name] = getattr(Spade(), name)
        found = rehearse(pictures, start, network, minutes=minutes, seed=self.seed, progress=progress)
        suited = {**start, **found.chosen}
        return {name: suited[name] for name in {*earlier, *found.chosen}}, {"tuning": found.to_json()}

    # ---- what it costs -------------------------------------------------------------------------------------------------------

    def _stages(self, count: int) -> dict[str, Growth]:
        most = self._calibrating(count) if self.image_score == "map" else min(self._calibrating(count), MAPS_FOR_PEAKS)
        stages = super()._stages(count) | {THRESHOLD: replace(self._inspecting(count - 1), steps=most)}
        return stages | ({PREPARING: Growth(count)} if self._prunes() else {})

    def _inspecting(self, count: int) -> Growth:
        return Growth(1, max(1, min(count, int(self.gallery_k))), SEARCHED)

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        """Of the mapped gallery: what the search index holds, at least what one search needs."""
        rows = max(count, sizes.get("pyramid_checks", 0.0) / 4)  # one a tile
        row = (sizes.get("pyramids", 0.0) * (3 if self.storage == "float16" else 1) + sizes.get("codes", 0.0)) / rows
        return min(rows * row, max(HELD_BYTES, (int(self.gallery_k) + 1) * row))

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        gallery: Gallery | None = None
        for seen in normal:
            assert seen.pyramid is not None  # needs == "pyramid"
            gallery = self._new_gallery(folder, seen.pyramid) if gallery is None else gallery
            gallery.append(seen.pyramid, name=seen.name, image=seen.image, sha256=seen.pixel_hash, threads=self.threads)
        if gallery is not None:
            gallery.complete(threads=self.threads, progress=partial(self._tell, PREPARING))

    def _new_gallery(self, folder: ModelFolder, first: Pyramid) -> Gallery:
        """An empty gallery, as these settings want it."""
        codes = self.upsampling if self._prunes() else None
        return Gallery.create(folder, first, storage=self.storage, codes=codes, tiling=self._tiling())

    def _tiling(self) -> Tiling | None:
        """How a large canvas is cut; None for the paper's view, where one tile is all, and where a search radius bounds the search."""
        view = self._view()
        if not view.pad or self.search_radius is not None:
            return None
        tiling = Tiling.plan(view.size, multiple=self.backbone_.multiple)
        return tiling if len(tiling) > 1 else None

    def _prunes(self) -> bool:
        """Whether searches use the kernel that wants a search index."""
        return self.pyramid == "concatenate" and kernel_name(self.kernel) == "pruned"

    def _open(self, folder: ModelFolder) -> None:
        self.gallery_ = Gallery(folder)
        if self._prunes():
            (pruned if self.search_radius is None else window).warm_up()  # now, not in the first request

    def _known_pictures(self) -> set[str]:
        return {entry.sha256 for entry in self.gallery_.entries} if hasattr(self, "gallery_") else set()

    def append(
        self,
        images: Picture | Iterable[Picture],
        *,
        bad_files: str = "raise",
        progress: Progress | None = None,
        names: Sequence[str] | None = None,
    ) -> Self:
        """Add normal pictures in about one and a half forward passes each. Scores then equal those of a fresh fit on the union.

        With image_score "map" thresholds stay where they are: more normal images lower scores, so the promise still holds; beyond
        `gallery_k` images (or tiles) a new one can push another out of the nearest and raise a score a little. `recalibrate` sets it
        anew. With "nearest-images" the image threshold is set anew, for a mean over few images can also rise.
        A model on disk is changed at once, completely or not at all.

        Args:
            images: as in `fit`; pictures that the model holds already are passed over.
            bad_files: as in `fit`; with "raise" nothing is added if any picture cannot be used.
            progress: called with (what, done, total).
            names: what explanations call them, one a picture; None for their paths.
        """
        check.one_of(bad_files, "bad_files", {"raise", "skip"})
        folder = self._check_fitted()
        pictures = gather_normal(images)
        if names is not None and len(names) != len(pictures):
            raise InputError(f"names must be one a picture: {len(names)} names came for {len(pictures)} pictures.")
        self._open_backbone()
        try:
            with folder.writing():
                for seen in self._see_normal(pictures, folder, bad_files, progress, "appending", names):
                    assert seen.pyramid is not None  # needs == "pyramid"
                    self.gallery_.append(
                        seen.pyramid, name=seen.name, image=seen.image, sha256=seen.pixel_hash, threads=self.threads
                    )
                self.gallery_.complete(threads=self.threads)
                if self.image_score == "nearest-images":
                    grown = Gallery(folder)
                    folder.replace("normal_scores", self._vector_scores(grown, self._left_out(grown)))
                    self._scored(grown)
                folder.commit()
        finally:  # whatever stands on disk now, that is what the model is
            self.gallery_.refresh()
            self._read_calibration()
        return self

    def remove(
        self, pictures: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, progress: Progress | None = None
    ) -> Self:
        """Take normal pictures out. Scores, matches and thresholds then equal those of a fresh fit on the rest.

        Fewer normal images can only raise scores with image_score "map", so no old threshold would keep its promise: both are always
        set anew, from the pyramids that are kept. That costs up to `calibration_images` searches, no forward pass; what stays is copied
        once on disk (1.3 MiB a picture with the defaults) in little memory. A model on disk is changed at once, completely or not at all; who
        has it open goes on with what he opened. Where pictures were appended without `recalibrate`, thresholds also take up those.

        Args:
            pictures: which: names as explanations tell them, or hashes of the pixels (`pixel_hash`; the first 8 digits or more).
            progress: called with (what, done, total).

        Raises:
            InputError: the model has no such picture or several, or none would be left; nothing is removed.
        """
        folder = self._check_fitted()
        wanted = [pictures] if isinstance(pictures, (str, os.PathLike)) else list(pictures)
        try:
            with folder.writing():
                gone = self.gallery_.find(os.fspath(picture) for picture in wanted)
                if len(gone) == len(self.gallery_):
                    raise InputError(
                        f"all {len(gone)} normal pictures would be gone: at least one must stay. Fit a new model instead."
                    )
                rate = self._rate()
                self.gallery_.remove(gone)
                folder.header["n_normal"] = len(self.gallery_) - len(gone)
                self.gallery_ = Gallery(folder)
                self._calibrate(folder, progress)
                folder.header["calibration"]["max_false_alarms"] = rate
                folder.commit()
        finally:  # whatever stands on disk now, that is what the model is
            self.gallery_ = Gallery(folder)
            self._read_calibration()
        return self

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _judge(self, seen: Seen, *, exclude: int | slice | None = None) -> Judgement:
        assert seen.pyramid is not None  # needs == "pyramid"
        tiling = self.gallery_.tiling
        tiles = None if tiling is None else tiling.cut(seen.pyramid.levels)
        return self._judge_pyramid(
            seen.pyramid, tiles, window_of(self.search_radius, self._view(), seen.image.shape), exclude=exclude
        )

    def judge_normal(self, index: int, radius: float | None) -> Judgement:
        """Judge a normal image by all the others, from what the gallery holds of it, with this search radius."""
        gallery = self.gallery_
        tiles = None if gallery.tiling is None else gallery.tile_pyramids(index)
        within = window_of(radius, self._view(), gallery.entries[index].size)
        return self._judge_pyramid(gallery.pyramid(index), tiles, within, exclude=index)

    def _judge_pyramid(
        self,
        pyramid: Pyramid,
        tiles: Sequence[Pyramid] | None,
        within: Window | None,
        *,
        exclude: int | slice | None = None,
    ) -> Judgement:
        gallery, coding, likely = self.gallery_, None, None
        with Team(thread_count(self.threads)) as team:
            if gallery.is_vast and tiles is None and within is None and self._prunes():
                coding = team.begin(lambda: gallery.code_query(pyramid.levels, upsampling=self.upsampling))
                if team.threads > 1:
                    bring = partial(gallery.bring, upsampling=self.upsampling)
                    likely = lambda found: team.begin(partial(bring, found[: self.gallery_k]))  # noqa: E731
            images, distances = self._retrieve(pyramid.global_vector, exclude, likely)
            options: dict[str, Any] = {
                "kappa": self.kappa,
                "pyramid": self.pyramid,
                "upsampling": self.upsampling,
                "kernel": self.kernel,
                "threads": self.threads,
                "within": within,
                "team": team,
            }
            if tiles is None:
                query = None if coding is None else coding.result()
                found = correspond(pyramid.levels, gallery, images[: self.gallery_k], **options, query=query)
            else:
                found = correspond_tiles(tiles, gallery, self.gallery_k, exclude=exclude, **options)
        names = [gallery.entries[index].name for index in images[:5]]
        nearest = tuple(zip(names, (float(d) for d in distances), strict=False))
        return Judgement(found.distances, self._image_score(distances), found, nearest)

    def _retrieve(
        self, vector: np.ndarray, exclude: int | slice | None, likely: Likely | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.gallery_.nearest_images(vector, max(self.image_k, self.gallery_k), exclude=exclude, likely=likely)

    def _image_score(self, distances: np.ndarray) -> float | None:
        return float(distances[: self.image_k].mean()) if self.image_score == "nearest-images" else None

    def _normal_scores(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
        """Each image against all the others, from what the gallery holds of it: no forward pass."""
        if ON_TRIAL.get() is None:  # the small fits of a bill say nothing
            warn_of_harm(self)
        chosen = self._left_out(self.gallery_)
        self._scored(self.gallery_)
        if self.image_score == "map":
            peaks = self._map_peaks(chosen, progress)
            return peaks, peaks
        few = self._left_out(self.gallery_, most=MAPS_FOR_PEAKS)
        return self._vector_scores(self.gallery_, chosen), self._map_peaks(few, progress)

    def _scored(self, gallery: Gallery) -> None:
        """Note how many images there were when the image scores were made: the draw of those left out follows from it."""
        gallery.folder.header["gallery"]["scored"] = len(gallery)

    def score_of_each(self) -> dict[int, float]:
        """Return the score of each normal image that was left out to set the threshold, by its index; of none where the model is older."""
        count = self._check_fitted().header["gallery"].get("scored", 0)
        chosen = choose_images(count, int(self.calibration_images), self.seed) if count > 1 else np.arange(0)
        scores = self.calibration_[0]
        return dict(zip(chosen.tolist(), scores.tolist(), strict=True)) if len(chosen) == len(scores) else {}

    def _left_out(self, gallery: Gallery, *, most: int | None = None) -> np.ndarray:
        """Which images are left out in turn: a seeded draw, so that they stay exchangeable with new ones."""
        limit = int(self.calibration_images) if most is None else min(most, int(self.calibration_images))
        return choose_images(len(gallery), limit, self.seed) if len(gallery) > 1 else np.arange(0)

    def _map_peaks(self, chosen: np.ndarray, progress: Progress | None) -> np.ndarray:
        peaks = []
        for done, index in enumerate(map(int, chosen), 1):
            judged = self.judge_normal(index, self.search_radius)
            _, small = self._scores(judged, self.gallery_.entries[index].size)
            assert small is not None  # SPADE always has a map
            peaks.append(float(small.max()))
            if progress:
                progress("setting the threshold", done, len(chosen))
        return np.array(peaks, np.float64)

    def _vector_scores(self, gallery: Gallery, chosen: np.ndarray) -> np.ndarray:
        """Image scores by the nearest images, of each image against all the others."""
        found = [gallery.nearest_images(gallery.globals[i], self.image_k, exclude=int(i))[1].mean() for i in chosen]
        return np.array(found, np.float64)

    def alignment(self) -> Alignment | None:
        """Tell whether the normal pictures lie alike, so that `search_radius` makes sense, and what it would do; None for fewer than three."""
        self._check_fitted()
        return measure(self)

    def verify(self) -> None:
        """Read the whole model and check every checksum. Raises ModelError at the first damage."""
        super().verify()
        self.gallery_.verify()

    # ---- explaining --------------------------------------------------------------------------------------------------------

    def explain(self, prediction: Prediction | Predictions, y: int, x: int, *, patch: int = 48) -> Explanation:
        """Show the normal place that a place of a picture was compared with.

        Args:
            prediction: of this model.
            y, x: the place, in the picture's pixels.
            patch: side of the boxes and patches, in pixels of the network's view.

        Raises:
            InputError: the place lies outside the picture or its inspected part, or the prediction has no correspondence.
        """
        one = prediction.only if isinstance(prediction, Predictions) else prediction
        y, x = (
            check.whole(y, "y", least=-(10**9)),
            check.whole(x, "x", least=-(10**9)),
        )  # where they may lie is told below
        found, view = one.correspondence, one.view
        if found is None or view is None:
            raise InputError("this prediction holds no correspondence: predict the picture again with this model.")
        box = view.box(one.size)
        gy, gx = grid_place(y, x, one.size, box, found.distances.shape)
        height, width = found.images.shape  # the finest level's grid, also in an ensemble
        gy, gx = gy * height // found.distances.shape[0], gx * width // found.distances.shape[1]
        image, place = int(found.images[gy, gx]), int(found.positions[gy, gx])
        entry = self.gallery_.entries[image]
        normal_box = patch_box(place // width, place % width, (height, width), view, entry.size, patch)
        return Explanation(
            y=y,
            x=x,
            box=patch_box(gy, gx, (height, width), view, one.size, patch),
            image=image,
            name=entry.name,
            normal_box=normal_box,
            normal_patch=cut(self.gallery_.thumbnail(image), normal_box, entry.size),
            distance=float(found.nearest[gy, gx]),
        )

    def explain_regions(self, prediction: Prediction | Predictions, *, limit: int = 3) -> tuple[Explanation, ...]:
        """Explain the peaks of the highest regions; without a region, the map's highest place.

        Args:
            prediction: of this model.
            limit: at most so many.

        Raises:
            InputError: the prediction has no map or no correspondence.
        """
        one = prediction.only if isinstance(prediction, Predictions) else prediction
        if one.score_map is None:
            raise InputError("this prediction holds no map: predict the picture again with this model.")
        peaks = [region.peak for region in one.regions[:limit]]
        if not peaks:
            y, x = np.unravel_index(int(np.nanargmax(one.score_map)), one.score_map.shape)
            peaks = [(int(y), int(x))]
        return tuple(self.explain(one, y, x) for y, x in peaks)
