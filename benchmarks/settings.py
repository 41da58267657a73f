"""What each everyday setting does on rendered parts with faint defects: one is changed at a time.

    python benchmarks/settings.py [--seeds 0 1 2] [--keep FOLDER] [--backbone NETWORK] [--only WORD]

Seeds below 100 are for choosing, from 100 on for reporting. Each row is the mean over renderings and categories; "gain" is that of the mean of image ROCAUC,
pixel ROCAUC and PRO over the default of the same renderings, and its standard error over (rendering, category) pairs. Nothing is learnt from defects.
Weights of levels and distances that `Spade` has no setting for are tried by changing the features that it gets.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from backbone import SEVERITIES, write_parts
from common import Row, finish, parser

from spadework import Spade, evaluate, open_dataset
from spadework.pyramid import Pyramid

Levels = tuple[np.ndarray, ...]
SHIPPED = (0.25, 0.55, 0.2)  # of the variance of a joint descriptor, level by level, in the embedded network
MEASURES = ("image_auroc", "pixel_auroc", "pro", "pixel_ap")
COLUMNS = {
    "setting": "setting",
    "value": "value",
    "image ROCAUC": "image_auroc",
    "pixel ROCAUC": "pixel_auroc",
    "PRO": "pro",
    "pixel AP": "pixel_ap",
    "gain": "gain",
    "its standard error": "error",
}


class Changed(Spade):
    """SPADE on features that a function has changed."""

    change: Callable[[Levels], Levels] = staticmethod(lambda levels: levels)

    def _pyramid(self, view: np.ndarray) -> Pyramid:
        made = super()._pyramid(view)
        return Pyramid(
            tuple(np.ascontiguousarray(level, np.float32) for level in self.change(made.levels)), made.global_vector
        )


def weighted(*shares: float) -> Callable[[Levels], Levels]:
    """Levels with other shares of the joint variance."""
    factors = [np.sqrt(share / shipped) for share, shipped in zip(shares, SHIPPED, strict=True)]
    return lambda levels: tuple(level * factor for level, factor in zip(levels, factors, strict=True))


def unit_length(levels: Levels) -> Levels:
    """Each level's feature of length 1 (times its usual length): squared distances are then those of the angle, 2 - 2 cos."""
    usual = [np.sqrt((level**2).sum(axis=2).mean()) for level in levels]
    return tuple(
        level / np.maximum(np.linalg.norm(level, axis=2, keepdims=True), 1e-6) * size
        for level, size in zip(levels, usual, strict=True)
    )


def half_unit(levels: Levels) -> Levels:
    """Half way to that: divided by the root of the length."""
    usual = [np.sqrt((level**2).sum(axis=2).mean()) for level in levels]
    return tuple(
        level * np.sqrt(size / np.maximum(np.linalg.norm(level, axis=2, keepdims=True), 1e-6))
        for level, size in zip(levels, usual, strict=True)
    )


def roots(levels: Levels) -> Levels:
    """Square roots of the numbers, all at least 0: the squared distance is then Hellinger's."""
    return tuple(
        np.sign(level) * np.sqrt(np.abs(level)) * np.float32(np.sqrt(np.abs(level).mean())) for level in levels
    )


VARIANTS: list[tuple[str, str, dict[str, Any], Callable[[Levels], Levels] | None]] = [
    ("levels", "1", {"levels": [1]}, None),
    ("levels", "2", {"levels": [2]}, None),
    ("levels", "3", {"levels": [3]}, None),
    ("levels", "1, 2", {"levels": [1, 2]}, None),
    ("levels", "2, 3", {"levels": [2, 3]}, None),
    ("weights of levels", "equal", {}, weighted(1 / 3, 1 / 3, 1 / 3)),
    ("weights of levels", "0.4, 0.4, 0.2", {}, weighted(0.4, 0.4, 0.2)),
    ("weights of levels", "0.15, 0.7, 0.15", {}, weighted(0.15, 0.7, 0.15)),
    ("weights of levels", "0.2, 0.4, 0.4", {}, weighted(0.2, 0.4, 0.4)),
    ("image_size", "192", {"image_size": 192}, None),
    ("image_size", "320", {"image_size": 320}, None),
    ("image_size", "384", {"image_size": 384}, None),
    ("grid_stride", "4", {"grid_stride": 4}, None),
    ("grid_stride", "16", {"grid_stride": 16}, None),
    ("pooling", "3", {"pooling": 3}, None),
    ("pooling", "5", {"pooling": 5}, None),
    ("distance", "each level of unit length", {}, unit_length),
    ("distance", "half way to unit length", {}, half_unit),
    ("distance", "of square roots (Hellinger)", {}, roots),
    ("pyramid", "ensemble", {"pyramid": "ensemble"}, None),
    ("upsampling", "nearest", {"upsampling": "nearest"}, None),
    ("gallery_k", "1", {"gallery_k": 1}, None),
    ("gallery_k", "5", {"gallery_k": 5}, None),
    ("gallery_k", "20", {"gallery_k": 20}, None),
    ("kappa", "3", {"kappa": 3}, None),
    ("kappa", "9", {"kappa": 9}, None),
    ("image_score", "nearest-images, image_k 50", {"image_score": "nearest-images"}, None),
    ("image_score", "nearest-images, image_k 5", {"image_score": "nearest-images", "image_k": 5}, None),
    ("smoothing", "0", {"smoothing": 0.0}, None),
    ("smoothing", "2", {"smoothing": 2.0}, None),
    ("smoothing", "6", {"smoothing": 6.0}, None),
    ("smoothing", "8", {"smoothing": 8.0}, None),
]


def measured(folders: list[Path], settings: Row, change: Callable[[Levels], Levels] | None) -> np.ndarray:
    """Measures, (renderings and categories, 4)."""
    found = []
    for folder in folders:
        for category in open_dataset(folder).categories:
            model = Changed(**{"calibration_images": 0, **settings})
            model.change = change or Changed.change
            model.fit([sample.path for sample in category.train])
            row = evaluate(model, category).row
            found.append([row[key] for key in MEASURES])
    return np.array(found, np.float64)


def as_row(setting: str, value: str, found: np.ndarray, usual: np.ndarray) -> Row:
    gains = (found - usual)[:, :3].mean(axis=1)
    numbers = {key: round(float(mean), 4) for key, mean in zip(MEASURES, found.mean(axis=0), strict=True)}
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
    return {
        "setting": setting,
        "value": value,
        **numbers,
        "gain": round(float(gains.mean()), 4),
        "error": round(error, 4),
    }


def run(options: argparse.Namespace, temporary: Path) -> list[Row]:
    size, n_train, n_good = (64, 3, 2) if options.tiny else (256, 50, 30)
    severities = SEVERITIES[-1:] if options.tiny else SEVERITIES
    folders = []
    for seed in options.seeds[: 1 if options.tiny else None]:
        folder = (options.keep or temporary) / f"parts-{seed}"
        write_parts(folder, seed, n_train=n_train, n_good=n_good, severities=severities, size=size)
        folders.append(folder)
    base: Row = {"backbone": options.backbone} | ({"image_size": size} if options.tiny else {})
    usual = measured(folders, base, None)
    rows = [as_row("default", "", usual, usual)]
    for setting, value, settings, change in VARIANTS[:: 12 if options.tiny else 1]:
        if options.only and options.only not in setting:
            continue
        started = time.perf_counter()
        found = measured(folders, base | settings, change)
        rows.append(as_row(setting, value, found, usual))
        print(f"{rows[-1]} in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the rendered parts")
    arguments.add_argument("--keep", type=Path, help="folder for the rendered parts; used again if they are there")
    arguments.add_argument("--backbone", default="embedded", help="what Spade(backbone=...) takes")
    arguments.add_argument("--only", metavar="WORD", help="only settings whose name holds this")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return finish("settings", run(options, Path(temporary)), COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
