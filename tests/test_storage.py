"""Model folders under crashes, full disks, damage, other writers: what stood there stands, or what was to come."""

from __future__ import annotations

import builtins
import errno
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from builders import (
    TINY,
    answers,
    append_parts_of,
    leftovers,
    make_gallery,
    normal_pictures,
    tiny_model,
    write_pictures,
)
from forks import Fork

from spadework import storage
from spadework.detectors.spade import Spade
from spadework.errors import ModelError, OutputError
from spadework.gallery import Gallery
from spadework.storage import HEADER, VERSION, ModelFolder

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def folder(tmp_path):
    made = ModelFolder.create(tmp_path / "m.spade", {"detector": "none", "note": "ä"})
    made.add_array("rows", "<f4", (3,))
    made.append("rows", ROWS)
    made.commit()
    return made


# ---------------------------------------------------------------- there and back


def test_only_a_model_that_is_to_last_waits_for_the_disk(tmp_path, monkeypatch):
    flushed, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (flushed.append(descriptor), real(descriptor)))
    model = tiny_model(3)
    assert flushed == []
    model.save(tmp_path / "saved.spade")
    assert len(flushed) > len(model.folder_.header["arrays"])  # each file, the header, the folder
    flushed.clear()
    Spade(**TINY).fit(normal_pictures(3), path=tmp_path / "fitted.spade")
    assert len(flushed) > len(model.folder_.header["arrays"])
    flushed.clear()
    Spade.load(tmp_path / "fitted.spade").append(normal_pictures(1, start=9))
    assert len(flushed) > len(model.folder_.header["arrays"])


def test_rows_come_back(folder):
    found = ModelFolder.open(folder.path)
    assert found.header["note"] == "ä"
    np.testing.assert_array_equal(found.read("rows"), ROWS)
    np.testing.assert_array_equal(found.read("rows", 1, 3), ROWS[1:3])
    assert found.read("rows", 2, 2).shape == (0, 3)
    with pytest.raises(ValueError, match="read-only"):
        found.read("rows")[0, 0] = 1


@pytest.mark.parametrize("system", ["with preadv", "without"])
def test_scattered_rows_come_back_in_the_order_asked_for(folder, system, monkeypatch):
    if system == "without":
        monkeypatch.delattr(os, "preadv", raising=False)
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    folder.announce("rows", range(4))
    picked = folder.pick("rows", np.array([3, 0, 3]))
    np.testing.assert_array_equal(picked, ROWS[[3, 0, 3]])
    picked[:] = 0  # a copy
    np.testing.assert_array_equal(folder.read("rows"), ROWS)
    assert folder.pick("rows", np.empty(0, np.int64)).shape == (0, 3)


@pytest.mark.parametrize("change", ["shorter", "gone"])
def test_scattered_rows_that_are_there_no_more_are_told(folder, change):
    file = folder.path / folder.header["arrays"]["rows"]["file"]
    if change == "shorter":
        os.truncate(file, file.stat().st_size - 1)
    else:
        file.unlink()
    folder.announce("rows", [3])  # a hint says nothing
    with pytest.raises(ModelError, match=r"array 'rows' cannot be read.*[Ll]oad it again"):
        folder.pick("rows", np.array([3]))


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system does not tell what is in memory")
def test_scattered_rows_that_are_not_in_memory_are_announced_and_waited_for(folder, monkeypatch):
    announced, size = [], ROWS[0].nbytes
    read, advise = os.preadv, os.posix_fadvise

    def not_at_once(file, places, offset, flags=0):
        if flags:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return read(file, places, offset)

    monkeypatch.setattr(os, "preadv", not_at_once)
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *where: announced.append(where[:2]) or advise(file, *where))
    np.testing.assert_array_equal(folder.pick("rows", np.array([3, 0, 3])), ROWS[[3, 0, 3]])
    assert announced == [(3 * size, size), (0, size), (3 * size, size)]
    assert folder.announce("rows", [1, 2]) == [1, 2]


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system does not tell what is in memory")
def test_rows_in_memory_are_not_announced(folder, monkeypatch):
    np.array(folder.read("rows"))  # in memory now
    monkeypatch.setattr(os, "posix_fadvise", None)
    assert folder.announce("rows", range(4)) == []
    np.testing.assert_array_equal(folder.pick("rows", np.array([2])), ROWS[[2]])


def test_bytes_of_rows_are_copied_or_told_to_be_missing(folder):
    assert folder.copy("rows", 1, 3) == ROWS[1:3].tobytes()
    os.truncate(folder.path / folder.header["arrays"]["rows"]["file"], 2 * ROWS[0].nbytes)
    with pytest.raises(ModelError, match=r"array 'rows' cannot be read: it is too short.*[Ll]oad it again"):
        folder.copy("rows", 1, 3)


def test_threads_that_copy_and_map_do_not_disturb_each_other(folder):
    """They read one open file: whoever moved its offset would give the others wrong bytes."""
    folder.hold()
    wrong = []

    def copy(row):
        for _ in range(2000):
            if folder.copy("rows", row, row + 1) != ROWS[row].tobytes():
                wrong.append(row)

    def read():
        for _ in range(500):
            folder.read("rows")

    threads = [threading.Thread(target=copy, args=(row,)) for row in range(4)] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_rows_count_from_the_commit_on(folder):
    with folder.writing():
        folder.append("rows", ROWS[:1])
        assert ModelFolder.open(folder.path).rows("rows") == 4
        folder.commit()
    assert ModelFolder.open(folder.path).rows("rows") == 5


def test_what_is_on_disk_is_what_the_docstring_says(folder):
    header = json.loads((folder.path / HEADER).read_text(encoding="utf-8"))
    entry = header["arrays"]["rows"]
    assert (header["format"], header["version"]) == ("spadework-model", 1)
    assert (entry["dtype"], entry["row_shape"], entry["rows"]) == ("<f4", [3], 4)
    assert (folder.path / entry["file"]).read_bytes() == ROWS.astype("<f4").tobytes()


def test_rows_of_another_shape_are_refused(folder):
    with pytest.raises(ModelError, match=r"rows of 'rows' have shape \(2,\), the model holds \(3,\)"):
        folder.append("rows", np.zeros((1, 2), np.float32))


def test_replacing_an_array_deletes_the_old_file_after_the_commit(folder):
    old = folder.header["arrays"]["rows"]["file"]
    with folder.writing():
        folder.replace("rows", ROWS[::-1])
        assert (folder.path / old).exists()
        folder.commit()
    assert [path.name for path in folder.path.glob("*.bin")] == [folder.header["arrays"]["rows"]["file"]]
    np.testing.assert_array_equal(ModelFolder.open(folder.path).read("rows"), ROWS[::-1])


def test_an_error_while_writing_leaves_the_folder_as_it_was(folder):
    before = files_of(folder.path)
    with pytest.raises(KeyboardInterrupt), folder.writing():
        folder.append("rows", ROWS)
        raise KeyboardInterrupt
    assert files_of(folder.path) == before
    assert folder.rows("rows") == 4
    with folder.writing():
        folder.append("rows", ROWS[:1])
        folder.commit()
    np.testing.assert_array_equal(ModelFolder.open(folder.path).read("rows"), [*ROWS, ROWS[0]])


def files_of(path: Path) -> dict[str, bytes]:
    """Every file of a model but its lock."""
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "lock"}


# ---------------------------------------------------------------- crashes, call by call


class Faults:
    """Stand before every write, flush, rename, deletion and cut of storage.py; `act(number)` is called with the call's number."""

    CALLS = ("fsync", "replace", "truncate")

    def __init__(self, monkeypatch, act):
        self.act, self.count, self.log = act, 0, []
        for name in self.CALLS:
            monkeypatch.setattr(storage.os, name, self._before(name, getattr(os, name)))
        real_open = builtins.open

        def opened(file, mode="r", **options):
            handle = real_open(file, mode, **options)
            return TornFile(handle, self) if set(mode) & set("wa+") and Path(file).name != "lock" else handle

        monkeypatch.setattr(storage, "open", opened, raising=False)

    def _before(self, name, real):
        def call(*arguments, **options):
            self.step(name)
            return real(*arguments, **options)

        return call

    def step(self, name):
        self.count += 1
        self.log.append(name)
        self.act(self.count)


class TornFile:
    """A file whose every write happens in two halves, with a moment between them at which things can go wrong."""

    def __init__(self, handle, faults):
        self._handle, self._faults = handle, faults

    def write(self, data):
        self._faults.step("write")
        self._handle.write(data[: len(data) // 2])
        self._handle.flush()
        self._faults.step("half a write")
        self._handle.write(data[len(data) // 2 :])

    def __getattr__(self, name):
        return getattr(self._handle, name)

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self._handle.close()


def state_of(path: Path) -> tuple[int, bytes]:
    """How many images a gallery on disk holds, verified, and all its numbers."""
    gallery = Gallery(ModelFolder.open(path))
    gallery.verify()
    return len(gallery), gallery.globals.tobytes() + gallery.descriptors(
        range(len(gallery)), upsampling="bilinear"
    ).tobytes()


def test_a_crash_at_any_moment_of_an_append_leaves_all_or_nothing(tmp_path, monkeypatch):
    gallery = make_gallery(tmp_path / "m.spade", 3)
    before, moments = state_of(gallery.folder.path), []

    def keep_the_disk_as_it_is_now(number):
        moments.append(tmp_path / f"moment-{number}")
        shutil.copytree(gallery.folder.path, moments[-1])

    with monkeypatch.context() as patch:
        Faults(patch, keep_the_disk_as_it_is_now)
        append_parts_of(gallery, [3, 4])
    after = state_of(gallery.folder.path)
    states = [state_of(moment) for moment in moments]
    assert len(states) > 25  # two images, five arrays, two halves each, then the flushes and the header
    assert set(states) == {before, after}
    assert states == sorted(states, key=lambda state: state[0])  # once after, always after
    for moment in moments:  # and each can be appended to again, which also clears away what the crash left
        again = Gallery(ModelFolder.open(moment))
        append_parts_of(again, [3, 4] if len(again) == 3 else [])
        assert state_of(moment) == after
        assert leftovers(moment) == []


def test_data_is_flushed_before_the_header_takes_its_place(tmp_path, monkeypatch):
    gallery = make_gallery(tmp_path / "m.spade", 2)
    with monkeypatch.context() as patch:
        faults = Faults(patch, lambda number: None)
        append_parts_of(gallery, [2])
    renamed = faults.log.index("replace")
    arrays = len(gallery.folder.header["arrays"])
    assert faults.log[:renamed].count("fsync") == arrays + 1  # each array and the new header
    assert faults.log[renamed - 1] == "fsync"
    assert faults.log[renamed + 1] == "fsync"  # the folder itself


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EIO])
def test_a_failure_at_any_call_of_an_append_leaves_the_model(tmp_path, monkeypatch, kind):
    gallery = make_gallery(tmp_path / "m.spade", 2)
    before, path = state_of(gallery.folder.path), gallery.folder.path
    untouched = files_of(path)
    number, failed = 0, True
    while failed:
        number += 1
        with monkeypatch.context() as patch:
            Faults(patch, failing_at(number, kind))
            try:
                append_parts_of(gallery, [2])
                failed = False
            except OutputError as error:
                assert str(path) in str(error)
                assert os.strerror(kind) in str(error)
        if failed and state_of(path)[0] == 2:
            assert state_of(path) == before
            assert files_of(path) == untouched  # nothing is left in the way
        elif failed:  # the rename was done, so it counts, and the open model knows it
            assert number > 15
            gallery.refresh()
            assert len(gallery) == 3
            break
    assert number > 15
    append_parts_of(gallery, [3])  # the same object goes on
    assert state_of(path)[0] == 4


def failing_at(number: int, kind: int):
    def act(count):
        if count == number:
            raise OSError(kind, os.strerror(kind))

    return act


@pytest.mark.slow
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_at_any_call_of_a_fit_leaves_the_old_model_and_no_drafts(tmp_path, monkeypatch, existing, temporary):
    target, pictures = tmp_path / "here" / "part.spade", normal_pictures(2)
    if existing:
        tiny_model(3).save(target)
    before = answers(Spade.load(target)) if existing else None
    fresh = answers(tiny_model(2))
    model = Spade(**TINY)
    for number in range(1, 400, 6):
        with monkeypatch.context() as patch:
            Faults(patch, failing_at(number, errno.ENOSPC))
            try:
                model.fit(pictures, path=target)
                break
            except OutputError as error:
                assert os.strerror(errno.ENOSPC) in str(error)
        assert leftovers(tmp_path) == []
        if target.exists():
            assert answers(Spade.load(target)) in (before, fresh)
            assert len(list(target.glob("*.bin"))) == len(ModelFolder.open(target).header["arrays"])
        else:
            assert not existing
    assert number > 20
    assert answers(Spade.load(target)) == fresh


# ---------------------------------------------------------------- kill -9

CHILD = """
import sys, numpy as np
from spadework.detectors.spade import Spade
model = Spade.load(sys.argv[1])
model.predict(sys.argv[2])  # the network is open
print("go", flush=True)
model.append(sys.argv[2])
print("done", flush=True)
"""


def start_append(path: Path, pictures: Path) -> Fork:
    child = Fork(CHILD, path, pictures)
    assert child.stdout.readline() == "go\n"
    return child


@pytest.mark.slow
def test_killed_at_twenty_moments_of_an_append(tmp_path):
    original = tiny_model(4).save(tmp_path / "part.spade")
    added = write_pictures(tmp_path / "new", normal_pictures(12, start=20))[0].parent
    before, counts = answers(Spade.load(original)), {4: before_of(original)}

    whole = Path(shutil.copytree(original, tmp_path / "whole.spade"))
    child = start_append(whole, added)
    started = time.perf_counter()
    assert child.stdout.readline() == "done\n"
    lasted = time.perf_counter() - started
    assert child.wait() == 0
    after = answers(Spade.load(whole))
    assert after != before
    counts[16] = before_of(whole)

    moments = np.random.default_rng(1).uniform(0, 1.1 * lasted, 20)
    moments[:6] = np.linspace(0.85, 1.05, 6) * lasted  # closer together around the commit
    for number, moment in enumerate(moments):
        copy = Path(shutil.copytree(original, tmp_path / f"{number}.spade"))
        child = start_append(copy, added)
        time.sleep(moment)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        model = Spade.load(copy)
        model.verify()
        assert model.n_normal_ in counts
        assert answers(model) == (before if model.n_normal_ == 4 else after)
        assert before_of(copy) == counts[model.n_normal_]
        if model.n_normal_ == 4:
            model.append(added)
            assert answers(Spade.load(copy)) == after
            assert leftovers(copy) == []


def before_of(path: Path) -> tuple[int, list[str]]:
    model = Spade.load(path)
    return len(model.gallery_), [Path(entry.name).name for entry in model.gallery_.entries[4:]]


# ---------------------------------------------------------------- damage


def flip(file: Path, place: float) -> None:
    data = bytearray(file.read_bytes())
    data[min(int(len(data) * place), len(data) - 1)] ^= 0x20
    file.write_bytes(data)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_flipped_byte_in_any_file_is_found_and_named(saved, place):
    arrays = ModelFolder.open(saved).header["arrays"]
    assert {"pyramids", "pyramid_checks", "globals", "thumbnails", "entries", "normal_scores"} <= set(arrays)
    for name in [HEADER, *(entry["file"] for entry in arrays.values())]:
        file, sound = saved / name, (saved / name).read_bytes()
        flip(file, place)
        with pytest.raises(ModelError, match=r"damaged|not the header") as caught:
            Spade.load(saved).verify()
        image = min(int(place * 6), 5)  # large arrays have a checksum an image, and the message says which
        assert name in str(caught.value) or f"image {image}" in str(caught.value) or name.startswith("thumb")
        file.write_bytes(sound)
    Spade.load(saved).verify()


def test_a_damaged_image_is_found_when_it_is_first_needed(saved):
    flip(saved / ModelFolder.open(saved).header["arrays"]["pyramids"]["file"], 0.5)
    model = Spade.load(saved)  # large arrays are not read at the opening
    with pytest.raises(ModelError, match=r"the features of image 3 \(array 3\) are damaged"):
        answers(model)


def test_every_byte_of_a_small_header_is_under_the_checksum(folder):
    sound = (folder.path / HEADER).read_bytes()
    for place in range(0, len(sound), 5):
        (folder.path / HEADER).write_bytes(sound[:place] + bytes([sound[place] ^ 0x01]) + sound[place + 1 :])
        try:
            found = ModelFolder.open(folder.path)
        except ModelError:
            continue
        assert found.header == folder.header, f"byte {place}"  # white space between values may change


def test_a_truncated_file_is_refused(saved):
    for entry in ModelFolder.open(saved).header["arrays"].values():
        file = saved / entry["file"]
        sound = file.read_bytes()
        file.write_bytes(sound[:-1])
        with pytest.raises(
            ModelError, match=f"{file.name}: has {len(sound) - 1} bytes, the header counts {len(sound)}"
        ):
            Spade.load(saved)
        file.unlink()
        with pytest.raises(ModelError, match=f"{file.name}: is missing"):
            Spade.load(saved)
        file.write_bytes(sound)


def rewrite(path: Path, **changes) -> None:
    """A header with other values and a right checksum."""
    header = {**json.loads((path / HEADER).read_text()), **changes}
    header["checksum"] = storage._checksum(header)
    (path / HEADER).write_text(json.dumps(header))


@pytest.mark.parametrize("version", [VERSION + 1, "2", None])
def test_a_newer_version_is_refused(saved, version):
    rewrite(saved, version=version)
    with pytest.raises(ModelError, match=rf"format version {version}, this Spadework reads up to {VERSION}. Upgrade"):
        Spade.load(saved)


def test_what_is_no_model_is_refused(tmp_path, saved):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty: is not a Spadework model \(no header.json in it\)"):
        Spade.load(tmp_path / "empty")
    with pytest.raises(ModelError, match="nowhere: does not exist"):
        Spade.load(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ModelError, match="text: is a file; a Spadework model is a folder"):
        Spade.load(tmp_path / "text")
    for content in ("", "{", "[]", '{"format": "other"}', "\x00\xff"):
        (saved / HEADER).write_bytes(content.encode("latin-1"))
        with pytest.raises(ModelError, match=HEADER):
            Spade.load(saved)


def test_a_model_of_another_detector_is_refused(saved):
    rewrite(saved, detector="other")
    with pytest.raises(ModelError, match="was made by detector 'other', not 'spade'"):
        Spade.load(saved)


# ---------------------------------------------------------------- permissions, and others at work


def test_a_read_only_folder_is_an_output_error(saved, monkeypatch):
    model = Spade.load(saved)
    before = files_of(saved)

    def refuse(file, mode="r", **options):
        if set(mode) & set("wa+"):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return builtins.open(file, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "open", refuse, raising=False)
        for write in (lambda: model.append(normal_pictures(1)), lambda: model.set_max_false_alarms(0.2)):
            with pytest.raises(OutputError, match="Permission denied"):
                write()
        assert answers(model) == answers(Spade.load(saved))
    assert files_of(saved) == before


@pytest.mark.skipif(os.name == "nt" or getattr(os, "geteuid", lambda: 0)() == 0, reason="permissions do not bind root")
def test_a_read_only_parent_is_an_output_error(tmp_path, model):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        model.save(tmp_path / "locked" / "part.spade")


def test_the_second_writer_is_refused(saved):
    first, second = ModelFolder.open(saved), Spade.load(saved)
    with first.writing(), pytest.raises(OutputError, match="another process is writing to this model"):
        second.append(normal_pictures(1))
    second.append(normal_pictures(1))


def test_a_writer_that_knows_an_older_state_is_told_to_load_again(saved):
    stale, other = Spade.load(saved), Spade.load(saved)
    other.append(normal_pictures(2, start=30))
    for write in (lambda: stale.append(normal_pictures(1)), lambda: stale.set_max_false_alarms(0.3), stale.recalibrate):
        with pytest.raises(ModelError, match="changed by another process since it was opened. Load it again"):
            write()
    assert Spade.load(saved).n_normal_ == 8


def test_opening_while_a_writer_replaces_files_gives_the_new_model(saved, monkeypatch):
    real, calls = storage._read_header, []

    def read_then_write(path):
        header = real(path)
        calls.append(path)
        if len(calls) == 1:
            Spade.load(saved).recalibrate()  # between the reader's header and its files
        return header

    monkeypatch.setattr(storage, "_read_header", read_then_write)
    found = ModelFolder.open(saved)
    monkeypatch.undo()
    assert found.header == real(saved)
    assert found.rows("normal_scores") == 5


def test_loading_while_a_writer_replaces_the_model_gives_the_new_one(saved, monkeypatch):
    real, calls = ModelFolder.open.__func__, []

    def open_then_write(cls, path):
        folder = real(cls, path)
        calls.append(path)
        if len(calls) == 1:
            Spade(**TINY).fit(normal_pictures(4, start=70), path=saved)  # between opening the model and reading it
        return folder

    monkeypatch.setattr(ModelFolder, "open", classmethod(open_then_write))
    loaded = Spade.load(saved)
    assert (loaded.n_normal_, len(loaded.gallery_)) == (4, 4)
    assert len(calls) == 2


def test_a_file_that_goes_while_it_is_checked_is_a_model_error(saved, monkeypatch):
    def gone(file, length):
        raise FileNotFoundError(2, "No such file or directory", str(file))

    monkeypatch.setattr(storage, "_crc_of_file", gone)
    with pytest.raises(ModelError, match="is missing or unreadable"):
        ModelFolder.open(saved)


def test_a_reader_goes_on_while_others_append(saved):
    reader = Spade.load(saved)
    before = answers(reader)
    Spade.load(saved).append(normal_pictures(2, start=30))
    assert answers(reader) == before


def test_a_reader_keeps_its_answers_while_others_recalibrate(saved):
    reader = Spade.load(saved)
    before = (reader.threshold_, reader.map_threshold_)
    Spade.load(saved).append(normal_pictures(2, start=30)).recalibrate()  # the file of the scores is another one now
    assert reader.predict(normal_pictures(1, start=60)[0]).threshold == before[0].value
    assert (reader.threshold_, reader.map_threshold_) == before


@pytest.mark.parametrize("change", ["fit", "delete"])
def test_a_reader_goes_on_with_the_files_it_has_open(saved, change):
    reader = Spade.load(saved)
    before = answers(reader)
    if change == "fit":
        Spade(**TINY).fit(normal_pictures(3), path=saved)
    else:
        shutil.rmtree(saved)
    assert answers(reader) == before
    assert answers(Spade.load(reader.save(saved.with_name("copy.spade")))) == before
    assert leftovers(saved.parent) == []


@pytest.mark.parametrize("change", ["fit", "delete"])
def test_a_reader_whose_files_are_gone_is_told_so(saved, change, monkeypatch):
    def full(path):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(storage, "_Held", full)  # where files cannot be kept open they are opened by name
    reader = Spade.load(saved)
    if change == "fit":
        Spade(**TINY).fit(normal_pictures(3), path=saved)
    else:
        shutil.rmtree(saved)
    with pytest.raises(ModelError, match=r"part\.spade.*[Ll]oad it again"):
        answers(reader)
    with pytest.raises((ModelError, OutputError)):
        reader.save(saved.with_name("copy.spade"))
    assert leftovers(saved.parent) == []
