"""The bill in advance, of a `fit` or a benchmark: time, memory, disk, and what to change if that is too much.

In: a detector or planned runs, and the pictures. Out: `Bill`. Nothing is kept: small models are fitted in a temporary folder (`spadework.probe`),
and each stage is scaled by what the detector knows of how its work grows (`detectors/costs.py`). All that holds for this machine as busy as it is now.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spadework.bill import Bill, Change
from spadework.datasets import Category
from spadework.detectors.base import Detector
from spadework.detectors.costs import TRAINING
from spadework.detectors.reading import gather_normal
from spadework.errors import InputError, SpadeworkError
from spadework.images import Picture
from spadework.probe import FEW, Probe, growths, probe
from spadework.runs import Run, reason_of

COMMAND = (sys.executable, "-c", "from spadework.estimates import main; main()")
PATIENCE = 120.0  # seconds for the bill of one method in a process of its own
IMPORTING = 0.5  # seconds to start a process, of this package alone
CLEARLY = 0.8  # of the bill, at most, is left by a change worth naming
SUGGESTIONS, ADVICE_SECONDS = 3, 15.0
MAP_BYTES = 12  # of memory that the measures take for each pixel of a test picture, at their most


# ---- one fit -----------------------------------------------------------------------------------------------------------------


def estimate(
    detector: Detector,
    images: Picture | Iterable[Picture],
    *,
    path: str | os.PathLike[str] | None = None,
    advise: bool = True,
) -> Bill:
    """Say what `detector.fit(images)` will take. Takes a few seconds itself, writes nothing that stays, and changes nothing.

    Args:
        detector: not fitted, or fitted: its settings count.
        images: normal pictures, as in `fit`.
        path: where the model will go; None for the temporary folder.
        advise: also look for what to change where something is too much; that takes a few seconds for each change.

    Raises:
        InputError: what `fit` would raise for these settings or pictures.
    """
    started = time.perf_counter()
    detector._check_settings()
    pictures = gather_normal(images)
    probes = _Probes(pictures)
    bill = _with_free(probes.bill(detector, len(pictures)), None if path is None else Path(path))
    if advise and bill.problems:
        bill = replace(bill, advice=_advice(bill, detector, lambda other: probes.bill(other, len(pictures))))
    return replace(bill, probe_seconds=time.perf_counter() - started)


def is_worth_telling(detector: Detector, images: Picture | Iterable[Picture]) -> bool:
    """Whether a fit is more work than its bill would be: not of a dozen pictures with a method that is quick."""
    return bool(detector.QUICK) or len(gather_normal(images)) > 2 * FEW


class _Probes:
    """Probes of detectors on the same pictures; settings that only say how often something is done need no new one."""

    def __init__(self, pictures: Sequence[Picture], tests: Category | None = None) -> None:
        self._pictures, self._tests = pictures, tests
        self._found: dict[str, Probe] = {}

    def bill(self, detector: Detector, count: int, tests: int = 0) -> Bill:
        """The bill of a fit with so many normal pictures, and of measuring so many test pictures."""
        small = {**detector.settings(), **detector._probe()}
        key = f"{detector.name} {sorted((name, repr(value)) for name, value in small.items())}"
        if key not in self._found:
            self._found[key] = probe(detector, self._pictures, tests=self._tests)
        return bill_of(self._found[key], detector, count, tests)

    def loading(self) -> float:
        """Seconds that each further process takes to load."""
        return max((each.loading for each in self._found.values()), default=0.0)


def bill_of(found: Probe, detector: Detector, count: int, tests: int = 0) -> Bill:
    """Scale a probe.

    Args:
        found: of this detector, or of one that its `_probe` settings do not tell from it.
        detector: with the settings that will be used.
        count: normal pictures.
        tests: test pictures.
    """
    own = growths(found.second.detector, found.second.count, found.second.tests)
    wanted = growths(detector, count, tests)
    stages = {"other": found.second.rest}
    for name, stage in found.second.stages.items():
        if name == TRAINING:
            stages[name] = stage.extra + stage.step * _training_steps(found, detector, stage.total)
        elif name in wanted:
            stages[name] = stage.extra + found.step(name, wanted[name], own[name]) * wanted[name].steps
        else:
            stages[name] = sum(stage.seconds)
    sizes, kept = (_grown(found, part, detector, count) for part in ("sizes", "kept"))
    return Bill(
        stages={name: seconds for name, seconds in stages.items() if seconds >= 0.01},
        memory_mb=_memory(found, detector, count, sizes) + tests * found.second.pixels * MAP_BYTES / 2**20,
        disk_mb=sum(sizes.values()) / 2**20,
        model_mb=sum(kept.values()) / 2**20,
        normal=count,
        tests=tests,
        probe_seconds=found.seconds,
    )


def _training_steps(found: Probe, detector: Detector, total: float) -> float:
    """Steps of the probe's batch size: it has another number of epochs."""
    return total * float(vars(detector)["epochs"]) / float(vars(found.second.detector)["epochs"])


def _grown(found: Probe, part: str, detector: Detector, count: int) -> dict[str, float]:
    """Bytes of each of the model's arrays with so many pictures: of pictures held out as many as those, of others as the two small fits say."""
    first, second = found.first, found.second
    before, after = getattr(first, part), getattr(second, part)
    own, held = second.detector._calibrating(second.count), detector._calibrating(count)
    grown = {}
    for name, size in after.items():
        if name.startswith(("held_out", "normal_")):
            grown[name] = size / own * held if own else size
        else:
            slope = (size - before.get(name, size)) / max(1, second.count - first.count)
            grown[name] = size + max(0.0, slope) * (count - second.count)
    return grown


def _memory(found: Probe, detector: Detector, count: int, sizes: Mapping[str, float]) -> float:
    """Peak resident memory in MiB: that of the small fit, and what grows."""
    first, second = found.first, found.second
    peak = (
        second.peak
        + max(0.0, detector._resident(count, sizes) - second.detector._resident(second.count, second.sizes)) / 2**20
    )
    batch = vars(detector).get("batch_size")
    if batch is not None:
        small, smaller = (vars(each.detector)["batch_size"] for each in (second, first))
        if small > smaller:
            peak += max(0.0, second.peak - first.peak) / (small - smaller) * (batch - small)
    return peak


def _with_free(bill: Bill, path: Path | None) -> Bill:
    """With what memory and what room where a model goes are free."""
    folder = Path(tempfile.gettempdir()) if path is None else path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        disk: float | None = shutil.disk_usage(folder).free / 2**20
    except OSError:
        disk = None
    return replace(bill, free_memory_mb=free_memory_mb(), free_disk_mb=disk)


def free_memory_mb() -> float | None:
    """Memory in MiB that this process may come to have, what it has already included; None where the system does not tell (not Linux)."""
    try:
        available = _kib_of(Path("/proc/meminfo"), "MemAvailable:")
        own = _kib_of(Path("/proc/self/status"), "VmRSS:")
    except (OSError, ValueError):
        return None
    return (available + own) / 1024


def _kib_of(file: Path, name: str) -> int:
    for line in file.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(name)


# ---- a benchmark ---------------------------------------------------------------------------------------------------------------


def estimate_runs(runs: Sequence[Run], *, jobs: int | None = None, brief: bool = False) -> Bill:
    """Say what planned runs will take together. Each method is probed once, on the first of its categories; the others have their own counts.

    A method that fails in its probe has no part in the bill, and `unknown` names it.

    Args:
        runs: those that are to be done.
        jobs: processes at once, in which case each method is probed in a process of its own, too; None for all in this one. The time counts as if
            runs came one after another: each alone already uses all cores.
        brief: leave out the methods of which nothing is worth telling (see `is_worth_telling`).
    """
    started = time.perf_counter()
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.category.train and not (brief and not is_worth_telling(run.make(), _train(run))):
            settings = {name: value for name, value in run.settings.items() if name != "seed"}
            groups.setdefault(json.dumps([run.detector, settings], sort_keys=True), []).append(run)
    bills: list[Bill] = []
    unknown: list[str] = []
    for group in groups.values():
        try:
            bills += _bills(group) if jobs is None else _bills_apart(group)
        except Exception as error:  # the run itself will say it again, in its row
            unknown.append(f"{group[0].detector}: {reason_of(error)}")
    bill = replace(_with_free(_together(bills, jobs or 1), None), unknown=tuple(unknown))
    bill = replace(bill, advice=_advice_for_runs(bill, [run for group in groups.values() for run in group], bills))
    return replace(bill, probe_seconds=time.perf_counter() - started)


def _train(run: Run) -> list[Picture]:
    return [sample.path for sample in run.category.train]


def _bills(group: Sequence[Run]) -> list[Bill]:
    """Bills of runs of one method with the same settings."""
    first = group[0].category
    probes = _Probes([sample.path for sample in first.train], first)
    return [probes.bill(run.make(), len(run.category.train), len(run.category.test)) for run in group]


def _bills_apart(group: Sequence[Run]) -> list[Bill]:
    """As `_bills`, in a process of its own, as the runs will be: one that is killed takes nothing with it. What a process loads counts for each run."""
    content = json.dumps([run.to_json() for run in group])
    try:
        done = subprocess.run(COMMAND, input=content, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise InputError(f"its small fit took longer than {PATIENCE:.0f} s, so its bill is not known") from None
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1])
    return [Bill(**found) for found in json.loads(done.stdout)]


def main() -> None:
    """Tell, on standard output, the bills of the runs that come on standard input, both as JSON."""
    started = time.perf_counter()
    group = [Run.from_json(content) for content in json.load(sys.stdin)]
    first = group[0].category
    probes = _Probes([sample.path for sample in first.train], first)
    bills = [probes.bill(run.make(), len(run.category.train), len(run.category.test)) for run in group]
    loading = {"loading": probes.loading() + IMPORTING}
    plain = [
        vars(replace(bill, stages={**bill.stages, **loading}, probe_seconds=time.perf_counter() - started))
        for bill in bills
    ]
    sys.stdout.write(json.dumps(plain))


def _together(bills: Sequence[Bill], jobs: int) -> Bill:
    """Times added; memory and room of the largest, as many as run at once."""
    stages: dict[str, float] = {}
    for bill in bills:
        for name, seconds in bill.stages.items():
            stages[name] = stages.get(name, 0.0) + seconds
    memory, disk = (
        sum(sorted((getattr(b, part) for b in bills), reverse=True)[:jobs]) for part in ("memory_mb", "disk_mb")
    )
    return Bill(stages, memory, disk, 0.0, sum(b.normal for b in bills), sum(b.tests for b in bills))


# ---- advice ----------------------------------------------------------------------------------------------------------------------


def _advice(bill: Bill, detector: Detector, again: Callable[[Detector], Bill]) -> tuple[Change, ...]:
    """Changes that clearly lower what is too much, the gentlest first, each with the bill it would make."""
    began = time.perf_counter()
    found: list[Change] = []
    for settings in detector._cheaper():
        if len(found) == SUGGESTIONS or time.perf_counter() - began > ADVICE_SECONDS:
            break
        try:
            other = type(detector)(**{**detector.settings(), **settings})
            other._check_settings()
            cheaper = again(other)
        except SpadeworkError:  # they do not go with the others
            continue
        for why in bill.problems:
            if _amount(cheaper, why) < CLEARLY * _amount(bill, why):
                words = ", ".join(f"{name}={value}" for name, value in settings.items())
                found.append(_change(why, settings, words, cheaper))
                break
    return tuple(found)


def _advice_for_runs(bill: Bill, runs: Sequence[Run], bills: Sequence[Bill]) -> tuple[Change, ...]:
    """What a configuration for a first look, or the costliest run alone left out, would change."""
    if not bill.problems or len(bills) != len(runs):
        return ()
    why = bill.problems[0]
    place = max(range(len(bills)), key=lambda place: _amount(bills[place], why))
    run, most = runs[place], bills[place]
    found: list[Change] = []
    if len(runs) > 1:
        rest = _together([*bills[:place], *bills[place + 1 :]], 1)
        found.append(_change(why, {}, f"leave out {run.title}", rest))
    else:
        probes = _Probes(_train(run), run.category)
        found += _advice(bill, run.make(), lambda other: probes.bill(other, most.normal, most.tests))
    return tuple(found)


def _change(why: str, settings: Mapping[str, Any], words: str, bill: Bill) -> Change:
    return Change(why, dict(settings), words, bill.seconds, bill.memory_mb, bill.disk_mb)


def _amount(bill: Bill, why: str) -> float:
    return {"time": bill.seconds, "memory": bill.memory_mb, "disk": bill.disk_mb}[why]
