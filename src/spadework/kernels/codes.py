"""Codes: descriptors as short rows of int16, from which distances are bounded from below.

A descriptor, less a mean, has coordinates on principal axes, and a rest outside them of which only the norm is kept. As the axes are
orthonormal, the distance in coordinates, with the rest's norm as one more, is at most the distance of the descriptors. Bounds look at
four depths, each sharper than the one before:
    near   15 axes + rest    16 codes, read for every pair
    mid    30 axes + rest    16 more, the near rest left out
    far   125 axes + rest    96 more
    deep  252 axes + rest   128 more, for descriptors of more than DEEP_FROM channels
Coordinates are scaled to int16 and rounded. What rounding moves, E, is known, and is added to the distance that is looked for.
All codes lie in a ball of RADIUS: what lies outside is drawn in to its surface, by a factor that is kept. As |x.y| <= RADIUS^2 < 2^30,
no sum leaves int32.

Levels are brought to their axes on their own grids and then upsampled, which is linear, so that few products are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from spadework.kernels.team import ALONE, Team
from spadework.pyramid import Geometry, sampling

if TYPE_CHECKING:
    from spadework.kernels.axes import Axes

RADIUS = 32_000.0
LANES = 16
DEEP_FROM = 512  # channels: measured with 336 the 128 further codes cost the room they take and save little
PARTS = ("near", "near_halves", "mid", "mid_halves", "far", "far_steps", "deep", "deep_steps", "copies")
NUMBERS = 8  # float64 at the head of a row: errors at four depths, largest norm, largest square, mean square, mean rest
NO_LANE = 2**31 - 1  # half a squared norm that no limit reaches


@dataclass(frozen=True)
class Layout:
    """How pyramids of given shapes are coded: the order of lanes, the parts of a row, how levels are sampled.

    shapes: (H_l, W_l, C_l), the fine grid first. upsampling: "bilinear" or "nearest".
    """

    shapes: tuple[tuple[int, int, int], ...]
    upsampling: str = "bilinear"

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of the fine grid."""
        return self.shapes[0][:2]

    @property
    def positions(self) -> int:
        """H * W."""
        return self.shapes[0][0] * self.shapes[0][1]

    @property
    def channels(self) -> int:
        """C, of a joint descriptor."""
        return sum(shape[2] for shape in self.shapes)

    @property
    def depths(self) -> int:
        """How many depths there are."""
        return 4 if self.channels > DEEP_FROM else 3

    @property
    def axes(self) -> int:
        """How many axes are used."""
        return 252 if self.depths == 4 else 125

    @property
    def width(self) -> int:
        """Codes of a position."""
        return 256 if self.depths == 4 else 128

    @cached_property
    def order(self) -> np.ndarray:
        """The position of each lane, int32, -1 where there is none: sixteen neighbours, 4 x 4 where the grid is that large.

        The number of groups is even: the first look takes two at a time.
        """
        height, width = self.grid
        side = (4, 4) if height >= 4 else (1, LANES)
        rows, columns = -(-height // side[0]), -(-width // side[1])
        padded = np.full((rows * side[0], columns * side[1]), -1, np.int32)
        padded[:height, :width] = np.arange(self.positions, dtype=np.int32).reshape(height, width)
        blocks = padded.reshape(rows, side[0], columns, side[1]).transpose(0, 2, 1, 3)
        lanes = blocks.reshape(-1)
        return np.concatenate([lanes, np.full(len(lanes) % (2 * LANES), -1, np.int32)])

    @cached_property
    def lane_of(self) -> np.ndarray:
        """The lane of each position, int32: the inverse of `order`."""
        lanes = np.empty(self.positions, np.int32)
        there = np.flatnonzero(self.order >= 0)
        lanes[self.order[there]] = there
        return lanes

    @property
    def groups(self) -> int:
        """Groups of sixteen lanes."""
        return len(self.order) // LANES

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where the PARTS of a row begin, in bytes, and its length: int64 (10,)."""
        lanes, deep = len(self.order), self.depths == 4
        sizes = [32 * lanes, 4 * lanes, 32 * lanes, 4 * lanes, 192 * lanes, 4 * lanes]
        sizes += [256 * lanes * deep, 4 * lanes * deep, 4 * lanes]
        return np.cumsum([8 * NUMBERS, *sizes], dtype=np.int64)

    @cached_property
    def geometry(self) -> np.ndarray:
        """For each level: where it begins in a record, its width, its channels, where its rows of coordinates begin. int64 (L, 4)."""
        out, record, row = [], 0, 0
        for height, width, channels in self.shapes:
            out.append((record, width, channels, row))
            record, row = record + height * width * channels, row + height * width
        return np.array(out, np.int64)

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """For each level, axis and index of the fine grid: two source indices, int64 (L, 2, 2, n), and the second's share, float32."""
        longest = max(self.grid)
        places = np.zeros((len(self.shapes), 2, 2, longest), np.int64)
        shares = np.zeros((len(self.shapes), 2, longest), np.float32)
        for level, shape in enumerate(self.shapes):
            for axis in (0, 1):
                low, high, share = sampling(shape[axis], self.grid[axis], self.upsampling)
                places[level, axis, :, : self.grid[axis]] = low, high
                shares[level, axis, : self.grid[axis]] = share
        return places, shares


@lru_cache(maxsize=16)
def layout_of(shapes: tuple[tuple[int, int, int], ...], upsampling: str = "bilinear") -> Layout:
    """Return the one layout of these shapes: its tables are made once."""
    return Layout(shapes, upsampling)


@dataclass(frozen=True)
class Encoded:
    """Codes of all fine positions of an image.

    codes: int16 (P, width). halves: int32 (P, depths), half the squared norm of the codes at each depth, rounded down.
    errors: float64 (P, depths), how far rounding moved each. factors: float64 (P,), norms by RADIUS, at least 1.
    largest: a bound of the norms of its descriptors.
    """

    codes: np.ndarray
    halves: np.ndarray
    errors: np.ndarray
    factors: np.ndarray
    largest: float


def encode(record: np.ndarray, layout: Layout, axes: Axes, team: Team = ALONE) -> Encoded:
    """Code an image's record, float32 (length,)."""
    from spadework.kernels import encoding

    count, record = layout.positions, np.ascontiguousarray(record, np.float32)
    rows = sum(height * width for height, width, _ in layout.shapes)
    projected = np.empty((rows, layout.width))
    products = np.empty((rows, 5))  # of each row of a level that is blended, with itself and its neighbours
    largest = np.zeros((team.threads, len(layout.shapes)))

    def project(share: int, of: int) -> None:
        first = 0
        for level, (height, width, channels) in enumerate(layout.shapes):
            start, row, n = int(layout.geometry[level, 0]), int(layout.geometry[level, 3]), height * width
            address, a, b = record.ctypes.data + 4 * start, n * share // of, n * (share + 1) // of
            own = slice(first, first + channels)
            encoding.project(address, axes.directions[own], projected[row : row + n], a, b)
            if (height, width) != layout.grid and layout.upsampling == "bilinear":
                encoding.neighbours(address, height, width, axes.mean[own], products[row : row + n], a, b)
            largest[share, level] = encoding.largest_square(address + 4 * channels * a, b - a, channels)
            first += channels

    team.share(lambda share: project(share, team.threads))
    codes = np.empty((count, layout.width), np.int16)
    halves, errors = np.empty((count, layout.depths), np.int32), np.empty((count, layout.depths))
    factors = np.empty(count)
    places, shares = layout.places

    def code(share: int, of: int) -> None:
        encoding.encode(
            record.ctypes.data,
            len(record),
            projected,
            products,
            layout.geometry,
            places,
            shares,
            axes.mean,
            axes.middle,
            axes.scale,
            RADIUS,
            layout.grid[1],
            count * share // of,
            count * (share + 1) // of,
            codes,
            halves,
            errors,
            factors,
        )

    team.share(lambda share: code(share, team.threads))
    return Encoded(codes, halves, errors, factors, float(np.sqrt(largest.max(axis=0).sum())))


def describe(record: np.ndarray, layout: Layout, team: Team = ALONE) -> np.ndarray:
    """Return what `pyramid.descriptors` returns of a record's levels, float32 (P, C), to the last digit."""
    from spadework.kernels import encoding

    record = np.ascontiguousarray(record, np.float32)
    if len(layout.shapes) == 1:
        return record.reshape(layout.positions, layout.channels)
    out = np.empty((layout.positions, layout.channels), np.float32)
    places, shares = layout.places

    def work(share: int) -> None:
        first, last = (layout.positions * (share + i) // team.threads for i in (0, 1))
        address, width = record.ctypes.data, layout.grid[1]
        encoding.describe(address, len(record), layout.geometry, places, shares, width, first, last, out)

    team.share(work)
    return out


def describe_at(record: np.ndarray, layout: Layout, positions: np.ndarray) -> np.ndarray:
    """Return some rows of what `describe` returns, float32 (n, C)."""
    from spadework.kernels import encoding

    record = np.ascontiguousarray(record, np.float32)
    if len(layout.shapes) == 1:
        return np.asarray(record.reshape(layout.positions, layout.channels)[positions])
    out = np.empty((layout.positions, layout.channels), np.float32)  # what is not written takes no memory
    (places, shares), address, width = layout.places, record.ctypes.data, layout.grid[1]
    for position in map(int, positions):
        encoding.describe(address, len(record), layout.geometry, places, shares, width, position, position + 1, out)
    return np.asarray(out[positions])


def to_row(record: np.ndarray, encoded: Encoded, layout: Layout, axes: Axes) -> np.ndarray:
    """Lay an image's codes out for the scan: uint8 (layout.offsets[-1],)."""
    order, offsets = layout.order, layout.offsets
    there, take = order >= 0, np.maximum(order, 0)
    row = _aligned(int(offsets[-1]))
    numbers = row[: 8 * NUMBERS].view(np.float64)
    numbers[: layout.depths] = encoded.errors.max(axis=0)
    numbers[4] = encoded.largest
    rest = encoded.codes[:, -1].astype(np.float64)
    inside = bool((encoded.factors == 1).all())
    numbers[5] = 2.0 * float(encoded.halves.max()) + 1.0 if inside else 0.0
    numbers[6:8] = 2.0 * float(encoded.halves[:, -1].mean()), float((rest * rest).mean())

    def part(name: str, kind: type) -> np.ndarray:
        place = PARTS.index(name)
        return row[offsets[place] : offsets[place + 1]].view(kind)

    codes = encoded.codes[take]
    codes[~there] = 0
    halves = np.where(there[:, None], encoded.halves[take], NO_LANE).astype(np.int32)
    for name, first in (("near", 0), ("mid", 16)):
        pairs = codes[:, first : first + 16].reshape(-1, LANES, 8, 2)  # (groups, lanes, pairs, 2)
        part(name, np.int16)[:] = pairs.transpose(0, 2, 1, 3).reshape(-1)
    part("near_halves", np.int32)[:] = halves[:, 0]
    part("mid_halves", np.int32)[:] = halves[:, 1]
    part("far", np.int16)[:] = codes[:, 32:128].reshape(-1)
    part("far_steps", np.int32)[:] = np.where(there, halves[:, 2] - halves[:, 1], 0)
    if layout.depths == 4:
        part("deep", np.int16)[:] = codes[:, 128:].reshape(-1)
        part("deep_steps", np.int32)[:] = np.where(there, halves[:, 3] - halves[:, 2], 0)
    part("copies", np.int32)[:] = _copies(record, encoded.codes, layout)[take]
    return row


def _aligned(length: int) -> np.ndarray:
    """Zeros, uint8, that begin where a cache line does, as mapped rows do: the first look is a third slower across lines."""
    room = np.zeros(length + 63, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + length]


def mean_squares(row: np.ndarray) -> tuple[float, float]:
    """Of an image's codes, in a row: the mean squared norm, and that of what lies outside the axes."""
    whole, rest = row[: 8 * NUMBERS].view(np.float64)[6:8]
    return float(whole), float(rest)


def _copies(record: np.ndarray, codes: np.ndarray, layout: Layout) -> np.ndarray:
    """How many earlier positions have the very same descriptor: plain backgrounds give thousands, and kappa of them stand for all."""
    ranks = np.zeros(len(codes), np.int32)
    mixed = codes.view(np.int64) @ _mixers(codes.shape[1] // 4)  # equal rows have equal sums
    in_order = np.sort(mixed)
    if (in_order[1:] != in_order[:-1]).all():
        return ranks
    _, group, counts = np.unique(mixed, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[group] > 1)
    rows = _descriptors_at(record, layout, suspects)
    keys = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    _, own = np.unique(keys, return_inverse=True)
    order = np.argsort(own, kind="stable")
    ranks[suspects[order]] = np.arange(len(order)) - np.searchsorted(own[order], own[order])
    return ranks


@lru_cache(maxsize=4)
def _mixers(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 2**62, count) * 2 + 1


def _descriptors_at(record: np.ndarray, layout: Layout, positions: np.ndarray) -> np.ndarray:
    from spadework.pyramid import descriptors

    levels: Sequence[np.ndarray] = Geometry(layout.shapes).unpack(record)
    if len(levels) == 1:
        return np.ascontiguousarray(levels[0].reshape(layout.positions, -1)[positions])
    return np.ascontiguousarray(descriptors(levels, upsampling=layout.upsampling)[positions])


@dataclass(frozen=True)
class QueryCodes:
    """An image's own codes, as the scan reads them.

    codes: int16 (Q, 272): near; near without its rest, mid; far; deep. squares, errors: float64 (Q, depths). factors: float64 (Q,),
    largest: see Encoded.
    """

    codes: np.ndarray
    squares: np.ndarray
    errors: np.ndarray
    factors: np.ndarray
    largest: float

    @classmethod
    def made_of(cls, encoded: Encoded, layout: Layout) -> QueryCodes:
        """Lay codes out for the scan."""
        codes = np.zeros((len(encoded.codes), 272), np.int16)
        codes[:, :16] = encoded.codes[:, :16]
        codes[:, 16:31] = encoded.codes[:, :15]
        codes[:, 32 : 32 + layout.width - 16] = encoded.codes[:, 16:]
        squares, errors = _squares(encoded.codes, layout.depths), np.ascontiguousarray(encoded.errors)
        return cls(codes, squares, errors, encoded.factors, encoded.largest)

    def of(self, queries: np.ndarray) -> QueryCodes:
        """Those of some queries: side by side, for they are read once for each image."""
        codes, squares, errors, factors = (
            part[queries] for part in (self.codes, self.squares, self.errors, self.factors)
        )
        return QueryCodes(codes, squares, errors, factors, self.largest)

    @cached_property
    def towards(self) -> np.ndarray:
        """What is read for every group, of an even number of queries: their near codes, and room for two numbers. int16 (Q or Q + 1, 18)."""
        out = np.zeros((len(self.codes) + len(self.codes) % 2, 18), np.int16)
        out[: len(self.codes), :16] = self.codes[:, :16]
        return out


def _squares(codes: np.ndarray, depths: int) -> np.ndarray:
    """Squared norm of the codes at each depth: the axes so far and the rest at that depth."""
    squares = codes.astype(np.float64) ** 2
    edges = (16, 32, 128, 256)[:depths]
    so_far = np.zeros(len(codes))
    out, first = np.empty((len(codes), depths)), 0
    for depth, edge in enumerate(edges):
        so_far = so_far + squares[:, first : edge - 1].sum(axis=1)
        out[:, depth] = so_far + squares[:, edge - 1]
        first = edge
    return out
