"""Model folders: one JSON header, raw little-endian arrays; atomic, appendable, checksummed, memory-mapped, no pickle.

    NAME.spade/
      header.json     the truth: which bytes of which file count
      lock            taken by whoever writes
      *.bin           arrays, rows one after another, C order

The header, a JSON object:
    format       "spadework-model"
    version      1; a reader refuses a higher one
    detector, settings, state, ...    what the model's owner stores: plain JSON
    arrays       name -> {file, dtype ("<f4", "<f2", "<u4", "|u1"), row_shape, rows, crc32}
    checksum     CRC-32 of the header's canonical JSON without this field
`crc32` is that of the array's first `rows` rows, checked when the folder is opened; null for large arrays, whose owner keeps a CRC-32
of each row in another array and checks a row when it is first read. CRC-32 guards against bad disks and torn files, not against malice.

Writing: rows go to the end of the files and are flushed to disk; then a new header is written under a temporary name, flushed and renamed.
Until the rename the old header stands and the bytes beyond its rows do not count; the next writer cuts them off. So a crash at any moment
leaves the model as it was before or as it is after. Replacing a whole model, or leaving rows out, writes files of new names first, renames
the header, then deletes the old files. A loaded model keeps its files open, so it goes on with what it loaded, whatever happens to their
names (on Windows open files cannot be deleted: they go with a later write).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from spadework.checksums import crc32
from spadework.errors import ModelError, OutputError
from spadework.readahead import announce, read_rows

FORMAT = "spadework-model"
VERSION = 1
HEADER = "header.json"
COPY_BYTES = 8 << 20  # of rows copied at once


class _Held:
    """A file kept open, by whatever name it goes now; closed when the last who uses it lets go."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.descriptor)


class ModelFolder:
    """A model folder open for reading, and for appending while `writing()` holds its lock.

    lasting: False for one that ends with the process: it need not survive a power cut, so nothing waits for the disk.
    """

    def __init__(self, path: Path, header: dict[str, Any], *, lasting: bool = True) -> None:
        self.path = path
        self.header = header
        self.lasting = lasting
        self._held: dict[str, _Held] | None = None

    @classmethod
    def create(cls, path: Path, fields: dict[str, Any], *, lasting: bool = True) -> ModelFolder:
        """Make an empty model folder; `path` must not exist."""
        with _as_output_error(path):
            path.mkdir(parents=True)
            folder = cls(path, {**fields, "format": FORMAT, "version": VERSION, "arrays": {}}, lasting=lasting)
            folder.commit()
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ModelFolder:
        """Open a model folder and check its header, its files' sizes and its small arrays.

        Raises:
            ModelError: not a model, a newer version, or damaged; the message says which file.
        """
        while True:
            folder = cls(Path(path), _read_header(Path(path)))
            try:
                for name, entry in folder.header["arrays"].items():
                    folder._check(name, entry)
            except ModelError:
                if _read_header(folder.path)["checksum"] == folder.header["checksum"]:
                    raise  # damaged; otherwise a writer replaced files since the header was read: read the new one
            else:
                return folder

    def _check(self, name: str, entry: dict[str, Any]) -> None:
        file = self.path / entry["file"]
        needed = entry["rows"] * _row_bytes(entry)
        try:
            size = file.stat().st_size
        except OSError as error:
            raise ModelError(
                f"{file}: is missing or unreadable ({error.strerror}). Restore the model or fit again."
            ) from error
        if size < needed:
            raise ModelError(f"{file}: has {size} bytes, the header counts {needed}. Restore the model or fit again.")
        if entry["crc32"] is not None and _crc_of(file, needed) != entry["crc32"]:
            raise ModelError(f"{file}: array {name!r} is damaged (checksum differs). Restore the model or fit again.")

    def hold(self) -> None:
        """Keep the files open from now on: what was opened can be read to the end, whatever other writers put in its place.

        Where the system has no room for more open files, they are opened by their names as before.

        Raises:
            ModelError: a file is gone already.
        """
        held, self._held = self._held or {}, {}
        for name, entry in self.header["arrays"].items():
            try:
                self._held[entry["file"]] = held.get(entry["file"]) or _Held(self.path / entry["file"])
            except FileNotFoundError:
                with self._telling(name):
                    raise
            except OSError:
                continue

    def _hold_on(self) -> None:
        if self._held is not None:
            with contextlib.suppress(ModelError):
                self.hold()

    @contextlib.contextmanager
    def _reading(self, file: str) -> Iterator[FileIO]:
        held = self._held.get(file) if self._held else None  # a name of its own: it stays open until we are done
        if held is None:
            with open(self.path / file, "rb", buffering=0) as named:
                yield named
        else:
            with open(held.descriptor, "rb", buffering=0, closefd=False) as opened:
                yield opened

    def add_array(self, name: str, dtype: str, row_shape: tuple[int, ...], *, checked: bool = True) -> None:
        """Declare an empty array; it counts from the next `commit`."""
        file = f"{name}-{secrets.token_hex(4)}.bin"
        (self.path / file).touch()
        crc = 0 if checked else None
        self.header["arrays"][name] = {
            "file": file,
            "dtype": dtype,
            "row_shape": list(row_shape),
            "rows": 0,
            "crc32": crc,
        }

    def append(self, name: str, rows: np.ndarray) -> None:
        """Write rows to the end of an array; they count from the next `commit`.

        Raises:
            OutputError: no room or no permission; what counted before still does.
        """
        entry = self.header["arrays"][name]
        data = np.ascontiguousarray(rows, np.dtype(entry["dtype"]))
        if list(data.shape[1:]) != entry["row_shape"]:
            raise ModelError(
                f"rows of {name!r} have shape {data.shape[1:]}, the model holds {tuple(entry['row_shape'])}."
            )
        payload = data.reshape(-1).view(np.uint8).data  # bytes without a copy
        with _as_output_error(self.path), open(self.path / entry["file"], "r+b") as file:
            file.seek(entry["rows"] * _row_bytes(entry))
            file.write(payload)
        entry["rows"] += len(data)
        if entry["crc32"] is not None:
            entry["crc32"] = crc32(payload, entry["crc32"])

    def replace(self, name: str, rows: np.ndarray) -> None:
        """Give an array new content in a new file; the old file goes after the next `commit`."""
        old = self.header["arrays"].get(name)
        dtype = old["dtype"] if old else rows.dtype.newbyteorder("<").str
        self.add_array(name, dtype, rows.shape[1:])
        self.append(name, rows)

    def keep(self, name: str, runs: Iterable[tuple[int, int]]) -> None:
        """Leave out all rows of an array but these runs (start, stop), in the order given. They are copied to a new file, piece by
        piece, so memory stays small; the old file goes after the next `commit`.

        Raises:
            OutputError: no room for the copy; what counted before still does.
            ModelError: as `read`.
        """
        old = dict(self.header["arrays"][name])
        self.add_array(name, old["dtype"], tuple(old["row_shape"]), checked=old["crc32"] is not None)
        for start, stop in runs:
            for rows in self._pieces(name, old, start, stop):
                self.append(name, rows)

    def _pieces(self, name: str, entry: dict[str, Any], start: int, stop: int) -> Iterator[np.ndarray]:
        step = max(1, COPY_BYTES // max(1, _row_bytes(entry)))
        for first in range(start, stop, step):
            yield self._map(name, entry, first, min(first + step, stop))

    def commit(self) -> None:
        """Make everything written so far count, at once or not at all."""
        with _as_output_error(self.path):
            if self.lasting:
                for entry in self.header["arrays"].values():
                    _flush(self.path / entry["file"])
            self.header["checksum"] = _checksum(self.header)
            temporary = self.path / f"{HEADER}.{os.getpid()}.tmp"
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(json.dumps(self.header, indent=1))
                file.flush()
                if self.lasting:
                    os.fsync(file.fileno())
            os.replace(temporary, self.path / HEADER)
            if self.lasting:
                _flush_folder(self.path)
        self._hold_on()
        with contextlib.suppress(
            OSError
        ):  # it counts already; what cannot be cleared away now goes with the next commit
            self._tidy()

    def roll_back(self) -> None:
        """Go back to what stands on disk, and clear away what does not count. A rename that was done does count."""
        try:
            self.header = _read_header(self.path)
        except ModelError:
            return  # unreadable just now: better to leave bytes behind than to cut off what counts
        self._hold_on()
        with contextlib.suppress(OSError):
            self._tidy()

    def _tidy(self) -> None:
        """Delete what the header does not name and bytes beyond the counted rows, left by an earlier error or crash."""
        for file in self.path.glob(f"{HEADER}.*.tmp"):
            file.unlink(missing_ok=True)
        named = {entry["file"]: entry for entry in self.header["arrays"].values()}
        for file in self.path.glob("*.bin"):
            if file.name not in named:
                file.unlink(missing_ok=True)
            elif file.stat().st_size > named[file.name]["rows"] * _row_bytes(named[file.name]):
                os.truncate(file, named[file.name]["rows"] * _row_bytes(named[file.name]))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder's lock; on any error the header goes back to what stands on disk.

        Raises:
            ModelError: somebody else changed the model since it was opened: open it again.
            OutputError: the folder cannot be written, or another process is writing.
        """
        with _lock(self.path):
            current = _read_header(self.path)
            if current["checksum"] != self.header["checksum"]:
                raise ModelError(
                    f"{self.path}: was changed by another process since it was opened. Load it again, then append."
                )
            try:
                yield
            except BaseException:
                self.header = current
                self.roll_back()
                raise

    def rows(self, name: str) -> int:
        """Number of rows that count."""
        return int(self.header["arrays"][name]["rows"])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows as a read-only memory map that lives as long as the array does.

        Raises:
            ModelError: the file is gone or shorter than it was when the model was opened.
        """
        entry = self.header["arrays"][name]
        return self._map(name, entry, start, entry["rows"] if stop is None else stop)

    def _map(self, name: str, entry: dict[str, Any], start: int, stop: int) -> np.ndarray:
        shape = (stop - start, *entry["row_shape"])
        if 0 in shape:
            return np.zeros(shape, entry["dtype"])
        with self._telling(name), self._reading(entry["file"]) as file:
            return np.memmap(file, entry["dtype"], "r", offset=start * _row_bytes(entry), shape=shape)

    def copy(self, name: str, start: int, stop: int) -> bytes:
        """Return the bytes of some rows: of a few, three times as quick as a map of them. Raises as `read`."""
        entry = self.header["arrays"][name]
        size = _row_bytes(entry)
        if not hasattr(os, "pread"):
            return self.read(name, start, stop).tobytes()
        with self._telling(name), self._reading(entry["file"]) as file:
            # Not `seek` and `read`: other threads, maps and forked processes move the same file's offset.
            found = os.pread(file.fileno(), (stop - start) * size, start * size)
            if len(found) != (stop - start) * size:
                raise ValueError("it is too short")
            return found

    def announce(self, name: str, rows: Iterable[int]) -> list[int]:
        """Tell the system that these rows will be read. Returns those that are not known to be in memory."""
        rows = list(rows)
        entry = self.header["arrays"][name]
        with contextlib.suppress(OSError), self._reading(entry["file"]) as file:
            return announce(file.fileno(), _row_bytes(entry), rows)
        return rows  # a hint: what cannot be read is told when it is

    def pick(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return a copy of scattered rows, in the order asked for.

        Not through a map: mapping and unmapping a page for each of 600 rows took 4 ms, reading them 1 ms.

        Raises:
            ModelError: as `read`.
        """
        if not hasattr(os, "preadv"):
            return np.asarray(self.read(name)[rows])
        entry = self.header["arrays"][name]
        out = np.empty((len(rows), *entry["row_shape"]), entry["dtype"])
        with self._telling(name), self._reading(entry["file"]) as file:
            read_rows(file.fileno(), rows, out)
        return out

    @contextlib.contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        """Tell as ModelError that an array cannot be read."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the file ends before the rows do
            file, why = self.header["arrays"][name]["file"], getattr(error, "strerror", None) or "it is too short"
            raise ModelError(
                f"{self.path / file}: array {name!r} cannot be read: {why}. "
                "The model was changed or deleted since it was opened: load it again."
            ) from error


def publish(draft: ModelFolder, target: Path) -> ModelFolder:
    """Move a finished draft to `target`; a model that stands there is replaced, in one step, or stays as it was.

    The draft must lie on the same file system. Raises OutputError when `target` is something else than a model.
    """
    with _as_output_error(target):
        if not target.exists():
            draft.path.rename(target)
            _flush_folder(target.parent)
            return ModelFolder(target, draft.header)
        check_target(target)
        replaced = ModelFolder(target, draft.header)
        with _lock(target):
            try:
                for entry in draft.header["arrays"].values():
                    os.replace(draft.path / entry["file"], target / entry["file"])
                replaced.commit()
            except BaseException:
                replaced.roll_back()
                raise
        shutil.rmtree(draft.path, ignore_errors=True)
        return replaced


def check_target(target: Path) -> None:
    """Raise OutputError where something that is no model stands: it is never replaced."""
    with _as_output_error(target):
        if target.exists() and not (target / HEADER).is_file():
            raise OutputError(f"{target}: exists and is not a Spadework model; choose another name or move it away.")


def duplicate(source: ModelFolder, target: Path) -> ModelFolder:
    """Copy a model's counted rows to a new folder."""
    with _as_output_error(target):
        copy = ModelFolder.create(target, {key: value for key, value in source.header.items() if key != "arrays"})
        for name, entry in source.header["arrays"].items():
            copy.add_array(name, entry["dtype"], tuple(entry["row_shape"]), checked=entry["crc32"] is not None)
            new = copy.header["arrays"][name]
            with open(copy.path / new["file"], "r+b") as file:
                for rows in source._pieces(name, entry, 0, entry["rows"]):
                    file.write(rows.reshape(-1).view(np.uint8).data)
            new.update(rows=entry["rows"], crc32=entry["crc32"])
        copy.commit()
    return copy


def draft_path(target: Path) -> Path:
    """A name beside `target` for work in progress."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")


def _read_header(path: Path) -> dict[str, Any]:
    file = path / HEADER
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not path.exists():
            raise ModelError(_no_such_model(path)) from None
        raise ModelError(
            f"{path}: is not a Spadework model (no {HEADER} in it). A model is a folder made by `spadework fit`."
        ) from None
    except NotADirectoryError:
        raise ModelError(f"{path}: is a file; a Spadework model is a folder made by `spadework fit`.") from None
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ModelError(f"{file}: is damaged ({error}). Restore the model or fit again.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelError(f"{file}: is not the header of a Spadework model.")
    if not isinstance(header.get("version"), int) or header["version"] > VERSION:
        found = header.get("version")
        raise ModelError(
            f"{path}: is of format version {found}, this Spadework reads up to {VERSION}. Upgrade Spadework."
        )
    if header.get("checksum") != _checksum(header):
        raise ModelError(f"{file}: is damaged (checksum differs). Restore the model or fit again.")
    return header


def _no_such_model(path: Path) -> str:
    beside = path.with_name(f"{path.name}.spade")
    hint = (
        f"Did you mean {beside}?" if beside.is_dir() else "A model is a folder made by `spadework fit`; check the path."
    )
    return f"{path}: does not exist. {hint}"


def _checksum(header: dict[str, Any]) -> int:
    content = {key: value for key, value in header.items() if key != "checksum"}
    return crc32(json.dumps(content, sort_keys=True).encode())


def _row_bytes(entry: dict[str, Any]) -> int:
    return int(np.dtype(entry["dtype"]).itemsize * np.prod(entry["row_shape"], dtype=np.int64))


def _crc_of(file: Path, length: int) -> int:
    try:
        return _crc_of_file(file, length)
    except OSError as error:
        raise ModelError(
            f"{file}: is missing or unreadable ({error.strerror}). Restore the model or fit again."
        ) from error


def _crc_of_file(file: Path, length: int) -> int:
    crc = 0
    with open(file, "rb") as handle:
        while length > 0:
            chunk = handle.read(min(length, 1 << 22))
            crc, length = crc32(chunk, crc), length - len(chunk)
    return crc


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One writer at a time, across processes; the system lets go when a process dies."""
    with _as_output_error(path), open(path / "lock", "a+b") as file:
        try:
            lock_file(file.fileno())
        except OSError:
            raise OutputError(
                f"{path}: another process is writing to this model. Wait for it, then run again."
            ) from None
        yield


def lock_file(descriptor: int) -> None:
    """Lock an open file for this process, at once or not at all; raises OSError where another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _flush(file: Path) -> None:
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())


def _flush_folder(path: Path) -> None:
    if os.name == "nt":
        return  # Windows has no handle on a folder to flush
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written: {why}. What was there before is unchanged.") from error
