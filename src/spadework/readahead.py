"""Rows that will be read soon, told to the system so that the disk delivers them all at once.

From a cold disk 50 pyramids, one after another, took 110 ms; announced, 7.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def announce(descriptor: int, size: int, rows: Iterable[int]) -> None:
    """Tell the system which rows of a file, `size` bytes each, are wanted, so that the disk delivers them all at once.

    Not those whose last byte is in memory: to find all pages of 100 rows of a quarter of a MB there takes 0.6 ms, one page of each 0.1.
    """
    if hasattr(os, "posix_fadvise"):
        byte = [bytearray(1)]
        for row in map(int, rows):
            if not _is_in_memory(descriptor, (row + 1) * size - 1, byte):
                os.posix_fadvise(descriptor, row * size, size, os.POSIX_FADV_WILLNEED)


def _is_in_memory(descriptor: int, place: int, byte: list[bytearray]) -> bool:
    """Whether a byte of a file can be had without waiting for the disk; False where the system does not say."""
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    try:
        return os.preadv(descriptor, byte, place, os.RWF_NOWAIT) == 1
    except OSError:
        return False
