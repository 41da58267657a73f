"""Pictures of an answer: heat maps over the part, numbered places, outlines of masks, the scale of the heat, pictures inside HTML.

In and out: uint8 (h, w, 3) RGB; maps float32, NaN where nothing was inspected. Inputs are never changed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from spadework.report.sheet import Colour, stamp, tag

Box = tuple[int, int, int, int]  # y0, x0, y1, x1, the ends exclusive

STRONGEST = 0.45  # opacity of the hottest place: the defect itself stays visible below it
COLD, HOT = 40, 235  # of the 255 colours; both ends of the palette are too dark to tell heat from shadow
REGION, MASK, MARK = (255, 255, 255), (0, 255, 255), (255, 205, 0)
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
    drawn[unseen] = (image[unseen] * 0.3 + 110).astype(np.uint8)
    if threshold is not None:
        _draw_border(drawn, ~unseen & (seen > threshold), REGION, _pen(image, 600))
    return drawn


def _heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend colours over a picture; heat (h, w) in 0..1 is both the colour and, times STRONGEST, the opacity."""
    colours = cv2.applyColorMap(np.rint(COLD + heat * (HOT - COLD)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = STRONGEST * heat[..., None]
    return np.asarray(np.rint(image * (1 - opacity) + colours * opacity).astype(np.uint8))


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
    """Return the picture with a numbered tag at each box: above its top left corner, inside where there is no room above.

    Args:
        image: uint8 (h, w, 3).
        boxes: in the picture's pixels.
        first: number of the first box.
        tail: set the tags off by a line, so that they do not cover what is just beside a small place.
    """
    drawn = np.ascontiguousarray(image).copy()
    size = min(36, max(13, _pen(image, 28)))
    for number, (y0, x0, _, _) in reversed(list(enumerate(boxes, first))):  # the first lies uppermost
        block = tag(str(number), MARK, size=size)
        height = block.shape[0]
        off = height if tail and y0 >= 2 * height else 0
        if off:
            cv2.line(drawn, (x0, y0), (x0, y0 - off), MARK, _pen(image, 400))
        stamp(drawn, block, y0 - off - height if y0 >= height else y0, x0)
    return drawn


def scaled(boxes: Iterable[Box], old: Sequence[int], new: Sequence[int]) -> list[Box]:
    """Return boxes of a picture of shape `old` in the pixels of the same picture at shape `new`."""
    sy, sx = new[0] / old[0], new[1] / old[1]
    return [(round(y0 * sy), round(x0 * sx), round(y1 * sy), round(x1 * sx)) for y0, x0, y1, x1 in boxes]


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the picture with the border of a bool (h, w) mask drawn."""
    drawn = np.ascontiguousarray(image).copy()
    _draw_border(drawn, mask, MASK, max(2, _pen(image, 240)))
    return drawn


def _pen(image: np.ndarray, share: int) -> int:
    """A width of 1/`share` of the longer side, or of four times the shorter: neither too thin to see nor hiding a narrow picture."""
    short, long = min(image.shape[:2]), max(image.shape[:2])
    return max(1, round(float(min(long, 4 * short)) / share))


def _draw_border(drawn: np.ndarray, mask: np.ndarray, colour: Colour, width: int) -> None:
    """Draw the border of a bool mask onto a picture, in place, with a dark edge."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, (0, 0, 0), width + 2)
    cv2.drawContours(drawn, contours, -1, colour, width)


def data_uri(image: np.ndarray, *, quality: int = 85) -> str:
    """Return a picture as a JPEG `data:` address, for a file that needs no other."""
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
