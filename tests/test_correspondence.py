"""Correspondence against a slow oracle that is written from the paper alone."""

from __future__ import annotations

import numpy as np
import pytest
from builders import SHAPES, make_gallery, make_pyramid, tiny_model

from spadework import correspondence
from spadework.correspondence import correspond
from spadework.errors import InputError
from spadework.kernels import KERNELS

GRID = SHAPES[0][:2]


# ---------------------------------------------------------------- the oracle: positions one by one, float64, nothing shared


def sample(level, y, x, height, width, upsampling):
    """The feature of a level at place (y, x) of a height x width grid."""
    h, w = level.shape[:2]
    if upsampling == "nearest":
        return level[y * h // height, x * w // width].astype(np.float64)
    v = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
    u = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
    y0, x0 = int(v), int(u)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    a, b = v - y0, u - x0
    top = (1 - b) * level[y0, x0].astype(np.float64) + b * level[y0, x1]
    bottom = (1 - b) * level[y1, x0].astype(np.float64) + b * level[y1, x1]
    return (1 - a) * top + a * bottom


def describe(levels, y, x, upsampling):
    height, width = levels[0].shape[:2]
    return np.concatenate([sample(level, y, x, height, width, upsampling) for level in levels])


def oracle(levels, others, kappa, upsampling):
    """Mean squared distance to the kappa nearest descriptors at all positions of all the others: (H, W)."""
    height, width = levels[0].shape[:2]
    places = [(y, x) for y in range(height) for x in range(width)]
    gallery = [describe(other, y, x, upsampling) for other in others for y, x in places]
    out = np.empty((height, width))
    for y, x in places:
        own = describe(levels, y, x, upsampling)
        distances = sorted(sum((a - b) ** 2 for a, b in zip(own, row, strict=True)) for row in gallery)
        out[y, x] = sum(distances[:kappa]) / kappa
    return out


def ensemble_oracle(levels, others, kappa):
    """Each level on its own grid; the maps brought up and averaged."""
    height, width = levels[0].shape[:2]
    total = np.zeros((height, width))
    for index, level in enumerate(levels):
        own = oracle([level], [[other[index]] for other in others], kappa, "bilinear")[..., None]
        for y in range(height):
            for x in range(width):
                total[y, x] += sample(own, y, x, height, width, "bilinear")[0]
    return total / len(levels)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return make_gallery(tmp_path_factory.mktemp("gallery") / "g.spade", 5)


def others(images):
    return [make_pyramid(int(image)).levels for image in images]


# ---------------------------------------------------------------- against it


@pytest.mark.parametrize("kernel", [*KERNELS, "auto"])
@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize(("images", "kappa"), [([0, 1, 2, 3, 4], 1), ([3, 1], 3), ([2], 1), ([2], 20)])
def test_correspondence_is_that_of_the_paper(gallery, images, kappa, upsampling, kernel):
    levels = make_pyramid(100).levels
    found = correspond(levels, gallery, images, kappa=kappa, upsampling=upsampling, kernel=kernel)
    expected = oracle(levels, others(images), kappa, upsampling)
    np.testing.assert_allclose(found.distances, expected, rtol=1e-5)


@pytest.mark.parametrize("images", [[0, 1, 2, 3, 4], [4, 2]])
def test_the_match_has_the_stated_distance(gallery, images):
    levels = make_pyramid(100).levels
    found = correspond(levels, gallery, images)
    nearest = oracle(levels, others(images), 1, "bilinear")
    for y, x in np.ndindex(*GRID):
        assert found.images[y, x] in images
        place = divmod(int(found.positions[y, x]), GRID[1])
        match = describe(make_pyramid(int(found.images[y, x])).levels, *place, "bilinear")
        distance = ((describe(levels, y, x, "bilinear") - match) ** 2).sum()
        assert found.nearest[y, x] == pytest.approx(distance, rel=1e-5)
        assert found.nearest[y, x] == pytest.approx(nearest[y, x], rel=1e-5)


def test_an_image_of_the_gallery_finds_itself(gallery):
    found = correspond(make_pyramid(3).levels, gallery, [1, 3, 4])
    assert (found.distances == 0).all()
    assert (found.images == 3).all()
    assert found.positions.ravel().tolist() == list(range(20))


@pytest.mark.parametrize("kappa", [1, 4])
@pytest.mark.parametrize("kernel", KERNELS)
def test_ensemble_against_its_own_oracle(gallery, kernel, kappa):
    levels, images = make_pyramid(100).levels, [0, 2, 3]
    found = correspond(levels, gallery, images, kappa=kappa, pyramid="ensemble", kernel=kernel)
    np.testing.assert_allclose(found.distances, ensemble_oracle(levels, others(images), kappa), rtol=1e-5)
    finest = oracle(levels[:1], [other[:1] for other in others(images)], 1, "bilinear")
    np.testing.assert_allclose(found.nearest, finest, rtol=1e-5)  # its match is the finest level's


def test_ensemble_and_concatenation_differ(gallery):
    levels = make_pyramid(100).levels
    joint = correspond(levels, gallery, [0, 1]).distances
    assert not np.allclose(joint, correspond(levels, gallery, [0, 1], pyramid="ensemble").distances, rtol=0.1)


@pytest.mark.parametrize("matching", ["concatenate", "ensemble"])
@pytest.mark.parametrize("images_a_block", [0, 1, 2, 3])
def test_memory_blocks_change_nothing(gallery, images_a_block, matching, monkeypatch):
    levels, images = make_pyramid(100).levels, [4, 0, 3, 1, 2]
    whole = correspond(levels, gallery, images, kappa=3, pyramid=matching)
    monkeypatch.setattr(correspondence, "BLOCK_BYTES", images_a_block * 20 * 9 * 4 + 1)
    parts = correspond(levels, gallery, images, kappa=3, pyramid=matching)
    for name in ("distances", "images", "positions", "nearest"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_kappa_may_exceed_the_positions_of_one_block(gallery, monkeypatch):
    levels, images = make_pyramid(100).levels, [0, 1, 2]
    monkeypatch.setattr(correspondence, "BLOCK_BYTES", 1)
    found = correspond(levels, gallery, images, kappa=45)
    np.testing.assert_allclose(found.distances, oracle(levels, others(images), 45, "bilinear"), rtol=1e-5)


def test_order_of_the_images_changes_nothing(gallery):
    levels = make_pyramid(100).levels
    one, other = correspond(levels, gallery, [0, 1, 2]), correspond(levels, gallery, [2, 0, 1])
    np.testing.assert_array_equal(one.distances, other.distances)
    np.testing.assert_array_equal(one.images, other.images)


def test_float16_storage_stays_within_its_rounding(tmp_path, gallery):
    half = make_gallery(tmp_path / "half.spade", 5, storage="float16")
    levels = make_pyramid(100).levels
    exact = correspond(levels, gallery, range(5)).distances
    found = correspond(levels, half, range(5)).distances
    # A feature g is rounded by at most 2^-11 |g|, so a descriptor moves by e <= 2^-11 max ||g||, and its distance d by 2 d e + e^2.
    norm = max(
        np.linalg.norm(describe(make_pyramid(i).levels, y, x, "bilinear")) for i in range(5) for y, x in [(0, 0)]
    )
    largest = max(
        norm, max(np.linalg.norm(gallery.descriptors([i], upsampling="bilinear"), axis=1).max() for i in range(5))
    )
    moved = 2.0**-11 * largest
    assert (np.abs(found - exact) <= 2 * np.sqrt(exact) * moved + 2 * moved**2).all()
    assert not np.array_equal(found, exact)


@pytest.mark.parametrize(("matching", "most"), [("concatenate", 40), ("ensemble", 4)])
def test_kappa_beyond_what_is_searched_is_refused(gallery, matching, most):
    levels = make_pyramid(100).levels
    correspond(levels, gallery, [0, 1], kappa=most, pyramid=matching)  # just fits
    with pytest.raises(InputError, match=f"kappa is {most + 1}, but only {most} descriptors are searched"):
        correspond(levels, gallery, [0, 1], kappa=most + 1, pyramid=matching)


def test_levels_of_another_shape_are_refused(gallery):
    shapes = ((5, 4, 3), *SHAPES[1:])
    with pytest.raises(InputError, match="level maps have shapes"):
        correspond(make_pyramid(0, shapes).levels, gallery, [0])


def test_gallery_k_above_the_number_of_images_takes_them_all():
    few, many = tiny_model(3, gallery_k=3), tiny_model(3, gallery_k=500, image_k=500)
    from builders import answers

    assert answers(few) == answers(many)
