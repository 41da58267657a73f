"""Where a part is looked for: around the same place of every normal picture, where they are aligned; and whether they are.

"The same place" is the same share of the view's height and width, so pictures of different sizes may meet in one model.

Whether normal pictures are aligned is told by the model alone. A few of them, held out in turn, are searched among the others: how far from the
same place lies the best match of each place? What share lies within a radius by chance is that of the same matches dealt to shuffled places;
a share is counted from there, so that 0 is chance and 1 is all. What a radius would do to normal parts is measured too: how much higher the peaks of
their maps are when matches are limited to it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spadework.calibration import choose_images
from spadework.images import View
from spadework.kernels import kernel_name
from spadework.kernels.window import SLACK, Window
from spadework.prediction import Judgement

if TYPE_CHECKING:
    from spadework.detectors.spade import Spade

HELD_OUT = 12  # normal pictures that are searched among the others
FEWEST = 3  # normal pictures without which nothing can be told
SHARES = (1 / 32, 1 / 16, 3 / 32, 1 / 8, 3 / 16, 1 / 4)  # radii, in sides; besides the spacing of the grid, the least
ENOUGH = 0.9  # of the places must have their match so near, beyond chance,
CLOSE, LOOSE = 1 / 8, 1 / 4  # within such a share of the side, for pictures to be aligned, or loosely.
NO_HARM, NEAR = (
    1.05,
    1 / 16,
)  # Or scores rise no more, within such a share: on plain ground the best match lies anywhere.
TOO_FEW = 0.75  # a search radius that keeps fewer matches than this,
HARM = 1.1  # and raises the scores of normal parts more than so many times, does harm


class SearchRadiusWarning(Warning):
    """A search radius does harm."""


@dataclass(frozen=True)
class Within:
    """What lies within a radius.

    radius: in pixels of the picture. share: of places whose best match lies within it. by_chance: the same of shuffled places.
    rise: how many times as high normal parts score when matches are limited to it, the median; None where it was not measured.
    """

    radius: float
    share: float
    by_chance: float
    rise: float | None

    @property
    def beyond_chance(self) -> float:
        """The share counted from chance: 0 for what chance gives, 1 for all."""
        return (self.share - self.by_chance) / (1 - self.by_chance) if self.by_chance < 1 else 0.0


@dataclass(frozen=True)
class Alignment:
    """Whether normal pictures are aligned.

    rows: by radius, ascending. side: of what is seen of a picture, the shorter one. spacing: of the grid, the wider one. Both in the picture's
    pixels, of the median picture. pictures: how many were held out.
    """

    rows: tuple[Within, ...]
    side: float
    spacing: float
    pictures: int

    @property
    def best(self) -> Within | None:
        """The smallest radius measured that keeps what is to be found; None where there is none up to a quarter of the side."""
        return next((row for row in self.rows if self._keeps(row)), None)

    def _keeps(self, row: Within) -> bool:
        near = row.beyond_chance >= ENOUGH and row.radius <= LOOSE * self.side + 1
        return near or (row.rise is not None and row.rise <= NO_HARM and row.radius <= NEAR * self.side + 1)

    @property
    def verdict(self) -> str:
        """ "aligned", "loosely aligned" or "not aligned"."""
        if self.best is None:
            return "not aligned"
        return "aligned" if self.best.radius <= CLOSE * self.side + 1 else "loosely aligned"

    @property
    def advice(self) -> float | None:
        """A search radius to try: one step of the grid more than what is needed; None where pictures are not aligned."""
        if self.best is None or self.verdict != "aligned":
            return None
        enough = self.best.radius + self.spacing - 1
        return next((row.radius for row in self.rows if row.radius >= enough), self.best.radius)

    def __str__(self) -> str:
        if self.best is None:
            return f"not aligned: {self._missed()}"
        row = self.best
        found = f"{row.share:.0%} of places have their best match so near the same place, {row.by_chance:.0%} by chance"
        told = f"{self.verdict} to within {row.radius:g} pixels: {found}{_risen(row)}"
        if self.advice is None:
            return f"{told}. That is a large part of the picture: search_radius={row.radius:g} would tell little"
        return f"{told}. With search_radius={self.advice:g} a right thing in the wrong place is found too"

    def _missed(self) -> str:
        """What a radius that would be worth while misses."""
        near = [row for row in self.rows if row.radius <= CLOSE * self.side + 1]
        row = max(near, key=lambda row: row.radius) if near else self.rows[0]  # none on a coarse grid
        return f"search_radius={row.radius:g} would miss the best match of {1 - row.share:.0%} of places{_risen(row)}"

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return {
            "verdict": self.verdict,
            "text": str(self),
            "radius": None if self.best is None else self.best.radius,
            "search_radius": self.advice,
            "side": self.side,
            "spacing": self.spacing,
            "pictures": self.pictures,
            "within": [asdict(row) for row in self.rows],
        }


def window_of(radius: float | None, view: View, size: Sequence[int]) -> Window | None:
    """Return the window of a search radius: those places whose distance, brought to a picture, is at most so many of its pixels.

    Args:
        radius: in pixels of the picture; None for no window.
        view: what the network sees of it.
        size: (height, width) of the picture.
    """
    if radius is None:
        return None
    height, width = _seen(view, size)
    return Window(radius / height, radius / width)


def measure(
    model: Spade, *, radii: Iterable[float] | None = None, most: int = HELD_OUT, rises: bool = True
) -> Alignment | None:
    """Tell whether the normal pictures of a fitted model are aligned; None where there are fewer than FEWEST.

    Args:
        model: fitted; its `search_radius` counts for nothing here.
        radii: in pixels of the picture; None for some up to a quarter of the side.
        most: so many pictures are searched among the others, at most.
        rises: also measure how many times as high normal parts would score with each radius, where the compiled search does it.
    """
    if len(model.gallery_) < FEWEST:
        return None
    rng = np.random.default_rng(int(model.seed))
    searched = [
        _Searched(model, int(index), rng) for index in choose_images(len(model.gallery_), most, int(model.seed))
    ]
    side = float(np.median([min(each.seen) for each in searched]))
    spacing = float(np.median([each.cell.max() for each in searched]))
    steps = {math.ceil(max(side * share, spacing) - SLACK) for share in SHARES}
    rises = rises and model.pyramid == "concatenate" and kernel_name(model.kernel) == "pruned"  # others take seconds
    rows = []
    for radius in sorted(steps if radii is None else radii):
        share, by_chance = np.mean([each.shares(radius) for each in searched], axis=0)
        rise = float(np.median([each.rise(radius) for each in searched])) if rises else None
        rows.append(Within(float(radius), float(share), float(by_chance), rise))
    return Alignment(tuple(rows), side, spacing, len(searched))


def warn_of_harm(model: Spade) -> None:
    """Warn where the search radius of a fitted model does harm: its normal pictures are not aligned so well.

    One that a rehearsal chose found more of the planted defects than none, whatever the pictures look like.
    """
    radius = model.search_radius
    if (
        radius is None
        or model.gallery_.folder.header.get("tuning", {}).get("chosen", {}).get("search_radius") == radius
    ):
        return
    if (found := measure(model, radii=[radius])) is None:
        return
    (row,) = found.rows
    if row.beyond_chance < TOO_FEW and (row.rise is None or row.rise > HARM):
        warnings.warn(
            f"search_radius={radius:g}: the normal pictures are not aligned so well. Only {row.share:.0%} of places have their best match "
            f"within {radius:g} pixels{_risen(row)}, so defects may be missed. Widen it or leave it out; "
            "`spadework info MODEL --alignment` tells more.",
            SearchRadiusWarning,
            stacklevel=2,
        )


def _risen(row: Within) -> str:
    return "" if row.rise is None else f", and with that radius normal parts score {row.rise:.2f} times as high"


class _Searched:
    """A normal picture that was searched among the others, whole."""

    def __init__(self, model: Spade, index: int, rng: np.random.Generator) -> None:
        self.model, self.index = model, index
        self.size, view = model.gallery_.entries[index].size, model._view()
        judged = model.judge_normal(index, None)
        self.peak, self.seen = self._peak(judged), _seen(view, self.size)
        whole = judged.correspondence
        assert whole is not None  # SPADE always has one
        height, width = whole.positions.shape
        self.cell = np.array(self.seen) / (height, width)  # pixels of the picture
        places = np.moveaxis(np.indices((height, width)), 0, -1)
        matches = np.stack(np.divmod(whole.positions, width), axis=-1)
        shown = view.cells(self.size, (height, width))  # padding tells nothing
        offsets = (matches - places)[shown].reshape(-1, 2)
        shuffled = rng.permutation(matches[shown].reshape(-1, 2)) - places[shown].reshape(-1, 2)
        self.far, self.by_chance = (np.hypot(*(steps * self.cell).T) for steps in (offsets, shuffled))

    def shares(self, radius: float) -> tuple[float, float]:
        """Of the places, those whose best match lies within a radius, and by chance."""
        edge = radius + SLACK * max(self.seen)
        return float((self.far <= edge).mean()), float((self.by_chance <= edge).mean())

    def rise(self, radius: float) -> float:
        """How many times as high it scores when matches are limited to a radius."""
        return self._peak(self.model.judge_normal(self.index, radius)) / self.peak if self.peak > 0 else 1.0

    def _peak(self, judged: Judgement) -> float:
        small = self.model._scores(judged, self.size)[1]
        assert small is not None  # SPADE always has a map
        return float(small.max())


def _seen(view: View, size: Sequence[int]) -> tuple[float, float]:
    """Height and width of what is seen of a picture, in its own pixels."""
    y0, x0, y1, x1 = view.box(tuple(size))
    return y1 - y0, x1 - x0
