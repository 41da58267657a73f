"""The methods that train a network, at their published settings, on a GPU.

    python benchmarks/trained.py DATASET...              # minutes on a large GPU
    python benchmarks/trained.py --minutes 8 DATASET...  # what has not ended by then is stopped, named, and left out
    python benchmarks/trained.py --tiny                  # quick settings on the CPU, one small rendered category

Rendered parts, and real data sets if given. The two autoencoders see 2 million examples as published; here a fifth of their epochs (SHARE),
on two objects only (OBJECTS). Each run is a process of its own, several at a time, so times are those of a shared GPU. Nothing is chosen on test
pictures, each is judged once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from common import Row, finish, parser

from spadework.benchmark import run_benchmark
from spadework.datasets import open_dataset
from spadework.datasets.synthetic import CATEGORIES, write_dataset
from spadework.detectors import get_detector

COLUMNS = {
    "data": "set",
    "detector": "detector",
    "settings": "told",
    "normal": "n_train",
    "test": "n_test",
    "image AUROC": "image_auroc",
    "pixel AUROC": "pixel_auroc",
    "PRO": "pro",
    "false alarms": "false_alarms",
    "found": "found",
    "fit s": "fit_seconds",
    "s a picture": "predict_seconds_per_image",
    "device": "device",
}
AUTOENCODERS, OBJECTS = ("ae-l2", "ae-ssim"), ("gear", "hazelnut_reduced")
SHARE = 5
OTHERS = ("cavga-ru", "itae", "anogan", "geom", "ganomaly")


class Case(NamedTuple):
    """One run: its command's words, and its process once it has begun."""

    root: str
    category: str
    name: str


def settings_of(name: str, *, tiny: bool) -> tuple[dict[str, Any], str]:
    """What a detector is measured with, and in words."""
    if tiny:
        return dict(get_detector(name).QUICK) | {"epochs": 1}, "tiny"
    if name not in AUTOENCODERS:
        return {"device": "cuda"}, "published"
    epochs = get_detector(name)().epochs
    return {"device": "cuda", "epochs": epochs // SHARE}, f"published, {epochs // SHARE} of {epochs} epochs"


def measure(case: Case, *, tiny: bool) -> Row:
    settings, told = settings_of(case.name, tiny=tiny)
    found = run_benchmark(open_dataset(case.root), categories=[case.category], detectors=[case.name], settings=settings)
    row = dict(found.rows[0])
    if "error" in row:
        return {"set": case.category, "detector": case.name, "told": told, "error": row["error"]}
    counts = found.evaluations[0].counts or {}
    row |= {
        "set": case.category,
        "told": told,
        "false_alarms": f"{counts['false_alarms']} of {counts['normal']}" if counts else None,
        "found": f"{counts['found']} of {counts['anomalous']}" if counts else None,
        "device": device_name() if settings.get("device") == "cuda" else "CPU",
    }
    return {key: row.get(key) for key in COLUMNS.values()}


def device_name() -> str:
    import torch

    return str(torch.cuda.get_device_name())


def cases(roots: list[str]) -> list[Case]:
    """The longest first."""
    all_of = [(root, category.name) for root in roots for category in open_dataset(root).categories]
    long = [Case(root, name, method) for method in AUTOENCODERS for root, name in all_of if name in OBJECTS]
    return long + [Case(root, name, method) for method in OTHERS for root, name in all_of]


def run_all(waiting: list[Case], *, jobs: int, until: float, tiny: bool) -> list[Row]:
    """Run the cases, `jobs` at a time; those still running at `until` (monotonic) are stopped."""
    rows, running = [], dict[Case, tuple[subprocess.Popen[str], float]]()
    waiting = list(waiting)
    while (waiting or running) and time.monotonic() < until:
        while waiting and len(running) < jobs:
            case = waiting.pop(0)
            words = [sys.executable, __file__, *(["--tiny"] if tiny else []), "--case", *case]
            running[case] = (subprocess.Popen(words, stdout=subprocess.PIPE, text=True), time.monotonic())
        for case, (process, started) in list(running.items()):
            if process.poll() is not None:
                del running[case]
                out = process.communicate()[0]
                row = json.loads(out) if process.returncode == 0 else {"error": f"exit {process.returncode}"}
                print(
                    f"{case.category}: {case.name}: {time.monotonic() - started:.0f} s {row.get('error', '')}",
                    file=sys.stderr,
                )
                if "error" not in row:
                    rows.append(row)
        time.sleep(0.2)
    for case, (process, _) in running.items():
        process.kill()
        print(f"{case.category}: {case.name}: stopped, not measured", file=sys.stderr)
    for case in waiting:
        print(f"{case.category}: {case.name}: not begun, not measured", file=sys.stderr)
    return rows


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="*")
    arguments.add_argument(
        "--jobs", type=int, default=5, help="runs at a time; a run takes up to 26 GB of the GPU's memory"
    )
    arguments.add_argument("--detector", nargs="+", choices=[*OTHERS, *AUTOENCODERS], default=[*OTHERS, *AUTOENCODERS])
    arguments.add_argument("--minutes", type=float, default=600.0, help="stop what has not ended by then")
    arguments.add_argument(
        "--case", nargs=3, metavar=("ROOT", "CATEGORY", "NAME"), help="one run alone; prints its row"
    )
    options = arguments.parse_args()
    if options.case:
        sys.stdout.write(json.dumps(measure(Case(*options.case), tiny=options.tiny)))
        return 0
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        rendered = Path(folder) / "rendered"
        some = {"n_train": 8, "n_good": 2, "n_per_defect": 1, "size": 64} if options.tiny else {"n_train": 60}
        write_dataset(rendered, categories=["gear"] if options.tiny else list(CATEGORIES), **some)
        found = [case for case in cases([str(rendered), *options.dataset]) if case.name in options.detector]
        if options.tiny:
            found = [case for case in found if case.name in ("ganomaly", "itae")]
        rows = run_all(found, jobs=2 if options.tiny else options.jobs, until=until, tiny=options.tiny)
    order = {case[1:]: number for number, case in enumerate(found)}
    rows.sort(key=lambda row: (row["set"], order[row["set"], row["detector"]]))
    return finish("trained", rows, COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
