"""CNN feature dictionary: how far a patch's features lie from the few that stand for all normal patches.

In: normal pictures. Out, for a new one: for each place the mean distance of the patches over it to the nearest entries of a dictionary, as a map.
Letters: `n` patches learnt from, `D` numbers of a patch's feature, `d` of these after the principal components, `h x w` the view.

Recipe, with how sure each part is: patches of 16 x 16, brought to the network's size; ResNet-18 on ImageNet, its 512 pooled numbers, divided by their sum
(L1); principal components that keep 95 % of the variance; k-means with 10 centres, the entries of the dictionary being the real patches nearest to
them; objects at 256 x 256, textures at 512; stride 4; gray pictures tripled (certain, from the paper and the protocol of the MVTec AD baselines). A patch's
score is its mean Euclidean distance to the nearest `nearest` entries, one here; a pixel's the mean over the patches that hold it (recalled).
How many patches the dictionary was learnt from is not known: `training_patches` are drawn at random here, 10,000 as for the other baselines.
Substitutions: features are the network's global vector, whatever network it is. The embedded one, trained on pictures of 64 x 64, gets patches of that
size; its global vector tells places apart, so the mean of its deepest level stands for it.
`features="convolutional"` is a shortcut and another method: one pass over the whole picture, and for each place of its deepest level the
mean over a window of a patch's size (at least one place). These features see far beyond their patch, which the dictionary's do not.

What the threshold rests on: pictures that were not learnt from, scored by the very model that is kept.
Source: Napoletano, Piccoli and Schettini 2018, Anomaly Detection in Nanofibrous Materials by CNN-Based Self-Similarity, Sensors 18(1):209;
Bergmann et al. 2019, MVTec AD, CVPR (protocol).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np

from spadework import check
from spadework.backbones import EMBEDDED
from spadework.detectors.costs import HOLDING, LEARNING, Growth
from spadework.detectors.features import NetworkDetector, check_smoothing
from spadework.detectors.held_out import Draw, HeldOut, dealt
from spadework.detectors.reading import Seen, work_ahead
from spadework.errors import InputError
from spadework.kmeans import kmeans, squared_distances
from spadework.prediction import Judgement
from spadework.pyramid import Pyramid, pool
from spadework.storage import ModelFolder

FEATURES = frozenset({"patches", "convolutional"})
PROBED_PATCHES = 500


class CnnDictionary(HeldOut, NetworkDetector):
    """CNN feature dictionary. The defaults are the paper's, with the embedded backbone.

    Args:
        backbone: "embedded", a path to an ONNX file, "timm:NAME" or "torchvision:NAME"; see `spadework backbones`.
        weights: a local weights file for "timm:" and "torchvision:".
        image_size: what pictures are resized to: one side or (height, width), multiples of the network's coarsest stride (16).
        patch: side of the patches, in pixels of the view.
        stride: from patch to patch, in pixels of the view.
        network_size: side that patches are brought to for the network.
        features: "patches", each run through the network alone, or "convolutional", one pass over the whole picture: another method, hundreds of
            times as fast.
        entries: of the dictionary.
        nearest: entries whose mean distance is a patch's score.
        variance: share of the variance that the principal components keep.
        training_images: normal pictures drawn at random to learn from.
        training_patches: patches drawn at random from these.
        smoothing: sigma of the Gaussian on the map, in pixels of the view.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        calibration_images: at most this many pictures that are not learnt from set the threshold; 0 for no threshold.
        threads: of the network; None for the environment's SPADEWORK_THREADS or all cores.
        seed: of all draws.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("cnn-dictionary").quick().fit("good/").predict("new.png").is_anomalous  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "cnn-dictionary"
    summary: ClassVar[str] = (
        "distance of each patch's features to ten normal patches that stand for all; map and image score"
    )
    keeps_aspect: ClassVar[bool] = False  # its map is not told which part of a view is padding
    source: ClassVar[str] = "Napoletano, Piccoli and Schettini 2018, Sensors 18(1):209"
    cannot: ClassVar[str] = "parts with more kinds of places than entries"
    cost: ClassVar[str] = "3,721 passes, 5 s a picture; quick: 256 passes, 0.13 s"
    crop = None  # the whole picture is seen
    QUICK: ClassVar[Mapping[str, Any]] = {
        "stride": 16,
        "network_size": 32,
        "training_patches": 2000,
        "calibration_images": 20,
    }

    def __init__(
        self,
        backbone: str = "embedded",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: int | Sequence[int] = 256,
        patch: int = 16,
        stride: int = 4,
        network_size: int = 64,
        features: str = "patches",
        entries: int = 10,
        nearest: int = 1,
        variance: float = 0.95,
        training_images: int = 100,
        training_patches: int = 10000,
        smoothing: float = 4.0,
        max_false_alarms: float = 0.01,
        calibration_images: int = 100,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.patch = patch
        self.stride = stride
        self.network_size = network_size
        self.features = features
        self.entries = entries
        self.nearest = nearest
        self.variance = variance
        self.training_images = training_images
        self.training_patches = training_patches
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.calibration_images = calibration_images
        self.threads = threads
        self.seed = seed

    @classmethod
    def paper(cls, **changes: Any) -> CnnDictionary:
        """Return the paper's configuration: torchvision's ResNet-18, patches brought to 224, the map as it is; for textures set image_size to 512.
        `changes` replace single settings."""
        settings: dict[str, Any] = {"backbone": "torchvision:resnet18", "network_size": 224, "smoothing": 0.0}
        return cls(**{**settings, **changes})

    def _check_settings(self) -> None:
        self._check_network()
        check.one_of(self.features, "features", FEATURES)
        whole = ("patch", "stride", "network_size", "entries", "nearest", "training_images", "training_patches")
        for name in whole:
            check.positive_int(getattr(self, name), name)
        if self.patch > min(self._view().size):
            raise InputError(f"patch must fit in image_size {self.image_size}, not {self.patch}.")
        if self.stride > self.patch:
            raise InputError(
                f"stride must be at most the patch's side, {self.patch}, so that no pixel is left out, not {self.stride}."
            )
        if self.nearest > self.entries:
            raise InputError(f"nearest must be at most entries, {self.entries}, not {self.nearest}.")
        check.share(self.variance, "variance")
        check_smoothing(self.smoothing, self._view())
        check.share(self.max_false_alarms, "max_false_alarms")
        check.whole(self.calibration_images, "calibration_images")
        check.whole(self.seed, "seed")

    def _pyramid(self, view: np.ndarray) -> Pyramid:
        """The deepest level, for the shortcut; patches are run when the picture is judged, and the few when it is learnt from."""
        if self.features == "patches":
            return Pyramid((), np.zeros(1, np.float32))
        level = self.backbone_(view[None])[0][-1][0].transpose(1, 2, 0)
        side = max(1, round(self.patch / self.backbone_.strides[-1]))
        level = pool(np.ascontiguousarray(level), side + 1 - side % 2)  # odd, so that it has a centre
        return Pyramid((level,), np.zeros(1, np.float32))

    # ---- what it costs -------------------------------------------------------------------------------------------------------

    def _stages(self, count: int) -> dict[str, Growth]:
        held = replace(self._inspecting(count), steps=self._calibrating(count))
        return super()._stages(count) | {LEARNING: Growth(1, self.training_patches), HOLDING: held}

    def _inspecting(self, count: int) -> Growth:
        corners = (
            1 if self.features == "convolutional" else len(patch_corners(self._view().size, self.patch, self.stride))
        )
        return Growth(1, corners)

    def _calibrating(self, count: int) -> int:
        return dealt(count, learn=int(self.training_images), hold=int(self.calibration_images))[1]

    def _probe(self) -> dict[str, Any]:
        few = {"training_patches": min(int(self.training_patches), PROBED_PATCHES), "stride": int(self.patch)}
        return few | {"calibration_images": 2}

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        """The pictures drawn; features of patches in double precision, twice."""
        size, drawn = self._view().size, min(count, int(self.training_images) + int(self.calibration_images))
        return drawn * size[0] * size[1] * 3 + 2 * int(self.training_patches) * sizes.get("mean", 0.0)

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        draw = Draw(self.training_images + int(self.calibration_images), seed=self.seed)
        for seen in normal:
            draw.add(seen.pixel_hash, seen.view)
        learn, held = draw.deal(learn=self.training_images, hold=int(self.calibration_images))
        if not learn:
            return
        self._tell(LEARNING, 0, 1)
        rows = self._drawn_features(learn)
        mean, axes = principal_axes(rows, self.variance)
        placed = (rows - mean) @ axes.T  # (n, d)
        centres = kmeans(placed, self.entries, seed=self.seed).centres
        entries = placed[np.unique(squared_distances(placed, centres).argmin(axis=0))]
        for name, array in (("mean", mean), ("axes", axes), ("entries", entries)):
            folder.replace(name, array)
        self._tell(LEARNING, 1, 1)
        maps = (self._map(self._features(view), mean, axes, entries) for view in held)
        self._hold(folder, maps, self._view().size, len(held))

    def _drawn_features(self, views: list[np.ndarray]) -> np.ndarray:
        """Features (n, D) of a seeded draw of all patches."""
        rng = np.random.default_rng(self.seed)
        if self.features == "convolutional":
            rows = np.concatenate([self._features(view).reshape(-1, self.backbone_.channels[-1]) for view in views])
            return rows[np.sort(rng.choice(len(rows), min(self.training_patches, len(rows)), replace=False))]
        corners = patch_corners(self._view().size, self.patch, self.stride)
        total = len(views) * len(corners)
        drawn = np.sort(rng.choice(total, min(self.training_patches, total), replace=False))
        return np.concatenate(
            [
                self._run(view, corners[drawn[drawn // len(corners) == place] % len(corners)])
                for place, view in enumerate(views)
            ]
        )

    def _features(self, view: np.ndarray) -> np.ndarray:
        """L1-normalised features of all patches of a view, (rows, columns, D)."""
        if self.features == "convolutional":
            return normalised(self._pyramid(view).levels[0].astype(np.float64))
        ys, xs = (np.unique(axis) for axis in patch_corners(view.shape[:2], self.patch, self.stride).T)
        return self._run(view, patch_corners(view.shape[:2], self.patch, self.stride)).reshape(len(ys), len(xs), -1)

    def _run(self, view: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """L1-normalised features (n, D) of the patches at these corners, each run through the network alone."""
        side, size = self.patch, (self.network_size, self.network_size)
        embedded = os.fspath(self.backbone) == EMBEDDED  # whose global vector tells places apart: no pooled features

        def vector(corner: np.ndarray) -> np.ndarray:
            y, x = corner
            patch = view[y : y + side, x : x + side]
            grown = np.asarray(cv2.resize(patch, size, interpolation=cv2.INTER_LINEAR))
            levels, vectors = self.backbone_(grown[None])
            return pooled_level(levels[-1]) if embedded else np.asarray(vectors[0])

        with self.backbone_.several(len(corners)) as passes:
            found = list(work_ahead(corners, vector, threads=passes))
        return normalised(np.array(found, np.float64).reshape(len(corners), -1))

    def _open(self, folder: ModelFolder) -> None:
        super()._open(folder)
        self.mean_, self.axes_, self.entries_ = (np.array(folder.read(name)) for name in ("mean", "axes", "entries"))

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _judge(self, seen: Seen) -> Judgement:
        if self.features == "convolutional":
            assert seen.pyramid is not None  # needs == "pyramid"
            found = normalised(seen.pyramid.levels[0].astype(np.float64))
        else:
            found = self._features(seen.view)
        return Judgement(self._map(found, self.mean_, self.axes_, self.entries_))

    def _map(self, features: np.ndarray, mean: np.ndarray, axes: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """The map (h, w) of features (rows, columns, D)."""
        placed = (features.reshape(-1, features.shape[2]) - mean) @ axes.T
        away = np.sqrt(np.sort(squared_distances(placed, entries), axis=1)[:, : self.nearest]).mean(axis=1)
        scores = away.reshape(features.shape[:2])
        size = self._view().size
        if self.features == "convolutional":
            return np.asarray(cv2.resize(scores, size[::-1], interpolation=cv2.INTER_LINEAR))
        return overlapping_mean(scores, patch_corners(size, self.patch, self.stride), self.patch, size)


def patch_corners(size: tuple[int, ...], patch: int, stride: int) -> np.ndarray:
    """Return the upper left corners (n, 2), (y, x), of patches in rows and columns; the last ones end at the border, whatever the stride."""
    ys, xs = (np.unique(np.append(np.arange(0, side - patch + 1, stride), side - patch)) for side in size[:2])
    return np.stack([part.reshape(-1) for part in np.meshgrid(ys, xs, indexing="ij")], axis=1)


def overlapping_mean(scores: np.ndarray, corners: np.ndarray, patch: int, size: tuple[int, int]) -> np.ndarray:
    """Return, for each pixel (h, w), the mean of the scores (rows, columns) of the patches that hold it."""
    total, count = np.zeros(size), np.zeros(size)
    for score, (y, x) in zip(scores.reshape(-1), corners, strict=True):
        total[y : y + patch, x : x + patch] += score
        count[y : y + patch, x : x + patch] += 1
    return total / count


def pooled_level(level: np.ndarray) -> np.ndarray:
    """Return the mean (C,) of a level (1, C, H, W)."""
    return np.asarray(level[0].mean(axis=(1, 2)))


def normalised(features: np.ndarray) -> np.ndarray:
    """Return features (..., D) divided by the sum of their absolute values; all 0 stays so."""
    sums = np.abs(features).sum(axis=-1, keepdims=True)
    return np.asarray(features / np.maximum(sums, np.finfo(np.float64).tiny))


def principal_axes(rows: np.ndarray, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) of rows (n, D), and the fewest first principal axes (d, D) that keep this share of their variance."""
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh((rows - mean).T @ (rows - mean))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    kept = np.searchsorted(np.cumsum(values), variance * values.sum()) + 1
    return mean, np.ascontiguousarray(vectors[:, :kept].T)
