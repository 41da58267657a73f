"""Matrix products that no thread of a BLAS library takes part in.

Threads of OpenBLAS go on spinning after a product and take the cores from whatever follows; on a busy machine they wait for each other
(choosing axes there took 4.6 s with them; on idle cores 15 ms, and 25 ms without). It works in one thread on products as small as a tile.
"""

from __future__ import annotations

import numpy as np

TILE = 64  # TILE**3 multiplications are as many as OpenBLAS does without threads


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return `left @ right`, (m, k) times (k, n), of one floating type."""
    height, width = len(left), right.shape[1]
    lefts, rights = _tiles(left).swapaxes(0, 1), _tiles(right)
    out = np.zeros((lefts.shape[1], rights.shape[1], TILE, TILE), left.dtype)
    piece = np.empty_like(out)
    for column, row in zip(lefts, rights, strict=True):
        out += np.matmul(column[:, None], row[None], out=piece)
    return np.ascontiguousarray(out.swapaxes(1, 2).reshape(len(out) * TILE, rights.shape[1] * TILE)[:height, :width])


def _tiles(matrix: np.ndarray) -> np.ndarray:
    """(m, n) as (tiles down, tiles across, TILE, TILE), zeros beyond its edges."""
    down, across = (-(-side // TILE) for side in matrix.shape)
    padded = np.zeros((down * TILE, across * TILE), matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return np.ascontiguousarray(padded.reshape(down, TILE, across, TILE).swapaxes(1, 2))
