"""What float16 storage costs and saves: room on disk, fit and predict time, and how far scores and measures move.

python benchmarks/storage.py           # three rendered categories, 40 normal and 65 test pictures each
python benchmarks/storage.py --tiny
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Row, finish, parser

from spadework import Spade
from spadework.datasets.synthetic import write_dataset
from spadework.evaluation import evaluate

COLUMNS = {
    "storage": "storage",
    "MB an image": "mb_an_image",
    "fit s": "fit_seconds",
    "s a picture": "predict_seconds",
    "median score change": "median_change",
    "largest score change": "largest_change",
    "image AUROC": "image_auroc",
    "pixel AUROC": "pixel_auroc",
    "PRO": "pro",
}


def main() -> int:
    options = parser(__doc__ or "").parse_args()
    size, n_train = (64, 6) if options.tiny else (256, 40)
    with tempfile.TemporaryDirectory() as folder:
        counts = {"n_train": n_train, "n_good": 2 if options.tiny else 20, "n_per_defect": 1 if options.tiny else 3}
        parts = write_dataset(Path(folder) / "parts", size=size, seed=21, **counts)
        rows, reference = [], np.empty(0)
        for storage in ("float32", "float16"):
            row, scores = measure(parts, storage, size)
            reference = scores if storage == "float32" else reference
            change = np.abs(scores - reference) / reference
            row |= {"median_change": float(np.median(change)), "largest_change": float(change.max())}
            rows.append(row)
    return finish("storage", rows, COLUMNS, options)


def measure(parts, storage: str, size: int) -> tuple[Row, np.ndarray]:
    """Fit and evaluate every category; means of measures, medians of times."""
    found, scores, room = [], [], []
    for category in parts.categories:
        model = Spade(storage=storage, image_size=size, calibration_images=10)
        started = time.perf_counter()
        model.fit([sample.path for sample in category.train])
        fit_seconds = time.perf_counter() - started
        result = evaluate(model, category)
        found.append(result.row | {"fit_seconds": fit_seconds})
        scores.append(result.image_scores)
        room.append(sum(file.stat().st_size for file in model.folder_.path.iterdir()) / 2**20 / model.n_normal_)
    row: Row = {"storage": storage, "mb_an_image": statistics.median(room)}
    for name, key in (("fit_seconds", "fit_seconds"), ("predict_seconds", "predict_seconds_per_image")):
        row[name] = statistics.median(each[key] for each in found)
    for name in ("image_auroc", "pixel_auroc", "pro"):
        row[name] = statistics.mean(each[name] for each in found)
    return row, np.concatenate(scores)


if __name__ == "__main__":
    sys.exit(main())
