"""Fit and measure detectors on the categories of a data set: a matrix of runs, one row each.

In: a data set, detectors by name with their settings. Out: `Benchmark`: evaluations to draw, rows of numbers. A run that ends with
an error becomes a row of nulls with the reason, and the next run goes on. With a folder of results every run is written as it ends,
and one that is there is not done again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spadework import check
from spadework.datasets import Dataset
from spadework.detectors.reading import Progress
from spadework.errors import DamagedResultError, InputError
from spadework.evaluation import Evaluation
from spadework.fingerprint import data_hash, identity
from spadework.results import Claim, Record, Results
from spadework.runs import Asked, Outcome, Refused, Run, chosen_detectors, failed, make_detector, perform, plan
from spadework.workers import BUSY, Announce, Crew, Ended, Taken, kind_of

__all__ = ["Benchmark", "do_runs", "make_detector", "outstanding", "plan_benchmark", "run_benchmark"]


@dataclass(frozen=True)
class Benchmark:
    """Results of all runs. rows: one a run, in order. evaluations: those of the runs that came to an end in this process.

    reused: how many rows were in the folder of results already. records: of all runs that are in that folder now, in order.
    """

    rows: tuple[dict[str, Any], ...]
    evaluations: tuple[Evaluation, ...]
    reused: int = 0
    records: tuple[Record, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether any run ended with an error."""
        return any("error" in row for row in self.rows)

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
    quick: bool = False,
    seeds: Sequence[int] = (),
    pro_limit: float = 0.3,
    resolution: str | None = None,
    results: Results | None = None,
    jobs: int | None = None,
    memory_limit: float | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Benchmark:
    """Fit each detector on each category's normal pictures and measure it on its test pictures.

    Args:
        dataset: of `open_dataset`.
        categories: names, each once; empty for all.
        detectors: names in the registry, or "all".
        settings: of the detectors' constructors. With one detector, one that it does not have is an error; with several, each takes those it has.
        paper: start from each detector's published configuration.
        quick: start from each detector's configuration for a first look.
        seeds: a run for each, of detectors that have a seed; empty for their own.
        pro_limit: false-positive rate up to which PRO is integrated.
        resolution: as in `evaluate`.
        results: where each run is written as it ends, and looked for before it starts. Failed ones are tried again.
        jobs: processes at once, each run in one of its own; None does all runs in this process, which alone gives evaluations.
        memory_limit: of all processes together, in GiB; see `spadework.workers`.
        progress: called with (what, done, total).
        announce: called with what happens, in words.

    Raises:
        InputError: an unknown category, detector or setting, or measures that cannot be taken as asked.
        OutputError: results cannot be written.
    """
    planned = plan_benchmark(
        dataset,
        categories=categories,
        detectors=detectors,
        settings=settings,
        paper=paper,
        quick=quick,
        seeds=seeds,
        pro_limit=pro_limit,
        resolution=resolution,
    )
    return do_runs(planned, results=results, jobs=jobs, memory_limit=memory_limit, progress=progress, announce=announce)


def plan_benchmark(
    dataset: Dataset,
    *,
    categories: Sequence[str] = (),
    detectors: Sequence[str] = ("spade",),
    settings: Mapping[str, Any] | None = None,
    paper: bool = False,
    quick: bool = False,
    seeds: Sequence[int] = (),
    pro_limit: float = 0.3,
    resolution: str | None = None,
) -> list[Run | Refused]:
    """Return the runs that `run_benchmark` would do. Arguments and errors are its own."""
    if paper and quick:
        raise InputError("paper and quick are two configurations: choose one.")
    chosen = [dataset.category(name) for name in dict.fromkeys(categories)] if categories else list(dataset.categories)
    configuration = "paper" if paper else "quick" if quick else "default"
    asked = Asked(dict(settings or {}), configuration, list(seeds), pro_limit, resolution)
    return plan(chosen_detectors(detectors), chosen, asked)


def outstanding(planned: Sequence[Run | Refused], results: Results | None = None) -> list[Run]:
    """Return the planned runs that are still to be done: not those in the folder of results."""
    todo = _Ledger(planned, results, lambda text: None).begin()
    return [run for index in todo if isinstance(run := planned[index], Run)]


def do_runs(
    planned: Sequence[Run | Refused],
    *,
    results: Results | None = None,
    jobs: int | None = None,
    memory_limit: float | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Benchmark:
    """Do runs that were planned, in order or side by side. Arguments, answer and errors are those of `run_benchmark`."""
    if memory_limit is not None:
        memory_limit = check.not_negative(memory_limit, "memory_limit") * 1024
        if jobs is None:
            raise InputError("memory_limit goes with jobs: only runs in processes of their own can be held to it.")
    tell = announce or (lambda text: None)
    ledger = _Ledger(planned, results, tell)
    todo = ledger.begin()
    runs = [run for index in todo if isinstance(run := planned[index], Run)]
    if jobs is None:
        done = _each_here(runs, lambda place: ledger.take(todo[place]), progress, tell)
    else:
        crew = Crew(check.positive_int(jobs, "jobs"), memory_limit, ledger.peaks(), tell)
        done = crew.each(runs, lambda place: ledger.take(todo[place]))
    with contextlib.closing(done):  # an error here, or Ctrl-C, stops the runs under way at once
        for ended in done:
            ledger.settle(todo[ended.index], ended)
            if progress and jobs is not None:
                progress("runs", len(ledger.outcomes), len(planned))
    outcomes = [ledger.outcomes[index] for index in range(len(planned))]
    evaluations = tuple(each.evaluation for each in outcomes if each.evaluation is not None)
    records = tuple(ledger.records[index] for index in sorted(ledger.records))
    return Benchmark(tuple(each.row for each in outcomes), evaluations, ledger.reused, records)


def _each_here(
    runs: Sequence[Run], take: Callable[[int], Taken], progress: Progress | None, tell: Announce
) -> Generator[Ended, None, None]:
    """Do runs in this process, one after another; those that another call is doing are waited for at the end."""
    waiting = list(range(len(runs)))
    while waiting:
        busy = []
        for index in waiting:
            taken = take(index)
            if taken.outcome is not None:
                yield Ended(index, taken.outcome, here=False)
            elif taken.claim is None:
                busy.append(index)
            else:
                tell(runs[index].title)
                try:
                    outcome = perform(runs[index], progress=progress)
                except BaseException:  # Ctrl-C: another call may have it
                    taken.claim.release()
                    raise
                yield Ended(index, outcome, here=True, claim=taken.claim)
        if len(busy) == len(waiting):
            time.sleep(BUSY)
        waiting = busy


@dataclass
class _Ledger:
    """What is known of each planned run: its outcome, or what it depends on. Reads and writes the folder of results, if there is one."""

    planned: Sequence[Run | Refused]
    results: Results | None
    tell: Announce
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)
    reused: int = 0

    def __post_init__(self) -> None:
        self._began = time.time()
        self._identities: dict[int, dict[str, Any]] = {}
        self._data: dict[str, str] = {}
        self._warned: set[str] = set()

    def begin(self) -> list[int]:
        """Settle what needs no work; return the rest."""
        for index, run in enumerate(self.planned):
            if isinstance(run, Refused):
                self.outcomes[index] = failed(run, run.error)
                self._say_once(f"{run.detector}: not run: {self.outcomes[index].row['error']}")
                continue
            if self.results is None:
                continue
            try:
                self._identities[index] = self._identity(run)
            except Exception as error:  # its network cannot be opened: no reason to end the others
                self.outcomes[index] = failed(run, error)
                self._say_once(f"{run.detector}: not run: {self.outcomes[index].row['error']}")
            else:
                self._reuse(index)
        if self.reused:
            self.tell(f"{self.reused} of {len(self.planned)} runs are in the folder of results already")
        return [index for index in range(len(self.planned)) if index not in self.outcomes]

    def take(self, index: int) -> Taken:
        """Get hold of a run, unless another call has it or has done it meanwhile."""
        if self.results is None:
            return Taken(claim=Claim())
        claim = self.results.claim(self._identities[index])
        if claim is None:
            return Taken()
        if self._reuse(index):  # looked for while it is ours: nobody can be writing it now
            claim.release()
            return Taken(outcome=self.outcomes[index])
        return Taken(claim=claim)

    def settle(self, index: int, ended: Ended) -> None:
        """Take up how a run ended, and write it if it was done here."""
        outcome, run = self._checked(index, ended.outcome), self.planned[index]
        self.outcomes[index] = outcome
        try:
            if ended.here and self.results is not None:
                record = Record.now(self._identities[index], outcome.row, outcome.traceback)
                path = self.results.write(record)
                self.records[index] = record
                if outcome.traceback:
                    self.tell(f"{run.title}: the traceback is in {path}")
        finally:
            if ended.claim is not None:
                ended.claim.release()
        if ended.here:
            self.tell(f"{run.title}: {_told(outcome.row)}")

    def _identity(self, run: Run) -> dict[str, Any]:
        if run.category.name not in self._data:  # its files are read for it, and many runs share it
            self._data[run.category.name] = data_hash(run.category)
        options: dict[str, Any] = {
            "pro_limit": run.pro_limit,
            "resolution": run.resolution,
            "data": self._data[run.category.name],
        }
        return identity(run.make(), run.category, **options)

    def _checked(self, index: int, outcome: Outcome) -> Outcome:
        """The outcome; a failure if another network was used than the one the result would be filed under."""
        expected = self._identities.get(index, {}).get("backbone")
        if "error" in outcome.row or expected is None or outcome.row.get("backbone_hash") == expected:
            return outcome
        run = self.planned[index]
        return failed(run, f"the network {run.settings.get('backbone')!r} was replaced while this ran. Run it again.")

    def peaks(self) -> dict[str, float]:
        """Return the highest memory seen of each kind of run, in MiB, from the folder of results."""
        found: dict[str, float] = {}
        wanted = {kind_of(run.detector, run.settings) for run in self.planned if isinstance(run, Run)}
        for record in self.results.records()[0] if self.results else ():
            kind = kind_of(record.row["detector"], record.row["settings"])
            if kind in wanted and record.row.get("peak_memory_mb"):
                found[kind] = max(found.get(kind, 0.0), float(record.row["peak_memory_mb"]))
        return found

    def _reuse(self, index: int) -> bool:
        """Whether a run is in the folder: done, or failed since this call began."""
        assert self.results is not None
        try:
            record = self.results.find(self._identities[index])
        except DamagedResultError as error:
            self._say_once(f"measured again: {error}")
            return False
        if record is None or (record.failed and record.finished < self._began):
            return False
        self.outcomes[index] = Outcome(record.row | self.planned[index].labels, None, record.traceback)
        self.records[index] = record
        self.reused += 1
        return True

    def _say_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.tell(text)


def _told(row: Mapping[str, Any]) -> str:
    if "error" in row:
        return f"failed: {row['error']}"
    took, peak = row["fit_seconds"], row["peak_memory_mb"]
    return f"done; fitted in {took} s" + (f", at most {peak:.0f} MiB" if peak else "")
