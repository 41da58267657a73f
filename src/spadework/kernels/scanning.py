"""Compiled: exact distances, and the scan that avoids most of them. pruned.py says what is compared and why nothing is lost."""

from __future__ import annotations

import math

import numba
import numpy as np

from spadework.kernels.compile import compiled
from spadework.kernels.vectors import (
    BLOCK_BYTES,
    LANES,
    PAIRS,
    dot_96,
    dot_128,
    int16_at,
    int32_at,
    lowest_bit,
    mid_hits,
    near_hits,
    near_values,
    pointer,
)

QUERY_BYTES = 2 * (16 + 32 + 96 + 128)  # of one query's codes, see codes.QueryCodes
QUERY_MID, QUERY_FAR, QUERY_DEEP = 2 * 16, 2 * (16 + 32), 2 * (16 + 32 + 96)  # where the parts start, in bytes
QUERIES = 64  # scanned together: a group's codes are read once for them
STRIP = 256  # groups scanned together
CHUNK = 32  # groups whose near codes stay in the first cache, 16 kB, while all queries look at them
FAR_BYTES, DEEP_BYTES = 2 * 96, 2 * 128  # of one lane's codes
LOWEST, HIGHEST = -(2.0**31), 2.0**31 - 2  # of a limit; a lane without a position has 2^31 - 1
SLACK = 0.1  # of code units: float64 rounding in coordinates and residuals
# Of what the work of a scan costs, in nanoseconds, roughly: only for giving up where nothing can be pruned.
MID_COST, FAR_COST, DEEP_COST, EXACT_COST = 12, 10, 14, 100
CHANNELS_A_NANOSECOND = 2


@compiled("void(float32[::1], float32[::1], float32[::1], float32[::1], float32, float32, float32[::1])")
def _between(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, down: float, right: float, out: np.ndarray
) -> None:
    """As `pyramid.upsample` blends, digit for digit: first down, then right, float32, no contraction, no reordering."""
    for i in range(out.shape[0]):
        left = a[i] + (b[i] - a[i]) * down
        other = c[i] + (d[i] - c[i]) * down
        out[i] = left + (other - left) * right


@compiled("float64(float32[::1], float32[::1])", reorder=True)
def _squared_distance(left: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for i in range(left.shape[0]):
        difference = np.float64(left[i]) - np.float64(right[i])
        total += difference * difference
    return total


@compiled(
    "float64(float32[::1], float32[::1], int64[:, ::1], int64[:, :, :, ::1], float32[:, :, ::1], int64, int64, float32[::1])"
)
def exact(
    query: np.ndarray,
    record: np.ndarray,
    geometry: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    row: int,
    column: int,
    room: np.ndarray,
) -> float:
    """Squared distance of a descriptor to that of a fine position, float64 from the differences of float32 descriptors."""
    total, start = 0.0, 0
    for level in range(geometry.shape[0]):
        offset, w, c = geometry[level, 0], geometry[level, 1], geometry[level, 2]
        down, right = shares[level, 0, row], shares[level, 1, column]
        y0, x0 = places[level, 0, 0, row], places[level, 1, 0, column]
        i = offset + (y0 * w + x0) * c
        if down == 0 and right == 0:
            total += _squared_distance(query[start : start + c], record[i : i + c])
        else:
            y1, x1 = places[level, 0, 1, row], places[level, 1, 1, column]
            j, k, m = offset + (y1 * w + x0) * c, offset + (y0 * w + x1) * c, offset + (y1 * w + x1) * c
            feature = room[:c]
            _between(record[i : i + c], record[j : j + c], record[k : k + c], record[m : m + c], down, right, feature)
            total += _squared_distance(query[start : start + c], feature)
        start += c
    return total


@compiled("void(float64[::1], int64[::1], float64, int64)")
def insert(distances: np.ndarray, indices: np.ndarray, distance: float, index: int) -> None:
    """Take a pair among the kappa nearest if it belongs there: nearest first, ties to the lower index, no index twice."""
    last = distances.shape[0] - 1
    if distance > distances[last] or (distance == distances[last] and index > indices[last]):
        return
    for j in range(last + 1):
        if indices[j] == index:
            return
    j = last
    while j > 0 and (distances[j - 1] > distance or (distances[j - 1] == distance and indices[j - 1] > index)):
        distances[j] = distances[j - 1]
        indices[j] = indices[j - 1]
        j -= 1
    distances[j] = distance
    indices[j] = index


@compiled("float64(float64, float64, float64, float64, float64, float64)")
def _limit(distance: float, scale: float, wide: float, square: float, factor: float, largest: float) -> float:
    """The highest value of half a squared norm less the dot product that a pair nearer than `distance` may have; see pruned.py."""
    reach = scale * math.sqrt(distance) + wide
    highest = (largest * (factor - 1) - factor * factor * square + reach * reach) / (2 * factor)
    return min(max(highest + 1e-14 * factor * square + 2.0, LOWEST), HIGHEST)


@compiled("float64(float64, float64, float64, float64)")
def _width(factor: float, own: float, other: float, rounding: float) -> float:
    """How much farther apart codes may lie than descriptors, in code units."""
    return factor * (own + SLACK) + other + rounding


@compiled(
    "void(int64[::1], int64[::1], int64, int64, float32[:, ::1], int64[:, ::1], int64, int64[:, ::1],"
    " int64[:, :, :, ::1], float32[:, :, ::1], int64, float64[:, ::1], int64[:, ::1], int64[::1])"
)
def try_pairs(
    queries: np.ndarray,
    rows: np.ndarray,
    first: int,
    last: int,
    descriptors: np.ndarray,
    images: np.ndarray,
    positions: int,
    geometry: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    width: int,
    distances: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Exact distances of the pairs `first` to `last` of (query, gallery row), each kept if it is among the nearest."""
    room = np.empty(descriptors.shape[1], np.float32)
    for i in range(first, last):
        q, image, p = queries[i], rows[i] // positions, rows[i] % positions
        record = numba.carray(pointer(images[image, 1]), images[image, 2], np.float32)
        distance = exact(descriptors[q], record, geometry, places, shares, p // width, p % width, room)
        insert(distances[q], indices[q], distance, rows[i])
    counts[5] += last - first


@compiled("void(int64[::1], int64, int64, int16[:, ::1], int64[:, ::1], int64[::1], int32[::1], int64, int64[:, ::1])")
def guess(
    queries: np.ndarray,
    first: int,
    last: int,
    codes: np.ndarray,
    images: np.ndarray,
    offsets: np.ndarray,
    order: np.ndarray,
    groups: int,
    rows: np.ndarray,
) -> None:
    """For queries `first` to `last`, the rows of the first image whose near codes lie nearest: a start, nothing more."""
    values = np.empty(LANES, np.int32)
    wanted = rows.shape[1]
    best = np.empty(wanted, np.int64)
    near, halves = images[0, 0] + offsets[0], images[0, 0] + offsets[1]
    for i in range(first, last):
        query = codes.ctypes.data + queries[i] * QUERY_BYTES
        best[:] = HIGHEST
        rows[i] = -1
        for g in range(min(groups, STRIP)):
            near_values(near + g * BLOCK_BYTES, halves + g * 4 * LANES, query, values.ctypes.data)
            for lane in range(LANES):
                value = np.int64(values[lane])
                if value >= best[wanted - 1]:
                    continue
                j = wanted - 1
                while j > 0 and best[j - 1] > value:
                    best[j] = best[j - 1]
                    rows[i, j] = rows[i, j - 1]
                    j -= 1
                best[j] = value
                rows[i, j] = order[g * LANES + lane]


@compiled(
    "void(int64[::1], int64, int64, int16[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1], float64, float64[::1],"
    " float64[:, ::1], int16[:, ::1], int32[:, ::1])"
)
def _prepare_block(
    queries: np.ndarray,
    start: int,
    n: int,
    codes: np.ndarray,
    squares: np.ndarray,
    errors: np.ndarray,
    factors: np.ndarray,
    scale: float,
    bounds: np.ndarray,
    distances: np.ndarray,
    block: np.ndarray,
    limits: np.ndarray,
) -> None:
    """Near codes of `n` queries side by side, and their limits; to an even number with a query that nothing is near to."""
    kappa = distances.shape[1]
    for j in range(n):
        q = queries[start + j]
        block[j] = codes[q, : 2 * PAIRS]
        factor = factors[q] if bounds[5] > 0 else 1.0
        for depth in range(limits.shape[0]):
            wide = _width(factor, errors[q, depth], bounds[depth], bounds[4])
            limit = _limit(distances[q, kappa - 1], scale, wide, squares[q, depth], factor, bounds[5])
            limits[depth, j] = np.int32(limit)
    for j in range(n, n + n % 2):
        block[j] = 0
        limits[0, j] = np.int32(LOWEST)


@compiled("int64(int64, int64, int64, int64, int64, int16[:, ::1], int32[:, ::1], uint64[:, ::1])")
def _look_near(
    near: int,
    halves: int,
    first: int,
    last: int,
    n: int,
    block: np.ndarray,
    limits: np.ndarray,
    hits: np.ndarray,
) -> int:
    """Groups `first` to `last` against a block of queries; writes (first of two groups, first of two queries, bits) of what passes."""
    n_hits = 0
    own, limit = block.ctypes.data, limits.ctypes.data
    for start in range(first, last, CHUNK):
        end = min(last, start + CHUNK)
        for j in range(0, n, 2):
            query, of_query = own + j * 4 * PAIRS, limit + 4 * j
            for g in range(start, end, 2):
                bits = near_hits(near + g * BLOCK_BYTES, halves + g * 4 * LANES, query, of_query)
                if bits != 0:
                    hits[n_hits, 0], hits[n_hits, 1], hits[n_hits, 2] = np.uint64(g), np.uint64(j), bits
                    n_hits += 1
    return n_hits


# The deeper looks are passes over lists that shrink in place. A pass has no branch that waits for a distance: an entry is written and then
# counted or not. Guessing such branches wrong made the looks three times slower.


@compiled("int64(uint64[:, ::1], int64, int32[:, ::1], uint64[::1])")
def _split(hits: np.ndarray, n_hits: int, entries: np.ndarray, masks: np.ndarray) -> int:
    """One entry (group, query of the block) and its lanes for each of the four that a hit stands for, if any lane passed."""
    n = 0
    for h in range(n_hits):
        for which in range(4):
            own = (hits[h, 2] >> np.uint64(LANES * which)) & np.uint64(0xFFFF)
            entries[n, 0] = np.int64(hits[h, 0]) + which // 2
            entries[n, 1] = np.int64(hits[h, 1]) + which % 2
            masks[n] = own
            n += np.int64(own != 0)
    return n


@compiled(
    "int64(int64[::1], int64, int16[:, ::1], int64, int64[::1], int32[:, ::1], int32[:, ::1], uint64[::1], int32[:, ::1],"
    " int64)"
)
def _look_mid(
    queries: np.ndarray,
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
        g, j = np.int64(entries[e, 0]), np.int64(entries[e, 1])
        query, block = all_codes + queries[start + j] * QUERY_BYTES, g * BLOCK_BYTES
        passed = mid_hits(near + block, mid + block, halves + g * 4 * LANES, query, limits[1, j], out + m * 4 * LANES)
        own = masks[e] & passed
        entries[m, 0], entries[m, 1], masks[m] = g, j, own
        m += np.int64(own != 0)
    return m


@compiled("int64(int32[:, ::1], uint64[::1], int32[:, ::1], int64, int32[:, ::1])")
def _to_lanes(entries: np.ndarray, masks: np.ndarray, values: np.ndarray, n: int, lanes: np.ndarray) -> int:
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


# At each further depth: the bound without its rest's norm, which is the last code, and with the further codes.


@compiled("int64(int64[::1], int64, int16[:, ::1], int64, int64[::1], int32[:, ::1], int32[:, ::1], int64)")
def _look_far(
    queries: np.ndarray,
    start: int,
    codes: np.ndarray,
    row: int,
    offsets: np.ndarray,
    limits: np.ndarray,
    lanes: np.ndarray,
    n: int,
) -> int:
    mid, far, steps, m = row + offsets[2], row + offsets[4], row + offsets[5], 0
    for i in range(n):
        p, j = np.int64(lanes[i, 0]), np.int64(lanes[i, 1])
        query = codes.ctypes.data + queries[start + j] * QUERY_BYTES + QUERY_FAR
        rest = int16_at(mid + p // LANES * BLOCK_BYTES + (PAIRS - 1) * 4 * LANES + 4 * (p % LANES) + 2)
        value = lanes[i, 2] + int32_at(steps + 4 * p) + int16_at(query - 2) * rest - dot_96(far + p * FAR_BYTES, query)
        lanes[m, 0], lanes[m, 1], lanes[m, 2] = p, j, value
        m += np.int64(value <= limits[2, j])
    return m


@compiled("int64(int64[::1], int64, int16[:, ::1], int64, int64[::1], int32[:, ::1], int32[:, ::1], int64)")
def _look_deep(
    queries: np.ndarray,
    start: int,
    codes: np.ndarray,
    row: int,
    offsets: np.ndarray,
    limits: np.ndarray,
    lanes: np.ndarray,
    n: int,
) -> int:
    far, deep, steps, m = row + offsets[4], row + offsets[6], row + offsets[7], 0
    for i in range(n):
        p, j = np.int64(lanes[i, 0]), np.int64(lanes[i, 1])
        query = codes.ctypes.data + queries[start + j] * QUERY_BYTES + QUERY_DEEP
        rest = int16_at(far + (p + 1) * FAR_BYTES - 2)
        value = (
            lanes[i, 2] + int32_at(steps + 4 * p) + int16_at(query - 2) * rest - dot_128(deep + p * DEEP_BYTES, query)
        )
        lanes[m, 0], lanes[m, 1], lanes[m, 2] = p, j, value
        m += np.int64(value <= limits[3, j])
    return m


@compiled("void(int64, int64, int32[:, ::1], int64, int32[:, ::1], int32[:, ::1], int64[::1])")
def _by_query(
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


@compiled("int64(int64[::1], int64)")
def _work(counts: np.ndarray, channels: int) -> int:
    """Roughly the nanoseconds of all work so far: only for giving up where nothing can be pruned."""
    looks = MID_COST * counts[2] + FAR_COST * counts[3] + DEEP_COST * counts[4]
    counts[0] = looks + (EXACT_COST + channels // CHANNELS_A_NANOSECOND) * counts[5]
    return int(counts[0])


@compiled(
    "void(int64, int64, int32[::1], int32[::1], int64, float64, float64, float64, float64, float64, float32[::1], float32[::1],"
    " int32[::1], int64[:, ::1], int64[:, :, :, ::1], float32[:, :, ::1], int64, float32[::1], float64[::1], int64[::1],"
    " int64[::1])"
)
def _verify(
    base: int,
    limit: int,
    found: np.ndarray,
    values: np.ndarray,
    n: int,
    scale: float,
    wide: float,
    square: float,
    factor: float,
    largest: float,
    descriptor: np.ndarray,
    record: np.ndarray,
    order: np.ndarray,
    geometry: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    width: int,
    room: np.ndarray,
    distances: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Exact distances of one query's candidates, lowest bound first, until no bound is low enough."""
    while n > 0:
        lowest = 0
        for i in range(1, n):
            if values[i] < values[lowest]:
                lowest = i
        if values[lowest] > limit:
            return
        p = int(order[found[lowest]])
        n -= 1
        found[lowest], values[lowest] = found[n], values[n]
        counts[5] += 1
        distance = exact(descriptor, record, geometry, places, shares, p // width, p % width, room)
        insert(distances, indices, distance, base + p)
        limit = int(_limit(distances[-1], scale, wide, square, factor, largest))


@compiled(
    "void(int64[::1], int64, int64, int16[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1], float32[:, ::1], float64,"
    " int64[:, ::1], float64[:, ::1], int64[::1], int32[::1], int64, int64, int64[:, ::1], int64[:, :, :, ::1],"
    " float32[:, :, ::1], int64, float64[:, ::1], int64[:, ::1], int64, int64[::1])"
)
def scan(
    queries: np.ndarray,
    first: int,
    last: int,
    codes: np.ndarray,
    squares: np.ndarray,
    errors: np.ndarray,
    factors: np.ndarray,
    descriptors: np.ndarray,
    scale: float,
    images: np.ndarray,
    bounds: np.ndarray,
    offsets: np.ndarray,
    order: np.ndarray,
    groups: int,
    positions: int,
    geometry: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    width: int,
    distances: np.ndarray,
    indices: np.ndarray,
    budget: int,
    counts: np.ndarray,
) -> None:
    """Compare queries `first` to `last` with every image; `distances` and `indices` keep the nearest. Stops when work exceeds `budget`.

    squares, errors: (Q, depths) of the queries' codes. factors: (Q,), how far outside the codes' ball each lies. images: (n, 3),
    addresses of an image's row of codes and of its record, the record's length. bounds: (n, 6), the largest errors of its codes at the
    four depths, what rounding of descriptors may add, in code units, and the largest squared norm of its codes, or 0 where one of its
    descriptors lies outside the ball. offsets: of the parts of a row. order: the position of each lane. counts: work, then what passed
    near (two queries and two groups), near (a query and a group), mid, far, and exact distances.
    """
    strip, kappa, depths = min(groups, STRIP), distances.shape[1], squares.shape[1]
    block = np.empty((QUERIES, 2 * PAIRS), np.int16)
    limits = np.empty((depths, QUERIES), np.int32)
    hits = np.empty((strip * QUERIES // 4, 3), np.uint64)
    room = np.empty(descriptors.shape[1], np.float32)
    n_found = np.empty(QUERIES, np.int64)
    found = np.empty((QUERIES, strip * LANES), np.int32)
    values = np.empty((QUERIES, strip * LANES), np.int32)
    entries = np.empty((strip * QUERIES + 4, 2), np.int32)
    masks = np.empty(strip * QUERIES + 4, np.uint64)
    of_entries = np.empty((strip * QUERIES + 1, LANES), np.int32)
    lanes = np.empty((strip * QUERIES * LANES + 1, 3), np.int32)
    for image in range(images.shape[0]):
        row, base = images[image, 0], image * positions
        record = numba.carray(pointer(images[image, 1]), images[image, 2], np.float32)
        own = bounds[image]
        for start in range(first, last, QUERIES):
            n = min(QUERIES, last - start)
            for strip_first in range(0, groups, STRIP):
                _prepare_block(queries, start, n, codes, squares, errors, factors, scale, own, distances, block, limits)
                strip_last = min(groups, strip_first + STRIP)
                n_hits = _look_near(row + offsets[0], row + offsets[1], strip_first, strip_last, n, block, limits, hits)
                n_near = _split(hits, n_hits, entries, masks)
                m = _look_mid(queries, start, codes, row, offsets, limits, entries, masks, of_entries, n_near)
                n_mid = _to_lanes(entries, masks, of_entries, m, lanes)
                n_far = _look_far(queries, start, codes, row, offsets, limits, lanes, n_mid)
                n_deep = n_far
                if depths == 4:
                    n_deep = _look_deep(queries, start, codes, row, offsets, limits, lanes, n_far)
                    counts[4] += n_far
                _by_query(row + offsets[8], kappa, lanes, n_deep, found, values, n_found)
                counts[1] += n_hits
                counts[2] += n_near
                counts[3] += n_mid
                if _work(counts, descriptors.shape[1]) > budget:
                    return
                for j in range(n):
                    if n_found[j] == 0:
                        continue
                    q = queries[start + j]
                    factor = factors[q] if own[5] > 0 else 1.0
                    wide = _width(factor, errors[q, depths - 1], own[depths - 1], own[4])
                    _verify(
                        base,
                        int(limits[depths - 1, j]),
                        found[j],
                        values[j],
                        n_found[j],
                        scale,
                        wide,
                        squares[q, depths - 1],
                        factor,
                        own[5],
                        descriptors[q],
                        record,
                        order,
                        geometry,
                        places,
                        shares,
                        width,
                        room,
                        distances[q],
                        indices[q],
                        counts,
                    )
                    if _work(counts, descriptors.shape[1]) > budget:
                        return
