"""Pictures of an answer: heat maps over the part, outlines of masks, pictures inside an HTML file.

In and out: uint8 (h, w, 3) RGB; maps float32, NaN where nothing was inspected. Inputs are never changed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from spadework.scores import Region

STRONGEST = 0.75  # opacity of the hottest place: the part stays visible below it
REGION, MASK = (255, 255, 255), (0, 255, 255)


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
    image: np.ndarray, score_map: np.ndarray, *, low: float, high: float, regions: Sequence[Region] = ()
) -> np.ndarray:
    """Lay a heat map over a picture: clear at `low` and below, hot at `high`; grey where nothing was inspected.

    Args:
        image: uint8 (h, w, 3).
        score_map: float32, brought to the picture's size if it differs.
        low: score drawn as nothing.
        high: score drawn hottest.
        regions: outlined, in the picture's pixels.

    Returns:
        uint8 (h, w, 3).
    """
    if score_map.shape != image.shape[:2]:
        score_map = cv2.resize(score_map, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA)
    unseen = ~np.isfinite(score_map)
    heat = np.clip((np.where(unseen, low, score_map) - low) / (high - low), 0.0, 1.0)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = STRONGEST * np.minimum(1.0, 2.0 * heat)[..., None]  # full strength from the middle of the scale
    drawn = np.rint(image * (1 - opacity) + colours * opacity).astype(np.uint8)
    drawn[unseen] = (image[unseen] * 0.3 + 110).astype(np.uint8)
    return draw_boxes(drawn, [region.box for region in regions], REGION) if regions else drawn


def draw_boxes(
    image: np.ndarray, boxes: Iterable[tuple[int, int, int, int]], colour: tuple[int, int, int]
) -> np.ndarray:
    """Return the picture with (y0, x0, y1, x1) boxes drawn, each with a dark edge that shows on any ground."""
    drawn = np.ascontiguousarray(image).copy()
    width = max(1, round(max(image.shape[:2]) / 400))
    for y0, x0, y1, x1 in boxes:
        for thickness, paint in ((width + 2, (0, 0, 0)), (width, colour)):
            cv2.rectangle(drawn, (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1)), paint, thickness)
    return drawn


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the picture with the border of a bool (h, w) mask drawn."""
    drawn = np.ascontiguousarray(image).copy()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(image.shape[:2]) / 300))
    cv2.drawContours(drawn, contours, -1, (0, 0, 0), width + 2)
    cv2.drawContours(drawn, contours, -1, MASK, width)
    return drawn


def data_uri(image: np.ndarray, *, quality: int = 85) -> str:
    """Return a picture as a JPEG `data:` address, for a file that needs no other."""
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
