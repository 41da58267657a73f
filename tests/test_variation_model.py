"""Variation model: centre, spread and map by hand; what cannot be aligned is refused; places that nobody saw."""

from __future__ import annotations

import numpy as np
import pytest
from builders import defective_picture, normal_pictures, rng_of
from test_alignment import moved, part

from spadework.alignment import STILL, Motion
from spadework.detectors import load_detector
from spadework.detectors.variation_model import VariationModel, explained_shares, gray, summarise
from spadework.errors import InputError

SMALL = {"image_size": 64, "calibration_images": 5, "smoothing": 0.0}
PICTURES = normal_pictures(6)
DEFECTIVE, MASK = defective_picture()


def in_colour(picture):
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def parts(count, *, turn=180.0):
    """The same plate at different angles and places, with the noise of a sensor."""
    rng = rng_of("parts", count, turn)
    lie = [(rng.uniform(-turn, turn), *rng.uniform(-6, 6, 2)) for _ in range(count)]
    return [in_colour(moved(part(), *where)[0] + rng.normal(0, 2, (120, 120))) for where in lie]


@pytest.mark.parametrize("mode", ["mean", "median"])
def test_the_map_is_the_difference_in_units_of_the_spread(mode):
    model = VariationModel(**{**SMALL, "calibration_images": 0}, align="none", mode=mode, floor=1.5)
    model.fit(PICTURES)
    stack = np.stack([gray(picture) for picture in PICTURES]).astype(float)
    centre = np.mean(stack, axis=0) if mode == "mean" else np.median(stack, axis=0)
    off = abs(stack - centre)
    spread = np.std(stack, axis=0) if mode == "mean" else 1.4826 * np.median(off, axis=0)
    expected = abs(gray(DEFECTIVE) - centre) / np.maximum(spread, 1.5)
    found = model.predict(DEFECTIVE).only
    np.testing.assert_allclose(found.score_map, expected, rtol=1e-4, atol=1e-4)
    assert found.score == pytest.approx(expected.max(), rel=1e-4)
    assert (spread < 1.5).any()  # the floor matters
    assert (model.threshold_.value, found.is_anomalous) == (None, None)


def test_a_turned_part_is_compared_with_itself():
    model = VariationModel(image_size=120, smoothing=2.0).fit(parts(12))
    (good,) = parts(1)
    bad = in_colour(good[..., 0].astype(float))
    bad[55:63, 60:68] = 255 - bad[55:63, 60:68]
    fine, found = model.predict([good, bad])
    assert found.score > 3 * fine.score
    assert not fine.is_anomalous
    assert found.is_anomalous
    peak = np.unravel_index(np.argmax(found.score_map), (120, 120))
    assert 53 <= peak[0] <= 64
    assert 58 <= peak[1] <= 69
    unaligned = VariationModel(image_size=120, smoothing=2.0, align="none").fit(parts(12))
    assert not unaligned.predict(bad).is_anomalous


def test_what_cannot_be_aligned_is_refused_with_the_way_out():
    noise = [rng_of("noise", i).integers(0, 256, (64, 64, 3)).astype(np.uint8) for i in range(6)]
    with pytest.raises(InputError, match=r"cannot be aligned: .* explains \d+% .* take align='none'"):
        VariationModel(**SMALL).fit(noise)
    model = VariationModel(**SMALL, align="none").fit(noise)
    assert model.n_normal_ == 6


def test_how_much_the_others_explain():
    rng = rng_of("shares")
    base = rng.normal(0, 30, (20, 20))
    pictures = [(base + rng.normal(0, 30, base.shape)).astype(np.float32) for _ in range(5)]
    expected = [np.corrcoef(p.ravel(), (sum(pictures) - p).ravel())[0, 1] ** 2 for p in pictures]
    np.testing.assert_allclose(explained_shares(pictures, [STILL] * 5), expected, rtol=1e-4)


def test_places_that_nobody_saw_count_for_nothing():
    picture = np.full((40, 40), 100, np.float32)
    shifted = Motion(np.array([[1.0, 0, 10], [0, 1, 0]]), 1.0)  # the reference's place x lies at x + 10 of the picture
    centre, spread, known = summarise([picture, picture + 10], [shifted, shifted], mode="mean")
    np.testing.assert_array_equal(known, np.broadcast_to(np.arange(40) < 30, (40, 40)))
    np.testing.assert_allclose(centre[known], 105)
    np.testing.assert_allclose(spread[known], 5)
    model = VariationModel(align="none")
    found = model._deviation(np.full((40, 40), 200, np.uint8), None, centre, spread, known)
    np.testing.assert_allclose(found, np.where(known, 95 / 5, 0))


def test_places_beyond_the_model_s_border_count_for_nothing():
    class Found:
        def find(self, picture):
            return Motion(np.array([[1.0, 0, 10], [0, 1, 0]]), 1.0)

    size = (40, 40)
    centre, spread, known = np.full(size, 100, np.float32), np.full(size, 5, np.float32), np.ones(size, bool)
    found = VariationModel()._deviation(np.full(size, 200, np.uint8), Found(), centre, spread, known)
    np.testing.assert_allclose(found, np.where(np.arange(40) >= 10, 20, 0) * np.ones(size))


@pytest.mark.parametrize("mode", ["mean", "median"])
def test_where_some_saw_nothing_the_others_alone_count(mode):
    """Beyond a picture's border its border goes on: that is no observation."""
    shifted = Motion(np.array([[1.0, 0, 10], [0, 1, 0]]), 1.0)
    pictures = [np.full((40, 40), value, np.float32) for value in (100, 110, 200)]
    centre, spread, known = summarise(pictures, [STILL, STILL, shifted], mode=mode)
    assert known.all()
    np.testing.assert_allclose(centre[:, 30:], 105)
    np.testing.assert_allclose(spread[:, 30:], 5 if mode == "mean" else 5 * 1.4826, rtol=1e-5)
    np.testing.assert_allclose(centre[:, :30], 410 / 3 if mode == "mean" else 110, rtol=1e-5)


def test_the_original_size_is_that_of_the_pictures(tmp_path):
    pictures = normal_pictures(6, size=(50, 70))
    paper = VariationModel.paper(align="none").fit(pictures, path=tmp_path / "m.spade")
    defective, mask = defective_picture(size=(50, 70))
    for model in (paper, load_detector(tmp_path / "m.spade")):
        assert model.size_ == (50, 70)
        found = model.predict(defective).only
        np.testing.assert_array_equal(found.score_map, found.view_map)
        assert mask[np.unravel_index(found.score_map.argmax(), mask.shape)]
    with pytest.raises(InputError, match=r"array 1 has 64 x 64 pixels, those before it 50 x 70: set image_size"):
        VariationModel.paper().fit([pictures[0], PICTURES[0]])


def test_the_order_of_pictures_and_threads_change_nothing():
    one = VariationModel(image_size=120, threads=1).fit(parts(6)).predict(parts(1))
    two = VariationModel(image_size=120, threads=2).fit(parts(6)[::-1]).predict(parts(1))
    np.testing.assert_array_equal(one.score_map, two.score_map)


def test_smoothing_is_at_most_the_side_of_the_original_pictures():
    with pytest.raises(InputError, match="smoothing must be at most 70, the side of what the method sees, not 71"):
        VariationModel.paper(align="none", smoothing=71).fit(normal_pictures(2, size=(50, 70)))


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("align", "shape", "align must be one of"),
        ("mode", "max", "mode must be one of"),
        ("floor", 0, "floor must be above 0"),
        ("floor", -1, "floor"),
        ("training_images", 0, "training_images"),
        ("image_size", (64, 0), "image_size width"),
    ],
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        VariationModel(**{**SMALL, setting: value}).fit(PICTURES)
