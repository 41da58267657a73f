"""Texture inspection: how unlikely a place's small patch is among those of a normal texture, at four sizes.

In: normal pictures. Out, for a new one: for each pixel how far its patches exceed what is usual, as a map.
Letters: `h x w` a picture, `L` levels of the image pyramid, `side` of a patch, `C` colour channels, `M` numbers of a compressed patch.

Recipe, with how sure each part is: textures only; pictures of 400 x 400; an image pyramid of four levels; patches of 7 x 7 around each pixel
of each level; ten random normal pictures to learn from; a mixture of Gaussians for each level, whose negative log-likelihood is a patch's score
(certain, from the protocol of the MVTec AD baselines). A random matrix compresses the patches before the mixture is fitted; patches are brought
to a common light by a normalisation after Weber's law (recalled). A patch is novel on a level above that level's threshold; novel places of
neighbouring levels are intersected, the intersections united (certain).
Made concrete here, for want of the original's numbers: a patch x of all channels becomes (x - m) / (m + 1), m its mean over pixels and channels,
in gray levels; the matrix is a seeded random one with orthonormal rows, `compressed` of them; ten Gaussians with full covariances, fitted to
`training_patches` patches of a level, drawn at random.
How the levels make one map: on each level a patch's excess is its negative log-likelihood less the median of those learnt from, in units of the
distance from that median to their 0.99 quantile, and not below 0. So every level's own threshold at one in a hundred is an excess of 1.
Intersections become minima, the union a maximum: the map is the largest, over neighbouring levels, of the smaller of both excesses. Cut
anywhere, it gives the union of the intersections of the levels cut there.
Substitutions: the original is a function of a commercial library, with more to set. Colour pictures keep their colour.

What the threshold rests on: pictures that were not learnt from, scored by the very model that is kept.
Source: Boettger and Ulrich 2016, Real-time texture error detection on textured surfaces with compressed sensing, Pattern Recognition and Image
Analysis 26; Bergmann et al. 2019, MVTec AD, CVPR (protocol).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import cv2
import numpy as np

from spadework import check
from spadework.detectors.costs import LEARNING, Growth
from spadework.detectors.held_out import Draw
from spadework.detectors.pixels import PixelDetector
from spadework.detectors.reading import Seen, work_ahead
from spadework.errors import InputError
from spadework.kernels import thread_count
from spadework.mixture import Mixture, fit_mixture
from spadework.prediction import Judgement
from spadework.sketches import product
from spadework.storage import ModelFolder

PROBED_PATCHES = 2000
POWERS = (0.7, 1.4)  # of the patches: more of them take a few more steps to settle
USUAL = 0.99  # quantile of the normal patches whose excess is 1
RIDGE = 1e-4  # added to each variance of compressed patches: a hundredth of a patch's mean, squared
PATCHES = 1 << 11  # compressed at a time


class TextureInspection(PixelDetector):
    """Texture inspection, for textures. The defaults are those of the MVTec AD protocol.

    Args:
        image_size: what pictures are resized to: one side or (height, width).
        levels: of the image pyramid, each half as large as the one before.
        patch: side of the patches on each level, in its pixels; odd.
        compressed: numbers that the random matrix makes of a patch.
        components: Gaussians of each level's mixture.
        training_images: normal pictures drawn at random to learn from.
        training_patches: patches drawn at random from these on each level.
        smoothing: sigma of the Gaussian on the map, in pixels of the resized picture.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        calibration_images: at most this many pictures that are not learnt from set the threshold; 0 for no threshold.
        threads: of the inspection; None for the environment's SPADEWORK_THREADS or all cores.
        seed: of all draws.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("texture-inspection")().fit("good/").predict("new.png").is_anomalous  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "texture-inspection"
    summary: ClassVar[str] = (
        "likelihood of small patches at four sizes under mixtures of Gaussians; map and image score"
    )
    source: ClassVar[str] = "Boettger and Ulrich 2016"
    cannot: ClassVar[str] = "objects: textures only"
    cost: ClassVar[str] = "10 s to fit, 0.8 s a picture"
    QUICK: ClassVar[Mapping[str, Any]] = {"image_size": 256, "training_patches": 5000, "calibration_images": 20}

    def __init__(
        self,
        *,
        image_size: int | Sequence[int] = 400,
        levels: int = 4,
        patch: int = 7,
        compressed: int = 16,
        components: int = 10,
        training_images: int = 10,
        training_patches: int = 20000,
        smoothing: float = 4.0,
        max_false_alarms: float = 0.01,
        calibration_images: int = 100,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.image_size = image_size
        self.levels = levels
        self.patch = patch
        self.compressed = compressed
        self.components = components
        self.training_images = training_images
        self.training_patches = training_patches
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.calibration_images = calibration_images
        self.threads = threads
        self.seed = seed

    def _check_settings(self) -> None:
        self._check_pixels()
        for name in ("levels", "patch", "compressed", "components", "training_patches"):
            check.positive_int(getattr(self, name), name)
        if self.patch % 2 == 0:
            raise InputError(f"patch must be odd, so that it has a centre, not {self.patch}.")
        if self.compressed > 3 * self.patch**2:
            raise InputError(
                f"compressed must be at most {3 * self.patch**2}, a patch's own numbers, not {self.compressed}."
            )
        least = self.patch * 2 ** (self.levels - 1)
        if min(self._view().size) < least:
            raise InputError(
                f"image_size must be at least {least}, so that the coarsest of {self.levels} levels holds a patch, not {self.image_size}."
            )

    # ---- what it costs -------------------------------------------------------------------------------------------------------

    def _stages(self, count: int) -> dict[str, Growth]:
        return super()._stages(count) | {LEARNING: Growth(self.levels, self.training_patches, POWERS)}

    def _probe(self) -> dict[str, Any]:
        return {"calibration_images": 2, "training_patches": min(int(self.training_patches), PROBED_PATCHES)}

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        """The pictures drawn; patches in double precision, and again as they are brought to a common light."""
        return super()._resident(count, sizes) + 3 * 8 * 3 * int(self.patch) ** 2 * int(self.training_patches)

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        draw = Draw(self.training_images + int(self.calibration_images), seed=self.seed)
        for seen in normal:
            draw.add(seen.pixel_hash, seen.view)
        learn, held = draw.deal(learn=self.training_images, hold=int(self.calibration_images))
        if not learn:
            return
        matrix = _matrix(self.compressed, 3 * self.patch**2, self.seed)
        pyramids = [image_pyramid(picture, self.levels) for picture in learn]
        self._tell(LEARNING, 0, self.levels)
        found = []
        for level in range(self.levels):
            found.append(self._learn_level([pyramid[level] for pyramid in pyramids], matrix))
            self._tell(LEARNING, level + 1, self.levels)
        folder.replace("matrix", matrix)
        for name in ("weights", "means", "whitenings"):
            folder.replace(name, np.stack([getattr(level.mixture, name) for level in found]))
        folder.replace("usual", np.array([[level.median, level.spread] for level in found]))
        maps = (self._excess(picture, matrix, found) for picture in held)
        self._hold(folder, maps, self._view().size, len(held))

    def _learn_level(self, pictures: list[np.ndarray], matrix: np.ndarray) -> _Level:
        """The mixture of a level's patches, and what is usual of their likelihoods."""
        rng = np.random.default_rng(self.seed)
        places = sum(picture.shape[0] * picture.shape[1] for picture in pictures)
        drawn = np.sort(rng.choice(places, min(self.training_patches, places), replace=False))
        rows, start = [], 0
        for picture in pictures:
            end = start + picture.shape[0] * picture.shape[1]
            rows.append(compress(picture, drawn[(drawn >= start) & (drawn < end)] - start, self.patch, matrix))
            start = end
        patches = np.concatenate(rows)
        mixture = _whole(fit_mixture(patches, self.components, seed=self.seed, ridge=RIDGE), self.components)
        unlikely = -mixture.log_likelihoods(patches)
        median, usual = np.quantile(unlikely, [0.5, USUAL])
        return _Level(mixture, float(median), max(float(usual - median), 1.0))  # a picture of one colour has no spread

    def _open(self, folder: ModelFolder) -> None:
        super()._open(folder)
        self.matrix_ = np.array(folder.read("matrix"))
        parts = [np.array(folder.read(name)) for name in ("weights", "means", "whitenings", "usual")]
        self.levels_ = [_Level(Mixture(w, m, v), float(u[0]), float(u[1])) for w, m, v, u in zip(*parts, strict=True)]

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _judge(self, seen: Seen) -> Judgement:
        return Judgement(self._excess(seen.view, self.matrix_, self.levels_))

    def _excess(self, view: np.ndarray, matrix: np.ndarray, levels: list[_Level]) -> np.ndarray:
        """The map (h, w) of a picture (h, w, 3)."""
        maps = [
            self._level_excess(p, matrix, each)
            for p, each in zip(image_pyramid(view, len(levels)), levels, strict=True)
        ]
        return united(maps)

    def _level_excess(self, picture: np.ndarray, matrix: np.ndarray, level: _Level) -> np.ndarray:
        height, width = picture.shape[:2]
        parts = [np.arange(start, min(start + PATCHES, height * width)) for start in range(0, height * width, PATCHES)]

        def excess(places: np.ndarray) -> np.ndarray:
            unlikely = -level.mixture.log_likelihoods(compress(picture, places, self.patch, matrix))
            return np.maximum((unlikely - level.median) / level.spread, 0.0)

        found = list(work_ahead(parts, excess, threads=thread_count(self.threads)))
        return np.concatenate(found).reshape(height, width)


@dataclass(frozen=True)
class _Level:
    """mixture: of the compressed patches. median, spread: of their negative log-likelihoods, and from there to the usual highest."""

    mixture: Mixture
    median: float
    spread: float


def image_pyramid(picture: np.ndarray, levels: int) -> list[np.ndarray]:
    """The picture (h, w, C) and its halves, blurred by a Gaussian before every second pixel is taken."""
    out = [picture]
    while len(out) < levels:
        out.append(cv2.pyrDown(out[-1]))
    return out


def compress(picture: np.ndarray, places: np.ndarray, side: int, matrix: np.ndarray) -> np.ndarray:
    """Return the patches around some pixels, brought to a common light and compressed: float64 (len(places), M).

    Args:
        picture: uint8 (h, w, C).
        places: pixels, counted row by row.
        side: of a patch, odd; beyond the border the picture is mirrored.
        matrix: float64 (M, C * side * side).
    """
    reach = side // 2
    padded = cv2.copyMakeBorder(picture, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))  # (h, w, C, side, side)
    y, x = np.divmod(places, picture.shape[1])
    patches = windows[y, x].reshape(len(places), -1).astype(np.float64)
    means = patches.mean(axis=1, keepdims=True)
    return product((patches - means) / (means + 1), matrix.T)


def united(excesses: Sequence[np.ndarray]) -> np.ndarray:
    """Return the largest, over neighbouring levels, of the smaller of both: float64, at the size of the first. One level is its own map."""
    height, width = excesses[0].shape
    grown = [cv2.resize(level, (width, height), interpolation=cv2.INTER_LINEAR) for level in excesses]
    if len(grown) == 1:
        return np.asarray(grown[0])
    return np.asarray(np.max([np.minimum(one, two) for one, two in pairwise(grown)], axis=0))


def _matrix(rows: int, columns: int, seed: int) -> np.ndarray:
    """Random directions (rows, columns), orthonormal: they keep distances as a plain Gaussian matrix does, but none twice."""
    drawn = np.linalg.qr(np.random.default_rng(seed).normal(size=(columns, rows)))[0]
    return np.ascontiguousarray(drawn.T)


def _whole(mixture: Mixture, count: int) -> Mixture:
    """The same mixture with as many Gaussians as asked for: copies of the first share its weight, so that all levels have one shape."""
    extra = count - len(mixture.weights)
    copies = np.concatenate([np.zeros(extra, np.int64), np.arange(len(mixture.weights))])
    weights = mixture.weights[copies]
    weights[: extra + 1] /= extra + 1
    return Mixture(weights, mixture.means[copies], mixture.whitenings[copies])
