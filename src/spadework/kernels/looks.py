"""Compiled: the looks of the scan. Each excludes pairs by their codes, four depths one after another (codes.py)."""

from __future__ import annotations

import math

import numpy as np

from spadework.kernels.centres import CENTRE_BYTES, WIDEST
from spadework.kernels.codes import LANES
from spadework.kernels.compile import compiled
from spadework.kernels.vectors import (
    BLOCK_BYTES,
    PAIRS,
    QUERY_PAIRS,
    centre_hits,
    dot_96,
    dot_128,
    int16_at,
    int32_at,
    lowest_bit,
    mid_hits,
    near_hits,
    prefetch,
)

QUERY_BYTES = 2 * (16 + 32 + 96 + 128)  # of one query's codes, see codes.QueryCodes
QUERY_MID, QUERY_FAR, QUERY_DEEP = 2 * 16, 2 * (16 + 32), 2 * (16 + 32 + 96)  # where the parts start, in bytes
FAR_BYTES, DEEP_BYTES = 2 * 96, 2 * 128  # of one lane's codes
CHUNK = 32  # groups whose near codes stay in the first cache, 16 kB, while all queries look at them; as many as `centre_hits` compares
LINE = 64  # bytes that come from memory together
AHEAD = 8  # entries of a list whose codes are asked for before they are needed
LOWEST, HIGHEST = -(2.0**31), 2.0**31 - 2  # of a limit; a lane without a position has 2^31 - 1
SLACK = 0.1  # of code units: float64 rounding in coordinates and rests


@compiled("float64(float64, float64, float64, float64)")
def limit_of(reach: float, square: float, factor: float, largest: float) -> float:
    """The highest value of half a squared norm less the dot product that a pair within reach may have; see pruned.py."""
    highest = (largest * (factor - 1) - factor * factor * square + reach * reach) * (0.5 / factor)
    highest += 1e-14 * factor * square + 2.0
    highest = highest if highest > LOWEST else LOWEST
    return highest if highest < HIGHEST else HIGHEST


@compiled("float64(float64, float64, float64, float64)")
def reach_of(distance: float, scale: float, rounding: float, factor: float) -> float:
    """How far apart, in code units, codes of descriptors at `distance` may lie, but for what quantising moved."""
    return scale * math.sqrt(distance) + rounding + factor * SLACK


@compiled("int64(int64, int64, int64, int64[::1], int64)")
def value_of(query: int, row: int, p: int, offsets: np.ndarray, depths: int) -> int:
    """What one lane is compared by at the last depth."""
    block, lane = p // LANES * BLOCK_BYTES, 4 * (p % LANES)
    value = int32_at(row + offsets[3] + 4 * p) + int32_at(row + offsets[5] + 4 * p)
    for pair in range(PAIRS):
        near, mid = row + offsets[0] + block + lane, row + offsets[2] + block + lane
        place, own = pair * 4 * LANES, query + QUERY_MID + 4 * pair
        value -= int16_at(near + place) * int16_at(own) + int16_at(near + place + 2) * int16_at(own + 2)
        own += 4 * PAIRS
        value -= int16_at(mid + place) * int16_at(own)
        if pair < PAIRS - 1:  # the last one is the norm of the rest
            value -= int16_at(mid + place + 2) * int16_at(own + 2)
    far, own = row + offsets[4] + p * FAR_BYTES, query + QUERY_FAR
    value -= dot_96(far, own)
    if depths == 4:
        value += int32_at(row + offsets[7] + 4 * p) + int16_at(own + FAR_BYTES - 2) * int16_at(far + FAR_BYTES - 2)
        value -= dot_128(row + offsets[6] + p * DEEP_BYTES, query + QUERY_DEEP)
    return int(value)


@compiled(
    "void(int64[::1], int64, int64, float64[:, ::1], float64[:, ::1], float64[::1], float64, float64[::1], float64[:, ::1],"
    " int16[:, ::1], int32[:, ::1], int32[::1])"
)
def set_limits(
    queries: np.ndarray,
    start: int,
    n: int,
    squares: np.ndarray,
    errors: np.ndarray,
    factors: np.ndarray,
    scale: float,
    bounds: np.ndarray,
    distances: np.ndarray,
    towards: np.ndarray,
    limits: np.ndarray,
    of_groups: np.ndarray,
) -> None:
    """The limits of `n` queries at each depth, and of groups with what their centres need of `towards`; an odd last one gets a fellow
    that nothing is near to."""
    kappa = distances.shape[1]
    for j in range(n):
        i = start + j
        factor = factors[i] if bounds[5] > 0 else 1.0
        near = reach_of(distances[queries[i], kappa - 1], scale, bounds[4], factor)
        for depth in range(limits.shape[0]):
            reach = near + factor * errors[i, depth] + bounds[depth]
            limits[depth, j] = np.int32(limit_of(reach, squares[i, depth], factor, bounds[5]))
        reach = (near + factor * errors[i, 0] + bounds[0]) / factor + 1.0  # the next whole number is not less
        is_near = reach < WIDEST
        of_groups[j] = limits[0, j] if is_near else np.int32(HIGHEST)
        towards[i, 2 * PAIRS] = np.int16(reach) if is_near else np.int16(0)
    for j in range(n, n + n % 2):
        limits[0, j] = of_groups[j] = np.int32(LOWEST)


@compiled("int64(int64, int64, int64, int64, int64, int64, int64, int64, int32[:, ::1], int32[::1], uint64[:, ::1])")
def look_near(
    near: int,
    halves: int,
    centres: int,
    own: int,
    first: int,
    last: int,
    n: int,
    towards: int,
    limits: np.ndarray,
    of_groups: np.ndarray,
    hits: np.ndarray,
) -> int:
    """Groups `first` to `last` against `n` queries from an address on; writes (first of two groups, first of two queries, bits) of what
    passes. Looked at are groups whose centre is not too far away for one of two queries, or that stand beside such a one."""
    n_hits = 0
    of_queries, of_centres = limits.ctypes.data, of_groups.ctypes.data
    for start in range(first, last, CHUNK):
        chunk, of_chunk = centres + start // LANES * CENTRE_BYTES, own + start * 4
        for j in range(0, n, 2):
            query = towards + j * 4 * QUERY_PAIRS
            left = centre_hits(chunk, of_chunk, query, of_centres + 4 * j)
            while left != 0:
                g = start + lowest_bit(left)
                left &= left - np.uint64(1)
                bits = near_hits(near + g * BLOCK_BYTES, halves + g * 4 * LANES, query, of_queries + 4 * j)
                hits[n_hits, 0], hits[n_hits, 1], hits[n_hits, 2] = np.uint64(g), np.uint64(j), bits
                n_hits += int(bits != 0)
    return n_hits


# The deeper looks are passes over lists that shrink in place. A pass has no branch that waits for a distance: an entry is written and then
# counted or not. Guessing such branches wrong made the looks three times slower.


@compiled("int64(uint64[:, ::1], int64, int64, int32[:, ::1], uint64[::1])")
def split(hits: np.ndarray, n_hits: int, n_queries: int, entries: np.ndarray, masks: np.ndarray) -> int:
    """One entry (group, query of the block) and its lanes for each of the four that a hit stands for, if any lane passed."""
    n = 0
    for h in range(n_hits):
        for which in range(4):
            own = (hits[h, 2] >> np.uint64(LANES * which)) & np.uint64(0xFFFF)
            entries[n, 0] = np.int64(hits[h, 0]) + which // 2
            entries[n, 1] = np.int64(hits[h, 1]) + which % 2
            masks[n] = own
            n += int(own != 0 and entries[n, 1] < n_queries)
    return n


@compiled(
    "int64(int64, int16[:, ::1], int64, int64[::1], int32[:, ::1], int32[:, ::1], uint64[::1], int32[:, ::1], int64)"
)
def look_mid(
    start: int,
    codes: np.ndarray,
    row: int,
    offsets: np.ndarray,
    limits: np.ndarray,
    entries: np.ndarray,
    masks: np.ndarray,
    values: np.ndarray,
    n: int,
) -> int:
    """Keep the entries of which a lane passes at the second depth, with the values of all their lanes."""
    near, mid, halves = row + offsets[0], row + offsets[2], row + offsets[3]
    all_codes, out, m = codes.ctypes.data + QUERY_MID, values.ctypes.data, 0
    for e in range(n):
        soon = np.int64(entries[min(e + AHEAD, n - 1), 0]) * BLOCK_BYTES
        for line in range(0, BLOCK_BYTES, LINE):
            prefetch(mid + soon + line)
        g, j = np.int64(entries[e, 0]), np.int64(entries[e, 1])
        query, block = all_codes + (start + j) * QUERY_BYTES, g * BLOCK_BYTES
        passed = mid_hits(near + block, mid + block, halves + g * 4 * LANES, query, limits[1, j], out + m * 4 * LANES)
        own = masks[e] & passed
        entries[m, 0], entries[m, 1], masks[m] = g, j, own
        m += int(own != 0)
    return m


@compiled("int64(int32[:, ::1], uint64[::1], int32[:, ::1], int64, int32[:, ::1])")
def to_lanes(entries: np.ndarray, masks: np.ndarray, values: np.ndarray, n: int, lanes: np.ndarray) -> int:
    """Write (place, query of the block, value) of each lane that passed."""
    m = 0
    for e in range(n):
        own = masks[e]
        while own != 0:
            lane = lowest_bit(own)
            own &= own - np.uint64(1)
            lanes[m, 0], lanes[m, 1], lanes[m, 2] = entries[e, 0] * LANES + lane, entries[e, 1], values[e, lane]
            m += 1
    return m


@compiled("int64(int64, int16[:, ::1], int64, int64[::1], int32[:, ::1], int32[:, ::1], int64)")
def look_far(
    start: int,
    codes: np.ndarray,
    row: int,
    offsets: np.ndarray,
    limits: np.ndarray,
    lanes: np.ndarray,
    n: int,
) -> int:
    """Keep the lanes that pass at the third depth: the value without its rest's norm, the last code, and with the further codes."""
    mid, far, steps, m = row + offsets[2], row + offsets[4], row + offsets[5], 0
    for i in range(n):
        soon = far + np.int64(lanes[min(i + AHEAD, n - 1), 0]) * FAR_BYTES
        for line in range(0, FAR_BYTES, LINE):
            prefetch(soon + line)
        p, j = np.int64(lanes[i, 0]), np.int64(lanes[i, 1])
        query = codes.ctypes.data + (start + j) * QUERY_BYTES + QUERY_FAR
        rest = int16_at(mid + p // LANES * BLOCK_BYTES + (PAIRS - 1) * 4 * LANES + 4 * (p % LANES) + 2)
        value = lanes[i, 2] + int32_at(steps + 4 * p) + int16_at(query - 2) * rest - dot_96(far + p * FAR_BYTES, query)
        lanes[m, 0], lanes[m, 1], lanes[m, 2] = p, j, value
        m += int(value <= limits[2, j])
    return m


@compiled("int64(int64, int16[:, ::1], int64, int64[::1], int32[:, ::1], int32[:, ::1], int64)")
def look_deep(
    start: int,
    codes: np.ndarray,
    row: int,
    offsets: np.ndarray,
    limits: np.ndarray,
    lanes: np.ndarray,
    n: int,
) -> int:
    """Keep the lanes that pass at the last depth: the value without its rest's norm, the last code, and with the further codes."""
    far, deep, steps, m = row + offsets[4], row + offsets[6], row + offsets[7], 0
    for i in range(n):
        soon = deep + np.int64(lanes[min(i + AHEAD, n - 1), 0]) * DEEP_BYTES
        for line in range(0, DEEP_BYTES, LINE):
            prefetch(soon + line)
        p, j = np.int64(lanes[i, 0]), np.int64(lanes[i, 1])
        query = codes.ctypes.data + (start + j) * QUERY_BYTES + QUERY_DEEP
        rest = int16_at(far + (p + 1) * FAR_BYTES - 2)
        value = (
            lanes[i, 2] + int32_at(steps + 4 * p) + int16_at(query - 2) * rest - dot_128(deep + p * DEEP_BYTES, query)
        )
        lanes[m, 0], lanes[m, 1], lanes[m, 2] = p, j, value
        m += int(value <= limits[3, j])
    return m


@compiled("void(int64, int64, int32[:, ::1], int64, int32[:, ::1], int32[:, ::1], int64[::1])")
def by_query(
    copies: int, kappa: int, lanes: np.ndarray, n: int, found: np.ndarray, values: np.ndarray, n_found: np.ndarray
) -> None:
    """Sort the lanes that passed all looks by their query."""
    n_found[:] = 0
    for i in range(n):
        p, j = np.int64(lanes[i, 0]), np.int64(lanes[i, 1])
        if int32_at(copies + 4 * p) < kappa:  # the first copies of a descriptor stand for all
            k = n_found[j]
            found[j, k], values[j, k] = p, lanes[i, 2]
            n_found[j] = k + 1
