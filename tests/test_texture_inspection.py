"""Texture inspection: patches by hand, what light does, how levels are united, the mixture against scikit-learn's likelihood."""

from __future__ import annotations

import numpy as np
import pytest
from builders import defective_picture, normal_pictures, rng_of
from scipy.stats import multivariate_normal

from spadework.detectors.texture_inspection import TextureInspection, _matrix, _whole, compress, image_pyramid, united
from spadework.errors import InputError
from spadework.mixture import fit_mixture

SMALL = {"image_size": 64, "levels": 2, "components": 3, "training_patches": 500, "calibration_images": 5}
PICTURES = normal_pictures(6)
DEFECTIVE, MASK = defective_picture()


def test_a_patch_is_its_relative_difference_to_its_mean_compressed():
    picture = rng_of("patch").integers(0, 256, (12, 10, 3)).astype(np.uint8)
    matrix = rng_of("matrix").normal(size=(4, 75))
    found = compress(picture, np.array([5 * 10 + 6, 0]), 5, matrix)
    patch = picture[3:8, 4:9].astype(float).transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(found[0], matrix @ ((patch - patch.mean()) / (patch.mean() + 1)))
    mirrored = picture[[2, 1, 0, 1, 2]][:, [2, 1, 0, 1, 2]].astype(float).transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(found[1], matrix @ ((mirrored - mirrored.mean()) / (mirrored.mean() + 1)))


def test_a_mixture_of_fewer_gaussians_says_the_same_with_copies():
    rows = np.repeat(rng_of("few").normal(size=(2, 3)), 30, axis=0)
    few = fit_mixture(rows, 5)
    whole = _whole(few, 5)
    assert (len(few.weights), len(whole.weights)) == (2, 5)
    assert whole.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(whole.log_likelihoods(rows), few.log_likelihoods(rows))


def test_light_changes_little():
    picture = rng_of("light").integers(50, 120, (20, 20, 3)).astype(np.uint8)
    matrix, places = _matrix(8, 147, 0), np.arange(400)
    dark, bright = compress(picture, places, 7, matrix), compress(2 * picture, places, 7, matrix)
    np.testing.assert_allclose(bright, dark, atol=0.02 * abs(dark).max())


def test_the_random_matrix_keeps_directions_apart():
    matrix = _matrix(16, 147, 0)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(16), atol=1e-12)
    assert abs(matrix - _matrix(16, 147, 1)).max() > 0.1


def test_levels_are_united_as_the_sets_above_a_threshold_are():
    maps = [rng_of("level", level).uniform(0, 3, (8, 8)).astype(np.float32) for level in range(3)]
    for threshold in (0.5, 1.0, 2.0):
        one, two, three = (level > threshold for level in maps)
        np.testing.assert_array_equal(united(maps) > threshold, (one & two) | (two & three))
    np.testing.assert_array_equal(united(maps[:1]), maps[0])
    assert united([maps[0], maps[1][::2, ::2]]).shape == (8, 8)


def test_the_excess_is_the_likelihood_in_units_of_what_is_usual():
    model = TextureInspection(**SMALL).fit(PICTURES)
    picture, level = DEFECTIVE, model.levels_[1]
    half = image_pyramid(picture, 2)[1]
    rows = compress(half, np.arange(32 * 32), 7, model.matrix_)
    inverse = [np.linalg.inv(whitening) for whitening in level.mixture.whitenings]
    density = sum(
        weight * multivariate_normal(mean, factor @ factor.T).pdf(rows[:100])
        for weight, mean, factor in zip(level.mixture.weights, level.mixture.means, inverse, strict=True)
    )
    expected = np.maximum((-np.log(np.maximum(density, 1e-300)) - level.median) / level.spread, 0)
    found = model._level_excess(half, model.matrix_, level).ravel()[:100]
    likely = density > 1e-300
    assert likely.sum() > 50
    np.testing.assert_allclose(found[likely], expected[likely], rtol=1e-6, atol=1e-9)


def test_about_one_normal_patch_in_a_hundred_exceeds_one():
    model = TextureInspection(**SMALL).fit(PICTURES)
    own = [
        model._level_excess(image_pyramid(p, 2)[level], model.matrix_, model.levels_[level])
        for p in PICTURES
        for level in (0, 1)
    ]
    assert 0.001 < np.mean([(excess > 1).mean() for excess in own]) < 0.05


def test_threads_and_the_order_of_pictures_change_nothing():
    one = TextureInspection(**SMALL, threads=1).fit(PICTURES).predict(DEFECTIVE)
    two = TextureInspection(**SMALL, threads=2).fit(PICTURES[::-1]).predict(DEFECTIVE)
    np.testing.assert_array_equal(one.score_map, two.score_map)


def test_pictures_of_one_colour_are_no_error():
    plain = [np.full((64, 64, 3), value, np.uint8) for value in (0, 100, 101, 102, 103)]
    model = TextureInspection(**SMALL).fit(plain)
    assert model.predict(plain[2]).score < 1
    assert model.predict(DEFECTIVE).score > 10


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("patch", 6, "patch must be odd"),
        ("compressed", 148, "compressed must be at most 147"),
        ("levels", 5, "image_size must be at least 112"),
        ("training_images", 0, "training_images"),
        ("smoothing", -1, "smoothing"),
    ],
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        TextureInspection(**{**SMALL, setting: value}).fit(PICTURES)
