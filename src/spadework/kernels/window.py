"""Nearest descriptors within a window around the same place, exact: of every image only the places near the query's own.

A window is an ellipse on the grid: the places (dy, dx) away with (dy / down)^2 + (dx / right)^2 <= 1, cut at the grid's border. The query's own
place is always in it.

`search` is compiled. It uses the codes and the bounds of pruned.py, of all images the widest, and begins with the query's very place in
the images whose codes there lie nearest; then it looks, image by image, at the groups of sixteen places that the window touches. Copies of a
descriptor are not left out as they are there, for the first of them may lie outside the window. What nothing can be pruned of is compared
exactly, pair by pair: a window holds few.

`search_plainly` does the same by any kernel, query by query: the oracle of tests, and the way where Numba is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spadework.kernels import Kernel, Nearest, merge, pruned, thread_count
from spadework.kernels.axes import Axes
from spadework.kernels.codes import LANES, Layout, QueryCodes, describe, encode
from spadework.kernels.pruned import NONE, Coded, addresses_of, bounds_of
from spadework.kernels.team import Team, joined

SLACK = 1e-9  # a place on the very edge belongs to the window, whatever the last digit


def warm_up() -> None:
    """Compile the inner loops now, or load them from Numba's cache; also those of the search of whole pictures, for a window over everything."""
    from spadework.kernels import window_scan  # noqa: F401  compiled when imported

    pruned.warm_up()


@dataclass(frozen=True)
class Window:
    """Half the height and half the width of a window, in shares of the grid's height and width; 0 leaves the same place alone."""

    down: float
    right: float

    def reach(self, grid: tuple[int, int]) -> np.ndarray:
        """Return how many places it goes sideways, so many rows away: int64 (rows + 1,)."""
        down, right = self.down * grid[0], self.right * grid[1]
        rows = np.arange(min(int(down + SLACK), 2 * grid[0]) + 1)
        rest = np.sqrt(np.clip(1 - (rows / max(down, SLACK)) ** 2, 0, 1))
        return np.minimum(right * rest + SLACK, 2 * grid[1]).astype(np.int64)

    def covers(self, grid: tuple[int, int]) -> bool:
        """Whether every place sees all others."""
        reach = self.reach(grid)
        return bool(len(reach) >= grid[0] and reach[grid[0] - 1] >= grid[1] - 1)


def search(
    record: np.ndarray,
    images: Sequence[Coded],
    layout: Layout,
    axes: Axes,
    window: Window,
    *,
    kappa: int,
    threads: int | None = None,
    team: Team | None = None,
) -> Nearest | None:
    """Find, for each position of an image, the `kappa` nearest within the window of each of `images`.

    Where there are fewer than `kappa`, the rest are at an infinite distance. None where a descriptor is not finite.

    Args:
        record: the image's levels, flat, float32, laid out as `layout`.
        images: what is searched; indices count their positions one image after the other.
        layout: of all of them.
        axes: those that their codes were made with.
        window: how far around the same place.
        kappa: how many.
        threads: None for the environment's SPADEWORK_THREADS, or all cores.
        team: who shares the work; None for `threads`.
    """
    from spadework.kernels import window_scan

    assert all(image.axes is axes for image in images)  # codes of other axes would give wrong bounds
    with joined(team, min(thread_count(threads), layout.positions)) as team:
        count = team.threads
        codes = QueryCodes.made_of(encode(record, layout, axes, team), layout)
        descriptors = np.require(describe(record, layout, team), np.float32, ["C", "W"])
        bounds = _widest(bounds_of(images, codes, axes))
        if not (np.isfinite(bounds).all() and np.isfinite(codes.errors).all()):
            return None
        factors = codes.factors if bounds[5] > 0 else np.ones_like(codes.factors)
        queries = layout.order[layout.order >= 0].astype(np.int64)  # neighbours side by side
        distances = np.full((layout.positions, kappa), np.inf)
        indices = np.full((layout.positions, kappa), NONE)
        shape = np.array([*layout.grid, *((4, LANES // 4) if layout.grid[0] >= 4 else (1, LANES))], np.int64)
        counts = np.zeros((count, 4), np.int64)
        addresses, reach = addresses_of(images), window.reach(layout.grid)

        def work(first: int, last: int, thread: int) -> None:
            window_scan.scan(
                queries,
                first,
                last,
                codes.codes,
                codes.squares,
                codes.errors,
                factors,
                descriptors,
                axes.scale,
                addresses,
                bounds,
                layout.offsets,
                layout.order,
                layout.lane_of,
                reach,
                shape,
                layout.geometry,
                *layout.places,
                distances,
                indices,
                counts[thread],
            )

        edges = [len(queries) * share // count for share in range(count + 1)]
        team.share(lambda share: work(edges[share], edges[share + 1], share))
    return Nearest(distances, indices)


def _widest(bounds: np.ndarray) -> np.ndarray:
    """Bounds that hold for all images, (6,): the largest, but no norm of codes where one image has none that bounds."""
    widest = bounds.max(axis=0)
    if (bounds[:, 5] <= 0).any():
        widest[5] = 0.0
    return np.ascontiguousarray(widest)


def search_plainly(
    queries: np.ndarray,
    rows: Callable[[list[int]], np.ndarray],
    images: Sequence[int],
    grid: tuple[int, int],
    window: Window,
    kernel: Kernel,
    *,
    kappa: int,
    block: int,
) -> Nearest:
    """Do what `search` does, by any kernel, query by query.

    Args:
        queries: descriptors float32 (H * W, C).
        rows: returns the descriptors of images, (n * H * W, C).
        images: those to search; indices count their positions in this order.
        grid: (H, W).
        window: how far around the same place.
        kernel: asked for each query.
        kappa: how many.
        block: images at a time.
    """
    height, width = grid
    positions, reach = height * width, window.reach(grid)
    y, x = np.divmod(np.arange(positions), width)
    best: Nearest | None = None
    for start in range(0, len(images), block):
        part = list(images[start : start + block])
        gallery = rows(part).reshape(len(part), positions, -1)
        distances, indices = np.full((positions, kappa), np.inf), np.full((positions, kappa), NONE)
        for q in range(positions):
            down, right = np.abs(y - y[q]), np.abs(x - x[q])
            inside = np.flatnonzero((down < len(reach)) & (right <= reach[np.minimum(down, len(reach) - 1)]))
            near = gallery[:, inside].reshape(len(part) * len(inside), -1)
            found = kernel(queries[q : q + 1], near, kappa=min(kappa, len(near)))
            image, place = np.divmod(found.indices[0], len(inside))
            distances[q, : len(image)] = found.distances[0]
            indices[q, : len(image)] = (start + image) * positions + inside[place]
        best = merge(best, Nearest(distances, indices), kappa=kappa)
    assert best is not None  # at least one image
    return best
