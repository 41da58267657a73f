"""The search index in a model: what is stored is what would be made, damage is seen, old models work, worn axes are renewed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from builders import answers, append_to, make_gallery, make_pyramid, normal_pictures, tiny_model, write_pictures
from test_cli import only_json, run

from spadework import Spade, retrieval, search_index
from spadework import gallery as gallery_module
from spadework.correspondence import correspond
from spadework.errors import ModelError
from spadework.gallery import Gallery
from spadework.kernels import blocked, pruned
from spadework.kernels.codes import encode, to_row
from spadework.search_index import LEARN_FROM
from spadework.storage import ModelFolder

SHAPES = ((8, 8, 20), (4, 4, 12))


@pytest.fixture(autouse=True)
def learnt_early(monkeypatch):
    """Axes are learnt from a few images, so that the tests need no more."""
    monkeypatch.setattr(gallery_module, "LEARN_FROM", 16)


@pytest.fixture(autouse=True)
def no_giving_up(monkeypatch):
    monkeypatch.setattr(pruned, "SHARES", (1e9, 1e9, 1e9))


@pytest.fixture
def gallery(tmp_path):
    made = make_gallery(tmp_path / "g.spade", 20, shapes=SHAPES)
    made.complete()
    made.folder.commit()
    made.refresh()
    return made


def same_as_blocked(gallery, images, **options):
    levels = make_pyramid(100, SHAPES).levels
    found = correspond(levels, gallery, images, kernel="pruned", **options)
    expected = correspond(levels, gallery, images, kernel="blocked", **options)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-12)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.positions, expected.positions)


def test_every_image_has_the_row_that_its_record_gives(gallery):
    index = gallery.index("bilinear")
    assert index.is_stored
    assert gallery.folder.rows("codes") == gallery.folder.rows("code_checks") == 20
    for image in range(20):
        record = np.array(gallery.record(image))
        row = to_row(record, encode(record, index.layout, index.axes), index.layout, index.axes)
        np.testing.assert_array_equal(gallery.folder.read("codes", image, image + 1)[0], row)


@pytest.mark.parametrize(
    "upsampling", ["bilinear", "nearest"]
)  # the index is for bilinear: the other is made as needed
@pytest.mark.parametrize("images", [range(20), [19, 3], [7]])
def test_the_index_gives_the_definition(gallery, images, upsampling):
    same_as_blocked(gallery, images, upsampling=upsampling, kappa=2)


def test_a_search_really_uses_what_is_stored(gallery, monkeypatch):
    monkeypatch.setattr(search_index, "encode", None)  # whoever codes an image of the gallery fails
    monkeypatch.setattr(search_index, "learn_axes", None)
    monkeypatch.setattr(blocked, "nearest", None)
    correspond(make_pyramid(100, SHAPES).levels, gallery, range(20), kernel="pruned")


def test_images_that_are_not_coded_yet_are_coded_when_needed(tmp_path):
    gallery = make_gallery(tmp_path / "g.spade", 20, shapes=SHAPES)
    few = make_gallery(tmp_path / "few.spade", 15, shapes=SHAPES)
    assert gallery.folder.rows("codes") == 20
    assert few.folder.rows("codes") == 0  # too few to learn axes from: they await `complete`
    same_as_blocked(few, [1, 7, 14])


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_gallery_without_an_index_is_searched_all_the_same(tmp_path, storage):
    folder = ModelFolder.create(tmp_path / "g.spade", {})
    gallery = Gallery.create(folder, make_pyramid(0, SHAPES), codes=None, storage=storage)
    append_to(gallery, range(5), shapes=SHAPES)
    gallery.complete()
    folder.commit()
    gallery.refresh()
    assert gallery.index_summary() is None
    same_as_blocked(gallery, range(5))


def test_an_index_of_another_version_is_passed_over(gallery, monkeypatch):
    monkeypatch.setattr(search_index, "VERSION", 2)
    gallery.refresh()
    assert not gallery.index("bilinear").is_stored
    same_as_blocked(gallery, range(20))


def test_a_damaged_row_is_named_when_it_is_first_read_and_by_verify(gallery, monkeypatch):
    file = gallery.folder.path / gallery.folder.header["arrays"]["codes"]["file"]
    length = gallery.folder.header["arrays"]["codes"]["row_shape"][0]
    content = bytearray(file.read_bytes())
    content[3 * length + 100] ^= 1
    file.write_bytes(bytes(content))
    again = Gallery(ModelFolder.open(gallery.folder.path))
    correspond(make_pyramid(100, SHAPES).levels, again, [0, 1], kernel="pruned")
    with pytest.raises(ModelError, match="search index of image 3 is damaged"):
        correspond(make_pyramid(100, SHAPES).levels, again, [2, 3], kernel="pruned")
    many = Gallery(ModelFolder.open(gallery.folder.path))
    monkeypatch.setattr(search_index, "SHARED", 0)  # checked by several threads
    with pytest.raises(ModelError, match="search index of image 3 is damaged"):
        correspond(make_pyramid(100, SHAPES).levels, many, range(20), kernel="pruned", threads=3)
    with pytest.raises(ModelError, match="search index of image 3 is damaged"):
        Gallery(ModelFolder.open(gallery.folder.path)).verify()


def test_threads_that_read_make_the_same_of_each_image_in_order(gallery, monkeypatch):
    monkeypatch.setattr(search_index, "SHARED", 0)
    alone, together = (
        Gallery(ModelFolder.open(gallery.folder.path)).coded(range(19, -1, -1), upsampling="bilinear", threads=threads)
        for threads in (1, 3)
    )
    for one, other in zip(alone[0], together[0], strict=True):
        np.testing.assert_array_equal(one.record, other.record)
        np.testing.assert_array_equal(one.row, other.row)


def test_images_brought_before_they_are_asked_for_are_read_once_and_the_same(gallery, monkeypatch):
    index = gallery.index("bilinear")
    told = []
    announce = gallery.folder.announce
    monkeypatch.setattr(
        gallery.folder, "announce", lambda name, rows: told.append(list(map(int, rows))) or announce(name, rows)
    )
    gallery.bring(np.array([5, 3]), upsampling="bilinear")
    assert told[0] == [5, 3]
    coded, _, _ = gallery.coded([3, 5, 8], upsampling="bilinear")
    assert told[-1] in ([8], [])  # what was announced is not announced again
    for image, one in zip([3, 5, 8], coded, strict=True):
        np.testing.assert_array_equal(one.record, gallery.record(image))
        np.testing.assert_array_equal(one.row, gallery.folder.read("codes", image, image + 1)[0])
    assert set(index._checked) == {3, 5, 8}  # bringing is not checking


def test_what_has_no_codes_yet_can_be_brought(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_module, "LEARN_FROM", 64)
    made = make_gallery(tmp_path / "g.spade", 20, shapes=SHAPES)  # some wait to be coded
    made.folder.commit()
    made.refresh()
    assert made.folder.rows("codes") < 20
    made.bring(np.arange(20), upsampling="bilinear")
    made.bring(np.arange(20), upsampling="nearest")  # has no index


def test_damage_is_not_told_of_what_is_only_brought(gallery):
    file = gallery.folder.path / gallery.folder.header["arrays"]["pyramids"]["file"]
    with open(file, "r+b") as opened:
        opened.seek(4 * gallery.folder.read("pyramids", 0, 3).nbytes // 12)
        opened.write(b"\xff" * 8)
    gallery.bring(np.arange(5), upsampling="bilinear")
    with pytest.raises(ModelError, match="damaged"):
        gallery.coded(range(5), upsampling="bilinear")


def test_bringing_waits_for_nobody(gallery):
    index = gallery.index("bilinear")
    holds, done = threading.Event(), threading.Event()

    def hold():
        with index._lock:
            holds.set()
            done.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    assert holds.wait(10)
    gallery.bring(np.arange(5), upsampling="bilinear")  # comes back at once
    done.set()
    other.join()


def test_axes_are_renewed_when_later_images_lie_outside_them(tmp_path, monkeypatch):
    folder = ModelFolder.create(tmp_path / "g.spade", {})
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(400, 400)))

    def pyramid(index, directions):
        rng = np.random.default_rng(index)
        level = rng.normal(size=(8, 8, 20)) @ turn[directions]
        return type(make_pyramid(0))((level.astype(np.float32),), rng.normal(size=6).astype(np.float32))

    first, later = slice(0, 20), slice(200, 220)
    gallery = Gallery.create(folder, pyramid(0, first))
    for index in range(40):
        picture = normal_pictures(1)[0]
        gallery.append(pyramid(index, first if index < 17 else later), name=str(index), image=picture)
    gallery.complete()
    folder.commit()
    gallery.refresh()
    assert gallery.index_summary()["renewed"] >= 1
    assert gallery.folder.rows("codes") == gallery.folder.rows("code_checks") == 40
    assert gallery.index("bilinear").axes.rest < 1e-3
    gallery.verify()
    levels = pyramid(100, later).levels
    found = correspond(levels, gallery, range(40), kernel="pruned")
    expected = correspond(levels, gallery, range(40), kernel="blocked")
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-12)
    np.testing.assert_array_equal(found.positions, expected.positions)


def test_axes_are_learnt_from_many_images_before_any_is_coded(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_module, "LEARN_FROM", LEARN_FROM)
    folder = ModelFolder.create(tmp_path / "g.spade", {})
    gallery = Gallery.create(folder, make_pyramid(0))
    picture = normal_pictures(1)[0]
    for index in range(LEARN_FROM + 2):
        gallery.append(make_pyramid(index), name=str(index), image=picture, threads=1 + index % 3)
        assert folder.rows("codes") == (0 if index + 1 < LEARN_FROM else index + 1)  # then each at once
    gallery.complete()
    folder.commit()
    assert folder.header["gallery"]["codes"]["learnt_at"] == LEARN_FROM


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_however_many_threads_code_the_rows_are_the_same(tmp_path, threads):
    def rows(count, name):
        folder = ModelFolder.create(tmp_path / name, {})
        gallery = Gallery.create(folder, make_pyramid(0))
        for index in range(11):
            gallery.append(make_pyramid(index), name=str(index), image=normal_pictures(1)[0])
        gallery.complete(threads=count)
        folder.commit()
        gallery.verify()
        return np.array(folder.read("codes"))

    np.testing.assert_array_equal(rows(threads, "many.spade"), rows(1, "one.spade"))


def test_axes_are_not_renewed_without_need(gallery):
    append_to(gallery, range(20, 60), shapes=SHAPES)
    gallery.complete()
    assert gallery.index_summary()["renewed"] == 0


def test_rows_held_from_one_search_to_the_next_stay_within_their_room(gallery, monkeypatch):
    index = gallery.index("bilinear")
    gallery.coded(range(20), upsampling="bilinear")
    assert len(index._held) == 20
    monkeypatch.setattr(search_index, "HELD_BYTES", 5 * index._image_bytes)
    coded, _, _ = gallery.coded([3, 4, 5, 6, 3], upsampling="bilinear")
    assert len(coded) == 5
    assert len(index._held) == 20  # nothing new was wanted
    gallery.refresh()
    index = gallery.index("bilinear")
    for image in range(20):
        gallery.coded([image], upsampling="bilinear")
        assert len(index._held) <= 5


def test_no_more_files_are_open_than_arrays(gallery):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc here")
    gallery.coded([0], upsampling="bilinear")
    before = len(list(descriptors.iterdir()))
    gallery.coded(range(20), upsampling="bilinear")
    assert len(list(descriptors.iterdir())) <= before


def test_a_reader_goes_on_when_another_process_renews_the_axes(gallery):
    reader = Gallery(ModelFolder.open(gallery.folder.path))
    with gallery.folder.writing():
        gallery.index("bilinear")._renew(20, 2)
        gallery.folder.commit()
    same_as_blocked(reader, range(20))
    gallery.refresh()
    same_as_blocked(gallery, range(20))


def test_several_threads_may_search_one_gallery(tmp_path):
    folder = ModelFolder.create(tmp_path / "g.spade", {})
    gallery = Gallery.create(folder, make_pyramid(0, SHAPES), codes=None)
    append_to(gallery, range(12), shapes=SHAPES)
    folder.commit()
    gallery.refresh()
    chosen = [[i % 12, (i + 5) % 12, (i + 7) % 12] for i in range(24)]
    levels = make_pyramid(100, SHAPES).levels
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda images: correspond(levels, gallery, images, kernel="pruned"), chosen))
    for images, one in zip(chosen, found, strict=True):
        expected = correspond(levels, gallery, images, kernel="blocked")
        np.testing.assert_allclose(one.distances, expected.distances, rtol=1e-12)


# ---------------------------------------------------------------- whole models


@pytest.mark.parametrize("changes", [{}, {"upsampling": "nearest"}, {"storage": "float16"}, {"kappa": 3}])
def test_a_model_answers_the_same_with_every_kernel(changes):
    pictures = normal_pictures(2, start=50)
    model = tiny_model(6, **changes)
    fast = model.predict(pictures)
    model.kernel = "blocked"
    slow = model.predict(pictures)
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a.score_map, b.score_map, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("changes", [{}, {"image_k": 5}, {"search_radius": 8}, {"kernel": "blocked"}])
def test_a_model_of_many_images_answers_as_one_of_few(changes, threads, monkeypatch):
    """Among many, an image is coded, and the likely neighbours are read, while it is being found which they are."""
    model = tiny_model(60, **{"calibration_images": 0, "gallery_k": 3, "image_k": 2, "threads": threads} | changes)
    expected = answers(model)
    for name in ("BYTES_FROM", "FEW", "PATIENCE"):
        monkeypatch.setattr(retrieval, name, 0)
    brought, coded = [], []
    bring, code = model.gallery_.bring, model.gallery_.code_query
    monkeypatch.setattr(
        model.gallery_, "bring", lambda found, **options: brought.append(len(found)) or bring(found, **options)
    )
    monkeypatch.setattr(
        model.gallery_, "code_query", lambda *given, **options: coded.append(1) or code(*given, **options)
    )
    assert answers(model) == expected
    ahead = not {"search_radius", "kernel"} & changes.keys()
    assert bool(coded) == ahead
    assert bool(brought) == (ahead and threads > 1)
    assert set(brought) <= {3}


def test_appending_extends_the_index(tmp_path):
    model = tiny_model(4)
    model.save(tmp_path / "m.spade")
    grown = Spade.load(tmp_path / "m.spade").append(normal_pictures(3, start=4))
    assert grown.folder_.rows("codes") == 7
    assert Spade.load(tmp_path / "m.spade").folder_.rows("codes") == 7
    assert answers(grown) == answers(tiny_model(7))


@pytest.mark.parametrize("changes", [{"pyramid": "ensemble"}, {"kernel": "blocked"}])
def test_no_index_where_no_search_would_use_it(changes):
    model = tiny_model(4, **changes)
    assert model.gallery_.index_summary() is None
    assert "codes" not in model.folder_.header["arrays"]


@pytest.mark.slow
def test_fit_and_info_tell_the_size_and_time_of_the_index(tmp_path):
    write_pictures(tmp_path / "good", normal_pictures(4))
    model = tmp_path / "m.spade"
    done = run("fit", tmp_path / "good", "-o", model, "--image-size", 64)
    assert done.returncode == 0, done.stderr
    assert "search index 0." in done.stdout
    summary = only_json(run("info", model, "--json"))
    assert summary["search_index"]["megabytes"] > 0
    assert summary["search_index"]["renewed"] == 0
    assert "search index 0." in run("info", model).stdout
