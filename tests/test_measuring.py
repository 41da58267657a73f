"""The measures of a rehearsal are those of `spadework.metrics`; two candidates are compared over the same draws."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spadework.metrics import PixelAccumulator, roc_auc
from spadework.rehearsal import measuring
from spadework.rehearsal.measuring import Gain, Measuring, compared_mask, compared_size, gain


def rehearsed(skill: float, *, seed: int = 0, draws_seed: int = 0, ties: bool = False, count: int = 12):
    """Maps of `count` normal pictures and two defects on each, found the better the higher the skill."""
    rng = np.random.default_rng(seed)
    measured = Measuring([index // 2 for index in range(2 * count)], count, seed=draws_seed)
    kept = []
    for _ in range(count):
        score_map = cv2.GaussianBlur(rng.random((32, 40), np.float32), (0, 0), 2)
        kept.append((score_map, np.zeros((32, 40), bool)))
    for index in range(2 * count):
        mask = np.zeros((32, 40), bool)
        mask[5:9, 4 + index : 9 + index] = True
        mask[20:23, 30:33] = index % 3 == 0  # a second region
        score_map = cv2.GaussianBlur(rng.random((32, 40), np.float32), (0, 0), 2) + np.float32(skill) * mask
        kept.append((score_map.astype(np.float32), mask))
    if ties:
        kept = [(np.round(score_map, 1), mask) for score_map, mask in kept]
    for score_map, mask in kept:
        if mask.any():
            measured.add_planted(float(score_map.max()), score_map, mask)
        else:
            measured.add_normal(float(score_map.max()), score_map)
    return measured.outcome(), kept


@pytest.mark.parametrize("ties", [False, True])
def test_the_three_measures_are_those_of_metrics(monkeypatch, ties):
    monkeypatch.setattr(measuring, "THIN", 1)
    outcome, kept = rehearsed(0.1, ties=ties)
    pixels = PixelAccumulator()
    for score_map, mask in kept:
        pixels.add(score_map, mask)
    found = pixels.result()
    scores, labels = [score_map.max() for score_map, _ in kept], [mask.any() for _, mask in kept]
    assert outcome.image_auroc == pytest.approx(roc_auc(scores, labels), abs=1e-12)
    assert outcome.pixel_auroc == pytest.approx(found.auroc, abs=1e-12)
    assert outcome.pro == pytest.approx(found.pro, abs=1e-9)
    assert 0.5 < outcome.mean < 1


def test_thinned_normal_pixels_change_little():
    thin, _ = rehearsed(0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "THIN", 1)
        whole, _ = rehearsed(0.1)
    assert thin.mean == pytest.approx(whole.mean, abs=0.01)
    assert thin.image_auroc == whole.image_auroc


def test_draws_scatter_about_the_measure_and_the_same_seed_draws_the_same():
    outcome, _ = rehearsed(0.1)
    again, _ = rehearsed(0.1)
    assert np.array_equal(outcome.draws, again.draws)
    assert outcome.draws.mean() == pytest.approx(outcome.mean, abs=0.02)
    assert 0.001 < outcome.draws.std() < 0.1


def test_a_candidate_gains_nothing_on_itself_and_clearly_where_it_is_better():
    one, _ = rehearsed(0.1)
    better, _ = rehearsed(0.3)
    assert gain(one, one) == Gain(0.0, 0.0)
    assert not gain(one, one).is_clear
    assert gain(better, one).is_clear
    assert not gain(one, better).is_clear
    assert gain(better, one).value == -gain(one, better).value


def test_pairs_are_told_apart_where_single_candidates_would_not_be():
    one, _ = rehearsed(0.1)
    little, _ = rehearsed(0.11)
    assert gain(little, one).error < 0.5 * np.hypot(one.draws.std(), little.draws.std())


def test_the_standard_error_is_about_that_of_fresh_pictures():
    fresh = [rehearsed(0.1, seed=seed)[0].mean for seed in range(60)]
    stated = np.mean([rehearsed(0.1, seed=seed)[0].draws.std() for seed in range(10)])
    assert stated == pytest.approx(np.std(fresh), rel=0.5)


def test_masks_keep_small_defects_when_they_are_made_smaller():
    assert compared_size((100, 200)) == (100, 200)
    assert compared_size((1000, 2000)) == (128, 256)
    mask = np.zeros((1000, 2000), bool)
    mask[500:503, 900:903] = True
    assert compared_mask(mask).shape == (128, 256)
    assert 1 <= compared_mask(mask).sum() <= 4
