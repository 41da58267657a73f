"""The pyramid of an image: level maps and a global vector, and the descriptors of its fine grid.

In: what a backbone returns for one image: level maps float32 (C_l, H_l, W_l), finest first, and a global vector float32 (D,).
Out: `Pyramid`, and `descriptors`: float32 (H * W, C), one row for each position of the fine grid in reading order.
Letters: `L` levels, `C_l` channels, `H_l x W_l` the grid of level l, `H x W` the fine grid, `C = sum C_l`, `D` of the global vector.

Levels finer than the fine grid are averaged down to it when the pyramid is made; coarser ones are kept as they are (a fifth of
the room) and brought up only where descriptors are needed.
Source: Cohen and Hoshen 2020, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from spadework.errors import InputError

LARGEST = 1e15
UPSAMPLINGS = frozenset({"bilinear", "nearest"})


@dataclass(frozen=True)
class Pyramid:
    """One image's features.

    levels: float32 (H_l, W_l, C_l) each, channels last, the fine grid first.
    global_vector: float32 (D,).
    """

    levels: tuple[np.ndarray, ...]
    global_vector: np.ndarray

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of the fine grid."""
        return self.levels[0].shape[0], self.levels[0].shape[1]

    @property
    def is_sound(self) -> bool:
        """Whether all features are numbers whose squares can be summed in float32: neither NaN nor infinite nor beyond 1e15."""
        return all(bool((np.abs(part) < LARGEST).all()) for part in (*self.levels, self.global_vector))


@dataclass(frozen=True)
class Geometry:
    """The shapes of a pyramid's levels, (H_l, W_l, C_l) each, as a gallery holds them: flat, one record an image."""

    shapes: tuple[tuple[int, int, int], ...]

    @property
    def length(self) -> int:
        """Numbers in one record."""
        return sum(h * w * c for h, w, c in self.shapes)

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of the fine grid."""
        return self.shapes[0][:2]

    @property
    def channels(self) -> int:
        """C, the length of a joint descriptor."""
        return sum(shape[2] for shape in self.shapes)

    def check(self, levels: Sequence[np.ndarray]) -> None:
        """Raise InputError unless the levels have these shapes."""
        found = tuple(level.shape for level in levels)
        if found != self.shapes:
            raise InputError(
                f"these level maps have shapes {found}, the gallery holds {self.shapes}: refit with one size."
            )

    def pack(self, levels: Sequence[np.ndarray]) -> np.ndarray:
        """Return the levels as one flat record."""
        self.check(levels)
        return np.concatenate([level.reshape(-1) for level in levels])

    def unpack(self, record: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return a record's levels, (H_l, W_l, C_l) each, without copying."""
        levels, start = [], 0
        for shape in self.shapes:
            end = start + shape[0] * shape[1] * shape[2]
            levels.append(record[start:end].reshape(shape))
            start = end
        return tuple(levels)


def build(levels: Sequence[np.ndarray], global_vector: np.ndarray, *, grid_level: int = 0, pooling: int = 1) -> Pyramid:
    """Make a pyramid from a network's output for one image.

    Args:
        levels: float32 (C_l, H_l, W_l), finest first.
        global_vector: float32 (D,).
        grid_level: which level's grid is the fine grid; finer levels are averaged down to it.
        pooling: side, in positions of each level's own grid, of the neighbourhood each feature is averaged over; 1 is none.
    """
    maps = [pool(_channels_last(level), pooling) for level in levels]  # (H_l, W_l, C_l)
    height, width = maps[grid_level].shape[:2]
    maps = [_average_down(level, height, width) if level.shape[0] > height else level for level in maps]
    return Pyramid(tuple(maps), global_vector)


def padded(pyramid: Pyramid, place: tuple[slice, slice], size: tuple[int, int]) -> Pyramid:
    """Return the pyramid of a larger view, whose places beyond the picture repeat the picture's nearest.

    Args:
        pyramid: of the picture alone.
        place: rows and columns of the view that show the picture, in pixels, multiples of the network's coarsest stride.
        size: (height, width) of the view in pixels.
    """
    levels = []
    for level in pyramid.levels:
        around = []
        for own, side, count in zip(place, size, level.shape[:2], strict=True):
            stride = (own.stop - own.start) // count
            around.append((own.start // stride, (side - own.stop) // stride))
        levels.append(np.pad(level, [*around, (0, 0)], mode="edge"))
    return Pyramid(tuple(levels), pyramid.global_vector)


def _channels_last(level: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (h, w, C). OpenCV transposes block by block: 0.04 ms for the embedded network's levels, NumPy 0.44 ms."""
    channels, height, width = level.shape
    return np.asarray(cv2.transpose(level.reshape(channels, height * width))).reshape(height, width, channels)


def descriptors(levels: Sequence[np.ndarray], *, upsampling: str = "bilinear") -> np.ndarray:
    """Return the joint descriptors of every fine position: float32 (H * W, C), reading order, levels side by side.

    Bilinear upsampling samples at pixel centres (`align_corners=False`) and repeats the border, as PyTorch's `interpolate` does.
    """
    height, width = levels[0].shape[:2]
    out = np.empty((height, width, sum(level.shape[2] for level in levels)), np.float32)
    start = 0
    for level in levels:
        out[..., start : start + level.shape[2]] = upsample(level, height, width, upsampling=upsampling)
        start += level.shape[2]
    return out.reshape(height * width, -1)


def upsample(level: np.ndarray, height: int, width: int, *, upsampling: str = "bilinear") -> np.ndarray:
    """Bring (h, w, C) to (height, width, C), float32."""
    level = level.astype(np.float32, copy=False)
    if level.shape[:2] == (height, width):
        return level
    # Two gathers and a blend for each axis: no matrix product, whose threads get in each other's way on a busy machine
    # (measured there: 11 ms against 0.3 ms for one level of the embedded network).
    tall = _blend(level, sampling(level.shape[0], height, upsampling), axis=0)  # (height, w, C)
    return _blend(tall, sampling(level.shape[1], width, upsampling), axis=1)  # (height, width, C)


def _blend(level: np.ndarray, places: tuple[np.ndarray, np.ndarray, np.ndarray], *, axis: int) -> np.ndarray:
    low, high, share = places
    out = np.take(level, low, axis=axis)
    if share.any():
        weights = share.reshape(-1, *[1] * (level.ndim - axis - 1))
        out += (np.take(level, high, axis=axis) - out) * weights
    return out


@lru_cache(maxsize=64)
def sampling(size: int, target: int, upsampling: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each target index: the two source indices it lies between, and the share of the second, float32."""
    index = np.arange(target)
    if upsampling == "nearest":
        low = high = index * size // target
        share = np.zeros(target, np.float32)
    else:
        place = np.clip((index + 0.5) * size / target - 0.5, 0, size - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, size - 1)
        share = (place - low).astype(np.float32)
    for array in (low, high, share):
        array.setflags(write=False)  # cached: shared by every caller
    return low, high, share


def _average_down(level: np.ndarray, height: int, width: int) -> np.ndarray:
    h, w, channels = level.shape
    if h % height or w % width:
        raise InputError(
            f"a level of {h} x {w} cannot be averaged to a grid of {height} x {width}: choose another image size."
        )
    cells = level.reshape(height, h // height, width, w // width, channels)
    return np.asarray(cells.mean(axis=(1, 3), dtype=np.float32))


def pool(level: np.ndarray, side: int) -> np.ndarray:
    """Average each position of (H, W, C) with its neighbours in a `side` x `side` window; at the border with those there are."""
    if side == 1:
        return level
    if side % 2 == 0 or side < 1:
        raise InputError(f"pooling must be odd and at least 1, not {side}.")
    return _window_mean(_window_mean(level, side // 2, axis=0), side // 2, axis=1)


def _window_mean(level: np.ndarray, reach: int, *, axis: int) -> np.ndarray:
    """Mean of each place with its neighbours up to `reach` away along one axis.

    Sums of shifted maps, no matrix product: its threads go on spinning afterwards and take the cores from the forward pass
    beside it (embedded network, two cores: 0.3 ms a picture, against 4.9 ms with products).
    """
    means = level.copy()
    total, part = np.moveaxis(means, axis, 0), np.moveaxis(level, axis, 0)
    for step in range(1, reach + 1):
        total[step:] += part[:-step]
        total[:-step] += part[step:]
    place = np.arange(len(part))
    count = np.minimum(place + reach, len(part) - 1) - np.maximum(place - reach, 0) + 1
    total /= count.astype(np.float32)[:, None, None]
    return means
