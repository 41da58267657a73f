"""The nearest of many vectors, exactly, in time and memory that hardly grow with their number.

In: rows (N, D) float32 on disk, read through a function that maps a range of them, and a vector (D,), all finite. Out: the `k` nearest
rows and their squared Euclidean distances, float64 sums of squared differences; ties to the lower row.
Few rows are compared all, block by block. Of many, a `Sketch` keeps M + 1 numbers each in memory: the coordinates on M orthonormal axes
and the norm of what these leave over. Distances between sketches are lower bounds, so rows are compared in ascending order of their
bounds until the k-th best lies below the next bound. Of very many rows a `Detail` keeps a byte of each number that bound those rows
closely which the sketch leaves. Where the bounds say little (data without structure) all rows are compared after all.
Letters: `N` rows, `D` numbers in one, `M` axes, `S` rows sampled, `k` wanted, `B` rows in a block.

Why no neighbour is lost. The sketch of x is s(x) = (A y, |y - A'A y|) with y = (x - c) / unit and orthonormal rows in A. Exactly computed it
has |s(x) - s(z)| <= |x - z| / unit: the remainder is orthogonal to the axes, and two norms differ by no more than their vectors do.
What is computed errs, with u = 2^-24, by no more than this:
1. The axes are orthonormal to 1e-13 (which stretches distances by no more), float64 sums over D < 1e6 numbers are good to 1e-9, both
   relative to |y|; float32 rounds s(x) by u |y| or, below its normal range, by 2^-140. `slack` is 4 u |y| + 2^-60, its own rounding
   included. The bound is smaller by the slack of both.
2. Coordinates are cut off at 2^48, so that no sum of squares overflows. Cutting two points off at the same box never moves them apart.
3. Differences, squares, a sum of M + 1 of them in any order, root and subtractions in float32 err by at most (M + 10) u of the root,
   the float64 error of the distance it is held against included; the root is made smaller by so much. With a detail there are M + F + 1.
4. With a detail, s(x) = (A y, z), z what the axes leave over, which is all of y. A row's z is kept as bytes times a power of two; how far
   that is off, and not where it was cut off, is its `blur`, in float64 and rounded up. The bound is smaller by that, and the root by
   (M + D + 10) u of it.
So bound <= distance / unit for each row, as computed, and a row whose bound exceeds the k-th best distance found so far is no neighbour,
not even a tied one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from spadework.kernels import pruned, thread_count

AXES = 32
SAMPLE = 1024
LIMIT = 2.0**48
BEYOND = 2.0**62  # more than any distance of what is cut off there: no bound at all
ROUNDOFF = 2.0**-24
FEW = 1 << 20  # numbers in all rows up to which no sketch is made: comparing them takes a millisecond or two
PATIENCE = 5  # questions answered by comparing all rows before a sketch is made: making it takes about as long
# Of 100,000 rows of 1,024 numbers (mixed features of parts, with noise in all of them) 32 axes leave 6 %, which take 35 ms to read and
# compare; with bytes of all numbers 0.1 % is left. 256 axes leave 0.35 %, and take seconds to learn and to sketch with.
DETAILED_FROM = 30_000  # rows: of fewer, comparing what the sketch leaves takes a few milliseconds
STEPS = 127  # a byte's
HOPELESS = 0.2  # share of rows above which all are compared, in order: quicker from a third on, on a cold disk earlier
BLOCK = 1 << 19  # numbers of a block of rows: 4 MB in float64
STEP = 16  # of the rows whose bounds tell how low the lowest are
PICKED = 256  # scattered rows compared at once
FAR = 4.0  # rows of a sample that lie farther out, in units, are drawn in to there: they would have axes to themselves
SMALL = 1 << 18  # multiplications up to which OpenBLAS works in one thread
COLUMNS = 8192  # sketches compared at once: what is in use stays in the processor's cache
DETAILED = 256  # rows whose details are compared at once

Read = Callable[[int, int], np.ndarray]  # start, stop -> rows, mapped as long as they are held
Pick = Callable[[np.ndarray], np.ndarray]  # indices -> a copy of these rows


@dataclass(frozen=True)
class Detail:
    """A byte for each number that the axes leave over of N rows.

    step: a power of two, what a byte counts. codes: int8 (N, D). blur: float32 (N,), how far codes are off.
    """

    step: float
    codes: np.ndarray
    blur: np.ndarray

    @classmethod
    def learn(cls, outside: np.ndarray) -> Detail:
        """outside: what the axes leave over of a sample, (S, D). It tells the step."""
        widest = float(np.quantile(np.abs(outside), 0.999, method="higher"))
        step = float(2.0 ** np.ceil(np.log2(widest / STEPS))) if widest > 0 else 1.0
        return cls(step, np.empty((0, outside.shape[1]), np.int8), np.empty(0, np.float32))

    def with_room(self, rows: int) -> Detail:
        """Itself, with room for so many rows; those it has come first."""
        codes, blur = np.empty((rows, self.codes.shape[1]), np.int8), np.empty(rows, np.float32)
        codes[: len(self.codes)], blur[: len(self.blur)] = self.codes, self.blur
        return Detail(self.step, codes, blur)

    def fill(self, start: int, outside: np.ndarray, room: np.ndarray) -> None:
        """outside: what the axes leave over of the rows from `start` on, (B, D), changed; room: as large."""
        stop = start + len(outside)
        np.clip(outside, -LIMIT, LIMIT, out=outside)
        np.rint(np.divide(outside, self.step, out=room), out=room)
        self.codes[start:stop] = np.clip(room, -STEPS, STEPS, out=room)
        room *= self.step
        outside -= room
        self.blur[start:stop] = np.nextafter(_norms(outside).astype(np.float32), np.float32(np.inf))


@dataclass(frozen=True)
class Sketch:
    """M + 1 numbers for each of N rows, whose distances are lower bounds of the rows' distances.

    centre: float64 (D,). unit: a power of two. axes: float64 (M, D), orthonormal. places: float32 (M + 1, N), so that a block of one
    coordinate is one piece of memory. slack: float32 (N,), how far a row's sketch may be off, in the same units. detail: for closer bounds.
    """

    centre: np.ndarray
    unit: float
    axes: np.ndarray
    places: np.ndarray
    slack: np.ndarray
    detail: Detail | None = None

    @classmethod
    def learn(cls, sample: np.ndarray, *, detailed: bool = False) -> Sketch:
        """Choose axes from a sample of rows, (S, D), and what a detail needs if there shall be one. Nothing is sketched yet.

        The median and not the mean is the centre, and a median the unit, so that single rows far out cost the others no precision.
        """
        sample = sample.astype(np.float64)
        centre = np.median(sample, axis=0)
        offsets = sample - centre
        size = float(np.median(np.linalg.norm(offsets, axis=1)))
        unit = float(2.0 ** np.round(np.log2(size))) if size > 0 else 1.0
        offsets /= unit
        offsets /= np.maximum(1, _norms(offsets) / FAR)[:, None]
        axes = _principal_axes(offsets)
        detail = Detail.learn(offsets - product(product(offsets, axes.T), axes)) if detailed else None
        return cls(centre, unit, axes, np.empty((len(axes) + 1, 0), np.float32), np.empty(0, np.float32), detail)

    def __len__(self) -> int:
        return len(self.slack)

    def extend(self, read: Read, rows: int) -> Sketch:
        """Return a sketch on the same axes of all rows up to `rows`."""
        places = np.empty((len(self.axes) + 1, rows), np.float32)
        slack = np.empty(rows, np.float32)
        places[:, : len(self)], slack[: len(self)] = self.places, self.slack
        detail = None if self.detail is None else self.detail.with_room(rows)
        have, dimension = len(self), len(self.centre)

        def work(first: int, last: int) -> None:
            room = _room(last - first, dimension, copies=2)
            for start, stop in _blocks(first, last, dimension):
                places[:, start:stop], slack[start:stop], outside = self._sketch(read(start, stop), room)
                if detail is not None:
                    detail.fill(start, outside, room[0, : len(outside)])

        # Looking with several threads does not pay, making does.
        threads = thread_count(None) if (rows - have) * dimension > BLOCK else 1
        edges = np.linspace(have, rows, threads + 1).astype(int).tolist()
        with ThreadPoolExecutor(threads, thread_name_prefix="spadework-sketch") as pool:
            list(pool.map(work, edges[:-1], edges[1:]))
        return Sketch(self.centre, self.unit, self.axes, places, slack, detail)

    def bounds(self, vector: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray, np.float32], np.ndarray]]:
        """Return a lower bound of each row's distance to `vector`, in units, float32 (N,); and what gives closer ones.

        They are not squared, and may lie below 0. What gives closer ones takes rows, ascending, and a distance: bounds beyond it need
        not be as close as they can be. Without a detail they are the same.
        """
        place, slack, outside = self._sketch(vector[None], _room(1, len(vector), copies=2))
        detail = self.detail
        sums = np.empty(len(self) if detail is not None else 0, np.float32)
        bounds = _bounds(self.places, place, self._shrink(), self.slack, slack[0], sums)
        if detail is None:
            return bounds, lambda chosen, reach: bounds[chosen]
        own = np.clip(outside[0], -LIMIT, LIMIT).astype(np.float32)
        shrink = self._shrink(len(own))
        return bounds, lambda chosen, reach: _close_bounds(
            chosen, sums, detail, own, shrink, self.slack, slack[0], reach
        )

    def _shrink(self, further: int = 0) -> np.float32:
        return np.float32(1 - (len(self.axes) + further + 10) * ROUNDOFF)

    def _sketch(self, rows: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places float32 (M + 1, B) and slack float32 (B,) of rows (B, D); what is outside, (B, D), in a part of the room."""
        offsets, outside = room[:, : len(rows)]
        np.subtract(rows, self.centre, out=offsets)
        offsets /= self.unit
        inside = product(offsets, self.axes.T)
        np.subtract(offsets, product(inside, self.axes, out=outside), out=outside)
        places = np.vstack([inside.T, _norms(outside)])
        slack = np.minimum(4 * ROUNDOFF * _norms(offsets) + 2.0**-60, BEYOND)
        return np.clip(places, -LIMIT, LIMIT).astype(np.float32), slack.astype(np.float32), outside


class Retrieval:
    """Answers which rows are nearest; makes and keeps a sketch when that pays."""

    def __init__(self, read: Read, rows: int = 0, *, pick: Pick | None = None) -> None:
        self._read = read
        self._pick = pick or (lambda chosen: np.asarray(read(0, self.rows)[chosen]))
        self._sketch: Sketch | None = None
        self._asked = 0
        self.resize(rows)

    def resize(self, rows: int) -> None:
        """Count so many rows from now on. Rows that counted before are taken to be as they were, unless there are fewer."""
        if self._sketch is not None and rows < len(self._sketch):
            self._sketch = None
        self.rows = rows

    def row(self, index: int) -> np.ndarray:
        """Return one row, (D,), mapped as long as it is held."""
        return np.asarray(self._read(index, index + 1)[0])

    def nearest(
        self, vector: np.ndarray, k: int, *, exclude: int | slice | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the `k` nearest rows, all if there are fewer.

        Args:
            vector: (D,), finite.
            k: how many, at least 1.
            exclude: a row, or rows from start to stop, to leave out.

        Returns:
            Rows int64 (k,) and squared Euclidean distances float64 (k,), nearest first, ties to the lower row.
        """
        k = min(k, self.rows - (exclude.stop - exclude.start if isinstance(exclude, slice) else exclude is not None))
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        sketch = self._sketch_for(k, len(vector))
        found = None if sketch is None else self._by_bounds(sketch, vector, k, exclude)
        return self._by_all(vector, k, exclude) if found is None else found

    def _sketch_for(self, k: int, dimension: int) -> Sketch | None:
        """The sketch of all rows, made or extended where needed; None where comparing all rows is quicker."""
        if self.rows * dimension <= FEW or 2 * k > HOPELESS * self.rows:
            return None
        sketch, detailed = self._sketch, self.rows >= DETAILED_FROM
        if sketch is None or (detailed and sketch.detail is None):
            self._asked += 1
            if self._asked <= PATIENCE:
                return None
            chosen = np.random.default_rng(0).choice(self.rows, min(SAMPLE, self.rows), replace=False)
            sample = np.concatenate([self._pick(part) for part in _parts(np.sort(chosen))])
            sketch = Sketch.learn(sample, detailed=detailed)
        if len(sketch) < self.rows:
            sketch = sketch.extend(self._read, self.rows)
        self._sketch = sketch
        return sketch

    def _by_bounds(
        self, sketch: Sketch, vector: np.ndarray, k: int, exclude: int | slice | None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Compare rows in ascending order of their bounds; None where too many would have to be compared."""
        (bounds, closer), unit = sketch.bounds(vector), sketch.unit
        if exclude is not None:
            bounds[exclude] = np.inf
        first = _lowest(bounds, 2 * k)  # these are nearly always the answer, and tell how far to look
        rows, distances = _best(first, self._compare(first, vector), k)
        left = np.setdiff1d(np.flatnonzero(bounds <= _reach(distances, unit)), first, assume_unique=True)
        bounds = closer(left, _reach(distances, unit))
        near = np.flatnonzero(bounds <= _reach(distances, unit))
        near = near[np.argsort(bounds[near])]
        # A detail knows the nearest better than `first` did: these are compared before it is judged.
        looked_at = 0 if sketch.detail is None else 1
        for start, places in enumerate(_parts(near)):
            part = left[places]
            reach = _reach(distances, unit)
            if bounds[places[0]] > reach:
                break
            if start == looked_at and np.count_nonzero(bounds <= reach) > HOPELESS * self.rows:
                return None
            rows, distances = _best(
                np.concatenate([rows, part]), np.concatenate([distances, self._compare(part, vector)]), k
            )
        return rows, distances

    def _by_all(self, vector: np.ndarray, k: int, exclude: int | slice | None) -> tuple[np.ndarray, np.ndarray]:
        distances = np.empty(self.rows, np.float64)
        room = _room(self.rows, len(vector))
        for start, stop in _blocks(0, self.rows, len(vector)):
            distances[start:stop] = _squared_distances(self._read(start, stop), vector, room)
        rows = np.arange(self.rows)
        return _best(rows, distances, k) if exclude is None else _best(*_without(exclude, rows, distances), k)

    def _compare(self, chosen: np.ndarray, vector: np.ndarray) -> np.ndarray:
        room = np.empty((1, min(PICKED, len(chosen)), len(vector)), np.float64)
        return np.concatenate([_squared_distances(self._pick(part), vector, room) for part in _parts(chosen)])


def _principal_axes(offsets: np.ndarray) -> np.ndarray:
    """Orthonormal rows (M, D) that nearly span the first principal axes of (S, D); fewer where there are fewer. By subspace iteration:
    any orthonormal axes are right, these bring high bounds."""
    dimension = offsets.shape[1]
    axes = np.random.default_rng(0).normal(size=(min(AXES, dimension), dimension))
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


def _blocks(start: int, stop: int, dimension: int) -> Iterator[tuple[int, int]]:
    step = max(1, BLOCK // max(1, dimension))
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def _room(rows: int, dimension: int, *, copies: int = 1) -> np.ndarray:
    """Where blocks are computed, one after another: float64 (copies, B, D).

    A new array for each block would be memory that the system hands out, clears and takes back each time (measured: five times the
    work of the whole pass).
    """
    return np.empty((copies, min(rows, max(1, BLOCK // max(1, dimension))), dimension), np.float64)


def _parts(chosen: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(chosen), PICKED):
        yield chosen[start : start + PICKED]


def _bounds(
    places: np.ndarray,
    place: np.ndarray,
    shrink: np.float32,
    slack: np.ndarray,
    own_slack: np.float32,
    sums: np.ndarray,
) -> np.ndarray:
    """Distances of columns (M + 1, N) to `place`, (M + 1, 1), times `shrink`, less the slack of both: float32 (N,). The squares of the first
    M are summed in any order; `sums`, (N,) or empty, takes these sums."""
    out = np.empty(places.shape[1], np.float32)
    if pruned.is_usable():
        from spadework.kernels import sketches

        sketches.bounds(places, place, shrink, slack, own_slack, sums, out)
        return out
    room = np.empty((len(place), COLUMNS), np.float32)
    for start in range(0, len(out), COLUMNS):
        block, part = places[:, start : start + COLUMNS], out[start : start + COLUMNS]
        difference = np.subtract(block, place, out=room[:, : block.shape[1]])
        np.einsum("mb,mb->b", difference[:-1], difference[:-1], out=part)
        if len(sums):
            sums[start : start + COLUMNS] = part
        part += difference[-1] * difference[-1]
    np.sqrt(out, out=out)
    out *= shrink
    out -= slack
    out -= own_slack
    return out


def _close_bounds(
    chosen: np.ndarray,
    sums: np.ndarray,
    detail: Detail,
    own: np.ndarray,
    shrink: np.float32,
    slack: np.ndarray,
    own_slack: np.float32,
    reach: np.float32,
) -> np.ndarray:
    """As `_bounds`, of chosen rows, with their detail: float32 (n,). own: what the axes leave over of what they are compared with."""
    out = np.empty(len(chosen), np.float32)
    step, codes, blur = np.float32(detail.step), detail.codes, detail.blur
    if pruned.is_usable():
        from spadework.kernels import sketches

        sketches.close_bounds(chosen, sums, codes, own, step, shrink, slack + (blur + own_slack), reach, out)
        return out
    for start in range(0, len(chosen), DETAILED):
        part = chosen[start : start + DETAILED]
        difference = codes[part] * step - own
        roots = np.sqrt(sums[part] + np.einsum("bd,bd->b", difference, difference)) * shrink
        out[start : start + DETAILED] = roots - slack[part] - blur[part] - own_slack
    return out


def _norms(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.einsum("bd,bd->b", rows, rows)))


def _squared_distances(rows: np.ndarray, vector: np.ndarray, room: np.ndarray) -> np.ndarray:
    """float64, from the differences: float64 (B,). The same for a row whatever other rows stand beside it."""
    difference = np.subtract(rows, vector, out=room[0, : len(rows)], dtype=np.float64)
    return np.asarray(np.einsum("bd,bd->b", difference, difference))


def _lowest(bounds: np.ndarray, count: int) -> np.ndarray:
    """The `count` rows of the lowest bounds. Chosen among all up to a level that every STEP-th row tells: among all rows it takes 0.9 ms of
    100,000, this 0.1."""
    sample, rank = bounds[::STEP], -(-3 * count // (2 * STEP))
    found = np.arange(0)
    if rank < len(sample):
        found = np.flatnonzero(bounds <= np.partition(sample, rank)[rank])
    if not count < len(found) <= 4 * count:
        return np.argpartition(bounds, count)[:count]
    return np.asarray(found[np.argpartition(bounds[found], count)[:count]])


def _reach(distances: np.ndarray, unit: float) -> np.float32:
    """How high a bound may be for its row to be as near as the last of these. Rounded up: NumPy compares in the array's float32."""
    root = min(float(np.sqrt(distances[-1])) / unit, BEYOND)
    return np.float32(np.nextafter(np.float32(root), np.float32(np.inf)))


def _without(exclude: int | slice, rows: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.delete(rows, exclude), np.delete(distances, exclude)


def _best(rows: np.ndarray, distances: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest, nearest first, ties to the lower row."""
    if k < len(rows):
        kept = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])  # with all ties at the k-th
        rows, distances = rows[kept], distances[kept]
    order = np.lexsort((rows, distances))[:k]
    return rows[order], distances[order]
