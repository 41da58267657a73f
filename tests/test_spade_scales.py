"""SPADE at several scales: the fusion by hand, against one SPADE a scale, and two galleries in one model."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from builders import TINY, answers, defective_picture, normal_picture, normal_pictures

from spadework import Spade, load
from spadework.detectors.spade_scales import SpadeScales, fuse, weigh
from spadework.errors import InputError, ModelError
from spadework.scores import smooth_map

SETTINGS = {"image_size": 64, "gallery_k": 5, "calibration_images": 6, "smoothing": 4.0}
NORMAL = normal_pictures(6)
DEFECTIVE, MASK = defective_picture()
ALL = (slice(0, 4), slice(0, 4))


@pytest.fixture(scope="module")
def model():
    return SpadeScales(**SETTINGS).fit(NORMAL)


def single(side, **changes):
    """What one scale is by itself."""
    return Spade(**{**TINY, "image_size": side, "calibration_images": 6, "smoothing": side / 16, **changes}).fit(NORMAL)


# ---- by hand ---------------------------------------------------------------------------------------------------------------


def test_the_fused_map_is_the_mean_of_the_weighed_maps():
    fine, coarse = np.full((4, 4), 6.0), np.full((2, 2), 8.0)
    found = fuse([fine, coarse], [ALL, (slice(0, 2), slice(0, 2))], np.array([2.0, 4.0]))
    np.testing.assert_array_equal(found, np.full((4, 4), 2.5))  # (6 / 2 + 8 / 4) / 2
    np.testing.assert_array_equal(fine, np.full((4, 4), 6.0))


def test_a_coarser_map_is_brought_to_the_finest_grid_bilinearly():
    coarse = np.array([[0.0, 4.0], [0.0, 4.0]])
    found = fuse([np.zeros((4, 4)), coarse], [ALL, (slice(0, 2), slice(0, 2))], np.ones(2))
    np.testing.assert_allclose(found, np.tile([0.0, 0.5, 1.5, 2.0], (4, 1)))  # centres at -1/4, 1/4, 3/4, 5/4


def test_only_what_shows_the_picture_is_fused():
    coarse = np.array([[100.0, 8.0, 8.0, 100.0]] * 2)
    places = [(slice(0, 4), slice(1, 3)), (slice(0, 2), slice(1, 3))]
    found = fuse([np.full((4, 4), 6.0), coarse], places, np.array([2.0, 4.0]))
    np.testing.assert_array_equal(found[:, 1:3], np.full((4, 2), 2.5))
    np.testing.assert_array_equal(found[:, [0, 3]], np.full((4, 2), 3.0))


def test_a_weight_is_the_median_of_the_peaks():
    np.testing.assert_array_equal(weigh(np.array([[1.0, 10.0], [2.0, 30.0], [9.0, 20.0]])), [2, 20])
    np.testing.assert_array_equal(weigh(np.array([[0.0, 10.0], [0.0, 30.0]])), [1, 20])  # nothing is divided by zero
    np.testing.assert_array_equal(weigh(np.empty((0, 2))), [1, 1])


# ---- against one SPADE a scale -----------------------------------------------------------------------------------------------


def test_weights_and_maps_are_those_of_one_spade_a_scale(model):
    singles = [single(64), single(32)]
    np.testing.assert_allclose(model.scale_weights_, [np.median(each.normal_scores_) for each in singles], rtol=1e-6)
    for picture in (normal_picture(50), DEFECTIVE):
        maps = [each.predict(picture).only.correspondence.distances for each in singles]
        grown = cv2.resize(maps[1], maps[0].shape[::-1], interpolation=cv2.INTER_LINEAR)
        fused = (maps[0] / model.scale_weights_[0] + grown / model.scale_weights_[1]) / 2
        found = model.predict(picture).only
        np.testing.assert_allclose(found.view_map, smooth_map(fused, (64, 64), sigma=4.0), rtol=1e-4, atol=1e-6)
        assert found.score == found.view_map.max()


def test_normal_scores_are_the_peaks_of_fused_maps_of_images_left_out(model):
    without = SpadeScales(**SETTINGS).fit(NORMAL[1:])
    without.scale_weights_ = model.scale_weights_
    assert model.normal_scores_[0] == pytest.approx(without.predict(NORMAL[0]).score, rel=1e-5)
    assert model.threshold_.value == model.map_threshold_.value == model.normal_scores_.max()
    assert 0.5 < np.median(model.normal_scores_) < 1.5  # 1 is usual


def test_one_scale_is_spade_but_for_its_weight():
    one, spade = SpadeScales(**SETTINGS, scales=[1]).fit(NORMAL), single(64)
    for picture in (normal_picture(50), DEFECTIVE):
        found, known = one.predict(picture).only, spade.predict(picture).only
        np.testing.assert_allclose(found.score_map * one.scale_weights_[0], known.score_map, rtol=1e-5)
        assert found.nearest_images == known.nearest_images
    np.testing.assert_allclose(one.normal_scores_ * one.scale_weights_[0], spade.normal_scores_, rtol=1e-5)


def test_explanations_are_those_of_the_largest_scale(model):
    found, spade = model.explain_regions(model.predict(DEFECTIVE))[0], single(64)
    again = spade.explain(spade.predict(DEFECTIVE), found.y, found.x)
    assert MASK[found.y, found.x]
    assert found.to_json() == again.to_json()
    np.testing.assert_array_equal(found.normal_patch, again.normal_patch)


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (40, 110), (300, 17)])
def test_pictures_that_do_not_fill_the_canvas_have_whole_maps(model, size):
    found = model.predict(normal_picture(70, size)).only
    assert found.score_map.shape == size
    assert np.isfinite(found.score_map).all()


# ---- settings ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [[], "1", 1, [0.5], [1, 1], [1, 0.5, 0.6], [1, 0], [1, -0.5], [1, float("nan")]])
def test_scales_that_do_not_fall_from_1_are_refused(scales):
    with pytest.raises(InputError, match="scales must be"):
        SpadeScales(**SETTINGS, scales=scales).fit(NORMAL)


def test_settings_that_spade_refuses_are_refused_too():
    with pytest.raises(InputError, match="gallery_k must be at least 1, not 0"):
        SpadeScales(**{**SETTINGS, "gallery_k": 0}).fit(NORMAL)


def test_without_calibration_scales_are_weighed_all_the_same(model):
    found = SpadeScales(**{**SETTINGS, "calibration_images": 0}).fit(NORMAL)
    assert found.threshold_.value is None
    np.testing.assert_array_equal(found.scale_weights_, model.scale_weights_)
    assert answers(found) == answers(model)


def test_one_normal_picture_has_nothing_to_weigh_with():
    found = SpadeScales(**SETTINGS).fit(NORMAL[:1])
    np.testing.assert_array_equal(found.scale_weights_, [1, 1])
    assert found.threshold_.value is None
    assert found.predict(DEFECTIVE).only.is_anomalous is None


# ---- two galleries in one model ------------------------------------------------------------------------------------------------


def test_every_array_of_every_scale_is_the_model_s(model, tmp_path):
    path = model.save(tmp_path / "m.spade")
    again = load(path)
    arrays = set(again.folder_.header["arrays"])
    assert {"scale-1.pyramids", "scale-2.pyramids", "scale_weights", "normal_scores"} <= arrays
    assert sorted(file.name for file in path.glob("*.bin")) == sorted(
        entry["file"] for entry in again.folder_.header["arrays"].values()
    )
    assert again.verify() is None


@pytest.mark.parametrize("array", ["scale-1.pyramids", "scale-2.pyramids", "scale-2.thumbnails", "scale-2.codes"])
def test_damage_of_any_scale_is_found(model, tmp_path, array):
    path = model.save(tmp_path / "m.spade")
    file = next(path.glob(f"{array}-*.bin"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"scale-\d|damaged|checksum"):
        load(path).verify()


def test_a_model_on_disk_stays_whole_when_it_is_recalibrated(model, tmp_path):
    path = model.save(tmp_path / "m.spade")
    loaded = load(path)
    loaded.set_max_false_alarms(0.5)
    loaded.recalibrate()
    assert loaded.threshold_.value < model.threshold_.value
    for each in (loaded, load(path)):
        assert answers(each) == answers(model)
        assert each.verify() is None


def test_what_is_open_goes_on_when_another_model_takes_its_place(model, tmp_path):
    path = model.save(tmp_path / "m.spade")
    loaded = load(path)
    SpadeScales(**SETTINGS).fit(normal_pictures(3, start=90), path=path)
    assert answers(loaded) == answers(model)
    assert load(path).n_normal_ == 3
