"""Compiled: orthonormal rows, and the principal axes of a small symmetric matrix. Not by LAPACK: its threads spin, see products.py."""

from __future__ import annotations

import math

import numpy as np

from spadework.kernels.compile import compiled

SPOILT = 1e-12  # of a row's length: if no more is left of it after the rows before are taken off, it is rounding


@compiled("float64(float64[::1], float64[::1])", reorder=True)
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@compiled("void(float64[::1], float64, float64[::1])")
def _take_off(a: np.ndarray, share: float, row: np.ndarray) -> None:
    for i in range(row.shape[0]):
        row[i] -= share * a[i]


@compiled("void(float64[::1], float64[::1], float64, float64)")
def _rotate(a: np.ndarray, b: np.ndarray, c: float, s: float) -> None:
    for i in range(a.shape[0]):
        x, y = a[i], b[i]
        a[i], b[i] = c * x - s * y, s * x + c * y


@compiled("int64(float64[:, ::1])")
def orthonormalise(rows: np.ndarray) -> int:
    """Make rows orthonormal in place, in order, by Gram and Schmidt, each again until its length stays, which is enough for float64.

    Rows that the ones before them span go. Returns how many are left; they are the first.
    """
    kept = 0
    for i in range(rows.shape[0]):
        rows[kept] = rows[i]
        row = rows[kept]
        length = left = math.sqrt(_dot(row, row))
        before = math.inf
        while left < 0.5 * before and left > SPOILT * length:  # so much was taken off that the rounding of it shows
            for j in range(kept):
                _take_off(rows[j], _dot(row, rows[j]), row)
            before, left = left, math.sqrt(_dot(row, row))
        if left > SPOILT * length:
            for c in range(row.shape[0]):
                row[c] /= left
            kept += 1
    return kept


@compiled("void(float64[:, ::1], float64[:, ::1], int64)")
def diagonalise(matrix: np.ndarray, turns: np.ndarray, sweeps: int) -> None:
    """Bring a symmetric matrix (n, n) nearer to a diagonal one, in place, by so many sweeps of Jacobi's rotations.

    Turns `turns`, (n, n), along: with its rows orthonormal before they are so after, and if it was the identity, `turns @ before @ turns.T`
    is what `matrix` is now.
    """
    n = matrix.shape[0]
    for _ in range(sweeps):
        for p in range(n - 1):
            for q in range(p + 1, n):
                across = matrix[p, q]
                if across == 0.0:
                    continue
                half = (matrix[q, q] - matrix[p, p]) / (2.0 * across)
                t = math.copysign(1.0, half) / (abs(half) + math.hypot(half, 1.0))
                c = 1.0 / math.hypot(t, 1.0)
                s = t * c
                first, second = matrix[p, p] - t * across, matrix[q, q] + t * across
                _rotate(matrix[p], matrix[q], c, s)
                _rotate(turns[p], turns[q], c, s)
                matrix[:, p], matrix[:, q] = matrix[p], matrix[q]
                matrix[p, p], matrix[q, q], matrix[p, q], matrix[q, p] = first, second, 0.0, 0.0
