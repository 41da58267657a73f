"""The main job from end to end on rendered parts: fit, inspect, evaluate, report. No data, no download.

In: a folder to write to. Out: `Demo`, and in the folder: the parts, a model and an inspection for each category, the report.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spadework.batch import inspect_batch
from spadework.benchmark import Benchmark
from spadework.datasets import Category
from spadework.datasets.synthetic import CATEGORIES, write_dataset
from spadework.detectors.reading import Progress
from spadework.detectors.spade import Spade
from spadework.errors import OutputError
from spadework.evaluation import Evaluation, evaluate
from spadework.report import write_report

N_TRAIN, N_GOOD, N_PER_DEFECT = 30, 8, 2
MAX_FALSE_ALARMS = 0.05  # what 30 normal pictures can promise: 1 / 31
MARKER = ".spadework-demo"


@dataclass(frozen=True)
class Demo:
    """What the demo showed and where."""

    benchmark: Benchmark
    parts: Path
    inspection: Path
    report: Path
    seconds: float


def run_demo(
    out: Path,
    *,
    size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Demo:
    """Run the main job on rendered parts.

    Args:
        out: folder for everything; an earlier demo in it is replaced.
        size: side of the pictures, in pixels.
        seed: of the renderings.
        progress: called with (what, done, total).
        announce: called with each step's name.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    started = time.perf_counter()
    tell = announce or (lambda text: None)
    _claim(out)
    tell(f"rendering parts into {out / 'parts'}")
    counts = {"n_train": N_TRAIN, "n_good": N_GOOD, "n_per_defect": N_PER_DEFECT}
    parts = write_dataset(out / "parts", categories=CATEGORIES, **counts, size=size, seed=seed)
    evaluations = []
    for category in parts.categories:
        tell(
            f"{category.name}: fitting on {len(category.train)} good pictures, then testing on {len(category.test)} others"
        )
        evaluations.append(_one(out, category, progress))
    report = write_report(out / "report.html", evaluations, title="Spadework demo: rendered parts")
    benchmark = Benchmark(tuple(each.row for each in evaluations), tuple(evaluations))
    return Demo(benchmark, out / "parts", out / "inspection", report, time.perf_counter() - started)


def _claim(out: Path) -> None:
    """Make the folder, or take over that of an earlier demo; never write into another's."""
    try:
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARKER).exists())):
            raise OutputError(f"{out}: exists and was not made by the demo. Choose another folder with --out.")
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).touch()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}. Choose another folder with --out.") from error


def _one(out: Path, category: Category, progress: Progress | None) -> Evaluation:
    model = Spade(max_false_alarms=MAX_FALSE_ALARMS)
    model.fit([sample.path for sample in category.train], path=out / f"{category.name}.spade", progress=progress)
    few = [sample.path for sample in category.test if sample.is_anomalous][:3]
    inspect_batch(model, few, out / "inspection" / category.name, explain=True)
    return evaluate(model, category, progress=progress)
