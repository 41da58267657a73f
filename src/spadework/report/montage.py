"""Pictures with words, one file each: the heat map over the part, and the explanation of a verdict.

In: a picture, its prediction, and for the explanation the normal places that its suspicious places were matched with.
Out: uint8 (h, w, 3) RGB. A place has the same number in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spadework.detectors.explaining import Explanation
from spadework.prediction import Prediction
from spadework.report.pictures import (
    draw_boxes,
    heat_range,
    heat_scale,
    number_places,
    overlay,
    region_top,
    scaled,
)
from spadework.report.sheet import (
    GAP,
    QUIET,
    TEXT_SIZE,
    Colour,
    alike,
    below,
    beside,
    bounded,
    fit,
    flow,
    framed,
    shorten,
    table,
    tag,
    text,
)

VERDICTS: dict[str, Colour] = {"anomalous": (190, 32, 32), "normal": (34, 120, 60), "no threshold": (97, 103, 112)}
LEAST = 480  # longer side of what is drawn on: smaller pictures are enlarged, so that numbers do not hide them
MOST = 640  # the same, of the picture in an explanation
PATCH = 168  # height of the places in an explanation
WIDEST = 336  # and their greatest width
SMALL = 13  # captions
NUMBERED = 9  # regions with a number; an overlay with more is unreadable


@dataclass(frozen=True)
class Place:
    """A suspicious place and where its match was found.

    match: of `Spade.explain_regions`. normal: the matched normal picture as kept, uint8 (h, w, 3). size: (H, W) of its original.
    """

    match: Explanation
    normal: np.ndarray
    size: tuple[int, int]


def overlay_sheet(picture: np.ndarray, found: Prediction, *, longest: int) -> np.ndarray:
    """Draw a picture under its heat map, regions outlined and numbered; below it verdict, score, threshold and the scale.

    Args:
        picture: uint8 (H, W, 3) RGB.
        found: its prediction, with a map.
        longest: longer side of the drawn picture at most; small pictures are enlarged.

    Returns:
        uint8 (h, w, 3) RGB, wide enough for the words.
    """
    assert found.score_map is not None  # a caller's promise
    low, high = heat_range([found.score_map], found.map_threshold)
    ground = bounded(picture, least=min(LEAST, longest), most=longest)
    drawn = overlay(ground, found.score_map, low=low, high=high, threshold=found.map_threshold)
    tops = [region_top(region, found.score_map, found.map_threshold or 0.0) for region in found.regions[:NUMBERED]]
    drawn = number_places(drawn, scaled(tops, picture.shape, drawn.shape), tail=True)
    size = min(24, max(TEXT_SIZE, drawn.shape[1] // 60))
    parts = [*_verdict(found, size), _scale(low, high, found.map_threshold, size)]
    if found.regions:
        parts.append(text(f"outlined: above {found.map_threshold:.4g}", size=size, colour=QUIET))
    if not np.isfinite(found.score_map).all():
        parts.append(text("gray: not inspected", size=size, colour=QUIET))
    strip = flow(parts, max(drawn.shape[1], 320) - 2 * GAP, gap=size)
    return below([drawn, framed(strip, top=GAP // 2, side=GAP)], gap=0)


def _verdict(found: Prediction, size: int) -> list[np.ndarray]:
    """The verdict on its colour, and what it rests on."""
    words = f"score {found.score:.4g}" + ("" if found.threshold is None else f", threshold {found.threshold:.4g}")
    return [tag(found.verdict, VERDICTS[found.verdict], size=size), text(words, size=size)]


@lru_cache(maxsize=16)  # the same below every picture of a batch
def _scale(low: float, high: float, threshold: float | None, size: int) -> np.ndarray:
    """The colours between the scores they stand for; read-only."""
    mark = None if threshold is None else (threshold - low) / (high - low)
    bar = heat_scale(size, 8 * size, mark=mark)
    ends = [text(f"{value:.4g}", size=size) for value in (low, high)]
    scale = beside([ends[0], bar, ends[1]], gap=GAP // 2, middle=True)
    scale.setflags(write=False)
    return scale


def montage(picture: np.ndarray, found: Prediction, places: Sequence[Place]) -> np.ndarray:
    """Draw a picture with numbered places, and a row for each: the place, its normal match, and the picture that was cut from.

    Args:
        picture: uint8 (H, W, 3) RGB.
        found: its prediction.
        places: in the picture's pixels, in the order of the regions.

    Returns:
        uint8 (h, w, 3) RGB. The rows stand beside the picture or below it, whichever takes less room.
    """
    ground = bounded(picture, least=min(LEAST, 2 * PATCH), most=MOST)
    marked = draw_boxes(ground, scaled([place.match.box for place in places], picture.shape, ground.shape))
    left = below([marked, text(_about(found, len(places)), size=SMALL, colour=QUIET)], gap=4)
    rows = table([_row(number, picture, place) for number, place in enumerate(places, 1)])
    gap = 2 * GAP
    body = min(
        (beside([left, rows], gap=gap), below([left, rows], gap=gap)), key=lambda each: each.shape[0] * each.shape[1]
    )
    name = shorten(_file_name(found.path or "(array)", folders=1), body.shape[1])
    head = flow([text(name, colour=QUIET), *_verdict(found, TEXT_SIZE)], body.shape[1])
    return framed(below([head, body]), top=GAP, side=GAP)


def _about(found: Prediction, shown: int) -> str:
    regions = len(found.regions)
    if regions:
        some = f"; the {shown} highest are shown" if regions > shown else ""
        return f"{regions} region{'s' if regions > 1 else ''} above the threshold{some}"
    return "no region above the threshold; 1 is the highest place"


def _row(number: int, picture: np.ndarray, place: Place) -> list[np.ndarray]:
    """Three pictures with their captions: the place and its match at one height, and the normal picture with the match in a box."""
    match = place.match
    y0, x0, y1, x1 = match.box
    whole = fit(place.normal, PATCH, WIDEST)
    marked = draw_boxes(whole, scaled([match.normal_box], place.size, whole.shape), first=number)
    part, normal = alike((picture[y0:y1, x0:x1], match.normal_patch), PATCH, WIDEST)
    return [
        _captioned(part, f"{number}: this part", f"distance {match.distance:.4g}", "before smoothing"),
        _captioned(normal, "most similar normal place"),
        _captioned(marked, "in the normal picture", shorten(_file_name(match.name), 200, size=SMALL)),
    ]


def _captioned(picture: np.ndarray, caption: str, *facts: str) -> np.ndarray:
    words = [text(caption, size=SMALL), *(text(fact, size=SMALL, colour=QUIET) for fact in facts)]
    return below([picture, *words], gap=3)


def _file_name(path: str, *, folders: int = 0) -> str:
    """The name of a file, after so many of the folders it is in."""
    return "/".join(path.replace("\\", "/").split("/")[-1 - folders :])
