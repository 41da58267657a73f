"""Planted defects: the mask is where the picture changed, the same seed gives the same defect, only the part is touched."""

from __future__ import annotations

import numpy as np
import pytest
from builders import normal_picture

from spadework.datasets.synthetic import render
from spadework.rehearsal.outlines import VISIBLE, blob, stroke, visible
from spadework.rehearsal.planting import KINDS, LARGEST, plant


def gear(index: int) -> np.ndarray:
    return render("gear", index=index, size=128)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_where_the_picture_changed(kind):
    for seed in range(4):
        picture, donor = gear(seed), gear(seed + 10)
        before = picture.copy()
        found = plant(picture, donor, rng=np.random.default_rng(seed), kind=kind)
        changed = (found.picture != picture).any(axis=2)
        assert np.array_equal(picture, before)
        assert found.picture.dtype == np.uint8
        assert found.mask.any()
        assert not (changed & ~found.mask).any()
        plain = np.abs(found.picture.astype(int) - picture).max(axis=2) >= VISIBLE
        assert plain.sum() > 0.5 * found.mask.sum()  # the rest are gaps within it


def test_the_same_seed_gives_the_same_defect_and_another_one_another():
    one, same, other = (plant(gear(0), gear(1), rng=np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one.picture, same.picture)
    assert np.array_equal(one.mask, same.mask)
    assert (one.kind, one.size, one.strength) == (same.kind, same.size, same.strength)
    assert not np.array_equal(one.mask, other.mask)


def test_sizes_run_from_small_to_large_and_the_mask_has_them():
    found = [
        plant(normal_picture(0, (256, 320)), normal_picture(1, (256, 320)), rng=np.random.default_rng(s), kind="stain")
        for s in range(60)
    ]
    sizes = np.array([each.size for each in found])
    assert sizes.min() < 0.03
    assert 0.1 < sizes.max() <= LARGEST
    across = np.array([2 * np.sqrt(each.mask.sum() / np.pi) for each in found]) / 256  # diameters of discs of that area
    assert np.corrcoef(np.log(sizes), np.log(across))[0, 1] > 0.9
    assert 0.5 < np.median(across / sizes) < 1.5


def test_only_the_part_is_touched_where_the_ground_is_plain():
    ground = np.full((128, 160, 3), 40, np.uint8)
    ground[32:96, 50:110] = normal_picture(3, (64, 60))
    for seed in range(30):
        found = plant(ground, ground, rng=np.random.default_rng(seed))
        inside = np.zeros(found.mask.shape, bool)
        inside[28:100, 46:114] = True  # the part is found on a smaller picture: a few pixels more
        assert not (found.mask & ~inside).any()


def test_a_picture_of_one_colour_gets_a_defect_all_the_same():
    flat = np.full((40, 50, 3), 128, np.uint8)
    for kind in KINDS:
        found = plant(flat, flat, rng=np.random.default_rng(1), kind=kind)
        assert found.mask.any()
        assert found.mask.sum() < 0.3 * found.mask.size


def test_a_gray_picture_stays_gray():
    gray = np.repeat(normal_picture(0, (96, 96))[..., :1], 3, axis=2)
    for seed in range(20):
        found = plant(gray, gray, rng=np.random.default_rng(seed), kind=None)
        assert (np.ptp(found.picture.astype(int), axis=2) <= 1).all()


def test_strength_runs_from_barely_to_plainly_visible():
    def contrast(found, picture):
        return np.abs(found.picture.astype(int) - picture)[found.mask].max()

    picture = np.full((128, 128, 3), 120, np.uint8) + np.random.default_rng(0).integers(0, 3, (128, 128, 1), np.uint8)
    found = [plant(picture, picture, rng=np.random.default_rng(s), kind="stain") for s in range(40)]
    faint = [contrast(each, picture) for each in found if each.strength < 0.2]
    strong = [contrast(each, picture) for each in found if each.strength > 0.8]
    assert max(faint) < 20
    assert min(strong) > 35


def test_tiny_pictures_and_donors_of_another_size_do():
    for shape in ((8, 8), (5, 40), (33, 17)):
        picture = np.random.default_rng(2).integers(0, 255, (*shape, 3), np.uint8)
        for seed in range(16):
            found = plant(picture, gear(0), rng=np.random.default_rng(seed))
            assert found.picture.shape == picture.shape
            assert found.mask.any()


def test_outlines_cover_about_what_their_diameter_says():
    rng = np.random.default_rng(0)
    areas = [blob(100, 100, (200, 200), 40.0, rng)[1].sum() for _ in range(50)]
    assert np.median(areas) == pytest.approx(np.pi * 20**2, rel=0.25)
    box, alpha = stroke(100, 100, (200, 200), 40.0, rng)
    assert alpha.shape == (box[0].stop - box[0].start, box[1].stop - box[1].start)
    assert 0 < alpha.sum() < 120 * 8  # long and thin
    assert 80 < np.hypot(*(np.ptp(np.nonzero(alpha > 0.2), axis=1))) < 130


def test_gaps_belong_to_a_defect_and_specks_do_not():
    old = np.zeros((40, 40, 3), np.uint8)
    new = old.copy()
    new[10:20, 10:20] = 50
    new[14:16, 14:16] = 0  # a gap
    new[35, 35] = 50  # a speck
    mask = visible(old, new, 16.0)
    assert mask[10:20, 10:20].all()
    assert mask.sum() == 100
