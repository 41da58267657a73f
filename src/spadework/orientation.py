"""Which way up a picture is meant to be seen: what EXIF says of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF tag
TURNED = frozenset({5, 6, 7, 8})  # its values that swap rows and columns
IN_PNG = frozenset({"exif", "Raw profile type exif"})  # where Pillow puts a PNG's EXIF that comes before the pixels


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W, C) as an EXIF orientation asks for: 5 to 8 swap rows and columns, then rows and columns may be reversed."""
    if orientation in TURNED:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def is_turned(opened: Image.Image, path: Path) -> bool:
    """Whether rows are to be seen as columns. Without decoding: Pillow decodes a whole PNG to see whether EXIF comes behind the pixels."""
    if opened.format == "TIFF":  # Pillow turns its size by itself
        return False
    if opened.format == "PNG" and not IN_PNG & opened.info.keys() and not _has_words_behind(path):
        return False
    return opened.getexif().get(ORIENTATION, 1) in TURNED


def _has_words_behind(png: Path) -> bool:
    """Whether a PNG has chunks behind its pixels that may hold EXIF."""
    behind = False
    with open(png, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            behind |= head[4:] == b"IDAT"
            if behind and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False
