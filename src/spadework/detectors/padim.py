"""PaDiM: how unlikely the features at a place are under a Gaussian of the normal features at that very place.

In: normal pictures. Out, for a new one: for each place the Mahalanobis distance of its features to those of normal pictures, as a map.
Letters as in `spadework.pyramid`; `N` normal images, `P = H*W` places, `d` channels drawn.

Recipe, with how sure each part is: features of the first three stages, the coarser brought to the finest grid and put beside it (certain, paper
3.1; by copying the nearest, as the public codes do); `d` of all channels, drawn at random once (certain, 3.1: 100 with ResNet-18, 550 with
Wide-ResNet-50-2); a mean and a covariance for each place, divided by N - 1, 0.01 added on the diagonal (certain, 3.2); the map is the Mahalanobis
distance, not squared (certain, 3.3), brought to picture size bilinearly and blurred by a Gaussian of sigma 4 (certain, authors of the public codes);
the image score is its highest value (certain, 3.3).
Substitutions: the embedded network has its own channels, and the everyday grid has stride 8 where the paper has 4; `PaDiM.paper()` has the
paper's network and grid.

Kept of each place: its mean, and L^-1, where L L' is its covariance: the distance is |L^-1 (x - mean)|, which is never the root of a negative
number. P d d numbers of 4 bytes, 41 MB at the defaults, 3.8 GB at the paper's settings; mapped, made and used in blocks of places.

What the threshold rests on: as PatchCore's, the normal pictures are dealt into FOLDS parts; those of each part are scored by Gaussians of the other
parts alone. Gaussians of fewer pictures fit a new one worse, so these scores are rather too high than too low; that is no proof.
Source: Defard, Setkov, Loesch and Audigier 2020, PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization,
arXiv:2011.08785.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from spadework import check
from spadework.calibration import choose_images
from spadework.detectors.costs import LEARNING, Growth
from spadework.detectors.features import PyramidDetector
from spadework.detectors.held_out import HeldOut
from spadework.detectors.reading import Seen
from spadework.errors import InputError
from spadework.prediction import Judgement
from spadework.pyramid import descriptors
from spadework.sketches import SMALL
from spadework.storage import ModelFolder

FOLDS = 5
FOLDING = "scoring by folds"
FEW = 500  # channels, for the bill, where all are used
RIDGE = 0.01  # added to each variance
LEAF = 16  # channels up to which LAPACK inverts a factor
BLOCK = 1 << 22  # numbers of covariances made at once: 34 MB in float64


class PaDiM(HeldOut, PyramidDetector):
    """PaDiM. The defaults are the paper's for a small network, with the embedded one and a grid of stride 8.

    Args:
        backbone: "embedded", a path to an ONNX file, "timm:NAME" or "torchvision:NAME"; see `spadework backbones`.
        weights: a local weights file for "timm:" and "torchvision:".
        image_size: how large pictures are seen: the side of a square of the same area, "auto" for what their own size asks for, or
            (height, width), multiples of the network's coarsest stride (16). Aspect is kept; see docs/resolution.md.
        crop: keep only the centre, one side or (height, width); the resize then keeps the aspect of the shorter side.
        levels: which levels to use, counted from 1 at the finest; None for all.
        grid_stride: stride of the grid of places, in pixels of the view; the paper has 4.
        pooling: average each feature over a neighbourhood of this many positions of its own grid; 1 for none.
        upsampling: how coarser levels reach the fine grid, "bilinear" or "nearest".
        channels: how many of all channels are drawn; None for all. Room and time grow with its square.
        smoothing: sigma of the Gaussian on the map, in pixels of the view.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        calibration_images: at most this many normal images are held out, fold by fold, to set the threshold; 0 for no threshold.
        threads: of the network; None for the environment's SPADEWORK_THREADS or all cores.
        seed: of the draws of channels and of calibration images.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("padim")().fit("good/").predict("new.png").is_anomalous  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "padim"
    summary: ClassVar[str] = "Mahalanobis distance to the normal features at the same place; map and image score"
    source: ClassVar[str] = "Defard et al. 2020, arXiv:2011.08785"
    cannot: ClassVar[str] = "parts that lie differently in each picture"
    cost: ClassVar[str] = "seconds to fit, 41 MB a model, 15 ms a picture; no training"

    def __init__(
        self,
        backbone: str = "embedded",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: int | Sequence[int] | str = 256,
        crop: int | Sequence[int] | None = None,
        levels: Sequence[int] | None = None,
        grid_stride: int = 8,
        pooling: int = 1,
        upsampling: str = "nearest",
        channels: int | None = 100,
        smoothing: float = 4.0,
        max_false_alarms: float = 0.01,
        calibration_images: int = 100,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.crop = crop
        self.levels = levels
        self.grid_stride = grid_stride
        self.pooling = pooling
        self.upsampling = upsampling
        self.channels = channels
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.calibration_images = calibration_images
        self.threads = threads
        self.seed = seed

    @classmethod
    def paper(cls, **changes: Any) -> PaDiM:
        """Return the paper's configuration: Wide-ResNet-50-2 with torchvision's V1 weights, resize 256, centre crop 224, a grid of 56, 550
        channels. `changes` replace single settings."""
        settings: Mapping[str, Any] = {
            "backbone": "timm:wide_resnet50_2.tv_in1k",
            "image_size": 256,
            "crop": 224,
            "grid_stride": 4,
            "channels": 550,
        }
        return cls(**{**settings, **changes})

    def _check_settings(self) -> None:
        self._check_features()
        if self.channels is not None:
            check.positive_int(self.channels, "channels")
        check.share(self.max_false_alarms, "max_false_alarms")
        check.whole(self.calibration_images, "calibration_images")
        check.whole(self.seed, "seed")

    # ---- what it costs -------------------------------------------------------------------------------------------------------

    def _stages(self, count: int) -> dict[str, Growth]:
        channels = self.channels or FEW
        sets = {LEARNING: Growth(1, count + channels), FOLDING: Growth(FOLDS, count + channels)}
        return super()._stages(count) | sets

    def _probe(self) -> dict[str, Any]:
        return {"calibration_images": min(int(self.calibration_images), 2 * FOLDS)}  # some of each fold

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        """All features, mapped, and three copies of a block of them in twice the precision."""
        features, places = sizes.get("features", 0.0), max(1.0, sizes.get("means", 0.0) / 4 / (self.channels or FEW))
        return features * (1 + 5 * min(1.0, BLOCK / (self.channels or FEW) ** 2 / places))

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        """Gather the features in a file of the model, make the Gaussians, score those held out, and let the file go."""
        channels, grid, sizes = np.arange(0), (0, 0), []
        for seen in normal:
            assert seen.pyramid is not None  # needs == "pyramid"
            found = descriptors(seen.pyramid.levels, upsampling=self.upsampling)  # (P, C)
            if not len(channels):
                channels, grid = self._draw(found.shape[1]), seen.pyramid.grid
                folder.header |= {"grid": list(grid), "channels": channels.tolist()}
                folder.add_array("features", "<f4", (len(found), len(channels)), checked=False)
            folder.append("features", found[None, :, channels])
            sizes.append(seen.image.shape[:2])
        if not len(channels):
            return
        features = folder.read("features")  # (N, P, d)
        folder.add_array("means", "<f4", (len(channels),))
        folder.add_array("whitenings", "<f4", (len(channels), len(channels)))
        self._tell(LEARNING, 0, 1)
        for _, means, whitenings in gaussians(features, np.arange(len(features))):
            folder.append("means", means)
            folder.append("whitenings", whitenings)
        self._tell(LEARNING, 1, 1)
        distances, drawn = self._held_out(features)
        self._hold(folder, distances.reshape(-1, *grid), grid, len(drawn), sizes=np.array(sizes, np.int64)[drawn])
        del features, folder.header["arrays"]["features"]  # the next commit clears the file away

    def _draw(self, available: int) -> np.ndarray:
        """Which of all channels are used, ascending."""
        wanted = available if self.channels is None else self.channels
        if wanted > available:
            raise InputError(
                f"channels must be at most {available}, all that the levels have together, not {wanted}: "
                "take fewer, or None for all."
            )
        return np.sort(np.random.default_rng(self.seed).choice(available, wanted, replace=False))

    def _held_out(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances (n, P) of a seeded draw of images, each by Gaussians of the other folds' images, and which these are, (n,)."""
        count = len(features)
        drawn = choose_images(count, int(self.calibration_images), self.seed) if count > 1 else np.arange(0)
        fold_of = np.random.default_rng(self.seed).permutation(count) % FOLDS
        distances = np.empty((len(drawn), features.shape[1]), np.float32)
        for fold in np.unique(fold_of[drawn]):
            own = np.flatnonzero(fold_of[drawn] == fold)
            for places, means, whitenings in gaussians(features, np.flatnonzero(fold_of != fold)):
                for row in own:
                    distances[row, places] = mahalanobis(features[drawn[row], places], means, whitenings)
            self._tell(FOLDING, int(fold) + 1, FOLDS)
        return distances, drawn

    def _open(self, folder: ModelFolder) -> None:
        super()._open(folder)
        self.grid_ = tuple(folder.header["grid"])
        self.channels_ = np.array(folder.header["channels"])
        self.means_, self.whitenings_ = folder.read("means"), folder.read("whitenings")

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _judge(self, seen: Seen) -> Judgement:
        assert seen.pyramid is not None  # needs == "pyramid"
        if seen.pyramid.grid != self.grid_:
            raise InputError(
                f"the features have a grid of {seen.pyramid.grid}, the model's is {self.grid_}: fit again."
            )
        found = descriptors(seen.pyramid.levels, upsampling=self.upsampling)[:, self.channels_]
        distances = np.empty(len(found))
        for places in _blocks(*found.shape):
            distances[places] = mahalanobis(found[places], self.means_[places], self.whitenings_[places])
        return Judgement(distances.reshape(self.grid_))


def gaussians(features: np.ndarray, images: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield, block by block, places and their Gaussians: means float32 (B, d), and the inverse Cholesky factors float32 (B, d, d) of the
    covariances, `RIDGE` added on their diagonals.

    Args:
        features: float32 (N, P, d); may be a memory map.
        images: which of the N to use.
    """
    for places in _blocks(*features.shape[1:]):
        own = features[images, places].astype(np.float64).transpose(1, 0, 2)  # (B, N, d)
        means = own.mean(axis=1)
        covariances = _scatter(own - means[:, None]) / max(1, len(images) - 1)
        covariances += RIDGE * np.eye(features.shape[2])
        yield places, means.astype(np.float32), whitening(covariances).astype(np.float32)


def _scatter(rows: np.ndarray) -> np.ndarray:
    """Sums (B, d, d) of the outer products of rows (B, N, d), in pieces that OpenBLAS does in one thread where it can (see `whitening`)."""
    total = np.zeros((len(rows), rows.shape[2], rows.shape[2]))
    step = SMALL // rows.shape[2] ** 2 or rows.shape[1]
    for start in range(0, rows.shape[1], step):
        part = rows[:, start : start + step]
        total += part.transpose(0, 2, 1) @ part
    return total


def whitening(covariances: np.ndarray) -> np.ndarray:
    """Return the inverses of the lower Cholesky factors of (B, d, d), positive definite.

    By halves: of a covariance with the parts A, B', B, D the factor has the parts chol(A), 0, B chol(A)'^-1 and the factor of what is left of D.
    Two matrices of 50 numbers a side are multiplied in one thread. LAPACK's own inverse starts threads for each of thousands of small
    matrices, which wait for each other on a busy machine (419 covariances of 100 channels on two such cores: 1.6 s, by halves 0.08 s).
    """
    size = covariances.shape[1]
    if size <= LEAF:
        return np.linalg.inv(np.linalg.cholesky(covariances))
    half = size // 2
    out = np.zeros_like(covariances)
    first = out[:, :half, :half] = whitening(covariances[:, :half, :half])
    across = covariances[:, half:, :half] @ first.transpose(0, 2, 1)
    last = out[:, half:, half:] = whitening(covariances[:, half:, half:] - across @ across.transpose(0, 2, 1))
    out[:, half:, :half] = -last @ (across @ first)
    return out


def mahalanobis(features: np.ndarray, means: np.ndarray, whitenings: np.ndarray) -> np.ndarray:
    """Return the distances (B,) of features (B, d) to the Gaussians of their places."""
    white = np.matmul(whitenings, (features - means)[..., None])[..., 0].astype(np.float64)
    return np.asarray(np.sqrt(np.einsum("bd,bd->b", white, white)))


def _blocks(places: int, channels: int) -> Iterator[slice]:
    step = max(1, BLOCK // channels**2)
    for start in range(0, places, step):
        yield slice(start, start + step)
