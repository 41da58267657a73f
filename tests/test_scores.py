"""Maps and regions by hand: the blur against the formula, the map at the picture's size, connected places."""

from __future__ import annotations

import math
import re

import cv2
import numpy as np
import pytest

from spadework import Spade
from spadework.errors import InputError
from spadework.images import View
from spadework.scores import find_regions, smooth_map, to_picture

NAN = float("nan")


def gaussian(sigma: float) -> list[float]:
    """Weights at -r..r, cut at 4 sigma, of sum 1; written from the formula."""
    reach = int(4 * sigma + 0.5)
    weights = [math.exp(-((place / sigma) ** 2) / 2) for place in range(-reach, reach + 1)]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0, 4.0])
def test_an_impulse_becomes_the_gaussian(sigma):
    impulse = np.zeros((61, 71), np.float32)
    impulse[30, 35] = 1
    found = smooth_map(impulse, impulse.shape, sigma=sigma)
    weights = gaussian(sigma)
    reach = len(weights) // 2
    expected = np.zeros_like(impulse)
    expected[30 - reach : 31 + reach, 35 - reach : 36 + reach] = np.outer(weights, weights)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[30, 35 + reach] > 0
    assert found[30, 35 + reach + 1] == 0
    assert not np.allclose(found, smooth_map(impulse, impulse.shape, sigma=sigma * 1.1), atol=1e-4)


def test_the_border_is_reflected():
    edge = np.zeros((1, 40), np.float32)
    edge[0, 0] = 1
    weights = gaussian(2.0)
    middle = len(weights) // 2
    found = smooth_map(edge, edge.shape, sigma=2.0)[0]
    # reflection repeats the edge: what stands at 0 also stands at -1
    expected = [
        weights[middle + x] + (weights[middle + x + 1] if middle + x + 1 < len(weights) else 0) for x in range(middle)
    ]
    np.testing.assert_allclose(found[:middle], expected, atol=1e-6)
    flat = np.full((3, 2), 7.5, np.float32)  # smaller than the kernel
    np.testing.assert_allclose(smooth_map(flat, (3, 2), sigma=4.0), 7.5, rtol=1e-5)


def test_without_smoothing_the_map_is_bilinear():
    found = smooth_map(np.array([[0.0, 8.0]]), (1, 4), sigma=0)
    assert found.tolist() == [[0, 2, 6, 8]]
    assert found.dtype == np.float32


def test_a_second_gaussian_gives_the_mean_of_both_maps():
    distances = np.random.default_rng(0).random((12, 16))
    narrow, wide, both = (
        smooth_map(distances, (48, 64), **sigmas)
        for sigmas in ({"sigma": 2.0}, {"sigma": 9.0}, {"sigma": 2.0, "wide": 9.0})
    )
    np.testing.assert_allclose(both, (narrow + wide) / 2, rtol=1e-6)
    assert np.abs(both - narrow).max() > 0.01
    sharp = smooth_map(distances, (48, 64), sigma=0.0)
    np.testing.assert_allclose(smooth_map(distances, (48, 64), sigma=0.0, wide=9.0), (sharp + wide) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"wide_smoothing": 4.0}, "wide_smoothing must be larger than smoothing, 4, not 4. Leave it out for none"),
        ({"wide_smoothing": 0}, "wide_smoothing must be larger than smoothing, 4, not 0. Leave it out for none"),
        ({"wide_smoothing": 100.0, "image_size": 96}, "wide_smoothing must be at most 96, the side of what"),
        ({"wide_smoothing": 2000.0}, "wide_smoothing must be at most 1024"),
        ({"wide_smoothing": -1.0}, "wide_smoothing must be finite and at least 0"),
        ({"wide_smoothing": True}, "wide_smoothing must be a number, not True"),
        ({"smoothing": True}, "smoothing must be a number, not True"),
        ({"search_radius": True}, "search_radius must be a number, not True"),
    ],
)
def test_sigmas_that_make_no_sense_are_told_by_their_rule(changes, rule):
    with pytest.raises(InputError, match=re.escape(rule)):
        Spade(**changes)._check_settings()


def test_smoothing_keeps_constants_and_never_goes_below_zero():
    np.testing.assert_allclose(smooth_map(np.full((5, 7), 3.0), (40, 56), sigma=4.0), 3.0, rtol=1e-5)
    assert smooth_map(np.eye(9) * 1e-30, (72, 72), sigma=4.0).min() >= 0


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (64, 64), (7, 9)])
def test_a_map_comes_back_at_the_size_of_the_picture(shape):
    seen = np.full((64, 64), 2.0, np.float32)
    whole = to_picture(seen, View((64, 64)), (*shape, 3))
    assert (whole.shape, whole.dtype) == (shape, np.float32)
    np.testing.assert_allclose(whole, 2.0, rtol=1e-6)
    part = to_picture(np.full((16, 16), 2.0, np.float32), View((32,), (16, 16)), (*shape, 3))
    assert part.shape == shape
    assert np.isnan(part).any()  # cropped away: not inspected, not normal
    assert np.nanmin(part) == np.nanmax(part) == 2.0


def test_regions_by_hand():
    scores = np.array(
        [
            [0, 5, 0, 0, 0, 0],
            [5, 9, 0, 0, 0, 0],
            [0, 0, 6, 0, 0, 0],  # touches (1, 1) at a corner only: one region, 8-connected
            [0, 0, 0, 0, 0, 0],
            [7, 7, 0, 0, NAN, 20],
        ],
        np.float32,
    )
    found = find_regions(scores, 4.0)
    assert [region.score for region in found] == [20, 9, 7]
    assert [region.box for region in found] == [(4, 5, 5, 6), (0, 0, 3, 3), (4, 0, 5, 2)]
    assert [region.peak for region in found] == [(4, 5), (1, 1), (4, 0)]
    assert [region.area for region in found] == [1, 4, 2]
    assert [region.score for region in find_regions(scores, 4.0, min_area=2)] == [9, 7]
    assert [region.score for region in find_regions(scores, 7.0)] == [20, 9]  # above, not at


def test_a_peak_is_that_of_its_own_region_not_of_a_neighbour_in_its_box():
    scores = np.zeros((5, 5), np.float32)
    scores[0, :] = scores[:, 0] = 3  # an angle, whose box is the whole
    scores[2, 2] = 8  # another region within that box
    high, low = find_regions(scores, 1.0)
    assert (high.peak, high.box) == ((2, 2), (2, 2, 3, 3))
    assert (low.score, low.box, low.area) == (3, (0, 0, 5, 5), 9)


def test_no_region_without_a_threshold_or_above_it():
    scores = np.array([[1.0, NAN]], np.float32)
    assert find_regions(scores, None) == ()
    assert find_regions(scores, 1.0) == ()
    assert find_regions(np.full((3, 3), NAN, np.float32), -1.0) == ()


def test_equal_scores_are_ordered_by_place():
    scores = np.zeros((3, 5), np.float32)
    scores[0, 4] = scores[0, 0] = scores[2, 2] = 2
    assert [region.peak for region in find_regions(scores, 1)] == [(0, 0), (0, 4), (2, 2)]


def test_regions_against_opencv_on_noise():
    scores = cv2.GaussianBlur(np.random.default_rng(2).normal(size=(60, 80)).astype(np.float32), (0, 0), 1)
    found = find_regions(scores, 0.2)
    count, _ = cv2.connectedComponents((scores > 0.2).astype(np.uint8), connectivity=8)
    assert len(found) == count - 1
    assert sum(region.area for region in found) == (scores > 0.2).sum()
    assert found[0].score == scores.max()
