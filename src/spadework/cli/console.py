"""What all commands print with: progress on standard error, tables and JSON on standard output."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spadework.errors import InputError, OutputError

Progress = Callable[[str, int, int], None]


def say(text: str = "") -> None:
    """Print a line of results."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Print a line about the work, not its result."""
    sys.stderr.write(text + "\n")


def say_json(document: Any) -> None:
    """Print the one JSON document of `--json`."""
    say(json.dumps(document, indent=1, allow_nan=False))


def write_json(document: Any, target: str) -> None:
    """Write a JSON document to a file, or to standard output for "-"."""
    if target == "-":
        say_json(document)
        return
    from spadework.files import write_file

    write_file(Path(target), (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def check_target(target: str | None) -> None:
    """Refuse a file for `--json` that cannot be written, before the work and not after it. Raises OutputError."""
    if target in (None, "-"):
        return
    path = Path(str(target))
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not os.access(folder, os.W_OK):
        why = "is a folder; name a file" if path.is_dir() else f"cannot be written: no permission in {folder}"
        raise OutputError(f"{path}: {why}.")


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Yield a progress callback that draws a bar on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            work = what.partition(" · ")[0]  # after it stands what changes from step to step, such as a loss
            if work not in tasks or bar.tasks[tasks[work]].completed > done:  # a new round of the same work
                tasks[work] = bar.add_task(what, total=total)
            bar.update(tasks[work], description=what, completed=done, total=total, visible=done < total)

        yield step


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table; the columns in `numbers` are set flush right. Wide where standard output is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        drawn.add_column(header, justify="right" if header in numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*("–" if value is None else str(value) for value in row))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=200)
    console.print(drawn)


def settings_from(pairs: Iterable[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs; values are JSON (256, true, [1, 2]), anything else is text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set takes NAME=VALUE, e.g. --set image_size=320, not {pair!r}.")
        try:
            found[name.strip().replace("-", "_")] = json.loads(value)
        except ValueError:
            found[name.strip().replace("-", "_")] = value
    return found


def without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what the user gave."""
    return {name: value for name, value in settings.items() if value is not None}


MEASURE_COLUMNS = {
    "image AUROC": "image_auroc",
    "pixel AUROC": "pixel_auroc",
    "PRO": "pro",
    "image AP": "image_ap",
    "pixel AP": "pixel_ap",
    "image F1": "image_f1",
    "pixel F1": "pixel_f1",
}


def measures_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of measures, with a mean for each detector that has several, and the reason of each that is undefined."""
    headers = ["category", "detector", "scale", "seed", "train", "test", *MEASURE_COLUMNS, "fit s", "s/image"]
    lines = [_measures_line(row) for row in rows]
    for key in dict.fromkeys(_series(row) for row in rows):
        own = [row for row in rows if _series(row) == key]
        if len(own) > 1:
            means = [_number(_mean([row[name] for row in own])) for name in MEASURE_COLUMNS.values()]
            lines.append(["mean", *key, "", "", *means, "", ""])
    kept = [place for place, header in enumerate(headers) if header not in {"scale", "seed"} or _differs(rows, header)]
    table([headers[n] for n in kept], [[line[n] for n in kept] for line in lines], numbers=headers[3:])
    several = len({row["detector"] for row in rows}) > 1
    reasons = []
    for row in rows:
        name = f"{row['category']} · {row['detector']}" if several else row["category"]
        if "error" in row:
            reasons.append(f"{name}: {row['error']}")
        else:
            reasons += [f"{name}: {key} is undefined: {why}" for key, why in row["reasons"].items()]
    for reason in sorted(set(reasons)):
        note(reason)


def _series(row: Mapping[str, Any]) -> tuple[object, ...]:
    return row["detector"], row.get("scale"), row.get("seed")


def _differs(rows: Sequence[Mapping[str, Any]], header: str) -> bool:
    """Whether a column of labels tells anything: a scale that is not full, or seeds that differ."""
    if header == "scale":
        return any(row.get("scale") == "quick" for row in rows)
    return len({row.get("seed") for row in rows if row.get("seed") is not None}) > 1


def _measures_line(row: Mapping[str, Any]) -> list[object]:
    measures = [_number(row[key]) for key in MEASURE_COLUMNS.values()]
    times = [_number(row["fit_seconds"], 1), _number(row["predict_seconds_per_image"], 3)]
    labels = [row["category"], row["detector"], row.get("scale"), row.get("seed")]
    return [*labels, row["n_train"], row["n_test"], *measures, *times]


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, undefined where any value is: a mean of some would look like that of all."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _number(value: float | None, digits: int = 4) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
