"""Pictures that go to the disk while they are inspected: the row that names one is written only once it is there.

Flushing to a disk takes as long as a good part of an inspection; side by side it costs a client nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future


class Settling:
    """Which pictures are on their way to the disk, by SHA-256. Used by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: defaultdict[str, list[Future[None]]] = defaultdict(list)

    @contextlib.contextmanager
    def picture(self, sha256: str) -> Iterator[Future[None]]:
        """Announce a picture; the future is to be answered when it is there, or cannot be. Leave only when its row was written, or never will."""
        settled: Future[None] = Future()
        with self._lock:
            self._under_way[sha256].append(settled)
        try:
            yield settled
        finally:
            settled.cancel()  # nobody is to wait for one that was never submitted
            with self._lock:
                self._under_way[sha256].remove(settled)
                if not self._under_way[sha256]:
                    del self._under_way[sha256]

    def wait(self, pictures: Iterable[str]) -> None:
        """Return once all of these are there. Raises what went wrong with the first that cannot be."""
        with self._lock:
            waiting = [settled for sha256 in pictures for settled in self._under_way.get(sha256, ())]
        for settled in waiting:
            with contextlib.suppress(CancelledError):
                settled.result()
