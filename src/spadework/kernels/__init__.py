"""Nearest descriptors: one question, several kernels of one signature.

    kernel(queries, gallery, *, kappa, threads=None) -> Nearest

queries float32 (Q, C), gallery float32 (G, C), 1 <= kappa <= G. The answer holds, for each query, its `kappa` nearest rows of the
gallery by squared Euclidean distance, nearest first, ties to the lower index. Validation is the caller's work (correspondence.py).

Ties are those of computed distances: rows at mathematically equal distances that differ in the last digit may come in either order.

`reference` is the oracle: plain float64 loops over the definition. `blocked` is BLAS with a rigorous margin and a float64 check of
whatever lies within it. `pruned` is compiled and excludes most pairs by short codes; correspondence.py calls its `search`, which takes
pyramids and what was prepared of them.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np

from spadework import check
from spadework.errors import InputError


class Nearest(NamedTuple):
    """Distances float64 (Q, kappa), ascending, and indices int64 (Q, kappa) into the gallery's rows."""

    distances: np.ndarray
    indices: np.ndarray


class Kernel(Protocol):
    """What every kernel is."""

    def __call__(self, queries: np.ndarray, gallery: np.ndarray, *, kappa: int, threads: int | None = None) -> Nearest:
        """Search; see the package docstring."""


# Fastest first; the first usable one is the default.
KERNELS = {
    "pruned": "spadework.kernels.pruned",
    "blocked": "spadework.kernels.blocked",
    "reference": "spadework.kernels.reference",
}


def get_kernel(name: str = "auto") -> Kernel:
    """Return a kernel by name; "auto" is the fastest that is usable here."""
    nearest: Kernel = import_module(KERNELS[kernel_name(name)]).nearest
    return nearest


def kernel_name(name: str = "auto") -> str:
    """Return which kernel `name` means here; "auto" is the fastest that is usable."""
    if name == "auto":
        return next(key for key, module in KERNELS.items() if import_module(module).is_usable())
    if not import_module(KERNELS[check.one_of(name, "kernel", KERNELS)]).is_usable():
        raise InputError(f"kernel {name!r} cannot run here; take 'auto'.")
    return name


def thread_count(threads: int | None) -> int:
    """Return how many threads to search with: as given, or SPADEWORK_THREADS, or one for each core this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return check.thread_count(threads) or cores


def merge(best: Nearest | None, new: Nearest, *, kappa: int) -> Nearest:
    """Keep the `kappa` nearest of two answers whose indices are already global; ties to the lower index.

    One merge serves memory blocks, shards and machines: it is associative and does not depend on the order of the blocks.
    """
    if best is None:
        return new
    distances = np.concatenate([best.distances, new.distances], axis=1)
    indices = np.concatenate([best.indices, new.indices], axis=1)
    order = np.lexsort((indices, distances), axis=1)[:, :kappa]
    return Nearest(np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1))
