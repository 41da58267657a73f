"""Galleries and fitted models: appending is fitting on the union, saving changes nothing, thumbnails stay small."""

from __future__ import annotations

import numpy as np
import pytest
from builders import (
    SHAPES,
    answers,
    append_parts_of,
    append_to,
    leftovers,
    make_gallery,
    make_pyramid,
    normal_picture,
    normal_pictures,
    tiny_model,
)

from spadework.detectors.spade import Spade
from spadework.errors import ModelError, OutputError
from spadework.gallery import Gallery
from spadework.pyramid import Pyramid
from spadework.storage import ModelFolder


def test_what_went_in_comes_out(tmp_path):
    gallery = Gallery(ModelFolder.open(make_gallery(tmp_path / "g.spade", 4).folder.path))
    assert len(gallery) == 4
    assert gallery.geometry.shapes == SHAPES
    assert [entry.name for entry in gallery.entries] == [f"part {i}" for i in range(4)]
    assert all(entry.size == (20, 30) for entry in gallery.entries)
    for index in range(4):
        made = make_pyramid(index)
        np.testing.assert_array_equal(gallery.globals[index], made.global_vector)
        for found, level in zip(gallery.levels(index), made.levels, strict=True):
            np.testing.assert_array_equal(found, level)


def test_appending_and_opening_again(tmp_path):
    gallery = make_gallery(tmp_path / "g.spade", 2)
    append_parts_of(gallery, [2, 3])
    again = Gallery(ModelFolder.open(tmp_path / "g.spade"))
    whole = make_gallery(tmp_path / "whole.spade", 4)
    for one in (gallery, again):
        one.verify()
        assert list(one.entries) == list(whole.entries)
        np.testing.assert_array_equal(one.globals, whole.globals)
        np.testing.assert_array_equal(
            one.descriptors(range(4), upsampling="bilinear"), whole.descriptors(range(4), upsampling="bilinear")
        )
        np.testing.assert_array_equal(one.thumbnail(3), whole.thumbnail(3))


def test_nearest_images_by_hand(tmp_path):
    folder = ModelFolder.create(tmp_path / "g.spade", {})
    gallery = Gallery.create(folder, make_pyramid(0, dimension=2))
    for place in ([3, 4], [0, 1], [0, -1], [0, 0]):
        gallery.append(Pyramid(make_pyramid(0).levels, np.array(place, np.float32)), name="", image=normal_picture())
    folder.commit()
    gallery.refresh()
    origin = np.zeros(2, np.float32)
    indices, distances = gallery.nearest_images(origin, 3)
    assert (indices.tolist(), distances.tolist()) == ([3, 1, 2], [0, 1, 1])  # the tie to the lower index
    assert gallery.nearest_images(origin, 2)[0].tolist() == [3, 1]
    assert gallery.nearest_images(origin, 99)[0].tolist() == [3, 1, 2, 0]
    indices, distances = gallery.nearest_images(origin, 99, exclude=3)
    assert (indices.tolist(), distances.tolist()) == ([1, 2, 0], [1, 1, 25])
    assert gallery.nearest_images(origin, 1, exclude=1)[0].tolist() == [3]


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_storage_types_round_as_numpy_does(tmp_path, storage):
    gallery = make_gallery(tmp_path / "g.spade", 2, storage=storage)
    gallery.verify()
    for found, level in zip(gallery.levels(1), make_pyramid(1).levels, strict=True):
        np.testing.assert_array_equal(found, level.astype(storage))


def test_features_beyond_float16_are_refused(tmp_path):
    gallery = make_gallery(tmp_path / "g.spade", 1, storage="float16")
    levels = tuple(level * np.float32(1e6) for level in make_pyramid(1).levels)
    with pytest.raises(ModelError, match="exceed float16's range .* Fit with storage='float32'"):
        gallery.append(Pyramid(levels, make_pyramid(1).global_vector), name="bright.png", image=normal_picture())


@pytest.mark.parametrize("size", [(1, 1), (40, 400), (400, 40), (9, 9)])
def test_thumbnails_are_bounded_and_keep_the_aspect(tmp_path, size):
    folder = ModelFolder.create(tmp_path / "g.spade", {})
    gallery = Gallery.create(folder, make_pyramid(0), thumbnail_side=32)
    gallery.append(make_pyramid(0), name="", image=normal_picture(0, size))
    folder.commit()
    gallery.refresh()
    thumbnail = gallery.thumbnail(0)
    scale = min(1.0, 32 / max(size))
    assert thumbnail.shape == (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)), 3)


def test_a_thumbnail_shows_the_picture_in_its_colours(tmp_path):
    folder = ModelFolder.create(tmp_path / "g.spade", {})
    gallery = Gallery.create(folder, make_pyramid(0))
    gallery.append(make_pyramid(0), name="", image=np.full((40, 40, 3), (200, 100, 20), np.uint8))
    folder.commit()
    gallery.refresh()
    assert np.abs(gallery.thumbnail(0).astype(int) - (200, 100, 20)).max() < 8


@pytest.mark.parametrize("name", ["ä 部品.png", "a\nb\x85c\u2028d.png", "\udcff.png", ""])
def test_any_name_comes_back(tmp_path, name):
    folder = ModelFolder.create(tmp_path / "g.spade", {})
    gallery = Gallery.create(folder, make_pyramid(0))
    for _ in range(2):
        gallery.append(make_pyramid(0), name=name, image=normal_picture())
    folder.commit()
    assert [entry.name for entry in Gallery(ModelFolder.open(folder.path)).entries] == [name, name]


def test_arrays_that_count_differently_are_refused(tmp_path):
    gallery = make_gallery(tmp_path / "g.spade", 2)
    gallery.folder.append("globals", gallery.globals[:1])
    gallery.folder.commit()
    with pytest.raises(ModelError, match="count different numbers of images"):
        Gallery(ModelFolder.open(gallery.folder.path))


def test_rows_of_the_gallery_are_mapped_not_read(tmp_path):
    assert isinstance(make_gallery(tmp_path / "g.spade", 2).levels(0)[0].base, np.memmap)


# ---------------------------------------------------------------- whole models


@pytest.mark.parametrize("changes", [{}, {"image_score": "nearest-images"}, {"pyramid": "ensemble"}, {"kappa": 3}])
def test_appending_is_fitting_on_the_union(tmp_path, changes):
    grown = tiny_model(4, **changes)
    grown.save(tmp_path / "part.spade")
    grown = Spade.load(tmp_path / "part.spade").append(normal_pictures(2, start=4))
    fresh = tiny_model(6, **changes)
    assert answers(grown) == answers(fresh)
    assert answers(Spade.load(tmp_path / "part.spade")) == answers(fresh)
    assert grown.n_normal_ == 6
    np.testing.assert_array_equal(grown.recalibrate().normal_scores_, fresh.normal_scores_)
    assert grown.threshold_ == fresh.threshold_


def test_appending_one_by_one_is_appending_at_once(tmp_path):
    one, many = tiny_model(3), tiny_model(3)
    for picture in normal_pictures(3, start=3):
        one.append(picture)
    assert answers(one) == answers(many.append(normal_pictures(3, start=3)))


def test_an_append_with_a_bad_picture_adds_nothing(tmp_path, saved):
    (tmp_path / "bad.png").write_text("no picture")
    model = Spade.load(saved)
    before = answers(model)
    with pytest.raises(ValueError, match=r"bad\.png"):
        model.append([*normal_pictures(1, start=30), tmp_path / "bad.png"])
    assert answers(model) == answers(Spade.load(saved)) == before
    assert model.n_normal_ == Spade.load(saved).n_normal_ == 6
    model.append([*normal_pictures(1, start=30), tmp_path / "bad.png"], bad_files="skip")
    assert (model.n_normal_, len(model.failures_)) == (7, 1)


def test_an_interrupted_append_adds_nothing(saved):
    model = Spade.load(saved)
    before = answers(model)

    def interrupt(what, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.append(normal_pictures(3, start=30), progress=interrupt)
    assert answers(model) == answers(Spade.load(saved)) == before
    assert answers(model.append(normal_pictures(3, start=30))) == answers(
        tiny_model(6).append(normal_pictures(3, start=30))
    )


def test_a_saved_model_answers_to_the_byte(model, saved):
    again = Spade.load(saved)
    assert answers(again) == answers(model)
    assert again.threshold_ == model.threshold_
    assert again.map_threshold_ == model.map_threshold_
    assert again.settings() == model.settings()
    assert again.model_hash() == model.model_hash()


def test_saving_over_a_model_replaces_it_whole(tmp_path, saved):
    other = tiny_model(3)
    other.save(saved)
    assert answers(Spade.load(saved)) == answers(other)
    assert len(list(saved.glob("*.bin"))) == len(ModelFolder.open(saved).header["arrays"])
    assert leftovers(tmp_path) == []
    assert answers(other) == answers(Spade.load(other.save(saved)))


def test_saving_where_it_lives_does_nothing(saved):
    model = Spade.load(saved)
    before = (saved / "header.json").stat().st_mtime_ns
    assert model.save(saved) == saved
    assert (saved / "header.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_model_is_never_replaced(tmp_path, model, kind):
    target = tmp_path / "precious"
    if kind == "file":
        target.write_text("years of work")
    else:
        target.mkdir()
        (target / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="precious: exists and is not a Spadework model"):
        model.save(target)
    steps = []
    with pytest.raises(OutputError, match="precious: exists and is not a Spadework model"):
        Spade(**{**model.settings()}).fit(normal_pictures(2), path=target, progress=lambda *step: steps.append(step))
    assert steps == []  # refused before the work, not after it
    assert (target if kind == "file" else target / "thesis.txt").read_text() == "years of work"
    assert leftovers(tmp_path) == []


def test_the_hash_follows_the_answers(saved):
    model = Spade.load(saved)
    before = model.model_hash()
    assert model.set_max_false_alarms(0.5).model_hash() != before
    assert model.set_max_false_alarms(0.01).model_hash() == before
    assert model.append(normal_pictures(1, start=40)).model_hash() != before


def test_pictures_of_one_name_from_two_folders_stay_apart(tmp_path):
    from builders import write_pictures

    for number, folder in enumerate(("left", "right")):
        write_pictures(tmp_path / folder, normal_pictures(2, start=2 * number))
    model = Spade(**tiny_model(2).settings()).fit([tmp_path / "left", tmp_path / "right"])
    assert model.n_normal_ == 4
    assert len({entry.name for entry in model.gallery_.entries}) == 4
    write_pictures(tmp_path / "left", normal_pictures(2, start=8))  # other pictures under names that are known
    append_names = [entry.name for entry in model.append(tmp_path / "left").gallery_.entries]
    assert append_names[4:] == append_names[:2]


def test_a_model_without_a_place_lives_in_a_temporary_folder_and_goes_with_it(temporary):
    import gc

    made = tiny_model(2)
    assert len(list(temporary.iterdir())) == 1
    answers(made)
    del made
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_append_to_a_bare_gallery_needs_a_commit(tmp_path):
    gallery = make_gallery(tmp_path / "g.spade", 1)
    append_to(gallery, [1])
    assert len(Gallery(ModelFolder.open(gallery.folder.path))) == 1
