"""Correspondence: for each fine position of an image, its nearest descriptors over part of a gallery. Exact.

In: an image's pyramid, a gallery, the images of it to search. Out: `Correspondence` on the fine grid.
The gallery of a test image is *all* positions of *those* images; blocks of it are searched one after another and merged, so that memory is
bounded by the block, whatever the number of images.
Source: Cohen and Hoshen 2020, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from spadework.errors import InputError
from spadework.gallery import Gallery
from spadework.kernels import Kernel, Nearest, get_kernel, kernel_name, merge, pruned, window
from spadework.kernels.team import Team
from spadework.kernels.window import Window
from spadework.pyramid import Pyramid, descriptors, upsample

MATCHINGS = frozenset({"concatenate", "ensemble"})
BLOCK_BYTES = 128 << 20


@dataclass(frozen=True)
class Correspondence:
    """What each fine position corresponds to.

    distances: float64 (H, W), mean squared distance to the `kappa` nearest descriptors.
    images: int64 (H, W), the gallery image of the nearest one.
    positions: int64 (H, W), its place in that image's fine grid, y * W + x.
    nearest: float64 (H, W), the squared distance to it.
    """

    distances: np.ndarray
    images: np.ndarray
    positions: np.ndarray
    nearest: np.ndarray


def correspond(
    levels: Sequence[np.ndarray],
    gallery: Gallery,
    images: Sequence[int] | np.ndarray,
    *,
    kappa: int = 1,
    pyramid: str = "concatenate",
    upsampling: str = "bilinear",
    kernel: str = "auto",
    threads: int | None = None,
    within: Window | None = None,
    query: pruned.Query | None = None,
    team: Team | None = None,
) -> Correspondence:
    """Find the nearest descriptors of every fine position among all positions of `images`, or those within a window around it.

    Args:
        levels: the image's level maps, (H_l, W_l, C_l) float32 each, shaped like the gallery's.
        gallery: the normal images.
        images: indices of those to search, at least one.
        kappa: how many nearest descriptors the score is the mean of.
        pyramid: "concatenate" searches all levels jointly; "ensemble" searches each level on its own grid and averages the maps,
            as some re-implementations do (its match is that of the finest level).
        upsampling: how coarser levels reach the fine grid, "bilinear" or "nearest".
        kernel: a name in `spadework.kernels.KERNELS`, or "auto".
        threads: of the compiled kernel; None for the environment's SPADEWORK_THREADS or all cores.
        within: the part of each image that a position is compared with; None for all of it. Where it holds fewer than `kappa`
            descriptors in all images together, the score is the mean of those there are.
        query: what `Gallery.code_query` made of the levels, if it was asked before; of use to the compiled kernel alone, like
        team: who shares its work; None for `threads`.

    Raises:
        InputError: `kappa` exceeds the number of descriptors to search, or the levels have other shapes than the gallery's.
    """
    gallery.geometry.check(levels)
    chosen = [int(image) for image in images]
    name = kernel_name(kernel)
    if pyramid == "ensemble":
        return _ensemble(levels, gallery, chosen, kappa, partial(get_kernel(name), threads=threads), within)
    height, width = gallery.geometry.grid
    _check_kappa(kappa, height * width, len(chosen))
    found = None
    if name == "pruned" and kappa <= pruned.NOT_FOR:
        coded, layout, axes = gallery.coded(chosen, upsampling=upsampling, threads=threads, team=team)
        record = np.ascontiguousarray(gallery.geometry.pack(levels), np.float32)
        if within is None or within.covers(layout.grid):
            found = pruned.search(
                record, layout, coded, layout, axes, kappa=kappa, threads=threads, query=query, team=team
            )
        else:
            found = window.search(record, coded, layout, axes, within, kappa=kappa, threads=threads, team=team)
    if found is None:
        queries = descriptors(levels, upsampling=upsampling)
        found = _search(
            queries,
            lambda part: gallery.descriptors(part, upsampling=upsampling),
            chosen,
            kappa,
            get_kernel("blocked" if name == "pruned" else name),
            gallery.geometry.grid,
            within,
        )
    return _on_grid(found, gallery.geometry.grid, np.array(chosen))


def correspond_tiles(
    tiles: Sequence[Pyramid],
    gallery: Gallery,
    k: int,
    *,
    exclude: int | slice | None = None,
    within: Window | None = None,
    **options: Any,
) -> Correspondence:
    """As `correspond`, with its options, for a view in tiles: each is searched among the tiles most like it, wherever in an image these lie.

    Args:
        tiles: what each tile of the view holds, with its vector, as `Tiling.cut` gives it.
        gallery: the normal images, kept in tiles of the same tiling.
        k: how many tiles are searched for each.
        exclude: an image to leave out, or images from start to stop.
        within: a window of the whole view around a place; then only tiles at the same place are searched, and the window ends where the tile does.

    Returns:
        A correspondence on the fine grid of the whole view, also its positions; distances blended where tiles overlap, matches those of the
        tile in which a place counts most.
    """
    tiling, shape = gallery.tiling, gallery.geometry.grid
    assert tiling is not None  # who has tiles keeps them so
    grid = (shape[0] * tiling.size[0] // tiling.tile[0], shape[1] * tiling.size[1] // tiling.tile[1])
    if within is not None:
        down, right = (whole / part for whole, part in zip(tiling.size, tiling.tile, strict=True))
        within = Window(within.down * down, within.right * right)
    owners, found = tiling.owners(grid), []
    corners = np.array([[part.start for part in tiling.places(tile, grid)] for tile in range(len(tiling))])
    images, positions = np.empty(grid, np.int64), np.empty(grid, np.int64)
    nearest = np.empty(grid)
    for tile, pyramid in enumerate(tiles):
        place = None if within is None else tile
        rows = gallery.nearest_tiles(pyramid.global_vector, k, exclude=exclude, place=place)
        own = correspond(pyramid.levels, gallery, rows, within=within, **options)
        found.append(own.distances)
        width = own.images.shape[1]
        y, x = corners[own.images % len(tiling)].transpose(2, 0, 1)  # of the tile that each match lies in
        places = tiling.places(tile, grid)
        mine = owners[places] == tile
        images[places][mine] = (own.images // len(tiling))[mine]
        positions[places][mine] = ((y + own.positions // width) * grid[1] + x + own.positions % width)[mine]
        nearest[places][mine] = own.nearest[mine]
    return Correspondence(tiling.blend(found, grid), images, positions, nearest)


def _check_kappa(kappa: int, positions: int, images: int) -> None:
    if kappa > positions * images:
        rule = f"only {positions * images} descriptors are searched ({images} images of {positions} positions)"
        raise InputError(f"kappa is {kappa}, but {rule}: lower kappa.")


def _search(
    queries: np.ndarray,
    block: Callable[[list[int]], np.ndarray],
    images: list[int],
    kappa: int,
    search: Kernel,
    grid: tuple[int, int],
    within: Window | None,
) -> Nearest:
    """Search `images` block by block; indices count rows over all of them in the order given."""
    positions = len(queries)  # test and gallery images have the same grid
    _check_kappa(kappa, positions, len(images))
    step = max(1, BLOCK_BYTES // (queries.shape[1] * 4 * positions))
    if within is not None and not within.covers(grid):
        return window.search_plainly(queries, block, images, grid, within, search, kappa=kappa, block=step)
    best: Nearest | None = None
    for start in range(0, len(images), step):
        rows = block(images[start : start + step])
        found = search(queries, rows, kappa=min(kappa, len(rows)))
        best = merge(best, Nearest(found.distances, found.indices + start * positions), kappa=kappa)
    assert best is not None  # at least one image
    return best


def _on_grid(found: Nearest, grid: tuple[int, int], images: np.ndarray) -> Correspondence:
    positions = grid[0] * grid[1]
    nearest = found.indices[:, 0]
    there = np.isfinite(found.distances)
    every: bool = there.all()  # a window may hold fewer than kappa
    means = found.distances.mean(axis=1) if every else found.distances.mean(axis=1, where=there)
    return Correspondence(
        distances=means.reshape(grid),
        images=images[nearest // positions].reshape(grid),
        positions=(nearest % positions).reshape(grid),
        nearest=found.distances[:, 0].reshape(grid),
    )


def _ensemble(
    levels: Sequence[np.ndarray],
    gallery: Gallery,
    images: list[int],
    kappa: int,
    search: Kernel,
    within: Window | None,
) -> Correspondence:
    height, width = gallery.geometry.grid
    total = np.zeros((height, width))
    finest: Correspondence | None = None
    for index, level in enumerate(levels):
        channels = level.shape[2]

        def block(part: list[int], index: int = index, channels: int = channels) -> np.ndarray:
            return np.concatenate([gallery.levels(i)[index].reshape(-1, channels) for i in part]).astype(np.float32)

        grid = (level.shape[0], level.shape[1])
        found = _search(level.reshape(-1, channels), block, images, kappa, search, grid, within)
        own = _on_grid(found, level.shape[:2], np.array(images))
        finest = finest or own
        total += upsample(own.distances[..., None], height, width)[..., 0]
    assert finest is not None  # a pyramid has at least one level
    return Correspondence(total / len(levels), finest.images, finest.positions, finest.nearest)
