"""Every detector on the same pictures: rendered parts, and real data sets if given.

    python benchmarks/detectors.py [--detector NAME...] DATASET...
    python benchmarks/detectors.py --tiny

Everyday settings of those that train nothing, but quick ones where a picture would take seconds (QUICK here); of those that train a network
`quick()` with twice the epochs (EPOCHS here), so that two cores do all of it in about half an hour; --tiny leaves these out. Each run is
a process of its own, so that its memory is its own. The data sets are not part of the project; docs/datasets.md says where they come from.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Row, finish, parser, run_apart

from spadework.benchmark import run_benchmark
from spadework.datasets import open_dataset
from spadework.datasets.synthetic import CATEGORIES, write_dataset
from spadework.detectors import DETECTORS, get_detector

COLUMNS = {
    "data": "set",
    "detector": "detector",
    "settings": "told",
    "normal": "n_train",
    "test": "n_test",
    "image AUROC": "image_auroc",
    "pixel AUROC": "pixel_auroc",
    "PRO": "pro",
    "image AP": "image_ap",
    "pixel AP": "pixel_ap",
    "false alarms": "false_alarms",
    "found": "found",
    "fit s": "fit_seconds",
    "s a picture": "predict_seconds_per_image",
    "model MiB": "model_mb",
    "peak MiB": "peak_memory_mb",
}
QUICK = {"cnn-dictionary"}
EPOCHS = 2


def settings_of(name: str) -> tuple[dict[str, Any], str]:
    """What a detector is measured with, and in words."""
    quick = dict(get_detector(name).QUICK)
    if "epochs" in quick:
        return quick | {"epochs": EPOCHS * quick["epochs"]}, f"quick, {EPOCHS} x epochs"
    return (quick, "quick") if name in QUICK else ({}, "default")


def measure(root: str, category: str, name: str, *, tiny: bool) -> Row:
    settings, told = ({"image_size": 64}, "tiny") if tiny else settings_of(name)
    found = run_benchmark(open_dataset(root), categories=[category], detectors=[name], settings=settings)
    row = dict(found.rows[0])
    if "error" in row:
        raise SystemExit(f"{name} on {category}: {row['error']}")
    counts = found.evaluations[0].counts or {}
    row |= {
        "set": category,
        "told": told,
        "false_alarms": f"{counts['false_alarms']} of {counts['normal']}" if counts else None,
        "found": f"{counts['found']} of {counts['anomalous']}" if counts else None,
    }
    return {key: row[key] for key in COLUMNS.values()}


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="*")
    arguments.add_argument("--detector", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    arguments.add_argument(
        "--case", nargs=3, metavar=("ROOT", "CATEGORY", "NAME"), help="measure one and print its row"
    )
    options = arguments.parse_args()
    if options.case:
        root, category, name = options.case
        sys.stdout.write(json.dumps(measure(root, category, name, tiny=options.tiny)))
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rendered = Path(folder) / "rendered"
        some = {"n_train": 8, "n_good": 2, "n_per_defect": 1, "size": 64} if options.tiny else {"n_train": 60}
        write_dataset(rendered, categories=["gear"] if options.tiny else list(CATEGORIES), **some)
        names = [name for name in options.detector if not (options.tiny and get_detector(name).QUICK)]
        for root in [str(rendered), *options.dataset]:
            for category in open_dataset(root).categories:
                for name in names:
                    started = time.perf_counter()
                    tiny = ["--tiny"] if options.tiny else []
                    rows.append(run_apart(__file__, *tiny, "--case", root, category.name, name))
                    took = time.perf_counter() - started
                    print(f"{category.name}: {name}: {took:.0f} s", file=sys.stderr)
    return finish("detectors", rows, COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
