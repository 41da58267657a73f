"""Compiled: a centre and a radius for each group of sixteen places, by which most groups are left out before any of their places is looked at.

With c a group's centre and r its radius, both in near codes (codes.py), the group's places lie within r of c. A query within reach T of
one of them has ||q - c|| <= T + r, which is

    (||c||^2 - r^2) / 2 - q.c - T r <= (T^2 - ||q||^2) / 2,

the same limit as that of the first look at places (looks.limit_of), with one more code on either side: T for the query, r for the group.
c is the mean of the codes, rounded toward 0: any point would do, and r is measured from the rounded one, then rounded up, as T is; so
nothing is lost by rounding. For a query f times as far out as the codes' ball (pruned.py), q' = q / f and T' = T / f, the limit holds with
G^2 in it as long as ||c||^2 - r^2 <= G^2: the mean is no longer than the longest, nor is what is rounded toward 0.
No sum leaves int32: with T and r at most WIDEST it stays below RADIUS^2 (1 + 1/2) + 1.5 WIDEST^2 < 2^31. A group with a larger radius, or a
query with a larger reach (nothing is found yet), is not left out.

Sixteen groups are compared at a time, laid out as the places of a group are (vectors.py), with PAIRS + 1 pairs of codes.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from spadework.kernels.codes import LANES, NO_LANE
from spadework.kernels.compile import compiled
from spadework.kernels.vectors import PAIRS, QUERY_PAIRS, pointer

WIDEST = 16_000  # code units
ALWAYS = -(2**30)  # half a squared norm that any limit reaches
CENTRE_BYTES = 4 * QUERY_PAIRS * LANES  # of sixteen groups
BLOCKS = 2  # of sixteen groups, looked at together


def centres_of(rows: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what `centre_hits` compares with, of the groups of images: int64 (n, 2), the addresses of their near codes and halves.

    int16 (n, blocks, QUERY_PAIRS, LANES, 2): for each pair of codes the sixteen groups. int32 (n, blocks, LANES): (||c||^2 - r^2) / 2.
    """
    blocks = -(-groups // (BLOCKS * LANES)) * BLOCKS
    codes = np.zeros((len(rows), blocks, QUERY_PAIRS, LANES, 2), np.int16)
    own = np.full((len(rows), blocks, LANES), NO_LANE, np.int32)
    _centres(rows, groups, codes, own)
    return codes, own


@compiled("void(int16[:, :, ::1], int32[::1], int32[:, ::1])")
def _middle(codes: np.ndarray, there: np.ndarray, middle: np.ndarray) -> None:
    """The mean of a group's codes, (PAIRS, LANES, 2), rounded toward 0; lanes without a place have codes 0."""
    count = max(1, there.sum())
    for pair in range(PAIRS):
        even, odd = 0, 0
        for lane in range(LANES):
            even += codes[pair, lane, 0]
            odd += codes[pair, lane, 1]
        middle[pair, 0], middle[pair, 1] = int(even / count), int(odd / count)


@compiled("float64(int16[:, :, ::1], int32[::1], int32[:, ::1], float64[::1])")
def _farthest(codes: np.ndarray, there: np.ndarray, middle: np.ndarray, squares: np.ndarray) -> float:
    """The largest squared distance of a place of a group from its middle: whole numbers below 2^53."""
    squares[:] = 0.0
    for pair in range(PAIRS):
        for lane in range(LANES):
            even = np.float64(codes[pair, lane, 0] - middle[pair, 0])
            odd = np.float64(codes[pair, lane, 1] - middle[pair, 1])
            squares[lane] += even * even + odd * odd
    farthest = 0.0
    for lane in range(LANES):
        farthest = max(farthest, squares[lane] * there[lane])
    return farthest


@compiled("void(int64, int64, int64, int16[:, :, :, ::1], int32[:, ::1])")
def _centres_of_one(near: int, halves: int, groups: int, codes: np.ndarray, own: np.ndarray) -> None:
    places = numba.carray(pointer(near), (groups, PAIRS, LANES, 2), np.int16)
    norms = numba.carray(pointer(halves), (groups, LANES), np.int32)
    there, squares = np.empty(LANES, np.int32), np.empty(LANES, np.float64)
    middle = np.empty((PAIRS, 2), np.int32)
    for g in range(groups):
        for lane in range(LANES):
            there[lane] = norms[g, lane] != NO_LANE
        if there.sum() == 0:
            continue
        block, lane = g // LANES, g % LANES
        _middle(places[g], there, middle)
        radius = math.ceil(math.sqrt(_farthest(places[g], there, middle, squares)))
        if radius > WIDEST:
            own[block, lane] = ALWAYS
            continue
        square = -np.int64(radius) * np.int64(radius)
        for pair in range(PAIRS):
            for side in range(2):
                code = np.int64(middle[pair, side])
                codes[block, pair, lane, side] = code
                square += code * code
        codes[block, PAIRS, lane, 0] = np.int16(radius)
        own[block, lane] = square // 2  # rounded down


@compiled("void(int64[:, ::1], int64, int16[:, :, :, :, ::1], int32[:, :, ::1])")
def _centres(rows: np.ndarray, groups: int, all_codes: np.ndarray, all_own: np.ndarray) -> None:
    for image in range(rows.shape[0]):
        _centres_of_one(rows[image, 0], rows[image, 1], groups, all_codes[image], all_own[image])
