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
    value_of,
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

QUERIES = 16  # neighbours, searched together: an image's codes around them are read once


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


@compiled(
    "void(int64, int64, int64, int64, int64[:, ::1], int64[:, ::1], int64, int64, int64[::1], int32[::1], int64,"
    " float32[::1], int64[:, ::1], int64[:, :, :, ::1], float32[:, :, ::1], float32[::1], int64[::1], float64[::1],"
    " int64[::1], int64[::1])"
)
def _start(
    query: int,
    y: int,
    x: int,
    depths: int,
    images: np.ndarray,
    shifts: np.ndarray,
    height: int,
    width: int,
    offsets: np.ndarray,
    lane_of: np.ndarray,
    positions: int,
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
    """First matches: the very place in the images whose codes there lie nearest, exactly."""
    for image in range(images.shape[0]):
        py, px = y + shifts[image, 0], x + shifts[image, 1]
        values[image] = 2**62
        if 0 <= py < height and 0 <= px < width:
            values[image] = value_of(query, images[image, 0], int(lane_of[py * width + px]), offsets, depths)
    for _ in range(min(distances.shape[0], images.shape[0])):
        best = 0
        for image in range(1, images.shape[0]):
            if values[image] < values[best]:
                best = image
        if values[best] == 2**62:
            return
        values[best] = 2**62
        py, px = y + shifts[best, 0], x + shifts[best, 1]
        record = numba.carray(pointer(images[best, 1]), images[best, 2], np.float32)
        distance = exact(descriptor, record, geometry, places, shares, py, px, room)
        insert(distances, indices, distance, best * positions + py * width + px)
        counts[3] += 1


@compiled(
    "int64(int64, int64, int64[::1], int64, int64, int64, int64, int64[::1], int64, int64, int64, int32[::1], int32[::1],"
    " int32[::1], int32[::1], int64[::1])"
)
def _look(
    query: int,
    row: int,
    offsets: np.ndarray,
    y: int,
    x: int,
    height: int,
    width: int,
    reach: np.ndarray,
    tall: int,
    wide: int,
    depths: int,
    limits: np.ndarray,
    order: np.ndarray,
    found: np.ndarray,
    values: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Write the places within the window around (y, x) of one image that pass all depths, and their values; return how many.

    reach: how far the window goes sideways, so many rows away. tall, wide: of a group of sixteen places.
    """
    near, mid, halves = row + offsets[0], row + offsets[2], row + offsets[3]
    far, far_steps, deep, deep_steps = row + offsets[4], row + offsets[5], row + offsets[6], row + offsets[7]
    own_far, own_deep = query + QUERY_FAR, query + QUERY_DEEP
    sixteen = np.empty(LANES, np.int32)
    columns = (width + wide - 1) // wide
    down, right = reach.shape[0] - 1, reach[0]
    top, bottom = max(0, y - down) // tall, min(height - 1, y + down) // tall
    left, last = max(0, x - right) // wide, min(width - 1, x + right) // wide
    n = 0
    for gy in range(top, bottom + 1):
        for gx in range(left, last + 1):
            group = gy * columns + gx
            block = group * BLOCK_BYTES
            bits = mid_hits(
                near + block,
                mid + block,
                halves + group * 4 * LANES,
                query + QUERY_MID,
                limits[1],
                sixteen.ctypes.data,
            )
            counts[0] += 1
            while bits != 0:
                lane = lowest_bit(bits)
                bits &= bits - np.uint64(1)
                p = group * LANES + lane
                place = np.int64(order[p])
                away = abs(place // width - y)
                if away > down or abs(place % width - x) > reach[away]:
                    continue
                counts[1] += 1
                rest = int16_at(mid + block + (PAIRS - 1) * 4 * LANES + 4 * lane + 2)
                value = np.int64(sixteen[lane]) + int32_at(far_steps + 4 * p) + int16_at(own_far - 2) * rest
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
                found[n], values[n] = place, value
                n += 1
    return n


@compiled(
    "void(int64[::1], int64, int64, int16[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1], float32[:, ::1], float64,"
    " int64[:, ::1], int64[:, ::1], float64[::1], int64[::1], int32[::1], int32[::1], int64[::1], int64[::1],"
    " int64[:, ::1], int64[:, :, :, ::1], float32[:, :, ::1], float64[:, ::1], int64[:, ::1], int64[::1])"
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
    shifts: np.ndarray,
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

    images, squares, errors, factors, offsets, order: as in `scanning.scan`. shifts: (n, 2), where in an image the window's middle lies, in
    places (down, right) from the query's own. bounds: (6,), those of `scanning.scan`, of all images together. reach: (rows + 1,), how far the
    window goes sideways, so many rows away. shape: height and width of the grid, of a group of sixteen places. counts: groups looked at,
    places that passed 32 codes, all codes, exact distances.
    """
    height, width, tall, wide = shape[0], shape[1], shape[2], shape[3]
    positions, kappa, depths = height * width, distances.shape[1], squares.shape[1]
    room = np.empty(descriptors.shape[1], np.float32)
    starts = np.empty(images.shape[0], np.int64)
    most = min(order.shape[0], (2 * (reach.shape[0] - 1 + tall)) * (2 * (reach[0] + wide)))
    found, values = np.empty(most, np.int32), np.empty(most, np.int32)
    limits = np.empty((QUERIES, depths), np.int32)
    for start in range(first, last, QUERIES):
        n = min(QUERIES, last - start)
        for j in range(n):
            q = queries[start + j]
            query, y, x = codes.ctypes.data + q * QUERY_BYTES, q // width, q % width
            _start(
                query,
                y,
                x,
                depths,
                images,
                shifts,
                height,
                width,
                offsets,
                lane_of,
                positions,
                descriptors[q],
                geometry,
                places,
                shares,
                room,
                starts,
                distances[q],
                indices[q],
                counts,
            )
            factor = factors[q] if bounds[5] > 0 else 1.0
            _set_limits(distances[q, kappa - 1], scale, squares[q], errors[q], factor, bounds, limits[j])
        for image in range(images.shape[0]):
            record = numba.carray(pointer(images[image, 1]), images[image, 2], np.float32)
            for j in range(n):
                q = queries[start + j]
                y, x = q // width + shifts[image, 0], q % width + shifts[image, 1]
                m = _look(
                    codes.ctypes.data + q * QUERY_BYTES,
                    images[image, 0],
                    offsets,
                    y,
                    x,
                    height,
                    width,
                    reach,
                    tall,
                    wide,
                    depths,
                    limits[j],
                    order,
                    found,
                    values,
                    counts,
                )
                factor = factors[q] if bounds[5] > 0 else 1.0
                while m > 0:  # lowest bound first, until none is low enough
                    lowest = 0
                    for i in range(1, m):
                        if values[i] < values[lowest]:
                            lowest = i
                    if values[lowest] > limits[j, depths - 1]:
                        break
                    p = np.int64(found[lowest])
                    m -= 1
                    found[lowest], values[lowest] = found[m], values[m]
                    counts[3] += 1
                    before = distances[q, kappa - 1]
                    distance = exact(descriptors[q], record, geometry, places, shares, p // width, p % width, room)
                    insert(distances[q], indices[q], distance, image * positions + p)
                    if distances[q, kappa - 1] < before:
                        _set_limits(distances[q, kappa - 1], scale, squares[q], errors[q], factor, bounds, limits[j])
