"""The choice: one setting after another is tried, and left alone unless another value is clearly better.

In: a stage, the settings to start from, a network, a time budget. Out: `Tuning`: the settings chosen and the table of what was tried.
1. The settings as they are judge all acts. Whatever only counts after the search (smoothing, image score) is measured on the same distances, for
   every candidate.
2. For each axis of `candidates`, its values are tried with the best settings so far, but none that makes a new picture cost more than MOST_COST
   times what it costs at the start. The best of them is taken if it is worth more (`measuring.worth`) by more than one standard error of the difference,
   by pairs over the same draws of pictures; else nothing changes. Of those that are not clearly worse than the best, and clearly better than before, the
   cheapest is taken.
3. Before a candidate starts, its time is estimated from those before it; one that would not end within the budget is left out, and the table says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spadework.errors import InputError, SpadeworkError
from spadework.rehearsal import candidates
from spadework.rehearsal.candidates import AXES, Changes, Facts
from spadework.rehearsal.measuring import Gain, Outcome, Worth, gain, least_gain, worth
from spadework.rehearsal.network import RememberingNetwork
from spadework.rehearsal.stage import Stage
from spadework.rehearsal.trial import OutOfTime, Trial, run

Progress = Callable[[str, int, int], None]

MOST_COST = 4.0  # times what the start costs a new picture may cost at most


@dataclass(frozen=True)
class Tried:
    """A candidate that was measured.

    changes: against the settings at the start. gain: over them. worth: what it is chosen by. least_gain: for the size of defects that gains least.
    cost: see `candidates.cost`.
    """

    changes: Changes
    outcome: Outcome
    gain: Gain
    worth: Worth
    least_gain: float
    cost: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, measures and gains rounded to 4 digits."""
        return {
            "changes": self.changes,
            "image_auroc": round(self.outcome.image_auroc, 4),
            "pixel_auroc": round(self.outcome.pixel_auroc, 4),
            "pro": round(self.outcome.pro, 4),
            "mean": round(self.outcome.mean, 4),
            "gain": round(self.gain.value, 4),
            "standard_error": round(self.gain.error, 4),
            "least_gain": round(self.least_gain, 4),
            "cost": round(self.cost, 1),
            "seconds": round(self.seconds, 2),
        }


@dataclass
class Tuning:
    """What a rehearsal found.

    chosen: changes against the settings at the start; empty where nothing was clearly better. left_out: for want of time. failed: what these pictures
    or the network do not allow, and why.
    """

    chosen: Changes = field(default_factory=dict)
    tried: list[Tried] = field(default_factory=list)
    left_out: list[Changes] = field(default_factory=list)
    failed: list[tuple[Changes, str]] = field(default_factory=list)
    seconds: float = 0.0
    budget_seconds: float = 0.0
    pictures: int = 0
    tested: int = 0
    planted: int = 0
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, for the model's header."""
        return {
            "chosen": self.chosen,
            "pictures": self.pictures,
            "tested": self.tested,
            "planted": self.planted,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "budget_seconds": round(self.budget_seconds, 1),
            "tried": [each.to_json() for each in self.tried],
            "left_out": self.left_out,
            "failed": [{"changes": changes, "reason": reason} for changes, reason in self.failed],
        }


class Choice:
    """One rehearsal.

    Args:
        stage: pictures and acts.
        settings: of `Spade`, to start from.
        network: the one they name.
        facts: of the pictures and the network.
        deadline: by `clock`, when the last candidate must have ended.
        progress: called with (what, done, total).
        clock: seconds.
    """

    def __init__(
        self,
        stage: Stage,
        settings: Mapping[str, Any],
        network: RememberingNetwork,
        facts: Facts,
        *,
        deadline: float,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.stage, self.start, self.network, self.facts = stage, dict(settings), network, facts
        self.deadline, self.clock = deadline, clock
        self._progress = progress or (lambda what, done, total: None)
        self.fixed = candidates.fixed_by_user(settings)
        self.tried: list[Tried] = []
        self.left_out: list[Changes] = []
        self.failed: list[tuple[Changes, str]] = []
        self._spent: list[tuple[float, float]] = []  # cost, seconds

    def make(self) -> Changes:
        """Try all axes; return the changes chosen. `tried` and `left_out` then hold the table."""
        best = self._take(self._first())
        for axis in AXES:
            if not self.tried:
                break  # not even the start was measured
            now = {**self.start, **best}
            for changes in axis.changes(now, self.facts, self.fixed):
                self._try({**best, **changes}, axis.name)
            best = self._take(best)
        return best

    def _first(self) -> Changes:
        trial = self._try({}, "as it is")
        if trial is not None:
            for changes in candidates.other_scores(self.start, self.fixed):
                self._measure(trial, changes)
        return {}

    def _take(self, best: Changes) -> Changes:
        """The best of all that were tried, by the rule; `best` where none is clearly better."""
        if not self.tried:
            return best
        before = next(each for each in self.tried if each.changes == best)
        dearest = MOST_COST * self.tried[0].cost
        clear = [each for each in self.tried if each.cost <= dearest and each.worth.over(before.worth).is_clear]
        if not clear:
            return best
        top = max(clear, key=lambda each: each.worth.value)
        close = [each for each in clear if not top.worth.over(each.worth).is_clear]
        return min(close, key=lambda each: (each.cost, -each.worth.value)).changes

    def _try(self, changes: Changes, what: str) -> Trial | None:
        """Measure a candidate with every smoothing; None where there is no time, or it cannot be made."""
        settings = {**self.start, **changes}
        price = candidates.cost(settings, self.facts)
        if price > MOST_COST * candidates.cost(self.start, self.facts):
            return None  # whoever waits for verdicts would not want it
        if self._estimate(price) > self.deadline - self.clock():
            self.left_out.append(changes)
            return None
        started = self.clock()
        name = f"rehearsing · {what}" + "".join(f", {key} {value}" for key, value in changes.items())
        try:
            trial = run(self.stage, settings, self.network, lambda share: self._step(name, share))
        except OutOfTime:
            self.left_out.append(changes)
            return None
        except SpadeworkError as error:
            if not self.tried:
                raise InputError(
                    f"tuning: the settings as they are cannot be used with one of these pictures: {error} "
                    "Leave that picture out, or fit without tuning."
                ) from error
            self.failed.append((changes, str(error)))  # these pictures or this network do not allow it
            return None
        for after in candidates.after_search(settings, self.fixed):
            self._measure(trial, {**changes, **after})
        self._spent.append((price, self.clock() - started))
        return trial

    def _measure(self, trial: Trial, changes: Changes) -> None:
        settings = {**self.start, **changes}
        outcome = trial.outcome(settings)
        changes = {name: value for name, value in changes.items() if self.start[name] != value}
        first = self.tried[0].outcome if self.tried else outcome
        price = candidates.cost(settings, self.facts)
        told = (gain(outcome, first), worth(outcome, first), least_gain(outcome, first))
        self.tried.append(Tried(changes, outcome, *told, price, trial.seconds))

    def _estimate(self, price: float) -> float:
        """Seconds that a candidate would take, by those before it; 0 for the first."""
        if not self._spent:
            return 0.0
        return price * sum(seconds for _, seconds in self._spent) / sum(cost for cost, _ in self._spent)

    def _step(self, what: str, share: float) -> None:
        if self.clock() > self.deadline:
            raise OutOfTime
        self._progress(what, round(100 * share), 100)
