"""Measures of two sets of scores by their ranks: the arithmetic behind `metrics`, exact, in whole numbers or float64.

In: the scores of what is normal and of what is anomalous, 1-D, both float32 or both float64, sorted, never empty.
Out: ROCAUC, average precision, best F1, per-region overlap (PRO), and curves thinned for drawing.

Letters: `n` normal scores; `F(>t)` and `F(>=t)`, the share of the normal scores above, and at or above, a threshold t:
the false-positive rate. A region is a connected part of a mask; an anomalous score knows its own.

Only the normal scores need a full sort. Every measure is then a sum over the anomalous scores, each looked up among
them. ROCAUC is the mean share of normal scores below it, ties counting half. Average precision is the mean of the
precision at its own score. PRO, the area under the mean covered share of a region, is linear in that share: it is the
mean over regions of the mean over a region's pixels of the area one pixel adds, from the rate at which it is covered
to the limit. Sums run in blocks, so memory is the scores and a fixed rest.

Source: Bergmann et al., "Uninformed Students" (2020), section 4, for PRO and its limit of 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 22  # scores looked up at a time: the temporary arrays of a block stay below 300 MB
CURVE_POINTS = 1000

Floats = npt.NDArray[Any]  # float32 or float64; comparisons are exact in both
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Owners = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Curve:
    """Points to draw, from left to right: `x` and `y` are float64 of one length, at most 1000. The ends are kept."""

    x: Doubles
    y: Doubles


@dataclass(frozen=True)
class Ranking:
    """ROCAUC, average precision, best F1 and the highest threshold that reaches it."""

    auroc: float
    ap: float
    f1: float
    f1_threshold: float


def rank(normal: Floats, anomalous: Floats) -> Ranking:
    """Measure two sorted arrays.

    Only anomalous scores need to be thresholds of precision: between two of them recall stands still and precision
    only falls. The pairs won are counted twice over, a tie counting one, in whole numbers: only the division rounds.
    """
    wins, precision = 0, 0.0
    best, threshold = -1.0, 0.0
    for start in range(0, anomalous.size, BLOCK):
        block = anomalous[start : start + BLOCK]
        below, up_to = ranks_among(normal, block)
        wins += int(below.sum()) + int(up_to.sum())
        found = anomalous.size - _first_of_equals(anomalous, start, block)  # true positives at this score
        called = found + (normal.size - below)
        precision += float(np.sum(found / called))
        f1 = 2.0 * found / (called + anomalous.size)
        last = f1.size - 1 - int(np.argmax(f1[::-1]))  # of equals, the highest threshold
        if f1[last] >= best:
            best, threshold = float(f1[last]), float(block[last])
    auroc = wins / (2 * normal.size * anomalous.size)
    return Ranking(auroc, precision / anomalous.size, best, threshold)


def _first_of_equals(values: Floats, start: int, block: Floats) -> Integers:
    """Index in the sorted `values` of the first that equals each of `block`, which is the part of them at `start`."""
    index = np.arange(start, start + block.size)
    index[0] = np.searchsorted(values, block[0])
    index[1:][block[1:] == block[:-1]] = 0
    return np.maximum.accumulate(index)


def overlap(normal: Floats, anomalous: Floats, region: Owners, sizes: Integers, *, limit: float) -> tuple[float, Curve]:
    """Area under the per-region overlap up to `limit`, divided by it, and the curve. Only `normal` is sorted."""
    at = _curve_thresholds(normal, limit)
    weights = 1.0 / (sizes * float(sizes.size))  # of a pixel in the overlap
    covered = np.zeros(sizes.size)
    above, reached = np.zeros(at.size), np.zeros(at.size)
    for start in range(0, anomalous.size, BLOCK):
        block = anomalous[start : start + BLOCK]
        order = np.argsort(block)  # sorted needles make the search several times faster
        block, owner = block[order], region[start : start + BLOCK][order]
        area = pixel_area(*ranks_among(normal, block), normal.size, limit)
        covered += np.bincount(owner, area, minlength=sizes.size)
        below = np.concatenate(([0.0], np.cumsum(weights[owner])))
        above += below[-1] - below[np.searchsorted(block, at, side="right")]
        reached += below[-1] - below[np.searchsorted(block, at, side="left")]
    return float(np.mean(covered / sizes)), _curve(normal, at, above, reached, limit)


def pixel_area(below: Integers, up_to: Integers, n: int, limit: float) -> Doubles:
    """Share of the area 0..limit that one pixel covers, from its ranks among the `n` sorted normal scores.

    Its overlap is 0 up to F(>t), rises evenly (the line between two thresholds) to 1 at F(>=t), and stays there.
    """
    start = (n - up_to) / n
    end = (n - below) / n
    area = 1.0 - (start + end) / (2.0 * limit)
    cut = end > limit  # reached after the limit, if at all
    width = np.maximum(end[cut] - start[cut], 1.0 / n)
    area[cut] = np.maximum(limit - start[cut], 0.0) ** 2 / (2.0 * width * limit)
    return area


def ranks_among(normal: Floats, values: Floats) -> tuple[Integers, Integers]:
    """How many of the sorted `normal` lie below each of the sorted `values`, and how many do not lie above it."""
    below = np.searchsorted(normal, values, side="left")
    tied = normal.take(below, mode="clip") == values
    up_to = below.copy()
    up_to[tied] = np.searchsorted(normal, values[tied], side="right")
    return below, up_to


def roc_curve(normal: Floats, anomalous: Floats) -> Curve:
    """Return the ROC curve of two sorted arrays."""
    at = _curve_thresholds(normal, 1.0)
    above = (anomalous.size - np.searchsorted(anomalous, at, side="right")) / anomalous.size
    reached = (anomalous.size - np.searchsorted(anomalous, at, side="left")) / anomalous.size
    return _curve(normal, at, above, reached, 1.0)


def _curve_thresholds(normal: Floats, limit: float) -> Floats:
    """Normal scores, highest first, at which to draw: evenly spread and, near a rate of 0, dense; with the limit's."""
    last = int(np.ceil(limit * normal.size))
    count = min(last, CURVE_POINTS // 4 - 1)
    if last <= 2 * count:
        return np.unique(normal[normal.size - last :])[::-1]
    spread = np.concatenate((np.linspace(1, last, count), np.geomspace(1, last, count)))
    ranks = np.round(spread).astype(np.int64)
    return np.unique(normal[normal.size - ranks])[::-1]


def _curve(normal: Floats, at: Floats, above: Doubles, reached: Doubles, limit: float) -> Curve:
    """The polyline through (F(>t), above) and (F(>=t), reached) for t in `at`, from (0, 0), cut at the limit.

    Between two normal scores only y moves, so these pairs hold every corner of the full curve at the thresholds drawn.
    """
    before = (normal.size - np.searchsorted(normal, at, side="right")) / normal.size
    after = (normal.size - np.searchsorted(normal, at, side="left")) / normal.size
    if after[-1] > limit:
        reached[-1] = above[-1] + (reached[-1] - above[-1]) * (limit - before[-1]) / (after[-1] - before[-1])
        after[-1] = limit
    end = [1.0] if limit == 1.0 else []  # what scores below all normal pixels
    x = np.concatenate(([0.0], np.stack((before, after), axis=1).ravel(), end))
    y = np.concatenate(([0.0], np.stack((above, reached), axis=1).ravel(), end))
    new = np.concatenate(([True], (np.diff(x) != 0) | (np.diff(y) != 0)))
    return Curve(x[new], np.minimum(y[new], 1.0))
