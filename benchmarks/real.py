"""The everyday detector on real pictures: one row a category, as `spadework benchmark` measures it.

    python benchmarks/real.py DATASET...

The data sets are not part of the project; docs/datasets.md says where they come from.
"""

from __future__ import annotations

import sys

from common import finish, parser

from spadework.benchmark import run_benchmark
from spadework.datasets import open_dataset

COLUMNS = {
    "data set": "set",
    "normal": "n_train",
    "test": "n_test",
    "image AUROC": "image_auroc",
    "pixel AUROC": "pixel_auroc",
    "PRO": "pro",
    "image AP": "image_ap",
    "pixel AP": "pixel_ap",
    "false alarms": "false_alarms",
    "promised": "promised",
    "found": "found",
    "fit s": "fit_seconds",
    "s a picture": "predict_seconds_per_image",
    "peak MiB": "peak_memory_mb",
}


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="+")
    options = arguments.parse_args()
    rows = []
    for root in options.dataset:
        for each in run_benchmark(open_dataset(root), announce=print).evaluations:
            found = each.counts
            assert found is not None  # the everyday detector sets a threshold
            counts = {
                "set": each.row["category"],
                "false_alarms": f"{found['false_alarms']} of {found['normal']}",
                "promised": each.promised_false_alarms,
                "found": f"{found['found']} of {found['anomalous']}",
            }
            rows.append({key: (each.row | counts)[key] for key in COLUMNS.values()})
    return finish("real", rows, COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
