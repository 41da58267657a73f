"""Groups of places left out by centre and radius: on data chosen to defeat bounds, no group with a place in reach ever is."""

from __future__ import annotations

import numpy as np
import pytest
from test_pruned import ADVERSARIES, smooth

from spadework.kernels import looks
from spadework.kernels.axes import learn_axes
from spadework.kernels.centres import WIDEST, centres_of
from spadework.kernels.codes import LANES, NO_LANE, QueryCodes, encode, layout_of, to_row
from spadework.kernels.vectors import PAIRS


class Groups:
    """Rows as one gallery image, and other rows as its queries: codes, centres, and what is compared."""

    def __init__(self, queries, gallery):
        self.layout, own = layout_of(((1, *gallery.shape),)), layout_of(((1, *queries.shape),))
        axes = learn_axes(gallery, self.layout)
        encoded = encode(gallery.reshape(-1), self.layout, axes)
        row = to_row(gallery.reshape(-1), encoded, self.layout, axes)
        self.largest = float(row[:64].view(np.float64)[5])
        (centres,), (own_halves,) = centres_of(row.ctypes.data + self.layout.offsets[None, :2], self.layout.groups)
        # (groups, 18) and (groups,)
        self.centres = centres.transpose(0, 2, 1, 3).reshape(-1, 2 * (PAIRS + 1)).astype(np.int64)
        self.halves = own_halves.reshape(-1).astype(np.int64)
        self.codes = QueryCodes.made_of(encode(queries.reshape(-1), own, axes), own)
        self.near = self.codes.codes[:, : 2 * PAIRS].astype(np.int64)
        places = encoded.codes[:, : 2 * PAIRS].astype(np.int64)
        self.groups = [places[self.layout.order[start : start + LANES]] for start in range(0, len(places), LANES)]

    def limits(self, distances, errors=0.0, rounding=0.0):
        """As a search sets them that has found these squared distances, in code units: limits of groups, and the queries towards them."""
        bounds = np.array([errors, 0, 0, 0, rounding, self.largest])
        towards, of_groups = self.codes.towards.copy(), np.empty(len(self.codes.towards), np.int32)
        limits = np.empty((self.codes.squares.shape[1], len(of_groups)), np.int32)
        n, codes = len(self.near), self.codes
        order = np.arange(n)
        found = np.ascontiguousarray(distances[:, None])
        looks.set_limits(
            order, 0, n, codes.squares, codes.errors, codes.factors, 1.0, bounds, found, towards, limits, of_groups
        )
        return of_groups[:n].astype(np.int64), towards[:n].astype(np.int64)

    def values(self, towards):
        """What centre_hits compares, (queries, groups), in int64."""
        return self.halves[None] - towards @ self.centres.T


def lost(groups):
    """Pairs of a query and a group left out though the query is as near as this, or nearer, to one of the group's places."""
    factors = groups.codes.factors if groups.largest > 0 else np.ones(len(groups.near))
    count = 0
    for g, places in enumerate(groups.groups):
        away = factors[:, None, None] * groups.near[:, None] - places[None]
        apart = np.sqrt((away * away).sum(2).min(1))  # in code units
        limits, towards = groups.limits(np.square(np.maximum(apart - factors * groups.codes.errors[:, 0], 0)))
        count += int((groups.values(towards)[:, g] > limits).sum())
    return count


@pytest.mark.parametrize("case", ADVERSARIES)
def test_no_group_with_a_place_in_reach_is_left_out(case):
    assert lost(Groups(*ADVERSARIES[case]())) == 0


def test_radii_too_small_lose_groups_and_the_comparison_sees_it():
    groups = Groups(*ADVERSARIES["few directions"]())
    radii = groups.centres[:, -2]
    groups.halves += (radii**2 - (radii // 2) ** 2) // 2
    groups.centres[:, -2] = radii // 2
    assert lost(groups) > 0


@pytest.mark.parametrize("case", ADVERSARIES)
def test_no_sum_leaves_int32(case):
    groups = Groups(*ADVERSARIES[case]())
    for found in (0.0, 1e6, float(WIDEST - 200) ** 2, np.inf):
        _, towards = groups.limits(np.full(len(groups.near), found))
        assert np.abs(groups.values(towards)).max() < 2**31
        assert np.abs(towards[:, None] * groups.centres[None]).max() <= 2**30


def test_most_groups_are_left_out_where_places_differ():
    rows = np.repeat(smooth(70, 200), LANES, axis=0) + np.float32(0.02) * smooth(70 * LANES, 200)
    groups = Groups(rows[:64], rows[64:])
    limits, towards = groups.limits(np.full(len(groups.near), 500.0**2))
    assert (groups.values(towards) <= limits[:, None]).mean() < 0.1


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 31, 33, 500])
def test_groups_without_a_place_are_always_left_out(rows):
    groups = Groups(smooth(3, 40), smooth(rows, 40))
    count = -(-rows // LANES)
    assert (groups.halves[count:] == NO_LANE).all() and (groups.halves[:count] < NO_LANE).all()
    assert len(groups.halves) % (2 * LANES) == 0
