"""Files of results: under a temporary name first, then renamed, so that a reader finds the old one or the new one and never a half."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from spadework.errors import NameTakenError, OutputError


def write_file(path: Path, data: bytes, *, flush: bool = False) -> None:
    """Write a file under a temporary name, then rename it; its folder is made.

    Args:
        path: the file.
        data: its bytes.
        flush: see that they are on the disk before the name is, for what must outlive a power cut.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
        NameTakenError: a folder stands there, a file where its folder is to be, or the name is too long.
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")  # short: the name itself may be as long as names can be
    with as_output_error(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise NameTakenError(
                f"{path.parent}: a file stands where a folder is needed. Choose another folder."
            ) from error
        if path.is_dir():
            raise NameTakenError(f"{path}: a folder stands where a file is to be written. Choose another folder.")
        try:
            temporary.write_bytes(data)
            if flush:
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def temporary_folder() -> Path:
    """Make a folder of one's own. OutputError where none can be made."""
    try:
        return Path(tempfile.mkdtemp(prefix="spadework-"))
    except OSError as error:
        why = f"no temporary folder can be made: {error.strerror or error}"
        raise OutputError(f"{why}. Set TMPDIR to a folder that can be written, or give a path to fit.") from error


@contextlib.contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turn an error of the system into an OutputError that names `path`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        kind = NameTakenError if error.errno == errno.ENAMETOOLONG else OutputError  # a matter of this name alone
        raise kind(f"{path}: cannot be written: {why}. Results written before are kept.") from error
