"""Fit and measure detectors on the categories of a data set: a matrix of runs, one row each.

In: a data set, detectors by name with their settings. Out: `Benchmark`: evaluations to draw, rows of numbers. A run that ends with
an error becomes a row of nulls with the reason, and the next run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spadework.datasets import Category, Dataset
from spadework.detectors import get_detector
from spadework.detectors.base import Detector
from spadework.detectors.reading import Progress
from spadework.errors import InputError, SpadeworkError
from spadework.evaluation import Evaluation, check_measuring, evaluate, failed_row

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """Results of all runs. rows: one a run, in order. evaluations: those of the runs that came to an end."""

    rows: tuple[dict[str, Any], ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def failed(self) -> bool:
        """Whether any run ended with an error."""
        return len(self.evaluations) < len(self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return {"spadework": VERSION, "results": [ROW...]}."""
        from spadework import __version__

        return {"spadework": __version__, "results": list(self.rows)}


def run_benchmark(
    dataset: Dataset,
    *,
    categories: Sequence[str] = (),
    detectors: Sequence[str] = ("spade",),
    settings: Mapping[str, Any] | None = None,
    paper: bool = False,
    pro_limit: float = 0.3,
    resolution: str | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Benchmark:
    """Fit each detector on each category's normal pictures and measure it on its test pictures.

    Args:
        dataset: of `open_dataset`.
        categories: names; empty for all.
        detectors: names in the registry.
        settings: of the detectors' constructors.
        paper: start from each detector's published configuration.
        pro_limit: false-positive rate up to which PRO is integrated.
        resolution: as in `evaluate`.
        progress: called with (what, done, total).
        announce: called with the name of each run before it starts.

    Raises:
        InputError: an unknown category, detector or setting, or measures that cannot be taken as asked.
    """
    chosen = [dataset.category(name) for name in categories] if categories else list(dataset.categories)
    made = {name: make_detector(name, settings or {}, paper=paper) for name in detectors}  # refuse before the first run
    for each in made.values():
        each._check_settings()
        check_measuring(each, pro_limit, resolution)
    rows: list[dict[str, Any]] = []
    evaluations: list[Evaluation] = []
    for category in chosen:
        for name in made:
            if announce:
                announce(f"{category.name} · {name}")
            detector = make_detector(name, settings or {}, paper=paper)
            try:
                evaluation = _run(detector, category, pro_limit, resolution, progress)
            except SpadeworkError as error:
                rows.append(failed_row(category, name, detector.settings(), error))
            else:
                rows.append(evaluation.row)
                evaluations.append(evaluation)
    return Benchmark(tuple(rows), tuple(evaluations))


def _run(
    detector: Detector, category: Category, pro_limit: float, resolution: str | None, progress: Progress | None
) -> Evaluation:
    if not category.train:
        raise InputError(f"category {category.name!r} has no normal pictures to learn from.")
    detector.fit([sample.path for sample in category.train], progress=progress)
    return evaluate(detector, category, pro_limit=pro_limit, resolution=resolution, progress=progress)


def make_detector(name: str, settings: Mapping[str, Any], *, paper: bool = False) -> Detector:
    """Return an unfitted detector by name.

    Args:
        name: in the registry.
        settings: of its constructor.
        paper: start from its published configuration.

    Raises:
        InputError: no detector or no setting of that name; the message lists those there are.
    """
    cls = get_detector(name)
    known = cls.setting_names()
    for key in settings:
        if key not in known:
            raise InputError(f"detector {name!r} has no setting {key!r}; it has: {', '.join(known)}.")
    return cls.paper(**settings) if paper else cls(**settings)
