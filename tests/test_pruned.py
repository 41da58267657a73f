"""The compiled search: on data chosen to defeat pruning and its margins, against the definition; and what it rests on, piece by piece."""

from __future__ import annotations

import numpy as np
import pytest
from test_kernels import CASES, assert_nearest

from spadework.kernels import blocked, looks, pruned
from spadework.kernels.axes import from_rows, learn_axes
from spadework.kernels.codes import RADIUS, QueryCodes, encode, layout_of, mean_squares, to_row
from spadework.pyramid import Geometry, descriptors

RNG = np.random.default_rng(11)
NO_GIVING_UP = (1e9, 1e9, 1e9)


@pytest.fixture
def always(monkeypatch):
    """No hand-over to another kernel: neither for few rows nor where nothing can be pruned."""
    monkeypatch.setattr(pruned, "FEW", 0)
    monkeypatch.setattr(pruned, "SHARES", NO_GIVING_UP)


def smooth(rows, channels, *, spread=1.0):
    """Descriptors as networks make them: most of the spread along few directions."""
    weights = spread * 0.9 ** np.arange(channels)
    turn, _ = np.linalg.qr(RNG.normal(size=(channels, channels)))
    return ((RNG.normal(size=(rows, channels)) * weights) @ turn).astype(np.float32)


# ---------------------------------------------------------------- flat rows, against the definition


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kappa", [1, 3, "all"])
def test_the_nasty_cases_of_all_kernels(case, kappa, always, monkeypatch):
    monkeypatch.setattr(pruned, "NOT_FOR", 10**9)
    queries, gallery = CASES[case]()
    kappa = len(gallery) if kappa == "all" else min(kappa, len(gallery))
    assert_nearest(pruned.nearest(queries, gallery, kappa=kappa), queries, gallery, kappa)


def _noise():
    return RNG.normal(size=(80, 700)).astype(np.float32), RNG.normal(size=(900, 700)).astype(np.float32)


def _few_directions():
    both = smooth(1100, 400)
    return both[:100], both[100:]


def _all_equal():
    return np.full((70, 33), 0.1, np.float32), np.full((500, 33), 0.1, np.float32)


def _far_outlier():
    both = smooth(700, 64)
    both[300] *= np.float32(1e12)
    both[5] *= np.float32(-1e12)
    return both[:60], both[60:]


def _outlying_query_among_outliers():
    both = smooth(700, 64)
    both[::7] += np.float32(1e6) * smooth(100, 64)
    return both[:60], both[60:]


def _queries_far_outside():
    """As at a defect: queries several times as far from the mean as any gallery row."""
    queries, gallery = _few_directions()
    queries[::2] *= np.float32(5)
    queries[1::4] *= np.float32(200)
    return queries, gallery


def _huge():
    queries, gallery = _few_directions()
    return queries * np.float32(1e17), gallery * np.float32(1e17)


def _tiny():
    queries, gallery = _few_directions()
    return queries * np.float32(1e-25), gallery * np.float32(1e-25)


def _ties_within_rounding():
    """Each gallery row a few units in the last place from another; queries far nearer to none of them than to the other."""
    base = smooth(60, 48)
    gallery = np.concatenate([base * np.float32(1 + k * 2.0**-23) for k in range(-4, 5)])
    return (base + np.float32(1e-3) * smooth(60, 48)).astype(np.float32), gallery


def _ties_within_a_code(apart=0.1):
    """Neighbours that differ by less than one code unit."""
    base = smooth(60, 300)
    unit = np.float32(np.linalg.norm(base, axis=1).max() / RADIUS * apart)
    gallery = np.concatenate([base + unit * RNG.normal(size=base.shape).astype(np.float32) for _ in range(8)])
    return base, gallery


def _on_a_circle():
    """All gallery rows at the very same distance but for rounding."""
    directions = RNG.normal(size=(400, 20))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.zeros((30, 20), np.float32), directions.astype(np.float32)


def _offset():
    queries, gallery = _few_directions()
    return queries + np.float32(3e3), gallery + np.float32(3e3)


def _background():
    """Half of the gallery is one row, and half of the queries are nearly it."""
    queries, gallery = _few_directions()
    gallery[::2] = gallery[0]
    queries[::2] = gallery[0] + np.float32(1e-3) * smooth(50, 400)
    return queries, gallery


ADVERSARIES = {
    "noise": _noise,
    "few directions": _few_directions,
    "all equal": _all_equal,
    "far outlier": _far_outlier,
    "outliers": _outlying_query_among_outliers,
    "queries far outside": _queries_far_outside,
    "huge": _huge,
    "tiny": _tiny,
    "ties within rounding": _ties_within_rounding,
    "ties within a code": _ties_within_a_code,
    "on a sphere": _on_a_circle,
    "offset": _offset,
    "background": _background,
}


@pytest.mark.parametrize("case", ADVERSARIES)
@pytest.mark.parametrize("kappa", [1, pytest.param(2, marks=pytest.mark.slow), 7])
def test_data_against_pruning(case, kappa, always):
    queries, gallery = ADVERSARIES[case]()
    assert_nearest(pruned.nearest(queries, gallery, kappa=kappa), queries, gallery, kappa)


@pytest.mark.parametrize("case", ADVERSARIES)
def test_with_handing_over_too(case, monkeypatch):
    monkeypatch.setattr(pruned, "FEW", 0)
    queries, gallery = ADVERSARIES[case]()
    assert_nearest(pruned.nearest(queries, gallery, kappa=2), queries, gallery, 2)


def test_ties_go_to_the_lower_index_among_copies(always):
    base = smooth(40, 30)
    gallery = np.concatenate([base, base[::-1], base])
    found = pruned.nearest(base, gallery, kappa=3)
    every = ((base[:, None].astype(np.float64) - gallery[None].astype(np.float64)) ** 2).sum(axis=2)
    assert found.indices.tolist() == np.argsort(every, axis=1, kind="stable")[:, :3].tolist()
    assert (found.distances == 0).all()


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 4095, 4096, 4097, 8200])
def test_no_row_is_lost_at_the_end_of_a_group_or_strip(rows, always):
    gallery = smooth(rows, 20)
    queries = gallery[[0, rows // 2, rows - 1]]
    found = pruned.nearest(queries, gallery, kappa=1)
    assert found.indices[:, 0].tolist() == [0, rows // 2, rows - 1]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_change_nothing(threads, always):
    queries, gallery = _few_directions()
    one, many = (pruned.nearest(queries, gallery, kappa=3, threads=n) for n in (1, threads))
    np.testing.assert_array_equal(one.distances, many.distances)
    np.testing.assert_array_equal(one.indices, many.indices)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("count", [1, 15, 64, 2352])
def test_pieces_are_all_queries_once_and_enough_for_all_threads(count, threads):
    edges = pruned.pieces(count, threads)
    assert edges[0] == 0 and edges[-1] == count and (np.diff(edges) > 0).all()
    assert len(edges) - 1 >= min(threads, count // 16)
    assert threads == 1 or edges[-1] - edges[-2] <= pruned.PIECE  # short at the end: nobody waits long for the last


@pytest.mark.slow
def test_where_nothing_can_be_pruned_the_search_gives_up(monkeypatch):
    monkeypatch.setattr(pruned, "FEW", 0)
    called = []
    real = blocked.nearest
    monkeypatch.setattr(blocked, "nearest", lambda *a, **k: called.append(1) or real(*a, **k))
    queries, gallery = _noise()
    assert_nearest(pruned.nearest(queries, gallery, kappa=1), queries, gallery, 1)
    assert called == [1]
    queries, gallery = smooth(600, 400), smooth(3000, 400)
    gallery[:600] = queries + np.float32(1e-3) * smooth(600, 400)
    assert_nearest(pruned.nearest(queries[:50], gallery, kappa=1), queries[:50], gallery, 1)
    assert called == [1]


# ---------------------------------------------------------------- pyramids


PYRAMIDS = {
    "paper's proportions": ((16, 16, 12), (8, 8, 24), (4, 4, 48)),
    "odd sides": ((13, 9, 7), (7, 5, 9), (4, 3, 11)),
    "flat": ((3, 21, 8), (2, 11, 5)),
    "one level": ((10, 8, 30),),
    "many channels": ((8, 8, 200), (4, 4, 400)),
    "one position": ((1, 1, 20),),
}


def make_levels(shapes, seed):
    """Smooth maps with something of their own at each place."""
    rng = np.random.default_rng(seed)
    levels = []
    for h, w, c in shapes:
        turn = np.random.default_rng(c).normal(size=(6, c))  # the same in all images
        y, x = np.mgrid[:h, :w] / max(h, w)
        waves = np.stack([np.sin(3 * y + i * x + 0.2 * rng.normal()) for i in range(6)], axis=-1)
        levels.append((waves @ turn + 0.1 * rng.normal(size=(h, w, c))).astype(np.float32))
    return levels


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("kappa", [1, 4])
@pytest.mark.parametrize("shapes", PYRAMIDS.values(), ids=PYRAMIDS)
def test_pyramids_against_the_definition(shapes, kappa, upsampling, monkeypatch):
    monkeypatch.setattr(pruned, "SHARES", NO_GIVING_UP)
    images = [make_levels(shapes, seed) for seed in range(7)]
    layout = layout_of(shapes, upsampling)
    geometry = Geometry(shapes)
    gallery = np.concatenate([descriptors(levels, upsampling=upsampling) for levels in images])
    axes = learn_axes(gallery, layout)
    coded = []
    for levels in images:
        record = geometry.pack(levels)
        coded.append(pruned.Coded(record, to_row(record, encode(record, layout, axes), layout, axes), axes))
    levels = make_levels(shapes, 100)
    queries = descriptors(levels, upsampling=upsampling)
    counts = pruned.Counts()
    found = pruned.search(geometry.pack(levels), layout, coded, layout, axes, kappa=kappa, threads=2, counts=counts)
    assert_nearest(found, queries, gallery, kappa, relative=1e-12)
    assert counts.pairs == len(queries) * len(gallery)
    assert counts.exact >= len(queries)


def test_positions_of_a_gallery_image_are_at_distance_zero_from_themselves(monkeypatch):
    """So interpolation here equals `pyramid.descriptors` to the last digit."""
    monkeypatch.setattr(pruned, "SHARES", NO_GIVING_UP)
    shapes = PYRAMIDS["odd sides"]
    levels = [level * np.float32(1.1) + np.float32(100) for level in make_levels(shapes, 0)]
    record, layout = Geometry(shapes).pack(levels), layout_of(shapes)
    rows = descriptors(levels)
    axes = learn_axes(rows, layout)
    coded = pruned.Coded(record, to_row(record, encode(record, layout, axes), layout, axes), axes)
    found = pruned.search(record, layout, [coded], layout, axes, kappa=1)
    assert (found.distances == 0).all()
    assert found.indices[:, 0].tolist() == list(range(len(rows)))


# ---------------------------------------------------------------- what it rests on


@pytest.mark.parametrize("case", ["few directions", "noise", "outliers", "far outlier", "offset", "tiny", "huge"])
def test_codes_never_tell_more_than_the_distance(case):
    """At each depth: distance of codes less what rounding moved is at most the true distance, in code units."""
    queries, gallery = ADVERSARIES[case]()
    layout = layout_of(((1, *gallery.shape),))
    axes = learn_axes(gallery, layout)
    own = encode(queries.reshape(-1), layout_of(((1, *queries.shape),)), axes)
    others = encode(gallery.reshape(-1), layout, axes)
    true = np.sqrt(((queries[:, None].astype(np.float64) - gallery[None].astype(np.float64)) ** 2).sum(2)) * axes.scale
    rounding = pruned.ROUNDING * axes.scale * (own.largest + others.largest)
    codes = QueryCodes.made_of(own, layout)
    for depth, edge in enumerate((16, 32, 128, 256)[: layout.depths]):
        kept = [i for i in range(edge) if i == edge - 1 or i not in (15, 31, 127)]  # all axes so far, the last rest
        a, b = own.codes[:, kept].astype(np.int64), others.codes[:, kept].astype(np.int64)
        apart = np.sqrt((((a[:, None] - b[None]) ** 2).sum(2)).astype(np.float64))
        errors = own.errors[:, depth][:, None] + others.errors[:, depth][None]
        assert (apart - errors <= true + rounding + looks.SLACK).all()
        np.testing.assert_array_equal((b * b).sum(1) // 2, others.halves[:, depth])
        np.testing.assert_array_equal((a * a).sum(1), codes.squares[:, depth])
        assert (own.errors[:, depth] <= 0.5 * np.sqrt(len(kept)) + 1e-9).all()
        assert (np.linalg.norm(b, axis=1) <= RADIUS + 10).all()  # so that no sum leaves int32


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_codes_between_corners_that_cancel_never_tell_more_than_the_distance(size):
    """Blended levels: the norm of a feature follows from products of its corners, unless these nearly cancel."""
    rng, shapes = np.random.default_rng(3), ((8, 8, 40), (4, 4, 200))
    record = rng.normal(size=sum(h * w * c for h, w, c in shapes)).astype(np.float32)
    coarse = record[8 * 8 * 40 :].reshape(4, 4, 200)
    far = rng.normal(size=200).astype(np.float32) * np.float32(size)
    coarse[1, 1], coarse[1, 2], coarse[2, 1], coarse[2, 2] = far, -far, -far, far + rng.normal(size=200) * 1e-3
    layout = layout_of(shapes)
    rows = descriptors(Geometry(shapes).unpack(record)).astype(np.float64)
    axes = learn_axes(rows.astype(np.float32), layout)
    coded = encode(record, layout, axes)
    true = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(2)) * axes.scale
    rounding = pruned.ROUNDING * axes.scale * 2 * coded.largest
    drawn_in = coded.factors > 1
    for depth, edge in enumerate((16, 32, 128, 256)[: layout.depths]):
        kept = [i for i in range(edge) if i == edge - 1 or i not in (15, 31, 127)]
        a = coded.codes[:, kept].astype(np.int64)
        apart = np.sqrt((((a[:, None] - a[None]) ** 2).sum(2)).astype(np.float64))
        errors = coded.errors[:, depth]
        assert (apart - errors[:, None] - errors[None] <= true + rounding + 2 * looks.SLACK).all()
    whole = np.sqrt(((rows - axes.mean) ** 2).sum(1)) * axes.scale
    norms = np.sqrt(2.0 * coded.halves[:, -1]) * coded.factors
    assert norms[~drawn_in] == pytest.approx(whole[~drawn_in], abs=0.5 * 16 + 1)


@pytest.mark.parametrize("case", ["few directions", "outliers", "far outlier", "queries far outside", "offset"])
def test_no_limit_excludes_a_pair_at_its_own_distance(case):
    """At each depth, with d the true distance of a pair: what the scan compares is at most the limit for d."""
    queries, gallery = ADVERSARIES[case]()
    layout = layout_of(((1, *gallery.shape),))
    axes = learn_axes(gallery, layout)
    own = encode(queries.reshape(-1), layout_of(((1, *queries.shape),)), axes)
    others = encode(gallery.reshape(-1), layout, axes)
    row = to_row(gallery.reshape(-1), others, layout, axes)
    largest = float(row[:64].view(np.float64)[5])
    codes = QueryCodes.made_of(own, layout)
    true = ((queries[:, None].astype(np.float64) - gallery[None].astype(np.float64)) ** 2).sum(2)
    rounding = pruned.ROUNDING * axes.scale * (own.largest + others.largest)
    assert (largest > 0) == bool((others.factors == 1).all())
    if case == "queries far outside":
        assert largest > 0
        assert own.factors.max() > 50
    for depth, edge in enumerate((16, 32, 128)[: layout.depths]):
        kept = [i for i in range(edge) if i == edge - 1 or i not in (15, 31)]
        dots = own.codes[:, kept].astype(np.int64) @ others.codes[:, kept].astype(np.int64).T
        values = others.halves[:, depth].astype(np.int64)[None] - dots
        for q in range(len(queries)):
            factor = own.factors[q] if largest > 0 else 1.0
            for g in range(0, len(gallery), 7):
                reach = looks.reach_of(true[q, g], axes.scale, rounding, factor)
                reach += factor * own.errors[q, depth] + others.errors[g, depth]
                assert values[q, g] <= looks.limit_of(reach, codes.squares[q, depth], factor, largest)


def test_queries_far_outside_are_pruned_too():
    """They are what inspection is about, and would cost the most."""
    queries, gallery = _queries_far_outside()
    layout, own = layout_of(((1, *gallery.shape),)), layout_of(((1, *queries.shape),))
    axes = learn_axes(gallery, layout)
    record = gallery.reshape(-1)
    coded = pruned.Coded(record, to_row(record, encode(record, layout, axes), layout, axes), axes)
    counts = pruned.Counts()
    pruned.search(queries.reshape(-1), own, [coded], layout, axes, kappa=1, counts=counts)
    assert counts.exact < 0.06 * counts.pairs


def test_the_codes_tell_much_of_the_distance():
    """A bound that is always zero would pass the test above."""
    queries, gallery = _few_directions()
    layout = layout_of(((1, *gallery.shape),))
    axes = learn_axes(gallery, layout)
    own = encode(queries.reshape(-1), layout_of(((1, *queries.shape),)), axes).codes.astype(np.int64)
    others = encode(gallery.reshape(-1), layout, axes).codes.astype(np.int64)
    kept = [i for i in range(128) if i not in (15, 31)]
    apart = np.sqrt(((own[:, None, kept] - others[None, :, kept]) ** 2).sum(2)) / axes.scale
    true = np.sqrt(((queries[:, None].astype(np.float64) - gallery[None].astype(np.float64)) ** 2).sum(2))
    assert np.median(apart / true) > 0.999


def test_bounds_that_are_too_tight_lose_neighbours_and_the_comparison_sees_it(always, monkeypatch):
    """Here by 20 code units, more than all that quantising moves."""
    queries, gallery = _ties_within_a_code(apart=3.0)
    real = pruned._Search.__init__

    def tight(self, *arguments):
        real(self, *arguments)
        self.bounds[:, :4] -= 20.0

    right = pruned.nearest(queries, gallery, kappa=1)
    monkeypatch.setattr(pruned._Search, "__init__", tight)
    lost = pruned.nearest(queries, gallery, kappa=1)
    assert (lost.distances > right.distances).any()


def test_axes_are_orthonormal_and_are_written_and_read():
    sample = smooth(500, 150)
    axes = learn_axes(sample, layout_of(((1, 10, 150),)))
    kept = axes.directions[:, :125]
    np.testing.assert_allclose(kept.T @ kept, np.eye(125), atol=1e-12)
    assert (axes.directions[:, 125:] == 0).all()  # whole vectors of columns are multiplied
    again = from_rows(axes.to_rows())
    for name in ("mean", "directions", "scale", "rest"):
        np.testing.assert_array_equal(getattr(again, name), getattr(axes, name))
    assert 0 <= axes.rest < 1e-6


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_axes_of_few_channels_are_written_and_read(channels):
    axes = learn_axes(smooth(20, channels), layout_of(((1, 10, channels),)))
    again = from_rows(axes.to_rows())
    assert (again.scale, again.rest) == (axes.scale, axes.rest)


@pytest.mark.parametrize("sample", [np.zeros((1, 9)), np.ones((50, 9)), np.eye(9)[:2], RNG.normal(size=(3, 9))])
def test_axes_of_hardly_anything(sample):
    axes = learn_axes(sample.astype(np.float32), layout_of(((1, 10, 9),)))
    assert np.isfinite(axes.directions).all()
    assert np.isfinite(axes.scale)
    gram = axes.directions.T @ axes.directions
    assert np.abs(gram - np.diag(np.round(np.diag(gram)))).max() < 1e-12


def test_copies_are_counted_in_reading_order():
    shapes = ((4, 4, 5),)
    level = smooth(16, 5).reshape(4, 4, 5)
    level[1, 2] = level[3, 3] = level[0, 1]
    record, layout = level.reshape(-1), layout_of(shapes)
    axes = learn_axes(level.reshape(16, 5), layout)
    row = to_row(record, encode(record, layout, axes), layout, axes)
    copies = row[layout.offsets[8] : layout.offsets[9]].view(np.int32)
    places = {int(p): int(c) for p, c in zip(layout.order, copies, strict=True)}
    assert {p: c for p, c in places.items() if c} == {6: 1, 15: 2}
    whole, rest = mean_squares(row)
    assert whole > 0
    assert 0 <= rest < whole


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["queries", "gallery"])
def test_what_is_not_finite_is_left_to_the_other_kernel(value, where, monkeypatch):
    monkeypatch.setattr(pruned, "FEW", 0)
    called = []
    monkeypatch.setattr(blocked, "nearest", lambda *a, **k: called.append(1))
    queries, gallery = smooth(257, 8), smooth(5000, 8)
    (queries if where == "queries" else gallery)[77, 3] = value
    pruned.nearest(queries, gallery, kappa=1)
    assert called == [1]


def test_read_only_and_other_types(always):
    queries, gallery = _few_directions()
    right = pruned.nearest(queries, gallery, kappa=2)
    for array in (queries, gallery):
        array.setflags(write=False)
    np.testing.assert_array_equal(pruned.nearest(queries, gallery, kappa=2).indices, right.indices)
    for kind in (np.float64, ">f4"):
        found = pruned.nearest(queries.astype(kind), gallery.astype(kind), kappa=2)
        np.testing.assert_array_equal(found.indices, right.indices)
    strided = np.asfortranarray(gallery)
    np.testing.assert_array_equal(pruned.nearest(queries[::-1], strided, kappa=2).indices, right.indices[::-1])


# ---------------------------------------------------------------- compiling


def test_cached_code_is_stale_when_any_file_that_may_be_inlined_changes(tmp_path):
    from spadework.kernels import compile as compiling
    from spadework.kernels import scanning

    assert scanning.scan.py_func.__qualname__ == f"scan_{compiling.SOURCES}"
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("x = 1\n")
    digests = {compiling.digest_of(tmp_path)}
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("x = 2\n")
        digests.add(compiling.digest_of(tmp_path))
    assert len(digests) == 3


def test_without_a_place_for_a_cache_it_compiles_all_the_same(monkeypatch):
    from spadework.kernels import compile as compiling

    real = compiling.numba.njit

    def njit(*arguments, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*arguments, **options)

    monkeypatch.setattr(compiling.numba, "njit", njit)
    assert compiling.compiled("int64(int64)")(lambda x: x + 1)(41) == 42


@pytest.mark.slow
def test_a_loaded_model_waits_for_nothing_to_compile(tmp_path):
    """So a server's first request does not."""
    import subprocess
    import sys

    from builders import tiny_model

    tiny_model(3).save(tmp_path / "m.spade")
    code = "import sys, spadework; before = 'numba' in sys.modules; spadework.load(sys.argv[1]); " + (
        "print(before, 'spadework.kernels.scanning' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.spade")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["False", "True"]
