"""Compiled: distances of short rows, for the retrieval of images. sketches.py says what they bound."""

from __future__ import annotations

import numba
import numpy as np

from spadework.kernels.compile import compiled
from spadework.kernels.vectors import fetch, pointer

STRIP = 1024  # rows at a time: their sums stay in the processor's first cache
CUT = 256  # numbers after which a bound may be high enough
PAGE = 4096
LINE = 64  # bytes that come from memory together
AHEAD = (
    8  # rows: scattered ones wait for memory. 4,000 of 1,024 bytes take 0.6 ms where each is fetched so early, else 1.0
)


@compiled("void(float32[:, ::1], float32[:, ::1], int64, float32[::1])", reorder=True)
def _squared_distances(places: np.ndarray, place: np.ndarray, start: int, sums: np.ndarray) -> None:
    """Of the columns of `places`, (M, N), from `start` on, to `place`, (M, 1)."""
    sums[:] = 0
    for m in range(places.shape[0]):
        row, own = places[m, start : start + sums.shape[0]], place[m, 0]
        for i in range(sums.shape[0]):
            difference = row[i] - own
            sums[i] += difference * difference


@compiled("void(float32[::1], float32, float32[::1], float32)")
def _lower(sums: np.ndarray, shrink: np.float32, slack: np.ndarray, own_slack: np.float32) -> None:
    for i in range(sums.shape[0]):
        sums[i] = np.sqrt(sums[i]) * shrink - slack[i] - own_slack


@compiled("void(float32[:, ::1], float32[:, ::1], float32, float32[::1], float32, float32[::1])")
def bounds(
    places: np.ndarray,
    place: np.ndarray,
    shrink: np.float32,
    slack: np.ndarray,
    own_slack: np.float32,
    out: np.ndarray,
) -> None:
    """Distances of the columns of `places`, (M, N), to `place`, (M, 1), times `shrink`, less the slack of both; all in float32.

    NumPy takes three times as long: 0.8 ms at 100,000 of 33.
    """
    for start in range(0, out.shape[0], STRIP):
        sums = out[start : start + STRIP]
        _squared_distances(places, place, start, sums)
        _lower(sums, shrink, slack[start : start + STRIP], own_slack)


@compiled("void(int8[:, ::1], float32[::1], float32[::1], float32[::1])", reorder=True)
def _squared_byte_distances(columns: np.ndarray, steps: np.ndarray, place: np.ndarray, sums: np.ndarray) -> None:
    """Of the first of `columns`, (M, B), times `steps`, to `place`, (M,)."""
    sums[:] = 0
    for m in range(columns.shape[0]):
        row, step, own = columns[m], steps[m], place[m]
        for i in range(sums.shape[0]):
            difference = np.float32(row[i]) * step - own
            sums[i] += difference * difference


@compiled(
    "void(int8[:, :, ::1], float32[::1], float32[::1], float32[::1], float32, float32, float32[::1], float32, float32[::1])"
)
def byte_bounds(
    columns: np.ndarray,
    steps: np.ndarray,
    place: np.ndarray,
    rest: np.ndarray,
    own_rest: np.float32,
    shrink: np.float32,
    blur: np.ndarray,
    own_slack: np.float32,
    out: np.ndarray,
) -> None:
    """As `bounds`, of `columns`, blocks (M, B) of B rows each, times `steps`, and of what is left over, (N,)."""
    for block in range(columns.shape[0]):
        start = block * columns.shape[2]
        sums = out[start : start + columns.shape[2]]
        _squared_byte_distances(columns[block], steps, place, sums)
        for i in range(sums.shape[0]):
            difference = rest[start + i] - own_rest
            sums[i] = np.sqrt(sums[i] + difference * difference) * shrink - blur[start + i] - own_slack


@compiled("int64(int64[::1], int64)")
def touch(addresses: np.ndarray, size: int) -> int:
    """Have the pages of `size` bytes at each of these addresses mapped, parts of mapped files. Returns nothing of use."""
    total = 0
    for address in addresses:
        row = numba.carray(pointer(address), size, np.uint8)
        for place in range(0, size, PAGE):
            total += row[place]
    return total


@compiled("float32(int8[::1], float32[::1], float32[::1])", reorder=True)
def _squared_byte_distance(codes: np.ndarray, own: np.ndarray, steps: np.ndarray) -> np.float32:
    total = np.float32(0)
    for d in range(codes.shape[0]):
        difference = np.float32(codes[d]) * steps[d] - own[d]
        total += difference * difference
    return total


@compiled(
    "void(int64[::1], int8[:, ::1], int64, float32[::1], float32[::1], float32, float32[::1], float32, float32, float32[::1])"
)
def close_bounds(
    chosen: np.ndarray,
    codes: np.ndarray,
    address: int,
    own: np.ndarray,
    steps: np.ndarray,
    shrink: np.float32,
    blur: np.ndarray,
    own_slack: np.float32,
    reach: np.float32,
    out: np.ndarray,
) -> None:
    """Bounds of chosen rows of bytes, (N, D), at an address, times `steps`, to `own`, both (D,). A sum that is beyond `reach` already is not
    taken further."""
    dimension = codes.shape[1]
    for i in range(chosen.shape[0]):
        if i + AHEAD < chosen.shape[0]:
            start = address + chosen[i + AHEAD] * dimension
            for line in range(start, start + dimension, LINE):
                fetch(line)
        row = chosen[i]
        total, bound = np.float32(0), np.float32(0)
        for start in range(0, dimension, CUT):
            stop = min(start + CUT, dimension)
            total += _squared_byte_distance(codes[row, start:stop], own[start:stop], steps[start:stop])
            bound = np.sqrt(total) * shrink - (blur[row] + own_slack)
            if bound > reach:
                break
        out[i] = bound
