"""A turned and hobbed steel gear on a grey mat, at any rotation and nearly any position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spadework.datasets.synthetic.scene import (
    WHOLE,
    Flaw,
    Frame,
    Surface,
    clouds,
    grain,
    inside,
    jagged,
    local,
    path_distance,
    plane,
    rectangle,
)

KINDS = ("broken_tooth", "crack", "pit", "rust", "scratch")
_TEETH = 20
_TIP, _ROOT = 0.345, 0.300  # radii, in picture widths
_WEB = (0.150, 0.232)  # the recessed ring between hub and rim
_BORE = 0.062
_HOLES = 6
_HOLE_AT, _HOLE = 0.191, 0.026
_THICK, _RECESS, _CHAMFER = 0.030, 0.010, 0.007
_STEEL = (0.30, 0.305, 0.315)
_MAT = (0.115, 0.125, 0.135)
_RUST = (0.24, 0.085, 0.028)


@dataclass(frozen=True)
class _Pose:
    """x, y, radius, angle: (H, W), where each pixel is on the gear. turned: the angle in the picture, for the highlight."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    turned: np.ndarray


def paint(frame: Frame, rng: np.random.Generator, flaw: Flaw | None) -> Surface:
    """Draw the mat and the gear on it, with or without a flaw."""
    surface = _mat(frame, rng)
    pose = _put(frame, rng)
    cut = _broken_tooth(pose, flaw) if flaw is not None and flaw.kind == "broken_tooth" else None
    distance = _outline(pose, cut)
    _steel(surface, frame, pose, distance, rng)
    if flaw is not None and flaw.kind in _ON_FACE:
        _ON_FACE[flaw.kind](surface, frame, pose, inside(distance, frame), flaw)
    return surface


def lying(frame: Frame, rng: np.random.Generator) -> tuple[tuple[float, float], float]:
    """Tell where `paint` puts the gear when it is given the same `rng`: its centre (u, v), and how far it is turned, in radians."""
    _mat(frame, rng)  # its grain is drawn first
    centre, rotation = _lie(rng)
    return (float(centre[0]), float(centre[1])), rotation


def _mat(frame: Frame, rng: np.random.Generator) -> Surface:
    texture = 1 + 0.06 * grain(rng, frame.size, (0.7, 0.7)) + 0.05 * clouds(rng, frame.size, 5, octaves=2)
    surface = plane(frame.size, np.asarray(_MAT, np.float32) * texture[..., None])
    surface.height += 0.0006 * grain(rng, frame.size, (0.9, 0.9))
    return surface


def _lie(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Where the gear lies and how far it is turned, in radians."""
    return rng.uniform(0.44, 0.56, 2), float(rng.uniform(0, 2 * np.pi))


def _put(frame: Frame, rng: np.random.Generator) -> _Pose:
    centre, rotation = _lie(rng)
    x, y = local(frame, WHOLE, (centre[0], centre[1]), rotation)
    angle = np.arctan2(y, x)
    return _Pose(x, y, np.sqrt(x * x + y * y), angle, angle + np.float32(rotation))


def _outline(pose: _Pose, cut: np.ndarray | None) -> np.ndarray:
    """Signed distance to the gear's rim, bore, keyway and holes. cut: (H, W), a radius beyond which nothing is left."""
    steep = 1.25
    wave = 0.5 + steep * np.cos(_TEETH * pose.angle)
    rise = (_TIP - _ROOT) * steep * _TEETH * np.sin(_TEETH * pose.angle) * ((wave > 0) & (wave < 1))
    rim = _ROOT + (_TIP - _ROOT) * np.clip(wave, 0, 1)
    # along a flank the radius changes fast with the angle; dividing by the slope gives a true distance
    distance = (pose.radius - rim) / np.sqrt(1 + (rise / np.maximum(pose.radius, 0.1)) ** 2)
    if cut is not None:
        distance = np.maximum(distance, pose.radius - cut)
    keyway = rectangle(pose.x - _BORE, pose.y, (0.022, 0.013), 0.003)
    return np.asarray(np.maximum.reduce([distance, _BORE - pose.radius, -keyway, -_hole_distance(pose)]))


def _hole_distance(pose: _Pose) -> np.ndarray:
    """Signed distance to the nearest of the holes through the web."""
    sector = np.float32(2 * np.pi / _HOLES)
    folded = pose.angle - sector * np.rint(pose.angle / sector)
    dx, dy = pose.radius * np.cos(folded) - _HOLE_AT, pose.radius * np.sin(folded)
    return np.asarray(np.sqrt(dx * dx + dy * dy) - _HOLE)


def _steel(surface: Surface, frame: Frame, pose: _Pose, distance: np.ndarray, rng: np.random.Generator) -> None:
    face = np.clip(-distance / _CHAMFER, 0, 1)
    ring = np.maximum(_WEB[0] - pose.radius, pose.radius - _WEB[1])
    web = np.clip(-ring / 0.008, 0, 1)
    lathe = _lathe_marks(pose.radius, rng)
    patina = 1 + 0.06 * clouds(rng, frame.size, 5, octaves=3) + 0.10 * lathe + 0.03 * grain(rng, frame.size, (0.6, 0.6))
    colour = np.asarray(_STEEL, np.float32) * (patina * (1 - 0.22 * web))[..., None]
    # turned metal mirrors the lamp in two opposite wedges, wherever it is turned to
    wedge = np.abs(np.cos(pose.turned - rng.normal(0.9, 0.15))) ** 10
    glow = 0.30 * wedge * (0.75 + 0.35 * lathe) * (1 - 0.45 * web) * (face > 0.98)
    height = (_THICK - _CHAMFER) + _CHAMFER * face - _RECESS * web
    surface.cover(inside(distance, frame), colour=colour, height=height, gloss=0.30 * (0.8 + 0.3 * lathe), glow=glow)


def _lathe_marks(radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fine rings left by the tool: a random profile along the radius."""
    profile = rng.normal(0, 1, 160) + 0.8 * np.sin(np.arange(160) * 0.9)
    return np.asarray(np.interp(radius, np.linspace(0, 0.5, 160), profile * 0.6), np.float32)


def _broken_tooth(pose: _Pose, flaw: Flaw | None) -> np.ndarray | None:
    """The radius beyond which one tooth (two when plain) is broken off, ragged; far out at the other teeth."""
    if flaw is None:
        return None
    pitch = 2 * np.pi / _TEETH
    n_teeth = 1 + int(flaw.severity > 0.8)
    middle = (int(flaw.rng.integers(_TEETH)) + 0.5 * (n_teeth - 1)) * pitch
    offset = np.mod(pose.angle - middle + np.pi, 2 * np.pi) - np.pi
    left = _TIP - (_TIP - _ROOT) * flaw.scale(0.35, 1.12)
    ragged = np.interp(offset, np.linspace(-pitch, pitch, 24), flaw.rng.normal(0, 0.0022, 24))
    slant = offset * flaw.rng.normal(0, 0.03)
    return np.where(np.abs(offset) < 0.5 * pitch * n_teeth, left + ragged + slant, 1.0).astype(np.float32)


def _face_point(flaw: Flaw, radii: tuple[float, float] = (0.245, 0.29)) -> tuple[float, float, float]:
    """A place on the rim between web and teeth: x, y, and the angle it is at."""
    angle = float(flaw.rng.uniform(-np.pi, np.pi))
    radius = float(flaw.rng.uniform(*radii))
    return radius * float(np.cos(angle)), radius * float(np.sin(angle)), angle


def _crack(surface: Surface, frame: Frame, pose: _Pose, steel: np.ndarray, flaw: Flaw) -> None:
    """A fissure from a hole through the web, out into the rim."""
    hole = int(flaw.rng.integers(_HOLES)) * 2 * np.pi / _HOLES
    aim = hole + flaw.rng.normal(0, 0.5)
    start = (
        float(_HOLE_AT * np.cos(hole) + _HOLE * 0.9 * np.cos(aim)),
        float(_HOLE_AT * np.sin(hole) + _HOLE * 0.9 * np.sin(aim)),
    )
    points = jagged(flaw.rng, start, aim, flaw.scale(0.045, 0.115), n=9, wander=0.45)
    half = flaw.scale(0.0014, 0.0034)
    alpha = inside(path_distance(pose.x, pose.y, points) - half, frame) * steel * flaw.scale(0.55, 1.0)
    surface.cover(alpha, colour=(0.012, 0.011, 0.010), height=_THICK * 0.6, gloss=0.0, glow=0.0)


def _pit(surface: Surface, frame: Frame, pose: _Pose, steel: np.ndarray, flaw: Flaw) -> None:
    """A blow has left a dent with a raised rim."""
    x, y, _ = _face_point(flaw)
    radius = flaw.scale(0.010, 0.026)
    squeeze = flaw.rng.uniform(0.75, 1.3)
    away = np.sqrt((pose.x - x) ** 2 + ((pose.y - y) * squeeze) ** 2) / radius
    away += 0.15 * clouds(flaw.rng, frame.size, 24)
    dent = np.exp(-(away**2) * 1.4) - 0.35 * np.exp(-((away - 1.25) ** 2) * 8)
    surface.height -= (flaw.scale(0.0045, 0.013) * dent * steel).astype(np.float32)
    surface.cover(np.clip(dent, 0, 1) * steel * flaw.scale(0.35, 0.75), colour=(0.10, 0.10, 0.105), glow=0.0)


def _rust(surface: Surface, frame: Frame, pose: _Pose, steel: np.ndarray, flaw: Flaw) -> None:
    """Brown patches that eat the gloss."""
    x, y, _ = _face_point(flaw, (0.20, 0.31))
    radius = flaw.scale(0.028, 0.085)
    away = np.sqrt((pose.x - x) ** 2 + (pose.y - y) ** 2) / radius
    patchy = 1.15 - away + 0.42 * clouds(flaw.rng, frame.size, 16, octaves=3)
    alpha = np.clip(patchy * 2.2, 0, 1) * (away < 1.6) * steel * flaw.scale(0.30, 0.92)
    shade = 1 + 0.22 * clouds(flaw.rng, frame.size, 30, octaves=2) + 0.12 * grain(flaw.rng, frame.size)
    surface.cover(alpha, colour=np.asarray(_RUST, np.float32) * np.maximum(shade, 0.3)[..., None], gloss=0.02, glow=0.0)
    surface.height += (0.0012 * alpha * grain(flaw.rng, frame.size, (0.8, 0.8))).astype(np.float32)


def _scratch(surface: Surface, frame: Frame, pose: _Pose, steel: np.ndarray, flaw: Flaw) -> None:
    """A tool has slipped: a bright line with a dark side, over rim and web."""
    x, y, angle = _face_point(flaw, (0.20, 0.28))
    heading = angle + np.pi / 2 + flaw.rng.normal(0, 0.6)
    length = flaw.scale(0.07, 0.24)
    start = (x - length / 2 * float(np.cos(heading)), y - length / 2 * float(np.sin(heading)))
    points = jagged(flaw.rng, start, heading, length, n=6, wander=0.05)
    half = flaw.scale(0.0011, 0.0026)
    groove = inside(path_distance(pose.x, pose.y, points) - half, frame) * steel
    surface.cover(groove * flaw.scale(0.45, 0.95), colour=(0.62, 0.62, 0.63), gloss=0.6)
    beside = inside(path_distance(pose.x, pose.y, points + 1.6 * half) - half, frame) * steel * (1 - groove)
    surface.cover(beside * flaw.scale(0.25, 0.6), colour=(0.06, 0.06, 0.062), glow=0.0)


_ON_FACE = {"crack": _crack, "pit": _pit, "rust": _rust, "scratch": _scratch}
