"""Distances on the fine grid -> map at picture size -> regions and image score. The only place that upsamples and blurs maps.

Letters: `H x W` the fine grid, `h x w` the network's view, in pixels.
Source: Cohen and Hoshen 2020, section 3.3: bilinear upsampling, Gaussian filter of sigma 4 at 224 x 224.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from spadework.images import View, cells


@dataclass(frozen=True)
class Region:
    """A connected place of a map above a threshold.

    box: (y0, x0, y1, x1) in pixels of the picture, the ends exclusive.
    area: pixels. peak: (y, x) of its highest score. score: that score.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: tuple[int, int]
    score: float


def smooth_map(
    distances: np.ndarray,
    size: tuple[int, int],
    *,
    sigma: float,
    wide: float | None = None,
    part: tuple[slice, slice] | None = None,
) -> np.ndarray:
    """Bring distances (H, W) to `size` (h, w), bilinear, and blur them: float32 (h, w), or as large as `part`.

    Args:
        distances: (H, W), squared distances.
        size: of the network's view.
        sigma: of the Gaussian, in pixels of the view; 0 for none. Cut at 4 sigma, reflected at the border, as in SciPy's filter.
        wide: sigma of a second, wider one; the map is then the mean of both blurred maps. None for no other.
        part: rows and columns of the view that show the picture, where the rest is padding, which has no influence. None for all.
    """
    if part is not None:
        distances = _edges_repeated(distances, cells(part, size, distances.shape))
    grown = cv2.resize(distances.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    if part is not None:
        grown = np.ascontiguousarray(grown[part])
    blurred = _blurred(grown, sigma)
    if wide is not None:
        blurred = (blurred + _blurred(grown, wide)) / 2
    return np.asarray(np.maximum(blurred, 0.0), np.float32)


def _blurred(grown: np.ndarray, sigma: float) -> np.ndarray:
    if sigma == 0:
        return grown
    side = 2 * int(4.0 * sigma + 0.5) + 1
    return np.asarray(cv2.GaussianBlur(grown, (side, side), sigma, borderType=cv2.BORDER_REFLECT))


def _edges_repeated(distances: np.ndarray, shown: tuple[slice, slice]) -> np.ndarray:
    """Distances (H, W) with those outside a part replaced by the nearest within."""
    around = [(own.start, side - own.stop) for own, side in zip(shown, distances.shape, strict=True)]
    return np.pad(distances[shown], around, mode="edge")


def to_picture(seen: np.ndarray, view: View, shape: tuple[int, ...]) -> np.ndarray:
    """Bring a map of the view to the picture it came from: float32 (picture height, width), NaN where nothing was inspected."""
    return view.back(seen, shape)


def find_regions(score_map: np.ndarray, threshold: float | None, *, min_area: int = 1) -> tuple[Region, ...]:
    """Return the 8-connected regions above `threshold`, highest score first; none without a threshold."""
    if threshold is None:
        return ()
    above = score_map > threshold  # NaN is above nothing
    part = bounds(above)
    if part is None:
        return ()
    # Most of a map lies below: of a million pixels this saves 5 ms.
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above[part].astype(np.uint8), connectivity=8)
    seen, corner = score_map[part], (part[0].start, part[1].start)
    found = [_region(seen, labels, label, stats[label], corner) for label in range(1, count)]
    large = (region for region in found if region.area >= min_area)
    return tuple(sorted(large, key=lambda region: (-region.score, region.box, region.peak)))


def _region(seen: np.ndarray, labels: np.ndarray, label: int, stats: np.ndarray, corner: tuple[int, int]) -> Region:
    x, y, width, height, area = (int(value) for value in stats)
    own = labels[y : y + height, x : x + width] == label
    part = np.where(own, seen[y : y + height, x : x + width], -np.inf)
    top, left = (int(value) for value in np.unravel_index(int(np.argmax(part)), part.shape))
    y0, x0 = corner[0] + y, corner[1] + x
    score = float(seen[y + top, x + left])
    return Region((y0, x0, y0 + height, x0 + width), area, (y0 + top, x0 + left), score)


def bounds(mask: np.ndarray, *, margin: int = 0) -> tuple[slice, slice] | None:
    """Return the smallest rectangle that holds all of a bool mask, with a margin where there is room; None if it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    tall, wide = (slice(max(0, int(ends[0]) - margin), int(ends[-1]) + 1 + margin) for ends in (rows, columns))
    return tall, wide
