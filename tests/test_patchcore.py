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


@pytest.mark.parametrize("own", [0, 2, 7])
def test_a_picture_is_left_out_with_its_own_patches(own, monkeypatch):
    monkeypatch.setattr(
        patchcore, "OWN", own
    )  # with 0, all whose own patch is the nearest are compared with all others
    model = PatchCore(**SMALL, coreset=1, image_score="patch").fit(PICTURES)
    patches = [patches_of(model, picture) for picture in PICTURES]
    for image, own in enumerate(patches):
        others = np.concatenate([part for other, part in enumerate(patches) if other != image])
        expected = squared_distances(own, others).min(axis=1)
        np.testing.assert_allclose(model.left_out_[0][image], expected, rtol=1e-9)
        assert model.normal_scores_[image] == pytest.approx(expected.max(), rel=1e-9)


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
        ("pooling", 2, "pooling must be odd"),
        ("levels", (9,), "levels must be among 1 to 3"),
    ],
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        PatchCore(**{**SMALL, setting: value}).fit(PICTURES)
