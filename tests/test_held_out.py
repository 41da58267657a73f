"""Which normal pictures are learnt from and which set the threshold."""

from __future__ import annotations

import numpy as np
import pytest

from spadework.detectors.held_out import Draw


def draw_of(numbers, most=100, seed=0):
    draw = Draw(most, seed=seed)
    for number in numbers:
        draw.add(f"hash {number}", np.array(number))
    return draw


def dealt(draw, learn, hold):
    return tuple([int(picture) for picture in part] for part in draw.deal(learn=learn, hold=hold))


def test_the_order_does_not_matter_but_the_seed_does():
    one, two = draw_of(range(50), most=9), draw_of(reversed(range(50)), most=9)
    assert dealt(one, 6, 3) == dealt(two, 6, 3)
    assert dealt(draw_of(range(50), most=9, seed=1), 6, 3) != dealt(one, 6, 3)


def test_each_picture_is_drawn_as_often_as_another():
    counts = np.zeros(10)
    for seed in range(400):
        counts[dealt(draw_of(range(10), most=3, seed=seed), 3, 0)[0]] += 1
    assert counts.sum() == 1200
    assert (abs(counts - 120) < 50).all()  # five standard deviations


@pytest.mark.parametrize(
    ("count", "learn", "hold", "expected"),
    [
        (1, 10, 100, (1, 0)),
        (3, 10, 100, (3, 0)),  # too few to hold any out
        (4, 10, 100, (2, 2)),
        (6, 10, 100, (4, 2)),
        (50, 10, 100, (10, 40)),  # those that are not learnt from are to spare
        (50, 30, 5, (30, 5)),
        (50, 60, 100, (40, 10)),  # a fifth
        (50, 60, 0, (50, 0)),
    ],
)
def test_how_many_are_learnt_from_and_held_out(count, learn, hold, expected):
    learnt, held = dealt(draw_of(range(count)), learn, hold)
    assert (len(learnt), len(held)) == expected
    assert not set(learnt) & set(held)
