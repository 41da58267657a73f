"""How a part lies in a picture, compared with a reference: turned by an angle and shifted.

In: a reference and a picture of one size, gray, float32 (h, w). Out: a `Motion`, and how well the picture then agrees with the reference.
1. Both are made small, COARSE pixels a side. For every angle in steps of STEP degrees the small picture is turned, and phase correlation with the
   reference finds the shift; half-way whitened, so that neither a few bright places nor the noise of all frequencies decides.
2. The best CANDIDATES, whose angles differ, are refined on pictures of FINE pixels a side, by Evangelidis and Psarakis' enhanced correlation
   coefficient as OpenCV has it; the one that agrees best is kept, and refined once more at full size.
Trying all angles costs some 20 ms and misses none; a log-polar transform would have to choose among the same peaks. Where a part looks nearly the
same at several angles, as a gear does, any of these may be found.
Source: Kuglin and Hines 1975, The phase correlation image alignment method; Evangelidis and Psarakis 2008, Parametric Image Alignment Using
Enhanced Correlation Coefficient Maximization.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

COARSE = 64
FINE = 96
STEP = 3.0
CANDIDATES = 6
APART = 7.0  # degrees between candidates
REACH = 0.2  # the farthest shift after a turn about the middle, in sides
OVERLAP = 0.75  # share of the reference's inscribed ellipse that must be seen, which is what such a shift leaves


@dataclass(frozen=True)
class Motion:
    """matrix: float64 (2, 3), from places (x, y, 1) of the reference to places (x, y) of the picture. agreement: correlation, -1 to 1."""

    matrix: np.ndarray
    agreement: float

    @property
    def angle(self) -> float:
        """How far the picture is turned against the reference, in degrees, from the x to the y axis (as seen: clockwise)."""
        return float(np.rad2deg(np.arctan2(self.matrix[1, 0], self.matrix[0, 0])))

    def to_reference(self, picture: np.ndarray) -> np.ndarray:
        """Bring a picture (h, w) to the reference's place; beyond its border its border goes on."""
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = picture.shape[::-1]
        return np.asarray(cv2.warpAffine(picture, self.matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))

    def to_picture(self, reference: np.ndarray) -> np.ndarray:
        """Bring something of the reference (h, w) to the picture's place; beyond its border its border goes on."""
        size = reference.shape[::-1]
        return np.asarray(
            cv2.warpAffine(reference, self.matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )

    def seen(self, shape: tuple[int, ...]) -> np.ndarray:
        """Where the reference lies within the picture: bool (h, w)."""
        return _inside(self.matrix, shape, cv2.WARP_INVERSE_MAP)

    def known(self, shape: tuple[int, ...]) -> np.ndarray:
        """Where the picture lies within the reference: bool (h, w)."""
        return _inside(self.matrix, shape, 0)


STILL = Motion(np.eye(2, 3), 1.0)


class Aligner:
    """Finds how pictures lie against one reference, float32 (h, w)."""

    def __init__(self, reference: np.ndarray) -> None:
        self.shape = reference.shape
        self._scales = [min(1.0, side / max(reference.shape)) for side in (COARSE, FINE)]
        self._small = [_scaled(reference, scale) for scale in self._scales]
        self._full = _scaled(reference, 1.0)
        self._window = _window(self._small[0].shape)
        shifts = [np.minimum(np.arange(side), side - np.arange(side)) / side for side in self._window.shape]
        self._far = np.hypot(shifts[0][:, None], shifts[1]) > REACH
        self._spectrum = np.fft.rfft2(_flat(self._small[0], self._window))

    def find(self, picture: np.ndarray) -> Motion:
        """Return how a picture, float32 (h, w), lies. One that shows nothing agrees with nothing: it stays where it is."""
        coarse, fine = (_scaled(picture, scale) for scale in self._scales)
        starts = [
            _rescaled(matrix, self._scales[1] / self._scales[0]) for matrix in (STILL.matrix, *self._candidates(coarse))
        ]
        found = [self._refine(self._small[1], fine, matrix) for matrix in starts]
        best = max(found, key=lambda motion: motion.agreement)
        matrix = _rescaled(best.matrix, 1 / self._scales[1])
        return self._refine(self._full, _scaled(picture, 1.0), matrix)

    def _candidates(self, picture: np.ndarray) -> list[np.ndarray]:
        """Motions at the coarse size, best first, of different angles."""
        flat = _flat(picture, self._window)
        angles = np.arange(0.0, 360.0, STEP)
        found = [self._shifted(flat, angle) for angle in angles]
        order = sorted(range(len(angles)), key=lambda index: -found[index][0])
        chosen: list[int] = []
        for index in order:
            if all(_between(angles[index], angles[other]) >= APART for other in chosen):
                chosen.append(index)
            if len(chosen) == CANDIDATES:
                break
        return [found[index][1] for index in chosen]

    def _shifted(self, flat: np.ndarray, angle: float) -> tuple[float, np.ndarray]:
        """The peak of the phase correlation at an angle, and the motion that it means."""
        height, width = flat.shape
        turn = _turned(angle, flat.shape)  # from places of the turned picture to places of the picture
        turned = cv2.warpAffine(flat, turn, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        cross = np.fft.rfft2(turned) * np.conj(self._spectrum)
        correlation = np.fft.irfft2(cross / np.sqrt(np.abs(cross) + 1e-12), s=flat.shape)
        correlation[self._far] = -np.inf
        peak = int(correlation.argmax())
        dy, dx = (
            place if place <= side // 2 else place - side
            for place, side in zip(divmod(peak, width), flat.shape, strict=True)
        )
        shift = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])  # reference -> turned picture
        return float(correlation.flat[peak]), turn @ shift

    def _refine(self, reference: np.ndarray, picture: np.ndarray, matrix: np.ndarray) -> Motion:
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-5)
        start = _agreement(reference, picture, matrix)
        # The picture is brought near first: OpenCV's step takes the arc sine of the turn it starts from, and is lost beyond 90 degrees.
        near, mask = start.to_reference(picture), start.seen(reference.shape).astype(np.uint8)
        try:
            _, rest = cv2.findTransformECC(
                reference, near, np.eye(2, 3, dtype=np.float32), cv2.MOTION_EUCLIDEAN, criteria, mask, 1
            )
        except cv2.error:  # it found no way up from here, or a picture shows nothing
            return start
        better = _agreement(reference, picture, matrix @ np.vstack([rest, [0.0, 0.0, 1.0]]))
        return max(start, better, key=lambda motion: motion.agreement)


def correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Return Pearson's correlation of two arrays of one size; 0 where one of them is constant."""
    one, two = one - one.mean(dtype=np.float64), two - two.mean(dtype=np.float64)
    norm = np.sqrt((one * one).sum() * (two * two).sum())
    return float((one * two).sum() / norm) if norm > 0 else 0.0


def _agreement(reference: np.ndarray, picture: np.ndarray, matrix: np.ndarray) -> Motion:
    """Over the whole reference, the picture's border going on: over what both show alone, a motion that moves a defect out of sight would win."""
    motion = Motion(matrix, -1.0)
    if motion.seen(reference.shape)[_window(reference.shape) > 0].mean() < OVERLAP:
        return motion
    return Motion(matrix, correlation(reference, motion.to_reference(picture)))


def _inside(matrix: np.ndarray, shape: tuple[int, ...], flags: int) -> np.ndarray:
    ones = np.full(shape[:2], 255, np.uint8)
    return np.asarray(cv2.warpAffine(ones, matrix, (shape[1], shape[0]), flags=flags | cv2.INTER_LINEAR) == 255)


def _scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    """A smaller picture, a little blurred: noise agrees best half-way between pixels, where interpolation blurs it."""
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = picture if scale == 1.0 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (5, 5), 0))


def _rescaled(matrix: np.ndarray, factor: float) -> np.ndarray:
    """The same motion where pictures are `factor` times as large; places are those of pixel centres."""
    offset = (factor - 1) / 2
    middle = np.full(2, offset)
    out = matrix.copy()
    out[:, 2] = factor * matrix[:, 2] + middle - matrix[:, :2] @ middle
    return out


def _turned(angle: float, shape: tuple[int, ...]) -> np.ndarray:
    """(2, 3): a turn about the middle of a picture."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    y, x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    return np.array([[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y]])


@lru_cache(maxsize=8)
def _window(shape: tuple[int, ...]) -> np.ndarray:
    """1 in the middle, falling to 0 at the inscribed ellipse: what turns within it stays within the picture."""
    y, x = (
        np.linspace(-1, 1, side) if side > 2 else np.zeros(side) for side in shape
    )  # nothing lies within two pixels
    radius = np.sqrt(y[:, None] ** 2 + x**2)
    window = np.asarray(np.cos(np.clip((radius - 0.6) / 0.4, 0, 1) * np.pi) / 2 + 0.5, np.float32)
    window.setflags(write=False)  # cached: shared by every caller
    return window


def _flat(picture: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The picture less its mean within the window, faded out towards its border."""
    mean = (picture * window).sum() / window.sum()
    return np.asarray((picture - mean) * window, np.float32)


def _between(one: float, two: float) -> float:
    difference = abs(one - two) % 360
    return min(difference, 360 - difference)
