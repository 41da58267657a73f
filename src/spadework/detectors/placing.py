"""Where a part is looked for: around the same place of every normal picture, where they are aligned.

"The same place" is the same share of the view's height and width, so pictures of different sizes may meet in one model.
"""

from __future__ import annotations

from collections.abc import Sequence

from spadework.images import View
from spadework.kernels.window import Window


def window_of(radius: float | None, view: View, size: Sequence[int]) -> Window | None:
    """Return the window of a search radius: those places whose distance, brought to a picture, is at most so many of its pixels.

    Args:
        radius: in pixels of the picture; None for no window.
        view: what the network sees of it.
        size: (height, width) of the picture.
    """
    if radius is None:
        return None
    y0, x0, y1, x1 = view.box(tuple(size))
    return Window(radius / (y1 - y0), radius / (x1 - x0))
