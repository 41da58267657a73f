"""`level_weights`: what each level counts in a squared distance, through the search, the model file, and what refuses it."""

from __future__ import annotations

import numpy as np
import pytest
from builders import TINY, answers, defective_picture, normal_pictures

from spadework import Spade, load
from spadework.errors import InputError
from spadework.kernels.reference import nearest
from spadework.pyramid import descriptors


def squared_by_hand(model: Spade, picture: np.ndarray, weights: list[float]) -> np.ndarray:
    """(H * W,): the least of sums over levels of weight times squared distance, from a model without weights."""
    own = model._pyramid(picture).levels
    rows = [model._pyramid(normal).levels for normal in normal_pictures(5)]
    found = np.zeros((len(descriptors(own)), 5 * len(descriptors(own))))
    bounds = np.cumsum([0, *(level.shape[2] for level in own)])
    here, there = descriptors(own), np.concatenate([descriptors(levels) for levels in rows])
    for weight, start, end in zip(weights, bounds, bounds[1:], strict=False):
        found += weight * ((here[:, None, start:end].astype(float) - there[None, :, start:end]) ** 2).sum(axis=2)
    return found.min(axis=1)


def test_each_level_counts_its_weight_in_the_squared_distance():
    weights = [4.0, 1.0, 0.25]
    plain = Spade(**TINY).fit(normal_pictures(5))
    weighted = Spade(**TINY, level_weights=weights).fit(normal_pictures(5))
    picture, _ = defective_picture(3)
    found = weighted.predict(picture).only.correspondence.nearest.ravel()
    assert found == pytest.approx(squared_by_hand(plain, picture, weights), rel=1e-4)
    assert not np.allclose(found, plain.predict(picture).only.correspondence.nearest.ravel(), rtol=0.05)


def test_the_search_among_weighted_levels_is_exact():
    model = Spade(**{**TINY, "gallery_k": 6}, level_weights=[0.01, 30.0, 1.0]).fit(normal_pictures(6))
    picture, _ = defective_picture(4)
    rows = np.concatenate([descriptors(model.gallery_.pyramid(index).levels) for index in range(6)])
    wanted = nearest(descriptors(model._pyramid(picture).levels), rows, kappa=1).distances[:, 0]
    assert model.predict(picture).only.correspondence.nearest.ravel() == pytest.approx(wanted, rel=1e-5)


def test_weights_of_one_are_no_weights_bit_by_bit():
    plain, ones = (Spade(**TINY, level_weights=w).fit(normal_pictures(5)) for w in (None, [1, 1, 1]))
    assert answers(plain) == answers(ones)


def test_weights_are_kept_with_the_model_and_append_uses_them(tmp_path):
    weights = [1.0, 2.0, 0.5]
    model = Spade(**TINY, level_weights=weights).fit(normal_pictures(5))
    model.save(tmp_path / "m.spade")
    again = load(tmp_path / "m.spade")
    assert again.level_weights == weights
    assert answers(again) == answers(model)
    again.append(normal_pictures(2, start=5))
    fresh = Spade(**TINY, level_weights=weights).fit(normal_pictures(7))
    picture, _ = defective_picture(1)
    assert np.array_equal(again.predict(picture).only.score_map, fresh.predict(picture).only.score_map)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (2.0, "list of numbers above 0"),
        ("heavy", "list of numbers above 0"),
        ([], "list of numbers above 0"),
        ([1, 0, 1], "to leave out a level, use levels"),
        ([1, -1, 1], "level_weights"),
        ([1, float("nan"), 1], "level_weights"),
        ([1, float("inf"), 1], "level_weights"),
        ([1, 1e9, 1], "from 0.001 to 1000"),
        (["a", 1, 1], "level_weights"),
        ([1, 2], "2 weights came for 3 levels"),
    ],
)
def test_nonsense_is_told(weights, said):
    with pytest.raises(InputError, match=said):
        Spade(**TINY, level_weights=weights).fit(normal_pictures(2))


def test_weights_must_be_as_many_as_the_levels_that_are_chosen_before_anything_runs():
    with pytest.raises(InputError, match="3 weights came for 2 levels"):
        Spade(**TINY, levels=[1, 3], level_weights=[1, 2, 1])._check_settings()


def test_weights_go_with_the_levels_as_they_are_named():
    models = [
        Spade(**TINY, levels=[3, 1], level_weights=[5.0, 1.0]),
        Spade(**TINY, levels=[1, 3], level_weights=[1.0, 5.0]),
    ]
    one, other = (answers(model.fit(normal_pictures(4))) for model in models)
    assert one == other
    assert one != answers(Spade(**TINY, levels=[1, 3], level_weights=[5.0, 1.0]).fit(normal_pictures(4)))


def test_a_level_that_is_named_twice_has_no_clear_weight():
    with pytest.raises(InputError, match="names one twice"):
        Spade(**TINY, levels=[1, 1, 2], level_weights=[1, 2, 3]).fit(normal_pictures(2))
