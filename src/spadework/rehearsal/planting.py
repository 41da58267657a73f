"""Planted defects: what could be wrong with a part, put on pictures of good ones, where and how large is known to the pixel.

In: a normal picture and another one, uint8 (H, W, 3); a seeded generator. Out: `Planted`: the picture with one defect, and its mask.
A defect has a kind, an outline (an uneven blob, or a stroke), a size from SMALLEST to LARGEST of the picture's shorter side, and a strength from 0
(barely visible) to 1 (plain). What lies within the outline is replaced by what the kind makes of it, blended over the outline's edge. Only the part is
touched, not a plain ground around it. The mask is where the picture really changed; a draw that changes nothing is drawn again.
Sources: Li et al. 2021, CutPaste; Zavrtanik et al. 2021, DRAEM (foreign texture); Schlueter et al. 2022, Natural Synthetic Anomalies (blending,
foreground, sizes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from spadework.rehearsal.outlines import Box, blob, stroke, visible

SMALLEST, LARGEST = 0.005, 0.4  # diameter of a defect, in shorter sides of the picture
LEAST_PIXELS = 4  # and never less across
TRIES = 12
GROUND_SIDE = 128  # pixels a side at which the plain ground around a part is looked for
GROUND_LEVELS = 12.0  # a ground's border is even to so many grey levels


@dataclass(frozen=True)
class Planted:
    """A picture with a defect.

    picture: uint8 (H, W, 3). mask: bool (H, W), True where it differs from the normal one; never empty.
    kind: a key of KINDS. size: diameter in shorter sides. strength: 0 (barely visible) to 1 (plain).
    """

    picture: np.ndarray
    mask: np.ndarray
    kind: str
    size: float
    strength: float


@dataclass(frozen=True)
class Site:
    """Where a defect goes.

    picture, donor: uint8 (H, W, 3), the one it is planted on and one to take pieces from. box: the rows and columns it may change.
    part: bool (h, w) of the whole picture, small: what is no plain ground. diameter: pixels. strength: 0 to 1.
    """

    picture: np.ndarray
    donor: np.ndarray
    box: Box
    part: np.ndarray
    diameter: float
    strength: float
    rng: np.random.Generator

    @property
    def here(self) -> np.ndarray:
        """What is there: float32 (h, w, 3)."""
        return np.asarray(self.picture[self.box], np.float32)

    def between(self, faint: float, plain: float) -> float:
        """A quantity between its faint and its plain value, by equal factors."""
        return float(faint * (plain / faint) ** self.strength)

    def elsewhere(self) -> np.ndarray:
        """A piece of the donor, from another place of the part: float32 (h, w, 3)."""
        height, width = self.here.shape[:2]
        y, x = _place(_part(self.donor), self.donor.shape, self.rng)
        top, left = (
            int(np.clip(at - length // 2, 0, max(0, side - length)))
            for at, length, side in ((y, height, self.donor.shape[0]), (x, width, self.donor.shape[1]))
        )
        piece = self.donor[top : top + height, left : left + width].astype(np.float32)
        return piece if piece.shape[:2] == (height, width) else cv2.resize(piece, (width, height))

    def tint(self, levels: float) -> np.ndarray:
        """A shift of so many grey levels towards where there is room for it, float32 (3,); gray on a gray picture."""
        here = self.here.reshape(-1, 3)
        up = self.rng.random() < np.clip((255 - here.mean()) / 255, 0.1, 0.9)
        is_gray = bool((np.ptp(here, axis=1) < 1).all())
        colour = np.ones(3) if is_gray else 1 + self.rng.uniform(-0.6, 0.2, 3)
        return np.asarray(colour * (levels if up else -levels), np.float32)


def _moved(site: Site) -> np.ndarray:
    """A piece from another place of this picture or of another."""
    return _mixed(site, site.elsewhere())


def _foreign(site: Site) -> np.ndarray:
    """Texture that does not belong there: a piece turned, scaled, of another contrast."""
    piece = site.elsewhere()
    height, width = piece.shape[:2]
    turn = cv2.getRotationMatrix2D(
        (width / 2, height / 2), site.rng.uniform(30, 330), float(np.exp(site.rng.uniform(-0.9, 0.9)))
    )
    piece = cv2.warpAffine(piece, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    mean = piece.mean(axis=(0, 1))
    return _mixed(site, mean + (piece - mean) * site.rng.uniform(0.5, 1.8) + site.tint(site.between(3, 25)))


def _mixed(site: Site, piece: np.ndarray) -> np.ndarray:
    return np.asarray(site.here + (piece - site.here) * np.float32(0.4 + 0.6 * site.strength))


def _stained(site: Site) -> np.ndarray:
    """Lighter, darker or of another colour."""
    return np.asarray(site.here + site.tint(site.between(7, 90)))


def _scratched(site: Site) -> np.ndarray:
    """As a stain, but a stroke: see `outline`."""
    return np.asarray(site.here + site.tint(site.between(10, 120)))


def _missing(site: Site) -> np.ndarray:
    """Gone: what the surroundings look like on average, or a hole of one colour."""
    ground = site.here.reshape(-1, 3).mean(axis=0)
    if site.rng.random() < 0.5:
        border = np.concatenate([site.picture[0], site.picture[-1], site.picture[:, 0], site.picture[:, -1]])
        ground = np.median(border, axis=0)
    return _mixed(site, np.broadcast_to(ground.astype(np.float32), site.here.shape))


def _shifted(site: Site) -> np.ndarray:
    """Displaced or turned a little in its place."""
    here = site.here
    height, width = here.shape[:2]
    motion = cv2.getRotationMatrix2D((width / 2, height / 2), site.rng.normal(0, site.between(4, 25)), 1.0)
    way = site.rng.uniform(0, 2 * np.pi)
    motion[:, 2] += site.between(0.08, 0.5) * site.diameter * np.array([np.cos(way), np.sin(way)])
    return np.asarray(cv2.warpAffine(here, motion, (width, height), borderMode=cv2.BORDER_REFLECT))


def _blurred(site: Site) -> np.ndarray:
    """Out of focus, polished."""
    sigma = max(0.8, site.between(0.05, 0.35) * site.diameter)
    return np.asarray(cv2.GaussianBlur(site.here, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))


def _grained(site: Site) -> np.ndarray:
    """Rough: grain of some size."""
    here = site.here
    noise = site.rng.standard_normal(here.shape[:2]).astype(np.float32)
    grain = float(np.exp(site.rng.uniform(np.log(0.4), np.log(max(0.5, site.diameter / 6)))))
    noise = cv2.GaussianBlur(noise, (0, 0), grain, borderType=cv2.BORDER_REFLECT)
    noise *= np.float32(site.between(5, 45) / max(float(noise.std()), 1e-3))
    return np.asarray(here + noise[..., None])


KINDS: dict[str, Callable[[Site], np.ndarray]] = {
    "moved piece": _moved,
    "foreign texture": _foreign,
    "stain": _stained,
    "scratch": _scratched,
    "missing piece": _missing,
    "shifted piece": _shifted,
    "blur": _blurred,
    "grain": _grained,
}


def plant(picture: np.ndarray, donor: np.ndarray, *, rng: np.random.Generator, kind: str | None = None) -> Planted:
    """Plant one defect on a normal picture. The same generator gives the same defect.

    Args:
        picture: uint8 (H, W, 3), not changed.
        donor: another normal picture, or the same, uint8 (h, w, 3): pieces and textures are taken from it or from `picture`.
        rng: of everything that is drawn.
        kind: a key of KINDS; None to draw one.
    """
    part, side = _part(picture), min(picture.shape[:2])
    least = min(max(SMALLEST, LEAST_PIXELS / side), LARGEST)
    size = float(np.exp(rng.uniform(np.log(least), np.log(LARGEST))))
    strength = float(rng.random())
    kind = str(rng.choice(list(KINDS))) if kind is None else kind
    for attempt in range(TRIES):
        name = (
            kind if attempt < TRIES // 2 else ("stain", "scratch")[attempt % 2]
        )  # some pictures have nothing to move or to blur
        source = donor if rng.random() < 0.5 else picture
        found = _attempt(name, picture, source, part, size * side, min(1.0, strength + 0.08 * attempt), rng)
        if found is not None:
            return Planted(*found, name, size, min(1.0, strength + 0.08 * attempt))
    changed = picture.copy()  # all black and all white in one place: nothing else showed
    y, x = _place(part, picture.shape, rng)
    reach = max(1, round(size * side / 2))
    mask = np.zeros(picture.shape[:2], bool)
    mask[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = True
    changed[mask] = 255 - changed[mask]
    return Planted(changed, mask, "stain", size, 1.0)


def _attempt(
    kind: str,
    picture: np.ndarray,
    donor: np.ndarray,
    part: np.ndarray,
    diameter: float,
    strength: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray] | None:
    """A picture and its mask, or None where nothing can be seen."""
    y, x = _place(part, picture.shape, rng)
    outline = stroke if kind == "scratch" else blob
    box, alpha = outline(y, x, picture.shape, diameter, rng)
    site = Site(picture, donor, box, part, diameter, strength, rng)
    blended = site.here + (KINDS[kind](site) - site.here) * alpha[..., None]
    rows, columns = (
        np.arange(own.start, own.stop) * small // side
        for own, small, side in zip(box, part.shape, picture.shape[:2], strict=True)
    )
    new = np.clip(np.rint(blended), 0, 255).astype(np.uint8)
    mask = visible(picture[box], new, diameter) & part[np.ix_(rows, columns)]
    if mask.sum() < LEAST_PIXELS:
        return None
    changed, whole = picture.copy(), np.zeros(picture.shape[:2], bool)
    changed[box][mask] = new[mask]
    whole[box] = mask
    return changed, whole


def _part(picture: np.ndarray) -> np.ndarray:
    """What is no plain ground around a part: bool (h, w), small. All, where the border of the picture is not of one colour."""
    scale = min(1.0, GROUND_SIDE / min(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.GaussianBlur(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), (3, 3), 0).astype(np.float32)
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    colour = np.median(border, axis=0)
    apart = np.abs(small - colour).max(axis=2)
    on_border = np.abs(border - colour).max(axis=1)
    everything = np.ones(apart.shape, bool)
    if np.quantile(on_border, 0.85) > GROUND_LEVELS:
        return everything
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    part = cv2.morphologyEx((apart > 1.5 * GROUND_LEVELS).astype(np.uint8), cv2.MORPH_CLOSE, disc)
    part = cv2.morphologyEx(part, cv2.MORPH_OPEN, disc)
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(part, outlines, -1, 1, cv2.FILLED)  # holes belong to the part
    return part > 0 if 0.03 < float(part.mean()) < 0.97 else everything


def _place(part: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    """A place of the part, in pixels of the picture."""
    cells = np.flatnonzero(part)
    y, x = divmod(int(cells[rng.integers(len(cells))]), part.shape[1])
    tall, wide = shape[0] / part.shape[0], shape[1] / part.shape[1]
    return min(shape[0] - 1, int((y + rng.random()) * tall)), min(shape[1] - 1, int((x + rng.random()) * wide))
