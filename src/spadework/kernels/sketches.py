"""Compiled: distances of short rows, for the retrieval of images. retrieval.py says what they bound."""

from __future__ import annotations

import numpy as np

from spadework.kernels.compile import compiled

STRIP = 1024  # rows at a time: their sums stay in the processor's first cache
CUT = 256  # numbers after which a bound may be high enough


@compiled("void(float32[:, ::1], float32[:, ::1], int64, float32[::1])", reorder=True)
def _squared_distances(places: np.ndarray, place: np.ndarray, start: int, sums: np.ndarray) -> None:
    """Of the columns of `places`, (M + 1, N), from `start` on, to `place`, (M + 1, 1), but for the last row."""
    sums[:] = 0
    for m in range(places.shape[0] - 1):
        row, own = places[m, start : start + sums.shape[0]], place[m, 0]
        for i in range(sums.shape[0]):
            difference = row[i] - own
            sums[i] += difference * difference


@compiled("void(float32[::1], float32, float32[::1], float32, float32[::1], float32)")
def _lower(
    rest: np.ndarray,
    own_rest: np.float32,
    sums: np.ndarray,
    shrink: np.float32,
    slack: np.ndarray,
    own_slack: np.float32,
) -> None:
    for i in range(sums.shape[0]):
        difference = rest[i] - own_rest
        sums[i] = np.sqrt(sums[i] + difference * difference) * shrink - slack[i] - own_slack


@compiled("void(float32[:, ::1], float32[:, ::1], float32, float32[::1], float32, float32[::1], float32[::1])")
def bounds(
    places: np.ndarray,
    place: np.ndarray,
    shrink: np.float32,
    slack: np.ndarray,
    own_slack: np.float32,
    kept: np.ndarray,
    out: np.ndarray,
) -> None:
    """Distances of the columns of `places`, (M + 1, N), to `place`, (M + 1, 1), times `shrink`, less the slack of both; all in float32.

    `kept`, (N,) or empty, takes the sums of squares of all but the last row. NumPy takes three times as long: 0.8 ms at 100,000 of 33.
    """
    beside = places.shape[0] - 1
    for start in range(0, out.shape[0], STRIP):
        stop = min(start + STRIP, out.shape[0])
        sums = out[start:stop]
        _squared_distances(places, place, start, sums)
        if kept.shape[0]:
            kept[start:stop] = sums
        _lower(places[beside, start:stop], place[beside, 0], sums, shrink, slack[start:stop], own_slack)


@compiled("float32(int8[::1], float32[::1], float32)", reorder=True)
def _further(codes: np.ndarray, own: np.ndarray, step: np.float32) -> np.float32:
    total = np.float32(0)
    for d in range(codes.shape[0]):
        difference = np.float32(codes[d]) * step - own[d]
        total += difference * difference
    return total


@compiled(
    "void(int64[::1], float32[::1], int8[:, ::1], float32[::1], float32, float32, float32[::1], float32, float32[::1])"
)
def close_bounds(
    chosen: np.ndarray,
    sums: np.ndarray,
    codes: np.ndarray,
    own: np.ndarray,
    step: np.float32,
    shrink: np.float32,
    off: np.ndarray,
    reach: np.float32,
    out: np.ndarray,
) -> None:
    """Bounds of the chosen rows, from what `bounds` has kept and their codes, (N, D); `own` is (D,), `off` what is taken off.

    A sum that is beyond `reach` already is not taken further.
    """
    dimension = codes.shape[1]
    for i in range(chosen.shape[0]):
        row = chosen[i]
        total, bound = sums[row], np.float32(0)
        for start in range(0, dimension, CUT):
            stop = min(start + CUT, dimension)
            total += _further(codes[row, start:stop], own[start:stop], step)
            bound = np.sqrt(total) * shrink - off[row]
            if bound > reach:
                break
        out[i] = bound
