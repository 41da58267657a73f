"""A circuit board in a fixture: always the same parts at the same places, each within its placement tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from spadework.datasets.synthetic.scene import (
    WHOLE,
    Box,
    Colour,
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

KINDS = ("misplaced_part", "missing_part", "reversed_part", "scratch", "solder_bridge")
_MASK_GREEN = (0.012, 0.105, 0.045)
_OVER_COPPER = (0.030, 0.185, 0.075)
_COPPER = (0.46, 0.24, 0.11)
_LAMINATE = (0.30, 0.27, 0.17)
_TIN = (0.42, 0.42, 0.43)
_PRINT = (0.62, 0.63, 0.60)
_FIXTURE = (0.030, 0.031, 0.034)
_THICK = 0.010
_HALF_BOARD = 0.468
_CORNERS = ((0.085, 0.085), (0.915, 0.085), (0.085, 0.915), (0.915, 0.915))


@dataclass(frozen=True)
class Part:
    """One part. at: its centre (u, v). half: half its size. angle: radians. leads: a side, for chips; pins for connectors."""

    kind: str
    at: tuple[float, float]
    half: tuple[float, float]
    angle: float = 0.0
    leads: int = 0
    colour: Colour = (0.02, 0.02, 0.022)


_TAN, _BLACK, _RED = (0.30, 0.20, 0.12), (0.016, 0.016, 0.018), (0.42, 0.035, 0.025)
_QUARTER = float(np.pi / 2)
PARTS: tuple[Part, ...] = (
    Part("chip", (0.515, 0.395), (0.086, 0.128), leads=8),
    Part("chip", (0.785, 0.285), (0.052, 0.066), leads=4),
    Part("can", (0.225, 0.270), (0.070, 0.070)),
    Part("can", (0.225, 0.455), (0.070, 0.070)),
    Part("connector", (0.340, 0.830), (0.165, 0.052), leads=6, colour=(0.58, 0.56, 0.50)),
    Part("crystal", (0.520, 0.640), (0.074, 0.030)),
    *(Part("chiplet", (x, 0.515), (0.0165, 0.031), colour=_BLACK) for x in (0.690, 0.745, 0.800, 0.855)),
    *(Part("chiplet", (x, 0.170), (0.0165, 0.031), _QUARTER, colour=_TAN) for x in (0.370, 0.470)),
    *(Part("chiplet", (0.225, y), (0.0165, 0.031), _QUARTER, colour=_TAN) for y in (0.590, 0.650)),
    Part("diode", (0.640, 0.835), (0.026, 0.048)),
    Part("led", (0.760, 0.835), (0.027, 0.040), colour=_RED),
    Part("led", (0.860, 0.780), (0.027, 0.040), colour=(0.10, 0.30, 0.06)),
    Part("chiplet", (0.730, 0.680), (0.019, 0.038), _QUARTER, colour=_BLACK),
)
_BY_SIZE = tuple(sorted(range(len(PARTS)), key=lambda index: PARTS[index].half[0] * PARTS[index].half[1]))
_POLAR = (14, 1, 0, 2, 3)  # from the faintest sign of a reversal to the plainest: diode, chips, cans


def paint(frame: Frame, rng: np.random.Generator, flaw: Flaw | None) -> Surface:
    """Draw the board and its parts, with or without a flaw."""
    frame = _clamp(frame, rng)
    surface = _bare_board(frame, rng)
    parts = [_place(part, rng) for part in PARTS]
    shades = rng.normal(1.0, 0.05, len(parts))
    grainy = 1 + 0.05 * grain(rng, frame.size, (0.6, 0.6))
    if flaw is not None and flaw.kind == "scratch":
        _scratch(surface, frame, flaw)
    drawn = parts if flaw is None else _tamper(parts, flaw)
    for part, shade in zip(drawn, shades, strict=True):
        if part is not None:
            _DRAW[part.kind](surface, frame, part, np.asarray(shade * grainy, np.float32))
    if flaw is not None and flaw.kind == "solder_bridge":
        _solder_bridge(surface, frame, parts, flaw)
    return surface


def _clamp(frame: Frame, rng: np.random.Generator) -> Frame:
    """The board lies in its fixture with a little play."""
    angle, (du, dv) = np.deg2rad(rng.normal(0, 0.35)), rng.normal(0, 0.0025, 2)
    x, y = local(frame, WHOLE, (0.5 + du, 0.5 + dv), angle)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0.5 + du - 0.5 * c + 0.5 * s], [s, c, 0.5 + dv - 0.5 * s - 0.5 * c], [0, 0, 1]])
    return Frame(frame.size, frame.to_pixel @ turn, x + np.float32(0.5), y + np.float32(0.5))


def _place(part: Part, rng: np.random.Generator) -> Part:
    """The placement tolerance of the machine."""
    du, dv = rng.normal(0, 0.0010, 2)
    return replace(part, at=(part.at[0] + du, part.at[1] + dv), angle=part.angle + np.deg2rad(rng.normal(0, 0.5)))


def _tamper(parts: list[Part], flaw: Flaw) -> list[Part | None]:
    """Take one part away, move it or turn it round, where the flaw is of that kind."""
    drawn: list[Part | None] = list(parts)
    if flaw.kind == "missing_part":
        drawn[_by_severity(_BY_SIZE, flaw)] = None
    elif flaw.kind == "misplaced_part":
        index = int(flaw.rng.integers(len(parts)))
        drawn[index] = _shifted(parts[index], flaw)
    elif flaw.kind == "reversed_part":
        index = _by_severity(_POLAR, flaw)
        drawn[index] = replace(parts[index], angle=parts[index].angle + float(np.pi))
    return drawn


def _by_severity(order: tuple[int, ...], flaw: Flaw) -> int:
    """One of `order`, which runs from faint to plain, about where the severity says."""
    at = flaw.severity * (len(order) - 1) + flaw.rng.uniform(-1.0, 1.0)
    return order[int(np.clip(np.rint(at), 0, len(order) - 1))]


def _shifted(part: Part, flaw: Flaw) -> Part:
    heading, turn = flaw.rng.uniform(0, 2 * np.pi), flaw.rng.choice([-1.0, 1.0])
    step = flaw.scale(0.010, 0.032)
    at = (part.at[0] + step * float(np.cos(heading)), part.at[1] + step * float(np.sin(heading)))
    return replace(part, at=at, angle=part.angle + turn * np.deg2rad(flaw.scale(2.0, 22.0)))


def _bare_board(frame: Frame, rng: np.random.Generator) -> Surface:
    """Fixture, solder mask over copper tracks, tinned pads and holes, white print."""
    texture = 1 + 0.08 * grain(rng, frame.size, (0.6, 0.6))
    surface = plane(frame.size, np.asarray(_FIXTURE, np.float32) * texture[..., None], gloss=0.02)
    x, y = frame.u - 0.5, frame.v - 0.5
    edge = rectangle(x, y, (_HALF_BOARD, _HALF_BOARD), 0.03)
    copper, print_, tin = (_warp(art, frame) for art in _artwork(frame.size))
    lacquer = 1 + 0.04 * clouds(rng, frame.size, 6, octaves=3) + 0.025 * grain(rng, frame.size, (0.7, 0.7))
    green = np.asarray(_MASK_GREEN, np.float32) * lacquer[..., None]
    surface.cover(inside(edge, frame), colour=green, height=_THICK, gloss=0.10)
    surface.cover(copper, colour=np.asarray(_OVER_COPPER, np.float32) * lacquer[..., None])
    surface.height += 0.0005 * copper
    surface.cover(tin, colour=_TIN, gloss=0.35)
    surface.cover(print_ * 0.9, colour=_PRINT)
    for corner in _CORNERS:
        box = frame.window(corner, 0.04)
        dx, dy = local(frame, box, corner)
        hole = inside(np.sqrt(dx * dx + dy * dy) - 0.020, frame)
        surface.cover(hole, box, colour=_FIXTURE, height=0.0, gloss=0.0)
    return surface


def _warp(art: np.ndarray, frame: Frame) -> np.ndarray:
    """Artwork over the scene's unit square to the picture's pixels, 0..1."""
    to_unit = np.diag([1 / art.shape[1], 1 / art.shape[0], 1.0])
    flat = cv2.warpPerspective(art, frame.to_pixel @ to_unit, (frame.size, frame.size), flags=cv2.INTER_LINEAR)
    return np.asarray(flat, np.float32) / 255


@lru_cache(maxsize=4)
def _artwork(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Copper, print and tin of the board's design, each uint8 over the unit square at twice the picture's size."""
    scale = 2 * size
    copper, print_, tin = (np.zeros((scale, scale), np.uint8) for _ in range(3))
    _tracks(copper, np.random.default_rng(7))
    for part in PARTS:
        outline = _corners(part, part.half[0] + 0.012, part.half[1] + 0.012)
        cv2.polylines(print_, [_fixed(outline, scale)], True, 255, max(scale // 170, 1), cv2.LINE_AA, 4)
        for pad in _pads(part):
            cv2.fillPoly(tin, [_fixed(pad, scale)], 255, cv2.LINE_AA, 4)
    for text, (u, v) in (("SPW-04", (0.60, 0.94)), ("C1", (0.12, 0.19)), ("J2", (0.13, 0.80)), ("+", (0.115, 0.36))):
        cv2.putText(
            print_, text, (int(u * scale), int(v * scale)), 0, scale / 900, 255, max(scale // 300, 1), cv2.LINE_AA
        )
    for corner in _CORNERS:
        cv2.circle(tin, (int(corner[0] * scale), int(corner[1] * scale)), int(0.036 * scale), 255, -1, cv2.LINE_AA)
    copper, print_, tin = (cv2.GaussianBlur(art, (0, 0), 0.7) for art in (copper, print_, tin))
    return copper, print_, tin


def _tracks(copper: np.ndarray, rng: np.random.Generator) -> None:
    """Tracks with 45-degree bends and vias at their ends, from a fixed seed: the design of the board."""
    scale = copper.shape[0]
    for _ in range(34):
        u, v = rng.uniform(0.08, 0.92, 2)
        points = [(u, v)]
        for heading in (rng.integers(8) + np.array([0, 1, 0])) * np.pi / 4:
            step = rng.uniform(0.05, 0.16)
            u, v = np.clip([u + step * np.cos(heading), v + step * np.sin(heading)], 0.06, 0.94)
            points.append((float(u), float(v)))
        cv2.polylines(copper, [_fixed(np.array(points), scale)], False, 255, max(scale // 110, 1), cv2.LINE_AA, 4)
        cv2.circle(copper, (int(u * scale), int(v * scale)), max(scale // 80, 1), 255, -1, cv2.LINE_AA)


def _fixed(points: np.ndarray, scale: int) -> np.ndarray:
    """Unit coordinates to OpenCV's fixed point with four fractional bits."""
    return np.asarray(np.rint(np.asarray(points) * scale * 16), np.int32).reshape(-1, 1, 2)


def _corners(part: Part, half_x: float, half_y: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """The corners (4, 2) of a rectangle at x, y in the part's axes."""
    c, s = np.cos(part.angle), np.sin(part.angle)
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [half_x, half_y] + [x, y]
    return np.asarray(signs @ np.array([[c, s], [-s, c]]) + part.at)


def _pads(part: Part) -> list[np.ndarray]:
    """The tinned pads that the part is soldered to."""
    if part.kind == "chip":
        ys = _lead_rows(part)
        return [_corners(part, 0.014, 0.008, side * (part.half[0] + 0.012), y) for y in ys for side in (-1, 1)]
    if part.kind == "connector":
        return [_corners(part, 0.009, 0.016, x, 0.0) for x in _pin_columns(part)]
    if part.kind in ("can", "crystal"):
        return [_corners(part, 0.014, 0.014, side * part.half[0] * 0.55, 0.0) for side in (-1, 1)]
    return [_corners(part, part.half[0] + 0.003, 0.013, 0.0, side * part.half[1] * 0.85) for side in (-1, 1)]


def _lead_rows(part: Part) -> np.ndarray:
    return np.asarray((np.arange(part.leads) - (part.leads - 1) / 2) * (1.72 * part.half[1] / part.leads))


def _pin_columns(part: Part) -> np.ndarray:
    return np.asarray((np.arange(part.leads) - (part.leads - 1) / 2) * (1.75 * part.half[0] / part.leads))


def _open(frame: Frame, part: Part) -> tuple[Box, np.ndarray, np.ndarray]:
    """The pixels around a part, and its own coordinates there."""
    box = frame.window(part.at, float(np.hypot(*part.half)) + 0.03)
    x, y = local(frame, box, part.at, part.angle)
    return box, x, y


def _chip(surface: Surface, frame: Frame, part: Part, shade: np.ndarray) -> None:
    box, x, y = _open(frame, part)
    rows = _lead_rows(part)
    nearest = rows[np.clip(np.rint((y - rows[0]) / (rows[1] - rows[0])), 0, part.leads - 1).astype(int)]
    reach = part.half[0] + 0.020
    lead = rectangle(np.abs(x) - reach + 0.012, y - nearest, (0.013, 0.0052))
    drop = np.clip((reach - np.abs(x)) / 0.016, 0, 1)
    surface.cover(inside(lead, frame), box, colour=_TIN, height=_THICK + 0.010 * drop, gloss=0.5)
    body = rectangle(x, y, part.half, 0.004)
    bevel = np.clip(-body / 0.006, 0, 1)
    colour = np.asarray(part.colour, np.float32) * shade[box][..., None]
    surface.cover(inside(body, frame), box, colour=colour, height=_THICK + 0.012 + 0.007 * bevel, gloss=0.05)
    dot = np.sqrt((x + part.half[0] - 0.020) ** 2 + (y + part.half[1] - 0.020) ** 2) - 0.0085
    surface.cover(inside(dot, frame) * 0.8, box, colour=(0.10, 0.10, 0.10))
    surface.cover(_lettering(x, y + 0.25 * part.half[1], part.half[0] * 0.72) * 0.75, box, colour=(0.34, 0.34, 0.33))


_LETTERS = np.random.default_rng(11).random((2, 64)) < 0.62


def _lettering(x: np.ndarray, y: np.ndarray, half_width: float) -> np.ndarray:
    """Two lines of print too small to read, 0..1."""
    line = (y > 0.014).astype(int)
    centre = np.where(line == 1, 0.028, 0.0)
    cell = np.clip(((x + half_width) / 0.0052).astype(int), 0, 63)
    row = np.clip(1.4 - np.abs(y - centre) / 0.0050, 0, 1)
    return np.asarray(row * _LETTERS[line, cell] * (np.abs(x) < half_width))


def _can(surface: Surface, frame: Frame, part: Part, shade: np.ndarray) -> None:
    """An electrolytic capacitor from above: square black base, aluminium top with the dark mark of its negative side."""
    box, x, y = _open(frame, part)
    base = rectangle(x, y, part.half, 0.018)
    surface.cover(inside(base, frame), box, colour=_BLACK, height=_THICK + 0.006, gloss=0.04)
    radius = np.sqrt(x * x + y * y)
    top = radius - part.half[0] * 0.90
    dome = np.clip(-top / 0.009, 0, 1)
    colour = np.asarray((0.40, 0.40, 0.41), np.float32) * shade[box][..., None]
    surface.cover(inside(top, frame), box, colour=colour, height=_THICK + 0.030 + 0.008 * dome, gloss=0.45)
    mark = np.maximum(top + 0.010, x + part.half[0] * 0.42)
    surface.cover(inside(mark, frame), box, colour=(0.018, 0.018, 0.022), gloss=0.05)


def _connector(surface: Surface, frame: Frame, part: Part, shade: np.ndarray) -> None:
    box, x, y = _open(frame, part)
    colour = np.asarray(part.colour, np.float32) * shade[box][..., None]
    surface.cover(
        inside(rectangle(x, y, part.half, 0.004), frame), box, colour=colour, height=_THICK + 0.030, gloss=0.08
    )
    well = inside(rectangle(x, y - 0.006, (part.half[0] - 0.011, part.half[1] - 0.017), 0.003), frame)
    surface.cover(well, box, colour=colour * 0.72, height=_THICK + 0.016)
    key = inside(rectangle(x, y - part.half[1], (0.030, 0.014)), frame)
    surface.cover(key, box, colour=colour * 0.7, height=_THICK + 0.016)
    columns = _pin_columns(part)
    nearest = columns[np.clip(np.rint((x - columns[0]) / (columns[1] - columns[0])), 0, part.leads - 1).astype(int)]
    pin = inside(rectangle(x - nearest, y - 0.006, (0.0075, 0.0075)), frame)
    surface.cover(pin, box, colour=(0.50, 0.38, 0.14), height=_THICK + 0.026, gloss=0.6)


def _crystal(surface: Surface, frame: Frame, part: Part, shade: np.ndarray) -> None:
    box, x, y = _open(frame, part)
    rim = rectangle(x, y, part.half, part.half[1] * 0.95)
    surface.cover(inside(rim, frame), box, colour=_TIN, height=_THICK + 0.006, gloss=0.4)
    can = rectangle(x, y, (part.half[0] - 0.006, part.half[1] - 0.006), part.half[1] * 0.7)
    bevel = np.clip(-can / 0.010, 0, 1)
    colour = np.asarray((0.38, 0.38, 0.37), np.float32) * shade[box][..., None]
    surface.cover(inside(can, frame), box, colour=colour, height=_THICK + 0.010 + 0.012 * bevel, gloss=0.5)
    text = _lettering(x, y + 0.003, part.half[0] * 0.6) * (np.abs(y) < 0.012)
    surface.cover(text * 0.6, box, colour=(0.07, 0.07, 0.07))


def _chiplet(surface: Surface, frame: Frame, part: Part, shade: np.ndarray) -> None:
    """A small resistor or ceramic capacitor with tinned ends, in a fillet of solder."""
    box, x, y = _open(frame, part)
    outline = rectangle(x, y, part.half, 0.003)
    fillet = rectangle(x, np.abs(y) - part.half[1], (part.half[0] - 0.002, 0.008), 0.003)
    rise = np.clip(-fillet / 0.008, 0, 1)
    surface.cover(inside(fillet, frame), box, colour=_TIN, height=_THICK + 0.006 * rise, gloss=0.5)
    bevel = np.clip(-outline / 0.004, 0, 1)
    surface.cover(inside(outline, frame), box, colour=_TIN, height=_THICK + 0.005 + 0.004 * bevel, gloss=0.3)
    body = np.maximum(outline, np.abs(y) - part.half[1] * 0.62)
    colour = np.asarray(part.colour, np.float32) * shade[box][..., None]
    surface.cover(inside(body, frame), box, colour=colour, gloss=0.08)


def _diode(surface: Surface, frame: Frame, part: Part, shade: np.ndarray) -> None:
    box, x, y = _open(frame, part)
    tab = rectangle(x, y, (part.half[0] * 0.6, part.half[1] + 0.010), 0.002)
    surface.cover(inside(tab, frame), box, colour=_TIN, height=_THICK + 0.004, gloss=0.5)
    body = rectangle(x, y, part.half, 0.004)
    bevel = np.clip(-body / 0.006, 0, 1)
    colour = np.asarray(part.colour, np.float32) * shade[box][..., None]
    surface.cover(inside(body, frame), box, colour=colour, height=_THICK + 0.012 + 0.005 * bevel, gloss=0.05)
    band = np.maximum(body + 0.001, np.abs(y + part.half[1] * 0.55) - 0.0075)
    surface.cover(inside(band, frame), box, colour=(0.48, 0.48, 0.47))


def _led(surface: Surface, frame: Frame, part: Part, shade: np.ndarray) -> None:
    box, x, y = _open(frame, part)
    base = rectangle(x, y, part.half, 0.002)
    surface.cover(inside(base, frame), box, colour=_TIN, height=_THICK + 0.006, gloss=0.3)
    lens = rectangle(x, y, (part.half[0] * 0.86, part.half[1] * 0.62), 0.010)
    dome = np.sqrt(np.clip(-lens / 0.022, 0, 1))
    colour = np.asarray(part.colour, np.float32) * shade[box][..., None]
    surface.cover(inside(lens, frame), box, colour=colour, height=_THICK + 0.008 + 0.014 * dome, gloss=0.7)


def _solder_bridge(surface: Surface, frame: Frame, parts: list[Part], flaw: Flaw) -> None:
    """Solder joins neighbouring leads of a chip: a thin film when faint, a fat blob when plain."""
    part = parts[int(flaw.rng.integers(2))]
    rows = _lead_rows(part)
    first = int(flaw.rng.integers(part.leads - 1))
    y_at = float(rows[first] + rows[first + 1]) / 2
    x_at = float(flaw.rng.choice([-1.0, 1.0])) * (part.half[0] + 0.014)
    box, x, y = _open(frame, part)
    pitch = float(rows[1] - rows[0])
    half = (flaw.scale(0.0045, 0.014), pitch * flaw.scale(0.42, 0.75))
    blob = rectangle(x - x_at, y - y_at, half, min(half) * 0.95)
    bulge = np.sqrt(np.clip(-blob / min(half), 0, 1))
    height = _THICK + flaw.scale(0.004, 0.013) * bulge
    surface.cover(inside(blob, frame), box, colour=_TIN, height=height, gloss=0.6)


def _scratch(surface: Surface, frame: Frame, flaw: Flaw) -> None:
    """The lacquer is scratched open; copper and bare laminate show. Parts hide what is below them, so it seeks free ground."""
    length = flaw.scale(0.07, 0.22)
    paths = [
        jagged(flaw.rng, (u, v), flaw.rng.uniform(0, 2 * np.pi), length, n=7, wander=0.10)
        for u, v in flaw.rng.uniform(0.08, 0.92, (40, 2))
    ]
    points = max(paths, key=_free_length)
    half = flaw.scale(0.0011, 0.0032)
    alpha = inside(path_distance(frame.u, frame.v, points) - half, frame) * flaw.scale(0.45, 0.95)
    patchy = np.clip(0.5 + 0.9 * clouds(flaw.rng, frame.size, 40), 0, 1)[..., None]
    colour = np.asarray(_COPPER, np.float32) * patchy + np.asarray(_LAMINATE, np.float32) * (1 - patchy)
    surface.cover(alpha, colour=colour.astype(np.float32), gloss=0.25)


def _free_length(points: np.ndarray) -> float:
    """How much of a path lies on the board and beside all parts, 0..1; a path that bends out of the board has less."""
    clear = np.full(len(points), np.inf)
    for part in PARTS:
        c, s = np.cos(part.angle), np.sin(part.angle)
        du, dv = (points - part.at).T
        x, y = du * c + dv * s, dv * c - du * s
        clear = np.minimum(clear, rectangle(x, y, (part.half[0] + 0.02, part.half[1] + 0.02)))
    on_board = np.abs(points - 0.5).max(axis=1) < _HALF_BOARD - 0.03
    return float(np.mean((clear > 0) & on_board))


_DRAW: dict[str, Callable[[Surface, Frame, Part, np.ndarray], None]] = {
    "chip": _chip,
    "can": _can,
    "connector": _connector,
    "crystal": _crystal,
    "chiplet": _chiplet,
    "diode": _diode,
    "led": _led,
}
