"""Compiled: the greedy choice of `spadework.coreset`, which says what is compared and why nothing is missed."""

from __future__ import annotations

import math

import numba
import numpy as np

from spadework.kernels.compile import compiled
from spadework.kernels.scanning import squared_distance
from spadework.kernels.vectors import pointer

STRIP = 1024  # rows at a time: their sums stay in the processor's first cache
ROUNDOFF = 2.0**-24


@compiled("void(float32[:, ::1], int64, int64, int64, float32[::1])", reorder=True)
def _sketched(places: np.ndarray, new: int, start: int, stop: int, sums: np.ndarray) -> None:
    """Squared distances of the sketches of rows `start` to `stop` to that of row `new`."""
    out = sums[: stop - start]
    out[:] = 0
    for m in range(places.shape[0]):
        row, own = places[m, start:stop], places[m, new]
        for i in range(out.shape[0]):
            difference = row[i] - own
            out[i] += difference * difference


@compiled("int64(float32[::1], float32[::1], int64, int64, float32, float32, int64[::1])")
def _within(
    sums: np.ndarray,
    reaches: np.ndarray,
    start: int,
    stop: int,
    slack: np.float32,
    factor: np.float32,
    found: np.ndarray,
) -> int:
    """Write the rows whose bound is not above the distance to their own chosen row."""
    n = 0
    for i in range(stop - start):
        reach = (reaches[start + i] + slack) * factor
        found[n] = start + i
        n += int(not sums[i] >= reach * reach)
    return n


@compiled("float64(float64[::1])", reorder=True)
def _largest(values: np.ndarray) -> float:
    largest = values[0]
    for i in range(1, values.shape[0]):
        largest = max(largest, values[i])
    return float(largest)


@compiled("Tuple((int64, float64))(int64, int64, float32[:, ::1], float32[::1], float64, int64, int64[::1])")
def choose(
    address: int, channels: int, places: np.ndarray, slack: np.ndarray, unit: float, first: int, indices: np.ndarray
) -> tuple[int, float]:
    """Fill `indices` (M,) with the chosen of the rows (N, C) at an address; return how many were chosen, and the largest squared distance
    that is left.

    places: (A + 1, N), the rows' sketches. slack: (N,), how far each may be off. Both in `unit`s.
    """
    n = places.shape[1]
    rows = numba.carray(pointer(address), (n, channels), np.float32)
    squares = np.full(n, np.inf)
    reaches = np.full(n, np.float32(np.inf))
    sums = np.empty(STRIP, np.float32)
    found = np.empty(STRIP + 1, np.int64)
    factor = np.float32(1 + (places.shape[0] + 20) * ROUNDOFF)
    new, count, left = first, 0, 0.0
    while count < indices.shape[0]:
        indices[count] = new
        count += 1
        own_slack, chosen = slack[new], new
        left, best = -1.0, 0
        for start in range(0, n, STRIP):
            stop = min(start + STRIP, n)
            _sketched(places, chosen, start, stop, sums)
            for j in range(_within(sums, reaches, start, stop, own_slack, factor, found)):
                row = found[j]
                square = squared_distance(rows[row], rows[chosen])
                if square < squares[row]:
                    squares[row] = square
                    reaches[row] = np.float32(math.sqrt(square) / unit) + slack[row]
            largest = _largest(squares[start:stop])
            if largest > left:
                left, best = largest, start
        new = best
        while squares[new] != left:
            new += 1
        if left == 0.0:
            break
    return count, left
