"""Pictures of an answer: heat maps over the part, numbered places, outlines of masks, the scale of the heat, pictures inside HTML.

In and out: uint8 (h, w, 3) RGB; maps float32, NaN where nothing was inspected. Inputs are never changed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import cache

import cv2
import numpy as np

from spadework.report.sheet import Colour, stamp, tag
from spadework.scores import Region, bounds

Box = tuple[int, int, int, int]  # y0, x0, y1, x1, the ends exclusive

STRONGEST = 0.45  # opacity of the hottest place: the defect itself stays visible below it
COLD, HOT = 40, 235  # of the 255 colours; both ends of the palette are too dark to tell heat from shadow
REGION, MASK, MARK = (255, 255, 255), (0, 255, 255), (255, 205, 0)
BAND = 128  # rows that are blended at a time
GROUND = 128  # gray of the picture that the scale is shown on


def heat_range(maps: Iterable[np.ndarray], map_threshold: float | None) -> tuple[float, float]:
    """Return the scores drawn as coldest and hottest, one scale for all pictures of a model, so that they compare.

    With a threshold: a quarter of it to 1.75 times it. What lies above the threshold looks hot, a normal picture nearly clear.
    Without: the 50th to the 99.5th percentile of the maps.
    """
    if map_threshold is not None and map_threshold > 0:
        return 0.25 * map_threshold, 1.75 * map_threshold
    values = np.concatenate([each[np.isfinite(each)].ravel() for each in maps])
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (50, 99.5)))
    return low, max(high, low + 1e-12)


def overlay(
    image: np.ndarray, score_map: np.ndarray, *, low: float, high: float, threshold: float | None = None
) -> np.ndarray:
    """Lay a heat map over a picture: clear at `low` and below, more opaque up to `high`; grey where nothing was inspected.

    Args:
        image: uint8 (h, w, 3).
        score_map: float32, brought to the picture's size if it differs.
        low: score drawn as nothing.
        high: score drawn hottest.
        threshold: what lies above it is outlined; None for no outline.

    Returns:
        uint8 (h, w, 3).
    """
    if score_map.shape != image.shape[:2]:
        grows = score_map.shape[0] < image.shape[0] or score_map.shape[1] < image.shape[1]
        way = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
        score_map = np.asarray(cv2.resize(score_map, (image.shape[1], image.shape[0]), interpolation=way))
    unseen = ~np.isfinite(score_map)
    seen = np.where(unseen, low, score_map)
    drawn = _heated(image, np.clip((seen - low) / (high - low), 0.0, 1.0))
    if unseen.any():
        drawn[unseen] = (image[unseen] * 0.3 + 110).astype(np.uint8)
    if threshold is not None:
        _draw_border(drawn, ~unseen & (seen > threshold), REGION, max(2, _pen(image, 600)))
    return drawn


def _heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend colours over a picture; heat (h, w) in 0..1 is both the colour and, times STRONGEST, the opacity."""
    out = np.empty(image.shape, np.uint8)
    for top in range(0, len(image), BAND):  # a few rows at a time: what is in between stays in the cache
        _blend(image[top : top + BAND], heat[top : top + BAND], out[top : top + BAND])
    return out


def _blend(image: np.ndarray, heat: np.ndarray, out: np.ndarray) -> None:
    """As `_heated`, into `out`. Channel by channel: NumPy takes three times as long with the three side by side."""
    index = np.rint(COLD + heat * (HOT - COLD)).astype(np.uint8)
    opacity = STRONGEST * heat
    clear = 1 - opacity
    planes = []
    for plane, colours in zip(cv2.split(image), _palette(), strict=True):
        mixed = plane * clear
        mixed += cv2.LUT(index, colours) * opacity
        planes.append(np.rint(mixed, out=mixed).astype(np.uint8))
    out[:] = cv2.merge(planes)


@cache
def _palette() -> tuple[np.ndarray, ...]:
    """The 256 colours of heat: red, green, blue, uint8 (256,) each."""
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
    return tuple(np.ascontiguousarray(plane) for plane in colours.T)


def heat_scale(height: int, width: int, *, mark: float | None = None) -> np.ndarray:
    """Return a bar of the heat's colours, coldest left, as they look on a gray picture; `mark` in 0..1 is a place to show."""
    heat = np.tile(np.linspace(0.0, 1.0, width), (height, 1))
    bar = _heated(np.full((height, width, 3), GROUND, np.uint8), heat)
    if mark is not None and 0 <= mark <= 1:
        x = round(mark * (width - 1))
        bar[:, max(0, x - 1) : x + 2] = 0
        bar[:, x] = REGION
    return bar


def draw_boxes(image: np.ndarray, boxes: Iterable[Box], *, first: int = 1) -> np.ndarray:
    """Return the picture with boxes drawn and numbered from `first`, each line with a dark edge that shows on any ground."""
    boxes = list(boxes)
    drawn = np.ascontiguousarray(image).copy()
    width = max(2, _pen(image, 200))
    for y0, x0, y1, x1 in boxes:
        for thickness, paint in ((width + 2, (0, 0, 0)), (width, MARK)):
            cv2.rectangle(drawn, (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1)), paint, thickness)
    return number_places(drawn, boxes, first=first)


def number_places(image: np.ndarray, boxes: Sequence[Box], *, first: int = 1, tail: bool = False) -> np.ndarray:
    """Return the picture with a numbered tag at each box: above its top left corner, where there is no room below or inside.

    Args:
        image: uint8 (h, w, 3).
        boxes: in the picture's pixels.
        first: number of the first box.
        tail: set the tags off by a line, so that they do not cover what is just beside a small place.
    """
    drawn = np.ascontiguousarray(image).copy()
    size = min(36, max(13, _pen(image, 28)))
    blocks = [tag(str(number), MARK, size=size) for number, _ in enumerate(boxes, first)]
    corners: list[tuple[int, int]] = []
    for box, block in zip(boxes, blocks, strict=True):
        top, line = _tag_place(box, block.shape[0], image.shape[0], tail=tail)
        x = max(0, min(box[1], image.shape[1] - block.shape[1]))
        while x + 2 * block.shape[1] <= image.shape[1] and any(_hides(block, top, x, corner) for corner in corners):
            x += block.shape[1] + 1  # beside the tag of another place
        corners.append((top, x))
        end = max(x, min(box[1], x + block.shape[1] - 1))  # upright wherever the tag allows it
        for wider, paint in ((2, (0, 0, 0)), (0, MARK)) if line else ():
            cv2.line(drawn, (box[1], line[0]), (end, line[1]), paint, max(2, _pen(image, 400)) + wider)
    for block, (top, x) in zip(blocks, corners, strict=True):
        stamp(drawn, block, top, x)
    return drawn


def _tag_place(box: Box, height: int, bottom: int, *, tail: bool) -> tuple[int, tuple[int, ...]]:
    """Where a tag of this height begins, and the rows its line runs between, from the place to the tag; () for no line."""
    y0, _, y1, _ = box
    if tail and y0 >= 2 * height:
        return y0 - 2 * height, (y0, y0 - height)
    if tail and y1 - y0 < 2 * height and y1 + 2 * height <= bottom:  # inside, it would hide a small place
        return y1 + height, (y1, y1 + height)
    return (y0 - height if y0 >= height else y0), ()


def _hides(block: np.ndarray, top: int, left: int, other: tuple[int, int]) -> bool:
    """Whether a tag here would lie over a tag of about its size with this top left corner."""
    height, width = block.shape[:2]
    return bool(abs(top - other[0]) < height and abs(left - other[1]) < width)


def region_top(region: Region, score_map: np.ndarray, threshold: float) -> Box:
    """Return a region's box, begun where its uppermost row begins: a number there stands on the outline, also if that is slanted."""
    y0, x0, y1, x1 = region.box
    return y0, x0 + int(np.argmax(score_map[y0, x0:x1] > threshold)), y1, x1


def scaled(boxes: Iterable[Box], old: Sequence[int], new: Sequence[int]) -> list[Box]:
    """Return boxes of a picture of shape `old` in the pixels of the same picture at shape `new`."""
    sy, sx = new[0] / old[0], new[1] / old[1]
    return [(round(y0 * sy), round(x0 * sx), round(y1 * sy), round(x1 * sx)) for y0, x0, y1, x1 in boxes]


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the picture with the border of a bool mask drawn; the mask is brought to the picture's size if it differs."""
    if mask.shape != image.shape[:2]:
        mask = cv2.resize(mask.astype(np.uint8), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR) > 0
    drawn = np.ascontiguousarray(image).copy()
    _draw_border(drawn, mask, MASK, max(2, _pen(image, 240)))
    return drawn


def _pen(image: np.ndarray, share: int) -> int:
    """A width of 1/`share` of the longer side, or of four times the shorter: neither too thin to see nor hiding a narrow picture."""
    short, long = min(image.shape[:2]), max(image.shape[:2])
    return max(1, round(float(min(long, 4 * short)) / share))


def _draw_border(drawn: np.ndarray, mask: np.ndarray, colour: Colour, width: int) -> None:
    """Draw the border of a bool mask onto a picture, in place: one pixel inside, the rest outside, so that it fills no small place.

    A dark edge runs around it, `width` is at least 2: JPEG keeps no colour of a line of one pixel.
    """
    part = bounds(mask, margin=width)  # nothing is drawn beyond
    if part is None:
        return
    drawn, solid = drawn[part], mask[part].astype(np.uint8)
    square = np.ones((3, 3), np.uint8)
    inner = cv2.erode(solid, square, borderValue=0)
    wide = cv2.dilate(solid, square, iterations=width - 1)
    drawn[cv2.dilate(wide, square) > inner] = 0
    drawn[wide > inner] = colour


def data_uri(image: np.ndarray, *, quality: int = 85) -> str:
    """Return a picture as a JPEG `data:` address, for a file that needs no other."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
