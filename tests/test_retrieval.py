"""Nearest global vectors: the same rows and the same bits as comparing all of them in float64, whatever the data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders import append_parts_of, make_gallery, rng_of

from spadework import retrieval, sketches
from spadework.entries import Entries, Entry
from spadework.gallery import Gallery
from spadework.kernels import pruned
from spadework.retrieval import Retrieval
from spadework.sketches import AXES, ByteSketch, Sketch
from spadework.storage import ModelFolder


def oracle(rows, vector, k, exclude=None):
    """All distances at once, a stable sort."""
    difference = rows.astype(np.float64) - vector
    distances = np.einsum("ij,ij->i", difference, difference)
    order = np.argsort(distances, kind="stable")
    order = order[order != exclude][:k]
    return order, distances[order]


class Rows:
    """Rows that count how many of them are compared."""

    def __init__(self, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows, self.compared = rows, 0
        compare = retrieval._squared_distances

        def counting(part, *rest):
            self.compared += len(part)
            return compare(part, *rest)

        monkeypatch.setattr(retrieval, "_squared_distances", counting)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        return self.rows[start:stop]


@pytest.fixture
def at_once(monkeypatch):
    """A sketch at the first question, of however few rows; small pieces, so that several of each are crossed."""
    for name, value in {"FEW": 0, "PATIENCE": 0, "SAMPLE": 300, "PICKED": 16}.items():
        monkeypatch.setattr(retrieval, name, value)
    for name, value in {"BLOCK": 5000, "COLUMNS": 100}.items():
        monkeypatch.setattr(sketches, name, value)


def clusters(n: int, dimension: int, *, spread: float = 0.1) -> np.ndarray:
    rng = rng_of("clusters", n, dimension)
    scales = 1 / np.arange(1, dimension + 1)
    centres = rng.normal(size=(12, dimension)) * scales
    return (centres[rng.integers(12, size=n)] + spread * scales * rng.normal(size=(n, dimension))).astype(np.float32)


def with_outliers(far: float, *, every: int = 900, scale: float = 1) -> np.ndarray:
    rows = clusters(1500, 60) * np.float32(scale)
    rows[every // 2 :: every] = far * np.sign(rng_of("outliers").normal(size=rows[every // 2 :: every].shape))
    return rows


DATA = {
    "random": lambda: rng_of("random").normal(size=(900, 200)).astype(np.float32),
    "clusters": lambda: clusters(1500, 60),
    "fewer numbers than axes": lambda: clusters(1500, 7),
    "one number": lambda: rng_of("one").integers(0, 40, size=(800, 1)).astype(np.float32),
    "duplicates": lambda: np.repeat(clusters(100, 60), 12, axis=0)[rng_of("order").permutation(1200)],
    "ties": lambda: rng_of("ties").integers(0, 2, size=(1500, 40)).astype(np.float32),
    "all the same": lambda: np.full((700, 50), 3.25, np.float32),
    "huge offset": lambda: clusters(1500, 60) + np.float32(1e5),
    "tiny": lambda: clusters(1500, 60) * np.float32(1e-30),
    "below float32's normal range": lambda: clusters(1500, 60) * np.float32(1e-42),
    "huge": lambda: clusters(1500, 60) * np.float32(1e15),
    "near float32's limit": lambda: clusters(1500, 60) * np.float32(1e37),
    "one outlier": lambda: with_outliers(1e6),
    "one outlier beyond any": lambda: with_outliers(3e38, scale=1e-30),
    "many outliers": lambda: with_outliers(1e9, every=20),
}
EASY = {"clusters", "fewer numbers than axes", "tiny", "huge", "near float32's limit", "one outlier", "many outliers"}


def questions(rows: np.ndarray) -> list[np.ndarray]:
    rng = rng_of("questions", rows.shape)
    near = rows[5] + (rows[5] - rows[6]) * rng.random(rows.shape[1], np.float32) / 8
    return [rows[3], rows[len(rows) // 2], near, rows.mean(axis=0, dtype=np.float64).astype(np.float32), rows[0] * 0]


@pytest.fixture(params=["compiled", "NumPy", "bytes", "bytes, NumPy"])
def way(request, monkeypatch):
    """How sketches are compared: where Numba is there, and where it is not; and where rows are many enough for bytes."""
    monkeypatch.setattr(pruned, "is_usable", lambda: not request.param.endswith("NumPy"))
    if request.param.startswith("bytes"):
        in_bytes(monkeypatch)
    return request.param


def in_bytes(monkeypatch, **changed):
    for name, value in ({"BYTES_FROM": 0, "BYTE_AXES": 8, "CLOSELY": 50} | changed).items():
        monkeypatch.setattr(retrieval if hasattr(retrieval, name) else sketches, name, value)


@pytest.mark.parametrize("name", DATA)
def test_answers_are_those_of_comparing_all_to_the_bit(name, at_once, way, monkeypatch):
    rows = DATA[name]()
    read = Rows(rows, monkeypatch)
    asked = Retrieval(read, len(rows))
    for vector in questions(rows):
        for k, exclude in ((1, None), (1, 3), (10, None), (10, 3), (60, len(rows) - 1), (len(rows) + 5, 0)):
            with np.errstate(over="raise", invalid="raise"):
                found, expected = asked.nearest(vector, k, exclude=exclude), oracle(rows, vector, k, exclude)
            assert found[0].tolist() == expected[0].tolist()
            assert found[1].tobytes() == expected[1].tobytes()
            assert (found[0].dtype, found[1].dtype) == (np.int64, np.float64)


@pytest.mark.parametrize("name", DATA)
def test_no_bound_is_above_its_distance(name, at_once, way):
    rows = DATA[name]()
    kind = ByteSketch if way.startswith("bytes") else Sketch
    sketch = kind.learn(rows[:300]).extend(lambda start, stop: rows[start:stop], len(rows))
    np.testing.assert_allclose(sketch.axes @ sketch.axes.T, np.eye(len(sketch.axes)), atol=1e-13)
    chosen = rng_of("chosen", name).permutation(len(rows))[:120]
    for vector in questions(rows):
        exact = np.sqrt(oracle_distances(rows, vector)) / np.longdouble(sketch.unit)
        bounds, closer = sketch.bounds(vector)
        assert (bounds <= exact).all()
        if closer is not None:
            assert (closer(chosen, np.float32(np.inf)) <= exact[chosen]).all()


def test_outliers_cost_the_others_no_axes(at_once):
    rows = DATA["many outliers"]()
    sketch = Sketch.learn(rows[:300]).extend(lambda start, stop: rows[start:stop], len(rows))
    exact = np.sqrt(oracle_distances(rows, rows[3]))
    near = (exact > 0) & (exact < 100)
    share = sketch.bounds(rows[3])[0][near] * sketch.unit / exact[near]
    assert np.median(share) > 0.9


@pytest.mark.parametrize("steep", [1.0, 1e-1, 1e-3])
def test_axes_are_orthonormal_also_where_rows_nearly_coincide(steep):
    rng = rng_of("axes", steep)
    rows = rng.normal(size=(20, 20)) @ (steep ** np.arange(20)[:, None] * rng.normal(size=(20, 300)))
    axes = sketches._orthonormal(rows)
    assert 2 <= len(axes) <= 20
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-13)


def oracle_distances(rows, vector):
    return ((rows.astype(np.longdouble) - vector) ** 2).sum(axis=1)


@pytest.mark.parametrize("name", sorted(EASY))
def test_few_rows_are_compared_where_there_is_structure(name, at_once, monkeypatch):
    rows = DATA[name]()
    read = Rows(rows, monkeypatch)
    asked = Retrieval(read, len(rows))
    asked.nearest(rows[3], 10)
    assert 10 < read.compared < len(rows) / 4


def test_data_without_structure_cost_no_more_than_comparing_all(at_once, monkeypatch):
    rows = DATA["random"]()
    read = Rows(rows, monkeypatch)
    Retrieval(read, len(rows)).nearest(rows[3], 10)
    assert read.compared == len(rows) + 20


def two_spheres(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows around two places far from the median, all about equally far from theirs: float32 cannot tell their sketches' distances apart."""
    directions = rng_of("two spheres", n).normal(size=(n, 8))
    rows = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    places = np.array([np.full(8, 100.0), np.full(8, -100.0)])
    return (rows + places[np.arange(n) % 2]).astype(np.float32), places.astype(np.float32)


def wrong_answers() -> int:
    """How many of 20 questions."""
    rows, places = two_spheres(2000)
    asked = Retrieval(lambda start, stop: rows[start:stop], len(rows))
    ks = range(1, 11)
    return sum(
        asked.nearest(place, k)[0].tolist() != oracle(rows, place, k)[0].tolist() for place in places for k in ks
    )


def test_without_its_margin_neighbours_would_be_lost(at_once, monkeypatch):
    monkeypatch.setattr(retrieval, "HOPELESS", 0.6)
    assert wrong_answers() == 0
    monkeypatch.setattr(sketches, "ROUNDOFF", 0.0)
    assert wrong_answers() > 0


def test_bytes_bound_closely_what_axes_do_not(at_once, monkeypatch):
    in_bytes(monkeypatch, BYTE_AXES=1)
    rows = clusters(1500, 60, spread=0.5)
    sketch = ByteSketch.learn(rows[:300]).extend(lambda start, stop: rows[start:stop], 1500)
    exact = np.sqrt(oracle_distances(rows, rows[3])).astype(float)[4:] / sketch.unit
    bounds, closer = sketch.bounds(rows[3])
    assert np.median(1 - closer(np.arange(4, 1500), np.float32(np.inf)) / exact) < 0.2 * np.median(
        1 - bounds[4:] / exact
    )


def test_without_the_blur_of_bytes_neighbours_would_be_lost(at_once, monkeypatch):
    in_bytes(monkeypatch, STEPS=2, HOPELESS=1.0, BYTE_AXES=1)
    rows = clusters(1500, 60, spread=0.5)

    def wrong() -> int:
        return sum(asked.nearest(rows[i], 10)[0].tolist() != oracle(rows, rows[i], 10)[0].tolist() for i in range(40))

    asked = Retrieval(lambda start, stop: rows[start:stop], 1500)
    assert wrong() == 0
    asked._sketch.blur[:] = asked._sketch.byte_blur[:] = 0
    assert wrong() > 0


def test_bytes_come_when_rows_are_many(at_once, monkeypatch):
    in_bytes(monkeypatch, BYTES_FROM=1200)
    rows = clusters(1500, 60)
    asked = Retrieval(lambda start, stop: rows[start:stop], 1000)
    for count in (1000, 1300, 1500):
        asked.resize(count)
        found = asked.nearest(rows[7], 5)
        assert found[0].tolist() == oracle(rows[:count], rows[7], 5)[0].tolist()
        assert isinstance(asked._sketch, ByteSketch) == (count >= 1200)
    assert asked._sketch.bytes.shape == (1500, 60)
    assert asked._sketch.bytes.dtype == np.int8


@pytest.mark.parametrize("as_bytes", [False, True])
def test_appended_rows_join_the_sketch_on_the_same_axes(at_once, monkeypatch, as_bytes):
    if as_bytes:
        in_bytes(monkeypatch)
    rows = clusters(1500, 60)
    reads = []

    def read(start, stop):
        reads.append((start, stop))
        return rows[start:stop]

    asked = Retrieval(read, 1000)
    asked.nearest(rows[1400], 5)
    axes = asked._sketch.axes
    reads.clear()
    asked.resize(1500)
    found = asked.nearest(rows[1400], 5)
    assert found[0].tolist() == oracle(rows, rows[1400], 5)[0].tolist()
    assert found[0][0] == 1400
    assert asked._sketch.axes is axes
    streamed = sorted({start for start, stop in reads} - {0})
    assert streamed[0] == 1000  # those sketched before are not read again but to be compared


def test_rows_that_went_are_forgotten(at_once):
    rows = clusters(1500, 60)
    asked = Retrieval(lambda start, stop: rows[start:stop], 1500)
    asked.nearest(rows[0], 5)
    asked.resize(1000)
    rows[1000:] = rows[0]  # other rows come in their place
    assert asked.nearest(rows[0], 5)[0].tolist() == oracle(rows[:1000], rows[0], 5)[0].tolist()
    asked.resize(1500)
    assert asked.nearest(rows[0], 5)[0].tolist() == [0, 1000, 1001, 1002, 1003]


def test_a_sketch_is_made_when_it_pays(monkeypatch):
    monkeypatch.setattr(retrieval, "FEW", 1000 * 60)
    rows = clusters(1500, 60)

    def sketched(n: int, times: int) -> bool:
        asked = Retrieval(lambda start, stop: rows[start:stop], n)
        for _ in range(times):
            asked.nearest(rows[0], 5)
        return asked._sketch is not None

    assert sketched(1001, retrieval.PATIENCE + 1)
    assert not sketched(1001, retrieval.PATIENCE)
    assert not sketched(1000, 50)


def test_a_sketch_is_small():
    rows = clusters(3000, 384)
    sketch = Sketch.learn(rows[:100]).extend(lambda start, stop: rows[start:stop], 3000)
    assert sketch.places.nbytes + sketch.slack.nbytes == 3000 * 4 * (AXES + 2)


@pytest.mark.parametrize("kind", ["drawn", "all the same", "in steps", "lowest first", "few"])
def test_the_lowest_bounds_are_those_of_a_whole_sort(kind):
    rng = np.random.default_rng(0)
    bounds = rng.random(50 if kind == "few" else 5000).astype(np.float32)
    if kind == "all the same":
        bounds[:] = 0.5
    elif kind == "in steps":  # as seldom as can be where they are looked at
        bounds[:: retrieval.STEP] = 2.0
    elif kind == "lowest first":
        bounds.sort()
    for count in (1, 20, 40):
        found = retrieval._lowest(bounds, count)
        assert len(np.unique(found)) == count
        np.testing.assert_array_equal(np.sort(bounds[found]), np.sort(bounds)[:count])


def test_nothing_to_find():
    rows = clusters(1, 4)
    empty = Retrieval(lambda start, stop: rows[start:stop], 0)
    assert [part.tolist() for part in empty.nearest(rows[0], 3)] == [[], []]
    assert [part.tolist() for part in Retrieval(empty._read, 1).nearest(rows[0], 3, exclude=0)] == [[], []]


# ---------------------------------------------------------------- in a gallery


def test_a_gallery_that_grows_answers_as_if_it_were_compared_whole(tmp_path, at_once, monkeypatch):
    monkeypatch.setattr(retrieval, "HOPELESS", 1.0)
    gallery = make_gallery(tmp_path / "g.spade", 40)
    for n in (40, 43):
        assert isinstance(gallery.globals, np.memmap)
        rows = np.array(gallery.globals)
        assert len(rows) == n
        for index in (0, n - 1):
            found, expected = gallery.nearest_images(rows[index], 4, exclude=1), oracle(rows, rows[index], 4, 1)
            assert (found[0].tolist(), found[1].tolist()) == (expected[0].tolist(), expected[1].tolist())
        assert len(gallery._retrieval._sketch) == n
        append_parts_of(gallery, range(n, n + 3))


def test_entries_are_a_sequence_and_read_only_what_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("spadework.entries.BLOCK_BYTES", 100)
    monkeypatch.setattr("spadework.entries.LINES", 3)
    made = make_gallery(tmp_path / "g.spade", 7)
    folder = made.folder
    whole = [Entry.from_json(line) for line in folder.read("entries").tobytes().splitlines()]
    entries = Gallery(ModelFolder.open(folder.path)).entries
    assert len(entries) == 7
    assert list(entries) == [entries[i] for i in range(7)] == entries[:] == whole
    assert (entries[-1], entries[np.int64(2)], entries[2:4]) == (whole[6], whole[2], whole[2:4])
    assert whole[3] in entries
    with pytest.raises(IndexError):
        entries[7]
    assert list(made.entries[5:]) == whole[5:]

    reads = []

    def read(start, stop):
        reads.append(stop - start)
        return folder.read("entries", start, stop)

    lazy = Entries(read, folder.rows("entries"))
    reads.clear()
    assert json.loads(folder.read("entries").tobytes().splitlines()[4])["name"] == lazy[4].name
    assert len(reads) == 1
    assert reads[0] < 200


def test_no_entries():
    assert list(Entries(lambda start, stop: np.zeros(stop - start, np.uint8), 0)) == []
