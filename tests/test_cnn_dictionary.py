"""CNN dictionary: entries and distances by brute force, which patches there are, means over overlapping patches."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from builders import defective_picture, normal_pictures, rng_of
from sklearn.decomposition import PCA

from spadework.backbones import Backbone
from spadework.detectors.cnn_dictionary import (
    CnnDictionary,
    normalised,
    overlapping_mean,
    patch_corners,
    pooled_level,
    principal_axes,
)
from spadework.errors import InputError
from spadework.kmeans import kmeans

SMALL = {
    "image_size": 32,
    "calibration_images": 5,
    "patch": 16,
    "stride": 8,
    "network_size": 16,
    "training_patches": 50,
}
PICTURES = normal_pictures(6, size=(32, 32))
DEFECTIVE, MASK = defective_picture(size=(32, 32))


def test_patches_cover_every_pixel_and_end_at_the_border():
    corners = patch_corners((35, 24), 16, 8)
    assert corners.tolist() == [[y, x] for y in (0, 8, 16, 19) for x in (0, 8)]
    covered = np.zeros((35, 24), bool)
    for y, x in corners:
        covered[y : y + 16, x : x + 16] = True
    assert covered.all()
    assert len(patch_corners((256, 256), 16, 4)) == 61 * 61


def test_a_pixel_is_the_mean_of_the_patches_that_hold_it():
    scores = np.array([[1.0, 2.0], [3.0, 6.0]])
    found = overlapping_mean(scores, patch_corners((6, 6), 4, 2), 4, (6, 6))
    assert found[0, 0] == 1
    assert found[0, 2] == 1.5  # two patches
    assert found[2, 2] == found[3, 3] == 3  # all four
    assert found[5, 5] == 6


def test_axes_keep_the_share_of_the_variance_that_scikit_learn_keeps():
    rows = rng_of("axes").normal(size=(80, 6)) * [9, 5, 3, 1, 0.5, 0.1]
    mean, axes = principal_axes(rows, 0.95)
    theirs = PCA(0.95).fit(rows)
    assert axes.shape == theirs.components_.shape == (3, 6)
    np.testing.assert_allclose(mean, theirs.mean_)
    np.testing.assert_allclose(abs(axes @ theirs.components_.T), np.eye(3), atol=1e-9)


def test_features_are_divided_by_their_sum():
    np.testing.assert_allclose(normalised(np.array([[1.0, -3.0], [0.0, 0.0]])), [[0.25, -0.75], [0, 0]])


def test_entries_and_distances_are_those_of_brute_force():
    model = CnnDictionary(**SMALL, nearest=2, entries=4).fit(PICTURES)
    corners = patch_corners((32, 32), 16, 8)

    def vectors(picture):
        patches = [cv2.resize(picture[y : y + 16, x : x + 16], (16, 16)) for y, x in corners]
        found = np.array([pooled_level(model.backbone_(patch[None])[0][-1]) for patch in patches], np.float64)
        return found / abs(found).sum(axis=1, keepdims=True)

    everything = np.concatenate([vectors(picture) for picture in PICTURES])  # more than were learnt from
    placed = (everything - model.mean_) @ model.axes_.T
    to_entries = np.linalg.norm(placed[:, None] - model.entries_, axis=2)
    assert to_entries.min(axis=0).max() < 1e-9  # every entry is a real patch
    assert len(model.entries_) == 4

    own = (vectors(DEFECTIVE) - model.mean_) @ model.axes_.T
    away = np.sort(np.linalg.norm(own[:, None] - model.entries_, axis=2), axis=1)[:, :2].mean(axis=1)
    expected = overlapping_mean(away.reshape(3, 3), corners, 16, (32, 32))
    found = model._judge(next(iter(model._see_each([DEFECTIVE])))).distances
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_patches_to_learn_from_are_drawn_from_all_pictures_each_once():
    model = CnnDictionary(**{**SMALL, "training_patches": 1000}).fit(PICTURES)
    every = np.concatenate([model._features(picture).reshape(9, -1) for picture in PICTURES])
    np.testing.assert_array_equal(model._drawn_features(PICTURES), every)
    model.training_patches = 30
    few = {row.tobytes() for row in model._drawn_features(PICTURES)}
    assert len(few) == 30
    assert few <= {row.tobytes() for row in every}


def test_entries_are_the_patches_nearest_to_the_centres(monkeypatch):
    rows = {}
    monkeypatch.setattr(
        "spadework.detectors.cnn_dictionary.kmeans",
        lambda placed, count, seed: rows.update(placed=placed) or kmeans(placed, count, seed=seed),
    )
    model = CnnDictionary(**SMALL, entries=3).fit(PICTURES)
    placed, centres = rows["placed"], kmeans(rows["placed"], 3).centres
    nearest = [np.linalg.norm(placed - centre, axis=1).argmin() for centre in centres]
    np.testing.assert_array_equal(model.entries_, placed[np.unique(nearest)])


def test_the_shortcut_runs_the_network_once_and_takes_the_places_of_its_deepest_level(monkeypatch):
    model = CnnDictionary(image_size=64, calibration_images=5, features="convolutional", smoothing=0.0)
    model.fit(normal_pictures(6))
    picture, _ = defective_picture()
    real = model.backbone_
    level = real(picture[None])[0][-1][0].transpose(1, 2, 0).reshape(16, -1).astype(np.float64)
    level /= abs(level).sum(axis=1, keepdims=True)
    placed = (level - model.mean_) @ model.axes_.T
    away = np.linalg.norm(placed[:, None] - model.entries_, axis=2).min(axis=1).reshape(4, 4)
    calls = []
    call = Backbone.__call__
    monkeypatch.setattr(Backbone, "__call__", lambda self, images: calls.append(len(images)) or call(self, images))
    found = model.predict(picture).only
    assert calls == [1]
    np.testing.assert_allclose(found.score_map, cv2.resize(away, (64, 64)), rtol=1e-4)


def test_the_paper_s_settings():
    paper = CnnDictionary.paper()
    kept = (paper.patch, paper.stride, paper.network_size, paper.entries, paper.nearest, paper.variance, paper.features)
    assert kept == (16, 4, 224, 10, 1, 0.95, "patches")
    assert paper.backbone == "torchvision:resnet18"
    assert (paper.scale, CnnDictionary.quick().scale) == ("full", "quick")


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("features", "dense", "features must be one of"),
        ("patch", 33, "patch must fit in image_size 32"),
        ("stride", 17, "stride must be at most the patch's side, 16"),
        ("nearest", 11, "nearest must be at most entries, 10"),
        ("variance", 1.0, "variance must lie between 0 and 1"),
        ("entries", 0, "entries must be at least 1"),
    ],
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        CnnDictionary(**{**SMALL, setting: value}).fit(PICTURES)
