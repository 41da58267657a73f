"""Pictures put together: lines of text, tags, and blocks beside and below each other, so that nothing is placed by counting pixels.

In and out: blocks, uint8 (h, w, 3) RGB. Inputs are never changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
PAPER, INK, QUIET = (255, 255, 255), (27, 29, 33), (92, 99, 110)
TEXT_SIZE = 15
GAP = 12
SMOOTH = 8  # a picture enlarged so many times or more shows its pixels as squares: there is no detail to smooth


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _printable(words: str) -> str:
    return words.encode("ascii", "replace").decode()  # the font inside Pillow knows no other letters


def width_of(words: str, *, size: int = TEXT_SIZE) -> int:
    """Return how many pixels wide a line of text is."""
    return max(1, math.ceil(_font(size).getlength(_printable(words))))


def shorten(words: str, width: int, *, size: int = TEXT_SIZE) -> str:
    """Return the words, or so much of their end as fits into `width` pixels: names of files differ there."""
    if width_of(words, size=size) <= width:
        return words
    kept = len(words)
    while kept > 1 and width_of(f"...{words[-kept:]}", size=size) > width:
        kept -= 1
    return f"...{words[-kept:]}"


@lru_cache(maxsize=256)  # most words come again on the next picture
def text(words: str, *, size: int = TEXT_SIZE, colour: Colour = INK, ground: Colour = PAPER) -> np.ndarray:
    """Return a line of text as a block, read-only."""
    line = Image.new("RGB", (width_of(words, size=size), round(size * 1.35)), ground)
    ImageDraw.Draw(line).text((0, round(size * 0.1)), _printable(words), fill=colour, font=_font(size))
    block = np.asarray(line)
    block.setflags(write=False)
    return block


def tag(words: str, ground: Colour, *, size: int = TEXT_SIZE) -> np.ndarray:
    """Return words on a solid ground, black or white, whichever shows better on it."""
    luminance = float(np.dot(ground, (0.299, 0.587, 0.114)))
    line = text(words, size=size, colour=(0, 0, 0) if luminance > 140 else (255, 255, 255), ground=ground)
    return framed(line, top=round(size * 0.1), side=round(size * 0.35), ground=ground)


def framed(block: np.ndarray, *, top: int, side: int, ground: Colour = PAPER) -> np.ndarray:
    """Return a block with margins: `top` above and below, `side` left and right."""
    out = _blank(block.shape[0] + 2 * top, block.shape[1] + 2 * side, ground)
    out[top : top + block.shape[0], side : side + block.shape[1]] = block
    return out


def beside(blocks: Sequence[np.ndarray], *, gap: int = GAP, middle: bool = False) -> np.ndarray:
    """Return blocks from left to right, their tops in line, or with `middle` their middles."""
    height = max(block.shape[0] for block in blocks)
    out = _blank(height, sum(block.shape[1] + gap for block in blocks) - gap)
    x = 0
    for block in blocks:
        y = (height - block.shape[0]) // 2 if middle else 0
        out[y : y + block.shape[0], x : x + block.shape[1]] = block
        x += block.shape[1] + gap
    return out


def below(blocks: Sequence[np.ndarray], *, gap: int = GAP) -> np.ndarray:
    """Return blocks from top to bottom, their left edges in line."""
    out = _blank(sum(block.shape[0] + gap for block in blocks) - gap, max(block.shape[1] for block in blocks))
    y = 0
    for block in blocks:
        out[y : y + block.shape[0], : block.shape[1]] = block
        y += block.shape[0] + gap
    return out


def flow(blocks: Sequence[np.ndarray], width: int, *, gap: int = GAP) -> np.ndarray:
    """Return blocks in lines of at most `width` pixels, as words in a paragraph."""
    lines: list[list[np.ndarray]] = []
    for block in blocks:
        if lines and sum(each.shape[1] + gap for each in lines[-1]) + block.shape[1] <= width:
            lines[-1].append(block)
        else:
            lines.append([block])
    return below([beside(line, gap=gap, middle=True) for line in lines], gap=gap // 2)


def table(rows: Sequence[Sequence[np.ndarray]], *, gap: int = GAP) -> np.ndarray:
    """Return rows of blocks, each column as wide as its widest block."""
    widths = [max(block.shape[1] for block in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [below([block, _blank(0, width)], gap=0) for block, width in zip(row, widths, strict=True)]
        lines.append(beside(padded, gap=gap))
    return below(lines, gap=gap)


def fit(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a picture as large as fits into `height` and `width`, aspect kept."""
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR if scale < SMOOTH else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, size, interpolation=way))


def alike(pictures: Sequence[np.ndarray], height: int, width: int) -> list[np.ndarray]:
    """Return pictures at one height, the largest at which each fits into `height` and `width`."""
    common = min(height, *(width * picture.shape[0] / picture.shape[1] for picture in pictures))
    return [fit(picture, max(1, round(common)), width) for picture in pictures]


def bounded(picture: np.ndarray, *, least: int, most: int) -> np.ndarray:
    """Return a picture whose longer side has `least` to `most` pixels, enlarged or shrunk only as far as that takes."""
    longest = max(picture.shape[:2])
    side = min(most, max(least, longest))
    return picture if side == longest else fit(picture, side, side)


def stamp(picture: np.ndarray, block: np.ndarray, y: int, x: int) -> None:
    """Lay a block onto a picture, in place: its top left at (y, x), or the nearest place where all of it is inside."""
    y = max(0, min(y, picture.shape[0] - block.shape[0]))
    x = max(0, min(x, picture.shape[1] - block.shape[1]))
    seen = picture[y : y + block.shape[0], x : x + block.shape[1]]
    seen[:] = block[: seen.shape[0], : seen.shape[1]]


def _blank(height: int, width: int, ground: Colour = PAPER) -> np.ndarray:
    gray = len(set(ground)) == 1  # then all bytes are alike, and filling is ten times as fast
    return np.full((height, width, 3), ground[0] if gray else ground, np.uint8)
