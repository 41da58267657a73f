"""From a surface to a photograph: light, shadow, lens and sensor.

One lamp, somewhat to the side and unlike from picture to picture, throws shadows and highlights; its light is uneven over the
scene and falls off to the corners; the lens blurs; the sensor has a tone curve and noise that grows with the light.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from spadework.datasets.synthetic.scene import Surface

_VIEW = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Shot:
    """The light and the camera of one picture.

    azimuth: where the lamp is, radians. elevation: its tangent above the scene. ambient: share of light without direction.
    tilt: how much brighter each side is (2,). falloff: darkening of the corners. exposure, tint (3,): as factors.
    blur: of the lens, in pixels at 256. noise: of the sensor, in grey levels at mid grey.
    """

    azimuth: float
    elevation: float
    ambient: float
    tilt: np.ndarray
    falloff: float
    exposure: float
    tint: np.ndarray
    blur: float
    noise: float


def set_up(rng: np.random.Generator) -> Shot:
    """The light and camera of one picture: the same lamp and camera every time, never quite alike."""
    return Shot(
        azimuth=np.deg2rad(rng.normal(-125.0, 8.0)),
        elevation=rng.uniform(1.0, 1.4),
        ambient=rng.uniform(0.36, 0.44),
        tilt=rng.normal([-0.10, -0.10], 0.03),
        falloff=rng.uniform(0.15, 0.28),
        exposure=rng.normal(1.0, 0.025),
        tint=1.0 + rng.normal(0, 0.008, 3),
        blur=rng.uniform(0.55, 0.75),
        noise=rng.uniform(1.3, 1.9),
    )


def expose(surface: Surface, shot: Shot) -> np.ndarray:
    """Photograph a surface, but for the sensor's noise: float32 (H, W, 3) in 0..255."""
    size = surface.height.shape[0]
    lamp = np.array([np.cos(shot.azimuth), np.sin(shot.azimuth), shot.elevation])
    lamp /= np.linalg.norm(lamp)
    diffuse, shine = _shade(surface, lamp)
    lit = _shadow(surface.height, shot)
    light = _uneven(size, shot) * (shot.ambient * _nooks(surface.height) + (1 - shot.ambient) * lit * diffuse)
    mirrored = (surface.gloss * shine + surface.glow) * (0.25 + 0.75 * lit)
    linear = surface.albedo * light[..., None] + (mirrored * 0.6)[..., None]
    linear *= (shot.exposure * shot.tint).astype(np.float32)
    sigma = shot.blur * max(size / 256.0, 0.5)
    return _tone(cv2.GaussianBlur(linear, (0, 0), sigma))


def add_noise(picture: np.ndarray, shot: Shot, rng: np.random.Generator) -> np.ndarray:
    """The sensor's noise and the eight bits: float32 (H, W, 3) in 0..255 to uint8. Darkness is noisy too, less so."""
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    noise *= shot.noise * (0.55 + 0.04 * np.sqrt(picture))
    return np.asarray(np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8))


def _shade(surface: Surface, lamp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse light (1 on a level place) and the lamp's mirror image, each (H, W)."""
    size = surface.height.shape[0]
    # Sobel, not plain differences: a step of one pixel is a slope the lens would have softened anyway
    slope_x = cv2.Sobel(surface.height, cv2.CV_32F, 1, 0, ksize=3, scale=size / 8.0)
    slope_y = cv2.Sobel(surface.height, cv2.CV_32F, 0, 1, ksize=3, scale=size / 8.0)
    length = np.sqrt(1.0 + slope_x**2 + slope_y**2)
    towards = (lamp[2] - lamp[0] * slope_x - lamp[1] * slope_y).astype(np.float32) / length
    half = (lamp + _VIEW) / np.linalg.norm(lamp + _VIEW)
    mirror = (half[2] - half[0] * slope_x - half[1] * slope_y).astype(np.float32) / length
    return np.maximum(towards, 0) / np.float32(lamp[2]), np.maximum(mirror, 0) ** 24


def _shadow(height: np.ndarray, shot: Shot, *, soft: float = 0.006) -> np.ndarray:
    """How much of the lamp each place sees, 0..1: whatever rises above the ray towards the lamp stands in its way."""
    size = height.shape[0]
    reach = float(height.max() - height.min()) / shot.elevation * size  # pixels
    n_steps = int(np.clip(np.ceil(reach / 1.5), 1, 10))
    hidden = np.zeros_like(height)
    for step in range(1, n_steps + 1):
        distance = reach * step / n_steps
        shift = np.array([[1, 0, distance * np.cos(shot.azimuth)], [0, 1, distance * np.sin(shot.azimuth)]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        moved = cv2.warpAffine(height, shift, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        np.maximum(hidden, moved - height - np.float32(distance / size * shot.elevation), out=hidden)
    blurred = cv2.GaussianBlur(np.minimum(hidden / np.float32(soft), 1), (0, 0), max(size / 200.0, 0.4))
    return np.asarray(1.0 - 0.92 * blurred)


def _nooks(height: np.ndarray) -> np.ndarray:
    """How much of the sky each place sees: less beside and below higher places."""
    around = cv2.GaussianBlur(height, (0, 0), max(height.shape[0] * 0.012, 0.5))
    return np.asarray(1.0 - np.clip((around - height) * 25.0, 0.0, 0.6))


def _uneven(size: int, shot: Shot) -> np.ndarray:
    """The lamp's light over the scene: brighter to one side, darker to the corners."""
    across = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = across[None, :], across[:, None]
    return np.asarray((1 + shot.tilt[0] * x + shot.tilt[1] * y) * (1 - shot.falloff * 0.5 * (x**2 + y**2)), np.float32)


def _tone(linear: np.ndarray) -> np.ndarray:
    """Linear light to grey levels: highlights roll off instead of clipping, then the usual gamma."""
    rolled = np.where(linear > 0.7, 0.7 + 0.3 * np.tanh((linear - 0.7) / 0.3), np.maximum(linear, 0))
    return np.asarray(255.0 * rolled ** np.float32(1 / 2.2), np.float32)
