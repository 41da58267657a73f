"""Principal axes: few coordinates that tell most descriptors apart.

Any orthonormal axes give true bounds; good ones give sharp bounds. So the axes may be learnt from a sample, by a randomised method, and stay
valid for images that come later.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spadework.kernels.codes import RADIUS, Layout
from spadework.kernels.products import product

SAMPLE = 4096  # descriptors that axes are learnt from
ROUNDS = 2  # of subspace iteration
HELD_OUT = 4  # one descriptor of so many only measures how much lies outside the axes
SWEEPS = 3  # of rotations that order the directions: exact to 1e-3 of the spread with three, to 1e-2 with one
EXTRA = 16  # directions followed besides those wanted: they make the last wanted ones sharper
HEADROOM = 1.25  # between the largest norm of the sample and the codes' range
# But the range reaches at most FARTHEST times as far as the share USUAL of the sample: outliers would coarsen it.
USUAL, FARTHEST = 0.999, 4.0


@dataclass(frozen=True)
class Axes:
    """mean: float64 (C,). directions: float64 (C, width), orthonormal, the last columns zero. scale: code units a unit of distance.

    rest: of the squared distances from the mean, the share outside the axes, in a sample that they were not learnt from.
    """

    mean: np.ndarray
    directions: np.ndarray
    scale: float
    rest: float

    @cached_property
    def middle(self) -> np.ndarray:
        """The mean in coordinates, float64 (width,). Not by BLAS, whose threads would spin: this is asked for beside forward passes."""
        return np.asarray(np.einsum("c,cw->w", self.mean, self.directions))

    def to_rows(self) -> np.ndarray:
        """Return all of it as float64 (width + 3, C): the mean, the directions, a row of `scale` and one of `rest`."""
        numbers = np.repeat([[self.scale], [self.rest]], len(self.mean), axis=1)
        return np.concatenate([self.mean[None], self.directions.T, numbers])


def learn_axes(sample: np.ndarray, layout: Layout, *, seed: int = 0) -> Axes:
    """Learn the axes that a layout needs from descriptors float32 (n, C)."""
    rows = sample.astype(np.float64)
    mean = rows.mean(axis=0)
    rows -= mean
    squares = np.einsum("ij,ij->i", rows, rows)
    reach = min(float(np.sqrt(squares.max())), FARTHEST * float(np.sqrt(np.quantile(squares, USUAL)))) * HEADROOM
    directions = np.zeros((rows.shape[1], layout.width))
    held_out = np.arange(len(rows)) % HELD_OUT == 1
    found = _principal(rows[~held_out], layout.axes, seed)
    directions[:, : found.shape[1]] = found
    rest = _share_outside(rows[held_out] if held_out.any() else rows, directions)
    return Axes(mean, directions, RADIUS / reach if reach > 0 else 1.0, rest)


def _share_outside(rows: np.ndarray, directions: np.ndarray) -> float:
    """Of the squared norms of rows, the share outside the directions; of rows that the axes were not learnt from it is not too small."""
    kept, whole = product(rows, directions), float(np.einsum("ij,ij->", rows, rows))
    return max(0.0, 1.0 - float(np.einsum("ij,ij->", kept, kept)) / whole) if whole > 0 else 0.0


def from_rows(rows: np.ndarray) -> Axes:
    """The inverse of `Axes.to_rows`."""
    return Axes(rows[0].copy(), np.ascontiguousarray(rows[1:-2].T), float(rows[-2, 0]), float(rows[-1, 0]))


def _principal(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Orthonormal float64 (C, at most `count`), the directions of largest spread first."""
    from spadework.kernels import turning  # compiled when imported

    n, channels = rows.shape
    largest = np.abs(rows).max(initial=0.0)
    count = min(count, channels, n) if largest > 0 else 0
    if count == 0:
        return np.zeros((channels, 0))
    narrow = (rows / largest).astype(np.float32)  # products in float32 lose sharpness, not truth
    basis = np.random.default_rng(seed).standard_normal((min(count + EXTRA, channels, n), channels))
    for _ in range(ROUNDS):
        basis = _orthonormal(product(narrow.T, product(narrow, basis.T.astype(np.float32))).T)
    inside = product(narrow, basis.T.astype(np.float32)).astype(np.float64)
    spread, turns = product(inside.T, inside), np.eye(len(basis))
    turning.diagonalise(spread, turns, SWEEPS)
    order = np.argsort(-np.diag(spread), kind="stable")[:count]
    return _orthonormal(product(turns[order], basis)).T  # to float64, which the bounds rely on


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    from spadework.kernels import turning

    own = np.array(rows, np.float64, order="C")
    return own[: turning.orthonormalise(own)]
