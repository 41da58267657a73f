"""The rehearsal: which settings find defects that were planted on normal pictures.

In: normal pictures, settings of `Spade`, a time budget. Out: `Tuning`: the settings to take, and the table of what was tried. No test picture and no true
defect is looked at. `planting` makes the defects, `stage` deals the pictures, `trial` judges, `measuring` measures, `choice` decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spadework import check
from spadework.backbones import Backbone
from spadework.errors import InputError
from spadework.images import Picture
from spadework.kernels import window
from spadework.rehearsal.candidates import Facts
from spadework.rehearsal.choice import Choice, Progress, Tried, Tuning
from spadework.rehearsal.network import RememberingNetwork
from spadework.rehearsal.stage import PLANTED, TESTED, set_stage

__all__ = ["MINUTES", "Tried", "Tuning", "rehearse"]

MINUTES = 10.0
READING = 0.25  # of the budget, at most, goes into reading pictures


def rehearse(
    pictures: Sequence[Picture],
    settings: Mapping[str, Any],
    backbone: Backbone,
    *,
    minutes: float = MINUTES,
    seed: int = 0,
    tested: int = TESTED,
    planted: int = PLANTED,
    progress: Progress | None = None,
) -> Tuning:
    """Find settings by defects that are planted on normal pictures.

    The same pictures, settings and seed give the same choice, as long as the budget does not cut the list of candidates short.

    Args:
        pictures: normal ones, paths or arrays.
        settings: of `Spade`, to start from; those that differ from its defaults stay as they are.
        backbone: the network they name.
        minutes: the most it may take. A candidate that would take longer is left out.
        seed: of what is drawn and planted.
        tested: how many normal pictures are judged untouched, at most.
        planted: how many defects are planted.
        progress: called with (what, done, total).

    Raises:
        InputError: `minutes` is not above 0, or too few pictures can be used.
    """
    limit = 60 * minutes_of(minutes)
    started = time.perf_counter()
    report = progress or (lambda what, done, total: None)
    stage = set_stage(
        pictures,
        seed=check.whole(seed, "seed"),
        tested=tested,
        planted=planted,
        enough=lambda: time.perf_counter() - started > READING * limit,
        progress=lambda done, total: report("reading pictures for the rehearsal", done, total),
    )
    side = float(np.median([math.sqrt(height * width) for height, width in stage.shapes]))
    learnt = len(stage.pictures) - max(fold.stop - fold.start for fold in stage.folds)
    facts = Facts(side, learnt, backbone.strides, backbone.multiple)
    window.warm_up()  # all kernels: compiled now, the first candidate's time tells of the others'
    network = RememberingNetwork(backbone)
    try:
        choice = Choice(stage, settings, network, facts, deadline=started + limit, progress=progress)
        chosen = choice.make()
    finally:
        network.close()
    return Tuning(
        chosen,
        choice.tried,
        choice.left_out,
        choice.failed,
        seconds=time.perf_counter() - started,
        budget_seconds=limit,
        pictures=len(stage.pictures),
        tested=stage.tested,
        planted=len(stage.sources),
        seed=seed,
    )


def minutes_of(minutes: float) -> float:
    """Return a time budget in minutes as a float. Raises InputError unless it is a number above 0."""
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 < minutes < math.inf:
        raise InputError(f"tune_minutes must be a number above 0, not {minutes!r}: 10 is the usual budget.")
    return float(minutes)
