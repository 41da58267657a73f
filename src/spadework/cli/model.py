"""Commands around one model: fit, predict, append, remove, threshold, info."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spadework.cli import options
from spadework.cli.console import note, present_bill, progress_bar, say, say_json
from spadework.cli.tuning import tuning_line, tuning_minutes, tuning_table

if TYPE_CHECKING:
    from spadework.detectors.base import Detector
    from spadework.detectors.placing import Alignment
    from spadework.prediction import Failure, Prediction

SOME_FAILED, NOTHING_DONE = 1, 2
ENOUGH_FOR_ADVICE = (
    30  # pictures: of 16 boards a single odd one set the threshold, a third higher with a search radius than without
)


def fit(
    normal: Annotated[
        list[Path],
        typer.Argument(
            metavar="NORMAL...", help="Folders or files of normal pictures: good parts only.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="MODEL", help="Where the model goes, NAME.spade.", show_default=False),
    ],
    detector: options.DetectorName = "spade",
    max_false_alarms: options.FalseAlarms = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    image_size: options.ImageSize = None,
    search_radius: options.SearchRadius = None,
    storage: options.Storage = None,
    paper: options.Paper = False,
    settings: options.Settings = [],  # noqa: B006 - Typer reads it as "none given"
    threads: options.Threads = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="First find the settings that suit these pictures, by defects planted on them: docs/tuning.md. What you give, but defaults, stays.",
        ),
    ] = False,
    tune_minutes: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="The most that --tune may take.  [default: 10]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model of that name.")] = False,
    strict: options.Strict = False,
    dry_run: options.DryRun = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Learn what normal looks like from pictures of good parts.

    The threshold is set from the same pictures, each compared with all the others; no defect is needed. Says before it starts about
    how long it will take, how much memory and disk, from two small fits: a few seconds, a minute for very large pictures; --dry-run stops there.
    """
    from spadework.benchmark import make_detector
    from spadework.detectors.placing import SearchRadiusWarning
    from spadework.errors import OutputError

    if output.exists() and not overwrite:
        raise OutputError(f"{output}: exists. Choose another name, or replace it with --overwrite.")
    given = {"max_false_alarms": max_false_alarms, "backbone": backbone, "weights": weights, "image_size": image_size}
    given["search_radius"] = search_radius
    chosen = options.chosen_settings(settings, **given, storage=storage, threads=threads)
    model = make_detector(detector, chosen, paper=paper)
    minutes = tuning_minutes(model, tune, tune_minutes, normal)
    before = {"tuning_seconds_at_most": 60 * minutes} if tune else {}
    _say_bill(model, normal, output, before, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    with progress_bar() as progress, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", SearchRadiusWarning)
        model.fit(
            normal,
            path=output,
            bad_files="raise" if strict else "skip",
            progress=progress,
            tune=tune,
            tune_minutes=minutes,
        )
    _report_skipped(model)
    said = [str(warning.message) for warning in warned if issubclass(warning.category, SearchRadiusWarning)]
    for text in said:
        note(f"warning: {text}")
    summary = model_summary(model) | {"fit_seconds": round(model.fit_seconds_, 2)} | _skipped_json(model)
    advice = _placing_advice(model)
    if as_json:
        say_json(summary | {"warnings": said, "advice": advice})
    else:
        if tune:
            say(tuning_line(summary["tuning"]))
        say(f"{output}: learnt {model.n_normal_} normal pictures in {model.fit_seconds_:.1f} s{_from_folders(normal)}")
        if summary["search_index"]:
            say(_index_line(summary["search_index"]))
        _say_thresholds(model)
        if advice:
            say(f"advice: {advice}")
    _exit_for(model.failures_)


def _placing_advice(model: Detector) -> str | None:
    """Whether a search radius is worth a try; None where it is not clear from a few pictures, or there is one."""
    from spadework.detectors.placing import measure
    from spadework.detectors.spade import Spade

    if not isinstance(model, Spade) or model.search_radius is not None or len(model.gallery_) < ENOUGH_FOR_ADVICE:
        return None
    found = measure(model, most=6, rises=False)
    return str(found) if found is not None and found.advice is not None else None


def _say_bill(
    model: Detector, normal: list[Path], output: Path, before: dict[str, Any], *, dry_run: bool, as_json: bool
) -> None:
    """Say what the fit will take: a line about the work, or, of a dry run, the result."""
    from spadework.estimates import estimate, is_worth_telling

    if dry_run or is_worth_telling(model, normal):
        present_bill(estimate(model, normal, path=output), dry_run=dry_run, as_json=as_json, before=before)


def _index_line(index: dict[str, Any]) -> str:
    renewed = f", axes renewed {index['renewed']} times" if index["renewed"] else ""
    return f"search index {index['megabytes']} MB, prepared in {index['seconds']} s{renewed}"


def _from_folders(normal: Sequence[Path]) -> str:
    """Which folders pictures were found in, where there are several: a wrong one among them is then seen."""
    from collections import Counter

    from spadework.images import find_images

    found = Counter(path.parent for each in normal if each.is_dir() for path in find_images(each))
    if len(found) < 2:
        return ""
    return ", from " + ", ".join(f"{folder} ({count})" for folder, count in sorted(found.items()))


def predict(
    model: options.Model,
    images: options.Images,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write heat maps, raw maps and one CSV and JSON here. Run again to go on with a half-done batch.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the normal place that each suspicious place was matched with.")
    ] = False,
    map_format: Annotated[
        str, typer.Option(metavar="FORMAT", help="Of raw maps with --out, float32: tiff or npy.")
    ] = "tiff",
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    threads: options.Threads = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Inspect pictures: a verdict, a score and a map for each.

    Goes on past files that cannot be read, names them, and then exits with 1.
    """
    detector = _load(model, backbone, weights, threads)
    if explain and not hasattr(detector, "explain_regions"):
        note(f"{detector.name} matches no normal places, so --explain shows nothing; spade does")
        explain = False
    rows, failures = (
        _predict_into(detector, images, out, map_format, explain, quiet=as_json)
        if out is not None
        else _predict_only(detector, images, explain, quiet=as_json)
    )
    _report_failures(failures)
    if as_json:
        from spadework.batch import batch_json

        say_json(batch_json(detector, rows, failures))
    else:
        alarms = sum(row["is_anomalous"] is True for row in rows)
        note(
            f"{len(rows)} inspected, {alarms} anomalous, {len(failures)} failed; threshold {_threshold_line(detector)}"
        )
    if failures and not rows:
        raise typer.Exit(NOTHING_DONE)
    _exit_for(failures)


def _predict_into(
    detector: Detector, images: list[Path], out: Path, map_format: str, explain: bool, *, quiet: bool
) -> tuple[Sequence[dict[str, Any]], Sequence[Failure]]:
    from spadework.batch import inspect_batch

    with progress_bar() as progress:
        result = inspect_batch(detector, images, out, map_format=map_format, explain=explain, progress=progress)
    if not quiet:
        for row in result.rows:
            _say_row(row)
        note(f"{out}: predictions.csv, predictions.json, maps, overlays{', explanations' if explain else ''}")
        if result.resumed:
            note(f"{result.resumed} of them were done by an earlier run")
    return result.rows, result.failures


def _predict_only(
    detector: Detector, images: list[Path], explain: bool, *, quiet: bool
) -> tuple[list[dict[str, Any]], list[Failure]]:
    from spadework.batch import find_jobs
    from spadework.images import Listed
    from spadework.prediction import Failure

    jobs, failures = find_jobs(images)
    rows = []
    found: Iterable[Prediction | Failure] = detector.predict_each(Listed(job.path for job in jobs)) if jobs else ()
    for item in found:
        if isinstance(item, Failure):
            failures.append(item)
            continue
        rows.append(_row(detector, item, explain))
        if not quiet:
            _say_row(rows[-1])
    return rows, failures


def _row(detector: Detector, found: Prediction, explain: bool) -> dict[str, Any]:
    row = found.to_json()
    explain_regions = getattr(detector, "explain_regions", None)
    if explain and explain_regions is not None:
        row["matches"] = [match.to_json() for match in explain_regions(found)]
    return row


def _say_row(row: dict[str, Any]) -> None:
    say(f"{row['verdict']:<12} {row['score']:>10.4g}  {row['path']}")
    for match in row.get("matches", ()):
        place, normal = match["box"], match["normal_box"]
        say(
            f"{'':<12}   {_box(place)} looks most like {match['normal_image']} {_box(normal)}, "
            f"squared distance {match['distance']:.4g} before smoothing"
        )


def _box(box: Sequence[int]) -> str:
    return f"y {box[0]}-{box[2]} x {box[1]}-{box[3]}"


def append(
    model: options.Model,
    images: options.Images,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Set the threshold anew from all normal pictures, as `fit` does.")
    ] = False,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    threads: options.Threads = None,
    strict: options.Strict = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Add normal pictures to a model, such as false alarms.

    Takes the time of their forward passes. The threshold stays where it is unless --recalibrate is given.
    """
    from spadework.errors import InputError

    detector = _load(model, backbone, weights, threads)
    add = getattr(detector, "append", None)
    if add is None:
        raise InputError(f"{model}: detector {detector.name!r} cannot append. Fit it again on all normal pictures.")
    before = detector.n_normal_
    with progress_bar() as progress:
        add(images, bad_files="raise" if strict else "skip", progress=progress)
        if recalibrate:
            detector.recalibrate(progress=progress)
    _report_skipped(detector)
    if as_json:
        say_json(model_summary(detector) | {"appended": detector.n_normal_ - before} | _skipped_json(detector))
    else:
        say(f"{model}: {before} normal pictures before, {detector.n_normal_} now")
        _say_thresholds(detector)
    _exit_for(detector.failures_)


def remove(
    model: options.Model,
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME_OR_HASH...",
            help="Normal pictures: their names as `predict --explain` tells them, or the first 8 digits or more of their hashes.",
            show_default=False,
        ),
    ],
    threads: options.Threads = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Take normal pictures out of a model.

    For defects that slipped in, say. The thresholds are set anew from the rest, as `fit` does. What stays is copied once on disk.
    """
    from spadework.errors import InputError

    detector = _load(model, None, None, threads)
    take_out = getattr(detector, "remove", None)
    if take_out is None:
        raise InputError(
            f"{model}: detector {detector.name!r} cannot remove. Fit it again on the normal pictures that stay."
        )
    before = detector.n_normal_
    with progress_bar() as progress:
        take_out(pictures, progress=progress)
    if as_json:
        say_json(model_summary(detector) | {"removed": before - detector.n_normal_})
    else:
        say(f"{model}: {before} normal pictures before, {detector.n_normal_} now")
        _say_thresholds(detector)


def threshold(
    model: options.Model,
    max_false_alarms: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Move the threshold to this rate; nothing is fitted again.", show_default=False
        ),
    ] = None,
    recalibrate: Annotated[
        bool,
        typer.Option("--recalibrate", help="Score the normal pictures against each other again, e.g. after `append`."),
    ] = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Show the threshold and what it promises, or move it."""
    detector = _load(model, None, None, None)
    if recalibrate:
        with progress_bar() as progress:
            detector.recalibrate(progress=progress)
    if max_false_alarms is not None:
        detector.set_max_false_alarms(max_false_alarms)
    if as_json:
        say_json(model_summary(detector))
    else:
        say(_threshold_line(detector))


def info(
    model: options.Model,
    verify: Annotated[bool, typer.Option("--verify", help="Read everything and check every checksum.")] = False,
    alignment: Annotated[
        bool,
        typer.Option(
            "--alignment",
            help="Tell whether the normal pictures lie alike, so that --search-radius makes sense; seconds.",
        ),
    ] = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Show what a model holds, and check it."""
    detector = _load(model, None, None, None)
    if verify:
        detector.verify()
    summary = model_summary(detector)
    aligned = _alignment(detector) if alignment else None
    if as_json:
        extra = {"alignment": None if aligned is None else aligned.to_json()} if alignment else {}
        say_json(summary | ({"verified": True} if verify else {}) | extra)
        return
    network = summary["backbone"]
    say(f"model       {summary['model']}, {summary['megabytes']} MB, hash {summary['model_hash']}")
    say(f"detector    {summary['detector']}, made with Spadework {summary['made_with']}")
    say(f"network     {network['name']} ({network['hash'][:12]})" if network else "network     none")
    seen = "" if summary["canvas"] is None else ", seen at up to {1} x {0} pixels".format(*summary["canvas"])
    say(f"normal      {summary['normal_images']} pictures{seen}")
    if summary["search_index"]:
        say(_index_line(summary["search_index"]))
    say(f"threshold   {_threshold_line(detector)}")
    for name, value in summary["settings"].items():
        say(f"  {name} = {value!r}")
    if summary["tuning"]:
        say(f"tuning      {tuning_line(summary['tuning'])}")
        tuning_table(summary["tuning"])
    if aligned is not None:
        _say_alignment(aligned)
    if verify:
        say("every checksum is right")


def _alignment(detector: Detector) -> Alignment | None:
    from spadework.detectors.placing import FEWEST
    from spadework.detectors.spade import Spade

    if not isinstance(detector, Spade):
        note(f"--alignment is for spade, not for {detector.name}: it shows nothing here")
        return None
    found = detector.alignment()
    if found is None:
        note(f"whether pictures are aligned can be told from {FEWEST} normal pictures on")
    return found


def _say_alignment(found: Alignment) -> None:
    say(f"alignment   {found}")
    for row in found.rows:
        rise = "" if row.rise is None else f"; normal parts score {row.rise:.2f} times as high"
        say(f"  within {row.radius:g} pixels: {row.share:.0%} of best matches, {row.by_chance:.0%} by chance{rise}")


def model_summary(detector: Detector) -> dict[str, Any]:
    """Return what is known of a fitted model as plain JSON values."""
    gallery = getattr(detector, "gallery_", None)  # not all detectors have one
    folder, limit, map_limit = detector.folder_, detector.threshold_, detector.map_threshold_
    size = sum(file.stat().st_size for file in folder.path.iterdir() if file.is_file())
    return {
        "model": os.fspath(folder.path),
        "model_hash": detector.model_hash(),
        "made_with": folder.header["spadework"],
        "detector": detector.name,
        "backbone": folder.header["backbone"],
        "normal_images": detector.n_normal_,
        "canvas": folder.header.get("canvas"),
        "search_index": None if gallery is None else gallery.index_summary(),
        "megabytes": round(size / 2**20, 1),
        "threshold": {
            "value": limit.value,
            "map_value": map_limit.value,
            "map_promised": map_limit.promised,
            "max_false_alarms": limit.asked,
            "promised": limit.promised,
            "normal_images": limit.n,
        },
        "settings": detector.settings(),
        "tuning": folder.header.get("tuning"),
    }


def _load(path: Path, backbone: str | None, weights: Path | None, threads: int | None) -> Detector:
    from spadework.detectors import load_detector

    return load_detector(path, backbone=backbone, weights=weights, threads=threads)


def _threshold_line(detector: Detector) -> str:
    limit = detector.threshold_
    return str(limit) if limit.value is None else f"{limit.value:.4g}: {limit}"


def _say_thresholds(detector: Detector) -> None:
    say(f"threshold: {_threshold_line(detector)}")
    limit = detector.map_threshold_
    if (
        limit.value is not None and limit.n != detector.threshold_.n
    ):  # set from other pictures, so it promises something else
        say(f"regions of the map above {limit.value:.4g}: {limit}")


def _skipped_json(detector: Detector) -> dict[str, Any]:
    failures = [{"path": failure.path, "error": str(failure.error)} for failure in detector.failures_]
    return {"failures": failures, "repeated": list(detector.repeated_)}


def _report_skipped(detector: Detector) -> None:
    _report_failures(detector.failures_)
    if detector.repeated_:
        more = ", ..." if len(detector.repeated_) > 3 else ""
        names = ", ".join(detector.repeated_[:3])
        note(f"{len(detector.repeated_)} passed over, their very pixels are in the model already: {names}{more}")


def _report_failures(failures: Sequence[Failure]) -> None:
    for failure in failures:
        note(f"failed: {failure.error}")


def _exit_for(failures: Sequence[Failure]) -> None:
    if failures:
        raise typer.Exit(SOME_FAILED)
