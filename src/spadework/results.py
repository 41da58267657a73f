"""A folder of results: one JSON file a run, written at once or not at all, that any number of processes may read and add to.

    DIR/
      DETECTOR-CATEGORY-KEY.json    one run; KEY is the start of the hash of all that the run's measures depend on (`fingerprint.identity`)
      .claims/KEY                   locked by the process that is at this run; the system lets go of it when the process ends

A file holds {"format", "version", "key", "identity", "row", "traceback", "finished", "machine", "checksum"}. `row` is the row of the benchmark; one with
an "error" is a failed run, which is tried again by the next call. The checksum is of everything else in the file: a file that was cut off,
damaged or edited is never taken for a result. Other files in the folder are left alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from spadework.errors import DamagedResultError, InputError, OutputError
from spadework.files import as_output_error, write_file
from spadework.fingerprint import key_of
from spadework.storage import lock_file

FORMAT, VERSION = "spadework-result", 1
NAME = re.compile(r"-[0-9a-f]{16}\.json\Z")
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of a file system that has none
MEASURED = ("image_auroc", "pixel_auroc", "pro", "image_ap", "pixel_ap")


@dataclass(frozen=True)
class Record:
    """One run's result. identity: what it depends on. row: of the benchmark. finished: seconds since 1970."""

    key: str
    identity: dict[str, Any]
    row: dict[str, Any]
    finished: float
    machine: str
    traceback: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the run ended with an error, which `row["error"]` tells."""
        return "error" in self.row

    @classmethod
    def now(cls, identity: dict[str, Any], row: dict[str, Any], traceback: str | None = None) -> Record:
        """Return the record of a run that has just ended on this machine."""
        machine = f"{platform.node()}, {platform.machine()}, {os.cpu_count()} cores"
        return cls(key_of(identity), identity, row, datetime.now(UTC).timestamp(), machine, traceback)


class Claim:
    """This process's hold on a run; `release` when its result is written.

    Who gets hold of a run looks for its result first: it may have been written since.
    """

    def __init__(self, path: Path | None = None, file: IO[bytes] | None = None) -> None:
        self._path, self._file = path, file

    def release(self) -> None:
        """Let go; harmless when done twice."""
        if self._file is not None and self._path is not None:
            with contextlib.suppress(OSError):  # Windows keeps an open file; one left behind does no harm
                self._path.unlink()
            self._file.close()
            self._file = None


class Results:
    """The folder `path`, made if need be.

    Raises:
        OutputError: it cannot be made or written to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._claims = self.path / ".claims"
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path}: is a file; results need a folder.")
        with as_output_error(self.path):
            self._claims.mkdir(parents=True, exist_ok=True)
        if not os.access(self._claims, os.W_OK):
            raise OutputError(f"{self.path}: cannot be written: no permission. Choose another folder for results.")

    def file_of(self, identity: Mapping[str, Any]) -> Path:
        """Return the file of a run's result, whether it is there or not."""
        words = [re.sub(r"[^\w.-]+", "_", str(identity[part]))[:60] for part in ("detector", "category")]
        return self.path / f"{'-'.join(words)}-{key_of(dict(identity))[:16]}.json"

    def find(self, identity: Mapping[str, Any]) -> Record | None:
        """Return a run's record; None where there is none yet.

        Raises:
            DamagedResultError: there is a file, but it cannot be used.
        """
        path = self.file_of(identity)
        if not path.exists():
            return None
        record = read_record(path)
        if record.key != key_of(dict(identity)):  # a file that was renamed or copied by hand
            raise DamagedResultError(
                f"{path}: is the result of another run than its name says: its key is {record.key[:16]}."
            )
        return record

    def write(self, record: Record) -> Path:
        """Write a record in one step, also over an older one.

        Raises:
            OutputError: no room or no permission; what was there before is unchanged.
        """
        content = {
            "format": FORMAT,
            "version": VERSION,
            "key": record.key,
            "identity": record.identity,
            "row": record.row,
            "traceback": record.traceback,
            "finished": record.finished,
            "machine": record.machine,
        }
        content["checksum"] = _checksum(content)
        path = self.file_of(record.identity)
        write_file(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(), flush=True)
        return path

    def claim(self, identity: Mapping[str, Any]) -> Claim | None:
        """Return a hold on a run; None where another process has it. Where a file system has no locks, everything is free.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = self._claims / key_of(dict(identity))[:16]
        while True:
            with as_output_error(path):
                file = open(path, "a+b")  # noqa: SIM115 - held until release
            try:
                lock_file(file.fileno())
            except OSError as error:
                file.close()
                return Claim() if error.errno in NO_LOCKS else None
            if _still_stands(path, file):
                return Claim(path, file)
            file.close()

    def records(self) -> tuple[list[Record], list[str]]:
        """Return all records in the order of their names, and for each file that cannot be used a sentence that names it."""
        return read_folder(self.path)


def _still_stands(path: Path, file: IO[bytes]) -> bool:
    """Whether a locked file is still the one of its name: between opening and locking it, its owner may have let go and deleted it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def read_folder(path: str | os.PathLike[str]) -> tuple[list[Record], list[str]]:
    """Return the records in a folder, and for each file that cannot be used a sentence that names it. Writes nothing.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder of results. `spadework reproduce` and `benchmark --results` make one."
        )
    records, problems = [], []
    for file in sorted(_result_files(folder)):
        try:
            records.append(read_record(file))
        except DamagedResultError as error:
            problems.append(str(error))
    return records, problems


def _result_files(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from (file for file in folder.iterdir() if NAME.search(file.name) and not file.name.startswith("."))


def read_record(path: Path) -> Record:
    """Read one result.

    Raises:
        DamagedResultError: it is no result, cut off, damaged, edited, or of a newer version; the message names the file.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedResultError(f"{path}: cannot be read as a result: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DamagedResultError(f"{path}: is no result of Spadework.")
    if content.get("version") != VERSION:
        raise DamagedResultError(
            f"{path}: is a result of version {content.get('version')!r}, known here: {VERSION}. Use the Spadework that wrote it."
        )
    stated = content.pop("checksum", None)
    if stated != _checksum(content):
        raise DamagedResultError(f"{path}: was changed since it was written, or is damaged.")
    try:
        record = Record(
            **{name: content[name] for name in ("key", "identity", "row", "finished", "machine", "traceback")}
        )
        sound = record.key == key_of(record.identity) and all(_is_measure(record.row[name]) for name in MEASURED)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedResultError(f"{path}: lacks {error}.") from error
    if not sound:
        raise DamagedResultError(f"{path}: holds a measure that is none, or a key that is not its own.")
    return record


def _is_measure(value: object) -> bool:
    return value is None or (isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 1)


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
