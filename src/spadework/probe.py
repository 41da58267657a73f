"""What a small `fit` shows of a large one: seconds a step of each stage, bytes a picture, and the memory it took, on this machine.

In: a detector, its normal pictures. Out: `Probe`. A few of the pictures are learnt from, twice: six, which also loads whatever is loaded once, then a
few dozen, timed stage by stage by what `fit` tells of its progress. Trainings are only begun. It all happens in a temporary folder, which goes.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spadework.backbones.onnx import PASSES
from spadework.datasets import Category, Sample
from spadework.detectors.base import Detector
from spadework.detectors.costs import INSPECTING, ON_TRIAL, READING, TRAINING, Growth, Trial
from spadework.detectors.reading import AHEAD
from spadework.evaluation import CASES, DRAWING, KINDS_OF_CASES, MEASURING, check_measuring, evaluate, peak_memory_mb
from spadework.images import Picture, picture_size

FEW, MANY, SLOW_MANY = 6, 32, 12  # pictures of the first and the second small fit
SLOW = 1.5  # seconds of the first, but for its first picture, from which on the second takes fewer
TRIAL_SECONDS = 2.0  # of training
TESTS = 6  # test pictures
SMALL_BATCH = 4
ONCE = 4.0  # times as long as the others' mean takes a call in which something is done once
MANY_TRAINED = 8  # pictures of the second where most of the time goes into the training
SLOW_STEP = 0.5  # seconds of one with SMALL_BATCH, from which on the second has small batches, too


# Pictures that have passed the network before the first is told of. Told by the last of few, a step would seem to need no network.
AHEAD_OF = {READING: PASSES + AHEAD, INSPECTING: PASSES}


@dataclass
class Stage:
    """Calls of one stage: the seconds before each, and the steps that it told of. total: the steps it told it would take.

    ahead: of the last so many steps the work was done before, beside earlier ones; they cost less than a step. is_warm: nothing is loaded in
    the first.
    """

    seconds: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    total: float = 0.0
    done: float = 0.0
    ahead: int = 0
    is_warm: bool = False

    @property
    def step(self) -> float:
        """Seconds a step, once it runs: of the later half, but for a call that took far longer than the others: there something is done once."""
        calls = [(s, n) for s, n in zip(self.seconds, self.steps, strict=True) if n > 0]
        if not calls:
            return 0.0
        steady = 0 < 3 * self.ahead < len(calls)
        if self.is_warm and not steady:  # at no time does each step cost what it does: all together do
            return sum(self.seconds) / sum(n for _, n in calls)
        later = calls[len(calls) // 3 : -self.ahead] if steady else calls[len(calls) // 2 :]
        longest = max(later)
        if len(later) > 4 and longest[0] > ONCE * (sum(s for s, _ in later) - longest[0]) / (len(later) - 1):
            later.remove(longest)
        return sum(s for s, _ in later) / sum(n for _, n in later)

    @property
    def extra(self) -> float:
        """Seconds beyond its steps: to begin, and what is done once."""
        return max(0.0, sum(self.seconds) - self.step * sum(self.steps))


class Clock:
    """A progress callback that takes the time: what passes between two calls belongs to the stage of the latter. Looks at the folder, too."""

    def __init__(self, folder: Path) -> None:
        self.stages: dict[str, Stage] = {}
        self.sizes: dict[str, float] = {}  # of the model's arrays, in bytes, at their largest
        self._folder = folder
        self._last = time.perf_counter()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take up a call."""
        now = time.perf_counter()
        name = what.partition(" · ")[0]
        stage = self.stages.setdefault(name, Stage(ahead=AHEAD_OF.get(name, 0), is_warm=name == INSPECTING))
        stage.seconds.append(now - self._last)
        stage.steps.append(max(0.0, done - stage.done))
        stage.done, stage.total = done, total
        if done in (0, total):
            self.look()
        self._last = time.perf_counter()

    def begin(self) -> None:
        """Take the time from here."""
        self._last = time.perf_counter()

    def look(self) -> None:
        """Take up how large the arrays are."""
        found: dict[str, float] = {}
        for file in self._folder.rglob("*.bin"):
            name = file.name.rpartition("-")[0]
            found[name] = found.get(name, 0.0) + file.stat().st_size
        for name, size in found.items():
            self.sizes[name] = max(size, self.sizes.get(name, 0.0))


@dataclass(frozen=True)
class Small:
    """A small fit. detector: with the settings that made it small. rest: seconds that belong to no stage. kept: the model's bytes, by array.
    peak: of memory, in MiB. tests: test pictures inspected. pixels: that the measures take of one, on average.
    """

    detector: Detector
    count: int
    stages: Mapping[str, Stage]
    sizes: Mapping[str, float]
    kept: Mapping[str, float]
    rest: float
    seconds: float
    peak: float
    tests: int = 0
    pixels: float = 0.0


@dataclass(frozen=True)
class Probe:
    """Two small fits. loading: seconds that only the first took; each further process takes them again."""

    first: Small
    second: Small
    seconds: float

    @property
    def loading(self) -> float:
        """Seconds to load what is loaded once a process."""
        return max(0.0, self.first.seconds - self.second.seconds)

    def step(self, name: str, growth: Growth, own: Growth) -> float:
        """Seconds a step of a stage that is `growth`, where the second fit's was `own`."""
        if name not in self.second.stages:
            return 0.0
        step = self.second.stages[name].step
        return step * float((growth.size / own.size) ** self._power(name, own, growth.powers))

    def _power(self, name: str, own: Growth, powers: tuple[float, float]) -> float:
        least, most = powers
        before = growths(self.first.detector, self.first.count).get(name)
        if least == most or before is None or name not in self.first.stages or own.size <= before.size:
            return most
        earlier, later = self.first.stages[name].step, self.second.stages[name].step
        if earlier <= 0 or later <= 0:
            return most
        return min(most, max(least, math.log(later / earlier) / math.log(own.size / before.size)))


def growths(detector: Detector, count: int, tests: int = 0) -> dict[str, Growth]:
    """Return the stages of a fit with so many normal pictures, and of inspecting so many others."""
    measured = {
        INSPECTING: replace(detector._inspecting(count), steps=tests),
        MEASURING: Growth(1, max(1, tests)),
        DRAWING: Growth(min(tests, CASES * KINDS_OF_CASES)),
    }
    return detector._stages(count) | measured


def probe(detector: Detector, pictures: Sequence[Picture], *, tests: Category | None = None) -> Probe:
    """Fit small models.

    Args:
        detector: what shall be fitted; it is not changed.
        pictures: all the normal pictures; some are taken, from first to last.
        tests: a category some of whose test pictures are inspected and measured as well.

    Raises:
        InputError: what `fit` would raise.
    """
    started = time.perf_counter()
    changes = detector._probe()
    few = {**changes, "batch_size": min(changes["batch_size"], SMALL_BATCH)} if "batch_size" in changes else changes
    first = _fit_small(detector, few, pictures, min(FEW, len(pictures)), 0.0, tests)
    slow = first.stages[READING].step * MANY > SLOW
    most = MANY_TRAINED if TRAINING in first.stages else SLOW_MANY if slow else MANY
    if TRAINING in first.stages and first.stages[TRAINING].step > SLOW_STEP:
        changes = {**changes, "batch_size": min(changes["batch_size"], 2 * SMALL_BATCH)}
    count = max(min(most, len(pictures) // 2), min(FEW, len(pictures)))
    second = _fit_small(detector, changes, pictures, count, TRIAL_SECONDS, tests)
    return Probe(first, second, time.perf_counter() - started)


def _fit_small(
    detector: Detector,
    changes: Mapping[str, Any],
    pictures: Sequence[Picture],
    count: int,
    seconds: float,
    tests: Category | None,
) -> Small:
    made = type(detector)(**{**detector.settings(), **changes})
    chosen = spread(pictures, count)
    with tempfile.TemporaryDirectory(prefix="spadework-bill-") as folder:
        clock = Clock(Path(folder))
        token = ON_TRIAL.set(Trial(seconds, len(pictures)))
        started = time.perf_counter()
        try:
            made.fit(chosen, path=Path(folder) / "small.spade", bad_files="skip", progress=clock)
        finally:
            ON_TRIAL.reset(token)
        took = time.perf_counter() - started
        rest = took - sum(sum(stage.seconds) for stage in clock.stages.values())
        clock.look()
        kept = {
            name: float(made.folder_.path.joinpath(entry["file"]).stat().st_size)
            for name, entry in made.folder_.header["arrays"].items()
        }
        inspected, pixels = 0, 0.0
        if tests is not None and tests.test:
            some = _some(tests)
            clock.begin()
            evaluate(made, some, progress=clock)
            inspected, pixels = len(some.test), _pixels(made, some)
    peak = peak_memory_mb() or 0.0
    fresh = type(made)(**made.settings())  # what was learnt is let go
    return Small(fresh, count, clock.stages, clock.sizes, kept, max(0.0, rest), took, peak, inspected, pixels)


def _some(tests: Category) -> Category:
    """A few test pictures, of all kinds."""
    kinds = (True, False)
    chosen: list[Sample] = []
    for kind in kinds:
        own = [sample for sample in tests.test if sample.is_anomalous == kind]
        chosen += spread(own, min(TESTS // 2, len(own)))
    return Category(tests.dataset, tests.name, tests.root, train=tests.train, test=tuple(chosen))


def _pixels(detector: Detector, tests: Category) -> float:
    """Pixels of a test picture that the measures compare, on average."""
    if not detector.localises:
        return 0.0
    if check_measuring(detector, 0.3, None) == "view":
        height, width = detector._view().size
        return float(height * width)
    total = 0
    for sample in tests.test:
        height, width = picture_size(sample.path) or (0, 0)
        total += height * width
    return total / len(tests.test)


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return so many of them, from first to last, evenly."""
    return [items[place * len(items) // count] for place in range(count)]
