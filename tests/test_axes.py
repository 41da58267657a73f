"""Axes: orthonormal to float64 whatever the rows are, and as sharp as LAPACK's."""

import numpy as np
import pytest

pytest.importorskip("numba")
from spadework.kernels import turning
from spadework.kernels.axes import learn_axes
from spadework.kernels.codes import layout_of
from spadework.kernels.products import product


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 64, 64), (65, 130, 3), (200, 7, 129), (0, 5, 4), (3, 0, 2)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_products_in_tiles_are_products(rng, shape, kind):
    rows, inner, columns = shape
    left, right = rng.standard_normal((rows, inner)).astype(kind), rng.standard_normal((inner, columns)).astype(kind)
    found = product(left, right)
    assert found.shape == (rows, columns) and found.dtype == kind and found.flags.c_contiguous
    assert np.allclose(found, left.astype(float) @ right.astype(float), atol=np.finfo(kind).eps * 20 * (inner + 1))
    assert np.allclose(product(left[:, ::-1], right[::-1]), found, atol=np.finfo(kind).eps * 20 * (inner + 1))


def test_rows_are_orthonormal_even_when_nearly_parallel(rng):
    rows = rng.standard_normal(50) + 1e-5 * rng.standard_normal((20, 50))
    own = rows.copy()
    assert turning.orthonormalise(own) == 20
    assert np.abs(own @ own.T - np.eye(20)).max() < 1e-14
    assert np.abs(rows - (rows @ own.T) @ own).max() < 1e-14  # they span the same


def test_spanned_rows_go(rng):
    rows = rng.standard_normal((4, 30))
    own = np.concatenate([rows[:2], rows[:1] - 3 * rows[1:2], np.zeros((1, 30)), rows[2:]])
    assert turning.orthonormalise(own) == 4
    assert np.abs(own[:4] @ own[:4].T - np.eye(4)).max() < 1e-14
    assert np.abs(rows - (rows @ own[:4].T) @ own[:4]).max() < 1e-13


def test_rotations_end_at_the_eigenvalues(rng):
    half = rng.standard_normal((40, 40))
    matrix = half @ half.T
    own, turns = matrix.copy(), np.eye(40)
    turning.diagonalise(own, turns, 12)
    assert np.allclose(np.sort(np.diag(own)), np.linalg.eigvalsh(matrix), rtol=1e-10, atol=1e-10)
    assert np.abs(turns @ turns.T - np.eye(40)).max() < 1e-13
    assert np.abs(turns @ matrix @ turns.T - own).max() < 1e-11
    assert np.abs(own - np.diag(np.diag(own))).max() < 1e-10


@pytest.mark.parametrize("channels", [3, 100, 600])
def test_axes_hold_nearly_as_much_as_the_best(rng, channels):
    spread = np.exp(-np.arange(channels) / 20)
    turn = np.linalg.qr(rng.standard_normal((channels, channels)))[0]
    rows = (rng.standard_normal((1500, channels)) * spread @ turn + 5).astype(np.float32)
    layout = layout_of(((1, *rows.shape),))
    axes = learn_axes(rows, layout)
    found = axes.directions[:, : min(layout.axes, channels)]
    assert np.abs(found.T @ found - np.eye(found.shape[1])).max() < 1e-13
    centred = rows - axes.mean
    learnt_from = centred[np.arange(len(rows)) % 4 != 1]
    best = np.linalg.svd(learnt_from, compute_uv=False) ** 2
    for depth in (15, 30, found.shape[1]):
        kept = float(((learnt_from @ found[:, :depth]) ** 2).sum())
        assert kept > 0.995 * float(best[:depth].sum())
    assert np.array_equal(learn_axes(rows, layout).directions, axes.directions)
