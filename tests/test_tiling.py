"""Tiles: where they lie, what they hold, maps brought together without a seam; and a model of large views."""

from __future__ import annotations

import numpy as np
import pytest
from builders import defective_picture, normal_picture, normal_pictures, rng_of

from spadework import Spade, load, tiling
from spadework.correspondence import correspond
from spadework.errors import ModelError
from spadework.tiling import Tiling


@pytest.mark.parametrize(
    "size", [(512, 512), (880, 1184), (528, 512), (16, 3000), (2048, 2048), (1024, 1024), (64, 64)]
)
def test_tiles_cover_a_view_overlap_and_begin_at_whole_places(size):
    size = tuple(side // 16 * 16 for side in size)
    plan = Tiling.plan(size, multiple=16)
    assert all(start % 16 == 0 for start in (*plan.rows, *plan.columns))
    for starts, side, length in zip((plan.rows, plan.columns), plan.tile, size, strict=True):
        assert side == min(512, length)
        assert starts[0] == 0
        assert starts[-1] + side == length
        assert all(starts[i] + side - starts[i + 1] >= 48 for i in range(len(starts) - 1))  # 64, to whole places of 16
        fewest = 1 if length <= 512 else -(-(length - 64) // 448)
        assert len(starts) == fewest
    assert Tiling.from_json(plan.to_json()) == plan


def test_tiles_hold_what_the_view_s_levels_hold_there():
    plan = Tiling.plan((80, 112), multiple=16, side=48, overlap=16)
    rng = rng_of("tiles")
    levels = [rng.normal(size=(80 // s, 112 // s, 3)).astype(np.float32) for s in (4, 8, 16)]
    tiles = plan.cut(levels)
    assert len(tiles) == len(plan) == len(plan.rows) * len(plan.columns)
    for (y, x), tile in zip(plan.corners, tiles, strict=True):
        for level, part, stride in zip(levels, tile.levels, (4, 8, 16), strict=True):
            np.testing.assert_array_equal(
                part, level[y // stride : (y + 48) // stride, x // stride : (x + 48) // stride]
            )
        np.testing.assert_allclose(tile.global_vector, tile.levels[-1].mean(axis=(0, 1)), rtol=1e-5)


def test_maps_that_agree_are_blended_to_themselves():
    plan = Tiling.plan((80, 112), multiple=16, side=48, overlap=16)
    whole = rng_of("blend").normal(size=(10, 14))
    parts = [whole[plan.places(tile, whole.shape)] for tile in range(len(plan))]
    np.testing.assert_allclose(plan.blend(parts, whole.shape), whole, rtol=1e-12)


def test_where_tiles_differ_the_blend_runs_from_one_to_the_other_without_a_step():
    plan = Tiling.plan((48, 80), multiple=16, side=48, overlap=16)
    assert plan.columns == (0, 32)
    grid = (6, 10)  # of which columns 4 and 5 belong to both
    blended = plan.blend([np.zeros((6, 6)), np.ones((6, 6))], grid)
    np.testing.assert_allclose(blended[0], [0, 0, 0, 0, 0.25, 0.75, 1, 1, 1, 1])
    np.testing.assert_array_equal(plan.owners(grid)[0], [0] * 5 + [1] * 5)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 64 pixels and overlaps of 16, so that small pictures have many."""
    monkeypatch.setattr(tiling, "SIDE", 64)
    monkeypatch.setattr(tiling, "OVERLAP", 16)


SETTINGS = {"image_size": (96, 160), "gallery_k": 6, "calibration_images": 3}


@pytest.fixture
def model(small_tiles):
    return Spade(**SETTINGS).fit(normal_pictures(4, (96, 160)))


def test_a_large_canvas_is_kept_and_searched_in_tiles(model, tmp_path):
    assert model.gallery_.tiling.rows == (0, 32)
    assert model.gallery_.tiling.columns == (0, 48, 96)
    assert model.gallery_.tiles == 6
    assert len(model.gallery_) == model.n_normal_ == 4
    assert model.folder_.rows("pyramids") == model.folder_.rows("codes") == 24
    assert len(model.normal_scores_) == 3
    again = load(model.save(tmp_path / "tiles.spade"))
    again.verify()
    picture = normal_picture(80, (96, 160))
    assert again.predict(picture).score == model.predict(picture).score


def test_each_tile_is_searched_among_those_most_like_it(model):
    """What is found is the blend of what `correspond` finds for each tile."""
    seen = next(model._see_each([normal_picture(81, (96, 160))]))
    gallery = model.gallery_
    tiles = gallery.tiling.cut(seen.pyramid.levels)
    maps = []
    for tile in tiles:
        vectors = np.array(gallery.folder.read("tile_vectors")).astype(float)
        rows = np.argsort(((vectors - tile.global_vector) ** 2).sum(axis=1), kind="stable")[:6]
        np.testing.assert_array_equal(gallery.nearest_tiles(tile.global_vector, 6), rows)
        maps.append(correspond(tile.levels, gallery, rows).distances)
    judged = model._judge(seen)
    np.testing.assert_allclose(judged.distances, gallery.tiling.blend(maps, (12, 20)), rtol=1e-12)


def test_a_defect_is_found_and_explained_in_pixels_of_the_normal_picture(model):
    picture, mask = defective_picture(99, (96, 160))
    found = model.predict(picture)[0]
    assert mask[np.unravel_index(found.score_map.argmax(), mask.shape)]
    assert found.is_anomalous is None or found.score > model.normal_scores_.max()
    # A normal picture explains itself, place by place, in whichever tile.
    own = model.predict(normal_picture(2, (96, 160)))
    for y, x in ((3, 3), (50, 70), (95, 159), (40, 110), (33, 50)):
        told = model.explain(own, y, x, patch=8)
        assert (told.image, told.distance) == (2, 0.0)
        assert told.normal_box == told.box


def test_with_a_search_radius_a_canvas_is_not_cut_and_one_that_was_is_searched_tile_by_tile_in_place(model):
    whole = Spade(**SETTINGS, search_radius=8).fit(normal_pictures(4, (96, 160)))
    assert whole.gallery_.tiling is None
    model.search_radius = 8
    try:
        found, wanted = (each.predict(normal_picture(83, (96, 160)))[0] for each in (model, whole))
    finally:
        model.search_radius = None
    rows, columns = found.correspondence.positions // 20, found.correspondence.positions % 20
    y, x = np.mgrid[:12, :20]
    assert np.hypot(rows - y, columns - x).max() <= 1  # 8 pixels are one place
    # Levels are brought to the fine grid within a tile, so distances differ where that ends; in the middle they are the same.
    np.testing.assert_allclose(
        found.correspondence.distances[1:3, 1:4], wanted.correspondence.distances[1:3, 1:4], rtol=1e-3
    )
    vector = model.gallery_.tile_pyramids(0)[2].global_vector
    assert set(model.gallery_.nearest_tiles(vector, 9, exclude=1, place=2).tolist()) == {2, 14, 20}


def test_a_picture_left_out_leaves_out_all_its_tiles(model):
    gallery = model.gallery_
    own = gallery.tile_pyramids(1)
    for tile in own:
        rows = gallery.nearest_tiles(tile.global_vector, 99, exclude=1)
        assert len(rows) == 18
        assert all(gallery.image_of(row) != 1 for row in rows.tolist())
    judged = model.judge_normal(1, None)
    assert 1 not in judged.correspondence.images
    assert judged.distances.min() > 0


def test_tiled_models_grow_and_shrink_like_a_fresh_fit(small_tiles):
    pictures = normal_pictures(5, (96, 160))
    fresh = Spade(**SETTINGS).fit(pictures[:3])
    grown = Spade(**SETTINGS).fit(pictures[:2]).append(pictures[2:3])
    shrunk = Spade(**SETTINGS).fit([*pictures[:3], pictures[4]])
    shrunk.remove(shrunk.gallery_.entries[3].sha256)
    picture = normal_picture(82, (96, 160))
    wanted = fresh.predict(picture)[0]
    for other in (grown, shrunk):
        found = other.predict(picture)[0]
        np.testing.assert_allclose(found.score_map, wanted.score_map, rtol=1e-5)
        assert [d for _, d in found.nearest_images] == [d for _, d in wanted.nearest_images]
        other.verify()
    np.testing.assert_allclose(shrunk.normal_scores_, fresh.normal_scores_, rtol=1e-6)


def test_a_damaged_tile_is_named_by_its_picture(model, tmp_path):
    path = model.save(tmp_path / "tiles.spade")
    file = path / load(path).folder_.header["arrays"]["pyramids"]["file"]
    data = bytearray(file.read_bytes())
    data[len(data) * 3 // 4 + 1000] ^= 1  # in the last picture
    file.write_bytes(data)
    with pytest.raises(ModelError, match="features of image 3 .array 3. are damaged"):
        load(path).verify()
