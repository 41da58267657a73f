"""Every detector on the same pictures, with the same network: rendered parts, and real data sets if given.

    python benchmarks/detectors.py [--detector NAME...] DATASET...
    python benchmarks/detectors.py --tiny

Everyday settings of each; those that train a network are scaled down as their `quick()` says, and left out with --tiny.
The data sets are not part of the project; docs/datasets.md says where they come from.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import finish, parser

from spadework.benchmark import run_benchmark
from spadework.datasets import open_dataset
from spadework.datasets.synthetic import CATEGORIES, write_dataset
from spadework.detectors import DETECTORS, get_detector
from spadework.evaluation import Evaluation

COLUMNS = {
    "data": "set",
    "detector": "detector",
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
}


def evaluations(root: Path, names: Sequence[str], *, tiny: bool) -> Iterator[Evaluation]:
    for name in names:
        quick = get_detector(name).QUICK
        if tiny and quick:
            continue
        settings = {"image_size": 64} if tiny else dict(quick)
        found = run_benchmark(
            open_dataset(root),
            detectors=[name],
            settings=settings,
            announce=lambda run: print(run, file=sys.stderr),
        )
        yield from found.evaluations


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="*")
    arguments.add_argument("--detector", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    options = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rendered = Path(folder) / "rendered"
        some = {"n_train": 8, "n_good": 2, "n_per_defect": 1, "size": 64} if options.tiny else {"n_train": 60}
        write_dataset(rendered, categories=["gear"] if options.tiny else list(CATEGORIES), **some)
        for root in [rendered, *options.dataset]:
            for each in evaluations(root, options.detector, tiny=options.tiny):
                counts = each.counts or {}
                told = {
                    "set": each.row["category"],
                    "false_alarms": f"{counts['false_alarms']} of {counts['normal']}" if counts else None,
                    "found": f"{counts['found']} of {counts['anomalous']}" if counts else None,
                }
                rows.append({key: (each.row | told)[key] for key in COLUMNS.values()})
    return finish("detectors", rows, COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
