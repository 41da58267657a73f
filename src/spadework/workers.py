"""Runs in processes of their own: one that is killed or runs out of memory costs its row, not the others.

In: runs. Out: how each ended, in the order in which they end. At most `jobs` at a time, and within a limit of resident memory, if one is given:

- a further run starts where the peaks of those under way and its own fit beneath the limit. Its own is the highest seen so far of that detector in
  that configuration, also by earlier calls; as long as none was seen it is taken to need its share, limit / jobs;
- the resident memory of all is looked at while they run (Linux). Above the limit the run that started last is stopped and done again alone; one
  that is alone and above it is stopped for good, and its row says so.

Resident memory counts pages that processes share once each, so the sum is rather too high than too low.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spadework.detectors import get_detector
from spadework.files import write_file
from spadework.fingerprint import code_hash
from spadework.results import Claim
from spadework.runs import Outcome, Run, failed, perform

COMMAND = (sys.executable, "-m", "spadework.workers")
CHANGED = "the code of {!r} was changed since this call began, which imported the old one. Run it again."
POLL, BUSY = 0.05, 1.0  # seconds between looks at the runs under way, and at those that another call is doing


@dataclass(frozen=True)
class Taken:
    """What became of asking for a run: there already (`outcome`), ours (`claim`), or, with neither, under way in another call."""

    outcome: Outcome | None = None
    claim: Claim | None = None


@dataclass
class Ended:
    """A run that ended. index: in the list that was given. here: whether it was done by this call. claim: to be released when it is written."""

    index: int
    outcome: Outcome
    here: bool
    claim: Claim | None = None


Take = Callable[[int], Taken]
Announce = Callable[[str], None]


@dataclass
class Crew:
    """Does runs in processes of their own.

    jobs: processes at once. memory_limit: of all together, in MiB; None for none. peaks: MiB by `kind_of`, kept up to date.
    """

    jobs: int = 1
    memory_limit: float | None = None
    peaks: dict[str, float] = field(default_factory=dict)
    announce: Announce = lambda text: None

    def each(self, runs: Sequence[Run], take: Take) -> Generator[Ended, None, None]:
        """Do runs and yield each as it ends. Closing the iterator stops those under way."""
        waiting = _Waiting(runs, take)
        children: dict[int, _Child] = {}
        try:
            while waiting or children:
                ended = self._start(waiting, children)
                ended += [self._finish(children, index) for index, child in list(children.items()) if child.has_ended()]
                ended += self._keep_limit(waiting, children)
                yield from ended
                if not ended:
                    time.sleep(POLL)
        finally:
            for child in children.values():
                child.stop()
                child.claim.release()

    def _start(self, waiting: _Waiting, children: dict[int, _Child]) -> list[Ended]:
        """Start what fits; return what turns out to be done already."""
        done = []
        for index in waiting.ready():
            if len(children) >= self.jobs:
                break
            if not self._fits(waiting, index, children):
                continue
            taken = waiting.take(index)
            if taken.outcome is not None:
                done.append(Ended(index, taken.outcome, here=False))
            elif taken.claim is not None:
                run = waiting.runs[index]
                self.announce(f"{run.title}: started")
                children[index] = _Child(run, taken.claim, jobs=self.jobs)
        return done

    def _fits(self, waiting: _Waiting, index: int, children: dict[int, _Child]) -> bool:
        if self.memory_limit is None or not children:
            return True
        if index in waiting.alone or waiting.alone & set(children):
            return False
        reserved = sum(max(self._expected(child.run), child.resident) for child in children.values())
        return reserved + self._expected(waiting.runs[index]) <= self.memory_limit

    def _expected(self, run: Run) -> float:
        return self.peaks.get(kind_of(run.detector, run.settings), (self.memory_limit or 0.0) / self.jobs)

    def _finish(self, children: dict[int, _Child], index: int) -> Ended:
        child = children.pop(index)
        outcome = child.outcome()
        self._learn(child, outcome.row.get("peak_memory_mb"))
        return Ended(index, outcome, here=True, claim=child.claim)

    def _learn(self, child: _Child, peak: float | None) -> None:
        kind, seen = kind_of(child.run.detector, child.run.settings), max(peak or 0.0, child.peak)
        if seen:
            self.peaks[kind] = max(seen, self.peaks.get(kind, 0.0))

    def _keep_limit(self, waiting: _Waiting, children: dict[int, _Child]) -> list[Ended]:
        """Stop the youngest run if memory is above the limit; return one that is too large even alone."""
        used = sum(child.look() for child in children.values())
        if self.memory_limit is None or used <= self.memory_limit:
            return []
        index, child = next(reversed(children.items()))
        del children[index]
        child.stop()
        self._learn(child, None)
        if children:
            child.claim.release()
            waiting.put_back(index)
            self.announce(f"{child.run.title}: stopped, memory is above the limit; it will run alone")
            return []
        why = f"needed {used:.0f} MiB, more than the memory limit of {self.memory_limit:.0f} MiB, and was stopped. Raise the limit, or choose smaller settings."
        return [Ended(index, failed(child.run, why), here=True, claim=child.claim)]


def kind_of(detector: str, settings: Mapping[str, Any]) -> str:
    """Return what runs have in common whose memory is alike: detector and settings, whatever the seed and the category."""
    known = {key: value for key, value in settings.items() if key not in {"seed", "threads"}}
    return json.dumps([detector, known], sort_keys=True)


class _Waiting:
    """Runs that have not started. A run under way in another call is asked for again after a while."""

    def __init__(self, runs: Sequence[Run], take: Take) -> None:
        self.runs, self.alone = runs, set[int]()
        self._take = take
        self._after = dict.fromkeys(range(len(runs)), 0.0)  # index -> not to be asked for before

    def __len__(self) -> int:
        return len(self._after)

    def ready(self) -> list[int]:
        now = time.monotonic()
        return [index for index, after in self._after.items() if after <= now]

    def take(self, index: int) -> Taken:
        taken = self._take(index)
        if taken.outcome is None and taken.claim is None:
            self._after[index] = time.monotonic() + BUSY
        else:
            del self._after[index]
        return taken

    def put_back(self, index: int) -> None:
        """Wait again, to run with no other beside it."""
        self.alone.add(index)
        self._after[index] = 0.0


class _Child:
    """A process that does one run. Its standard input is a line to this process: when it breaks, the child ends itself."""

    def __init__(self, run: Run, claim: Claim, *, jobs: int) -> None:
        self.run, self.claim, self.peak, self.resident = run, claim, 0.0, 0.0
        self._folder = Path(tempfile.mkdtemp(prefix="spadework-run-"))
        content = {"run": run.to_json(), "code": code_hash(get_detector(run.detector))}
        (self._folder / "run.json").write_text(json.dumps(content), encoding="ascii")
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [*COMMAND, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(jobs)
                | {"TMPDIR": str(self._folder)},  # a model may be gigabytes: it goes when the run does
                start_new_session=True,  # Ctrl-C is for this process, which then stops the child
            )

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def look(self) -> float:
        """Resident memory now, in MiB; 0 where the system does not tell."""
        self.resident = _resident_mb(self._process.pid)
        self.peak = max(self.peak, self.resident)
        return self.resident

    def outcome(self) -> Outcome:
        try:  # however the process ended: a library that crashes while it is unloaded takes nothing from a result that is written
            content = json.loads((self._folder / "outcome.json").read_bytes())
            outcome = Outcome(content["row"], None, content["traceback"])
        except (OSError, ValueError, KeyError):
            outcome = failed(self.run, self._why(self._process.returncode))
        self._clear()
        return outcome

    def _why(self, code: int) -> str:
        log = (self._folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = f" Its last words: {log[-1]}" if log else ""
        if code >= 0:
            return f"the process of this run ended with the exit code {code} and no result.{last}"
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        often = ": most often memory ran out. Give it more, or choose smaller settings" if name == "SIGKILL" else ""
        return f"the process of this run was killed by {name}{often}.{last}"

    def stop(self) -> None:
        """End it, whatever it is doing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._clear()

    def _clear(self) -> None:
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _environment(jobs: int) -> dict[str, str]:
    """As here; with several at once, each takes its share of the cores, unless that was set by hand."""
    environment = dict(os.environ)
    share = str(max(1, (os.cpu_count() or 1) // jobs))
    if jobs > 1:
        for name in ("SPADEWORK_THREADS", "OMP_NUM_THREADS"):
            environment.setdefault(name, share)
    return environment


def _resident_mb(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# ---- the child ---------------------------------------------------------------------------------------------------------------


def main(folder: str) -> None:
    """Do the run in FOLDER/run.json; leave FOLDER/outcome.json."""
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    asked = json.loads((Path(folder) / "run.json").read_bytes())
    run = Run.from_json(asked["run"])
    changed = code_hash(get_detector(run.detector)) != asked["code"]
    outcome = failed(run, CHANGED.format(run.detector)) if changed else perform(run)
    content: dict[str, Any] = {"row": outcome.row, "traceback": outcome.traceback}
    write_file(Path(folder) / "outcome.json", json.dumps(content, allow_nan=False).encode())


def _end_with_parent(folder: str) -> None:
    """Wait for the end of standard input: nobody writes to it, so that is the end of the process that started this one."""
    while os.read(0, 1024):  # not through `sys.stdin`, whose lock this thread would hold when Python ends
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
