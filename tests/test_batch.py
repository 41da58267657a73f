"""Batches into a folder: names that never collide, resuming, nothing lost."""

from __future__ import annotations

import csv
import errno
import json
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import normal_pictures, write_pictures

from spadework import Spade, batch
from spadework.batch import find_jobs, inspect_batch
from spadework.errors import InputError, ModelError, OutputError


def names(inputs, **options):
    jobs, failures = find_jobs(inputs, **options)
    assert not failures
    return [job.name for job in jobs]


def touch(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def test_names_mirror_the_folder(tmp_path):
    touch(tmp_path, "in/a.png", "in/good/a.png", "in/good/deep/b.jpg", "in/notes.txt")
    assert names([tmp_path / "in"]) == ["a", "good/a", "good/deep/b"]


def test_names_never_collide(tmp_path):
    touch(tmp_path, "x/a.png", "x/a.jpg", "x/A.bmp", "y/a.png", "z/x/a.png")
    found = names([tmp_path / "x", tmp_path / "y", tmp_path / "z" / "x"])
    assert len({name.lower() for name in found}) == len(found) == 5
    assert "y/a" in found


def test_files_are_named_below_their_common_folder(tmp_path):
    touch(tmp_path, "hole/000.png", "stain/000.png")
    assert names([tmp_path / "hole" / "000.png", tmp_path / "stain" / "000.png"]) == ["hole/000", "stain/000"]
    assert names([tmp_path / "hole" / "000.png"]) == ["000"]


def test_a_picture_given_twice_is_inspected_once(tmp_path):
    touch(tmp_path, "in/a.png")
    assert names([tmp_path / "in", tmp_path / "in" / "a.png"]) == ["a"]


def test_names_of_earlier_runs_are_kept_and_not_given_away(tmp_path):
    touch(tmp_path, "in/a.png", "other/a.png")
    named = {str((tmp_path / "in" / "a.png").resolve()): "a"}
    assert names([tmp_path / "in"], named=named) == ["a"]
    assert names([tmp_path / "other"], named=named) == ["a.png"]


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "in", normal_pictures(4, start=20))


def inspected_names(out):
    """Names in the JSON that a batch leaves, in order."""
    return [row["name"] for row in json.loads((out / "predictions.json").read_text())["predictions"]]


class Counting:
    """A detector that counts the pictures it is asked about, and can be interrupted."""

    def __init__(self, model, stop_after=None):
        self.model, self.asked, self.stop_after = model, [], stop_after

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict_each(self, paths, **options):
        for found in self.model.predict_each(paths, **options):
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(found.path)
            yield found


def test_resumes_after_an_interruption(model, pictures, tmp_path):
    first = Counting(model, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        inspect_batch(first, [tmp_path / "in"], tmp_path / "out")
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2  # what was done is listed
    second = Counting(model)
    result = inspect_batch(second, [tmp_path / "in"], tmp_path / "out")
    assert (len(second.asked), result.resumed, len(result.rows)) == (2, 2, 4)
    fresh = inspect_batch(model, [tmp_path / "in"], tmp_path / "fresh")
    assert [row["score"] for row in result.rows] == [row["score"] for row in fresh.rows]


def test_a_torn_journal_line_costs_one_picture(model, pictures, tmp_path):
    inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    journal = tmp_path / "out" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    again = Counting(model)
    assert inspect_batch(again, [tmp_path / "in"], tmp_path / "out").resumed == 3
    assert len(again.asked) == 1
    assert inspect_batch(model, [tmp_path / "in"], tmp_path / "out").resumed == 4


def test_inspects_again_what_changed(model, saved, pictures, tmp_path):
    from spadework import Spade

    own = Spade.load(saved)
    inspect_batch(own, [tmp_path / "in"], tmp_path / "out")
    cv2.imwrite(str(pictures[1]), np.zeros((64, 64, 3), np.uint8))  # the picture
    assert inspect_batch(own, [tmp_path / "in"], tmp_path / "out").resumed == 3
    (tmp_path / "out" / "maps" / "002.tiff").unlink()  # a result
    assert inspect_batch(own, [tmp_path / "in"], tmp_path / "out").resumed == 3
    assert inspect_batch(own, [tmp_path / "in"], tmp_path / "out", explain=True).resumed == 0  # an option
    own.append(normal_pictures(1, start=70))  # the model
    assert inspect_batch(own, [tmp_path / "in"], tmp_path / "out", explain=True).resumed == 0


def test_results_of_other_pictures_stay(model, pictures, tmp_path):
    write_pictures(tmp_path / "more", normal_pictures(2, start=30))
    inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "maps").iterdir()}
    result = inspect_batch(model, [tmp_path / "more"], tmp_path / "out")
    assert len(result.rows) == 2
    for path, data in before.items():
        assert path.read_bytes() == data
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len({row["map"] for row in document["predictions"]}) == 6


def test_a_bad_file_is_named_and_tried_again(model, pictures, tmp_path):
    good = pictures[2].read_bytes()
    pictures[2].write_bytes(good[:100])
    result = inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    assert [failure.path for failure in result.failures] == [str(pictures[2])]
    assert len(result.rows) == 3
    pictures[2].write_bytes(good)
    result = inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    assert (len(result.rows), result.resumed, result.failures) == (4, 3, ())


def test_refuses_what_cannot_work(model, pictures, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="map_format"):
        inspect_batch(model, [tmp_path / "in"], tmp_path / "out", map_format="bmp")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        inspect_batch(model, [tmp_path / "in"], tmp_path / "file" / "out")


def test_overlays_are_bounded_but_maps_are_not(model, tmp_path, monkeypatch):
    monkeypatch.setattr("spadework.batch.OVERLAY_SIDE", 50)
    write_pictures(tmp_path / "in", normal_pictures(1, size=(80, 100)))
    inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    height, width, _ = cv2.imread(str(tmp_path / "out" / "overlays" / "000.jpg")).shape  # with words below
    assert (height < 200, width < 400) == (True, True)
    assert cv2.imread(str(tmp_path / "out" / "maps" / "000.tiff"), cv2.IMREAD_UNCHANGED).shape == (80, 100)


def test_a_picture_that_vanishes_half_way_is_named_and_the_batch_goes_on(model, pictures, tmp_path):
    class Vanishing(Counting):
        def predict_each(self, paths, **options):
            for found in super().predict_each(paths, **options):
                if len(self.asked) == 2:
                    pictures[1].unlink()
                yield found

    result = inspect_batch(Vanishing(model), [tmp_path / "in"], tmp_path / "out")
    assert [failure.path for failure in result.failures] == [str(pictures[1])]
    assert len(result.rows) == 3
    assert "gone" in str(result.failures[0].error)


def test_what_an_earlier_state_left_is_cleared_away(saved, pictures, tmp_path):
    model = Spade.load(saved)
    inspect_batch(model, [tmp_path / "in"], tmp_path / "out", explain=True)
    assert len(list((tmp_path / "out" / "explanations").iterdir())) == 4
    model.append(normal_pictures(1, start=70))
    inspect_batch(model, [tmp_path / "in"], tmp_path / "out", map_format="npy")
    assert list((tmp_path / "out" / "explanations").iterdir()) == []  # they showed matches of the model as it was
    assert {path.suffix for path in (tmp_path / "out" / "maps").iterdir()} == {".npy"}


def test_what_vanished_or_never_was_a_file_does_not_end_a_batch(model, pictures, tmp_path):
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    result = inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    assert len(result.rows) == 4
    assert sorted(Path(failure.path).name for failure in result.failures) == ["link.png", "pipe.png"]


def test_a_link_to_itself_and_a_pipe_that_is_given_are_failures_of_their_own(model, pictures, tmp_path):
    (tmp_path / "in" / "loop.png").symlink_to("loop.png")
    (tmp_path / "given.png").symlink_to("given.png")
    os.mkfifo(tmp_path / "pipe.png")
    result = inspect_batch(model, [tmp_path / name for name in ("in", "given.png", "pipe.png")], tmp_path / "out")
    assert len(result.rows) == 4
    reasons = {Path(failure.path).name: str(failure.error) for failure in result.failures}
    assert set(reasons) == {"loop.png", "given.png", "pipe.png"}
    assert "is neither a file nor a folder" in reasons["pipe.png"]


def test_a_picture_that_went_bad_has_no_old_verdict(model, pictures, tmp_path):
    inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    pictures[1].write_text("no picture any more")
    result = inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [Path(row["path"]).name for row in document["predictions"]] == ["000.png", "002.png", "003.png"]
    assert len(document["failures"]) == len(result.failures) == 1


def test_a_given_picture_that_is_gone_has_no_old_verdict(model, pictures, tmp_path):
    inspect_batch(model, pictures, tmp_path / "out")
    pictures[0].unlink()
    assert len(inspect_batch(model, pictures, tmp_path / "out").failures) == 1
    assert inspected_names(tmp_path / "out") == ["001", "002", "003"]


def test_an_interrupted_run_of_another_model_leaves_no_verdict_of_the_old_one(model, saved, pictures, tmp_path):
    other = Spade.load(saved).append(normal_pictures(1, start=70))
    write_pictures(tmp_path / "more", normal_pictures(1, start=30), prefix="more-")
    inspect_batch(model, [tmp_path / "in", tmp_path / "more"], tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        inspect_batch(Counting(other, stop_after=2), [tmp_path / "in"], tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert [(row["name"], row["model_hash"] == other.model_hash()) for row in rows] == [
        ("in/000", True),
        ("in/001", True),
        ("more/more-000", False),  # not of this batch: it stays, and says which model it is of
    ]


def test_results_inside_the_input_are_no_input(model, pictures, tmp_path):
    for _ in range(2):
        result = inspect_batch(model, [tmp_path / "in"], tmp_path / "in" / "results")
        assert len(result.rows) == 4


@pytest.mark.parametrize("out", ["in", "."])
def test_an_output_folder_that_holds_the_input_does_not_swallow_it(out, model, pictures, tmp_path):
    for _ in range(2):
        result = inspect_batch(model, [tmp_path / "in"], tmp_path / out, explain=True)
        assert (len(result.rows), result.failures) == (4, ())


def test_an_input_of_nothing_but_results_is_named(model, pictures, tmp_path):
    inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    for given in ("out", "out/maps", "out/maps/000.tiff"):
        result = inspect_batch(model, [tmp_path / given], tmp_path / "out")
        assert [failure.path for failure in result.failures] == [str(tmp_path / given)]
        assert "no pictures but results" in str(result.failures[0].error)


def test_names_that_are_no_text(model, pictures, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.png")
    os.rename(pictures[0], odd)
    assert len(inspect_batch(model, [tmp_path / "in"], tmp_path / "out").rows) == 4
    names = [row["name"] for row in json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]]
    assert os.fsdecode(b"caf\xe9") in names
    assert "caf\\udce9" in (tmp_path / "out" / "predictions.csv").read_text()
    assert inspect_batch(model, [tmp_path / "in"], tmp_path / "out").resumed == 4


def test_long_names_are_shortened_and_taken_ones_named(model, pictures, tmp_path):
    pictures[0].rename(tmp_path / "in" / ("a" * 245 + ".png"))
    pictures[1].rename(tmp_path / "in" / ("a" * 244 + "b.png"))
    (tmp_path / "out" / "maps" / "002.tiff").mkdir(parents=True)
    result = inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    assert len({row["map"] for row in result.rows}) == len(result.rows) == 3
    assert [Path(failure.path).name for failure in result.failures] == ["002.png"]
    assert "a folder stands" in str(result.failures[0].error)
    assert str(result.failures[0].error).startswith(str(pictures[2]))  # the picture, not only its result


def test_a_folder_named_as_another_picture_s_result_costs_its_pictures_only(model, pictures, tmp_path):
    write_pictures(tmp_path / "in" / "000.tiff", normal_pictures(1, start=40))
    write_pictures(tmp_path / "in" / "000.tiff" / "deep", normal_pictures(1, start=41))
    write_pictures(tmp_path / "in" / "001.jpg" / "deep", normal_pictures(1, start=42))
    result = inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    assert [row["name"] for row in result.rows] == ["000", "001.jpg/deep/000", "002", "003"]
    lost = [Path(failure.path).relative_to(tmp_path / "in").as_posix() for failure in result.failures]
    assert lost == ["000.tiff/000.png", "000.tiff/deep/000.png", "001.png"]  # the later of two


def test_a_path_too_long_for_its_results_costs_one_picture(model, pictures, tmp_path, monkeypatch):
    real = Path.mkdir

    def mkdir(path, *arguments, **options):
        if path.name == "deep":
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
        real(path, *arguments, **options)

    write_pictures(tmp_path / "in" / "deep", normal_pictures(1, start=40))
    monkeypatch.setattr(Path, "mkdir", mkdir)
    result = inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    assert len(result.rows) == 4
    assert [Path(failure.path).parent.name for failure in result.failures] == ["deep"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_ends_a_batch(code, model, pictures, tmp_path, monkeypatch):
    def write_bytes(path, data):
        raise OSError(code, os.strerror(code), str(path))

    asked = Counting(model)
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match=os.strerror(code)):
        inspect_batch(asked, [tmp_path / "in"], tmp_path / "out")
    assert len(asked.asked) <= 2  # the next was under way


def test_the_next_picture_is_inspected_while_the_last_is_written(model, pictures, tmp_path, monkeypatch):
    second, real = threading.Event(), batch.write_file

    class Announcing(Counting):
        def predict_each(self, paths, **options):
            for found in super().predict_each(paths, **options):
                if len(self.asked) == 2:
                    second.set()
                yield found

    def write_file(path, data):
        assert second.wait(10)
        real(path, data)

    monkeypatch.setattr(batch, "write_file", write_file)
    assert len(inspect_batch(Announcing(model), [tmp_path / "in"], tmp_path / "out").rows) == 4
    lines = (tmp_path / "out" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["000", "001", "002", "003"]


def test_an_error_of_the_model_ends_a_batch_where_it_comes(model, pictures, tmp_path):
    class Failing(Counting):
        def predict_each(self, paths, **options):
            for found in super().predict_each(paths, **options):
                if len(self.asked) == 3:
                    raise ModelError("damaged")
                yield found

    with pytest.raises(ModelError, match="damaged"):
        inspect_batch(Failing(model), [tmp_path / "in"], tmp_path / "out")
    assert inspected_names(tmp_path / "out") == ["000", "001"]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("spadework-")]


def test_a_picture_that_changes_while_it_is_inspected_is_inspected_again(model, pictures, tmp_path):
    class Changing(Counting):
        def predict_each(self, paths, **options):
            for found in super().predict_each(paths, **options):
                if len(self.asked) == 2:
                    pictures[1].write_bytes(pictures[3].read_bytes() + b"more")
                    pictures[2].write_text("no picture any more")
                yield found

    untouched = inspect_batch(model, [tmp_path / "in"], tmp_path / "untouched")
    result = inspect_batch(Changing(model), [tmp_path / "in"], tmp_path / "out")
    for at in (0, 1):  # what was inspected is what is shown
        assert result.rows[at]["score"] == untouched.rows[at]["score"]
        name = result.rows[at]["overlay"]
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "untouched" / name).read_bytes()
    again = Counting(model)
    second = inspect_batch(again, [tmp_path / "in"], tmp_path / "out")
    assert second.resumed == 2
    assert [Path(failure.path).name for failure in second.failures] == ["002.png"]
    assert second.rows[1]["score"] == untouched.rows[3]["score"]


def test_a_file_where_all_maps_should_go_ends_a_batch(model, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "maps").touch()
    with pytest.raises(OutputError, match="maps: cannot be written"):
        inspect_batch(model, [tmp_path / "in"], tmp_path / "out")


def test_a_folder_in_place_of_an_earlier_result_is_left_alone(model, pictures, tmp_path):
    inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    (tmp_path / "out" / "maps" / "000.tiff").unlink()
    (tmp_path / "out" / "maps" / "000.tiff").mkdir()
    assert len(inspect_batch(model, [tmp_path / "in"], tmp_path / "out", map_format="npy").rows) == 4
    assert (tmp_path / "out" / "maps" / "000.tiff").is_dir()


@pytest.mark.parametrize(
    "line",
    [
        '{"name":"000","key":[],"files":{},"row":{}}',
        '{"name":"000","key":3,"files":[],"row":[]}',
        '{"name":"q","key":["q",2,3,"m","tiff",false],"files":{},"row":{"name":"q"}}',
        '{"name":5,"key":["q",2,3,"m","tiff",false],"files":{},"row":{"name":"q"}}',
        '{"name":"q","key":"abcdef","files":{},"row":"name"}',
        "[" * 100_000,
        "[]",
        "7",
    ],
    ids=lambda line: line[:40],
)
def test_a_senseless_journal_line_is_passed_over(line, model, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "journal.jsonl").write_text(line + "\n")
    assert len(inspect_batch(model, [tmp_path / "in"], tmp_path / "out").rows) == 4


def test_a_torn_map_and_an_edit_of_the_same_size_are_inspected_again(model, pictures, tmp_path):
    inspect_batch(model, [tmp_path / "in"], tmp_path / "out")
    (tmp_path / "out" / "maps" / "001.tiff").write_bytes(b"")
    stat = pictures[2].stat()
    os.utime(pictures[2], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))  # as if its bytes were others
    again = Counting(model)
    assert inspect_batch(again, [tmp_path / "in"], tmp_path / "out").resumed == 2
    assert [Path(path).name for path in again.asked] == ["001.png", "002.png"]
