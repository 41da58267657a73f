"""Outlines of planted defects: uneven blobs and strokes, as coverage from 0 to 1; and where two pictures differ visibly.

In: a place and a diameter in pixels, the picture's shape, a seeded generator. Out: the rows and columns that are touched, and alpha, float32 (h, w).
"""

from __future__ import annotations

import cv2
import numpy as np

Box = tuple[slice, slice]

VISIBLE = 4  # grey levels; about twice a camera's noise
STROKE = 3.0  # a stroke is so much longer than a blob of the same size
SPECK = 3  # pixels; what is smaller than this is no region of its own


def blob(y: int, x: int, shape: tuple[int, ...], diameter: float, rng: np.random.Generator) -> tuple[Box, np.ndarray]:
    """An uneven ellipse around a place, its edge sharp or soft."""
    stretch = float(np.exp(rng.uniform(0, np.log(3.0)) / 2))
    turn = rng.uniform(0, np.pi)
    box, (dy, dx) = _around(y, x, shape, diameter * 0.75 * stretch + 2)
    along = (dx * np.cos(turn) + dy * np.sin(turn)) / stretch
    across = (dy * np.cos(turn) - dx * np.sin(turn)) * stretch
    angle = np.arctan2(across, along)
    waves = [rng.uniform(0, 0.3) / order * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in (2, 3, 4, 6)]
    radius = diameter / 2 * (1 + sum(waves))
    soft = max(1.0, float(rng.choice([0.05, 0.2, 0.5])) * diameter / 2)
    alpha = np.clip((radius - np.hypot(along, across)) / soft + 0.5, 0, 1)
    return box, alpha.astype(np.float32)


def stroke(y: int, x: int, shape: tuple[int, ...], diameter: float, rng: np.random.Generator) -> tuple[Box, np.ndarray]:
    """A bent line through a place, STROKE diameters long, thin."""
    length, steps = STROKE * diameter, 12
    box, (dy, dx) = _around(y, x, shape, 0.6 * length + 3)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0.02, 0.3), steps))
    points = np.cumsum(np.column_stack([np.cos(heading), np.sin(heading)]) * (length / steps), axis=0)
    points += np.array([-dx[0, 0], -dy[0, 0]]) - points.mean(axis=0)
    width = max(1.0, diameter * rng.uniform(0.03, 0.12))
    fine = 4  # drawn so much larger, then averaged: lines thinner than a pixel are faint
    canvas = np.zeros((dy.shape[0] * fine, dx.shape[1] * fine), np.uint8)
    drawn = np.rint((points + 0.5) * fine).astype(np.int32)
    cv2.polylines(canvas, [drawn.reshape(-1, 1, 2)], False, 255, max(1, round(width * fine)))
    alpha = cv2.resize(canvas, (dx.shape[1], dy.shape[0]), interpolation=cv2.INTER_AREA)
    return box, np.asarray(alpha / 255.0, np.float32)


def _around(y: int, x: int, shape: tuple[int, ...], reach: float) -> tuple[Box, tuple[np.ndarray, np.ndarray]]:
    """The box that reaches so far from a place, within the picture, and its pixels' offsets (h, 1) and (1, w) from the place."""
    far = int(np.ceil(reach)) + 1
    rows, columns = (
        slice(max(0, at - far), min(side, at + far + 1)) for at, side in zip((y, x), shape[:2], strict=True)
    )
    dy = np.arange(rows.start, rows.stop)[:, None] - float(y)
    dx = np.arange(columns.start, columns.stop)[None, :] - float(x)
    return (rows, columns), (dy, dx)


def visible(old: np.ndarray, new: np.ndarray, diameter: float) -> np.ndarray:
    """Where two pictures, uint8 (h, w, 3), differ by VISIBLE grey levels or more: bool (h, w); gaps within a defect belong to it, specks do not."""
    seen = (cv2.absdiff(old, new).max(axis=2) >= VISIBLE).astype(np.uint8)
    reach = max(1, round(diameter / 8))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    room = cv2.copyMakeBorder(seen, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(room, cv2.MORPH_CLOSE, disc)[reach:-reach, reach:-reach]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(closed), connectivity=8)
    return np.asarray((stats[:, cv2.CC_STAT_AREA][labels] >= SPECK) & (closed > 0))
