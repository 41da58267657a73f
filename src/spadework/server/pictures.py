"""Files of inspections: pictures as they came, evidence, thumbnails; each under the SHA-256 of its content.

    FOLDER/
      pictures/ab/abcdef...        the bytes that came, whatever they are called
      evidence/12/123456...        see evidence.py
      thumbnails/ab/abcdef....jpg  of the picture of that name, made when first asked for
      incoming/...                 what is being received
      lock                         held by whoever adds or removes a file, for a moment

A file is written under another name, flushed to the disk, then renamed: it is there whole or not at all. What has the same content is kept once;
keeping it again makes it young again, and a clean-up leaves the young alone: between the file and the row that names it nothing gets lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from spadework.errors import InputError
from spadework.files import as_output_error, write_file
from spadework.images import shrink

HASH = re.compile(r"[0-9a-f]{64}")
KINDS = ("pictures", "evidence")
THUMBNAIL_SIDE = 320
YOUNG_SECONDS = 3600.0

Read = Callable[[Path], np.ndarray]


class Incoming:
    """A file that is being received: write to it, then `Pictures.keep` it. `sha256` is that of what was written so far."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.size = 0
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes. Raises OutputError when there is no room."""
        with as_output_error(self.path):
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        """Of what was written, hexadecimal."""
        return self._hash.hexdigest()

    def flush(self) -> Path:
        """Hand to the system all that was written, so that others can read it at the path that comes back."""
        with as_output_error(self.path):
            self._file.flush()
        return self.path

    def settle(self) -> None:
        """See that it is on the disk."""
        with as_output_error(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())


class Pictures:
    """The files of inspections, in one folder. May be shared by threads and processes."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._turn = threading.Lock()
        self._settled: set[Path] = set()
        with as_output_error(self.folder):
            for name in (*KINDS, "thumbnails", "incoming"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            (self.folder / "lock").touch()
            _flush_folder(self.folder)

    # ---- in ----------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Open a file to receive a picture in; it is gone at the end unless `keep` was called.

        Raises:
            OutputError: there is no room or no permission.
        """
        path = self.folder / "incoming" / secrets.token_hex(16)
        with as_output_error(path):
            file = open(path, "xb")  # noqa: SIM115 - closed below
        try:
            yield Incoming(path, file)
        finally:
            with contextlib.suppress(OSError):  # on a full disk: what is kept was flushed before, the rest goes
                file.close()
            path.unlink(missing_ok=True)

    def keep(self, incoming: Incoming) -> str:
        """Keep what was received and return its SHA-256. It is on the disk when this returns; `incoming.path` is gone.

        Raises:
            OutputError: there is no room or no permission.
        """
        sha256 = incoming.sha256
        target = self._place("pictures", sha256)
        with as_output_error(target):
            if not self._renew(target):
                incoming.settle()
                self._publish(incoming.path, target)
        return sha256

    def keep_bytes(self, data: bytes) -> str:
        """As `keep`, of bytes at hand."""
        return self._keep("pictures", data)

    def put_evidence(self, data: bytes) -> str:
        """Keep an evidence file and return its SHA-256; as `keep`."""
        return self._keep("evidence", data)

    def _keep(self, kind: str, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        target = self._place(kind, sha256)
        with as_output_error(target):
            if self._renew(target):
                return sha256
        with self.incoming() as incoming:
            incoming.write(data)
            incoming.settle()
            with as_output_error(target):
                self._publish(incoming.path, target)
        return sha256

    def _renew(self, target: Path) -> bool:
        """Make a file young again; False if there is none. Not while it is being removed."""
        with self._alone():
            try:
                os.utime(target)
            except FileNotFoundError:
                return False
            return True

    def _publish(self, path: Path, target: Path) -> None:
        folder = target.parent
        if folder not in self._settled:
            folder.mkdir(exist_ok=True)
            _flush_folder(folder.parent)
            self._settled.add(folder)
        with self._alone():
            os.replace(path, target)
        _flush_folder(folder)

    # ---- out ---------------------------------------------------------------------------------------------------------------

    def path(self, sha256: str) -> Path:
        """Return where the picture of this hash lies, whether it is there or not. Raises InputError for what is no hash."""
        return self._place("pictures", sha256)

    def evidence_path(self, sha256: str) -> Path:
        """Return where the evidence of this hash lies, whether it is there or not. Raises InputError for what is no hash."""
        return self._place("evidence", sha256)

    def thumbnail(self, sha256: str, read: Read) -> Path | None:
        """Return the file of a small JPEG of a picture, its longer side at most 320 pixels; None if the picture is gone.

        Args:
            sha256: of the picture.
            read: returns the pixels of a file, uint8 (H, W, 3) RGB. It came from anybody: they are for a process of their own to decode.
        """
        picture, small = self._place("pictures", sha256), self._thumbnail(sha256)
        if small.is_file():
            return small
        if not picture.is_file():
            return None
        image = cv2.cvtColor(shrink(read(picture), THUMBNAIL_SIDE), cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
        write_file(small, data.tobytes())  # not flushed: it can be made again
        return small

    def _place(self, kind: str, sha256: str) -> Path:
        if not isinstance(sha256, str) or not HASH.fullmatch(sha256):
            raise InputError(f"{str(sha256)[:80]!r} is no SHA-256 in lower-case hexadecimal.")
        return self.folder / kind / sha256[:2] / sha256

    def _thumbnail(self, sha256: str) -> Path:
        place = self._place("thumbnails", sha256)
        return place.with_name(f"{place.name}.jpg")

    # ---- away --------------------------------------------------------------------------------------------------------------

    def remove(self, kind: str, sha256: str, *, before: float) -> int:
        """Remove a file that no inspection needs, unless it was kept, or kept again, at `before` or later.

        Args:
            kind: "pictures", with which the thumbnail goes, or "evidence".
            sha256: its hash.
            before: seconds since 1970.

        Returns:
            How many bytes became free; 0 if it is gone already or too young.
        """
        target = self._place(kind, sha256)
        with as_output_error(target), self._alone():
            try:
                found = target.stat()
                if found.st_mtime >= before:
                    return 0
                target.unlink()
            except FileNotFoundError:
                return 0
        freed = found.st_size
        if kind == "pictures":
            small = self._thumbnail(sha256)
            with contextlib.suppress(OSError):
                freed += small.stat().st_size
                small.unlink()
        return freed

    def remove_incoming(self, *, before: float) -> int:
        """Remove what was left half received before that time, in seconds since 1970; return how many files."""
        removed = 0
        for file in (self.folder / "incoming").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mtime < before:
                    file.unlink()
                    removed += 1
        return removed

    def listing(self, kind: str) -> Iterator[list[tuple[str, int, float]]]:
        """Yield what there is, one part of the folder after another: hash, bytes, time when it was kept."""
        for folder in sorted((self.folder / kind).iterdir()):
            found = []
            with os.scandir(folder) as files:
                for file in files:
                    name = file.name.removesuffix(".jpg")
                    if HASH.fullmatch(name):
                        with contextlib.suppress(FileNotFoundError):
                            told = file.stat()
                            found.append((name, told.st_size, told.st_mtime))
            yield found

    def size(self) -> int:
        """Return how many bytes pictures, evidence and thumbnails take."""
        return sum(bytes_ for kind in (*KINDS, "thumbnails") for part in self.listing(kind) for _, bytes_, _ in part)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time, across processes too; for moments only."""
        with self._turn, open(self.folder / "lock", "rb+") as file:
            _wait_for(file.fileno())
            yield


def _wait_for(descriptor: int) -> None:
    """Lock an open file as soon as whoever has it lets go."""
    try:
        import fcntl
    except ImportError:  # Windows
        from spadework.storage import lock_file

        until = time.monotonic() + 30.0
        while True:
            try:
                lock_file(descriptor)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.005)
            else:
                return
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _flush_folder(path: Path) -> None:
    if os.name == "nt":
        return  # Windows has no handle on a folder to flush
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
