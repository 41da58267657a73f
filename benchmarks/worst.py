"""The compiled search where it can prune little or nothing, against BLAS on the same data.

    python benchmarks/worst.py
    python benchmarks/worst.py --tiny

Noise has no structure to prune by: the search sees it and hands over. Medians of five, each kernel in turn.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Row, finish, parser

from spadework.correspondence import correspond
from spadework.gallery import Gallery
from spadework.kernels import pruned
from spadework.pyramid import Pyramid
from spadework.storage import ModelFolder

COLUMNS = {
    "data": "what",
    "queries": "queries",
    "rows": "rows",
    "channels": "channels",
    "kappa": "kappa",
    "blocked s": "blocked_s",
    "ours s": "ours_s",
    "ours / blocked": "ratio",
    "exact distances a query": "exact",
    "same answer": "same_answer",
}
RNG = np.random.default_rng(0)
EMBEDDED = ((32, 32, 48), (16, 16, 96), (8, 8, 192))
LARGE = ((56, 56, 256), (28, 28, 512), (14, 14, 1024))


def main() -> int:
    options = parser(__doc__ or "").parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (what, shapes, make, kappa) in enumerate(cases(options.tiny)):
            gallery = fill(Path(folder) / f"{number}.spade", shapes, make, 4 if options.tiny else 12)
            rows.append(measure(what, gallery, make(shapes), kappa, options.tiny))
            print(rows[-1], file=sys.stderr)
    return finish("worst", rows, COLUMNS, options)


def cases(tiny: bool):
    shapes = ((8, 8, 12), (4, 4, 24)) if tiny else EMBEDDED
    large = shapes if tiny else LARGE
    return [
        ("noise", shapes, noise, 1),
        ("noise", large, noise, 1),
        ("half noise, half alike", shapes, half, 1),
        ("all equal", shapes, equal, 1),
        ("one background, noise of 1e-3", shapes, background, 1),
        ("alike", shapes, alike, 1),
        ("alike", shapes, alike, 20),
    ]


def noise(shapes):
    return [RNG.normal(size=shape).astype(np.float32) for shape in shapes]


def equal(shapes):
    return [np.full(shape, 0.3, np.float32) for shape in shapes]


def alike(shapes):
    """Waves along few directions and a little noise, as features of similar pictures are."""
    levels = []
    for h, w, c in shapes:
        turn = np.random.default_rng(c).normal(size=(12, c))
        y, x = np.mgrid[:h, :w] / max(h, w)
        waves = np.stack([np.sin(4 * y + i * x + 0.3 * RNG.normal()) for i in range(12)], axis=-1)
        levels.append((waves @ turn + 0.2 * RNG.normal(size=(h, w, c))).astype(np.float32))
    return levels


def half(shapes):
    levels = alike(shapes)
    for level, other in zip(levels, noise(shapes), strict=True):
        level[: len(level) // 2] = 3 * other[: len(level) // 2]
    return levels


def background(shapes):
    """An object on a plain ground: most places nearly the same."""
    levels = alike(shapes)
    for level in levels:
        h, w, c = level.shape
        ground = np.ones((h, w), bool)
        ground[h // 3 : 2 * h // 3, w // 3 : 2 * w // 3] = False
        level[ground] = 0.5 + 1e-3 * RNG.normal(size=(int(ground.sum()), c)).astype(np.float32)
    return levels


def fill(path: Path, shapes, make, images: int) -> Gallery:
    folder = ModelFolder.create(path, {})
    vector, picture = np.zeros(4, np.float32), np.zeros((8, 8, 3), np.uint8)
    gallery = Gallery.create(folder, Pyramid(tuple(make(shapes)), vector))
    for index in range(images):
        gallery.append(Pyramid(tuple(make(shapes)), vector), name=str(index), image=picture)
    gallery.complete()
    folder.commit()
    gallery.refresh()
    return gallery


def measure(what: str, gallery: Gallery, levels, kappa: int, tiny: bool) -> Row:
    images = range(len(gallery))
    counts = pruned.Counts()
    real = pruned.search
    pruned.search = lambda *a, **k: real(*a, **k, counts=counts)  # type: ignore[assignment]
    times: dict[str, list[float]] = {"pruned": [], "blocked": []}
    found = {}
    try:
        for _ in range(2 if tiny else 5):
            for kernel, taken in times.items():
                started = time.perf_counter()
                found[kernel] = correspond(levels, gallery, images, kappa=kappa, kernel=kernel)
                taken.append(time.perf_counter() - started)
    finally:
        pruned.search = real
    height, width = gallery.geometry.grid
    ours, theirs = statistics.median(times["pruned"]), statistics.median(times["blocked"])
    return {
        "what": what,
        "queries": height * width,
        "rows": len(gallery) * height * width,
        "channels": gallery.geometry.channels,
        "kappa": kappa,
        "blocked_s": theirs,
        "ours_s": ours,
        "ratio": ours / theirs,
        "exact": counts.exact / len(times["pruned"]) / (height * width) if counts.pairs else None,
        "same_answer": bool(np.allclose(found["pruned"].distances, found["blocked"].distances, rtol=1e-9, atol=0)),
    }


if __name__ == "__main__":
    sys.exit(main())
