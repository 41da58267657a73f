"""A folder in which pictures appear, each inspected exactly once: half-written ones when they are whole, renamed ones not again, after a restart
only those that were not yet.

The folder is listed every 0.2 seconds (on a share of a network, nothing else is sure to be told). A file counts when its size and time rested for
two looks. One that then cannot be decoded may still be being written: it is tried again until it has rested for 5 seconds, then told as bad, once.
The oldest come first. What is inspected is the copy that is kept, so that its hash, its pixels and its row belong together.

Exactly once: the row of an inspection names the file, and the history refuses a second row of the same file (same content, size and time, at
the same path or the same place on the disk). A crash before the row is written: it is inspected again; after it: the history knows it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from spadework.detectors.reading import work_ahead
from spadework.errors import InputError, SpadeworkError
from spadework.server.decoding import Decoders
from spadework.server.errors import DecodingError, Overloaded, Stopped
from spadework.server.history import History
from spadework.server.inspecting import Candidate
from spadework.server.pictures import Incoming, Pictures
from spadework.server.records import Inspection, Watched
from spadework.server.station import Station

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
EVERY = 0.2  # seconds from one look to the next,
SHARE = 5.0  # or so many times as long as a look takes
LOOKS = 2  # through which a file must have rested
SETTLED = 5.0  # seconds after which a file that cannot be decoded is bad
RETRY = (1.0, 60.0)  # seconds until something is tried again that is not the file's fault, first and at most
ROUND = 200  # files between two looks
PIECE = 1 << 20  # bytes
NEVER_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
TOLD = 1000  # bad files kept in memory
LOG = logging.getLogger("spadework.watch")

Key = tuple[int, int, int, int]  # device, inode, mtime_ns, size


@dataclass
class _File:
    """What is known of a file. looks: through which it rested. since: when it was first seen so. not_before: when it is next tried."""

    path: str
    key: Key
    since: float
    looks: int = 0
    not_before: float = 0.0
    tries: int = 0
    told: bool = False
    state: str = "resting"  # "resting", "under way", "done", "bad"

    @property
    def watched(self) -> Watched:
        """As the history knows it."""
        return Watched(self.path, *self.key)


class _Changed(Exception):  # noqa: N818 - nothing is wrong: it is looked at again
    """A file is not what it was when it was listed."""


class Watch:
    """Watches a folder and those in it, from now until `close`.

    Args:
        folder: which.
        station: where pictures are inspected.
        pictures: where they are kept.
        decoders: what decodes them.
        history: which knows what was inspected already.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        station: Station,
        pictures: Pictures,
        decoders: Decoders,
        history: History,
    ) -> None:
        self.folder = Path(folder)
        self.station, self.pictures, self.decoders, self.history = station, pictures, decoders, history
        self.done = 0  # inspected since the start
        self.bad: deque[tuple[str, str]] = deque(maxlen=TOLD)  # path and why
        self.error: str | None = None  # why the folder cannot be listed
        self._files: dict[str, _File] = {}
        self._stop = threading.Event()
        self._most = 2 * station.inspector.batch  # under way at once: others want to be inspected too
        self._room = threading.Semaphore(self._most)
        self._thread = threading.Thread(target=self._run, name=f"{station.name}-watch", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many files are there that were not inspected yet, the bad ones left out."""
        return sum(file.state in ("resting", "under way") for file in list(self._files.values()))

    def close(self) -> None:
        """Look no more. What is with the station already is finished there."""
        self._stop.set()
        self._thread.join()

    # ---- looking -----------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            started = time.monotonic()
            try:
                ready = self._look(started)
            except OSError as error:
                self._tell_folder(error)
                pause = EVERY
                continue
            self.error = None
            pause = max(EVERY, SHARE * (time.monotonic() - started))
            try:
                self._inspect(ready[:ROUND])
            except Stopped:
                return
            except Exception:  # a full disk, a database away: the files are still there
                LOG.exception("%s: is tried again", self.folder)
                pause = RETRY[0]
            if len(ready) > ROUND:
                pause = 0.0

    def _tell_folder(self, error: OSError) -> None:
        if self.error is None:
            LOG.error("%s: cannot be listed: %s", self.folder, error.strerror or error)
        self.error = error.strerror or str(error)

    def _look(self, now: float) -> list[_File]:
        """List the folder, and return the files that are ready, the oldest first."""
        inspected = {file.key for file in self._files.values() if file.state == "done"}
        found: dict[str, _File] = {}
        for path, key in _listed(self.folder):
            file = self._files.get(path)
            if file is None or file.key != key:
                file = _File(path, key, now)
                if key in inspected:  # under another name
                    file.state = "done"
            else:
                file.looks += 1
            found[path] = file
        self._files = found  # what has gone is forgotten
        ready = [
            file
            for file in found.values()
            if file.state == "resting" and file.looks >= LOOKS and file.not_before <= now
        ]
        return sorted(ready, key=lambda file: (file.key[2], file.path))

    # ---- inspecting --------------------------------------------------------------------------------------------------------

    def _inspect(self, ready: list[_File]) -> None:
        """Copy, hash and decode a few ahead; submit in order."""
        prepared = work_ahead(ready, self._prepare, threads=self.decoders.processes)
        for file, candidate in zip(ready, prepared, strict=False):
            if self._stop.is_set():
                raise Stopped("closed")
            if candidate is not None:
                self._submit(file, candidate)

    def _prepare(self, file: _File) -> Candidate | None:
        """Return what to inspect; None if it is not ready, bad, or was inspected already."""
        try:
            with open(file.path, "rb", buffering=0, opener=_opened) as source, self.pictures.incoming() as incoming:
                _copy(source, incoming, file.key)
                return self._candidate(file, incoming)
        except (_Changed, FileNotFoundError):
            file.looks = 0  # it is looked at again
        except DecodingError as error:
            if time.monotonic() - file.since >= SETTLED:
                self._tell(file, str(error), "bad")
        except Stopped:
            raise
        except (OSError, SpadeworkError) as error:  # no permission yet, no room, no database
            self._later(file, str(error))
        return None

    def _candidate(self, file: _File, incoming: Incoming) -> Candidate | None:
        sha256 = incoming.sha256
        if self.history.seen(file.watched, sha256, model=self.station.name) is not None:
            file.state = "done"
            return None
        started = time.perf_counter()
        rgb, media_type = self.decoders.decode(incoming.flush())
        seconds = time.perf_counter() - started
        self.pictures.keep(incoming)
        name = os.path.relpath(file.path, self.folder)
        return Candidate(rgb, sha256, name, "watch", "watch", media_type, seconds, file.watched)

    def _submit(self, file: _File, candidate: Candidate) -> None:
        """Wait for room, then hand over: nobody else's pictures are pushed out."""
        while not self._room.acquire(timeout=0.1):
            if self._stop.is_set():
                raise Stopped("closed")
        while True:
            try:
                future = self.station.submit(candidate)
            except Overloaded as full:
                if self._stop.wait(min(full.seconds, 0.2)):
                    self._room.release()
                    raise Stopped("closed") from None
            except Stopped:
                self._room.release()
                raise
            else:
                break
        file.state = "under way"
        future.add_done_callback(partial(self._finished, file))

    def _finished(self, file: _File, future: Future[Inspection]) -> None:
        self._room.release()
        error = None if future.cancelled() else future.exception()
        if error is None and not future.cancelled():
            file.state = "done"
            self.done += 1
        elif isinstance(error, InputError):  # the picture itself
            self._tell(file, str(error), "bad")
        else:
            self._later(file, str(error))
            file.state = "resting"

    def _later(self, file: _File, why: str) -> None:
        """It is not the file's fault: it is tried again, after longer and longer."""
        file.tries += 1
        file.not_before = time.monotonic() + min(RETRY[1], RETRY[0] * 2.0 ** (file.tries - 1))
        self._tell(file, why, file.state)

    def _tell(self, file: _File, why: str, state: str) -> None:
        file.state = state
        if not file.told:
            file.told = True
            self.bad.append((file.path, why))
            LOG.warning("%s: %s", file.path, why)


def _listed(folder: Path) -> Iterator[tuple[str, Key]]:
    """Pictures in a folder and those in it, by their names; hidden ones and models are left out. Raises OSError for the folder itself."""
    folders = deque([os.fspath(folder)])
    first = True
    while folders:
        try:
            entries = list(os.scandir(folders.popleft()))
        except OSError:
            if first:
                raise
            continue  # gone since
        first = False
        for entry in entries:
            if entry.name.startswith("."):
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.endswith(".spade"):
                        folders.append(entry.path)
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                    told = os.stat(entry.path)
                    if stat.S_ISREG(told.st_mode):
                        yield entry.path, _key(told)


def _key(told: os.stat_result) -> Key:
    return told.st_dev, told.st_ino, told.st_mtime_ns, told.st_size


def _opened(path: str, flags: int) -> int:
    """Open a file that may have become a pipe or a device since it was listed: those would keep whoever opens them waiting for ever."""
    return os.open(path, flags | NEVER_WAIT)


def _copy(source: BinaryIO, incoming: Incoming, key: Key) -> None:
    """Copy a file that must not change meanwhile. Raises _Changed, also where it is no file any more."""
    if not stat.S_ISREG(os.fstat(source.fileno()).st_mode) or _key(os.fstat(source.fileno())) != key:
        raise _Changed
    while (piece := source.read(PIECE)) and incoming.size <= key[3]:
        incoming.write(piece)
    if _key(os.fstat(source.fileno())) != key or incoming.size != key[3]:
        raise _Changed
