"""Nearest descriptors by compiled, exact pruning: most pairs are excluded by a few codes, the rest by their true distance.

A pair of descriptors whose codes (codes.py) lie farther apart than S (d + rounding) + E_q + E_g code units is farther apart than d: S is
the scale, E what quantising moved, and `rounding` covers that codes are made of exactly interpolated levels, but descriptors of
interpolated levels rounded to float32 at each step: a descriptor is off by less than 16 u of the largest norm M among its corners
(u = 2^-24; three blends, of three rounded operations each), a pair by less than 16 u (M_q + M_g); ROUNDING takes twice that, which also
covers float64 rounding in coordinates. With d the kappa-th nearest distance so far, nothing nearer is ever excluded, nor a tie.

What is compared is half the squared norm less the dot product, in integers: t = ||g||^2 / 2 - q.g, for ||q - g||^2 = ||q||^2 + 2 t.
A query f times as far from the mean as the codes' ball reaches (a defect may) has codes of q / f. From ||f q' - g|| <= T follows
t <= (G^2 (f - 1) - f^2 ||q'||^2 + T^2) / (2 f), G the largest norm of the image's codes, which for f = 1 is the same as above; T then
holds f E_q. Where a gallery descriptor lies outside the ball, f = 1 is taken: two points drawn in to a ball lie no farther apart than
before, for that is a projection onto a convex set.

The order of work makes d small early: every fourth position in both directions first, then every second, then all; each starts from
what its neighbours found, moved along. One gallery image after the other is scanned by blocks of queries, in pieces dealt to threads.

Where nothing can be pruned (noise without structure) the scan's count of its own work says so early, and `blocked` takes over.
Measured shares and times: docs/performance.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from sys import byteorder

import numpy as np

from spadework.kernels import Nearest, blocked, thread_count
from spadework.kernels.axes import SAMPLE, Axes, learn_axes
from spadework.kernels.codes import NUMBERS, Layout, QueryCodes, describe, encode, layout_of, to_row
from spadework.kernels.team import ALONE, Team, joined

ROUNDING = 32 * 2.0**-24
MATCHES = 4  # of a neighbour's kappa matches, those tried as a start
# `blocked` does about 60 multiply-adds a nanosecond and thread. A scan may take up to these shares of its time, by rounds, then gives up.
BLOCKED_A_NANOSECOND = 60
SHARES = (1.0, 0.35, 0.35)
LEAST = 2_000_000  # nanoseconds that a scan may take in any case
PIECE = 16  # queries: no shorter pieces are dealt to threads, but the last one
FEW = 256  # queries or gallery rows below which a flat search is not worth preparing for
NOT_FOR = 128  # neighbours: keeping them sorted one by one would cost more than a product
NONE = np.iinfo(np.int64).max
FLOAT = np.dtype(np.float32)


def is_usable() -> bool:
    """Whether Numba is there: without it `blocked` gives the same answers."""
    return byteorder == "little" and find_spec("numba") is not None


def warm_up() -> None:
    """Compile the inner loops now, or load them from Numba's cache: so that a first search does not wait for it."""
    from spadework.kernels import choosing, encoding, scanning, sketches, turning  # noqa: F401  compiled when imported


@dataclass(frozen=True)
class Coded:
    """A gallery image: its record, float32 (length,), its row of codes, uint8, and the axes of these. The first two may be memory maps."""

    record: np.ndarray
    row: np.ndarray
    axes: Axes
    centres: list[np.ndarray] = field(
        default_factory=list, repr=False, compare=False
    )  # of its groups, made when it is first searched


@dataclass(frozen=True)
class Query:
    """An image ready to be looked for: its codes, made with `axes`, and its descriptors, float32 (P, C). seconds: what that took."""

    axes: Axes
    codes: QueryCodes
    descriptors: np.ndarray
    seconds: float


@dataclass
class Counts:
    """What a search did: pairs compared, survivors at each depth, exact distances; seconds spent on codes of the image, starts, scans."""

    pairs: int = 0
    groups: int = 0
    mid: int = 0
    far: int = 0
    deep: int = 0
    exact: int = 0
    coding_seconds: float = 0.0
    start_seconds: float = 0.0
    scan_seconds: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """Rows float32 (G, C) ready for many searches; without codes where preparing does not pay."""

    rows: np.ndarray
    codes: tuple[Layout, Axes, np.ndarray] | None


def prepare(gallery: np.ndarray, *, threads: int | None = None) -> Prepared:
    """Code rows, (G, C), for `nearest_of`."""
    rows = np.ascontiguousarray(gallery)
    if len(rows) < FEW or rows.dtype != FLOAT:
        return Prepared(rows, None)
    layout = layout_of(((1, *rows.shape),))
    sample = rows[np.random.default_rng(0).choice(len(rows), min(SAMPLE, len(rows)), replace=False)]
    if not np.isfinite(sample).all():
        return Prepared(rows, None)
    axes = learn_axes(sample, layout)
    record, count = rows.reshape(-1), min(thread_count(threads), len(rows))
    with Team(count) as team:
        row = to_row(record, encode(record, layout, axes, team), layout, axes)
    return Prepared(rows, (layout, axes, row))


def nearest_of(prepared: Prepared, queries: np.ndarray, *, kappa: int, threads: int | None = None) -> Nearest:
    """Return the `kappa` nearest of prepared rows for each query, float32 (Q, C)."""
    found = None
    if prepared.codes is not None and len(queries) >= FEW and kappa <= NOT_FOR and queries.dtype == FLOAT:
        layout, axes, row = prepared.codes
        own, record = layout_of(((1, *queries.shape),)), np.ascontiguousarray(queries).reshape(-1)
        coded = [Coded(prepared.rows.reshape(-1), row, axes)]
        found = search(record, own, coded, layout, axes, kappa=kappa, threads=threads)
    return blocked.nearest(queries, prepared.rows, kappa=kappa, threads=threads) if found is None else found


def nearest(queries: np.ndarray, gallery: np.ndarray, *, kappa: int, threads: int | None = None) -> Nearest:
    """Return the `kappa` nearest rows of `gallery` for each query; see the package docstring."""
    if min(len(queries), len(gallery)) < FEW or kappa > NOT_FOR or {queries.dtype, gallery.dtype} != {FLOAT}:
        return blocked.nearest(queries, gallery, kappa=kappa, threads=threads)
    return nearest_of(prepare(gallery, threads=threads), queries, kappa=kappa, threads=threads)


def search(
    record: np.ndarray,
    own: Layout,
    images: Sequence[Coded],
    layout: Layout,
    axes: Axes,
    *,
    kappa: int,
    threads: int | None = None,
    counts: Counts | None = None,
    query: Query | None = None,
    team: Team | None = None,
) -> Nearest | None:
    """Find the `kappa` nearest of all positions of `images` for each position of an image.

    None where pruning does not pay, or where a descriptor is not finite.

    Args:
        record: the image's levels, flat, float32, laid out as `own`.
        own: its layout.
        images: what is searched, of `layout`; indices count their positions one image after the other.
        layout: theirs.
        axes: those that their codes were made with.
        kappa: at most the number of all positions.
        threads: None for the environment's SPADEWORK_THREADS, or all cores.
        counts: takes up what was done.
        query: what `code_query` made of the record; None to make it, as is done where it has other axes.
        team: who shares the work; None for `threads`.
    """
    assert all(image.axes is axes for image in images)  # codes of other axes would give wrong bounds
    count = min(thread_count(threads), own.positions)
    with joined(team, count) as team:
        if query is None or query.axes is not axes:
            query = code_query(record, own, axes, team)
        counts = counts or Counts()
        counts.coding_seconds += query.seconds
        return _Search(query.codes, query.descriptors, own, images, layout, axes, kappa, team).run(counts)


def code_query(record: np.ndarray, own: Layout, axes: Axes, team: Team = ALONE) -> Query:
    """Code an image for `search`: its levels, flat, float32, laid out as `own`. Whichever threads do it, the same comes out."""
    began = time.perf_counter()
    codes = QueryCodes.made_of(encode(record, own, axes, team), own)
    return Query(axes, codes, describe(record, own, team), time.perf_counter() - began)


def _centres(images: Sequence[Coded], layout: Layout) -> list[tuple[np.ndarray, ...]]:
    """The centres of each image's groups; those not searched before get theirs.

    Other threads may do the same for the same images, and replace what this one has put there: who reads centres by their addresses must hold
    those that the addresses are of, as they are returned here.
    """
    from spadework.kernels.centres import centres_of

    new = [image for image in images if not image.centres]
    if new:
        rows = np.array([image.row.ctypes.data for image in new])[:, None] + layout.offsets[:2]
        for image, *centres in zip(new, *centres_of(rows, layout.groups), strict=True):
            image.centres[:] = centres
    return [tuple(image.centres) for image in images]


class _Search:
    """One search: what all its rounds share."""

    def __init__(
        self,
        codes: QueryCodes,
        descriptors: np.ndarray,
        own: Layout,
        images: Sequence[Coded],
        layout: Layout,
        axes: Axes,
        kappa: int,
        team: Team,
    ) -> None:
        self.codes, self.descriptors, self.grid = codes, np.require(descriptors, np.float32, ["C", "W"]), own.grid
        self.images, self.layout, self.axes = images, layout, axes
        self.team, self.threads = team, team.threads
        self.distances = np.full((len(descriptors), kappa), np.inf)
        self.indices = np.full((len(descriptors), kappa), NONE)
        self.centres = _centres(images, layout)
        places = [[part.ctypes.data for part in centres] for centres in self.centres]
        self.addresses = np.hstack([addresses_of(images), np.array(places, np.int64)])
        self.bounds = bounds_of(images, codes, axes)
        self.counts = np.zeros((self.threads, 7), np.int64)

    def run(self, counts: Counts) -> Nearest | None:
        """Do the rounds; None when one gives up."""
        if not (np.isfinite(self.bounds).all() and np.isfinite(self.codes.errors).all()):
            return None
        rows = len(self.images) * self.layout.positions
        allowed = 0.0
        for share, (queries, step) in zip(SHARES, rounds(self.grid), strict=False):
            allowed += share * len(queries) * rows * self.layout.channels / BLOCKED_A_NANOSECOND / self.threads
            began = time.perf_counter()
            self._start(queries, step)
            started = time.perf_counter()
            pays = self._scan(queries, max(LEAST, int(allowed)))
            counts.start_seconds += started - began
            counts.scan_seconds += time.perf_counter() - started
            if not pays:
                return None
        counts.pairs += len(self.descriptors) * rows
        done = self.counts.sum(axis=0)
        for place, name in enumerate(("groups", "mid", "far", "deep", "exact"), 1):
            setattr(counts, name, getattr(counts, name) + int(done[place]))
        return Nearest(self.distances, self.indices)

    def _start(self, queries: np.ndarray, step: int) -> None:
        """First matches: what the neighbours of the round before found, moved along; in the first round the nearest by near codes."""
        if step == 0:
            rows = np.full((len(queries), min(self.distances.shape[1], self.layout.positions)), -1, np.int64)
            self._deal(len(queries), lambda edges, taken, _: self._guess(queries, edges, taken, rows))
            own, found = np.repeat(queries, rows.shape[1]), rows.reshape(-1)
            own, found = own[found >= 0], found[found >= 0]
        else:
            own, found = self._moved(queries, step)
        strips = np.searchsorted(own, [len(self.descriptors) * t // self.threads for t in range(self.threads + 1)])
        self.team.share(lambda t: self._try(own, found, int(strips[t]), int(strips[t + 1]), t))

    def _moved(self, queries: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (query, row), by query, then row: the matches of up to four neighbours on the grid of every `step`-th position."""
        height, width = self.grid
        tall, wide = self.layout.grid
        y, x = np.divmod(queries, width)
        owns, rows = [], []
        for down, right in ((0, 0), (1, 1), (0, 1), (1, 0)):
            ny, nx = (y // step + down) * step, (x // step + right) * step
            there = np.flatnonzero((ny < height) & (nx < width))
            matches = self.indices[ny[there] * width + nx[there], :MATCHES]  # (n, up to MATCHES)
            image, place = np.divmod(matches, self.layout.positions)
            py = place // wide + (y - ny)[there, None]
            px = place % wide + (x - nx)[there, None]
            good = (py >= 0) & (py < tall) & (px >= 0) & (px < wide) & (matches != NONE)
            owns.append(np.broadcast_to(queries[there, None], matches.shape)[good])
            rows.append((image * self.layout.positions + py * wide + px)[good])
        span = len(self.images) * self.layout.positions
        keys = np.unique(np.concatenate(owns) * span + np.concatenate(rows))
        own, row = np.divmod(keys, span)
        return own, row

    def _guess(self, queries: np.ndarray, edges: np.ndarray, taken: int, rows: np.ndarray) -> None:
        from spadework.kernels import scanning

        layout = self.layout
        scanning.guess(
            queries, edges, taken, self.codes.codes, self.addresses, layout.offsets, layout.order, layout.groups, rows
        )

    def _try(self, queries: np.ndarray, rows: np.ndarray, first: int, last: int, thread: int) -> None:
        from spadework.kernels import scanning

        layout = self.layout
        scanning.try_pairs(
            queries,
            rows,
            first,
            last,
            layout.depths,
            self.codes.codes,
            layout.offsets,
            layout.lane_of,
            self.descriptors,
            self.addresses,
            layout.positions,
            layout.geometry,
            *layout.places,
            layout.grid[1],
            self.distances,
            self.indices,
            self.counts[thread],
        )

    def _scan(self, queries: np.ndarray, budget: int) -> bool:
        """Compare with all images; False when the work exceeded the budget."""
        from spadework.kernels import scanning

        layout, codes = self.layout, self.codes.of(queries)

        def work(edges: np.ndarray, taken: int, thread: int) -> None:
            scanning.scan(
                queries,
                edges,
                taken,
                codes.codes,
                codes.towards,
                codes.squares,
                codes.errors,
                codes.factors,
                self.descriptors,
                self.axes.scale,
                self.addresses,
                self.bounds,
                layout.offsets,
                layout.order,
                layout.groups,
                layout.positions,
                layout.geometry,
                *layout.places,
                layout.grid[1],
                self.distances,
                self.indices,
                budget,
                self.counts[thread],
            )

        self._deal(len(queries), work)
        return bool((self.counts[:, 0] <= budget).all())

    def _deal(self, count: int, work: Callable[[np.ndarray, int, int], None]) -> None:
        """Do `work(edges, taken, thread)` in all threads; `taken`, the address of a counter, tells which piece is the next to take."""
        edges, taken = pieces(count, self.threads), np.zeros(1, np.int64)
        self.team.share(lambda thread: work(edges, taken.ctypes.data, thread))


def pieces(count: int, threads: int) -> np.ndarray:
    """Where the pieces begin that `count` queries are dealt in, and the last one's end: int64.

    Each is the share of what is left that all threads could take twice: long ones first, for they read an image's codes less often, and
    short ones at the end, so that all threads finish together, whatever their places cost and whatever else the cores do.
    """
    edges = [0]
    while (left := count - edges[-1]) > 0:
        share = -(-left // (2 * threads)) if threads > 1 else left
        edges.append(min(count, edges[-1] + -(-share // PIECE) * PIECE))
    return np.array(edges, np.int64)


def addresses_of(images: Sequence[Coded]) -> np.ndarray:
    """Where each image's row of codes and its record lie, and the record's length: int64 (n, 3)."""
    return np.array(
        [(image.row.ctypes.data, image.record.ctypes.data, len(image.record)) for image in images], np.int64
    )


def bounds_of(images: Sequence[Coded], codes: QueryCodes, axes: Axes) -> np.ndarray:
    """What bounds rest on of each image, float64 (n, 6): see `scanning.scan`."""
    numbers = np.stack([image.row[: 8 * NUMBERS].view(np.float64) for image in images])
    bounds = np.ascontiguousarray(numbers[:, :6])
    bounds[:, 4] = ROUNDING * axes.scale * (codes.largest + numbers[:, 4])
    return bounds


def rounds(grid: tuple[int, int]) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the positions of each round, and the step of the grid whose matches they start from (0 in the first)."""
    height, width = grid
    y, x = np.divmod(np.arange(height * width), width)
    done = np.zeros(height * width, bool)
    before = 0
    for step in (4, 2, 1) if min(grid) >= 8 else (1,):
        chosen = (y % step == 0) & (x % step == 0) & ~done
        done |= chosen
        yield np.flatnonzero(chosen), before
        before = step
