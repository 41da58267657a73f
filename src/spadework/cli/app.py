"""The commands by name, and their common options."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import spadework
from spadework.cli import lists, measure, model, serve, tables

app = typer.Typer(
    name="spadework",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Find defects you have never seen: learn from pictures of good parts, then get a verdict, a map of where, and the "
        "matching normal place for every new picture.\n\n"
        "Start with `spadework demo`, or: `spadework fit GOOD_FOLDER -o part.spade`, then `spadework predict part.spade "
        "NEW_FOLDER --out results`."
    ),
)


def _version(value: bool) -> None:
    if value:
        sys.stdout.write(f"spadework {spadework.__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Hold the options that come before a command."""


for _command in (
    measure.demo,
    model.fit,
    model.predict,
    model.append,
    model.remove,
    model.threshold,
    model.info,
    serve.serve,
    measure.evaluate,
    measure.benchmark,
    tables.reproduce,
    tables.tables,
    lists.backbones,
    lists.detectors,
    lists.datasets,
):
    app.command()(_command)
