"""The paper's tables, measured: check that the data set is whole, do the runs that are missing, set them beside the published numbers.

In: the folder of MVTec AD and a folder of results. Out: `Reproduction`. Interrupted, it goes on where it was; several processes may
work on one folder of results at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spadework.benchmark import Benchmark, do_runs
from spadework.comparison import Comparison, compare
from spadework.datasets import Category, Dataset, Sample, open_dataset
from spadework.datasets.sample import read_mask
from spadework.detectors import DETECTORS
from spadework.detectors.reading import Progress
from spadework.errors import DatasetError
from spadework.published import CATEGORIES, COUNTS, SYSTEMS, TOTAL, categories_of
from spadework.results import Results
from spadework.runs import Asked, chosen_detectors, plan
from spadework.workers import Announce


@dataclass(frozen=True)
class Reproduction:
    """What was measured, and the tables made of it. missing: what the data set lacks of MVTec AD, or has too much, in words."""

    benchmark: Benchmark
    comparison: Comparison
    missing: tuple[str, ...]


def reproduce(
    root: str | os.PathLike[str],
    results: Results,
    *,
    detectors: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    quick: bool = False,
    seeds: Sequence[int] = (),
    partial: bool = False,
    jobs: int | None = 1,
    memory_limit: float | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Reproduction:
    """Measure the systems of the paper's tables on MVTec AD, each in its published configuration.

    Args:
        root: folder of MVTec AD.
        results: where runs are written as they end, and looked for before they start.
        detectors: names in the registry, or "all"; empty for the systems of the paper.
        settings: changes of the published configuration, which the tables name.
        quick: each detector's configuration for a first look, in place of the published one.
        seeds: as in `run_benchmark`.
        partial: go on with what there is of the data set.
        jobs: as in `run_benchmark`.
        memory_limit: as in `run_benchmark`.
        progress: called with (what, done, total).
        announce: called with what happens, in words.

    Raises:
        DatasetError: the data set is not whole, and `partial` is not set; the message says what is missing.
        InputError: an unknown detector, or a setting that is refused.
        OutputError: results cannot be written.
    """
    names, absent = _systems(detectors)
    dataset = open_dataset(root, "mvtec")
    missing = check_whole(dataset)
    if missing and not partial:
        listed = "\n".join(f"  {line}" for line in missing)
        raise DatasetError(
            f"{root}: is not the whole of MVTec AD ({TOTAL.train} normal pictures to learn from, {TOTAL.good} normal and "
            f"{TOTAL.defective} defective ones to judge):\n{listed}\n"
            f"{_elsewhere(root)}Complete it, or go on with what is there by --partial: the tables then say so."
        )
    missing += check_regions(dataset)
    categories = [category for category in dataset.categories if category.name in CATEGORIES]
    if not categories:
        raise DatasetError(f"{root}: has none of the categories of MVTec AD: {', '.join(CATEGORIES)}.")
    asked = Asked(dict(settings or {}), "quick" if quick else "paper", list(seeds))
    planned = [each for each in plan(names, categories, asked) if each.category.name in categories_of(each.detector)]
    done = do_runs(planned, results=results, jobs=jobs, memory_limit=memory_limit, progress=progress, announce=announce)
    filed = {(record.row["detector"], record.row["category"]) for record in done.records}
    reasons = {
        f"{row['detector']}: {row['error']}".rstrip(".")
        for row in done.rows
        if "error" in row and (row["detector"], row["category"]) not in filed
    }
    left_out = [*sorted(reasons), *(f"{title}: this version has no detector {name!r}" for title, name in absent)]
    return Reproduction(done, compare(done.records, left_out=left_out), missing)


def _elsewhere(root: str | os.PathLike[str]) -> str:
    """A hint, where the folder above or one within holds more categories than this one; else nothing."""
    here = Path(root).resolve()
    folders = [here, here.parent, *sorted(each for each in here.iterdir() if each.is_dir())]
    held = [sum((folder / name).is_dir() for name in CATEGORIES) for folder in folders]
    most = held.index(max(held))
    return f"{folders[most]} holds {held[most]} of its categories: give that folder.\n" if most else ""


def _systems(detectors: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The detectors to run, and the systems of the paper, title and name, for which there is none."""
    if detectors:
        return chosen_detectors(detectors), []
    absent = [(each.title, each.detector) for each in SYSTEMS if each.detector not in DETECTORS]
    return [each.detector for each in SYSTEMS if each.detector in DETECTORS], absent


def check_whole(dataset: Dataset) -> tuple[str, ...]:
    """Return what a data set lacks of MVTec AD, or has too much, in words; nothing where it is whole. No picture is read."""
    found = {category.name: category for category in dataset.categories}
    lines = []
    for name in CATEGORIES:
        counts = COUNTS[name]
        expected = f"{counts.train} to learn from, {counts.good} good and {counts.defective} defective in {counts.groups} kinds to judge"
        if name not in found:
            lines.append(f"{name}: missing; expected {expected}")
        elif _counts(found[name]) != (counts.train, counts.good, counts.defective, counts.groups):
            lines.append(
                "{}: found {} to learn from, {} good and {} defective in {} kinds to judge; expected {}".format(
                    name, *_counts(found[name]), expected
                )
            )
        elif not found[name].has_masks:
            lines.append(f"{name}: its masks are missing (the folder ground_truth)")
    lines += [
        f"{name}: is no category of MVTec AD and is passed over" for name in found if name not in CATEGORIES and lines
    ]
    return tuple(lines)


def check_regions(dataset: Dataset) -> tuple[str, ...]:
    """Return where masks hold another number of defective regions than MVTec AD, in words. Reads the masks of categories that are whole.

    Regions are counted as the measures do, by 8-connection.

    Raises:
        DatasetError: a mask cannot be read.
    """
    lines = []
    for category in dataset.categories:
        counts = COUNTS.get(category.name)
        known = counts and (counts.train, counts.good, counts.defective, counts.groups)
        if counts is None or known != _counts(category) or not category.has_masks:
            continue
        found = sum(_regions(sample) for sample in category.test if sample.is_anomalous)
        if found != counts.regions:
            lines.append(
                f"{category.name}: found {found} defective regions in its masks; MVTec AD has {counts.regions}"
            )
    return tuple(lines)


def _regions(sample: Sample) -> int:
    assert sample.mask_path is not None
    mask = read_mask(sample.mask_path, above=sample.mask_above).astype(np.uint8)
    return cv2.connectedComponents(mask, connectivity=8)[0] - 1  # less the background


def _counts(category: Category) -> tuple[int, int, int, int]:
    defective = [sample for sample in category.test if sample.is_anomalous]
    kinds = {sample.kind for sample in defective}
    return len(category.train), len(category.test) - len(defective), len(defective), len(kinds)
