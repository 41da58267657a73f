"""Compiled: exact distances, and the scan that avoids most of them. pruned.py says what is compared and why nothing is lost."""

from __future__ import annotations

import numba
import numpy as np

from spadework.kernels.codes import LANES
from spadework.kernels.compile import compiled
from spadework.kernels.encoding import between
from spadework.kernels.looks import (
    HIGHEST,
    QUERY_BYTES,
    by_query,
    limit_of,
    look_deep,
    look_far,
    look_mid,
    look_near,
    reach_of,
    set_limits,
    split,
    to_lanes,
    value_of,
)
from spadework.kernels.vectors import BLOCK_BYTES, QUERY_PAIRS, near_values, pointer, take

QUERIES = 64  # scanned together: a group's codes are read once for them
STRIP = 256  # groups scanned together
TRIED = 2**62  # no value of a pair
# What the work of a scan costs, in nanoseconds, roughly: only for giving up where nothing can be pruned.
MID_COST, FAR_COST, DEEP_COST, EXACT_COST = 12, 10, 14, 100
CHANNELS_A_NANOSECOND = 2


@compiled("float64(float32[::1], float32[::1])", reorder=True)
def squared_distance(left: np.ndarray, right: np.ndarray) -> float:
    """float64, from the differences of float32."""
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
            total += squared_distance(query[start : start + c], record[i : i + c])
        else:
            y1, x1 = places[level, 0, 1, row], places[level, 1, 1, column]
            j, k, m = offset + (y1 * w + x0) * c, offset + (y0 * w + x1) * c, offset + (y1 * w + x1) * c
            feature = room[:c]
            between(record[i : i + c], record[j : j + c], record[k : k + c], record[m : m + c], down, right, feature)
            total += squared_distance(query[start : start + c], feature)
        start += c
    return total


@compiled("void(float64[::1], int64[::1], float64, int64)")
def insert(distances: np.ndarray, indices: np.ndarray, distance: float, index: int) -> None:
    """Take a pair among the kappa nearest if it belongs there: nearest first, ties to the lower index, no index twice."""
    last = distances.shape[0] - 1
    if not distance <= distances[last] or (distance == distances[last] and index > indices[last]):
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


@compiled(
    "void(int64[::1], int64[::1], int64, int64, int64, int16[:, ::1], int64[::1], int32[::1], float32[:, ::1],"
    " int64[:, ::1], int64, int64[:, ::1], int64[:, :, :, ::1], float32[:, :, ::1], int64, float64[:, ::1],"
    " int64[:, ::1], int64[::1])"
)
def try_pairs(
    queries: np.ndarray,
    rows: np.ndarray,
    first: int,
    last: int,
    depths: int,
    codes: np.ndarray,
    offsets: np.ndarray,
    lane_of: np.ndarray,
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
    """Of the pairs `first` to `last` of (query, gallery row), sorted by query: the kappa most promising of each query, exactly."""
    room = np.empty(descriptors.shape[1], np.float32)
    kappa = distances.shape[1]
    values = np.empty(last - first, np.int64)
    start = first
    while start < last:
        q, end = queries[start], start
        while end < last and queries[end] == q:
            query, image = codes.ctypes.data + q * QUERY_BYTES, rows[end] // positions
            values[end - first] = value_of(
                query, images[image, 0], int(lane_of[rows[end] % positions]), offsets, depths
            )
            end += 1
        for _ in range(min(kappa, end - start)):
            best = start
            for i in range(start + 1, end):
                if values[i - first] < values[best - first]:
                    best = i
            values[best - first] = TRIED
            image, p = rows[best] // positions, rows[best] % positions
            record = numba.carray(pointer(images[image, 1]), images[image, 2], np.float32)
            distance = exact(descriptors[q], record, geometry, places, shares, p // width, p % width, room)
            insert(distances[q], indices[q], distance, rows[best])
            counts[5] += 1
        start = end


@compiled(
    "void(int64[::1], int64[::1], int64, int16[:, ::1], int64[:, ::1], int64[::1], int32[::1], int64, int64[:, ::1])"
)
def guess(
    queries: np.ndarray,
    edges: np.ndarray,
    taken: int,
    codes: np.ndarray,
    images: np.ndarray,
    offsets: np.ndarray,
    order: np.ndarray,
    groups: int,
    rows: np.ndarray,
) -> None:
    """For the queries of the pieces that this thread takes, the rows of the first image whose near codes lie nearest: a start, nothing more."""
    values = np.empty(LANES, np.int32)
    wanted = rows.shape[1]
    best = np.empty(wanted, np.int64)
    near, halves = images[0, 0] + offsets[0], images[0, 0] + offsets[1]
    piece = take(taken)
    while piece < edges.shape[0] - 1:
        for i in range(edges[piece], edges[piece + 1]):
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
        piece = take(taken)


@compiled("int64(int64[::1], int64)")
def _work(counts: np.ndarray, channels: int) -> int:
    """Roughly the nanoseconds of all work so far: only for giving up where nothing can be pruned."""
    looks = MID_COST * counts[2] + FAR_COST * counts[3] + DEEP_COST * counts[4] + counts[6]
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
        counts[6] += n
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
        limit = int(limit_of(reach_of(distances[-1], scale, wide, factor), square, factor, largest))


@compiled(
    "void(int64[::1], int64, int64, int16[:, ::1], int16[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1], float32[:, ::1], float64,"
    " int64[:, ::1], float64[:, ::1], int64[::1], int32[::1], int64, int64, int64[:, ::1], int64[:, :, :, ::1],"
    " float32[:, :, ::1], int64, float64[:, ::1], int64[:, ::1], int64, int64[::1], Tuple((int32[:, ::1],"
    " int32[::1], uint64[:, ::1], float32[::1], int64[::1], int32[:, ::1], int32[:, ::1], int32[:, ::1], uint64[::1],"
    " int32[:, ::1], int32[:, ::1])))"
)
def _scan_piece(
    queries: np.ndarray,
    first: int,
    last: int,
    codes: np.ndarray,
    towards: np.ndarray,
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
    room: tuple[np.ndarray, ...],
) -> None:
    """Compare queries `first` to `last` with every image, see `scan`."""
    limits, of_groups, hits, feature, n_found, found, values, entries, masks, of_entries, lanes = room
    kappa, depths = distances.shape[1], squares.shape[1]
    for image in range(images.shape[0]):
        row, base = images[image, 0], image * positions
        record = numba.carray(pointer(images[image, 1]), images[image, 2], np.float32)
        own = bounds[image]
        for start in range(first, last, QUERIES):
            n = min(QUERIES, last - start)
            for strip_first in range(0, groups, STRIP):
                set_limits(
                    queries,
                    start,
                    n,
                    squares,
                    errors,
                    factors,
                    scale,
                    own,
                    distances,
                    towards,
                    limits,
                    of_groups,
                )
                strip_last = min(groups, strip_first + STRIP)
                n_hits = look_near(
                    row + offsets[0],
                    row + offsets[1],
                    images[image, 3],
                    images[image, 4],
                    strip_first,
                    strip_last,
                    n,
                    towards.ctypes.data + start * 4 * QUERY_PAIRS,
                    limits,
                    of_groups,
                    hits,
                )
                n_near = split(hits, n_hits, n, entries, masks)
                m = look_mid(start, codes, row, offsets, limits, entries, masks, of_entries, n_near)
                n_mid = to_lanes(entries, masks, of_entries, m, lanes)
                n_far = look_far(start, codes, row, offsets, limits, lanes, n_mid)
                n_deep = n_far
                if depths == 4:
                    n_deep = look_deep(start, codes, row, offsets, limits, lanes, n_far)
                    counts[4] += n_far
                by_query(row + offsets[8], kappa, lanes, n_deep, found, values, n_found)
                counts[1] += n_hits
                counts[2] += n_near
                counts[3] += n_mid
                if _work(counts, descriptors.shape[1]) > budget:
                    return
                for j in range(n):
                    if n_found[j] == 0:
                        continue
                    i, q = start + j, queries[start + j]
                    factor = factors[i] if own[5] > 0 else 1.0
                    wide = factor * errors[i, depths - 1] + own[depths - 1] + own[4]
                    _verify(
                        base,
                        int(limits[depths - 1, j]),
                        found[j],
                        values[j],
                        n_found[j],
                        scale,
                        wide,
                        squares[i, depths - 1],
                        factor,
                        own[5],
                        descriptors[q],
                        record,
                        order,
                        geometry,
                        places,
                        shares,
                        width,
                        feature,
                        distances[q],
                        indices[q],
                        counts,
                    )
                    if _work(counts, descriptors.shape[1]) > budget:
                        return


@compiled(
    "void(int64[::1], int64[::1], int64, int16[:, ::1], int16[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1], float32[:, ::1], float64,"
    " int64[:, ::1], float64[:, ::1], int64[::1], int32[::1], int64, int64, int64[:, ::1], int64[:, :, :, ::1],"
    " float32[:, :, ::1], int64, float64[:, ::1], int64[:, ::1], int64, int64[::1])"
)
def scan(
    queries: np.ndarray,
    edges: np.ndarray,
    taken: int,
    codes: np.ndarray,
    towards: np.ndarray,
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
    """Compare the queries of the pieces that this thread takes with every image; `distances` and `indices` keep the nearest. Stops when work
    exceeds `budget`.

    edges: where pieces of `queries` begin, and the end. taken: address of the counter of pieces taken.
    In the order of `queries`, (n,): their codes; towards, (n or n + 1, 2 * QUERY_PAIRS), near codes and room for more; squares, errors,
    (n, depths), of the codes; factors, (n,), how far outside the codes' ball each lies. By position: descriptors, distances, indices.
    images: (n, 5), addresses of an image's row of codes and of its record, the record's length, addresses of its groups' centres and of
    their halves. bounds: (n, 6), the largest errors of its codes at the four depths, what rounding of descriptors may add, in code units,
    and the largest squared norm of its codes, or 0 where one of its descriptors lies outside the ball.
    offsets: of the parts of a row. order: the position of each lane. counts: work, then what passed
    near (two queries and two groups), near (a query and a group), mid, far, exact distances, and candidates looked at to choose the next.
    """
    strip = min(groups, STRIP)
    limits = np.empty((squares.shape[1], QUERIES), np.int32)
    of_groups = np.empty(QUERIES, np.int32)
    hits = np.empty((strip * QUERIES // 4 + 1, 3), np.uint64)
    feature = np.empty(descriptors.shape[1], np.float32)
    n_found = np.empty(QUERIES, np.int64)
    found = np.empty((QUERIES, strip * LANES), np.int32)
    values = np.empty((QUERIES, strip * LANES), np.int32)
    entries = np.empty((strip * QUERIES + 4, 2), np.int32)
    masks = np.empty(strip * QUERIES + 4, np.uint64)
    of_entries = np.empty((strip * QUERIES + 1, LANES), np.int32)
    lanes = np.empty((strip * QUERIES * LANES + 1, 3), np.int32)
    room = (limits, of_groups, hits, feature, n_found, found, values, entries, masks, of_entries, lanes)
    piece = take(taken)
    while piece < edges.shape[0] - 1:
        first, last = edges[piece], edges[piece + 1]
        _scan_piece(
            queries,
            first,
            last,
            codes,
            towards,
            squares,
            errors,
            factors,
            descriptors,
            scale,
            images,
            bounds,
            offsets,
            order,
            groups,
            positions,
            geometry,
            places,
            shares,
            width,
            distances,
            indices,
            budget,
            counts,
            room,
        )
        piece = take(taken)
