"""Runs: one detector, one configuration, one category. What is planned before the first starts, and what doing one means.

In: detectors by name with their settings, categories. Out: `Run`s, which another process can do from their JSON, and rows of numbers.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spadework import check
from spadework.datasets import Category, Sample
from spadework.detectors import DETECTORS, get_detector
from spadework.detectors.base import Detector
from spadework.detectors.reading import Progress
from spadework.errors import InputError, SpadeworkError
from spadework.evaluation import RESOLUTIONS, Evaluation, check_measuring, evaluate, failed_row
from spadework.metrics import check_limit

ALL = "all"
CONFIGURATIONS = ("paper", "default", "quick")
FREE = frozenset({"seed", "threads", "weights", "max_false_alarms"})  # may differ within one configuration


@dataclass(frozen=True)
class Run:
    """One run. settings: all of them. configuration: of CONFIGURATIONS. changed: the settings that differ from it. scale: as in `Detector.scale`."""

    category: Category
    detector: str
    settings: dict[str, Any]
    configuration: str
    changed: dict[str, Any]
    scale: str
    pro_limit: float
    resolution: str

    @property
    def title(self) -> str:
        """What people call it: category, detector, and a seed that is not the usual one."""
        seed = self.settings.get("seed")
        return f"{self.category.name} · {self.detector}" + (f" · seed {seed}" if seed else "")

    @property
    def labels(self) -> dict[str, Any]:
        """What its row says about its configuration."""
        known = {"configuration": self.configuration, "changed": self.changed, "scale": self.scale}
        return known | {"seed": self.settings.get("seed")}

    def make(self) -> Detector:
        """Return its detector, not fitted."""
        return get_detector(self.detector)(**self.settings)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return vars(self) | {"category": _category_json(self.category)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Run:
        """Return what `to_json` was made of."""
        return cls(**{**content, "category": _category_from(content["category"])})


@dataclass(frozen=True)
class Refused:
    """A run that cannot even start: `error` says why. It becomes a row of nulls."""

    category: Category
    detector: str
    settings: dict[str, Any]
    configuration: str
    error: Exception

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.category.name} · {self.detector}"

    @property
    def labels(self) -> dict[str, Any]:
        """What its row says about its configuration."""
        return {"configuration": self.configuration, "changed": {}, "scale": None, "seed": None}


@dataclass(frozen=True)
class Outcome:
    """How a run ended. row: of numbers, or of nulls with an "error". evaluation: if it ended well, in this process. traceback: of a fault."""

    row: dict[str, Any]
    evaluation: Evaluation | None = None
    traceback: str | None = None


# ---- planning ----------------------------------------------------------------------------------------------------------------


def chosen_detectors(names: Sequence[str]) -> list[str]:
    """Return detectors by name, each once; "all" stands for the whole registry.

    Raises:
        InputError: no detector of that name.
    """
    found: dict[str, None] = {}
    for name in names:
        if name not in DETECTORS and name != ALL:
            raise InputError(f"detector must be one of {', '.join(sorted(DETECTORS))}, or all, not {name!r}.")
        found |= dict.fromkeys(DETECTORS if name == ALL else [name])
    return list(found)


def make_detector(name: str, settings: Mapping[str, Any], *, paper: bool = False, quick: bool = False) -> Detector:
    """Return an unfitted detector by name.

    Args:
        name: in the registry.
        settings: of its constructor.
        paper: start from its published configuration.
        quick: start from its configuration for a first look.

    Raises:
        InputError: no detector or no setting of that name; the message lists those there are.
    """
    cls = get_detector(name)
    known = cls.setting_names()
    for key in settings:
        if key not in known:
            raise InputError(f"detector {name!r} has no setting {key!r}; it has: {', '.join(known)}.")
    if paper and quick:
        raise InputError("paper and quick are two configurations: choose one.")
    return cls.paper(**settings) if paper else cls.quick(**settings) if quick else cls(**settings)


@dataclass(frozen=True)
class Asked:
    """How detectors are asked for. configuration: of CONFIGURATIONS. seeds: one run each; empty for the detector's own.

    settings: changes of the configuration. pro_limit, resolution: as in `evaluate`.
    """

    settings: Mapping[str, Any]
    configuration: str = "default"
    seeds: Sequence[int] = ()
    pro_limit: float = 0.3
    resolution: str | None = None

    def make(self, name: str, *, lenient: bool) -> list[Detector]:
        """Return detectors that accept their settings: one a seed. lenient: leave out the settings that it does not have.

        Raises:
            InputError: it refuses them, or the measures.
            MissingExtraError: it needs a part that is not installed.
        """
        known = get_detector(name).setting_names()
        settings = {key: value for key, value in self.settings.items() if key in known or not lenient}
        seeds = self.seeds if "seed" in known or not lenient else ()
        varied = [{**settings, "seed": seed} for seed in dict.fromkeys(seeds)] or [settings]
        options = {"paper": self.configuration == "paper", "quick": self.configuration == "quick"}
        made = [make_detector(name, each, **options) for each in varied]
        for each in made:
            each._check_settings()
            check_measuring(each, self.pro_limit, self.resolution)
        return made


def plan(names: Sequence[str], categories: Sequence[Category], asked: Asked) -> list[Run | Refused]:
    """Check everything that can be checked before the first run; return the runs, category by category.

    With one detector, whatever it refuses is an error. With several, a setting goes to those that have it, and one that refuses
    its settings or lacks an extra is `Refused`; it is an error where no detector has a setting, or none can start.

    Raises:
        InputError: likewise, or measures that cannot be taken as asked.
    """
    check_limit(asked.pro_limit)
    if asked.resolution is not None:
        check.one_of(asked.resolution, "resolution", RESOLUTIONS)
    if asked.seeds and "seed" in asked.settings:
        raise InputError("seed is given twice: among the seeds and among the settings. Leave one out.")
    if len(names) > 1:
        _check_known(names, [*asked.settings, *(["seed"] if asked.seeds else [])])
    started = {name: _start(name, asked, lenient=len(names) > 1) for name in names}
    errors = [each for each in started.values() if isinstance(each, Exception)]
    if errors and len(errors) == len(started):
        raise errors[0]
    planned: list[Run | Refused] = []
    for category in categories:
        for name, made in started.items():
            if isinstance(made, Exception):
                planned.append(Refused(category, name, _plain(asked.settings), asked.configuration, made))
            else:
                planned += [_run_of(category, detector, asked) for detector in made]
    return planned


def _start(name: str, asked: Asked, *, lenient: bool) -> list[Detector] | Exception:
    try:
        return asked.make(name, lenient=lenient)
    except Exception as error:  # of one among several, whatever it is; alone, it is raised by `plan`
        return error


def _check_known(names: Sequence[str], settings: Sequence[str]) -> None:
    """Refuse a setting that none of several detectors has. One that cannot be loaded here might have it."""
    known: set[str] = set()
    for name in names:
        try:
            known |= set(get_detector(name).setting_names())
        except SpadeworkError:
            return
    for key in settings:
        if key not in known:
            raise InputError(f"none of the detectors {', '.join(names)} has a setting {key!r}. Check its spelling.")


def _run_of(category: Category, detector: Detector, asked: Asked) -> Run:
    configuration, changed = configuration_of(detector, asked.configuration)
    return Run(
        category=category,
        detector=detector.name,
        settings=_plain(detector.settings()),
        configuration=configuration,
        changed=changed,
        scale="quick" if configuration == "quick" and detector.QUICK else detector.scale,
        pro_limit=float(asked.pro_limit),
        resolution=check_measuring(detector, asked.pro_limit, asked.resolution),
    )


def configuration_of(detector: Detector, asked: str) -> tuple[str, dict[str, Any]]:
    """Return which configuration a detector has, and the settings in which it differs from it.

    A detector that has one of them exactly, whatever was asked for, has that one. Seed, threads and the like do not count.
    """
    own, cls = detector.settings(), type(detector)
    bases: dict[str, Callable[[], Detector]] = {"paper": cls.paper, "default": cls, "quick": cls.quick}
    differing = {}
    for label in CONFIGURATIONS:
        base = bases[label]().settings()
        differing[label] = {key: own[key] for key in own if key not in FREE and own[key] != base[key]}
        if not differing[label]:
            return label, {}
    return asked, _plain(differing[asked])


# ---- doing -------------------------------------------------------------------------------------------------------------------


def perform(run: Run, *, progress: Progress | None = None) -> Outcome:
    """Fit and measure; whatever goes wrong is the outcome. Only an interruption comes out."""
    try:
        detector = run.make()
        if not run.category.train:
            raise InputError(f"category {run.category.name!r} has no normal pictures to learn from.")
        detector.fit([sample.path for sample in run.category.train], progress=progress)
        options: dict[str, Any] = {"pro_limit": run.pro_limit, "resolution": run.resolution, "progress": progress}
        evaluation = evaluate(detector, run.category, **options)
        evaluation.row.update(run.labels, verdicts=evaluation.counts)
        json.dumps(
            evaluation.row, allow_nan=False
        )  # a detector's own fault shows here, not when days of results are written
    except Exception as error:
        return failed(run, error)
    return Outcome(evaluation.row, evaluation)


def failed(run: Run | Refused, error: Exception | str) -> Outcome:
    """Return the outcome of a run that ended with an error: a row of nulls, with the reason in words."""
    fault = isinstance(error, Exception) and not isinstance(error, SpadeworkError)
    trace = "".join(traceback.format_exception(error)) if fault and isinstance(error, Exception) else None
    row = failed_row(run.category, run.detector, run.settings, reason_of(error))
    return Outcome(row | run.labels, None, trace)


def reason_of(error: Exception | str) -> str:
    """Return an error in words: its own where it was written for people, else with its kind before it."""
    if isinstance(error, str | SpadeworkError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {error or 'an array found no room'}. Give it more, or choose smaller settings."
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'} (a fault in the detector, not in the data)"


# ---- as JSON -----------------------------------------------------------------------------------------------------------------


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if _is_json(value) else str(value) for key, value in settings.items()}


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _category_json(category: Category) -> dict[str, Any]:
    return {
        **{name: getattr(category, name) for name in ("dataset", "name")},
        "root": os.fspath(category.root),
        **{part: [_sample_json(each) for each in getattr(category, part)] for part in ("train", "test")},
    }


def _sample_json(sample: Sample) -> dict[str, Any]:
    paths = {
        name: value if value is None else os.fspath(value) for name, value in vars(sample).items() if "path" in name
    }
    return vars(sample) | paths


def _category_from(content: Mapping[str, Any]) -> Category:
    parts = {part: tuple(_sample_from(each) for each in content[part]) for part in ("train", "test")}
    return Category(content["dataset"], content["name"], Path(content["root"]), **parts)


def _sample_from(content: Mapping[str, Any]) -> Sample:
    mask = content["mask_path"]
    return Sample(**{**content, "path": Path(content["path"]), "mask_path": None if mask is None else Path(mask)})
