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

import numpy as np

from spadework.errors import InputError
from spadework.gallery import Gallery
from spadework.kernels import Kernel, Nearest, get_kernel, kernel_name, merge, pruned
from spadework.pyramid import descriptors, upsample

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
) -> Correspondence:
    """Find the nearest descriptors of every fine position among all positions of `images`.

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

    Raises:
        InputError: `kappa` exceeds the number of descriptors to search, or the levels have other shapes than the gallery's.
    """
    gallery.geometry.check(levels)
    chosen = [int(image) for image in images]
    name = kernel_name(kernel)
    if pyramid == "ensemble":
        return _ensemble(levels, gallery, chosen, kappa, partial(get_kernel(name), threads=threads))
    height, width = gallery.geometry.grid
    _check_kappa(kappa, height * width, len(chosen))
    found = None
    if name == "pruned" and kappa <= pruned.NOT_FOR:
        coded, layout, axes = gallery.coded(chosen, upsampling=upsampling, threads=threads)
        record = np.ascontiguousarray(gallery.geometry.pack(levels), np.float32)
        found = pruned.search(record, layout, coded, layout, axes, kappa=kappa, threads=threads)
    if found is None:
        queries = descriptors(levels, upsampling=upsampling)
        found = _search(
            queries,
            lambda part: gallery.descriptors(part, upsampling=upsampling),
            chosen,
            kappa,
            get_kernel("blocked" if name == "pruned" else name),
        )
    return _on_grid(found, gallery.geometry.grid, np.array(chosen))


def _check_kappa(kappa: int, positions: int, images: int) -> None:
    if kappa > positions * images:
        rule = f"only {positions * images} descriptors are searched ({images} images of {positions} positions)"
        raise InputError(f"kappa is {kappa}, but {rule}: lower kappa.")


def _search(
    queries: np.ndarray, block: Callable[[list[int]], np.ndarray], images: list[int], kappa: int, search: Kernel
) -> Nearest:
    """Search `images` block by block; indices count rows over all of them in the order given."""
    positions = len(queries)  # test and gallery images have the same grid
    _check_kappa(kappa, positions, len(images))
    step = max(1, BLOCK_BYTES // (queries.shape[1] * 4 * positions))
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
    return Correspondence(
        distances=found.distances.mean(axis=1).reshape(grid),
        images=images[nearest // positions].reshape(grid),
        positions=(nearest % positions).reshape(grid),
        nearest=found.distances[:, 0].reshape(grid),
    )


def _ensemble(
    levels: Sequence[np.ndarray], gallery: Gallery, images: list[int], kappa: int, search: Kernel
) -> Correspondence:
    height, width = gallery.geometry.grid
    total = np.zeros((height, width))
    finest: Correspondence | None = None
    for index, level in enumerate(levels):
        channels = level.shape[2]

        def block(part: list[int], index: int = index, channels: int = channels) -> np.ndarray:
            return np.concatenate([gallery.levels(i)[index].reshape(-1, channels) for i in part]).astype(np.float32)

        found = _search(level.reshape(-1, channels), block, images, kappa, search)
        own = _on_grid(found, level.shape[:2], np.array(images))
        finest = finest or own
        total += upsample(own.distances[..., None], height, width)[..., 0]
    assert finest is not None  # a pyramid has at least one level
    return Correspondence(total / len(levels), finest.images, finest.positions, finest.nearest)
