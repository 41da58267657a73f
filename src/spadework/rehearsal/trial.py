"""One candidate on the stage: SPADE with its settings, fitted on the stage's pictures, judges every act.

In: a stage, settings, a network that remembers. Out: `Trial`, from which outcomes follow for every setting that only counts after the search.
One gallery holds all pictures; those of an act's own fold are left out when its nearest images are chosen, which is the same as a gallery without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spadework.detectors.reading import Progress, Seen, work_ahead
from spadework.detectors.spade import Spade
from spadework.prediction import Judgement
from spadework.rehearsal.measuring import Measuring, Outcome, compared_size
from spadework.rehearsal.network import RememberingNetwork
from spadework.rehearsal.stage import Act, Stage
from spadework.scores import to_picture

AFTER_SEARCH = ("smoothing", "wide_smoothing", "image_score", "image_k")  # settings that change nothing before the map
Clock = Callable[[float], None]  # called with the share done; raises OutOfTime


class OutOfTime(Exception):  # noqa: N818 - no error: the budget is used up
    """The time for the rehearsal is over."""


class Rehearsing(Spade):
    """SPADE that is given its network."""

    network: RememberingNetwork

    def _open_backbone(self) -> None:
        self.backbone_: Any = self.network

    def _normal_scores(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
        return np.empty(0), np.empty(0)  # no threshold, and no advice on a setting that nobody has chosen


@dataclass(frozen=True)
class Heard:
    """What a candidate said of an act. distances: (H, W). nearest: squared distances to the nearest images, (k,). shape: of the picture."""

    distances: np.ndarray
    nearest: np.ndarray
    shape: tuple[int, ...]
    mask: np.ndarray | None


class Trial:
    """A candidate's judgements of all acts. seconds: what they took."""

    def __init__(self, model: Rehearsing, stage: Stage, heard: list[Heard], seconds: float) -> None:
        self._model, self._stage, self._heard, self.seconds = model, stage, heard, seconds

    def outcome(self, settings: Mapping[str, Any]) -> Outcome:
        """Measure, with these settings of AFTER_SEARCH."""
        model = self._model
        for name in AFTER_SEARCH:
            setattr(model, name, settings.get(name, getattr(model, name)))
        measured = Measuring(self._stage.sources, self._stage.tested, seed=self._stage.seed)
        for heard in self._heard:
            by_vectors = float(heard.nearest[: model.image_k].mean()) if model.image_score == "nearest-images" else None
            score, small = model._scores(Judgement(heard.distances, by_vectors), heard.shape)
            assert small is not None  # SPADE always has a map
            score_map = np.nan_to_num(
                _compared(small, model, heard.shape), nan=0.0
            )  # what a crop leaves out is never found
            if heard.mask is None:
                measured.add_normal(score, score_map)
            else:
                measured.add_planted(score, score_map, heard.mask)
        return measured.outcome()


def _compared(small: np.ndarray, model: Spade, shape: tuple[int, ...]) -> np.ndarray:
    return to_picture(small, model._view(), compared_size(shape))


def run(stage: Stage, settings: Mapping[str, Any], network: RememberingNetwork, clock: Clock) -> Trial:
    """Let a candidate judge every act.

    Args:
        stage: pictures and acts.
        settings: of `Spade`.
        network: the one that the settings name.
        clock: called with the share done, often; raises OutOfTime to stop.

    Raises:
        OutOfTime: by `clock`.
        SpadeworkError: as `Spade.fit`, for settings that the pictures or the network do not allow.
    """
    started = time.perf_counter()
    model = Rehearsing(**{**settings, "calibration_images": 0})
    model.network = network
    total = len(stage.pictures) + len(stage.acts)
    model.fit(stage.pictures, progress=lambda _, done, __: clock(done / total))
    heard = []
    for done, (act, (seen, mask)) in enumerate(_seen(model, stage), len(stage.pictures) + 1):
        fold = stage.held_out(act)
        assert seen.pyramid is not None  # Spade needs one
        _, nearest = model._retrieve(seen.pyramid.global_vector, fold)
        judged = model._judge(seen, exclude=fold)
        assert judged.distances is not None  # SPADE always has a map
        heard.append(Heard(judged.distances, nearest, seen.image.shape, mask))
        clock(done / total)
    return Trial(model, stage, heard, time.perf_counter() - started)


def _seen(model: Rehearsing, stage: Stage) -> Iterator[tuple[Act, tuple[Seen, np.ndarray | None]]]:
    """Every act as the model sees it, planted and passed through the network ahead."""
    view = model._view()

    def see(act: Act) -> tuple[Seen, np.ndarray | None]:
        image, mask = stage.show(act)
        seen = view.see(image)
        return Seen(f"act {act.source}", image, seen, model._pyramid(seen)), mask

    with model.backbone_.several(len(stage.acts)) as passes:
        yield from zip(stage.acts, work_ahead(stage.acts, see, threads=passes), strict=True)
