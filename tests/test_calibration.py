"""Thresholds: by hand, in simulation, and on fresh rendered parts against a bound that is derived, not fitted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders import TINY, normal_pictures, tiny_model

from spadework.calibration import choose_images, conformal_threshold
from spadework.datasets.synthetic import CATEGORIES, render
from spadework.detectors import spade
from spadework.detectors.spade import Spade
from spadework.errors import InputError


def _rising(n):
    return np.random.default_rng(n).permutation(np.arange(1.0, n + 1))  # the k-th smallest is k


@pytest.mark.parametrize(
    ("n", "rate", "value", "promised"),
    [
        (99, 0.01, 99, 0.01),  # k = ceil(100 * 0.99) = 99: the highest
        (100, 0.01, 100, 0.01),  # k = ceil(101 * 0.99) = 100
        (199, 0.01, 198, 0.01),
        (9, 0.1, 9, 0.1),
        (19, 0.1, 18, 0.1),
        (20, 0.1, 19, 0.1),  # k = ceil(18.9)
        (3, 0.5, 2, 0.5),
        (98, 0.01, 98, 1 / 99),  # one too few: the promise is what can be promised
        (2, 0.01, 2, 1 / 3),
        (39, 0.001, 39, 1 / 40),
    ],
)
def test_thresholds_by_hand(n, rate, value, promised):
    found = conformal_threshold(_rising(n), rate)
    assert (found.value, found.asked, found.n) == (value, rate, n)
    assert found.promised == pytest.approx(promised, rel=1e-12)
    assert found.kept == (promised <= rate)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_images_promise_nothing(n):
    found = conformal_threshold(np.zeros(n), 0.1)
    assert (found.value, found.promised, found.kept) == (None, None, False)
    assert "no threshold" in str(found)


def test_what_can_be_promised_is_said():
    assert (
        str(conformal_threshold(_rising(99), 0.01))
        == "at most 0.01 false alarms per normal image, from 99 normal images"
    )
    text = str(conformal_threshold(_rising(20), 0.01))
    assert "cannot be promised from 20 normal images, only 0.0476" in text
    assert "99 are needed" in text
    assert conformal_threshold(_rising(99), 0.01).kept  # and that is right


def test_no_rounding_error_moves_the_rank():
    for n in range(2, 400):
        for hundredths in range(1, 100):
            k = -(-(n + 1) * (100 - hundredths) // 100)  # whole numbers only
            assert conformal_threshold(np.arange(1.0, n + 1), hundredths / 100).value == min(k, n)


def test_a_higher_rate_never_raises_the_threshold():
    scores = np.random.default_rng(0).exponential(size=57)
    values = [conformal_threshold(scores, rate).value for rate in np.linspace(0.005, 0.995, 100)]
    assert values == sorted(values, reverse=True)


def test_the_bound_holds_for_exchangeable_scores():
    """At rate a, a new score exceeds the k-th of n with probability (n + 1 - k) / (n + 1) <= a, exactly so without ties."""
    rng = np.random.default_rng(3)
    for n, rate in ((20, 0.1), (99, 0.01), (40, 0.05), (9, 0.25)):
        trials = 4000
        draws = rng.lognormal(size=(trials, n + 1))
        alarms = sum(row[-1] > conformal_threshold(row[:-1], rate).value for row in draws)
        exact = (n + 1 - math.ceil((n + 1) * (1 - rate) - 1e-9)) / (n + 1)
        assert exact <= rate
        assert abs(alarms - trials * exact) < 4.5 * math.sqrt(trials * exact * (1 - exact))


def test_ties_only_lower_the_rate():
    rng = np.random.default_rng(4)
    draws = rng.integers(0, 5, (4000, 21))
    alarms = sum(row[-1] > conformal_threshold(row[:-1], 0.1).value for row in draws)
    assert alarms / 4000 < 0.1


def test_which_images_are_left_out():
    assert choose_images(5, 10, 0).tolist() == [0, 1, 2, 3, 4]
    drawn = choose_images(1000, 50, 7)
    assert len(set(drawn.tolist())) == 50
    assert drawn.tolist() == sorted(drawn.tolist()) == choose_images(1000, 50, 7).tolist()
    assert drawn.tolist() != choose_images(1000, 50, 8).tolist()


# ---------------------------------------------------------------- models


def test_scores_are_those_of_models_without_the_image():
    pictures = normal_pictures(5)
    model = Spade(**TINY).fit(pictures)
    for index, score in enumerate(model.normal_scores_):
        others = Spade(**TINY).fit([*pictures[:index], *pictures[index + 1 :]])
        assert others.predict(pictures[index]).score == pytest.approx(score, rel=1e-6)


def test_moving_the_threshold_fits_nothing_and_keeps_the_scores(saved):
    model = Spade.load(saved)
    scores, bins = model.normal_scores_, {p.name: p.read_bytes() for p in saved.glob("*.bin")}
    low = model.set_max_false_alarms(0.5).threshold_
    assert low.value == np.sort(scores)[2]  # n = 5: k = ceil(6 * 0.5) = 3
    assert Spade.load(saved).threshold_ == low
    assert model.predict(normal_pictures(1)).threshold == low.value
    np.testing.assert_array_equal(model.normal_scores_, scores)
    assert {p.name: p.read_bytes() for p in saved.glob("*.bin")} == bins
    for rate in (0, 1, -0.1, "many", float("nan")):
        with pytest.raises(InputError, match="max_false_alarms"):
            model.set_max_false_alarms(rate)
    assert Spade.load(saved).threshold_ == low


def test_one_image_or_no_calibration_gives_scores_without_a_verdict():
    for model in (tiny_model(1), tiny_model(3, calibration_images=0)):
        found = model.predict(normal_pictures(1, start=9)).only
        assert (found.is_anomalous, found.threshold, found.regions) == (None, None, ())
        assert (found.verdict, found.score >= 0) == ("no threshold", True)


def test_a_verdict_is_a_score_above_the_threshold(model):
    for found in model.predict(normal_pictures(4, start=60)):
        assert found.is_anomalous == (found.score > model.threshold_.value)
        assert found.threshold == model.threshold_.value


# ---------------------------------------------------------------- the promise, on fresh parts


def alarms_distribution(n: int, rate: float, m: int) -> np.ndarray:
    """P(j of m fresh normals are above the threshold), j = 0..m, where scores are exchangeable and continuous.

    The share of all normals above the k-th smallest of n scores is Beta(n + 1 - k, k), so the count is beta-binomial.
    """
    k = math.ceil((n + 1) * (1 - rate) - 1e-9)
    a, b = n + 1 - k, k

    def log_beta(x, y):
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    return np.array([math.comb(m, j) * math.exp(log_beta(j + a, m - j + b) - log_beta(a, b)) for j in range(m + 1)])


def test_the_distribution_of_alarms_is_one():
    found = alarms_distribution(40, 0.1, 60)
    assert found.sum() == pytest.approx(1)
    assert found @ np.arange(61) == pytest.approx(60 * 4 / 41)  # k = 37: (n + 1 - k) / (n + 1)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"gallery_k": 40, "image_k": 40, "image_score": "nearest-images"}])
def test_fresh_normal_parts_keep_the_rate(changes):
    """Three kinds of parts, 40 fitted and 100 fresh each. Were the threshold exact, the sum of alarms would follow the threefold
    sum of the beta-binomial; it may exceed that one's 99.9 % quantile once in a thousand draws of all these pictures."""
    n, m, rate = 40, 100, 0.1
    alarms, alarms_at_the_median, total = 0, 0, np.ones(1)
    for category in CATEGORIES:
        normal = [render(category, index=index, size=96)[0] for index in range(n)]
        fresh = [render(category, index=index, split="test", size=96)[0] for index in range(m)]
        settings = {**TINY, "calibration_images": n, "max_false_alarms": rate, **changes}
        model = Spade(**settings).fit(normal)
        assert (model.threshold_.n, model.threshold_.kept) == (n, True)
        scores = model.predict(fresh).scores
        alarms += int((scores > model.threshold_.value).sum())
        alarms_at_the_median += int((scores > np.median(model.normal_scores_)).sum())
        total = np.convolve(total, alarms_distribution(n, rate, m))
    bound = int(np.searchsorted(np.cumsum(total), 0.999))
    assert alarms <= bound < alarms_at_the_median  # the bound tells a wrong threshold apart


def test_the_map_threshold_is_made_from_the_highest_places_of_the_maps():
    pictures = normal_pictures(5)
    model = Spade(**{**TINY, "image_score": "nearest-images", "calibration_images": 50}).fit(pictures)
    peaks = []
    for index in range(5):
        rest = Spade(**TINY).fit([p for i, p in enumerate(pictures) if i != index])
        peaks.append(rest.predict(pictures[index])[0].view_map.max())
    np.testing.assert_allclose(np.sort(model.calibration_[1]), np.sort(peaks), rtol=1e-5)
    assert model.map_threshold_.value == pytest.approx(max(peaks), rel=1e-5)


def test_images_for_the_map_threshold_are_drawn_not_taken_from_the_front(monkeypatch):
    monkeypatch.setattr(spade, "MAPS_FOR_PEAKS", 3)
    model = Spade(**{**TINY, "image_score": "nearest-images", "calibration_images": 50}).fit(normal_pictures(12))
    assert model.map_threshold_.n == 3
    assert model._left_out(model.gallery_, most=3).tolist() == choose_images(12, 3, model.seed).tolist() != [0, 1, 2]


def test_scores_by_nearest_images_leave_the_image_itself_out_beyond_the_maps(monkeypatch):
    monkeypatch.setattr(spade, "MAPS_FOR_PEAKS", 1)
    settings = {**TINY, "image_score": "nearest-images", "image_k": 2, "calibration_images": 50}
    pictures = normal_pictures(5)
    model = Spade(**settings).fit(pictures)
    for index, score in enumerate(model.normal_scores_):
        rest = Spade(**{**settings, "calibration_images": 0}).fit([p for i, p in enumerate(pictures) if i != index])
        assert score == pytest.approx(rest.predict(pictures[index]).score, rel=1e-6)


def test_appending_keeps_the_promise_of_scores_by_nearest_images():
    """A mean over all images, while there are fewer than image_k, rises when unlike ones are appended."""
    settings = {
        **TINY,
        "image_score": "nearest-images",
        "image_k": 50,
        "calibration_images": 100,
        "max_false_alarms": 0.1,
    }
    model = Spade(**settings).fit(normal_pictures(20))
    before = model.threshold_.value
    unlike = [255 - picture[::-1] // 2 for picture in normal_pictures(8, start=40)]
    model.append(unlike)
    assert model.threshold_.value > before
    np.testing.assert_array_equal(
        model.normal_scores_, Spade(**settings).fit([*normal_pictures(20), *unlike]).normal_scores_
    )
    alarms = sum(p.is_anomalous for p in model.predict(normal_pictures(40, start=100)))
    assert alarms <= 10


def test_rates_next_to_one_take_the_lowest_score():
    assert conformal_threshold(np.array([3.0, 1.0, 2.0]), 1 - 1e-12).value == 1.0


def test_a_rate_next_to_nothing_can_be_told():
    assert "more than a million are needed" in str(conformal_threshold(np.arange(5.0), 5e-324))
    assert "999999 are needed" in str(conformal_threshold(np.arange(5.0), 1e-6))
