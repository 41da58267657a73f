"""Sketches: few numbers of each of many rows, whose distances are lower bounds of the rows' distances.

In: rows (N, D), all finite. Out: for a vector (D,), a lower bound of its distance to each row, all widened so far that none is too high.
Letters: `N` rows, `D` numbers in one, `M` axes, `S` rows sampled, `B` rows in a block.

Why no bound is too high. The sketch of x is s(x) = (A y, |y - A'A y|) with y = (x - c) / unit and orthonormal rows in A. Exactly computed it
has |s(x) - s(z)| <= |x - z| / unit: the remainder is orthogonal to the axes, and two norms differ by no more than their vectors do.
What is computed errs, with u = 2^-24, by no more than this:
1. The axes are orthonormal to 1e-13 (which stretches distances by no more), float64 sums over D < 1e6 numbers are good to 1e-9, both
   relative to |y|; float32 rounds s(x) by u |y| or, below its normal range, by 2^-140. `slack` is 4 u |y| + 2^-60, its own rounding
   included. The bound is smaller by the slack of both.
2. Coordinates are cut off at 2^48, so that no sum of squares overflows. Cutting two points off at the same box never moves them apart.
3. Differences, squares, a sum of M + 1 of them in any order, root and subtractions in float32 err by at most (M + 10) u of the root,
   the float64 error of the distance it is held against included; the root is made smaller by so much.
4. Bytes stand for numbers by a power of two, and what that moves (float64, rounded up, of numbers that were not cut off) is a row's `blur`: its
   bound is smaller by that as well. Bytes of all D numbers of y are a sketch too, s(x) = y with nothing left over; sums then have D terms.
So bound <= distance / unit for each row, as computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from spadework.kernels import pruned, thread_count

# Of 100,000 rows of 1,024 numbers (mixed features of parts, with noise in all of them) 32 axes leave 6 %, which take 35 ms to read and to
# compare, 64 axes 3 %; of those, bytes of all numbers leave 0.1 % of all rows.
AXES, BYTE_AXES = 32, 64
LIMIT = 2.0**48
BEYOND = 2.0**62  # more than any distance of what is cut off there: no bound at all
ROUNDOFF = 2.0**-24
STEPS = 127  # a byte's
BLOCK = 1 << 19  # numbers of a block of rows: 4 MB in float64
FAR = 4.0  # rows of a sample that lie farther out, in units, are drawn in to there: they would have axes to themselves
SMALL = 1 << 18  # multiplications up to which OpenBLAS works in one thread
COLUMNS = 8192  # sketches compared at once: what is in use stays in the processor's cache
# Rows whose bytes lie together: from memory, 100,000 of 64 take 0.4 ms, where all those of a coordinate lie together 1.1.
BYTE_BLOCK = 1024
CLOSELY = 256  # rows whose bytes are compared at once

Read = Callable[[int, int], np.ndarray]  # start, stop -> rows, mapped as long as they are held
Closer = Callable[[np.ndarray, np.float32], np.ndarray]  # rows, ascending, and a distance -> bounds float32


@dataclass(frozen=True)
class Sketch:
    """M + 1 numbers for each of N rows, whose distances are lower bounds of the rows' distances.

    centre: float64 (D,). unit: a power of two. axes: float64 (M, D), orthonormal. places: float32 (M + 1, N), so that a block of one
    coordinate is one piece of memory. slack: float32 (N,), how far a row's sketch may be off, in the same units.
    """

    centre: np.ndarray
    unit: float
    axes: np.ndarray
    places: np.ndarray
    slack: np.ndarray

    @classmethod
    def learn(cls, sample: np.ndarray) -> Sketch:
        """Choose axes from a sample of rows, (S, D). Nothing is sketched yet."""
        centre, unit, offsets = _centred(sample)
        axes = _principal_axes(offsets, AXES)
        return cls(centre, unit, axes, np.empty((len(axes) + 1, 0), np.float32), np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.slack)

    def extend(self, read: Read, rows: int) -> Sketch:
        """Return a sketch on the same axes of all rows up to `rows`."""
        places = np.empty((len(self.axes) + 1, rows), np.float32)
        slack = np.empty(rows, np.float32)
        places[:, : len(self)], slack[: len(self)] = self.places, self.slack
        room = room_for(rows - len(self), len(self.centre), copies=2)
        for start, stop in blocks(len(self), rows, len(self.centre)):
            places[:, start:stop], slack[start:stop] = self._sketch(read(start, stop), room)
        return Sketch(self.centre, self.unit, self.axes, places, slack)

    def bounds(self, vector: np.ndarray) -> tuple[np.ndarray, None]:
        """Return a lower bound of each row's distance to `vector`, in units, float32 (N,). Not squared; below 0 is possible. Nothing is closer."""
        place, slack = self._sketch(vector[None], room_for(1, len(vector), copies=2))
        out = np.empty(len(self), np.float32)
        shrink = _shrink(len(self.axes) + 1)
        if pruned.is_usable():
            from spadework.kernels import sketches

            sketches.bounds(self.places, place, shrink, self.slack, slack[0], out)
            return out, None
        _column_distances(self.places, place, out)
        np.sqrt(out, out=out)
        out *= shrink
        out -= self.slack
        out -= slack
        return out, None

    def _sketch(self, rows: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places float32 (M + 1, B) and slack float32 (B,) of rows (B, D)."""
        offsets, inside, rest = _projected(rows, self.centre, self.unit, self.axes, room)
        places = np.clip(np.vstack([inside.T, rest]), -LIMIT, LIMIT)
        return places.astype(np.float32), _slack(offsets).astype(np.float32)


@dataclass(frozen=True)
class ByteSketch:
    """Bytes of N rows: of their coordinates, to look at all of them, and of their numbers, to look at some closely.

    centre, unit, axes: as in `Sketch`. steps: float32 (M,), powers of two, what a byte counts on each axis; byte_steps: float32 (D,), in the row itself.
    columns: int8, blocks (M, BYTE_BLOCK) of so many rows each. rest: float32 (N,), the norm of what the axes leave over.
    blur: float32 (N,), how far columns and rest may be off.
    bytes: int8 (N, D). byte_blur: float32 (N,), how far they may be off.
    """

    centre: np.ndarray
    unit: float
    axes: np.ndarray
    steps: np.ndarray
    byte_steps: np.ndarray
    columns: np.ndarray
    rest: np.ndarray
    blur: np.ndarray
    bytes: np.ndarray
    byte_blur: np.ndarray

    @classmethod
    def learn(cls, sample: np.ndarray) -> ByteSketch:
        """Choose axes and steps from a sample of rows, (S, D). Nothing is sketched yet."""
        centre, unit, offsets = _centred(sample)
        axes = _principal_axes(offsets, BYTE_AXES)
        steps = _steps(np.quantile(np.abs(product(offsets, axes.T)), 0.999, axis=0, method="higher"))
        byte_steps = _steps(np.quantile(np.abs(offsets), 0.999, axis=0, method="higher")).astype(np.float32)
        columns = np.empty((0, len(axes), BYTE_BLOCK), np.int8)
        numbers = np.empty((0, len(centre)), np.int8)
        none = np.empty(0, np.float32)
        return cls(centre, unit, axes, steps.astype(np.float32), byte_steps, columns, none, none, numbers, none)

    def __len__(self) -> int:
        return len(self.rest)

    def extend(self, read: Read, rows: int) -> ByteSketch:
        """Return a sketch on the same axes of all rows up to `rows`. Several threads do it: of 100,000 rows of 1,024 numbers it takes a second with two."""
        have, dimension = len(self), len(self.centre)
        columns = np.empty((-(-rows // BYTE_BLOCK), len(self.axes), BYTE_BLOCK), np.int8)
        numbers = np.empty((rows, dimension), np.int8)
        rest, blur, byte_blur = np.empty((3, rows), np.float32)
        columns[: len(self.columns)], numbers[:have] = self.columns, self.bytes
        rest[:have], blur[:have], byte_blur[:have] = self.rest, self.blur, self.byte_blur

        def work(first: int, last: int) -> None:
            room = room_for(last - first, dimension, copies=2)
            for start, stop in blocks(first, last, dimension):
                offsets, inside, rest[start:stop] = _projected(
                    read(start, stop), self.centre, self.unit, self.axes, room
                )
                slack = _slack(offsets)
                coded, off = _as_bytes(inside, self.steps)
                for first_of, last_of in _within_blocks(start, stop):
                    block, place = divmod(first_of, BYTE_BLOCK)
                    part = coded[first_of - start : last_of - start]
                    columns[block, :, place : place + len(part)] = part.T
                blur[start:stop] = _rounded_up(off + slack)
                numbers[start:stop], off = _as_bytes(offsets, self.byte_steps)
                byte_blur[start:stop] = _rounded_up(off + slack)

        threads = thread_count(None) if (rows - have) * dimension > BLOCK else 1
        edges = np.linspace(have, rows, threads + 1).astype(int).tolist()
        with ThreadPoolExecutor(threads, thread_name_prefix="spadework-sketch") as pool:
            list(pool.map(work, edges[:-1], edges[1:]))
        return ByteSketch(
            self.centre, self.unit, self.axes, self.steps, self.byte_steps, columns, rest, blur, numbers, byte_blur
        )

    def bounds(self, vector: np.ndarray) -> tuple[np.ndarray, Closer]:
        """Return bounds as a `Sketch` does; and what gives closer ones of some rows, which beyond the distance given need not be as close as can be.

        In one thread: to start others takes as long as they would save.
        """
        room = room_for(1, len(vector), copies=2)
        offsets, inside, rest = _projected(vector[None], self.centre, self.unit, self.axes, room)
        slack = _slack(offsets).astype(np.float32)[0]
        place = np.clip(inside[0], -LIMIT, LIMIT).astype(np.float32)
        own = np.clip(offsets[0], -LIMIT, LIMIT).astype(np.float32)
        return (
            self._by_columns(place, np.float32(rest[0]), slack),
            lambda chosen, reach: self._by_bytes(chosen, own, slack, reach),
        )

    def _by_columns(self, place: np.ndarray, rest: np.float32, slack: np.float32) -> np.ndarray:
        out, shrink = np.empty(len(self), np.float32), _shrink(len(self.axes) + 1)
        if pruned.is_usable():
            from spadework.kernels import sketches

            sketches.byte_bounds(self.columns, self.steps, place, self.rest, rest, shrink, self.blur, slack, out)
            return out
        for block, columns in enumerate(self.columns):
            part = slice(block * BYTE_BLOCK, min((block + 1) * BYTE_BLOCK, len(out)))
            difference = columns[:, : part.stop - part.start] * self.steps[:, None] - place[:, None]
            sums = np.einsum("mb,mb->b", difference, difference) + (self.rest[part] - rest) ** 2
            out[part] = np.sqrt(sums) * shrink - self.blur[part] - slack
        return out

    def _by_bytes(self, chosen: np.ndarray, own: np.ndarray, slack: np.float32, reach: np.float32) -> np.ndarray:
        out, shrink, steps = np.empty(len(chosen), np.float32), _shrink(len(own)), self.byte_steps
        if pruned.is_usable():
            from spadework.kernels import sketches

            sketches.close_bounds(
                chosen, self.bytes, self.bytes.ctypes.data, own, steps, shrink, self.byte_blur, slack, reach, out
            )
            return out
        for start in range(0, len(chosen), CLOSELY):
            part = chosen[start : start + CLOSELY]
            difference = self.bytes[part] * steps - own
            roots = np.sqrt(np.einsum("bd,bd->b", difference, difference)) * shrink
            out[start : start + CLOSELY] = roots - self.byte_blur[part] - slack
        return out


def _centred(sample: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """The centre, the unit, and a sample (S, D) less the one and by the other, what lies far out drawn in.

    The median and not the mean is the centre, and a median the unit, so that single rows far out cost the others no precision.
    """
    sample = sample.astype(np.float64)
    centre = np.median(sample, axis=0)
    offsets = sample - centre
    size = float(np.median(np.linalg.norm(offsets, axis=1)))
    unit = float(2.0 ** np.round(np.log2(size))) if size > 0 else 1.0
    offsets /= unit
    return centre, unit, offsets / np.maximum(1, _norms(offsets) / FAR)[:, None]


def _projected(
    rows: np.ndarray, centre: np.ndarray, unit: float, axes: np.ndarray, room: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of rows (B, D): y float64 (B, D), in a part of the room; its coordinates (B, M); the norm of what the axes leave over (B,), cut off."""
    offsets, outside = room[:, : len(rows)]
    np.subtract(rows, centre, out=offsets)
    offsets /= unit
    inside = product(offsets, axes.T)
    np.subtract(offsets, product(inside, axes, out=outside), out=outside)
    return offsets, inside, np.minimum(_norms(outside), LIMIT)


def _slack(offsets: np.ndarray) -> np.ndarray:
    """How far what is kept of y, (B, D), may be off by rounding: float64 (B,)."""
    return np.minimum(4 * ROUNDOFF * _norms(offsets) + 2.0**-60, BEYOND)


def _shrink(terms: int) -> np.float32:
    return np.float32(1 - (terms + 10) * ROUNDOFF)


def _steps(widest: np.ndarray) -> np.ndarray:
    """Powers of two such that a byte reaches so far."""
    widest = np.maximum(widest, 2.0**-100)
    return np.asarray(2.0 ** np.ceil(np.log2(widest / STEPS)))


def _within_blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Rows from start to stop in pieces, each within one block of BYTE_BLOCK."""
    while start < stop:
        end = min(stop, (start // BYTE_BLOCK + 1) * BYTE_BLOCK)
        yield start, end
        start = end


def _as_bytes(numbers: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (B, n) as int8 times steps, and how far each row is off: float64 (B,). The numbers are cut off and spoilt."""
    np.clip(numbers, -LIMIT, LIMIT, out=numbers)
    codes = numbers / steps
    np.rint(np.clip(codes, -STEPS, STEPS, out=codes), out=codes)
    numbers -= codes * steps
    return codes.astype(np.int8), _norms(numbers)


def _rounded_up(numbers: np.ndarray) -> np.ndarray:
    return np.asarray(np.nextafter(np.minimum(numbers, BEYOND).astype(np.float32), np.float32(np.inf)))


def _principal_axes(offsets: np.ndarray, count: int) -> np.ndarray:
    """Orthonormal rows (M, D) that nearly span the first principal axes of (S, D); fewer where there are fewer. By subspace iteration:
    any orthonormal axes are right, these bring high bounds."""
    dimension = offsets.shape[1]
    axes = np.random.default_rng(0).normal(size=(min(count, dimension), dimension))
    for _ in range(4):
        scores = _orthonormal(product(offsets, axes.T).T)  # (M, S)
        axes = _orthonormal(product(offsets.T, scores.T).T)
    return axes


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span the same, without what is a millionth of the largest or less, which rounding has spoilt."""
    for _ in range(2):  # once leaves errors up to 1e-2 where lengths differ by a million, twice those of float64
        vectors, values, _ = np.linalg.svd(product(rows, rows.T))  # as `eigh`, which starts threads for 32 x 32 numbers
        kept = values > 1e-12 * values.max(initial=0)
        rows = product((vectors[:, kept] / np.sqrt(values[kept])).T, rows)
    return rows


def product(left: np.ndarray, right: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """Return `left @ right`, float64, in pieces that OpenBLAS does in one thread, where `right` is the smaller.

    Its threads go on spinning after a product and take the cores from the search that follows; on a busy machine they wait for each
    other (measured there: choosing axes took 1.2 s with them, 15 ms without).
    """
    height, width = len(left), right.shape[1]
    out = np.empty((height, width), np.float64) if out is None else out
    step = max(2, SMALL // max(1, right.size))
    pieces, whole = height // step, height // step * step
    np.matmul(left[:whole].reshape(pieces, step, left.shape[1]), right, out=out[:whole].reshape(pieces, step, width))
    np.einsum("bd,dm->bm", left[whole:], right, out=out[whole:])
    return out


def blocks(start: int, stop: int, dimension: int) -> Iterator[tuple[int, int]]:
    """Start and stop of blocks of rows."""
    step = max(1, BLOCK // max(1, dimension))
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def room_for(rows: int, dimension: int, *, copies: int = 1) -> np.ndarray:
    """Where blocks are computed, one after another: float64 (copies, B, D).

    A new array for each block would be memory that the system hands out, clears and takes back each time (measured: five times the
    work of the whole pass).
    """
    return np.empty((copies, min(rows, max(1, BLOCK // max(1, dimension))), dimension), np.float64)


def _column_distances(places: np.ndarray, place: np.ndarray, out: np.ndarray) -> None:
    """Squared distances of columns (M, N) to `place`, (M, 1), float32, summed in any order."""
    room = np.empty((len(place), COLUMNS), np.float32)
    for start in range(0, len(out), COLUMNS):
        block = places[:, start : start + COLUMNS]
        difference = np.subtract(block, place, out=room[:, : block.shape[1]])
        np.einsum("mb,mb->b", difference, difference, out=out[start : start + COLUMNS])


def _norms(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.einsum("bd,bd->b", rows, rows)))
