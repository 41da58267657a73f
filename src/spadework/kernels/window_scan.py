"""Compiled: the search within a window around the same place. window.py says what is searched, pruned.py why nothing is lost."""

from __future__ import annotations

import numba
import numpy as np

from spadework.kernels.codes import LANES
from spadework.kernels.compile import compiled
from spadework.kernels.looks import (
    DEEP_BYTES,
    FAR_BYTES,
    QUERY_BYTES,
    QUERY_DEEP,
    QUERY_FAR,
    QUERY_MID,
    limit_of,
    reach_of,
)
from spadework.kernels.scanning import exact, insert
from spadework.kernels.vectors import (
    BLOCK_BYTES,
    PAIRS,
    dot_96,
    dot_128,
    int16_at,
    int32_at,
    lowest_bit,
    mid_hits,
    pointer,
)

TRIED = np.int32(2**31 - 1)  # no value of a place
QUERIES = 16  # neighbours, searched together: an image's codes around them are read once


@compiled("int64(int64, int64, int64[::1], int64[::1], int64[::1], uint64[::1])")
def _touched(y: int, x: int, reach: np.ndarray, shape: np.ndarray, groups: np.ndarray, masks: np.ndarray) -> int:
    """Write the groups of sixteen places that the window around (y, x) touches, and which lanes lie in it; return how many."""
    height, width, tall, wide = shape[0], shape[1], shape[2], shape[3]
    columns, down, right = (width + wide - 1) // wide, reach.shape[0] - 1, reach[0]
    n = 0
    for gy in range(max(0, y - down) // tall, min(height - 1, y + down) // tall + 1):
        for gx in range(max(0, x - right) // wide, min(width - 1, x + right) // wide + 1):
            mask = np.uint64(0)
            for row in range(tall):
                away = abs(gy * tall + row - y)
                if away <= down:
                    first = max(0, x - reach[away] - gx * wide)
                    last = min(wide - 1, x + reach[away] - gx * wide)
                    for lane in range(first, last + 1):
                        mask |= np.uint64(1) << np.uint64(row * wide + lane)
            groups[n], masks[n] = gy * columns + gx, mask
            n += int(mask != 0)
    return n


@compiled("void(float64, float64, float64[::1], float64[::1], float64, float64[::1], int32[::1])")
def _set_limits(
    distance: float,
    scale: float,
    squares: np.ndarray,
    errors: np.ndarray,
    factor: float,
    bounds: np.ndarray,
    limits: np.ndarray,
) -> None:
    """A query's limits at each depth, once its kappa-th nearest lies at `distance`."""
    near = reach_of(distance, scale, bounds[4], factor)
    for depth in range(limits.shape[0]):
        reach = near + factor * errors[depth] + bounds[depth]
        limits[depth] = np.int32(limit_of(reach, squares[depth], factor, bounds[5]))


@compiled("void(int64[::1], int64, int64[::1], int64[::1], int32[::1], int32[::1], int32[:, ::1])")
def _same_place(
    queries: np.ndarray,
    codes: int,
    rows: np.ndarray,
    offsets: np.ndarray,
    lane_of: np.ndarray,
    sixteen: np.ndarray,
    values: np.ndarray,
) -> None:
    """Write what the very place of each query is compared by in each image, by 32 codes."""
    for image in range(rows.shape[0]):
        row = rows[image]
        near, mid, halves = row + offsets[0], row + offsets[2], row + offsets[3]
        for j in range(queries.shape[0]):
            lane = np.int64(lane_of[queries[j]])
            group, query = lane >> 4, codes + queries[j] * QUERY_BYTES + QUERY_MID
            block, own = group * BLOCK_BYTES, halves + group * 4 * LANES
            mid_hits(near + block, mid + block, own, query, TRIED, sixteen.ctypes.data)
            values[j, image] = sixteen[lane & 15]


@compiled(
    "void(int64, int64, int64, int64[:, ::1], float32[::1], int64[:, ::1], int64[:, :, :, ::1], float32[:, :, ::1],"
    " float32[::1], int32[::1], float64[::1], int64[::1], int64[::1])"
)
def _start(
    place: int,
    positions: int,
    width: int,
    images: np.ndarray,
    descriptor: np.ndarray,
    geometry: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    room: np.ndarray,
    values: np.ndarray,
    distances: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
) -> None:
    """First matches of a query: the very place in the images whose `values` there are lowest, exactly."""
    for _ in range(min(distances.shape[0], images.shape[0])):
        best = int(values.argmin())
        values[best] = TRIED
        record = numba.carray(pointer(images[best, 1]), images[best, 2], np.float32)
        distance = exact(descriptor, record, geometry, places, shares, place // width, place % width, room)
        insert(distances, indices, distance, best * positions + place)
        counts[3] += 1


@compiled(
    "int64(int64, int64, int64[::1], int32[::1], int32[::1], int64[::1], uint64[::1], int32[:, ::1], int64, int32[::1],"
    " int32[::1], int64[::1])"
)
def _sift(
    query: int,
    row: int,
    offsets: np.ndarray,
    limits: np.ndarray,
    order: np.ndarray,
    groups: np.ndarray,
    bits: np.ndarray,
    of_groups: np.ndarray,
    n: int,
    found: np.ndarray,
    values: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Of the lanes of `n` groups that passed 32 codes: write the places that pass all, and their values; return how many."""
    mid, far, far_steps = row + offsets[2], row + offsets[4], row + offsets[5]
    deep, deep_steps = row + offsets[6], row + offsets[7]
    own_far, own_deep, depths = query + QUERY_FAR, query + QUERY_DEEP, limits.shape[0]
    m = 0
    for i in range(n):
        own = bits[i]
        while own != 0:
            lane = lowest_bit(own)
            own &= own - np.uint64(1)
            p = groups[i] * LANES + lane
            counts[1] += 1
            rest = int16_at(mid + groups[i] * BLOCK_BYTES + (PAIRS - 1) * 4 * LANES + 4 * lane + 2)
            value = np.int64(of_groups[i, lane]) + int32_at(far_steps + 4 * p) + int16_at(own_far - 2) * rest
            value -= dot_96(far + p * FAR_BYTES, own_far)
            if value > limits[2]:
                continue
            if depths == 4:
                rest = int16_at(far + (p + 1) * FAR_BYTES - 2)
                value += int32_at(deep_steps + 4 * p) + int16_at(own_deep - 2) * rest
                value -= dot_128(deep + p * DEEP_BYTES, own_deep)
                if value > limits[3]:
                    continue
            counts[2] += 1
            found[m], values[m] = order[p], value
            m += 1
    return m


@compiled(
    "void(int64, int64[::1], int64, int32[::1], int32[::1], int64, float64, float64[::1], float64[::1], float64, float64[::1],"
    " int32[::1], float32[::1], int64[:, ::1], int64[:, :, :, ::1], float32[:, :, ::1], float32[::1], float64[::1],"
    " int64[::1], int64[::1])"
)
def _verify(
    width: int,
    image: np.ndarray,
    base: int,
    found: np.ndarray,
    bound: np.ndarray,
    n: int,
    scale: float,
    squares: np.ndarray,
    errors: np.ndarray,
    factor: float,
    bounds: np.ndarray,
    limits: np.ndarray,
    descriptor: np.ndarray,
    geometry: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    room: np.ndarray,
    distances: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Exact distances of one query's candidates in one image, lowest bound first, until none is low enough."""
    record = numba.carray(pointer(image[1]), image[2], np.float32)
    while n > 0:
        lowest = int(bound[:n].argmin())
        if bound[lowest] > limits[-1]:
            return
        p = int(found[lowest])
        n -= 1
        found[lowest], bound[lowest] = found[n], bound[n]
        counts[3] += 1
        before = distances[-1]
        distance = exact(descriptor, record, geometry, places, shares, p // width, p % width, room)
        insert(distances, indices, distance, base + p)
        if distances[-1] < before:
            _set_limits(distances[-1], scale, squares, errors, factor, bounds, limits)


@compiled(
    "void(int64[::1], int64, int64, int16[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1], float32[:, ::1], float64,"
    " int64[:, ::1], float64[::1], int64[::1], int32[::1], int32[::1], int64[::1], int64[::1], int64[:, ::1],"
    " int64[:, :, :, ::1], float32[:, :, ::1], float64[:, ::1], int64[:, ::1], int64[::1])"
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
    lane_of: np.ndarray,
    reach: np.ndarray,
    shape: np.ndarray,
    geometry: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    distances: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
) -> None:
    """For queries `first` to `last`, the nearest within the window of every image; `distances` and `indices` keep them.

    images, squares, errors, offsets, order: as in `scanning.scan`. factors: likewise, but 1 where `bounds` has no norm.
    bounds: (6,), those of `scanning.scan`, of all images together. reach: (rows + 1,), how far the window goes sideways, so many rows away.
    shape: height and width of the grid, of a group of sixteen places. counts: groups looked at, places that passed 32 codes, all codes,
    exact distances.
    """
    width, depths, positions = shape[1], squares.shape[1], lane_of.shape[0]
    room, rows = np.empty(descriptors.shape[1], np.float32), images[:, 0].copy()
    values = np.empty((QUERIES, images.shape[0]), np.int32)
    limits, sixteen = np.empty((QUERIES, depths), np.int32), np.empty(LANES, np.int32)
    most = min((2 * reach.shape[0] + 1) * (2 * reach[0] + 3), order.shape[0] // LANES)  # groups that a window touches
    groups, masks = np.empty((QUERIES, most + 1), np.int64), np.empty((QUERIES, most + 1), np.uint64)
    n_groups = np.empty(QUERIES, np.int64)
    hits, bits, of_hits = (
        np.empty(most + 1, np.int64),
        np.empty(most + 1, np.uint64),
        np.empty((most + 1, LANES), np.int32),
    )
    found, bound = np.empty(most * LANES, np.int32), np.empty(most * LANES, np.int32)
    all_codes, out = codes.ctypes.data, of_hits.ctypes.data
    for start in range(first, last, QUERIES):
        own = queries[start : min(start + QUERIES, last)]
        _same_place(own, all_codes, rows, offsets, lane_of, sixteen, values)
        for j in range(own.shape[0]):
            q = own[j]
            _start(
                q,
                positions,
                width,
                images,
                descriptors[q],
                geometry,
                places,
                shares,
                room,
                values[j],
                distances[q],
                indices[q],
                counts,
            )
            _set_limits(distances[q, -1], scale, squares[q], errors[q], factors[q], bounds, limits[j])
            n_groups[j] = _touched(q // width, q % width, reach, shape, groups[j], masks[j])
            counts[0] += n_groups[j] * images.shape[0]
        for image in range(images.shape[0]):
            row = rows[image]
            near, mid, halves = row + offsets[0], row + offsets[2], row + offsets[3]
            for j in range(own.shape[0]):
                q, n, limit = own[j], 0, limits[j, 1]
                query = all_codes + q * QUERY_BYTES
                for i in range(
                    n_groups[j]
                ):  # no branch that waits for a distance: a hit is written and then counted or not
                    group = groups[j, i]
                    block, half = group * BLOCK_BYTES, halves + group * 4 * LANES
                    passed = mid_hits(near + block, mid + block, half, query + QUERY_MID, limit, out + n * 4 * LANES)
                    hits[n], bits[n] = group, passed & masks[j, i]
                    n += int(bits[n] != 0)
                if n == 0:
                    continue
                m = _sift(query, row, offsets, limits[j], order, hits, bits, of_hits, n, found, bound, counts)
                if m == 0:
                    continue
                _verify(
                    width,
                    images[image],
                    image * positions,
                    found,
                    bound,
                    m,
                    scale,
                    squares[q],
                    errors[q],
                    factors[q],
                    bounds,
                    limits[j],
                    descriptors[q],
                    geometry,
                    places,
                    shares,
                    room,
                    distances[q],
                    indices[q],
                    counts,
                )
