"""Patches of pictures: drawn at random to learn from, cut in a grid to inspect, put together to one map.

In: views, uint8 (h, w, 3). Out: patches, (n, side, side, 3); maps (h, w).
Source of the drawing: Bergmann, Fauser, Sattlegger and Steger 2019, MVTec AD, CVPR, section 4: textures, random rotated crops; objects, random
translation and rotation, mirroring where the object permits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from spadework.detectors.trained import Views

OBJECT_ROTATION, TEXTURE_ROTATION = 5.0, 180.0  # degrees


def draw_patch(
    view: np.ndarray, side: int, rng: np.random.Generator, *, rotation: float, shift: float, mirror: bool
) -> np.ndarray:
    """Return a random square of a view, turned, uint8 (side, side, 3).

    A square as large as the view is the view itself, turned and shifted, reflected where nothing is known. A smaller one lies within the view
    wherever that holds it.

    Args:
        view: uint8 (h, w, 3).
        side: of the square, in pixels.
        rng: what is drawn from: always four numbers.
        rotation: degrees, at most, either way.
        shift: of a square as large as the view, a share of its side, at most, either way.
        mirror: whether half of them are mirrored.
    """
    turn, down, along, flip = rng.random(4)
    angle = math.radians((2 * turn - 1) * rotation)
    cos, sin = math.cos(angle), math.sin(angle)
    reach = side / 2 * (abs(cos) + abs(sin))  # from the centre to where the turned square ends
    centre = [
        length / 2 + (2 * place - 1) * (shift * side if side >= length else max(0.0, length / 2 - reach))
        for length, place in ((view.shape[1], along), (view.shape[0], down))
    ]
    half = (side - 1) / 2
    matrix = np.array(
        [
            [cos, -sin, centre[0] - 0.5 - cos * half + sin * half],
            [sin, cos, centre[1] - 0.5 - sin * half - cos * half],
        ]
    )
    patch = cv2.warpAffine(
        view, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.ascontiguousarray(patch[:, ::-1]) if mirror and flip < 0.5 else np.asarray(patch)


def drawn_example(
    views: Views,
    number: int,
    side: int | None,
    *,
    seed: int,
    rotation: float | None,
    shift: float,
    mirror: bool,
) -> np.ndarray:
    """Return a patch by its number: always the same, as if all had been drawn once and kept. The normal pictures take turns.

    Args:
        views: the normal pictures.
        number: of the patch, from 0.
        side: of the patch; None for the whole view.
        seed: another one draws other patches.
        rotation: as in `draw_patch`; None for 5 degrees of a whole view, 180 of a smaller patch.
        shift: as in `draw_patch`.
        mirror: as in `draw_patch`.
    """
    if rotation is None:
        rotation = OBJECT_ROTATION if side is None else TEXTURE_ROTATION
    view = views[np.array([number % len(views)])][0]
    rng = np.random.default_rng([seed, 1, number])
    return draw_patch(view, side or view.shape[0], rng, rotation=rotation, shift=shift, mirror=mirror)


def starts(length: int, side: int, stride: int) -> list[int]:
    """Return where patches start along one axis; the last ends with the picture, so that no pixel is left out."""
    found = list(range(0, length - side + 1, stride))
    return found if found[-1] == length - side else [*found, length - side]


def average_map(
    view: np.ndarray, side: int, stride: int, judge: Callable[[np.ndarray], np.ndarray], *, batch: int = 32
) -> np.ndarray:
    """Judge all patches of a grid, and average the maps where they overlap: float64 (h, w).

    Args:
        view: uint8 (h, w, 3).
        side: of a patch.
        stride: from one patch to the next.
        judge: takes uint8 (n, side, side, 3), returns (n, side, side).
        batch: patches judged at a time.
    """
    height, width = view.shape[:2]
    places = [(y, x) for y in starts(height, side, stride) for x in starts(width, side, stride)]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        maps = judge(np.stack([view[y : y + side, x : x + side] for y, x in some]))
        for (y, x), found in zip(some, maps, strict=True):
            total[y : y + side, x : x + side] += found
            count[y : y + side, x : x + side] += 1
    return total / count
