"""Commands about the published tables: tables, reproduce."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spadework.cli import options
from spadework.cli.console import check_target, note, progress_bar, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spadework.comparison import Comparison
    from spadework.results import Record

WIDTH = 120  # where standard output is no terminal


def tables(
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Set what was measured beside it: a folder of results.", show_default=False),
    ] = None,
    form: options.TableFormat = None,
    out: options.OutFile = None,
) -> None:
    """Print the published tables, beside what was measured.

    Table 1 (image ROCAUC), Table 2 (pixel ROCAUC by category) and PRO on MVTec AD, with settings, seeds and versions of what was measured.
    Of several sets of results of a method the published configuration stands in the tables first; the others are named.
    """
    from spadework.comparison import compare
    from spadework.published import CATEGORIES
    from spadework.results import read_folder

    form = _form(form, out)
    records, problems = ([], []) if results is None else read_folder(results)
    for problem in problems:
        note(f"passed over: {problem}")
    if results is not None and not any(record.row["category"] in CATEGORIES for record in records):
        note(_nothing_for_the_tables(results, records))
    bad = [f"{len(problems)} files of results that cannot be used"] if problems else []
    _print(compare(records, left_out=bad), form, out)
    if problems:
        raise typer.Exit(1)


def _nothing_for_the_tables(folder: Path, records: Sequence[Record]) -> str:
    if not records:
        return f"{folder}: holds no results; `spadework reproduce` and `benchmark --results` write them"
    names = ", ".join(sorted({str(record.row["category"]) for record in records}))
    again = "the `spadework benchmark` call that made them prints them again, at once"
    return f"{folder}: results on {names}, which are not in the paper's tables; {again}"


def reproduce(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="MVTEC_ROOT", help="The folder of MVTec AD with its fifteen categories.", show_default=False
        ),
    ],
    results: Annotated[
        Path, typer.Option(metavar="DIR", help="Each run is written here as it ends; what is here is not done again.")
    ] = Path("spadework-results"),
    detector: Annotated[
        list[str],
        typer.Option(
            help='Which method, or "all"; may be repeated.  [default: the systems of the paper]', show_default=False
        ),
    ] = [],  # noqa: B006 - Typer reads it as "none given"
    quick: options.Quick = False,
    seed: options.Seeds = [],  # noqa: B006
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    settings: options.Settings = [],  # noqa: B006
    threads: options.Threads = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Go on with what there is of the data set; the tables say so.")
    ] = False,
    jobs: Annotated[int, typer.Option(metavar="N", help="Runs at once, each in a process of its own.")] = 1,
    memory_limit: options.MemoryLimit = None,
    form: options.TableFormat = None,
    out: options.OutFile = None,
) -> None:
    """Measure the paper's tables on MVTec AD and print them.

    Checks that the data set is whole, then does what is not in the folder of results yet: every system of the paper in its published
    configuration, on the categories that were published for it. Interrupt it as you like: the next call goes on.
    """
    from spadework.reproduce import reproduce as run
    from spadework.results import Results

    form = _form(form, out)
    check_target(None if out is None else str(out))
    with progress_bar() as progress:
        found = run(
            root,
            Results(results),
            detectors=detector,
            settings=options.chosen_settings(settings, backbone=backbone, weights=weights, threads=threads),
            quick=quick,
            seeds=seed,
            partial=partial,
            jobs=jobs,
            memory_limit=memory_limit,
            progress=progress,
            announce=note,
        )
    for line in found.missing:
        note(f"not whole: {line}")
    _print(found.comparison, form, out)
    if found.benchmark.failed:
        raise typer.Exit(1)


def _form(form: str | None, out: Path | None) -> str:
    """The format asked for, else that of the file's name; refused before any work."""
    from spadework import check
    from spadework.errors import InputError
    from spadework.report.tables import FORMS, SUFFIXES

    if form is not None:
        return check.one_of(form, "format", FORMS)
    suffix = out.suffix.lower() if out is not None else ""
    if suffix and suffix not in SUFFIXES:
        raise InputError(
            f"{out}: tables are written as {', '.join(SUFFIXES)}; name the file so, or say which by --format."
        )
    return SUFFIXES.get(suffix, "text")


def _print(comparison: Comparison, form: str, out: Path | None) -> None:
    from spadework.files import write_file
    from spadework.report.tables import render

    width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    text = render(comparison, form, width=width if out is None else WIDTH)
    if out is None:
        say(text.rstrip("\n"))
    else:
        write_file(out, text.encode())
        note(f"tables: {out}")
