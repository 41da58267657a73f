"""A twill of dark warp (down) and light weft (across): two over, two under, shifted by one from thread to thread."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from spadework.datasets.synthetic.scene import (
    Flaw,
    Frame,
    Surface,
    clouds,
    grain,
    inside,
    jagged,
    path_distance,
    plane,
)

KINDS = ("broken_thread", "hole", "loose_thread", "pulled", "stain")
_THREADS = 30  # across the picture
_PITCH = 1.0 / _THREADS
_WARP = (0.075, 0.105, 0.175)
_WEFT = (0.50, 0.47, 0.40)
_BACKING = (0.018, 0.017, 0.02)
_RELIEF = 0.35 * _PITCH


@dataclass
class _Cloth:
    """Where the pixels are on the cloth, in threads: x counts warp threads, y weft threads. thin: (H, W), 0 leaves no thread."""

    x: np.ndarray
    y: np.ndarray
    thin_warp: np.ndarray
    thin_weft: np.ndarray


def paint(frame: Frame, rng: np.random.Generator, flaw: Flaw | None) -> Surface:
    """Draw the cloth, with or without a flaw."""
    cloth = _lay(frame, rng)
    if flaw is not None and flaw.kind in _BEFORE:
        _BEFORE[flaw.kind](cloth, frame, flaw)
    surface = _weave(cloth, frame, rng)
    if flaw is not None and flaw.kind in _AFTER:
        _AFTER[flaw.kind](surface, frame, flaw)
    return surface


def _lay(frame: Frame, rng: np.random.Generator) -> _Cloth:
    """Lay the cloth under the camera: turned by a degree or two, shifted at will, its threads not quite straight."""
    angle = np.float32(np.deg2rad(rng.normal(0, 1.0)))
    shift = rng.uniform(0, 64, 2).astype(np.float32)
    u, v = frame.u - 0.5, frame.v - 0.5
    x = (u * np.cos(angle) + v * np.sin(angle)) * _THREADS + shift[0] + clouds(rng, frame.size, 4, octaves=2) * 0.16
    y = (v * np.cos(angle) - u * np.sin(angle)) * _THREADS + shift[1] + clouds(rng, frame.size, 4, octaves=2) * 0.16
    ones = np.ones_like(x)
    return _Cloth(x.astype(np.float32), y.astype(np.float32), ones, ones.copy())


def _weave(cloth: _Cloth, frame: Frame, rng: np.random.Generator) -> Surface:
    x, y = cloth.x, cloth.y
    i, j = np.floor(x), np.floor(y)
    width = rng.normal(0.46, 0.02, (2, 256)).astype(np.float32)
    tone = rng.normal(1.0, 0.07, (2, 256)).astype(np.float32)
    column, row = i.astype(np.int32) & 255, j.astype(np.int32) & 255
    warp_round = _profile(x - i - 0.5, width[0][column] * cloth.thin_warp)
    weft_round = _profile(y - j - 0.5, width[1][row] * cloth.thin_weft)
    # two over, two under: half a wave is two threads long; the quarter keeps the crossings clear of ties
    turn = np.float32(np.pi / 2)
    warp_high = warp_round + 0.8 * np.cos(turn * (y - 0.5 + i) - turn / 2)
    weft_high = weft_round - 0.8 * np.cos(turn * (x - 0.5 + j) - turn / 2)
    fibre_warp = tone[0][column] + 0.13 * grain(rng, frame.size, (0.35, 2.2)) + 0.10 * warp_round
    fibre_weft = tone[1][row] + 0.09 * grain(rng, frame.size, (2.2, 0.35)) + 0.10 * weft_round
    over = np.clip((warp_high - weft_high) * 4 + 0.5, 0, 1)
    return _surface(frame, over, np.maximum(warp_high, weft_high), fibre_warp, fibre_weft)


def _profile(offset: np.ndarray, half_width: np.ndarray) -> np.ndarray:
    """Height of a round thread across its width, from 0 at the rim to 1; far below where there is no thread."""
    squared = 1.0 - (offset / np.maximum(half_width, 1e-3)) ** 2
    return np.asarray(np.where(squared > 0, np.sqrt(np.maximum(squared, 0)), np.maximum(3 * squared, -4.0)))


def _surface(
    frame: Frame, over: np.ndarray, top: np.ndarray, fibre_warp: np.ndarray, fibre_weft: np.ndarray
) -> Surface:
    warp = np.asarray(_WARP, np.float32) * np.maximum(fibre_warp, 0.3)[..., None]
    weft = np.asarray(_WEFT, np.float32) * np.maximum(fibre_weft, 0.3)[..., None]
    surface = plane(frame.size, weft + (warp - weft) * over[..., None])
    surface.height = (np.maximum(top, -0.6) * _RELIEF).astype(np.float32)
    surface.cover(np.clip(-top * 1.4 - 0.1, 0, 1), colour=_BACKING)
    surface.gloss += 0.035
    return surface


def _place(flaw: Flaw, margin: float = 0.16) -> tuple[float, float]:
    u, v = flaw.rng.uniform(margin, 1 - margin, 2)
    return float(u), float(v)


def _broken_thread(cloth: _Cloth, frame: Frame, flaw: Flaw) -> None:
    """One thread is thinner over a length, or gone."""
    u, v = _place(flaw, 0.2)
    row, column = np.unravel_index(np.argmin((frame.u - u) ** 2 + (frame.v - v) ** 2), frame.u.shape)
    along_warp = flaw.rng.random() < 0.5
    across, along = (cloth.x, cloth.y) if along_warp else (cloth.y, cloth.x)
    half = flaw.scale(2.2, 6.5)
    gone = (np.floor(across) == np.floor(across[row, column])) & (np.abs(along - along[row, column]) < half)
    thin = cloth.thin_warp if along_warp else cloth.thin_weft
    thin[gone] = flaw.scale(0.62, 0.0)


def _hole(cloth: _Cloth, frame: Frame, flaw: Flaw) -> None:
    """Threads end at a ragged rim; the backing shows."""
    u, v = _place(flaw)
    radius = flaw.scale(0.020, 0.062)
    ragged = clouds(flaw.rng, frame.size, 14, octaves=2) * 0.35
    rim = np.sqrt((frame.u - u) ** 2 + (frame.v - v) ** 2) / radius - 1 + ragged * min(1.0, radius * 22)
    left = np.clip(rim * flaw.scale(1.2, 2.5) + flaw.scale(0.55, 0.0), 0, 1).astype(np.float32)
    fray = np.clip(left + 0.5 * grain(flaw.rng, frame.size, (1.0, 1.0)) * (left > 0) * (left < 1), 0, 1)
    cloth.thin_warp *= fray
    cloth.thin_weft *= left


def _pulled(cloth: _Cloth, frame: Frame, flaw: Flaw) -> None:
    """The threads are dragged aside: crowded on one side, open on the other."""
    u, v = _place(flaw)
    angle = flaw.rng.uniform(0, 2 * np.pi)
    radius = flaw.scale(0.05, 0.095)
    near = np.exp(-((frame.u - u) ** 2 + (frame.v - v) ** 2) / (2 * (radius / 1.5) ** 2))
    drag = flaw.scale(0.55, 1.9) * near
    cloth.x += (drag * np.cos(angle)).astype(np.float32)
    cloth.y += (drag * np.sin(angle)).astype(np.float32)
    cloth.thin_warp *= (1 - 0.35 * flaw.severity * near).astype(np.float32)


def _loose_thread(surface: Surface, frame: Frame, flaw: Flaw) -> None:
    """A bit of yarn lies on the cloth."""
    length = flaw.scale(0.09, 0.38)
    u, v = _place(flaw, 0.28)
    heading = flaw.rng.uniform(0, 2 * np.pi)
    start = (u - length / 2 * float(np.cos(heading)), v - length / 2 * float(np.sin(heading)))
    points = _smooth(jagged(flaw.rng, start, heading, length, n=10, wander=0.45))
    half = flaw.scale(0.0032, 0.0075)
    distance = path_distance(frame.u, frame.v, points)
    round_ = np.sqrt(np.maximum(1 - (distance / half) ** 2, 0)).astype(np.float32)
    colour = np.array(_WEFT if flaw.rng.random() < 0.5 else (0.42, 0.16, 0.10), np.float32) * 1.2
    shade = colour * (1 + 0.1 * grain(flaw.rng, frame.size, (0.8, 0.8)))[..., None]
    surface.cover(inside(distance - half, frame), colour=shade, height=_RELIEF * 1.6 + half * round_)


def _smooth(points: np.ndarray) -> np.ndarray:
    """Round the corners of a path."""
    dense = cv2.resize(points.astype(np.float32), (2, len(points) * 2), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.blur(dense, (1, 3), borderType=cv2.BORDER_REPLICATE))


def _stain(surface: Surface, frame: Frame, flaw: Flaw) -> None:
    """A spilt drop: darker, more so at its rim."""
    u, v = _place(flaw)
    radius = flaw.scale(0.045, 0.12)
    ragged = clouds(flaw.rng, frame.size, 9, octaves=3) * 0.22
    rim = np.sqrt((frame.u - u) ** 2 + ((frame.v - v) * flaw.rng.uniform(0.8, 1.25)) ** 2) / radius - 1 + ragged
    depth = np.clip(-rim / 0.12, 0, 1) * (0.72 + 0.28 * np.exp(-((rim + 0.12) ** 2) / 0.012))
    tint = np.array([1.0, 1.35, 1.9], np.float32) if flaw.rng.random() < 0.6 else np.ones(3, np.float32) * 1.35
    surface.albedo *= np.exp(-flaw.scale(0.16, 0.75) * depth[..., None] * tint).astype(np.float32)


_BEFORE = {"broken_thread": _broken_thread, "hole": _hole, "pulled": _pulled}
_AFTER = {"loose_thread": _loose_thread, "stain": _stain}
