"""The stage of a rehearsal: which normal pictures are learnt from, which are held out in turn, and the defects planted on those.

In: normal pictures. Out: `Stage`. Everything follows from what the pictures show and from the seed, not from the order they come in, unless there are
more than MOST: which of those are read is drawn by their order.
Pictures are dealt into folds. A tested picture is judged without those of its own fold, whether untouched or with a defect; pieces that
are planted on it come from its own fold too, so that nothing it is compared with has them.
Letters: `N` pictures, `G` of them tested untouched, `P` planted defects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spadework.errors import InputError, SpadeworkError
from spadework.images import Picture, load, pixel_hash
from spadework.rehearsal.measuring import compared_mask
from spadework.rehearsal.planting import KINDS, Planted, plant

MOST = 200  # pictures that are learnt from
TESTED = 60  # of them are tested untouched, at most
# Defects. With 80 on 40 pictures what a finer view promises for boards was told as 0.041, 0.037 and 0.003 on three renderings, each with a
# standard error of 0.01 to 0.015: too coarse a scale for gains of 0.02, and a quarter of the time that may be taken.
PLANTED = 160
FOLDS = 5
FEWEST = 8  # pictures
KEEP_BYTES = (
    1 << 30
)  # of decoded pictures in memory, planted ones among them; beyond, they are read or made again for every candidate


@dataclass(frozen=True)
class Act:
    """One picture to judge. source: which of the G. number: which defect on it; None for the untouched picture."""

    source: int
    number: int | None


class Stage:
    """Pictures, folds and tests.

    Args:
        pictures: N normal ones, different and readable, in the order of the deal.
        seed: of what is planted.
        tested: at most so many pictures are tested untouched.
        planted: so many defects are planted.
        keep: whether decoded pictures stay in memory.
    """

    def __init__(
        self, pictures: Sequence[Picture], *, seed: int, tested: int = TESTED, planted: int = PLANTED, keep: bool = True
    ) -> None:
        self.pictures, self.seed, self._keep = list(pictures), seed, keep
        count = len(self.pictures)
        self.folds = [slice(fold * count // FOLDS, (fold + 1) * count // FOLDS) for fold in range(FOLDS)]
        self.tested = min(tested, count)
        self.places = [source * count // self.tested for source in range(self.tested)]  # in every fold as many
        rounds = range(-(-planted // self.tested))
        dealt = [Act(source, number) for number in rounds for source in range(self.tested)][:planted]
        self.acts = (*(Act(source, None) for source in range(self.tested)), *dealt)
        self._planted: dict[Act, Planted] = {}

    @cached_property
    def sources(self) -> list[int]:
        """Which tested picture each defect is on, (P,)."""
        return [act.source for act in self.acts if act.number is not None]

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """(height, width) of the tested pictures, (G,)."""
        return [load(self.pictures[place]).shape[:2] for place in self.places]

    def held_out(self, act: Act) -> slice:
        """Which of the N pictures an act must not be compared with: its own fold."""
        place = self.places[act.source]
        return next(fold for fold in self.folds if fold.start <= place < fold.stop)

    def show(self, act: Act) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an act's picture, uint8 (H, W, 3), and the mask of its defect as it is compared, bool (h, w); None without."""
        if act.number is None:
            return load(self.pictures[self.places[act.source]]), None
        planted = self.planted(act)
        return planted.picture, compared_mask(planted.mask)

    def planted(self, act: Act) -> Planted:
        """Return the defect of an act."""
        found = self._planted.get(act)
        if found is None:
            found = self._plant(act)
            if self._keep:
                self._planted[act] = found
        return found

    def _plant(self, act: Act) -> Planted:
        assert act.number is not None  # it is asked for a defect
        rng = np.random.default_rng([self.seed, act.source, act.number])
        fold = self.held_out(act)
        donor = int(rng.integers(fold.start, fold.stop))
        place = act.number * self.tested + act.source
        kind = list(KINDS)[place % len(KINDS)]  # as many of each
        return plant(load(self.pictures[self.places[act.source]]), load(self.pictures[donor]), rng=rng, kind=kind)


def check_enough(count: int) -> None:
    """Raise InputError where so many different pictures are too few."""
    if count < FEWEST:
        raise InputError(
            f"tuning takes at least {FEWEST} different normal pictures, for some are held out in turn; "
            f"{count} can be used. Give more, or fit without tuning."
        )


def set_stage(
    pictures: Sequence[Picture],
    *,
    seed: int,
    tested: int = TESTED,
    planted: int = PLANTED,
    enough: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Stage:
    """Read normal pictures, draw at most MOST of them and deal them. Copies and what cannot be read are left out.

    Args:
        pictures: paths or arrays.
        seed: of the draw and of what is planted.
        tested: at most so many pictures are tested untouched.
        planted: so many defects are planted.
        enough: asked now and then; once it says so, no more pictures are read if FEWEST are there.
        progress: called with (done, total).

    Raises:
        InputError: fewer than FEWEST different pictures can be read.
    """
    dealt: dict[str, Picture] = {}
    size = largest = 0
    drawn = np.random.default_rng(seed).permutation(len(pictures)) if len(pictures) > MOST else range(len(pictures))
    for done, index in enumerate(drawn, 1):
        picture = pictures[int(index)]
        try:
            image = load(picture)
        except SpadeworkError:
            continue  # `fit` tells, or stops there
        key = hashlib.sha256(f"{seed} {pixel_hash(image)}".encode()).hexdigest()
        if key not in dealt:
            size, largest = size + image.nbytes, max(largest, image.nbytes)
            dealt[key] = image if size < KEEP_BYTES / 2 else picture
        if progress:
            progress(done, min(len(pictures), MOST))
        if len(dealt) >= MOST or (len(dealt) >= FEWEST and enough is not None and enough()):
            break  # the others would not be drawn, or there is no time to read them
    check_enough(len(dealt))
    stay = size + planted * largest * 4 // 3 < KEEP_BYTES  # a planted one is a picture and its mask
    return Stage([dealt[key] for key in sorted(dealt)], seed=seed, tested=tested, planted=planted, keep=stay)
