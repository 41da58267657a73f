"""A large view through a network in pieces, so that memory does not grow with the picture; and how far a network looks, which says how pieces overlap.

In: a backbone and one view `(H, W, 3)` uint8. Out: its level maps `(C_l, H_l, W_l)` float32, finest first.
A feature depends on the pixels within the network's reach of its cell. Each piece is run with that much around it, and of what comes out
only what no cut can have changed is kept; at the view's own border pieces end where the view ends, so that the network sees the same border.
Pieces then differ from the whole pass by rounding alone: the runtime orders its sums by the shape that it is given (relative to the largest
feature of a level 1e-6, tested to 1e-5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from spadework.backbones.onnx import Backbone

SIDE = 1024  # of the part of a view that a piece is kept of
WHOLE = 1280 * 1280  # pixels of a view up to which it runs as a whole
PROBE, SHARED = 768, 640  # pixels a side: pictures to measure the reach with, and their middle that is the same in all
TRIES = 2


def measure_reach(backbone: Backbone) -> int | None:
    """Return how many pixels beyond its own cell a feature may depend on, rounded up to `multiple`; None where that is 320 or more, or has no bound.

    Pictures of noise that share their middle are run. How deep within it features still differ is the reach: along the whole border and in all
    channels, so that hardly a path through the network stays unused.
    """
    multiple = backbone.multiple
    size, shared = (round(side / multiple) * multiple for side in (PROBE, SHARED))
    if backbone.fixed_size is not None or not 0 < shared < size:
        return None
    start = (size - shared) // 2 // multiple * multiple
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (size, size, 3), np.uint8)
    wanted, reach = backbone.levels_of(first), 0
    for _ in range(TRIES):
        other = rng.integers(0, 256, (size, size, 3), np.uint8)
        other[start : start + shared, start : start + shared] = first[start : start + shared, start : start + shared]
        for ours, theirs, stride in zip(wanted, backbone.levels_of(other), backbone.strides, strict=True):
            differs = (ours != theirs).any(axis=0)
            within = (
                np.arange(len(differs)) * stride - start
            )  # pixels from the edge of what is shared to a cell, from above or the left
            depth = np.minimum(
                within, within[::-1] - (size - 2 * start - shared)
            )  # or from the other side, if that is nearer
            reach = max(reach, int(np.minimum(depth[:, None], depth[None])[differs].max(initial=0)) + 1)
    return None if reach > shared // 2 - multiple else -(-reach // multiple) * multiple


def levels_in_pieces(
    backbone: Backbone, view: NDArray[np.uint8], reach: int, *, side: int = SIDE
) -> list[NDArray[np.float32]]:
    """Return the level maps of a view, run piece by piece.

    Args:
        backbone: the network.
        view: (H, W, 3) uint8, its sides multiples of `multiple`.
        reach: as `measure_reach` found it.
        side: of what is kept of each piece, rounded to `multiple`.
    """
    multiple = backbone.multiple
    step = max(1, round(side / multiple)) * multiple
    height, width = view.shape[:2]
    levels = [
        np.empty((channels, height // stride, width // stride), np.float32)
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    for top in range(0, height, step):
        for left in range(0, width, step):
            bottom, right = min(top + step, height), min(left + step, width)
            y0, x0 = max(0, top - reach), max(0, left - reach)
            y1, x1 = min(height, bottom + reach), min(width, right + reach)
            found = backbone.levels_of(np.ascontiguousarray(view[y0:y1, x0:x1]))
            for level, piece, stride in zip(levels, found, backbone.strides, strict=True):
                rows, columns = (
                    slice((top - y0) // stride, (bottom - y0) // stride),
                    slice((left - x0) // stride, (right - x0) // stride),
                )
                level[:, top // stride : bottom // stride, left // stride : right // stride] = piece[:, rows, columns]
    return levels
