"""Measures against scikit-learn, against brute force, by hand, and under changes that must not matter."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from spadework import metrics, ranking
from spadework.errors import InputError
from spadework.metrics import PixelAccumulator, average_precision, best_f1, image_measures, pro, roc_auc

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "metrics.py"


# ---------------------------------------------------------------- references, and the comparison with them


def reference_pro(maps, masks, limit):
    """PRO by its definition: every distinct score a threshold, trapezoids between them, cut at the limit."""
    regions = []
    for index, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [(index, labels == label) for label in range(1, count)]
    normal = np.concatenate([m[~mask] for m, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in sorted({float(v) for m in maps for v in m.ravel()}, reverse=True):
        rate = np.mean(normal >= threshold)
        overlap = np.mean([np.mean(maps[index][region] >= threshold) for index, region in regions])
        points.append((float(rate), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        end = min(x1, limit)
        y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def reference_f1(scores, labels):
    precision, recall, thresholds = sklearn.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = f1[:-1].max()
    return best, thresholds[np.flatnonzero(f1[:-1] >= best - 1e-12)[-1]]


def assert_like_sklearn(measures, scores, labels, tolerance=1e-12):
    f1, threshold = reference_f1(scores, labels)
    assert measures.auroc == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=tolerance, rel=0)
    assert measures.ap == pytest.approx(sklearn.average_precision_score(labels, scores), abs=tolerance, rel=0)
    assert measures.f1 == pytest.approx(f1, abs=tolerance, rel=0)
    assert measures.f1_threshold == threshold


def assert_like_brute_force(value, maps, masks, limit, tolerance=1e-9):
    assert value == pytest.approx(reference_pro(maps, masks, limit), abs=tolerance, rel=0)


def accumulate(maps, masks):
    pixels = PixelAccumulator()
    for score_map, mask in zip(maps, masks, strict=True):
        pixels.add(score_map, mask)
    return pixels


def random_maps(seed, *, levels=None, dtype=np.float32, sizes=((9, 11), (7, 7), (12, 5))):
    """Maps whose defects score higher, in `levels` distinct values (many ties) or none."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for index, size in enumerate(sizes):
        mask = rng.random(size) < 0.2 if index else np.zeros(size, bool)
        score_map = rng.normal(size=size) + 0.8 * mask
        if levels:
            score_map = np.round(score_map * levels) / levels
        maps.append(score_map.astype(dtype))
        masks.append(mask)
    return maps, masks


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_like_sklearn(seed, levels, dtype):
    rng = np.random.default_rng(seed)
    labels = rng.random(200) < 0.3
    scores = rng.normal(size=200) + labels
    scores = (np.round(scores * levels) / levels if levels else scores).astype(dtype)
    assert_like_sklearn(image_measures(scores, labels), scores, labels)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=25))
@settings(max_examples=150, deadline=None)
def test_images_like_sklearn_whatever_the_ties(pairs):
    scores = np.array([score for score, _ in pairs], float)
    labels = np.array([label for _, label in pairs])
    measures = image_measures(scores, labels)
    if labels.all() or not labels.any():
        assert measures.auroc is None
    else:
        assert_like_sklearn(measures, scores, labels)


def test_images_by_hand():
    scores, labels = [0.9, 0.8, 0.7, 0.6, 0.5], [True, False, True, True, False]
    measures = image_measures(scores, labels)
    assert measures.auroc == pytest.approx(4 / 6)  # of 6 pairs, 0.9 wins 2, 0.7 and 0.6 one each
    assert measures.ap == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)
    assert measures.f1 == pytest.approx(2 * 3 / (3 + 4))  # threshold 0.6: 3 found, 4 called, 3 there
    assert measures.f1_threshold == 0.6
    assert measures.pro is None
    assert set(measures.reasons) == {"pro"}


def test_of_equal_f1_the_highest_threshold():
    # at 3: 1 found of 1 called of 2 -> 2/3; at 1: 2 found of 4 called of 2 -> 4/6
    assert best_f1([3, 2, 2, 1], [1, 0, 0, 1]) == (pytest.approx(2 / 3), 3.0)


@pytest.mark.parametrize(("scores", "expected"), [([1, 1, 1, 1], 0.5), ([0, 0, 1, 1], 1.0), ([1, 1, 0, 0], 0.0)])
def test_constant_best_and_worst(scores, expected):
    assert roc_auc(scores, [0, 0, 1, 1]) == expected


def test_constant_scores_give_the_prevalence():
    measures = image_measures(np.ones(4), [True, False, False, False])
    assert measures.ap == 0.25
    assert measures.f1 == pytest.approx(2 * 0.25 / 1.25)


def test_functions_agree_with_the_measures():
    scores, labels = [3.0, 1.0, 2.0, 0.0], [True, False, False, True]
    measures = image_measures(scores, labels)
    assert roc_auc(scores, labels) == measures.auroc
    assert average_precision(scores, labels) == measures.ap
    assert best_f1(scores, labels) == (measures.f1, measures.f1_threshold)


def test_negative_zero_ties_with_zero():
    assert roc_auc(np.array([0.0, -0.0], np.float32), [False, True]) == 0.5


def test_inputs_are_left_alone():
    scores, labels = np.array([3.0, 1.0, 2.0]), np.array([True, False, True])
    scores.flags.writeable = labels.flags.writeable = False
    image_measures(scores, labels)
    np.testing.assert_array_equal(scores, [3.0, 1.0, 2.0])


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pixels_like_the_references(seed, levels, limit, dtype):
    maps, masks = random_maps(seed, levels=levels, dtype=dtype)
    measures = accumulate(maps, masks).result(limit=limit)
    scores = np.concatenate([m.ravel() for m in maps])
    labels = np.concatenate([m.ravel() for m in masks])
    assert_like_sklearn(measures, scores, labels)
    assert_like_brute_force(measures.pro, maps, masks, limit)
    assert pro(maps, masks, limit=limit) == measures.pro


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=12, max_size=12),
    st.floats(0.01, 1.0),
)
@settings(max_examples=100, deadline=None)
def test_pro_like_brute_force_whatever_the_ties(pixels, limit):
    scores = np.array([score for score, _ in pixels], np.float32).reshape(3, 4)
    mask = np.array([label for _, label in pixels]).reshape(3, 4)
    value = pro([scores], [mask], limit=limit)
    if mask.all() or not mask.any():
        assert value is None
    else:
        assert_like_brute_force(value, [scores], [mask], limit)


def test_pro_by_hand():
    # regions: 5 (one pixel) and 3, 1 (two pixels); normal pixels: 4, 2, 1, 0
    score_map = np.array([[5, 4, 3, 1], [2, 1, 0, 0]], float)
    mask = np.array([[1, 0, 1, 1], [0, 0, 0, 0]], bool)
    # corners (rate, overlap): (0, 1/2) at 5; (1/5, 1/2) at 4; (1/5, 3/4) at 3; (2/5, 3/4) at 2; (3/5, 1) at 1; (1, 1)
    assert pro([score_map], [mask], limit=0.2) == pytest.approx(1 / 2)
    assert pro([score_map], [mask], limit=0.4) == pytest.approx((0.1 + 0.15) / 0.4)
    assert pro([score_map], [mask], limit=0.5) == pytest.approx((0.1 + 0.15 + 0.1 * (0.75 + 0.875) / 2) / 0.5)
    assert pro([score_map], [mask], limit=1.0) == pytest.approx(0.1 + 0.15 + 0.2 * 0.875 + 0.4)


@pytest.mark.parametrize("limit", [0.1, 0.3, 1.0])
def test_pro_of_the_best_the_worst_and_the_constant(limit):
    mask = np.zeros((6, 6), bool)
    mask[1:3, 1:3] = mask[4:, 4:] = True
    assert pro([mask.astype(float)], [mask], limit=limit) == 1.0
    # the worst still meets the line from (1, 0) to (1, 1), which has no area
    assert pro([1.0 - mask], [mask], limit=limit) == 0.0
    assert pro([np.ones((6, 6))], [mask], limit=limit) == pytest.approx(limit / 2)  # the diagonal


def test_regions_that_touch_at_a_corner_are_one():
    score_map = np.zeros((4, 4))
    score_map[0, 0] = 1.0
    corner, apart = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    corner[0, 0] = corner[1, 1] = corner[1, 2] = True
    apart[0, 0] = apart[1, 2] = apart[1, 3] = True
    # the missed pixels tie with all normal ones: each adds limit / 2 of the area
    assert pro([score_map], [corner], limit=0.3) == pytest.approx((1 + 2 * 0.15) / 3)
    assert pro([score_map], [apart], limit=0.3) == pytest.approx((1 + 0.15) / 2)


def test_regions_do_not_cross_images():
    mask = np.array([[True, False]])
    hit, miss = np.array([[1.0, 0.5]]), np.array([[0.0, 0.5]])
    assert pro([hit, miss], [mask, mask], limit=1.0) == pytest.approx(0.5)


def test_normal_images_count_in_the_rate():
    mask = np.array([[True, False, False, False]])
    score_map = np.array([[1.0, 2.0, 0.0, 0.0]])
    clean = np.zeros((1, 4)), np.zeros((1, 4), bool)
    assert pro([score_map], [mask], limit=0.3) == 0.0  # covered from a rate of 1/3 on
    assert pro([score_map, clean[0]], [mask, clean[1]], limit=0.3) == pytest.approx((0.3 - 1 / 7) / 0.3)


@pytest.mark.parametrize("change", ["scale", "shift", "order", "turn", "split"])
def test_what_must_not_matter(change):
    maps, masks = random_maps(7, levels=4)
    before = accumulate(maps, masks).result()
    if change == "scale":
        maps = [m * np.float32(4) for m in maps]
    elif change == "shift":
        maps = [m + np.float32(16) for m in maps]
    elif change == "order":
        maps, masks = maps[::-1], masks[::-1]
    elif change == "turn":
        maps, masks = [m.T for m in maps], [m.T for m in masks]
    else:  # the normal image in two halves
        maps = [maps[0][:4], maps[0][4:], *maps[1:]]
        masks = [masks[0][:4], masks[0][4:], *masks[1:]]
    after = accumulate(maps, masks).result()
    for name in ("auroc", "ap", "f1", "pro"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-12, rel=0), name


@pytest.mark.parametrize(("block", "store"), [(1, 1), (3, 7), (64, 50)])
def test_blocks_do_not_matter(monkeypatch, block, store):
    maps, masks = random_maps(3, levels=3)
    whole = accumulate(maps, masks).result()
    monkeypatch.setattr(ranking, "BLOCK", block)
    monkeypatch.setattr(metrics, "STORE", store)
    parts = accumulate(maps, masks).result()
    for name in ("auroc", "ap", "f1", "f1_threshold", "pro"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), abs=1e-12, rel=0), name
    np.testing.assert_allclose(parts.pro_curve.y, whole.pro_curve.y, atol=1e-12)


@pytest.mark.parametrize("store", [5, 1 << 16])
def test_results_in_between_change_nothing(monkeypatch, store):
    monkeypatch.setattr(metrics, "STORE", store)
    maps, masks = random_maps(5)
    pixels = PixelAccumulator()
    for score_map, mask in zip(maps, masks, strict=True):
        pixels.add(score_map, mask)
        pixels.result(limit=0.1)
    assert pixels.result() == pixels.result()
    assert_like_brute_force(pixels.result().pro, maps, masks, 0.3)


@pytest.mark.parametrize("store", [10, 1 << 16])
def test_maps_of_both_precisions(monkeypatch, store):
    monkeypatch.setattr(metrics, "STORE", store)
    maps, masks = random_maps(6, dtype=np.float64)
    for mixed in (
        [maps[0].astype(np.float32), *maps[1:]],
        [*maps[:2], maps[2].astype(np.float32)],
        [maps[0].astype(np.float32), maps[1], maps[2].astype(np.float32)],
    ):
        measures = accumulate(mixed, masks).result()
        assert_like_brute_force(measures.pro, [m.astype(np.float64) for m in mixed], masks, 0.3)


def test_float64_scores_are_not_rounded():
    near = np.array([[1.0, 1.0 + 1e-12]])  # equal as float32
    assert accumulate([near], [np.array([[False, True]])]).result().auroc == 1.0


def test_maps_are_left_alone():
    maps, masks = random_maps(2)
    for array in (*maps, *masks):
        array.flags.writeable = False
    copies = [m.copy() for m in maps]
    accumulate(maps, masks).result()
    for score_map, copy in zip(maps, copies, strict=True):
        np.testing.assert_array_equal(score_map, copy)


# ---------------------------------------------------------------- curves


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 2])
def test_small_curves_are_complete(limit, levels):
    maps, masks = random_maps(8, levels=levels)
    measures = accumulate(maps, masks).result(limit=limit)
    curve = measures.pro_curve
    assert np.trapezoid(curve.y, curve.x) / limit == pytest.approx(measures.pro, abs=1e-12)
    assert (curve.x[0], curve.y[0]) == (0.0, 0.0)
    assert curve.x[-1] == pytest.approx(limit)
    assert np.trapezoid(measures.roc.y, measures.roc.x) == pytest.approx(measures.auroc, abs=1e-12)


def test_large_curves_are_thinned_and_keep_their_shape():
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 300), bool)
    mask[50:90, 50:120] = True
    score_map = (rng.normal(size=mask.shape) + mask).astype(np.float32)
    measures = accumulate([score_map], [mask]).result()
    for curve, end in ((measures.roc, 1.0), (measures.pro_curve, 0.3)):
        assert curve.x.dtype == curve.y.dtype == np.float64
        assert 100 < curve.x.size <= 1000
        assert curve.x.size == curve.y.size
        assert (curve.x[0], curve.y[0], curve.x[-1]) == (0.0, 0.0, pytest.approx(end))
        assert (np.diff(curve.x) >= 0).all()
        assert (np.diff(curve.y) >= 0).all()
    x, y, _ = sklearn.roc_curve(mask.ravel(), score_map.ravel())
    np.testing.assert_allclose(np.interp(measures.roc.x[1:-1], x, y), measures.roc.y[1:-1], atol=2e-3)
    assert np.trapezoid(measures.pro_curve.y, measures.pro_curve.x) / 0.3 == pytest.approx(measures.pro, abs=1e-4)


# ---------------------------------------------------------------- the undefined, and what is refused


def assert_undefined(measures, reason):
    assert measures.auroc is measures.ap is measures.f1 is measures.f1_threshold is measures.pro is None
    assert measures.roc is measures.pro_curve is None
    assert set(measures.reasons) == {"auroc", "ap", "f1", "f1_threshold", "pro"}
    assert all(reason in text for text in measures.reasons.values())


def test_undefined_images():
    assert_undefined(image_measures([], []), metrics.NO_SCORES)
    assert_undefined(image_measures([1.0], [False]), metrics.NO_DEFECTS)
    assert_undefined(image_measures([1.0], [True]), metrics.NO_NORMALS)
    assert roc_auc([1.0], [True]) is average_precision([1.0], [True]) is best_f1([1.0], [True]) is None


def test_undefined_pixels():
    score_map = np.zeros((2, 2))
    assert_undefined(PixelAccumulator().result(), metrics.NO_SCORES)
    assert_undefined(accumulate([score_map], [np.zeros((2, 2), bool)]).result(), metrics.NO_DEFECTS)
    assert_undefined(accumulate([score_map], [np.ones((2, 2), bool)]).result(), metrics.NO_NORMALS)
    some = np.array([[True, False], [False, False]])
    assert_undefined(
        accumulate([score_map, score_map], [some, None]).result(), "1 of the defective images have no mask"
    )
    assert pro([], []) is None


@pytest.mark.parametrize(
    ("score_map", "mask", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 2), bool), "float32 or float64"),
        (np.zeros((2, 2), np.float16), np.zeros((2, 2), bool), "float32 or float64"),
        ([[0.0]], np.zeros((1, 1), bool), "float32 or float64 array, not list"),
        (np.zeros(4), np.zeros(4, bool), "shape"),
        (np.zeros((0, 4)), np.zeros((0, 4), bool), "shape"),
        (np.zeros((2, 2, 1)), np.zeros((2, 2, 1), bool), "shape"),
        (np.array([[0.0, np.nan]]), np.zeros((1, 2), bool), "NaN"),
        (np.array([[0.0, np.inf]]), np.zeros((1, 2), bool), "finite"),
        (np.zeros((2, 2)), np.zeros((2, 3), bool), "equal"),
        (np.zeros((2, 2)), np.zeros((2, 2), np.uint8), "bool"),
        (np.zeros((2, 2)), [[True, False], [False, False]], "bool array, not list"),
    ],
)
def test_refused_maps_leave_no_trace(score_map, mask, message):
    pixels = accumulate([np.array([[0.0, 1.0]])], [np.array([[False, True]])])
    before = pixels.result()
    with pytest.raises(InputError, match=message):
        pixels.add(score_map, mask)
    assert pixels.result().auroc == before.auroc == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, np.nan], [0, 1], "NaN"),
        ([1.0, np.inf], [0, 1], "finite"),
        ([1.0, 2.0], [0], "equally long"),
        ([[1.0, 2.0]], [[0, 1]], "1-D"),
        ([1.0, 2.0], [0, 2], "True or False"),
        (["a", "b"], [0, 1], "numbers"),
    ],
)
def test_refused_scores(scores, labels, message):
    with pytest.raises(InputError, match=message):
        image_measures(scores, labels)


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, np.nan, True, "0.3", None])
def test_refused_limits(limit):
    with pytest.raises(InputError, match="limit"):
        PixelAccumulator().result(limit=limit)


def test_pro_wants_as_many_masks_as_maps():
    score_map, mask = np.zeros((2, 2)), np.zeros((2, 2), bool)
    with pytest.raises(InputError, match="equally many"):
        pro([score_map, score_map], [mask])
    with pytest.raises(InputError, match="equally many"):
        pro([score_map], [mask, mask])


# ---------------------------------------------------------------- the comparisons find wrong answers


def test_the_comparisons_find_wrong_answers():
    """Each plausible mistake, planted: ties won, ties lost, an area not divided by the limit, a lost score."""
    rng = np.random.default_rng(1)
    labels = rng.random(60) < 0.4
    scores = np.round(rng.normal(size=60) + labels)
    right = image_measures(scores, labels)
    assert_like_sklearn(right, scores, labels)
    ties_won = image_measures(scores + 1e-6 * labels, labels)
    ties_lost = image_measures(scores - 1e-6 * labels, labels)
    for wrong in (ties_won, ties_lost, image_measures(scores[1:], labels[1:]), image_measures(-scores, labels)):
        with pytest.raises(AssertionError):
            assert_like_sklearn(wrong, scores, labels)
    maps, masks = random_maps(4, levels=2)
    value = pro(maps, masks)
    assert_like_brute_force(value, maps, masks, 0.3)
    for wrong in (value * 0.3, pro(maps, masks, limit=0.31), pro(maps[1:], masks[1:]), value + 1e-8):
        with pytest.raises(AssertionError):
            assert_like_brute_force(wrong, maps, masks, 0.3)


# ---------------------------------------------------------------- the benchmark runs


def test_the_benchmark_runs_and_knows_its_answers(tmp_path):
    command = [sys.executable, str(BENCHMARK), "--tiny", "--json", str(tmp_path / "a.json")]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["case"] for row in rows] == ["few", "half", "ties"]
    assert all(row["same_answer"] for row in rows)
    assert all(row["peak_mb"] > 0 and row["seconds"] > 0 for row in rows)
