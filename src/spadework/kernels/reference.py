"""The oracle: the definition of the nearest descriptors, as plain float64 loops. Slow on purpose."""

from __future__ import annotations

import numpy as np

from spadework.kernels import Nearest


def is_usable() -> bool:
    """Plain Python and NumPy arrays: always."""
    return True


def nearest(queries: np.ndarray, gallery: np.ndarray, *, kappa: int, threads: int | None = None) -> Nearest:
    """Return the `kappa` nearest rows of `gallery` for each query; see the package docstring. `threads`: one."""
    rows = gallery.astype(np.float64)
    distances = np.empty((len(queries), kappa), np.float64)
    indices = np.empty((len(queries), kappa), np.int64)
    for q, query in enumerate(queries.astype(np.float64)):
        found = []
        for g, row in enumerate(rows):
            difference = query - row
            found.append((float((difference * difference).sum()), g))
        found.sort()  # by distance, then by index: ties go to the lower index
        for k, (distance, g) in enumerate(found[:kappa]):
            distances[q, k] = distance
            indices[q, k] = g
    return Nearest(distances, indices)
