"""The bill in advance against what the work then took: time, peak of memory, room on disk. Each line runs in a process of its own.

    python benchmarks/bill.py [DATASET...] [--only TEXT]

DATASET: folders in a layout of `spadework datasets`; rendered parts are always there, also at 2,000 x 1,500 and 10,000 x 10,000 pixels (5 GB of disk
for a while). --only measures those lines anew whose names hold the text.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
from common import RESULTS, finish, parser, run_apart
from resolution import HEIGHT, WIDTH, write_large

from spadework.datasets import open_dataset
from spadework.datasets.synthetic import CATEGORIES, write_dataset
from spadework.estimates import estimate, estimate_runs
from spadework.evaluation import peak_memory_mb
from spadework.probe import Clock
from spadework.runs import Asked, make_detector, perform, plan

COLUMNS = {
    "work": "work",
    "pictures": "normal",
    "told s": "told_s",
    "took s": "took_s",
    "time ratio": "time_ratio",
    "told MiB": "told_mb",
    "took MiB": "took_mb",
    "memory ratio": "memory_ratio",
    "told disk MiB": "told_disk_mb",
    "took disk MiB": "took_disk_mb",
    "disk ratio": "disk_ratio",
    "bill s": "bill_s",
}
SIDE = 10_000
LARGE, HUGE = f"gear {WIDTH} x {HEIGHT}", f"gear {SIDE} x {SIDE}"
METHODS = {  # name: (detector, quick)
    "spade": ("spade", False),
    "patchcore": ("patchcore", False),
    "padim": ("padim", False),
    "nearest-image": ("nearest-image", False),
    "variation-model": ("variation-model", False),
    "texture-inspection, quick": ("texture-inspection", True),
    "cnn-dictionary, quick": ("cnn-dictionary", True),
    "ganomaly, quick": ("ganomaly", True),
}


def fit(root: str, category: str, method: str) -> dict[str, Any]:
    """One fit."""
    name, quick = METHODS[method]
    detector = make_detector(name, {}, quick=quick)
    pictures = [sample.path for sample in open_dataset(root).category(category).train]
    told = estimate(detector, pictures, advise=False)
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock(Path(folder))
        detector.fit(pictures, path=Path(folder) / "model.spade", progress=clock)
        clock.look()
    return row(f"fit {method}, {category}", told, detector.fit_seconds_, sum(clock.sizes.values()) / 2**20)


def benchmark(root: str, category: str, method: str) -> dict[str, Any]:
    """Fit and measure."""
    (run,) = plan([METHODS[method][0]], [open_dataset(root).category(category)], Asked({}))
    told = estimate_runs([run])
    started = time.perf_counter()
    outcome = perform(run)
    return row(f"benchmark {method}, {category}", told, time.perf_counter() - started, outcome.row["model_mb"])


def row(work: str, told: Any, seconds: float, disk_mb: float) -> dict[str, Any]:
    """What was told beside what it took."""
    memory = peak_memory_mb() or float("nan")
    return {
        "work": work,
        "normal": told.normal,
        **{"told_s": told.seconds, "took_s": seconds, "time_ratio": told.seconds / seconds},
        **{"told_mb": told.memory_mb, "took_mb": memory, "memory_ratio": told.memory_mb / memory},
        **{"told_disk_mb": told.disk_mb, "took_disk_mb": disk_mb, "disk_ratio": told.disk_mb / disk_mb},
        "bill_s": told.probe_seconds,
    }


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="*")
    arguments.add_argument("--only", metavar="TEXT", default="")
    arguments.add_argument(
        "--case", nargs=4, metavar=("WORK", "ROOT", "CATEGORY", "METHOD"), help="used by this script itself"
    )
    options = arguments.parse_args()
    if options.case:
        work, root, category, method = options.case
        print(json.dumps({"fit": fit, "benchmark": benchmark}[work](root, category, method)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        wanted = [case for case in cases(folder, options.dataset, options.tiny) if options.only in name_of(case)]
        shown = {case[2] for case in wanted if case[1] == folder} & {*CATEGORIES}
        if shown:
            few = {"n_train": 10, "n_good": 4, "n_per_defect": 1}
            write_dataset(folder, categories=shown, **(few if options.tiny else {"n_train": 60}))
        for root, name in {case[1:3] for case in wanted} & {(f"{folder}/{LARGE}", LARGE), (f"{folder}/{HUGE}", HUGE)}:
            write_enlarged(Path(root), name)
        rows = measured(wanted, options.only)
    return finish("bill", rows, COLUMNS, options)


def cases(rendered: str, roots: list[str], tiny: bool) -> list[tuple[str, ...]]:
    """SPADE on every category, its whole benchmark on the first of each data set, and every other method on the first of the last data set."""
    large = [] if tiny else [("fit", f"{rendered}/{name}", name, "spade") for name in (LARGE, HUGE)]
    found: list[tuple[str, ...]] = large
    first = ("", "")
    for root in [rendered, *roots]:
        names = (
            list(CATEGORIES)[: 1 if tiny else None]
            if root == rendered
            else [each.name for each in open_dataset(root).categories]
        )
        first = (root, names[0])
        found += [("fit", root, name, "spade") for name in names]
        found.append(("benchmark", *first, "spade"))
    return found + [("fit", *first, method) for method in METHODS if method != "spade" and not tiny]


def write_enlarged(root: Path, name: str) -> None:
    """Gears at 2,000 x 1,500 pixels, or enlarged to 10,000 x 10,000, a data set of one category."""
    write_large(root, "gear", 100, n_train=24 if name == LARGE else 8, n_good=1, n_bad=1, width=WIDTH)
    if name == HUGE:
        for path in sorted((root / "gear").rglob("*.png")):
            picture = cv2.resize(cv2.imread(str(path)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    (root / "gear").rename(root / name)


def name_of(case: tuple[str, ...]) -> str:
    """What its line is called."""
    return f"{case[0]} {case[3]}, {case[2]}"


def measured(wanted: list[tuple[str, ...]], only: str) -> list[dict[str, Any]]:
    """Rows of these cases; where only some are measured, the others as they were."""
    file = RESULTS / "bill.json"
    rows = (
        {each["work"]: each for each in json.loads(file.read_text(encoding="utf-8"))["rows"]}
        if only and file.exists()
        else {}
    )
    for case in wanted:
        name = name_of(case)
        rows[name] = run_apart(__file__, "--case", *case)
        print(
            name,
            f"{rows[name]['time_ratio']:.2f} {rows[name]['memory_ratio']:.2f} {rows[name]['disk_ratio']:.2f}",
            flush=True,
        )
    return list(rows.values())


if __name__ == "__main__":
    sys.exit(main())
