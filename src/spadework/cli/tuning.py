"""What is printed of a rehearsal: what it chose, and the table of what it tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spadework.cli.console import note, table

if TYPE_CHECKING:
    from spadework.detectors.base import Detector

HEADERS = ("settings", "image AUROC", "pixel AUROC", "PRO", "mean", "gain", "standard error", "worst size", "s")


def tuning_line(tuning: Mapping[str, Any]) -> str:
    """Return one sentence of what a rehearsal chose and how much better planted defects are then found."""
    what = f"{tuning['planted']} defects planted on {tuning['tested']} normal pictures, {tuning['seconds']:.0f} s"
    if not tuning["tried"]:
        return (
            f"nothing could be tried within {tuning['budget_seconds'] / 60:.3g} min: settings stay as they are ({what})"
        )
    if tuning["left_out"]:
        what += f"; {len(tuning['left_out'])} settings left out for want of time: a longer --tune-minutes tries them"
    if not tuning["chosen"]:
        return f"no setting was clearly better than those given: they stay as they are ({what})"
    row = next(row for row in tuning["tried"] if row["changes"] == tuning["chosen"])
    return (
        f"chose {changes_text(tuning['chosen'])}: finds planted defects better by {row['gain']:.3f}, "
        f"standard error {row['standard_error']:.3f}{_cost_text(row, tuning['tried'][0])} ({what})"
    )


def _cost_text(row: Mapping[str, Any], start: Mapping[str, Any]) -> str:
    """What a new picture costs with these settings, where it is another thing than with those given."""
    ratio = row.get("cost", 1.0) / max(start.get("cost", 1.0), 1e-9)
    return f"; a new picture takes about {ratio:.2g} times as long" if not 0.8 < ratio < 1.25 else ""


def tuning_table(tuning: Mapping[str, Any]) -> None:
    """Print all that was tried, in the order it was, and note what was left out."""
    rows = []
    for row in tuning["tried"]:
        mark = " *" if row["changes"] == tuning["chosen"] else ""
        numbers = [f"{row[key]:.4f}" for key in ("image_auroc", "pixel_auroc", "pro", "mean", "gain", "standard_error")]
        least = f"{row['least_gain']:.4f}" if "least_gain" in row else ""
        rows.append([changes_text(row["changes"]) + mark, *numbers, least, f"{row['seconds']:.1f}"])
    if rows:
        table(HEADERS, rows, numbers=HEADERS[1:], optional=("s", "mean", "worst size"))
    if tuning["left_out"]:
        note(f"left out for want of time: {'; '.join(changes_text(changes) for changes in tuning['left_out'])}")
    for each in tuning.get("failed", ()):
        note(f"{changes_text(each['changes'])} could not be tried: {each['reason']}")


def tuning_minutes(model: Detector, tune: bool, minutes: float | None, normal: Sequence[Path]) -> float:
    """The budget of --tune, which is told; refuses what makes no sense before anything starts."""
    from spadework.detectors.reading import gather_normal
    from spadework.detectors.spade import Spade
    from spadework.errors import InputError
    from spadework.rehearsal import MINUTES, minutes_of
    from spadework.rehearsal.stage import check_enough

    if minutes is not None and not tune:
        raise InputError("--tune-minutes says how long --tune may take: give --tune too.")
    budget = minutes_of(MINUTES if minutes is None else minutes)
    if tune:
        if not isinstance(model, Spade):
            raise InputError(f"{model.name} cannot be tuned, only spade can: fit without --tune.")
        check_enough(len(gather_normal(normal)))  # more are said to be too few when they have been read
        note(f"tuning comes first, at most {budget:g} min; what it chooses can make the fit longer or shorter")
    return budget


def changes_text(changes: Mapping[str, Any]) -> str:
    """Return changes of settings as text."""
    return ", ".join(f"{name} {value}" for name, value in changes.items()) or "as given"
