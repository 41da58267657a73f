"""Rows of files: those that will be read soon are told to the system, so that the disk delivers them all at once.

From a cold disk 50 pyramids, one after another, took 110 ms; announced, 7.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np


def announce(descriptor: int, size: int, rows: Iterable[int]) -> list[int]:
    """Tell the system which rows of a file, `size` bytes each, are wanted. Returns those that it must fetch.

    Not those whose last byte is in memory: to find all pages of 100 rows of a quarter of a MB there takes 0.6 ms, one page of each 0.1.
    """
    byte = bytearray(1)
    absent = [row for row in map(int, rows) if not _reads_now(descriptor, byte, (row + 1) * size - 1)]
    if hasattr(os, "posix_fadvise"):
        for row in absent:
            os.posix_fadvise(descriptor, row * size, size, os.POSIX_FADV_WILLNEED)
    return absent


def read_rows(descriptor: int, rows: np.ndarray, out: np.ndarray) -> None:
    """Read scattered rows of a file, int64 (n,), to the rows of an array. Raises ValueError where the file ends before."""
    size = out[:1].nbytes
    places = out.view(np.uint8).reshape(len(rows), size)
    late = [
        (row, place)
        for row, place in zip(rows.tolist(), places, strict=True)
        if not _reads_now(descriptor, place.data, row * size)
    ]
    announce(descriptor, size, [row for row, _ in late])
    for row, place in late:
        if os.preadv(descriptor, [place.data], row * size) != size:
            raise ValueError("it is too short")


def _reads_now(descriptor: int, place: bytearray | memoryview, offset: int) -> bool:
    """Fill a place from a file if that can be done without waiting for the disk; False too where the system does not say."""
    if not (hasattr(os, "preadv") and hasattr(os, "RWF_NOWAIT")):
        return False
    try:
        return os.preadv(descriptor, [place], offset, os.RWF_NOWAIT) == len(place)
    except OSError:
        return False
