"""What is in front of the camera: a surface with colour, height and gloss, and the strokes that build it up.

Scene coordinates u (to the right) and v (down) run from 0 to 1 over the picture; lengths, heights too, are in picture widths.
A `Frame` says which scene point each pixel looks at (a slight perspective); everything is drawn as a signed distance to an
outline, negative inside, and covered with a one-pixel ramp, so that edges are smooth at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[float, float, float]
Box = tuple[slice, slice]
WHOLE: Box = (slice(None), slice(None))


@dataclass(frozen=True)
class Flaw:
    """A defect to render. severity: 0 (faint) to 1 (plain). rng: where it is and what it looks like, apart from the part's."""

    kind: str
    severity: float
    rng: np.random.Generator

    def scale(self, faint: float, plain: float) -> float:
        """A quantity between its faint and its plain value."""
        return faint + (plain - faint) * self.severity


@dataclass(frozen=True)
class Frame:
    """The view of the scene. u, v: (H, W) float32, the scene point of each pixel; to_pixel: (3, 3) scene to pixels."""

    size: int
    to_pixel: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def window(self, centre: tuple[float, float], radius: float) -> Box:
        """The pixels that see scene points within `radius` of `centre`, and a few more; empty where none does."""
        x, y = self.pixels([centre])[0]
        reach = radius * self.size * 1.06 + 3.0  # the perspective stretches by less than 6 %
        x0, x1, y0, y1 = (int(np.clip(value, 0, self.size)) for value in (x - reach, x + reach, y - reach, y + reach))
        return slice(y0, y1), slice(x0, x1)

    def pixels(self, points: Sequence[tuple[float, float]] | np.ndarray) -> np.ndarray:
        """Pixel positions (n, 2) as x, y of scene points (n, 2) as u, v."""
        homogeneous = np.column_stack([np.asarray(points, np.float64), np.ones(len(points))]) @ self.to_pixel.T
        return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def look(rng: np.random.Generator, size: int, *, tilt: float = 0.025) -> Frame:
    """A view from nearly straight above: each corner of the picture sees a point up to `tilt` beside the scene's corner."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    seen = corners + rng.uniform(-tilt, tilt, (4, 2)).astype(np.float32)
    to_scene = cv2.getPerspectiveTransform(corners * size, seen)
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    u, v, w = (row[0] * x + row[1] * y + row[2] for row in to_scene)
    return Frame(size, np.linalg.inv(to_scene), (u / w).astype(np.float32), (v / w).astype(np.float32))


@dataclass
class Surface:
    """What the light falls on. albedo: (H, W, 3) float32 linear; height, gloss: (H, W) float32; strokes change it in place.

    glow: (H, W) float32, mirrored light that height does not tell, such as that of turned metal.
    """

    albedo: np.ndarray
    height: np.ndarray
    gloss: np.ndarray
    glow: np.ndarray

    def cover(
        self,
        alpha: np.ndarray,
        box: Box = WHOLE,
        *,
        colour: Colour | np.ndarray | None = None,
        height: float | np.ndarray | None = None,
        gloss: float | np.ndarray | None = None,
        glow: float | np.ndarray | None = None,
    ) -> None:
        """Lay a coat of `alpha` (h, w) in 0..1 over the pixels of `box`; None leaves a property as it was."""
        if colour is not None:
            _mix(self.albedo[box], np.asarray(colour, np.float32), alpha[..., None])
        for field, value in ((self.height, height), (self.gloss, gloss), (self.glow, glow)):
            if value is not None:
                _mix(field[box], np.asarray(value, np.float32), alpha)


def _mix(target: np.ndarray, value: np.ndarray, alpha: np.ndarray) -> None:
    target += (value - target) * alpha


def plane(size: int, colour: Colour | np.ndarray, *, gloss: float = 0.0) -> Surface:
    """A flat surface of one colour, or of a picture of colours (H, W, 3)."""
    albedo = np.broadcast_to(np.asarray(colour, np.float32), (size, size, 3)).copy()
    flat = np.zeros((size, size), np.float32)
    return Surface(albedo, flat, np.full_like(flat, gloss), flat.copy())


def inside(distance: np.ndarray, frame: Frame, soft: float = 1.0) -> np.ndarray:
    """Coverage 0..1 of a shape from the signed distance to its outline, over a ramp of `soft` pixels."""
    return np.clip(0.5 - distance * (frame.size / soft), 0.0, 1.0)


def local(frame: Frame, box: Box, centre: tuple[float, float], angle: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (x, y) of the pixels of `box` in a part's own axes: from its centre, turned by `angle` radians."""
    du, dv = frame.u[box] - np.float32(centre[0]), frame.v[box] - np.float32(centre[1])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return du * c + dv * s, dv * c - du * s


def rectangle(x: np.ndarray, y: np.ndarray, half: tuple[float, float], corner: float = 0.0) -> np.ndarray:
    """Signed distance to a rectangle of half sizes `half` around the origin, its corners rounded by `corner`."""
    dx, dy = np.abs(x) - (half[0] - corner), np.abs(y) - (half[1] - corner)
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return np.asarray(outside + np.minimum(np.maximum(dx, dy), 0) - corner)


def path_distance(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance to a line through `points` (n, 2)."""
    best = np.full(x.shape, np.inf, np.float32)
    for (x0, y0), (x1, y1) in zip(points[:-1].astype(np.float32), points[1:].astype(np.float32), strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        np.minimum(best, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2, out=best)
    return np.sqrt(best)


def jagged(
    rng: np.random.Generator, start: tuple[float, float], angle: float, length: float, *, n: int, wander: float
) -> np.ndarray:
    """A path (n + 1, 2) of n steps from `start`, heading along `angle` and turning by about `wander` radians a step."""
    headings = angle + np.cumsum(rng.normal(0, wander, n)) * 0.6 + rng.normal(0, wander, n)
    steps = np.column_stack([np.cos(headings), np.sin(headings)]) * (length / n)
    return np.asarray(np.vstack([[start], np.asarray(start) + np.cumsum(steps, axis=0)]))


def clouds(rng: np.random.Generator, size: int, cells: int, *, octaves: int = 1) -> np.ndarray:
    """Smooth noise (size, size) float32 with mean about 0 and deviation about 0.7; `cells` bumps across, halved per octave."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        grid = rng.standard_normal((cells * 2**octave + 3,) * 2, dtype=np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return total


def grain(rng: np.random.Generator, size: int, blur: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Noise (size, size) float32, smeared by `blur` pixels along x and y, its deviation brought back to 1."""
    noise = rng.standard_normal((size, size), dtype=np.float32)
    if max(blur) > 0:
        noise = cv2.GaussianBlur(noise, (0, 0), max(blur[0], 0.01), sigmaY=max(blur[1], 0.01))
        noise /= max(float(noise.std()), 1e-6)
    return noise
