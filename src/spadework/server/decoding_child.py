"""The process in which untrusted pictures are decoded: it has limits, knows no secrets, and may die.

In, a line of JSON on standard input: {"path"}. Out, a line of JSON on standard output: {"shape", "media_type"}, or {"error", "message"};
the pixels, uint8 (H, W, 3), are written to the file that `decoding.py` handed over. The first line out is "ready".
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from spadework.errors import ImageError
from spadework.images import MAX_PIXELS, read_image
from spadework.server.errors import Damaged, DecodeTimeout, DecodingError, NotAPicture, TooLarge

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "TIFF": "image/tiff", "BMP": "image/bmp", "WEBP": "image/webp"}
STARTS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}  # sizes there are: any text may begin with BM
LONGEST = 500  # letters of a message
TAKEN = "Send a PNG, JPEG, TIFF, BMP or WebP file."
ERRORS = {kind.code: kind for kind in (Damaged, DecodeTimeout, NotAPicture, TooLarge)}


def main(memory: int, max_pixels: int, seconds: float, target: str) -> None:
    """Answer until standard input ends.

    Args:
        memory: bytes that decoding may take, besides what the process takes to be there.
        max_pixels: of a picture.
        seconds: of processor time for one picture; whoever asks looks at the clock.
        target: where pixels go: "fd:NUMBER" or a path.
    """
    Image.init()  # all that is imported later would count
    cv2.setNumThreads(1)
    room = open(int(target[3:]), "r+b", 0) if target.startswith("fd:") else open(target, "r+b", 0)  # noqa: SIM115
    _limit(memory, max_pixels)
    _say({"ready": True})
    for line in sys.stdin:
        _limit_time(seconds)
        _say(_answer(Path(json.loads(line)["path"]), max_pixels, room))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _answer(path: Path, max_pixels: int, room: BinaryIO) -> dict[str, Any]:
    try:
        pixels, media_type = decode(path, max_pixels)
        room.seek(0)
        room.truncate(0)
        room.write(pixels.data.cast("B"))
    except DecodingError as error:
        return {"error": error.code, "message": str(error).replace(str(path), "the picture")[:LONGEST]}
    except MemoryError:
        return {"error": TooLarge.code, "message": "the picture takes more memory to decode than it may."}
    return {"shape": pixels.shape, "media_type": media_type}


def decode(path: Path, max_pixels: int) -> tuple[np.ndarray, str]:
    """Return a picture's pixels, uint8 (H, W, 3) RGB, and its media type, found out from its content.

    Raises:
        NotAPicture, TooLarge, Damaged: see there.
    """
    kind = find_format(path)
    try:
        width, height = _size(path, kind)
        most = min(max_pixels, MAX_PIXELS)
        if width * height > most:
            raise TooLarge(
                f"the picture has {width} x {height} pixels; up to {most / 1e6:.3g} million are taken. Scale it down."
            )
        return read_image(path), MEDIA_TYPES[kind]
    except ImageError as error:
        if _is_about_memory(error):
            raise MemoryError from error
        raise Damaged(str(error)) from error


def find_format(path: Path) -> str:
    """Return a key of `MEDIA_TYPES` by a file's first bytes. Raises NotAPicture."""
    if not path.is_file():  # a pipe would keep us waiting
        raise NotAPicture("there is no such file.")
    with open(path, "rb") as file:
        start = file.read(18)
    if not start:
        raise NotAPicture(f"the picture is empty (0 bytes). {TAKEN}")
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in BMP_HEADERS:
        return "BMP"
    for magic, kind in STARTS:
        if start.startswith(magic):
            return kind
    raise NotAPicture(f"this is in no format that is taken, whatever its name says. {TAKEN}")


def _size(path: Path, kind: str) -> tuple[int, int]:
    """(width, height) as the file tells them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=[kind]) as picture:
                return picture.size
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the picture has too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise Damaged(f"the picture is cut off or broken: it begins as {kind}, but has no sound header.") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes decoders raise anything
        raise Damaged(f"the picture is cut off or broken: {error}.") from error


def _is_about_memory(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "memory" in str(cause).lower():
            return True
        cause = cause.__cause__
    return False


# ---- limits ----------------------------------------------------------------------------------------------------------------


def _limit(memory: int, max_pixels: int) -> None:
    """Of memory, of what is written, of core files. Where the system has no such limits, time and size of pictures still have theirs."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    most = pages * os.sysconf("SC_PAGE_SIZE") + memory
    wanted = {"RLIMIT_AS": most, "RLIMIT_FSIZE": 3 * max_pixels + 4096, "RLIMIT_CORE": 0}
    for name, value in wanted.items():
        with contextlib.suppress(ValueError, OSError):  # there is a lower limit already
            resource.setrlimit(getattr(resource, name), (value, value))


def _limit_time(seconds: float) -> None:
    """Whoever asked may have died: nothing runs on for ever."""
    try:
        import resource
    except ImportError:
        return
    most = math.ceil(time.process_time() + seconds) + 1
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
