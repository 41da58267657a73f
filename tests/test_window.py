"""The search within a window around the same place: against loops over the definition, on data chosen to hurt."""

from __future__ import annotations

import numpy as np
import pytest
from builders import SHAPES, make_gallery, make_pyramid
from test_correspondence import describe

from spadework.correspondence import correspond
from spadework.kernels import KERNELS, Nearest, blocked, pruned, reference, window
from spadework.kernels.axes import learn_axes
from spadework.kernels.codes import encode, layout_of, to_row
from spadework.kernels.window import Window
from spadework.pyramid import Geometry, descriptors

RNG = np.random.default_rng(23)
GRIDS = {
    "small": SHAPES,
    "one level": ((3, 9, 7),),
    "blocks cut at the border": ((13, 11, 20), (7, 6, 30)),
    "four depths": ((10, 12, 300), (5, 6, 300)),
    "one row": ((1, 23, 5),),
    "one place": ((1, 1, 4),),
}
WINDOWS = [(0.0, 0.0), (0.12, 0.12), (0.31, 0.2), (0.5, 0.001), (0.4, 1.7)]


def inside(grid, own, other, half):
    """Whether a place lies in the window of another, by the definition: half its height and width in shares of the grid."""
    away = [abs(a - b) / side for a, b, side in zip(own, other, grid, strict=True)]
    if any(step > 0 and size == 0 for step, size in zip(away, half, strict=True)):
        return False
    return sum((step / size) ** 2 for step, size in zip(away, half, strict=True) if step > 0) <= 1 + 1e-7


def definition(queries, galleries, grid, half, kappa) -> Nearest:
    """Float64 loops over all pairs; infinite where the window holds fewer than kappa."""
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    distances, indices = np.full((len(places), kappa), np.inf), np.full((len(places), kappa), blocked.NONE)
    for q, own in enumerate(places):
        found = []
        for image, gallery in enumerate(galleries):
            for g, other in enumerate(places):
                if inside(grid, own, other, half):
                    difference = queries[q].astype(np.float64) - gallery[g].astype(np.float64)
                    found.append((float((difference * difference).sum()), image * len(places) + g))
        for k, (distance, index) in enumerate(sorted(found)[:kappa]):
            distances[q, k], indices[q, k] = distance, index
    return Nearest(distances, indices)


def assert_same(found: Nearest, expected: Nearest) -> None:
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-9)
    assert (found.distances[:, 1:] >= found.distances[:, :-1]).all(), "not nearest first"
    differ = found.indices != expected.indices  # only where computed distances tie to the last digits
    for row, place in zip(*np.nonzero(differ), strict=True):
        near = np.abs(expected.distances[row] - expected.distances[row, place]) <= 1e-9 * expected.distances[row, place]
        assert near.sum() > 1 or place == found.indices.shape[1] - 1, "another match, without a tie"
    assert differ.mean() < 0.01


def smooth_records(shapes, n, *, spread=1.0):
    return [
        np.concatenate(
            [(RNG.normal(size=s) * spread * 0.9 ** np.arange(s[2])).astype(np.float32).ravel() for s in shapes]
        )
        for _ in range(n)
    ]


def prepare(records, shapes):
    layout, geometry = layout_of(shapes), Geometry(shapes)
    rows = [descriptors(geometry.unpack(record)) for record in records]
    axes = learn_axes(np.concatenate(rows), layout)
    coded = [pruned.Coded(r, to_row(r, encode(r, layout, axes), layout, axes), axes) for r in records]
    return layout, axes, coded, rows


def both(query, records, shapes, half, kappa):
    layout, axes, coded, rows = prepare(records, shapes)
    found = window.search(query, coded, layout, axes, Window(*half), kappa=kappa)
    own = descriptors(Geometry(shapes).unpack(query))
    return found, definition(own, rows, layout.grid, half, kappa)


# ---------------------------------------------------------------- the compiled search


@pytest.mark.parametrize("kappa", [1, 3])
@pytest.mark.parametrize("half", WINDOWS)
@pytest.mark.parametrize("shapes", GRIDS.values(), ids=GRIDS)
def test_it_answers_as_the_definition(shapes, half, kappa):
    query, *records = smooth_records(shapes, 4)
    assert_same(*both(query, records, shapes, half, kappa))


def test_windows_that_hold_fewer_than_kappa_leave_places_empty():
    shapes = GRIDS["small"]
    query, *records = smooth_records(shapes, 3)
    found, expected = both(query, records, shapes, (0.3, 0.25), 9)
    assert_same(found, expected)
    assert np.isinf(found.distances).any()
    assert np.isfinite(found.distances).any(axis=1).all()
    assert (found.indices[np.isinf(found.distances)] == blocked.NONE).all()


def test_copies_outside_the_window_stand_for_none_inside():
    """Plain ground: the first copies of a descriptor lie at the top, and the window of the bottom has others."""
    shapes = GRIDS["blocks cut at the border"]
    query, record = smooth_records(shapes, 2)
    plain = np.concatenate([np.full(s, 0.25, np.float32).ravel() for s in shapes])
    found, expected = both(plain, [plain, record, plain], shapes, (0.2, 0.2), 3)
    np.testing.assert_array_equal(found.indices, expected.indices)  # exact ties go to the lower index
    assert (found.distances == 0).all()
    assert_same(*both(query, [plain, record, plain], shapes, (0.2, 0.2), 3))


@pytest.mark.parametrize("kappa", [1, 4])
def test_outliers_in_the_picture_and_in_the_gallery(kappa):
    shapes = GRIDS["four depths"]
    query, *records = smooth_records(shapes, 4)
    query[::7] *= np.float32(200)
    records[1][3000:3300] *= np.float32(1e4)
    assert_same(*both(query, records, shapes, (0.25, 0.25), kappa))


def test_noise_that_nothing_can_be_pruned_of():
    shapes = GRIDS["four depths"]
    query, *records = [RNG.normal(size=Geometry(shapes).length).astype(np.float32) for _ in range(3)]
    assert_same(*both(query, records, shapes, (0.3, 0.3), 2))


def test_a_picture_of_the_gallery_finds_itself():
    shapes = GRIDS["blocks cut at the border"]
    records = smooth_records(shapes, 3)
    found, expected = both(records[1], records, shapes, (0.0, 0.0), 1)
    assert (found.distances == 0).all()
    np.testing.assert_array_equal(found.indices, expected.indices)


def test_threads_change_nothing():
    shapes = GRIDS["blocks cut at the border"]
    query, *records = smooth_records(shapes, 4)
    layout, axes, coded, _ = prepare(records, shapes)
    answers = [
        window.search(query, coded, layout, axes, Window(0.3, 0.3), kappa=3, threads=threads) for threads in (1, 2, 5)
    ]
    for other in answers[1:]:
        np.testing.assert_array_equal(other.distances, answers[0].distances)
        np.testing.assert_array_equal(other.indices, answers[0].indices)


def test_features_that_are_no_numbers_are_left_to_others():
    shapes = GRIDS["small"]
    query, *records = smooth_records(shapes, 3)
    layout, axes, coded, _ = prepare(records, shapes)
    query[5] = np.nan
    assert window.search(query, coded, layout, axes, Window(0.3, 0.3), kappa=1) is None


def test_the_comparison_here_fails_on_wrong_answers():
    shapes = GRIDS["blocks cut at the border"]
    query, *records = smooth_records(shapes, 3)
    found, _ = both(query, records, shapes, (0.2, 0.2), 2)
    _, other = both(query, records, shapes, (0.3, 0.3), 2)
    with pytest.raises(AssertionError):
        assert_same(found, other)
    with pytest.raises(AssertionError, match="another match"):
        assert_same(Nearest(found.distances, found.indices[:, ::-1]), found)


# ---------------------------------------------------------------- windows


def test_how_far_a_window_goes():
    assert Window(0, 0).reach((8, 8)).tolist() == [0]
    assert Window(2 / 8, 3 / 8).reach((8, 8)).tolist() == [3, 2, 0]  # an edge belongs to it, whatever the last digit
    assert Window(0.99 / 8, 5 / 8).reach((8, 8)).tolist() == [5]
    assert Window(9, 9).reach((4, 5)).tolist()[:4] == [10, 10, 10, 10]


def test_when_a_window_covers_all():
    assert Window(9, 9).covers((4, 5))
    assert not Window(0.9, 0.9).covers((4, 5))
    assert Window(0, 0).covers((1, 1))
    assert not Window(0, 9).covers((2, 5))


# ---------------------------------------------------------------- correspondence


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return make_gallery(tmp_path_factory.mktemp("gallery") / "g.spade", 5)


@pytest.mark.parametrize("kernel", [*KERNELS, "auto"])
@pytest.mark.parametrize(("half", "kappa"), [((0.3, 0.25), 1), ((0.3, 0.45), 3), ((0.0, 0.0), 4), ((3.0, 3.0), 2)])
def test_correspondence_within_a_window(gallery, half, kappa, kernel):
    grid, images = SHAPES[0][:2], [3, 0, 4]
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]

    def rows(index):
        levels = make_pyramid(index).levels
        return np.array([describe(levels, y, x, "bilinear") for y, x in places])

    expected = definition(rows(100), [rows(image) for image in images], grid, half, kappa)
    found = correspond(make_pyramid(100).levels, gallery, images, kappa=kappa, kernel=kernel, within=Window(*half))
    means = np.nanmean(np.where(np.isinf(expected.distances), np.nan, expected.distances), axis=1)
    np.testing.assert_allclose(found.distances.ravel(), means, rtol=1e-5)
    np.testing.assert_allclose(found.nearest.ravel(), expected.distances[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(found.images.ravel(), np.array(images)[expected.indices[:, 0] // len(places)])
    np.testing.assert_array_equal(found.positions.ravel(), expected.indices[:, 0] % len(places))


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_ensemble_has_the_window_on_each_grid(gallery, kernel):
    levels, images, half = make_pyramid(100).levels, [0, 2, 3], (0.3, 0.45)
    found = correspond(levels, gallery, images, pyramid="ensemble", kernel=kernel, within=Window(*half))
    finest = definition(
        levels[0].reshape(-1, 3),
        [make_pyramid(image).levels[0].reshape(-1, 3) for image in images],
        SHAPES[0][:2],
        half,
        1,
    )
    np.testing.assert_allclose(found.nearest.ravel(), finest.distances[:, 0], rtol=1e-5)
    whole = correspond(levels, gallery, images, pyramid="ensemble", kernel=kernel)
    assert (found.distances >= whole.distances - 1e-9).all()
    assert (found.distances > whole.distances).any()


def test_memory_blocks_change_nothing(gallery, monkeypatch):
    from spadework import correspondence

    levels, images, within = make_pyramid(100).levels, [4, 0, 3, 1, 2], Window(0.3, 0.3)
    whole = correspond(levels, gallery, images, kappa=3, kernel="blocked", within=within)
    monkeypatch.setattr(correspondence, "BLOCK_BYTES", 20 * 9 * 4 * 2 + 1)
    parts = correspond(levels, gallery, images, kappa=3, kernel="blocked", within=within)
    for name in ("distances", "images", "positions", "nearest"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_a_window_over_everything_is_the_whole_search(gallery):
    levels = make_pyramid(100).levels
    whole = correspond(levels, gallery, range(5), kappa=2)
    found = correspond(levels, gallery, range(5), kappa=2, within=Window(1.5, 1.5))
    for name in ("distances", "images", "positions", "nearest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert reference.is_usable()
