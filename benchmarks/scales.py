"""Several scales in one model: each scale alone against both fused, quality and time.

    python benchmarks/scales.py [--data DATASET...] [--size SIDE] [--keep FOLDER] [--seed N] [--only WORD]

Rendered parts have faint defects, as in benchmarks/backbone.py. Nothing is learnt from defects, no threshold is set; weights of the scales
come from 20 normal pictures left out in turn. Data sets are real pictures, looked at to report.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from backbone import SEVERITIES, write_parts
from common import Row, finish, parser

from spadework import Detector, Spade, evaluate, open_dataset
from spadework.datasets import Category
from spadework.detectors.spade_scales import SpadeScales

MEASURES = ("image_auroc", "pixel_auroc", "pro")
COLUMNS = {
    "pictures": "set",
    "seen at": "seen",
    "image ROCAUC": "image_auroc",
    "pixel ROCAUC": "pixel_auroc",
    "PRO": "pro",
    "mean of the three": "mean",
    "fit s": "fit_seconds",
    "s a picture": "seconds",
    "model MB a normal picture": "model_mb",
}


def detectors(side: int) -> dict[str, Detector]:
    """Each scale alone, its map smoothed as it is in the fused model, and both."""
    half = side // 2
    alone = {str(own): Spade(image_size=own, smoothing=own / 64, calibration_images=0) for own in (half, side)}
    both = SpadeScales(image_size=side, smoothing=side / 64, calibration_images=0)
    return {**alone, f"{side} and {half}": both}


def measured(name: str, category: Category, seen: str, detector: Detector) -> Row:
    """One row: fitted and measured on a category."""
    started = time.perf_counter()
    detector.fit([sample.path for sample in category.train])
    took = time.perf_counter() - started
    row = evaluate(detector, category).row
    found = [row[key] for key in MEASURES]
    return {
        "set": name,
        "seen": seen,
        **{key: round(value, 4) for key, value in zip(MEASURES, found, strict=True)},
        "mean": round(float(np.mean(found)), 4),
        "fit_seconds": round(took, 1),
        "seconds": row["predict_seconds_per_image"],
        "model_mb": round(row["model_mb"] / row["n_train"], 2),
    }


def sets(options: argparse.Namespace, temporary: Path) -> list[tuple[str, Category]]:
    """Names and categories, rendered where they are not there yet."""
    size, tiny = 64 if options.tiny else options.size, options.tiny
    parts = (options.keep or temporary) / f"parts-{size}-{options.seed}"
    counts = (3, 2) if tiny else (30, 15)
    severities = SEVERITIES[-1:] if tiny else SEVERITIES[1::2]
    write_parts(parts, options.seed, n_train=counts[0], n_good=counts[1], severities=severities, size=size)
    found = [(f"rendered, {size}: {category.name}", category) for category in open_dataset(parts).categories]
    found += [(Path(root).name, category) for root in options.data for category in open_dataset(root).categories]
    return [each for each in found if not options.only or options.only in each[0]]


def run(options: argparse.Namespace, temporary: Path) -> list[Row]:
    rows: list[Row] = []
    for name, category in sets(options, temporary)[: 1 if options.tiny else None]:
        for seen, detector in detectors(64 if options.tiny else options.size).items():
            rows.append(measured(name, category, seen, detector))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", nargs="*", default=[], help="folders of data sets")
    arguments.add_argument("--size", type=int, default=512, help="of the larger scale, and of rendered parts")
    arguments.add_argument("--seed", type=int, default=41, help="of the rendered parts")
    arguments.add_argument("--keep", type=Path, help="folder for rendered parts; used again if they are there")
    arguments.add_argument("--only", metavar="WORD", help="only pictures whose name holds this")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return finish("scales", run(options, Path(temporary)), COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
