"""How well planted defects are told from what is normal, and whether one candidate does so better than another.

In: score maps (h, w) of normal pictures and of pictures with planted defects, their masks and image scores. Out: `Outcome`: image ROCAUC, pixel
ROCAUC and PRO as `spadework.metrics` has them, and their mean over draws of the pictures, with replacement: the same draws for every candidate, so that
two can be compared by pairs.
Letters: `G` normal pictures, `P` planted ones, `B` draws.

Each measure is a mean over planted defects of how each stands among what is normal: image ROCAUC of the share of normal pictures that score below it,
pixel ROCAUC of the same share of normal pixels over its pixels, PRO of the area that its regions' pixels cover (see `spadework.ranking`). A draw only
weighs these shares anew; the pool of normal pixels stays, for it is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from spadework import ranking

SIDE = 256  # the longer side at which maps and masks are compared, at most
THIN = 2  # of normal pixels, every so many rows and columns count: a smooth map has nothing between them
DRAWS = 1000
LIMIT = 0.3  # of PRO


SIZES = 3  # planted defects are told apart as small, middling and large ones, as many of each
LEAST_OF_A_SIZE = 4
WORST = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a candidate reached. image_auroc, pixel_auroc, pro: 0 to 1. draws: float64 (B,), the mean of the three in each draw.

    by_size: the same of small, middling and large defects alone; empty where there are too few to tell apart.
    """

    image_auroc: float
    pixel_auroc: float
    pro: float
    draws: np.ndarray
    by_size: tuple[Outcome, ...] = ()

    @property
    def mean(self) -> float:
        """The mean of the three measures: what candidates are compared by."""
        return (self.image_auroc + self.pixel_auroc + self.pro) / 3


@dataclass(frozen=True)
class Gain:
    """By how much one candidate is better than another, and the standard error of that over draws of the pictures."""

    value: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than one standard error."""
        return self.value > self.error


def gain(one: Outcome, other: Outcome) -> Gain:
    """Return by how much `one` is better than `other`, from the same draws."""
    return Gain(one.mean - other.mean, float((one.draws - other.draws).std()))


@dataclass(frozen=True)
class Worth:
    """What a candidate is chosen by: its gain over the start, and beside it WORST times the gain for the size of defects that gains least.

    draws: float64 (B,), the same in each draw.
    """

    value: float
    draws: np.ndarray

    def over(self, other: Worth) -> Gain:
        """Return by how much it is worth more than `other`, from the same draws."""
        return Gain(self.value - other.value, float((self.draws - other.draws).std()))


def worth(one: Outcome, start: Outcome) -> Worth:
    """Return what a candidate is worth against the start.

    Planted defects are of all sizes alike, yours may be all small or all large: what helps the small ones much and spoils the large ones is no gain.
    """
    value, draws = one.mean - start.mean, one.draws - start.draws
    if one.by_size:
        pairs = list(zip(one.by_size, start.by_size, strict=True))
        value += WORST * min(own.mean - its.mean for own, its in pairs)
        draws = draws + WORST * np.min([own.draws - its.draws for own, its in pairs], axis=0)
    return Worth(value, draws)


def least_gain(one: Outcome, start: Outcome) -> float:
    """Return the gain for the size of defects that gains least; that for all where sizes are not told apart."""
    return min(
        (own.mean - its.mean for own, its in zip(one.by_size, start.by_size, strict=True)),
        default=one.mean - start.mean,
    )


def compared_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """The size (h, w) at which maps and masks of a picture are compared: its own, or smaller with the longer side at most SIDE."""
    scale = min(1.0, SIDE / max(shape[:2]))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def compared_mask(mask: np.ndarray) -> np.ndarray:
    """A mask at the size at which it is compared: a pixel belongs to the defect if any of it does, so that small ones stay."""
    height, width = compared_size(mask.shape)
    small = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small > 0)


class Measuring:
    """Takes in normal and planted pictures one after another, then measures them.

    Args:
        sources: int (P,), which normal picture, 0 to G - 1, each defect was planted on.
        normals: G.
        seed: of the draws.
    """

    def __init__(self, sources: Sequence[int], normals: int, *, seed: int) -> None:
        drawn = np.random.default_rng(seed).integers(0, normals, (DRAWS, normals))
        self._weights = np.stack([np.bincount(row, minlength=normals) for row in drawn]).astype(np.float64)  # (B, G)
        self._of_planted = self._weights[:, np.asarray(sources, int)]  # (B, P)
        self._normal_scores: list[float] = []
        self._scores: list[float] = []
        self._normal_pixels: list[np.ndarray] = []
        self._pixels: list[np.ndarray] = []
        self._regions: list[np.ndarray] = []

    def add_normal(self, score: float, score_map: np.ndarray) -> None:
        """Take in a normal picture: its image score and its map, float32 (h, w)."""
        self._normal_scores.append(score)
        self._normal_pixels.append(score_map[::THIN, ::THIN].ravel())

    def add_planted(self, score: float, score_map: np.ndarray, mask: np.ndarray) -> None:
        """Take in a planted picture: its image score, its map, float32 (h, w), and the mask, bool (h, w)."""
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
        self._scores.append(score)
        self._normal_pixels.append(score_map[::THIN, ::THIN][~mask[::THIN, ::THIN]])
        self._pixels.append(score_map[mask])
        self._regions.append(labels[mask] - 1)

    def outcome(self) -> Outcome:
        """Measure all that was taken in."""
        pixels = np.sort(np.concatenate(self._normal_pixels))
        parts = [_part(pixels, own, regions) for own, regions in zip(self._pixels, self._regions, strict=True)]
        found = np.array(parts, np.float64)  # (P, 4)
        wins = _wins(np.array(self._scores), np.array(self._normal_scores))  # (P, G)
        by_area = np.argsort(found[:, 1], kind="stable")
        strata = np.array_split(by_area, SIZES) if len(by_area) >= SIZES * LEAST_OF_A_SIZE else []
        by_size = tuple(self._of(np.sort(chosen), wins, found) for chosen in strata)
        return replace(self._of(np.arange(len(found)), wins, found), by_size=by_size)

    def _of(self, chosen: np.ndarray, wins: np.ndarray, found: np.ndarray) -> Outcome:
        """Of some of the planted defects, among all that is normal."""
        below, count, area, regions = found[chosen].T  # (P,) each
        own, won = self._of_planted[:, chosen], wins[chosen]
        weighted = np.einsum("bp,pg,bg->b", own, won, self._weights, optimize=True)
        planted, normal = own.sum(axis=1), self._weights.sum(axis=1)
        draws = np.stack(
            [
                weighted / np.maximum(planted * normal, 1),
                own @ below / np.maximum(own @ count, 1),
                own @ area / np.maximum(own @ regions, 1),
            ]
        )
        pixel_auroc, pro = float(below.sum() / count.sum()), float(area.sum() / regions.sum())
        return Outcome(float(won.mean()), pixel_auroc, pro, draws.mean(axis=0))


def _wins(scores: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(P, G): 1 where a planted picture scores above a normal one, 0.5 for a tie, else 0."""
    return np.asarray((np.sign(scores[:, None] - normal[None]) + 1) / 2)


def _part(normal: np.ndarray, own: np.ndarray, regions: np.ndarray) -> tuple[float, int, float, int]:
    """Of one defect: sum over its pixels of the share of normal pixels below, pixels; sum over its regions of their area of overlap, regions."""
    order = np.argsort(own)
    below, up_to = ranking.ranks_among(normal, own[order])
    area = ranking.pixel_area(below, up_to, normal.size, LIMIT)
    sizes = np.bincount(regions)
    covered = np.bincount(regions[order], area, minlength=sizes.size) / sizes
    return float((below + up_to).sum() / (2 * normal.size)), own.size, float(covered.sum()), sizes.size
