"""Pyramids: upsampling by hand and against PyTorch, averaging, pooling, packing."""

from __future__ import annotations

import numpy as np
import pytest
from builders import SHAPES, make_pyramid

from spadework.errors import InputError
from spadework.pyramid import Geometry, build, descriptors, pool, upsample

RNG = np.random.default_rng(3)


def _row(*values):
    return np.array(values, np.float32).reshape(1, -1, 1)


def test_bilinear_by_hand():
    # Four places over two cells: centres at -0.25, 0.25, 0.75 and 1.25 cells; the border is repeated.
    assert upsample(_row(0, 8), 1, 4).ravel().tolist() == [0, 2, 6, 8]
    assert upsample(_row(0, 8).transpose(1, 0, 2), 4, 1).ravel().tolist() == [0, 2, 6, 8]


def test_nearest_by_hand():
    assert upsample(_row(0, 8), 1, 4, upsampling="nearest").ravel().tolist() == [0, 0, 8, 8]
    assert upsample(_row(1, 2, 3), 1, 5, upsampling="nearest").ravel().tolist() == [1, 1, 2, 2, 3]


def test_upsampling_a_single_cell_repeats_it():
    level = RNG.normal(size=(1, 1, 4)).astype(np.float32)
    for kind in ("bilinear", "nearest"):
        np.testing.assert_array_equal(upsample(level, 3, 5, upsampling=kind), np.broadcast_to(level, (3, 5, 4)))


@pytest.mark.parametrize("kind", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("small", "large"), [((2, 3), (8, 12)), ((7, 7), (28, 28)), ((3, 5), (7, 11)), ((1, 4), (6, 4)), ((4, 2), (4, 2))]
)
def test_upsampling_is_that_of_pytorch(small, large, kind):
    torch = pytest.importorskip("torch")
    level = RNG.normal(size=(*small, 5)).astype(np.float32)
    options = {"align_corners": False} if kind == "bilinear" else {}
    tensor = torch.from_numpy(level.transpose(2, 0, 1).copy())[None]
    expected = torch.nn.functional.interpolate(tensor, size=large, mode=kind, **options)[0].numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(upsample(level, *large, upsampling=kind), expected, rtol=0, atol=1e-6)


def test_the_comparison_with_pytorch_tells_aligned_corners_apart():
    aligned = np.linspace(0, 8, 4)
    assert np.abs(upsample(_row(0, 8), 1, 4).ravel() - aligned).max() > 0.5


def test_cached_weights_cannot_be_changed():
    from spadework import pyramid

    for weights in pyramid.sampling(2, 4, "bilinear"):
        with pytest.raises(ValueError, match="read-only"):
            weights[0] = 5


def test_descriptors_stand_in_reading_order_with_levels_side_by_side():
    fine = np.arange(6, dtype=np.float32).reshape(2, 3, 1)  # (2, 3): 0 1 2 / 3 4 5
    coarse = np.array([[[10, 20]]], np.float32)  # (1, 1, 2)
    rows = descriptors([fine, coarse])
    assert rows.dtype == np.float32
    assert rows.tolist() == [[value, 10, 20] for value in range(6)]


def test_descriptors_of_float16_levels_are_float32():
    levels = [level.astype(np.float16) for level in make_pyramid(0).levels]
    assert descriptors(levels).dtype == np.float32


def test_build_averages_finer_levels_down_to_the_grid():
    fine = np.arange(16, dtype=np.float32).reshape(1, 4, 4)  # (C, H, W)
    coarse = np.ones((2, 2, 2), np.float32)
    found = build([fine, coarse], np.zeros(3, np.float32), grid_level=1)
    assert found.grid == (2, 2)
    assert found.levels[0][..., 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert found.levels[1].shape == (2, 2, 2)


def test_build_keeps_coarser_levels_and_puts_channels_last():
    fine = RNG.normal(size=(3, 4, 6)).astype(np.float32)
    coarse = RNG.normal(size=(5, 2, 3)).astype(np.float32)
    found = build([fine, coarse], np.zeros(3, np.float32))
    assert [level.shape for level in found.levels] == [(4, 6, 3), (2, 3, 5)]
    np.testing.assert_array_equal(found.levels[0][1, 4], fine[:, 1, 4])


def test_a_level_that_is_no_multiple_of_the_grid_is_refused():
    with pytest.raises(InputError, match=r"a level of 5 x 4 cannot be averaged to a grid of 2 x 2"):
        build([np.zeros((1, 5, 4), np.float32), np.zeros((1, 2, 2), np.float32)], np.zeros(1), grid_level=1)


def test_pooling_by_hand_averages_what_neighbours_there_are():
    level = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    pooled = pool(level, 3)[..., 0]
    assert pooled[1, 1] == pytest.approx(level[0:3, 0:3].mean())
    assert pooled[0, 0] == pytest.approx(level[0:2, 0:2].mean())
    assert pooled[2, 3] == pytest.approx(level[1:3, 2:4].mean())
    assert pool(level, 1) is level


@pytest.mark.parametrize("shape", [(7, 9, 3), (1, 6, 2), (1, 1, 4)])
@pytest.mark.parametrize("side", [3, 5, 31])
def test_pooling_is_the_mean_of_the_window_everywhere(shape, side):
    level = RNG.normal(size=shape).astype(np.float32)
    before, reach = level.copy(), side // 2
    pooled = pool(level, side)
    for y, x in np.ndindex(shape[:2]):
        window = level[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        np.testing.assert_allclose(pooled[y, x], window.astype(float).mean((0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(level, before)


def test_pooling_wider_than_the_map_is_its_mean():
    level = RNG.normal(size=(3, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(pool(level, 9), np.broadcast_to(level.mean((0, 1)), (3, 4, 2)), rtol=1e-5, atol=1e-6)


def test_pooling_is_refused_where_a_neighbourhood_has_no_centre():
    with pytest.raises(InputError, match="pooling must be odd"):
        pool(np.zeros((3, 3, 1), np.float32), 2)


def test_pack_and_unpack_return_the_same_levels():
    geometry, levels = Geometry(SHAPES), make_pyramid(1).levels
    record = geometry.pack(levels)
    assert record.shape == (geometry.length,)
    assert geometry.length == 4 * 5 * 3 + 2 * 3 * 2 + 1 * 2 * 4
    assert (geometry.grid, geometry.channels) == ((4, 5), 9)
    for found, level in zip(geometry.unpack(record), levels, strict=True):
        np.testing.assert_array_equal(found, level)
        assert np.shares_memory(found, record)


def test_pack_refuses_other_shapes():
    with pytest.raises(InputError, match="refit with one size"):
        Geometry(SHAPES).pack(make_pyramid(0, SHAPES[:2]).levels)
