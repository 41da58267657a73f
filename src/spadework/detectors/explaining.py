"""Where a place of a picture found its match: boxes in the pixels of the picture and of the normal picture, and that one's patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spadework.errors import InputError
from spadework.images import View


@dataclass(frozen=True)
class Explanation:
    """Where a place of a picture found its match.

    y, x: the place asked for, in the picture's pixels. box: (y0, x0, y1, x1) around it in the picture.
    image: index of the matched normal image. name: its name. normal_box: the matched place in the normal original's pixels.
    normal_patch: uint8 (h, w, 3), that place cut from the kept thumbnail. distance: squared, of the two descriptors.
    """

    y: int
    x: int
    box: tuple[int, int, int, int]
    image: int
    name: str
    normal_box: tuple[int, int, int, int]
    normal_patch: np.ndarray
    distance: float

    def to_json(self) -> dict[str, Any]:
        """Return everything but the patch as plain JSON values."""
        return {
            "place": [self.y, self.x],
            "box": list(self.box),
            "normal_image": self.name,
            "normal_box": list(self.normal_box),
            "distance": self.distance,
        }


def grid_place(
    y: int, x: int, size: tuple[int, int], box: tuple[float, float, float, float], grid: tuple[int, ...]
) -> tuple[int, int]:
    """The cell of the fine grid that holds a pixel of the picture."""
    if not (0 <= y < size[0] and 0 <= x < size[1]):
        raise InputError(f"({y}, {x}) lies outside the picture of {size[0]} x {size[1]} pixels (height x width).")
    gy = int((y + 0.5 - box[0]) / (box[2] - box[0]) * grid[0] // 1)
    gx = int((x + 0.5 - box[1]) / (box[3] - box[1]) * grid[1] // 1)
    if not (0 <= gy < grid[0] and 0 <= gx < grid[1]):
        inspected = tuple(round(v) for v in box)
        raise InputError(
            f"({y}, {x}) lies outside the inspected part {inspected} (y0, x0, y1, x1): it was cropped away."
        )
    return gy, gx


def patch_box(
    gy: int, gx: int, grid: tuple[int, int], view: View, size: tuple[int, int], patch: int
) -> tuple[int, int, int, int]:
    """A box of `patch` view pixels around a cell's centre, in the picture's pixels, shifted to lie within it."""
    y0, x0, y1, x1 = view.box(size)
    sy, sx = (y1 - y0) / view.size[0], (x1 - x0) / view.size[1]  # picture pixels a view pixel
    tall, wide = min(size[0], max(1, round(patch * sy))), min(size[1], max(1, round(patch * sx)))
    top = round(y0 + (gy + 0.5) / grid[0] * (y1 - y0) - tall / 2)
    left = round(x0 + (gx + 0.5) / grid[1] * (x1 - x0) - wide / 2)
    top, left = min(max(top, 0), size[0] - tall), min(max(left, 0), size[1] - wide)
    return top, left, top + tall, left + wide


def cut(thumbnail: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The part of a thumbnail that a box of its original covers."""
    sy, sx = thumbnail.shape[0] / size[0], thumbnail.shape[1] / size[1]
    y0, x0 = int(box[0] * sy), int(box[1] * sx)
    return thumbnail[y0 : max(y0 + 1, round(box[2] * sy)), x0 : max(x0 + 1, round(box[3] * sx))].copy()
