"""The nearest of many vectors, exactly, in time and memory that hardly grow with their number.

In: rows (N, D) float32 on disk, read through a function that maps a range of them, and a vector (D,), all finite. Out: the `k` nearest
rows and their squared Euclidean distances, float64 sums of squared differences; ties to the lower row.
Few rows are compared all, block by block. Of many, a `Sketch` keeps M + 1 numbers each in memory: the coordinates on M orthonormal axes
and the norm of what these leave over. Distances between sketches are lower bounds, so rows are compared in ascending order of their
bounds until the k-th best lies below the next bound. Of very many rows a `ByteSketch` keeps a byte for each coordinate, on more axes, and a byte
for each of the row's own numbers, which bound those rows closely that the axes leave.
Where the bounds say little (data without structure) all rows are compared after all.
Letters: `N` rows, `D` numbers in one, `M` axes, `S` rows sampled, `k` wanted, `B` rows in a block.

Why no neighbour is lost: sketches.py. A row whose bound exceeds the k-th best distance found so far is no neighbour, not even a tied one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from spadework.sketches import BEYOND, ByteSketch, Read, Sketch, blocks, room_for

SAMPLE = 1024
FEW = 1 << 20  # numbers in all rows up to which no sketch is made: comparing them takes a millisecond or two
PATIENCE = 5  # questions answered by comparing all rows before a sketch is made: making it takes about as long
BYTES_FROM = 8_000  # rows: of fewer, comparing what 32 axes leave takes a few milliseconds, and learning 64 some tenths of a second
HOPELESS = 0.2  # share of rows above which all are compared, in order: quicker from a third on, on a cold disk earlier
STEP = 16  # of the rows whose bounds tell how low the lowest are
PICKED = 256  # scattered rows compared at once
CLOSE, FURTHER = 8, 8  # so many times k rows are looked at closely to choose k and a few further to compare first

Pick = Callable[[np.ndarray], np.ndarray]  # indices -> a copy of these rows
Likely = Callable[[np.ndarray], object]  # told indices


class Retrieval:
    """Answers which rows are nearest; makes and keeps a sketch when that pays."""

    def __init__(self, read: Read, rows: int = 0, *, pick: Pick | None = None) -> None:
        self._read = read
        self._pick = pick or (lambda chosen: np.asarray(read(0, self.rows)[chosen]))
        self._sketch: Sketch | ByteSketch | None = None
        self._asked = 0
        self.resize(rows)

    def resize(self, rows: int) -> None:
        """Count so many rows from now on. Rows that counted before are taken to be as they were, unless there are fewer."""
        if self._sketch is not None and rows < len(self._sketch):
            self._sketch = None
        self.rows = rows

    @property
    def takes_long(self) -> bool:
        """Whether there are so many rows that finding the nearest takes milliseconds."""
        return self.rows >= BYTES_FROM

    def row(self, index: int) -> np.ndarray:
        """Return one row, (D,), mapped as long as it is held."""
        return np.asarray(self._read(index, index + 1)[0])

    def nearest(
        self, vector: np.ndarray, k: int, *, exclude: int | slice | None = None, likely: Likely | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the `k` nearest rows, all if there are fewer.

        Args:
            vector: (D,), finite.
            k: how many, at least 1.
            exclude: a row, or rows from start to stop, to leave out.
            likely: told, where it takes long to prove which they are, `k` rows that nearly always are most of them.

        Returns:
            Rows int64 (k,) and squared Euclidean distances float64 (k,), nearest first, ties to the lower row.
        """
        k = min(k, self.rows - (exclude.stop - exclude.start if isinstance(exclude, slice) else exclude is not None))
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        sketch = self._sketch_for(k, len(vector))
        found = None if sketch is None else self._by_bounds(sketch, vector, k, exclude, likely)
        return self._by_all(vector, k, exclude) if found is None else found

    def _sketch_for(self, k: int, dimension: int) -> Sketch | ByteSketch | None:
        """The sketch of all rows, made or extended where needed; None where comparing all rows is quicker."""
        if self.rows * dimension <= FEW or 2 * k > HOPELESS * self.rows:
            return None
        sketch, many = self._sketch, self.rows >= BYTES_FROM
        if sketch is None or (many and not isinstance(sketch, ByteSketch)):
            self._asked += 1
            if self._asked <= PATIENCE:
                return None
            chosen = np.random.default_rng(0).choice(self.rows, min(SAMPLE, self.rows), replace=False)
            sample = np.concatenate([self._pick(part) for part in _parts(np.sort(chosen))])
            sketch = ByteSketch.learn(sample) if many else Sketch.learn(sample)
        if len(sketch) < self.rows:
            sketch = sketch.extend(self._read, self.rows)
        self._sketch = sketch
        return sketch

    def _by_bounds(
        self,
        sketch: Sketch | ByteSketch,
        vector: np.ndarray,
        k: int,
        exclude: int | slice | None,
        likely: Likely | None,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Compare rows in ascending order of their bounds; None where too many would have to be compared."""
        (bounds, closer), unit = sketch.bounds(vector), sketch.unit
        if exclude is not None:
            bounds[exclude] = np.inf
        if closer is None:
            first = _lowest(bounds, 2 * k)  # these are nearly always the answer, and tell how far to look
        else:
            near = np.sort(_lowest(bounds, min(CLOSE * k, len(bounds) - 1)))
            near = near[np.isfinite(bounds[near])]  # none that is excluded
            close = closer(near, np.float32(np.inf))
            if likely is not None:
                likely(near[_lowest(close, k)] if len(near) > k else near)
            first = near[_lowest(close, k + FURTHER)] if len(near) > k + FURTHER else near
        rows, distances = _best(first, self._compare(first, vector), k)
        bounds[first] = np.inf
        left = np.flatnonzero(bounds <= _reach(distances, unit))
        bounds = bounds[left] if closer is None else closer(left, _reach(distances, unit))
        near = np.flatnonzero(bounds <= _reach(distances, unit))
        if len(near) > HOPELESS * self.rows:
            return None
        for places in _parts(near[np.argsort(bounds[near])]):
            part = left[places]
            if bounds[places[0]] > _reach(distances, unit):
                break
            rows, distances = _best(
                np.concatenate([rows, part]), np.concatenate([distances, self._compare(part, vector)]), k
            )
        return rows, distances

    def _by_all(self, vector: np.ndarray, k: int, exclude: int | slice | None) -> tuple[np.ndarray, np.ndarray]:
        distances = np.empty(self.rows, np.float64)
        room = room_for(self.rows, len(vector))
        for start, stop in blocks(0, self.rows, len(vector)):
            distances[start:stop] = _squared_distances(self._read(start, stop), vector, room)
        rows = np.arange(self.rows)
        return _best(rows, distances, k) if exclude is None else _best(*_without(exclude, rows, distances), k)

    def _compare(self, chosen: np.ndarray, vector: np.ndarray) -> np.ndarray:
        room = np.empty((1, min(PICKED, len(chosen)), len(vector)), np.float64)
        return np.concatenate([_squared_distances(self._pick(part), vector, room) for part in _parts(chosen)])


def _parts(chosen: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(chosen), PICKED):
        yield chosen[start : start + PICKED]


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
