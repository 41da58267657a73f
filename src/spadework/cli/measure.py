"""Commands that measure: evaluate, benchmark, demo."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spadework.cli import options
from spadework.cli.console import (
    check_target,
    measures_table,
    note,
    present_bill,
    progress_bar,
    say,
    say_json,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spadework.benchmark import Benchmark
    from spadework.evaluation import Evaluation


def evaluate(
    model: options.Model,
    dataset: options.DatasetFolder,
    category: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which category, where there are several.", show_default=False)
    ] = None,
    layout: options.Layout = None,
    pro_limit: options.ProLimit = 0.3,
    resolution: options.Resolution = None,
    json_file: options.JsonFile = None,
    report: options.Report = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    threads: options.Threads = None,
) -> None:
    """Measure a fitted model on a data set's test pictures.

    Image and pixel ROCAUC, average precision and best F1, and PRO; undefined ones are empty, with the reason.
    """
    from spadework.benchmark import Benchmark
    from spadework.datasets import open_dataset
    from spadework.detectors import load_detector
    from spadework.errors import InputError
    from spadework.evaluation import evaluate as run

    check_target(json_file)
    opened = open_dataset(dataset, layout)
    if category is None and len(opened.categories) > 1:
        names = ", ".join(each.name for each in opened.categories)
        raise InputError(f"{dataset} has several categories: choose one with --category: {names}.")
    chosen = opened.categories[0] if category is None else opened.category(category)
    detector = load_detector(model, backbone=backbone, weights=weights, threads=threads)
    with progress_bar() as progress:
        found = run(detector, chosen, pro_limit=pro_limit, resolution=resolution, progress=progress)
    _present(Benchmark((found.row | {"verdicts": found.counts},), (found,)), json_file, report)


def benchmark(
    dataset: options.DatasetFolder,
    category: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="Which categories; may be repeated.  [default: all]", show_default=False),
    ] = [],  # noqa: B006 - Typer reads it as "none given"
    detector: options.DetectorNames = ["spade"],  # noqa: B006
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    image_size: options.ImageSize = None,
    storage: options.Storage = None,
    max_false_alarms: options.FalseAlarms = None,
    paper: options.Paper = False,
    quick: options.Quick = False,
    seed: options.Seeds = [],  # noqa: B006
    settings: options.Settings = [],  # noqa: B006
    layout: options.Layout = None,
    pro_limit: options.ProLimit = 0.3,
    resolution: options.Resolution = None,
    threads: options.Threads = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write each run here as it ends; what is here is not done again, so that a call that was interrupted goes on.",
            show_default=False,
        ),
    ] = None,
    jobs: options.Jobs = None,
    memory_limit: options.MemoryLimit = None,
    dry_run: options.DryRun = False,
    json_file: options.JsonFile = None,
    report: options.Report = None,
) -> None:
    """Fit and measure methods on every category of a data set.

    One row of measures each; a run that fails becomes an empty row with the reason, and the exit code is 1. With several methods,
    or with --results or --jobs, each run is a process of its own, so that one that is killed costs its row alone; --report keeps all in this process.
    With several methods a setting goes to those that have it. Says before it starts about how long it will take, how much memory and disk;
    --dry-run stops there.
    """
    from spadework.benchmark import do_runs, outstanding, plan_benchmark
    from spadework.datasets import open_dataset
    from spadework.errors import InputError
    from spadework.estimates import estimate_runs
    from spadework.results import Results
    from spadework.runs import chosen_detectors

    check_target(json_file)
    several = len(chosen_detectors(detector)) > 1
    if report is not None and (results is not None or jobs is not None or memory_limit is not None):
        raise InputError(
            "--report draws what was measured in this very process: leave out --results, --jobs and --memory-limit, or the report."
        )
    apart = report is None and (several or results is not None or memory_limit is not None)
    opened = open_dataset(dataset, layout)
    given = {"backbone": backbone, "weights": weights, "image_size": image_size, "storage": storage}
    planned = plan_benchmark(
        opened,
        categories=category,
        detectors=detector,
        settings=options.chosen_settings(settings, **given, max_false_alarms=max_false_alarms, threads=threads),
        paper=paper,
        quick=quick,
        seeds=seed,
        pro_limit=pro_limit,
        resolution=resolution,
    )
    folder, at_once = None if results is None else Results(results), jobs or (1 if apart else None)
    bill = estimate_runs(outstanding(planned, folder), jobs=at_once, brief=not dry_run)
    if dry_run or bill.normal or bill.unknown:
        present_bill(bill, dry_run=dry_run, as_json=json_file == "-")
    if dry_run:
        if json_file not in (None, "-"):
            write_json(bill.to_json(), str(json_file))
        return
    with progress_bar() as progress:
        found = do_runs(
            planned, results=folder, jobs=at_once, memory_limit=memory_limit, progress=progress, announce=note
        )
    _present(found, json_file, report)
    if found.failed:
        raise typer.Exit(1)


def _present(found: Benchmark, json_file: str | None, report: Path | None) -> None:
    if json_file is not None:
        write_json(found.to_json(), json_file)
    if json_file != "-":
        measures_table(found.rows)
        for each in found.evaluations:
            say(_at_threshold(each))
    for row in found.rows:
        if row.get("n_test_learnt"):
            count, name = row["n_test_learnt"], row["category"]
            note(
                f"warning: {name}: {count} test pictures are in the model, so these measures say nothing about new ones"
            )
    if report is not None:
        _write_report(report, found.evaluations)


def _at_threshold(each: Evaluation) -> str:
    counts, name = each.counts, f"{each.row['category']} · {each.row['detector']}"
    if counts is None:
        return f"{name}: no threshold, so no verdicts"
    return (
        f"{name}: at the threshold {each.threshold:.4g}, set without a defect: {counts['found']} of {counts['anomalous']} defective pictures "
        f"found, {counts['false_alarms']} false alarms on {counts['normal']} good ones"
    )


def _write_report(report: Path, evaluations: Sequence[Evaluation]) -> None:
    from spadework.report import write_report

    if not evaluations:
        note("no report: no run came to an end")
        return
    note(f"report: {write_report(report, evaluations)}")


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where parts, models, maps and the report go.")] = Path(
        "spadework-demo"
    ),
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Side of the rendered pictures.")] = 256,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed renders other parts.")] = 0,
    as_json: options.JsonFlag = False,
) -> None:
    """Show the whole job on parts that are rendered here.

    Fits, inspects, evaluates and writes a report. Needs no data and no download.
    """
    from spadework.demo import MAX_FALSE_ALARMS, run_demo

    with progress_bar() as progress:
        shown = run_demo(out, size=size, seed=seed, progress=progress, announce=note)
    if as_json:
        say_json(shown.benchmark.to_json() | {"report": str(shown.report), "seconds": round(shown.seconds, 1)})
        return
    measures_table(shown.benchmark.rows)
    for each in shown.benchmark.evaluations:
        say(_at_threshold(each))
    say(
        f"(about half of the rendered defects are faint on purpose; at most {MAX_FALSE_ALARMS:.0%} false alarms were asked for)"
    )
    say(f"done in {shown.seconds:.0f} s")
    say(f"pictures     {shown.parts}")
    say(f"maps         {shown.inspection}")
    say(f"HTML report  {shown.report}")
    command = "spadework" if shutil.which("spadework") else sys.argv[0]
    say(
        f"In the browser, with pictures of {shown.parts / 'gear' / 'test'} dropped on the page (pip install 'spadework[server]'):"
    )
    say(f"  {command} serve {out / 'gear.spade'} --open")
    say("Now with your own pictures:")
    say(f"  {command} fit GOOD_FOLDER -o part.spade")
    say(f"  {command} predict part.spade NEW_FOLDER --out results --explain")
