"""Nearest image: distances by brute force, SPADE's image score, what is left out, appending."""

from __future__ import annotations

import numpy as np
import pytest
from builders import TINY, defective_picture, normal_pictures

from spadework.detectors import load_detector
from spadework.detectors.nearest_image import NearestImage
from spadework.detectors.spade import Spade
from spadework.errors import InputError

SMALL = {"image_size": 64, "calibration_images": 5, "image_k": 3}
PICTURES = normal_pictures(6)
DEFECTIVE, _ = defective_picture()


def vectors(model, pictures):
    return np.array([model.backbone_(picture[None])[1][0] for picture in pictures], np.float64)


def test_the_score_is_the_mean_squared_distance_to_the_nearest():
    model = NearestImage(**SMALL).fit(PICTURES)
    squares = ((vectors(model, PICTURES) - vectors(model, [DEFECTIVE])) ** 2).sum(axis=1)
    found = model.predict(DEFECTIVE).only
    assert found.score == pytest.approx(np.sort(squares)[:3].mean(), rel=1e-9)
    assert [name for name, _ in found.nearest_images] == [f"array {i}" for i in np.argsort(squares)[:3]]
    assert (found.score_map, found.map_threshold, found.regions) == (None, None, ())


def test_it_is_spades_image_score():
    spade = Spade(**{**TINY, "image_k": 3}, image_score="nearest-images").fit(PICTURES)
    model = NearestImage(**SMALL).fit(PICTURES)
    np.testing.assert_array_equal(
        model.predict([DEFECTIVE, *PICTURES]).scores, spade.predict([DEFECTIVE, *PICTURES]).scores
    )
    np.testing.assert_array_equal(model.normal_scores_, spade.normal_scores_)


def test_each_picture_is_scored_against_the_others():
    model = NearestImage(**{**SMALL, "calibration_images": 6}).fit(PICTURES)
    own = vectors(model, PICTURES)
    squares = ((own[:, None] - own) ** 2).sum(axis=2)
    expected = np.sort(squares, axis=1)[:, 1:4].mean(axis=1)  # without its own distance, 0
    np.testing.assert_allclose(model.normal_scores_, expected, rtol=1e-9)


def test_appending_is_fitting_on_the_union(tmp_path):
    model = NearestImage(**SMALL).fit(PICTURES[:3], path=tmp_path / "m.spade")
    model.append([*PICTURES[3:], PICTURES[0]])
    assert len(model.repeated_) == 1
    fresh = NearestImage(**SMALL).fit(PICTURES)
    for other in (model, load_detector(tmp_path / "m.spade")):
        assert other.n_normal_ == 6
        np.testing.assert_array_equal(other.predict([DEFECTIVE]).scores, fresh.predict([DEFECTIVE]).scores)
        assert other.threshold_ == fresh.threshold_


def test_an_append_that_fails_changes_nothing(tmp_path):
    model = NearestImage(**SMALL).fit(PICTURES[:3], path=tmp_path / "m.spade")
    before = model.predict(DEFECTIVE).score, model.threshold_
    with pytest.raises(InputError):
        model.append([PICTURES[4], np.full((8, 8), np.nan)])
    assert (model.predict(DEFECTIVE).score, model.threshold_, model.n_normal_) == (*before, 3)


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [("image_k", 0, "image_k must be at least 1"), ("crop", 65, "crop 65 does not fit"), ("seed", -1, "seed")],
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        NearestImage(**{**SMALL, setting: value}).fit(PICTURES)
