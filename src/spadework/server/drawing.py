"""Pictures that the service makes: the heat of a map with nothing below it, views of pictures, patches as data URIs."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from spadework.images import shrink

COLD, HOT = 40, 235  # of the 255 colours; both ends of the palette are too dark to tell heat from shadow
STRONGEST = 200  # of 255: opacity of the hottest place; the page's slider takes it down from there
VIEW_SIDE = 1280  # longer side of a view, in pixels


def heat_png(score_map: np.ndarray, *, low: float, high: float, longest: int | None = None) -> bytes:
    """Return the heat of a map alone, as an RGBA PNG: clear at `low` and where nothing was inspected, most opaque at `high`.

    Args:
        score_map: float32 (H, W), NaN where nothing was inspected.
        low: score drawn as nothing.
        high: score drawn hottest.
        longest: the PNG's longer side, at most; None for the map's own size.
    """
    small = score_map if longest is None else shrink(score_map, longest)
    unseen = ~np.isfinite(small)
    heat = np.clip((np.where(unseen, low, small) - low) / (high - low), 0.0, 1.0)
    index = np.rint(COLD + heat * (HOT - COLD)).astype(np.uint8)
    drawn = cv2.cvtColor(cv2.applyColorMap(index, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2BGRA)
    drawn[..., 3] = np.rint(heat * STRONGEST)
    return _encode(".png", drawn, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def jpeg(rgb: np.ndarray, *, longest: int = VIEW_SIDE) -> bytes:
    """Return a picture as a JPEG that every browser shows, its longer side at most `longest`."""
    return _encode(".jpg", cv2.cvtColor(shrink(rgb, longest), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])


def data_uri(rgb: np.ndarray) -> str:
    """Return a picture as a data URI of a PNG."""
    data = _encode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _encode(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    _, data = cv2.imencode(suffix, image, options)
    return data.tobytes()
