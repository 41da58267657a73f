"""The canvas: one size and shape of view for all pictures of a model, chosen from the sizes of the normal ones.

In: normal pictures, of which only headers are read, and what `image_size` asks for. Out: (height, width) in pixels of the view.
Each picture is then made as large as fits, its aspect kept but for rounding to the network's coarsest stride, and what the network gives is padded
(`spadework.images.View`). The canvas has the aspect of the
median picture, so little is padding, and an area that `image_size` names by the side of a square.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spadework import check
from spadework.images import Picture, View, picture_size

AUTO = "auto"
SHARE = 0.75  # of the median picture's side, "auto": three quarters have about half the places of all of it
LEAST, MOST = 256, 1024  # sides that "auto" chooses between


def is_auto(image_size: object) -> bool:
    """Whether the setting leaves the size to the pictures."""
    return isinstance(image_size, str) and image_size == AUTO


def choose_canvas(pictures: Sequence[Picture], image_size: object, *, multiple: int) -> tuple[int, int]:
    """Return (height, width), multiples of `multiple`.

    Args:
        pictures: normal ones; those whose size cannot be read are passed over.
        image_size: the side of a square of the canvas's area; (height, width) for the canvas itself, which is then returned as it is;
            or "auto": SHARE of the median picture's side, between LEAST and MOST.
        multiple: of the network's coarsest stride.

    Raises:
        InputError: an `image_size` that is none of these.
    """
    if isinstance(image_size, (tuple, list, np.ndarray)):
        return check.size(image_size, "image_size")
    sizes = [size for size in map(picture_size, pictures) if size is not None] or [(LEAST, LEAST)]
    tall, wide = (float(np.median([size[axis] for size in sizes])) for axis in (0, 1))
    natural = min(max(SHARE * float(np.sqrt(tall * wide)), LEAST), MOST)
    side = natural if is_auto(image_size) else check.positive_int(image_size, "image_size")
    stretch = float(np.sqrt(tall / wide))
    return _multiple(side * stretch, multiple), _multiple(side / stretch, multiple)


def canvas_entries(view: View | None) -> dict[str, Any]:
    """Return what a model's header says of its canvas; nothing for none."""
    return {} if view is None else {"canvas": list(view.size), "canvas_step": view.step}


def canvas_of(header: Mapping[str, Any]) -> View | None:
    """Return the canvas that a model's header tells of; none in a model from before there was one."""
    if "canvas" not in header:
        return None
    height, width = header["canvas"]
    return View((int(height), int(width)), pad=True, step=int(header.get("canvas_step", 1)))


def _multiple(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple
