"""Taking normal pictures out: a fresh fit on the rest, at once or not at all, unseen by who has the model open."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from builders import TINY, answers, leftovers, make_gallery, normal_picture, normal_pictures, tiny_model, write_pictures
from forks import Fork
from test_cli import only_json, run
from test_storage import Faults, state_of

from spadework import gallery as gallery_module
from spadework import storage
from spadework.detectors.spade import Spade
from spadework.errors import InputError, ModelError, OutputError
from spadework.gallery import Gallery
from spadework.images import pixel_hash
from spadework.storage import ModelFolder


def same_model(one: Spade, other: Spade) -> None:
    assert answers(one) == answers(other)
    assert matches_of(one) == matches_of(other)
    np.testing.assert_array_equal(one.normal_scores_, other.normal_scores_)
    np.testing.assert_array_equal(one.calibration_[1], other.calibration_[1])
    assert (one.threshold_, one.map_threshold_, one.n_normal_) == (
        other.threshold_,
        other.map_threshold_,
        other.n_normal_,
    )


def matches_of(model: Spade) -> list[tuple]:
    """What places are matched with; pictures by their pixels, for arrays are named by their place in a list."""
    found = model.explain_regions(model.predict(normal_picture(50)))
    return [(m.y, m.x, m.normal_box, m.distance, model.gallery_.entries[m.image].sha256) for m in found]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image_score": "nearest-images"},
        {"pyramid": "ensemble"},
        {"kappa": 3},
        {"storage": "float16"},
        {"kernel": "blocked"},
    ],
    ids=str,
)
def test_removing_is_fitting_on_the_rest(tmp_path, changes):
    pictures = write_pictures(tmp_path / "all", normal_pictures(7))
    path = Spade(**{**TINY, **changes}).fit(pictures).save(tmp_path / "part.spade")
    model = Spade.load(path).remove([pictures[1], pixel_hash(normal_picture(4))])
    rest = [picture for index, picture in enumerate(pictures) if index not in (1, 4)]
    fresh = Spade(**{**TINY, **changes}).fit(rest)
    same_model(model, fresh)
    assert model.model_hash() == fresh.model_hash()
    again = Spade.load(path)
    again.verify()
    same_model(again, fresh)
    assert leftovers(path) == []


def test_removing_what_was_appended_is_as_if_it_never_was(saved, model):
    changed = Spade.load(saved).append(normal_pictures(2, start=30), names=["a false alarm", "another"])
    assert [entry.name for entry in changed.gallery_.entries][-2:] == ["a false alarm", "another"]
    changed.remove(["another", "a false alarm"])
    same_model(changed, model)
    same_model(Spade.load(saved), model)
    same_model(changed.append(normal_pictures(2, start=30)), Spade.load(saved))  # and it still grows


def test_the_threshold_is_set_anew_for_fewer_pictures_can_raise_scores():
    """Two halves that are unlike each other: each picture of the smaller one leans on the only other of its kind."""
    unlike = [255 - picture[::-1] // 2 for picture in normal_pictures(2, start=40)]
    model = tiny_model(6, calibration_images=50, gallery_k=50).append(unlike).recalibrate()
    before = model.threshold_.value
    model.remove(pixel_hash(unlike[0]))
    assert model.threshold_.value > 2 * before
    assert not model.predict(unlike[1]).is_anomalous


def test_the_asked_rate_stays(saved):
    model = Spade.load(saved).set_max_false_alarms(0.4)
    assert model.remove(pixel_hash(normal_picture(0))).threshold_.asked == 0.4
    assert Spade.load(saved).threshold_.asked == 0.4


def test_large_index_keeps_its_axes_and_stays_exact(tmp_path):
    """More images than axes are learnt from: they are kept, and the codes with them."""
    model = tiny_model(20)
    path = model.save(tmp_path / "part.spade")
    axes = np.array(model.folder_.read("code_axes"))
    removed = Spade.load(path).remove([entry.sha256 for entry in model.gallery_.entries[3:17]])
    np.testing.assert_array_equal(removed.folder_.read("code_axes"), axes)
    assert removed.folder_.rows("codes") == removed.folder_.rows("code_checks") == 6
    rest = [*normal_pictures(3), *normal_pictures(3, start=17)]
    assert answers(removed) == answers(Spade(**TINY).fit(rest))
    removed.append(normal_pictures(20, start=60))
    removed.verify()
    assert answers(removed) == answers(Spade(**TINY).fit([*rest, *normal_pictures(20, start=60)]))


def test_rows_not_yet_coded_are_left_to_be_coded(tmp_path):
    gallery = make_gallery(tmp_path / "g.spade", 5)  # fewer than axes are learnt from
    assert gallery.folder.rows("codes") == 0
    with gallery.folder.writing():
        gallery.remove([0, 3])
        gallery.folder.commit()
    left = Gallery(ModelFolder.open(gallery.folder.path))
    left.verify()
    assert [entry.name for entry in left.entries] == ["part 1", "part 2", "part 4"]


def test_what_stays_is_copied_piece_by_piece(tmp_path, monkeypatch):
    gallery = make_gallery(tmp_path / "g.spade", 6)
    expected = gallery.descriptors([1, 2, 4, 5], upsampling="bilinear")
    thumbnails = [gallery.thumbnail(image) for image in (1, 2, 4, 5)]
    monkeypatch.setattr(storage, "COPY_BYTES", 100)
    sizes, real = [], ModelFolder.append

    def counted(folder, name, rows):
        sizes.append(rows.nbytes if name != "entries" and len(rows) > 1 else 0)
        real(folder, name, rows)

    monkeypatch.setattr(ModelFolder, "append", counted)
    with gallery.folder.writing():
        gallery.remove([0, 3])
        gallery.folder.commit()
    assert max(sizes) <= 100
    left = Gallery(gallery.folder)
    np.testing.assert_array_equal(left.descriptors(range(4), upsampling="bilinear"), expected)
    for image, thumbnail in enumerate(thumbnails):
        np.testing.assert_array_equal(left.thumbnail(image), thumbnail)


def test_damage_is_carried_along_not_hidden(saved):
    model = Spade.load(saved)
    entry = model.folder_.header["arrays"]["pyramids"]
    file = saved / entry["file"]
    data = bytearray(file.read_bytes())
    data[-5] ^= 0x20  # in the last image
    file.write_bytes(bytes(data))
    folder = model.folder_
    with folder.writing():
        model.gallery_.remove([0])
        folder.commit()
    with pytest.raises(ModelError, match="features of image 4"):
        Gallery(ModelFolder.open(saved)).verify()


# ---------------------------------------------------------------- what is refused


def test_what_is_not_there_or_not_clear_is_refused(saved):
    model = Spade.load(saved).append(normal_picture(30))  # a second "array 0"
    before = answers(model)
    for pictures, text in (
        ("no such.png", r"no such\.png: is no normal picture of .*part\.spade"),
        (["0" * 64], "is no normal picture"),
        ("array 0", "names 2 normal pictures .* give a hash: [0-9a-f]{16}, [0-9a-f]{16}"),
        ([], "pictures is empty"),
        ([pixel_hash(normal_picture(i)) for i in (0, 1, 2, 3, 4, 5, 30)], "at least one must stay"),
        ([pixel_hash(normal_picture(0)), "nothing"], "nothing: is no normal picture"),
        (pixel_hash(normal_picture(0))[:7], "is no normal picture"),
    ):
        with pytest.raises(InputError, match=text):
            model.remove(pictures)
        assert answers(model) == answers(Spade.load(saved)) == before
    model.remove(pixel_hash(normal_picture(0))[:8].upper())
    assert model.n_normal_ == 6


def test_names_must_be_one_a_picture(saved):
    with pytest.raises(InputError, match="names must be one a picture: 1 names came for 2 pictures"):
        Spade.load(saved).append(normal_pictures(2, start=30), names=["one"])


def test_one_picture_may_be_all_that_stays(saved):
    model = Spade.load(saved).remove([pixel_hash(normal_picture(i)) for i in range(5)])
    assert (model.n_normal_, model.threshold_.value) == (1, None)
    same_model(Spade.load(saved), Spade(**TINY).fit(normal_pictures(6)[5:]))


def test_another_writer_is_respected(saved):
    stale = Spade.load(saved)
    Spade.load(saved).append(normal_picture(30))
    with pytest.raises(ModelError, match="Load it again"):
        stale.remove(pixel_hash(normal_picture(0)))
    with ModelFolder.open(saved).writing(), pytest.raises(OutputError, match="another process is writing"):
        Spade.load(saved).remove(pixel_hash(normal_picture(0)))
    assert Spade.load(saved).n_normal_ == 7


# ---------------------------------------------------------------- readers


def test_an_open_reader_goes_on_from_the_old_state(saved):
    reader = Spade.load(saved)
    before = answers(reader)  # some files were read, others not yet
    fresh_reader = Spade.load(saved)
    Spade.load(saved).remove([pixel_hash(normal_picture(i)) for i in (0, 5)])
    assert answers(reader) == answers(fresh_reader) == before
    assert reader.n_normal_ == 6
    fresh_reader.verify()  # thumbnails and index too
    assert Spade.load(saved).n_normal_ == 4


def test_a_reader_can_save_what_it_has_open(saved, tmp_path, model):
    reader = Spade.load(saved)
    shutil.rmtree(saved)
    same_model(Spade.load(reader.save(tmp_path / "rescued.spade")), model)


def test_files_are_let_go_with_the_model(saved):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc here")
    before = len(list(descriptors.iterdir()))
    for _ in range(3):
        reader = Spade.load(saved)
        answers(reader)
        reader.append(normal_picture(30))
        reader.remove(pixel_hash(normal_picture(30)))
        held = len(list(descriptors.iterdir())) - before
        assert held <= 4 * len(reader.folder_.header["arrays"])  # each file, and what is mapped of it
    del reader
    assert len(list(descriptors.iterdir())) <= before + 2


def test_without_room_for_open_files_they_are_opened_by_name(saved, monkeypatch):
    def full(path):
        raise OSError(24, "Too many open files", str(path))

    expected = answers(Spade.load(saved))
    monkeypatch.setattr(storage, "_Held", full)
    assert answers(Spade.load(saved)) == expected


# ---------------------------------------------------------------- crashes


def remove_two(path: Path) -> None:
    gallery = Gallery(ModelFolder.open(path))
    with gallery.folder.writing():
        gallery.remove([0, 2])
        gallery.folder.commit()


def test_a_crash_at_any_moment_leaves_all_or_nothing(tmp_path, monkeypatch):
    path = make_gallery(tmp_path / "m.spade", 5).folder.path
    before, moments = state_of(path), []

    def keep_the_disk_as_it_is_now(number):
        moments.append(tmp_path / f"moment-{number}")
        shutil.copytree(path, moments[-1])

    with monkeypatch.context() as patch:
        Faults(patch, keep_the_disk_as_it_is_now)
        remove_two(path)
    after = state_of(path)
    states = [state_of(moment) for moment in moments]
    assert len(states) > 25
    assert set(states) == {before, after}
    assert states == sorted(states, key=lambda state: -state[0])  # once after, always after
    for moment in moments:
        if state_of(moment) == before:
            remove_two(moment)
        assert state_of(moment) == after
        assert leftovers(moment) == []


def test_an_interrupted_removal_removes_nothing(saved):
    model = Spade.load(saved)
    before = answers(model)

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.remove(pixel_hash(normal_picture(0)), progress=interrupt)
    assert answers(model) == answers(Spade.load(saved)) == before
    same_model(model.remove(pixel_hash(normal_picture(0))), Spade(**TINY).fit(normal_pictures(6)[1:]))


CHILD = """
import sys
from spadework.detectors.spade import Spade
model = Spade.load(sys.argv[1])
print("go", flush=True)
model.remove(sys.argv[2:])
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    original = tiny_model(20).save(tmp_path / "part.spade")
    gone = [pixel_hash(normal_picture(i)) for i in (2, 3, 11)]

    def start(path):
        child = Fork(CHILD, path, *gone)
        assert child.stdout.readline() == "go\n"
        return child

    whole = Path(shutil.copytree(original, tmp_path / "whole.spade"))
    child, started = start(whole), time.perf_counter()
    assert child.stdout.readline() == "done\n"
    lasted = time.perf_counter() - started
    assert child.wait() == 0
    before, after = answers(Spade.load(original)), answers(Spade.load(whole))
    for number, moment in enumerate(np.random.default_rng(2).uniform(0, 1.2 * lasted, 12)):
        copy = Path(shutil.copytree(original, tmp_path / f"{number}.spade"))
        child = start(copy)
        time.sleep(moment)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        model = Spade.load(copy)
        model.verify()
        assert answers(model) == {20: before, 17: after}[model.n_normal_]
        if model.n_normal_ == 20:
            assert answers(model.remove(gone)) == answers(Spade.load(copy)) == after
        assert leftovers(copy) == []
        shutil.rmtree(copy)


# ---------------------------------------------------------------- around it


def test_scores_of_each_normal_picture(saved):
    model = Spade.load(saved)
    assert len(model.score_of_each()) == 5  # so many are left out in turn
    one, score = next(iter(model.score_of_each().items()))
    rest = [picture for index, picture in enumerate(normal_pictures(6)) if index != one]
    assert score == pytest.approx(Spade(**TINY).fit(rest).predict(normal_picture(one)).score, rel=1e-6)
    model.append(normal_picture(30))
    assert model.score_of_each()[one] == score  # thresholds stayed, so do these
    del model.folder_.header["gallery"]["scored"]
    assert model.score_of_each() == {}  # a model from before it was noted


def test_merged_ranges():
    assert gallery_module._merged([(0, 1), (1, 2), (4, 5), (5, 9), (9, 9)]) == [(0, 2), (4, 9)]
    assert gallery_module._merged([]) == []


@pytest.mark.slow
def test_the_command(saved, tmp_path):
    done = run("remove", saved, pixel_hash(normal_picture(2))[:12], "--json")
    assert done.returncode == 0, done.stderr
    told = only_json(done)
    assert (told["removed"], told["normal_images"]) == (1, 5)
    assert told["model_hash"] == Spade.load(saved).model_hash()
    said = run("remove", saved, pixel_hash(normal_picture(3)))
    assert "5 normal pictures before, 4 now" in said.stdout
    assert "threshold" in said.stdout
    missing = run("remove", saved, "missing.png")
    assert (missing.returncode, "missing.png: is no normal picture" in missing.stderr) == (2, True)
    header = json.loads((saved / "header.json").read_text())
    assert header["n_normal"] == 4
    other = tmp_path / "mean.spade"
    from spadework.detectors import get_detector

    get_detector("nearest-image")(image_size=64).fit(normal_pictures(3), path=other)
    refused = run("remove", other, "array 0")
    assert (refused.returncode, "cannot remove" in refused.stderr) == (2, True)
