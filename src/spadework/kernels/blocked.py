"""Exact nearest descriptors by blocked float32 matrix products, bounded memory, float64 where it matters.

One product gives ||g||^2 - 2 q.g for a block of the gallery. float32 loses digits exactly where they count (a near neighbour is a small
difference of large numbers), so the product only selects: whatever lies within the proven rounding margin of the best is computed again
from the differences, in float64. No true neighbour can be lost, and distances are as exact as the reference's.

The margin, with u = 2^-24, rows centred on the block's mean and R the largest norm in the block:
a dot product of C + 1 terms in any order of summation errs by at most (C + 2) u (2 ||q|| R + R^2), the centring by 2 u (||q|| + R)^2.
Measured on real features (336 channels, 51,200 rows): 1.0 to 1.6 candidates a query survive it.
"""

from __future__ import annotations

import numpy as np

from spadework.kernels import Nearest, merge

BLOCK_NUMBERS = 8_000_000  # numbers in one product of queries and gallery rows: 32 MB
CHECK_NUMBERS = 2_000_000  # float64 numbers held while candidates are computed again: 16 MB an array
UNIT_ROUNDOFF = 2.0**-24
NONE = np.iinfo(np.int64).max  # index of a place not filled; its distance is infinite


def is_usable() -> bool:
    """NumPy is always there."""
    return True


def nearest(queries: np.ndarray, gallery: np.ndarray, *, kappa: int, threads: int | None = None) -> Nearest:
    """Return the `kappa` nearest rows of `gallery` for each query; see the package docstring. `threads`: BLAS has its own."""
    step = max(1, BLOCK_NUMBERS // len(queries))
    best: Nearest | None = None
    for start in range(0, len(gallery), step):
        found = _nearest_in_block(queries, gallery[start : start + step], kappa, best)
        found = Nearest(found.distances, np.where(found.indices == NONE, NONE, found.indices + start))
        best = merge(best, found, kappa=kappa)
    assert best is not None  # the gallery is never empty
    return best


def _nearest_in_block(queries: np.ndarray, block: np.ndarray, kappa: int, best: Nearest | None) -> Nearest:
    """Answer for one block; places that cannot improve on `best` may stay empty."""
    before = _power_of_two(_largest(queries, block))  # so that no difference leaves float32
    q, g = queries * np.float32(1 / before), block * np.float32(1 / before)
    centre = g.mean(axis=0, dtype=np.float64).astype(np.float32)
    q, g = q - centre, g - centre
    after = _power_of_two(_largest(q, g))
    q, g = q * np.float32(1 / after), g * np.float32(1 / after)
    scale = before * after
    q_norms, g_norms = _squared_norms(q), _squared_norms(g)
    products = _products(q, g, g_norms)  # (Q, B): squared distance less the query's own norm
    margin = _margin(q_norms, float(g_norms.max()), q.shape[1])
    limit = _kth_smallest(products, min(kappa, len(block))) + 2 * margin
    if best is not None and best.distances.shape[1] == kappa:
        limit = np.minimum(limit, best.distances[:, -1] / scale**2 - q_norms + margin)
    # Flat, then split: twelve times faster than `nonzero` on two axes.
    rows, columns = np.divmod(np.flatnonzero(products <= _round_up(limit)[:, None]), len(block))
    del products
    if len(rows) > 64 * len(queries) * kappa:
        rows, columns = _without_copies(rows, columns, block, kappa)
    return _select(rows, columns, _distances(queries, block, rows, columns), len(queries), kappa)


def _products(q: np.ndarray, g: np.ndarray, g_norms: np.ndarray) -> np.ndarray:
    """||g||^2 - 2 q.g as one matrix product: the norm rides along as a further coordinate."""
    left = np.concatenate([-2 * q, np.ones((len(q), 1), np.float32)], axis=1)
    right = np.concatenate([g, g_norms[:, None].astype(np.float32)], axis=1)
    return np.asarray(left @ right.T)


def _margin(q_norms: np.ndarray, largest: float, channels: int) -> np.ndarray:
    q, r = np.sqrt(q_norms), np.sqrt(largest)
    return np.asarray(1.02 * UNIT_ROUNDOFF * ((channels + 4) * (2 * q * r + largest) + 2 * (q + r) ** 2)) + 1e-37


def _squared_norms(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def _largest(*arrays: np.ndarray) -> float:
    return max(float(np.abs(array).max(initial=0)) for array in arrays)


def _power_of_two(largest: float) -> float:
    """A scale that keeps squares within float32 and changes no digit."""
    return float(2.0 ** np.clip(np.frexp(largest)[1], -120, 126)) if largest > 0 else 1.0


def _kth_smallest(products: np.ndarray, k: int) -> np.ndarray:
    if k == 1:
        return np.asarray(products.min(axis=1), np.float64)
    return np.asarray(np.partition(products, k - 1, axis=1)[:, k - 1], np.float64)


def _round_up(limit: np.ndarray) -> np.ndarray:
    return np.nextafter(limit.astype(np.float32), np.float32(np.inf))


def _without_copies(
    rows: np.ndarray, columns: np.ndarray, block: np.ndarray, kappa: int
) -> tuple[np.ndarray, np.ndarray]:
    """Drop gallery rows that are byte for byte equal to `kappa` earlier ones: plain backgrounds give thousands of them."""
    used = np.unique(columns)
    keys = np.ascontiguousarray(block[used]).view(np.dtype((np.void, block.shape[1] * block.itemsize))).ravel()
    _, group = np.unique(keys, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], group[order])  # first place of each one's group
    rank = np.arange(len(order)) - starts
    keep = np.zeros(len(block), bool)
    keep[used[order[rank < kappa]]] = True
    kept = keep[columns]
    return rows[kept], columns[kept]


def _distances(queries: np.ndarray, block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Squared distances of pairs, float64 from the differences."""
    out = np.empty(len(rows), np.float64)
    step = max(1, CHECK_NUMBERS // queries.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        difference = queries[rows[part]].astype(np.float64) - block[columns[part]]
        out[part] = np.einsum("ij,ij->i", difference, difference)
    return out


def _select(rows: np.ndarray, columns: np.ndarray, distances: np.ndarray, n_queries: int, kappa: int) -> Nearest:
    """The `kappa` best pairs of each query, ties to the lower index; empty places are infinite."""
    order = np.lexsort((columns, distances, rows))
    rows, columns, distances = rows[order], columns[order], distances[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < kappa
    best = np.full((n_queries, kappa), np.inf)
    indices = np.full((n_queries, kappa), NONE)
    best[rows[kept], rank[kept]] = distances[kept]
    indices[rows[kept], rank[kept]] = columns[kept]
    return Nearest(best, indices)
