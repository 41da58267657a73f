"""What is known of normal images besides their features: one JSON line each, parsed when it is asked for.

In: the bytes of all lines, (bytes,) uint8 on disk, through functions that map a range of them or copy it. Out: a sequence of `Entry`.
Held in memory: where each line ends, 8 bytes an image, and the few thousand entries asked for last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import SupportsIndex, overload

import numpy as np

BLOCK_BYTES = 1 << 22
LINES = 4096  # parsed from one map while all are walked through
KEPT = 4096  # parsed lines, asked for again and again: to read and parse one takes 0.02 ms


@dataclass(frozen=True)
class Entry:
    """What is known of a normal image besides its features."""

    name: str
    size: tuple[int, int]  # (H, W) in pixels of the original
    thumbnail: tuple[int, int, int]  # start, end, CRC-32
    sha256: str

    @classmethod
    def from_json(cls, line: bytes) -> Entry:
        """Read one line of `entries`."""
        data = json.loads(line)
        height, width = data["size"]
        start, end, check = data["thumbnail"]
        return cls(data["name"], (height, width), (start, end, check), data["sha256"])


class Entries(Sequence[Entry]):
    """The entries of a gallery, in the order of its images."""

    def __init__(
        self,
        read: Callable[[int, int], np.ndarray],
        length: int,
        *,
        copy: Callable[[int, int], bytes] | None = None,
    ) -> None:
        self._read = read
        found = [np.zeros(1, np.int64)]
        for start in range(0, length, BLOCK_BYTES):
            block = read(start, min(start + BLOCK_BYTES, length))
            found.append(np.flatnonzero(block == ord("\n")) + start + 1)
        self._ends = np.concatenate(found)  # (N + 1,): a line is what lies between two of them
        self._parse = lru_cache(KEPT)(
            partial(_parse, copy or (lambda start, stop: read(start, stop).tobytes()), self._ends)
        )  # not a method: files are let go with the last user

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: SupportsIndex) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Entry | list[Entry]:
        chosen = range(len(self))[index]
        return [self._parse(line) for line in chosen] if isinstance(chosen, range) else self._parse(chosen)

    def __iter__(self) -> Iterator[Entry]:
        for start in range(0, len(self), LINES):
            ends = self._ends[start : start + LINES + 1]
            for line in self._read(int(ends[0]), int(ends[-1])).tobytes().splitlines():
                yield Entry.from_json(line)


def _parse(copy: Callable[[int, int], bytes], ends: np.ndarray, line: int) -> Entry:
    return Entry.from_json(copy(int(ends[line]), int(ends[line + 1])))
