"""`search_radius`: a right thing in the wrong place, and the setting through all that a model goes through."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from builders import TINY, answers, normal_picture, normal_pictures

from spadework import Spade, load
from spadework.detectors.placing import window_of
from spadework.errors import InputError
from spadework.images import View

SIDE = 96
MARKS = ((28.0, 30.0), (66.0, 64.0))  # y, x


def plate(index: int, marks=MARKS, *, shift: float = 0.0) -> np.ndarray:
    """A plain plate with the same mark at some places, a pixel off at most, under a sensor's noise."""
    rng = np.random.default_rng([7, index])
    off = rng.uniform(-1, 1, 2) + shift
    picture = np.full((SIDE, SIDE), 150, np.float32)
    for place in marks:
        y, x = (place + off) * 16
        cv2.circle(picture, (round(x), round(y)), 7 * 16, 60, 3, cv2.LINE_AA, 4)
    picture += rng.normal(0, 4, picture.shape)
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def models():
    normal = [plate(index) for index in range(16)]
    settings = {"image_size": SIDE, "max_false_alarms": 0.1}
    return Spade(**settings).fit(normal), Spade(**settings, search_radius=10).fit(normal)


def test_a_right_thing_in_the_wrong_place_is_found_with_it_alone(models):
    """Where a mark is missing there is ground, which is right elsewhere; a part that slipped is right everywhere but here."""
    anywhere, around = models
    missing, slipped = plate(50, MARKS[:1]), plate(51, shift=12.0)
    assert not anywhere.predict(missing).is_anomalous
    found = around.predict(missing).only
    assert found.is_anomalous
    assert np.hypot(*np.subtract(found.regions[0].peak, MARKS[1])) < 10
    assert around.predict(slipped).is_anomalous
    assert anywhere.predict(slipped).score < around.predict(slipped).score / 3
    assert not any(around.predict(plate(index)).is_anomalous for index in range(60, 64))


def test_matches_lie_within_the_radius(models):
    anywhere, around = models
    picture = plate(70, MARKS[:1])
    cell = SIDE / 12
    for model, least, most in ((around, 0, 10), (anywhere, 20, 200)):
        found = model.predict(picture).only.correspondence
        y, x = np.divmod(np.arange(144), 12)
        offsets = cell * np.hypot(found.positions.ravel() // 12 - y, found.positions.ravel() % 12 - x)
        assert least <= offsets.max() <= most
    match = around.explain(around.predict(picture), *map(int, MARKS[1]))
    assert np.hypot(*np.subtract(match.normal_box[:2], match.box[:2])) <= 10 + 1  # rounding of boxes


def test_saved_and_loaded_it_stays(tmp_path):
    model = Spade(**TINY, search_radius=9.5).fit(normal_pictures(6))
    again = load(model.save(tmp_path / "m.spade"))
    assert again.search_radius == 9.5
    assert answers(again) == answers(model) != answers(Spade(**TINY).fit(normal_pictures(6)))


def test_append_and_remove_answer_as_a_fresh_fit(tmp_path):
    def fit(*pictures):
        return Spade(**TINY, search_radius=12).fit(list(pictures))

    pictures = normal_pictures(7)
    fresh = fit(*pictures)
    grown = fit(*pictures[:4]).append(pictures[4:]).recalibrate()
    assert answers(grown) == answers(fresh)
    assert grown.threshold_ == fresh.threshold_
    extra = fit(*pictures, normal_picture(9))
    shrunk = extra.remove(extra.gallery_.entries[7].name)
    assert answers(shrunk) == answers(fresh)
    assert shrunk.threshold_ == fresh.threshold_


def test_thresholds_are_those_of_the_windowed_search():
    """Each normal picture against the others, as a picture that comes in would be."""
    pictures = normal_pictures(5)
    model = Spade(**TINY, search_radius=12).fit(pictures)
    for index, score in model.score_of_each().items():
        others = Spade(**TINY, search_radius=12).fit([p for i, p in enumerate(pictures) if i != index])
        assert others.predict(pictures[index]).score == pytest.approx(score, rel=1e-5)


def test_the_radius_is_in_pixels_of_each_picture():
    """Twice as large a picture of the same part needs twice the radius for the same answer."""
    pictures = normal_pictures(6)
    small = Spade(**TINY, search_radius=8).fit(pictures)
    query = normal_picture(30)
    large = cv2.resize(query, (128, 128), interpolation=cv2.INTER_NEAREST)
    view = small._view()
    assert window_of(8, view, query.shape) == window_of(16, view, large.shape)
    small.search_radius = 16
    twice = small.predict(large).only.correspondence.positions
    small.search_radius = 8
    np.testing.assert_array_equal(small.predict(query).only.correspondence.positions, twice)


def test_the_window_in_shares_of_what_is_seen():
    assert window_of(None, View((64, 64)), (100, 100)) is None
    found = window_of(10, View((64, 64)), (100, 200))
    assert (found.down, found.right) == (0.1, 0.05)
    cropped = window_of(14, View((64,), (56, 56)), (128, 256, 3))  # a crop sees 112 of 128 rows, and as many columns
    assert (cropped.down, cropped.right) == (0.125, 0.125)


@pytest.mark.parametrize("kernel", ["blocked", "auto"])
def test_every_kernel_answers_alike(kernel):
    settings = {**TINY, "search_radius": 12, "calibration_images": 0}
    reference = Spade(**settings, kernel="reference").fit(normal_pictures(3))
    other = Spade(**settings, kernel=kernel).fit(normal_pictures(3))
    found, expected = other.predict(normal_picture(40)), reference.predict(normal_picture(40))
    np.testing.assert_allclose(found.score_map, expected.score_map, rtol=1e-5)


@pytest.mark.parametrize("radius", [-1, float("nan"), float("inf"), "wide"])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(InputError, match="search_radius"):
        Spade(**TINY, search_radius=radius).fit(normal_pictures(2))
