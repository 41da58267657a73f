"""Kernels against the definition, on data chosen to hurt; the comparison itself is shown to fail on wrong answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spadework.errors import InputError
from spadework.kernels import KERNELS, Nearest, blocked, get_kernel, merge, pruned

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def no_handing_over(monkeypatch):
    """The compiled kernel answers itself, however small the case is."""
    monkeypatch.setattr(pruned, "FEW", 0)
    monkeypatch.setattr(pruned, "NOT_FOR", 10**9)
    monkeypatch.setattr(pruned, "SHARES", (1e12, 1e12, 1e12))


def all_distances(queries, gallery):
    """Squared distances of all pairs in float64: (Q, G)."""
    difference = queries.astype(np.float64)[:, None, :] - gallery.astype(np.float64)[None, :, :]
    return (difference**2).sum(axis=2)


def assert_nearest(found, queries, gallery, kappa, *, relative=1e-5):
    """Hold an answer against the definition. Which of several equally near rows was taken is left open."""
    every = all_distances(queries, gallery)
    expected = np.sort(every, axis=1)[:, :kappa]
    assert found.distances.shape == found.indices.shape == (len(queries), kappa)
    assert found.distances.dtype == np.float64
    assert found.indices.dtype == np.int64
    np.testing.assert_allclose(found.distances, expected, rtol=relative, atol=0)
    assert (np.diff(found.distances, axis=1) >= 0).all(), "not nearest first"
    assert ((found.indices >= 0) & (found.indices < len(gallery))).all(), "an index outside the gallery"
    assert all(len(set(row)) == kappa for row in found.indices.tolist()), "a row of the gallery twice"
    recomputed = np.take_along_axis(every, found.indices, axis=1)
    np.testing.assert_allclose(recomputed, found.distances, rtol=relative, atol=0)


def _noise(queries, rows, channels=6):
    return RNG.normal(size=(queries, channels)).astype(np.float32), RNG.normal(size=(rows, channels)).astype(np.float32)


def _duplicates():
    queries, gallery = _noise(9, 12)
    return np.concatenate([queries, gallery[:4]]), np.concatenate([gallery, gallery, gallery[::-1]])


def _zero_rows():
    queries, gallery = _noise(8, 20)
    queries[::3] = 0
    gallery[::4] = 0
    return queries, gallery


def _all_equal():
    return np.full((5, 4), 3.25, np.float32), np.full((17, 4), 3.25, np.float32)


def _integer_grid():
    grid = np.array(list(itertools.product(range(-2, 3), repeat=2)), np.float32)
    return np.concatenate([grid, grid + 0.5]).astype(np.float32), grid


def _huge_offset():
    queries, gallery = _noise(10, 30, 8)
    return (queries * 1e-2 + 1e4).astype(np.float32), (gallery * 1e-2 + 1e4).astype(np.float32)


def _two_far_clusters():
    queries, gallery = _noise(10, 30, 8)
    side = np.float32(1e4) * np.where(np.arange(30) % 2, 1, -1)[:, None].astype(np.float32)
    return queries + np.float32(1e4), (gallery + side).astype(np.float32)


def _scaled(factor):
    queries, gallery = _noise(10, 30)
    return (queries * factor).astype(np.float32), (gallery * factor).astype(np.float32)


def _outlier(factor):
    queries, gallery = _noise(10, 30)
    gallery[11] *= np.float32(factor)
    queries[3] *= np.float32(factor)
    return queries, gallery


def _from_float16():
    queries, gallery = _noise(12, 33, 16)
    return queries, gallery.astype(np.float16).astype(np.float32)


CASES = {
    "random": lambda: _noise(13, 37),
    "one query": lambda: _noise(1, 37),
    "one channel": lambda: _noise(7, 23, 1),
    "one gallery row": lambda: _noise(7, 1),
    "duplicates": _duplicates,
    "all-zero rows": _zero_rows,
    "all equal": _all_equal,
    "ties on a grid": _integer_grid,
    "huge offset": _huge_offset,
    "two far clusters": _two_far_clusters,
    "tiny": lambda: _scaled(1e-20),
    "near the smallest floats": lambda: _scaled(1e-40),
    "large": lambda: _scaled(1e15),
    "outlier": lambda: _outlier(1e15),
    "outlier that shrinks all others below float32": lambda: _outlier(1e30),
    "from float16": _from_float16,
}


@pytest.mark.parametrize("numbers", [8_000_000, 60, 1], ids=["one block", "partial last block", "row by row"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_nearest_is_the_definition(kernel, case, numbers, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK_NUMBERS", numbers)
    monkeypatch.setattr(blocked, "CHECK_NUMBERS", max(10, numbers))
    queries, gallery = CASES[case]()
    for kappa in sorted({1, min(3, len(gallery)), len(gallery)}):
        assert_nearest(get_kernel(kernel)(queries, gallery, kappa=kappa), queries, gallery, kappa)


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 11, 12, 13])
def test_no_row_is_lost_at_the_end_of_a_block(rows, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK_NUMBERS", 6 * 3)  # 6 rows a block for 3 queries
    gallery = np.arange(rows, dtype=np.float32)[:, None] * 10
    queries = np.full((3, 1), 10 * (rows - 1) + 1, np.float32)  # the nearest is the very last
    found = blocked.nearest(queries, gallery, kappa=1)
    assert found.indices.tolist() == [[rows - 1]] * 3
    assert found.distances.tolist() == [[1.0]] * 3


@pytest.mark.parametrize("kernel", KERNELS)
def test_three_points_by_hand(kernel):
    queries = np.array([[0, 0], [3, 4]], np.float32)
    gallery = np.array([[3, 4], [1, 0], [0, 0]], np.float32)
    found = get_kernel(kernel)(queries, gallery, kappa=2)
    assert found.distances.tolist() == [[0, 1], [0, 20]]
    assert found.indices.tolist() == [[2, 1], [0, 1]]


@pytest.mark.parametrize("numbers", [8_000_000, 40])
@pytest.mark.parametrize("kernel", KERNELS)
def test_ties_go_to_the_lower_index(kernel, numbers, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK_NUMBERS", numbers)
    queries, gallery = _integer_grid()
    found = get_kernel(kernel)(queries, gallery, kappa=6)
    every = all_distances(queries, gallery)
    assert found.indices.tolist() == np.argsort(every, axis=1, kind="stable")[:, :6].tolist()


@pytest.mark.parametrize("kappa", [1, 3])
def test_thousands_of_copies_are_not_compared_one_by_one(kappa, monkeypatch):
    checked = []
    real = blocked._distances
    monkeypatch.setattr(blocked, "_distances", lambda q, b, r, c: checked.append(len(r)) or real(q, b, r, c))
    gallery = np.zeros((3000, 4), np.float32)
    gallery[1234] = 1
    queries = np.concatenate([np.zeros((20, 4)), np.ones((1, 4))]).astype(np.float32)
    found = blocked.nearest(queries, gallery, kappa=kappa)
    assert_nearest(found, queries, gallery, kappa)
    assert found.indices[0].tolist() == list(range(kappa))
    assert found.indices[20, 0] == 1234
    assert sum(checked) <= 21 * (kappa + 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_any_memory_layout(kernel):
    wide_q, wide_g = _noise(14, 40, 12)
    plain_q, plain_g = wide_q[::2, ::2].copy(), wide_g[::-1, 1::2].copy()
    views = (wide_q[::2, ::2], wide_g[::-1, 1::2]), (np.asfortranarray(plain_q), np.asfortranarray(plain_g))
    expected = get_kernel(kernel)(plain_q, plain_g, kappa=3)
    for queries, gallery in views:
        queries.setflags(write=False)
        gallery.setflags(write=False)
        found = get_kernel(kernel)(queries, gallery, kappa=3)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_inputs_stay_as_they_were(kernel):
    queries, gallery = _noise(5, 9)
    before = queries.tobytes(), gallery.tobytes()
    get_kernel(kernel)(queries, gallery, kappa=2)
    assert (queries.tobytes(), gallery.tobytes()) == before


small_integers = st.integers(1, 4).flatmap(
    lambda channels: st.tuples(
        hnp.arrays(np.int8, st.tuples(st.integers(1, 5), st.just(channels)), elements=st.integers(-3, 3)),
        hnp.arrays(np.int8, st.tuples(st.integers(1, 12), st.just(channels)), elements=st.integers(-3, 3)),
    )
)


@settings(max_examples=150, deadline=None)
@given(small_integers, st.integers(1, 12), st.integers(1, 30))
def test_kernels_agree_to_the_index_on_whole_numbers(arrays, kappa, numbers):
    queries, gallery = (array.astype(np.float32) for array in arrays)
    kappa = min(kappa, len(gallery))
    before = blocked.BLOCK_NUMBERS
    blocked.BLOCK_NUMBERS = numbers
    try:
        found = blocked.nearest(queries, gallery, kappa=kappa)
    finally:
        blocked.BLOCK_NUMBERS = before
    expected = get_kernel("reference")(queries, gallery, kappa=kappa)
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.indices, expected.indices)


def test_merge_does_not_depend_on_order_or_grouping():
    queries, gallery = _integer_grid()
    cuts = [0, 4, 5, 11, len(gallery)]
    parts = []
    for start, stop in itertools.pairwise(cuts):
        found = get_kernel("reference")(queries, gallery[start:stop], kappa=min(4, stop - start))
        parts.append(Nearest(found.distances, found.indices + start))
    whole = get_kernel("reference")(queries, gallery, kappa=4)
    for order in itertools.permutations(parts):
        best = None
        for part in order:
            best = merge(best, part, kappa=4)
        np.testing.assert_array_equal(best.indices, whole.indices)
        np.testing.assert_array_equal(best.distances, whole.distances)
    a, b, c, d = parts
    paired = merge(merge(a, b, kappa=4), merge(c, d, kappa=4), kappa=4)
    np.testing.assert_array_equal(paired.indices, whole.indices)


def test_an_unknown_kernel_is_refused_with_the_names():
    with pytest.raises(InputError, match=r"kernel must be one of blocked, .*reference.*not 'fast'"):
        get_kernel("fast")


# ---------------------------------------------------------------- the comparison fails where it must


def _right():
    queries, gallery = _noise(11, 30)
    return queries, gallery, get_kernel("reference")(queries, gallery, kappa=3)


def _without_last_block(queries, gallery, right):
    return get_kernel("reference")(queries, gallery[:20], kappa=3)


def _with_a_root(queries, gallery, right):
    return Nearest(np.sqrt(right.distances), right.indices)


def _over_the_wrong_axis(queries, gallery, right):
    every = all_distances(queries, gallery)
    order = np.argsort(every, axis=0)[:3].T[: len(queries)]
    return Nearest(np.sort(every, axis=0)[:3].T[: len(queries)], order)


def _shifted(queries, gallery, right):
    return Nearest(right.distances, (right.indices + 1) % len(gallery))


def _twice_the_same(queries, gallery, right):
    return Nearest(right.distances[:, [0, 0, 2]], right.indices[:, [0, 0, 2]])


def _farthest_first(queries, gallery, right):
    return Nearest(right.distances[:, ::-1], right.indices[:, ::-1])


def _slightly_off(queries, gallery, right):
    return Nearest(right.distances * (1 + 1e-4), right.indices)


def _float32_by_the_binomial(queries, gallery, right):
    return Nearest(right.distances.astype(np.float32), right.indices)


WRONG = [_without_last_block, _with_a_root, _over_the_wrong_axis, _shifted, _twice_the_same, _farthest_first]
WRONG += [_slightly_off, _float32_by_the_binomial]


def test_the_comparison_accepts_the_right_answer():
    queries, gallery, right = _right()
    assert_nearest(right, queries, gallery, 3)


@pytest.mark.parametrize("wrong", WRONG)
def test_the_comparison_refuses_wrong_answers(wrong):
    queries, gallery, right = _right()
    answer = wrong(queries, gallery, right)
    with pytest.raises(AssertionError):
        assert_nearest(answer, queries, gallery, 3)


def test_the_comparison_refuses_float32_cancellation():
    queries, gallery = _huge_offset()
    products = (queries**2).sum(1)[:, None] - 2 * queries @ gallery.T + (gallery**2).sum(1)[None]
    index = products.argmin(axis=1)[:, None]
    naive = Nearest(np.maximum(np.take_along_axis(products, index, 1), 0).astype(np.float64), index)
    with pytest.raises(AssertionError):
        assert_nearest(naive, queries, gallery, 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_differences_beyond_float32(kernel):
    queries = np.array([[3e38, 0.0], [-3e38, 1e38]], np.float32)
    gallery = np.array([[-3e38, 0.0], [3e38, 3e38], [-3e38, -3e38]], np.float32)
    assert_nearest(get_kernel(kernel)(queries, gallery, kappa=2), queries, gallery, 2)
