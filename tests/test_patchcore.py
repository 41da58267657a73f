"""PatchCore's own mathematics: distances by brute force, the weight by hand, what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from builders import defective_picture, normal_pictures, rng_of

from spadework.detectors import patchcore
from spadework.detectors.patchcore import PatchCore
from spadework.errors import InputError
from spadework.kernels import pruned
from spadework.pyramid import descriptors

SMALL = {"image_size": 64, "calibration_images": 5}
PICTURES = normal_pictures(4)
DEFECTIVE, _ = defective_picture()


def patches_of(model, picture):
    return descriptors(next(iter(model._see_each([picture]))).pyramid.levels)


def squared_distances(rows, others):
    return ((rows[:, None].astype(np.float64) - others) ** 2).sum(axis=2)


@pytest.mark.parametrize("kernel", ["auto", "blocked", "reference"])
@pytest.mark.parametrize("share", [1, 0.25])
def test_distances_are_those_of_brute_force(kernel, share, monkeypatch):
    monkeypatch.setattr(pruned, "FEW", 16)  # so that these few patches are coded
    model = PatchCore(**SMALL, coreset=share, kernel=kernel).fit(PICTURES)
    bank = model.bank_.rows
    everything = np.concatenate([patches_of(model, picture) for picture in PICTURES])
    assert len(bank) == round(share * len(everything))
    assert {row.tobytes() for row in bank} <= {row.tobytes() for row in everything}
    expected = squared_distances(patches_of(model, DEFECTIVE), bank).min(axis=1)
    found = model._judge(next(iter(model._see_each([DEFECTIVE]))))
    np.testing.assert_allclose(found.distances.reshape(-1), expected, rtol=1e-9)
    assert found.image_score == pytest.approx(expected.max(), rel=1e-9)


def test_the_features_are_the_second_and_third_level_averaged_over_three_by_three():
    model = PatchCore(**SMALL).fit(PICTURES)
    view = next(iter(model._see_each([DEFECTIVE]))).view
    maps, _ = model.backbone_(view[None])
    found = patches_of(model, DEFECTIVE).reshape(8, 8, -1)
    assert found.shape[2] == maps[1].shape[1] + maps[2].shape[1]
    second = maps[1][0].transpose(1, 2, 0)
    np.testing.assert_allclose(found[3, 4, : second.shape[2]], second[2:5, 3:6].mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found[0, 7, : second.shape[2]], second[:2, 6:].mean(axis=(0, 1)), rtol=1e-5)


def test_the_weight_is_equation_7():
    bank = rng_of("weight").normal(size=(30, 4)).astype(np.float32)
    patch = rng_of("patch").normal(size=4).astype(np.float32)
    away = np.linalg.norm(bank.astype(np.float64) - patch, axis=1)
    match = int(away.argmin())
    near = np.argsort(np.linalg.norm(bank.astype(np.float64) - bank[match], axis=1))[:3]
    weight = 1 - np.exp(away[match]) / np.exp(away[near]).sum()
    score = PatchCore(reweighting=3)._score(patch[None], away[match : match + 1] ** 2, np.array([match]), bank)
    assert score == pytest.approx(weight * away[match] ** 2)


def test_the_weight_of_far_patches_does_not_overflow():
    bank = np.array([[0.0], [1.0]], np.float32)
    score = PatchCore(reweighting=9)._score(np.array([[1e4]], np.float32), np.array([9999.0**2]), np.array([1]), bank)
    assert score == pytest.approx(9999.0**2 * (1 - 1 / (1 + np.e)), rel=1e-6)  # of two, the other is 1 farther away


def test_a_picture_is_held_out_with_its_fold(monkeypatch):
    monkeypatch.setattr(patchcore, "FOLDS", 2)
    model = PatchCore(**SMALL, coreset=1, image_score="patch").fit(PICTURES)
    patches = [patches_of(model, picture) for picture in PICTURES]
    fold_of = np.random.default_rng(0).permutation(4) % 2
    for image, own in enumerate(patches):
        others = np.concatenate([part for part, fold in zip(patches, fold_of, strict=True) if fold != fold_of[image]])
        expected = squared_distances(own, others).min(axis=1)
        np.testing.assert_allclose(model.held_out_[0][image], expected, rtol=1e-9)
        assert model.normal_scores_[image] == pytest.approx(expected.max(), rel=1e-9)


@pytest.mark.parametrize("share", [0.1, 1])
def test_what_all_pictures_share_does_not_raise_the_threshold(share):
    """One bank without a picture's own patches would lack the shared ones that were taken from it: thresholds forty times too high."""
    rng = rng_of("shared")
    shared = rng.integers(0, 255, (32, 64, 3))
    pictures = [np.vstack([shared, rng.normal(120, 3, (32, 64, 3))]).astype(np.uint8) for _ in range(8)]
    model = PatchCore(**{**SMALL, "calibration_images": 8}, coreset=share).fit(pictures[:6])
    fresh = model.predict(pictures[6:]).scores
    assert model.normal_scores_.max() < 3 * fresh.max()


def test_the_patches_that_were_not_chosen_are_not_kept(tmp_path):
    model = PatchCore(**SMALL, coreset=0.1).fit(PICTURES, path=tmp_path / "m.spade")
    assert "patches" not in model.folder_.header["arrays"]
    assert not list((tmp_path / "m.spade").glob("patches*"))
    assert model.folder_.header["coreset"]["patches"] == 4 * 64
    assert model.folder_.rows("bank") == 26


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("coreset", 0, "coreset must lie between 0 and 1"),
        ("coreset", 1.5, "coreset must lie between 0 and 1"),
        ("image_score", "mean", "image_score must be one of"),
        ("reweighting", -1, "reweighting"),
        ("reweighting", 1, "reweighting must be 0 for none, or at least 2"),
        ("pooling", 2, "pooling must be odd"),
        ("levels", (9,), "levels must be among 1 to 3"),
    ],
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        PatchCore(**{**SMALL, setting: value}).fit(PICTURES)
