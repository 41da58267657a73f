"""Tiles of a large view: overlapping parts, all of one size, that are searched each among the tiles that look most like it.

In: the size of a view. Out: where its tiles lie, what each holds of a pyramid's level maps, and maps of tiles brought together without a seam.
Letters: `T` tiles of a view, `H x W` the view's fine grid, `Ht x Wt` a tile's; the rest as in `spadework.pyramid`.

Tiles begin at multiples of the network's coarsest stride, so that each level's map is cut at whole places and is what the network gave for the
whole view, to the byte. Where tiles overlap their maps are blended: each counts fully in its middle, and less and less towards an edge that lies
within the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from spadework.pyramid import Pyramid

SIDE = 512  # of a tile, in pixels of the view; a view is cut along an axis on which it is longer
OVERLAP = 64  # of neighbouring tiles, at least


@dataclass(frozen=True)
class Tiling:
    """Where the tiles of a view lie.

    size: (height, width) of the view in pixels. tile: of each tile. rows, columns: where tiles begin, in pixels; tiles are counted in reading order.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def plan(
        cls, size: tuple[int, int], *, multiple: int, side: int | None = None, overlap: int | None = None
    ) -> Tiling:
        """Return the fewest tiles that cover a view, spread evenly; one that is the view itself where it is small enough.

        Args:
            size: (height, width) of the view, multiples of `multiple`.
            multiple: of the network's coarsest stride, in pixels; `side` and `overlap` are rounded to it.
            side: of a tile; None for SIDE.
            overlap: of neighbours, at least, but for rounding where they are spread; None for OVERLAP.
        """
        wanted = (SIDE if side is None else side, OVERLAP if overlap is None else overlap)
        side, overlap = (max(1, round(pixels / multiple)) * multiple for pixels in wanted)
        rows, columns = (_starts(length, side, overlap, multiple) for length in size)
        return cls(size, (min(size[0], side), min(size[1], side)), rows, columns)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tiling:
        """Read what `to_json` gave."""
        (height, width), (tall, wide) = data["size"], data["tile"]
        return cls((height, width), (tall, wide), tuple(data["rows"]), tuple(data["columns"]))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a model's header."""
        return {
            "size": list(self.size),
            "tile": list(self.tile),
            "rows": list(self.rows),
            "columns": list(self.columns),
        }

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @cached_property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """(y, x) of each tile, in pixels of the view."""
        return tuple((y, x) for y in self.rows for x in self.columns)

    def places(self, tile: int, grid: tuple[int, ...]) -> tuple[slice, slice]:
        """Return which rows and columns of a grid (H, W) over the view a tile covers."""
        y, x = self.corners[tile]
        rows, columns = (
            slice(start * count // side, (start + own) * count // side)
            for start, own, side, count in zip((y, x), self.tile, self.size, grid, strict=False)
        )
        return rows, columns

    def cut(self, levels: Sequence[np.ndarray]) -> list[Pyramid]:
        """Return what each tile holds of a view's level maps, (H_l, W_l, C_l) each, and as its global vector the mean of the last of them."""
        parts = [tuple(level[self.places(tile, level.shape)] for level in levels) for tile in range(len(self))]
        return [Pyramid(part, mean_of(part[-1])) for part in parts]

    def weights(self, tile: int, grid: tuple[int, int]) -> np.ndarray:
        """Return how much each place of a tile counts, float64 (Ht, Wt), over 0 and up to 1."""
        own = self.places(tile, grid)
        y, x = self.corners[tile]
        ramps = []
        for axis, (start, starts) in enumerate(((y, self.rows), (x, self.columns))):
            place, count = starts.index(start), own[axis].stop - own[axis].start
            cell = self.size[axis] / grid[axis]
            before = 0 if place == 0 else (starts[place - 1] + self.tile[axis] - start) / cell
            after = 0 if place == len(starts) - 1 else (start + self.tile[axis] - starts[place + 1]) / cell
            ramps.append(_ramp(count, before) * _ramp(count, after)[::-1])
        return np.asarray(ramps[0][:, None] * ramps[1])

    def blend(self, maps: Sequence[np.ndarray], grid: tuple[int, int]) -> np.ndarray:
        """Return one map (H, W), float64, of the maps of all tiles, (Ht, Wt) each."""
        total, weight = np.zeros(grid), np.zeros(grid)
        for tile, own in enumerate(maps):
            places, shares = self.places(tile, grid), self.weights(tile, grid)
            total[places] += own * shares
            weight[places] += shares
        return total / weight

    def owners(self, grid: tuple[int, int]) -> np.ndarray:
        """Return which tile each place of the grid counts most in, int64 (H, W); the first of equals."""
        owner, best = np.zeros(grid, np.int64), np.zeros(grid)
        for tile in range(len(self)):
            places, shares = self.places(tile, grid), self.weights(tile, grid)
            more = shares > best[places]
            owner[places] = np.where(more, tile, owner[places])
            best[places] = np.maximum(best[places], shares)
        return owner


def mean_of(level: np.ndarray) -> np.ndarray:
    """The mean (C,) over all places of a level map (H, W, C), float32, summed in float64."""
    return np.asarray(level.mean(axis=(0, 1), dtype=np.float64), np.float32)


def _starts(length: int, side: int, overlap: int, multiple: int) -> tuple[int, ...]:
    """Where tiles of `side` begin on an axis."""
    if length <= side:
        return (0,)
    count = -(-(length - overlap) // (side - overlap))
    return tuple(round((length - side) * index / (count - 1) / multiple) * multiple for index in range(count))


def _ramp(count: int, length: float) -> np.ndarray:
    """Weights (count,) that rise over the first `length` places, from above 0 to 1."""
    return np.minimum(1.0, (np.arange(count) + 0.5) / length) if length else np.ones(count)
