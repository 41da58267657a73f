"""Compiled: the codes of an image's positions from its levels. codes.py says what they mean."""

from __future__ import annotations

import math

import numba
import numpy as np

from spadework.kernels.compile import compiled
from spadework.kernels.vectors import pointer

CANCELLED = 0.01  # of the corners' squares: if less is left of them between corners, the square is taken from the numbers themselves


@compiled("void(float32[:, ::1], float64[:, ::1], float64[:, ::1], int64, int64)", reorder=True)
def _project_few(level: np.ndarray, axes: np.ndarray, out: np.ndarray, first: int, last: int) -> None:
    for r in range(first, last):
        out[r] = 0.0
        for c in range(level.shape[1]):
            a = np.float64(level[r, c])
            for j in range(axes.shape[1]):
                out[r, j] += a * axes[c, j]


@compiled("void(int64, float64[:, ::1], float64[:, ::1], int64, int64)", reorder=True)
def project(address: int, axes: np.ndarray, out: np.ndarray, first: int, last: int) -> None:
    """Rows `first` to `last` of a level (n, C) float32 at an address times axes (C, K), float64: four rows at a time.

    Not a BLAS product: its threads go on spinning for tens of milliseconds and take a core from the scan that follows.
    """
    channels, k = axes.shape
    level = numba.carray(pointer(address), (out.shape[0], channels), np.float32)
    for start in range(first, last, 4):
        r = max(first, min(start, last - 4))  # the last four may overlap those before
        if last - first < 4:
            _project_few(level, axes, out, first, last)
            return
        o0, o1, o2, o3 = out[r], out[r + 1], out[r + 2], out[r + 3]
        l0, l1, l2, l3 = level[r], level[r + 1], level[r + 2], level[r + 3]
        for j in range(k):
            o0[j] = o1[j] = o2[j] = o3[j] = 0.0
        whole = channels // 3 * 3
        for c in range(0, whole, 3):  # three channels at a time: a sum is read and written once for them
            x, y, z = axes[c], axes[c + 1], axes[c + 2]
            a0, a1, a2, a3 = np.float64(l0[c]), np.float64(l1[c]), np.float64(l2[c]), np.float64(l3[c])
            b0, b1, b2, b3 = np.float64(l0[c + 1]), np.float64(l1[c + 1]), np.float64(l2[c + 1]), np.float64(l3[c + 1])
            c0, c1, c2, c3 = np.float64(l0[c + 2]), np.float64(l1[c + 2]), np.float64(l2[c + 2]), np.float64(l3[c + 2])
            for j in range(k):
                u, v, w = x[j], y[j], z[j]
                o0[j] += a0 * u + b0 * v + c0 * w
                o1[j] += a1 * u + b1 * v + c1 * w
                o2[j] += a2 * u + b2 * v + c2 * w
                o3[j] += a3 * u + b3 * v + c3 * w
        for c in range(whole, channels):
            x = axes[c]
            a0, a1, a2, a3 = np.float64(l0[c]), np.float64(l1[c]), np.float64(l2[c]), np.float64(l3[c])
            for j in range(k):
                o0[j] += a0 * x[j]
                o1[j] += a1 * x[j]
                o2[j] += a2 * x[j]
                o3[j] += a3 * x[j]


@compiled("float64(int64, int64, int64)", reorder=True)
def largest_square(address: int, rows: int, channels: int) -> float:
    """The largest squared norm of the rows of a level, float32, at an address."""
    largest = 0.0
    level = numba.carray(pointer(address), (rows, channels), np.float32)
    for row in level:
        total = 0.0
        for i in range(row.shape[0]):
            total += np.float64(row[i]) * np.float64(row[i])
        largest = max(largest, total)
    return largest


@compiled("float64(float32[::1], float32[::1], float64[::1])", reorder=True)
def _centred_product(a: np.ndarray, b: np.ndarray, mean: np.ndarray) -> float:
    total = 0.0
    for i in range(mean.shape[0]):
        total += (a[i] - mean[i]) * (b[i] - mean[i])
    return total


@compiled("void(int64, int64, int64, float64[::1], float64[:, ::1], int64, int64)")
def neighbours(address: int, height: int, width: int, mean: np.ndarray, out: np.ndarray, first: int, last: int) -> None:
    """Products of rows of a level less the mean, each with itself, right, below, both, and right with below: with those that a blend joins it with.

    From these follows the squared norm of any feature between four corners. At the border a row is its own neighbour, as there. Half the
    time of taking each from the numbers: every row is a corner of many.
    """
    level = numba.carray(pointer(address), (height * width, mean.shape[0]), np.float32)
    for i in range(first, last):
        right = 1 if i % width + 1 < width else 0
        down = width if i // width + 1 < height else 0
        here, beside, below = level[i], level[i + right], level[i + down]
        out[i, 0] = _centred_product(here, here, mean)
        out[i, 1] = _centred_product(here, beside, mean)
        out[i, 2] = _centred_product(here, below, mean)
        out[i, 3] = _centred_product(here, level[i + right + down], mean)
        out[i, 4] = _centred_product(beside, below, mean)


@compiled("float64(int64, int64, int64, int64, float64, float64, float64[:, ::1])")
def _square_between(i: int, j: int, k: int, m: int, down: float, right: float, products: np.ndarray) -> float:
    """Squared distance from the mean of the feature between four corners: `i` above `j`, `k` and `m` right of them.

    Negative where the corners nearly cancel, for then the products' rounding would show.
    """
    a, b, c, d = (1 - down) * (1 - right), down * (1 - right), (1 - down) * right, down * right
    corners = a * products[i, 0] + b * products[j, 0] + c * products[k, 0] + d * products[m, 0]
    own = a * a * products[i, 0] + b * b * products[j, 0] + c * c * products[k, 0] + d * d * products[m, 0]
    across = a * c * products[i, 1] + b * d * products[j, 1] + a * b * products[i, 2] + c * d * products[k, 2]
    total = own + 2.0 * (across + a * d * products[i, 3] + b * c * products[i, 4])
    return total if total >= CANCELLED * corners else -1.0


@compiled(
    "float64(float32[::1], float32[::1], float32[::1], float32[::1], float64, float64, float64[::1])", reorder=True
)
def _centred_square(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, down: float, right: float, mean: np.ndarray
) -> float:
    """The same from the numbers themselves: a above b, c and d right of them."""
    wa, wb, wc, wd = (1 - down) * (1 - right), down * (1 - right), (1 - down) * right, down * right
    total = 0.0
    for i in range(mean.shape[0]):
        t = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i] - mean[i]
        total += t * t
    return total


@compiled("float64(float32[::1], float64[::1])", reorder=True)
def _centred(feature: np.ndarray, mean: np.ndarray) -> float:
    """Squared distance of a feature from the mean."""
    total = 0.0
    for i in range(mean.shape[0]):
        t = feature[i] - mean[i]
        total += t * t
    return total


@compiled("void(float64[::1], float64[::1])", reorder=True)
def _add(a: np.ndarray, out: np.ndarray) -> None:
    for i in range(out.shape[0]):
        out[i] += a[i]


@compiled("void(float64[::1], float64[::1], float64[::1], float64[::1], float64, float64, float64[::1])", reorder=True)
def _add_between(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, down: float, right: float, out: np.ndarray
) -> None:
    wa, wb, wc, wd = (1 - down) * (1 - right), down * (1 - right), (1 - down) * right, down * right
    for i in range(out.shape[0]):
        out[i] += wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]


@compiled("float64(float64[::1], int16[::1], int64, float64, int64, float64, float64[::1])", reorder=True)
def _quantise(
    x: np.ndarray, codes: np.ndarray, first: int, factor: float, place: int, square: float, sums: np.ndarray
) -> float:
    """Codes of the axes from `first` on that fill `codes`, all but the last; returns half the squared norm of all codes so far."""
    error, length, integers = sums[0], sums[1], sums[2]
    for i in range(codes.shape[0] - 1):
        value = factor * x[first + i]
        code = np.rint(value)
        codes[i] = np.int16(code)
        error += (value - code) * (value - code)
        length += value * value
        integers += code * code
    sums[0], sums[1], sums[2] = error, length, integers
    rest = math.sqrt(max(square - length, 0.0))  # the norm of what lies outside these axes
    code = np.rint(rest)
    codes[codes.shape[0] - 1] = np.int16(code)
    sums[3] = math.sqrt(error + (rest - code) * (rest - code))
    return float(np.floor((integers + code * code) / 2))


@compiled(
    "void(int64, int64, float64[:, ::1], float64[:, ::1], int64[:, ::1], int64[:, :, :, ::1], float32[:, :, ::1], float64[::1],"
    " float64[::1], float64, float64, int64, int64, int64, int16[:, ::1], int32[:, ::1], float64[:, ::1], float64[::1])"
)
def encode(
    address: int,
    length: int,
    projected: np.ndarray,
    products: np.ndarray,
    geometry: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    mean: np.ndarray,
    mean_coordinates: np.ndarray,
    scale: float,
    radius: float,
    width: int,
    first: int,
    last: int,
    codes: np.ndarray,
    halves: np.ndarray,
    errors: np.ndarray,
    factors: np.ndarray,
) -> None:
    """Codes of the fine positions `first` to `last`; see codes.encode."""
    record = numba.carray(pointer(address), length, np.float32)
    x = np.empty(projected.shape[1], np.float64)
    sums = np.empty(4, np.float64)
    for p in range(first, last):
        row, column = p // width, p % width
        x[:] = -mean_coordinates
        square, start = 0.0, 0
        for level in range(geometry.shape[0]):
            offset, w, c, above = geometry[level, 0], geometry[level, 1], geometry[level, 2], geometry[level, 3]
            y0, y1, down = places[level, 0, 0, row], places[level, 0, 1, row], np.float64(shares[level, 0, row])
            x0, x1, right = (
                places[level, 1, 0, column],
                places[level, 1, 1, column],
                np.float64(shares[level, 1, column]),
            )
            i, j, k, m = y0 * w + x0, y1 * w + x0, y0 * w + x1, y1 * w + x1
            if down == 0 and right == 0:
                _add(projected[above + i], x)
                square += _centred(record[offset + i * c : offset + i * c + c], mean[start : start + c])
            else:
                _add_between(
                    projected[above + i],
                    projected[above + j],
                    projected[above + k],
                    projected[above + m],
                    down,
                    right,
                    x,
                )
                own = _square_between(above + i, above + j, above + k, above + m, down, right, products)
                if own < 0:
                    own = _centred_square(
                        record[offset + i * c : offset + i * c + c],
                        record[offset + j * c : offset + j * c + c],
                        record[offset + k * c : offset + k * c + c],
                        record[offset + m * c : offset + m * c + c],
                        down,
                        right,
                        mean[start : start + c],
                    )
                square += own
            start += c
        outside = max(1.0, scale * math.sqrt(square) / radius)
        factors[p] = outside
        factor = scale / outside
        square *= factor * factor
        sums[:] = 0.0
        coded = codes[p]
        depths = (coded[0:16], coded[16:32], coded[32:128], coded[128:256])
        axis = 0
        for depth in range(4):
            part = depths[depth]
            if part.shape[0] == 0:
                break
            halves[p, depth] = np.int32(_quantise(x, part, axis, factor, depth, square, sums))
            errors[p, depth] = sums[3]
            axis += part.shape[0] - 1


@compiled("void(float32[::1], float32[::1], float32[::1], float32[::1], float32, float32, float32[::1])")
def between(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, down: float, right: float, out: np.ndarray
) -> None:
    """As `pyramid.upsample` blends, digit for digit: first down, then right, float32, no contraction, no reordering."""
    for i in range(out.shape[0]):
        left = a[i] + (b[i] - a[i]) * down
        other = c[i] + (d[i] - c[i]) * down
        out[i] = left + (other - left) * right


@compiled(
    "void(int64, int64, int64[:, ::1], int64[:, :, :, ::1], float32[:, :, ::1], int64, int64, int64, float32[:, ::1])"
)
def describe(
    address: int,
    length: int,
    geometry: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    width: int,
    first: int,
    last: int,
    out: np.ndarray,
) -> None:
    """The joint descriptors of the fine positions `first` to `last`, digit for digit those of `pyramid.descriptors`."""
    record = numba.carray(pointer(address), length, np.float32)
    for p in range(first, last):
        row, column, start = p // width, p % width, 0
        for level in range(geometry.shape[0]):
            offset, w, c = geometry[level, 0], geometry[level, 1], geometry[level, 2]
            y0, y1 = places[level, 0, 0, row], places[level, 0, 1, row]
            x0, x1 = places[level, 1, 0, column], places[level, 1, 1, column]
            i, j = offset + (y0 * w + x0) * c, offset + (y1 * w + x0) * c
            k, m = offset + (y0 * w + x1) * c, offset + (y1 * w + x1) * c
            between(
                record[i : i + c],
                record[j : j + c],
                record[k : k + c],
                record[m : m + c],
                shares[level, 0, row],
                shares[level, 1, column],
                out[p, start : start + c],
            )
            start += c
