"""What all commands print with: progress on standard error, tables and JSON on standard output."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spadework.errors import InputError, OutputError

if TYPE_CHECKING:
    from rich.console import Console

    from spadework.bill import Bill

Progress = Callable[[str, int, int], None]

WIDE = 200  # characters, where standard output is no terminal
READABLE = 16  # characters in which a sentence can still be read
GAP = 2  # characters from a column to the next


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


def present_bill(bill: Bill, *, dry_run: bool, as_json: bool, before: Mapping[str, Any] | None = None) -> None:
    """Tell what work will take. Of a dry run it is the result, with its stages; else a line about the work, and more only where it is too much.

    before: what comes before that work, for the JSON.
    """
    if dry_run and as_json:
        say_json(bill.to_json() | dict(before or {}))
        return
    tell = say if dry_run else note
    tell(str(bill))
    if dry_run:
        for name, seconds in bill.stages.items():
            tell(f"  {name:<30} {seconds:>10.1f} s")
        tell(f"  (told in {bill.probe_seconds:.1f} s, for this machine as busy as it is now; nothing was written)")
    for line in bill.warnings():
        tell(line)


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


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """Print a table; no name and no number is cut in two. Wide where standard output is no terminal.

    numbers: columns that are set flush right. optional: columns that are left out, the first of these first, until the rest has room.
    """
    from rich.console import Console

    columns = {header: [str(header)] for header in headers}
    for row in rows:
        for words, value in zip(columns.values(), row, strict=True):
            words.append("–" if value is None else str(value))
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = _width(console)
    left_out: list[str] = []
    for header in optional:
        if _least_width(columns) <= console.width:
            break
        if columns.pop(header, None) is not None:
            left_out.append(header)
    console.print(_drawn(columns, console.width, numbers))
    if left_out:
        note(f"left out for want of width: {', '.join(left_out)}")


def _width(console: Console) -> int:
    return console.width if console.is_terminal else WIDE


def _drawn(columns: Mapping[str, Sequence[str]], width: int, numbers: Sequence[str]) -> Any:
    """A table of columns, each with its heading first; close together where they would not have room otherwise."""
    from rich import box
    from rich.table import Table

    whole = sum(max(map(len, words)) for words in columns.values()) + 3 * len(columns)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1) if whole <= width else (0, 1, 0, 0))
    for header, words in columns.items():
        least, most = _least(words), max(map(len, words))
        text = most > least and any(" " in word for word in words[1:])
        narrow = whole > width and max(map(len, words[1:]), default=0) < len(header)
        heading = header.replace(" ", "\n") if narrow and not text else header
        drawn.add_column(
            heading,
            justify="right" if header in numbers else "left",
            overflow="fold",
            no_wrap=not text,
            min_width=least if text else None,
        )
    for row in zip(*(words[1:] for words in columns.values()), strict=True):
        drawn.add_row(*row)
    return drawn


def _least_width(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(_least(words) + GAP for words in columns.values())


def _least(words: Sequence[str]) -> int:
    """What a column needs, its heading first: its longest word, and for sentences enough to read them."""
    longest = max(len(part) for word in words for part in [*word.split(), ""])
    return max(longest, min(READABLE, max(map(len, words[1:]), default=0)))


def settings_from(pairs: Iterable[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs; values are JSON (256, true, [1, 2]), None, numbers with commas (1,2) or a size (480x640); anything else is text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set takes NAME=VALUE, e.g. --set image_size=320, not {pair!r}.")
        found[name.strip().replace("-", "_")] = _setting_value(value)
    return found


def _setting_value(text: str) -> Any:
    listed = f"[{text.strip().strip('()')}]" if "," in text else re.sub(r"^(\d+)x(\d+)$", r"[\1, \2]", text.strip())
    if text.strip() == "None":  # as `spadework detectors NAME` prints it
        return None
    for each in (text, listed):
        try:
            return json.loads(each)
        except ValueError:
            continue
    return text


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
VERDICTS = ("found", "false alarms")  # at the threshold, which was set without a defect


def measures_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of measures, with a mean for each detector that has several, and the reason of each that is undefined."""
    headers = [
        "category",
        "detector",
        "scale",
        "seed",
        "train",
        "test",
        *MEASURE_COLUMNS,
        *VERDICTS,
        "fit s",
        "s/image",
    ]
    lines = [_measures_line(row) for row in rows]
    for key in dict.fromkeys(_series(row) for row in rows):
        own = [row for row in rows if _series(row) == key]
        if len(own) > 1:
            means = [_number(_mean([row[name] for row in own])) for name in MEASURE_COLUMNS.values()]
            lines.append(["mean", *key, "", "", *means, "", "", "", ""])
    kept = [place for place, header in enumerate(headers) if header not in {"scale", "seed"} or _differs(rows, header)]
    optional = ["image F1", "pixel F1", "train", "test", "s/image", "fit s", "image AP", "pixel AP", *VERDICTS[::-1]]
    shown = [[line[n] for n in kept] for line in lines]
    table([headers[n] for n in kept], shown, numbers=headers[3:], optional=optional)
    several = len({row["detector"] for row in rows}) > 1
    reasons = []
    for row in rows:
        name = f"{row['category']} · {row['detector']}" if several else row["category"]
        if "error" in row:
            reasons.append(f"{name}: {row['error']}")
        else:
            reasons += [f"{name}: {words}" for words in _undefined(row["reasons"])]
    for reason in sorted(set(reasons)):
        note(reason)


def _undefined(reasons: Mapping[str, str]) -> list[str]:
    """Each reason once, with the measures that it is of."""
    found = []
    for why in dict.fromkeys(reasons.values()):
        keys = [key for key, own in reasons.items() if own == why]
        found.append(f"{', '.join(keys)} {'is' if len(keys) == 1 else 'are'} undefined: {why}")
    return found


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
    return [*labels, row["n_train"], row["n_test"], *measures, *_verdicts_line(row.get("verdicts")), *times]


def _verdicts_line(verdicts: Mapping[str, int] | None) -> list[str | None]:
    """Of VERDICTS; nothing without a threshold."""
    if verdicts is None:
        return [None, None]
    return [
        f"{verdicts['found']} of {verdicts['anomalous']}",
        f"{verdicts['false_alarms']} of {verdicts['normal']}",
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, undefined where any value is: a mean of some would look like that of all."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _number(value: float | None, digits: int = 4) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
