"""Files under their hashes: whole or not at all, once, never out of the folder, never taken from under a new inspection."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time

import cv2
import numpy as np
import pytest
from builders import normal_picture

from spadework.errors import ImageError, InputError, OutputError
from spadework.images import read_image
from spadework.server.pictures import Pictures


@pytest.fixture
def pictures(tmp_path) -> Pictures:
    return Pictures(tmp_path / "files")


def files_of(pictures: Pictures) -> list[str]:
    found = [path.relative_to(pictures.folder).as_posix() for path in pictures.folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if name != "lock")


def test_what_is_received_is_kept_under_its_hash(pictures):
    with pictures.incoming() as incoming:
        incoming.write(b"one ")
        incoming.write(memoryview(b"two"))
        assert incoming.flush().read_bytes() == b"one two"
        assert (incoming.size, incoming.sha256) == (7, hashlib.sha256(b"one two").hexdigest())
        sha256 = pictures.keep(incoming)
    assert files_of(pictures) == [f"pictures/{sha256[:2]}/{sha256}"]
    assert pictures.path(sha256).read_bytes() == b"one two"
    assert pictures.keep_bytes(b"one two") == sha256


def test_what_is_not_kept_is_gone(pictures):
    with pytest.raises(RuntimeError), pictures.incoming() as incoming:
        incoming.write(b"half")
        raise RuntimeError
    with pictures.incoming():
        pass
    assert files_of(pictures) == []


def test_the_same_content_is_kept_once_and_is_young_again(pictures):
    sha256 = pictures.keep_bytes(b"x")
    os.utime(pictures.path(sha256), (1000, 1000))
    with pictures.incoming() as incoming:
        incoming.write(b"x")
        assert pictures.keep(incoming) == sha256
    assert pictures.path(sha256).stat().st_mtime > time.time() - 60
    assert pictures.put_evidence(b"x") == sha256
    assert files_of(pictures) == [f"evidence/{sha256[:2]}/{sha256}", f"pictures/{sha256[:2]}/{sha256}"]


def test_a_file_is_on_the_disk_before_it_has_its_name(pictures, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("rename"), real(old, new)))
    sha256 = pictures.keep_bytes(b"x")
    kinds = [name if name == "rename" else os.path.relpath(name, pictures.folder).split("/")[0] for name in done]
    assert kinds == ["incoming", "pictures", "rename", "pictures"]  # the new folder's name, then the file's
    assert done[-1] == str(pictures.path(sha256).parent)


@pytest.mark.parametrize(
    "wrong", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", None, "/" * 64]
)
def test_no_path_is_made_of_what_is_no_hash(pictures, wrong):
    for call in (pictures.path, pictures.evidence_path, lambda sha256: pictures.thumbnail(sha256, read_image)):
        with pytest.raises(InputError, match="no SHA-256"):
            call(wrong)


def test_a_thumbnail_is_made_once(pictures):
    _, data = cv2.imencode(".png", normal_picture(0, (500, 1000)))
    sha256 = pictures.keep_bytes(data.tobytes())
    small = pictures.thumbnail(sha256, read_image)
    assert cv2.imread(str(small)).shape == (160, 320, 3)
    before = small.stat().st_mtime_ns
    assert pictures.thumbnail(sha256, read_image) == small and small.stat().st_mtime_ns == before


def test_a_thumbnail_of_what_is_gone_or_no_picture(pictures):
    assert pictures.thumbnail("0" * 64, read_image) is None
    with pytest.raises(ImageError):
        pictures.thumbnail(pictures.keep_bytes(b"no picture"), read_image)


def test_removing_frees_what_it_says_and_spares_the_young(pictures):
    _, data = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))
    sha256 = pictures.keep_bytes(data.tobytes())
    small = pictures.thumbnail(sha256, read_image).stat().st_size
    assert pictures.size() == len(data) + small
    kept = pictures.path(sha256).stat().st_mtime
    assert pictures.remove("pictures", sha256, before=kept) == 0
    assert pictures.path(sha256).exists()
    assert pictures.remove("pictures", sha256, before=kept + 1) == len(data) + small
    assert files_of(pictures) == [] and pictures.size() == 0
    assert pictures.remove("pictures", sha256, before=kept + 1) == 0


def test_what_was_left_half_received_is_removed_when_old(pictures):
    (pictures.folder / "incoming" / "left").write_bytes(b"x")
    assert pictures.remove_incoming(before=time.time() - 60) == 0
    assert pictures.remove_incoming(before=time.time() + 60) == 1


def test_no_room_is_told(pictures, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        pictures.keep_bytes(b"x")
    assert files_of(pictures) == []


def test_keeping_and_removing_at_once_never_loses_what_was_kept(pictures):
    """Whoever keeps a file finds it there afterwards, while another removes all that is a minute old."""
    sha256 = hashlib.sha256(b"x").hexdigest()
    stop = threading.Event()

    def clean():
        while not stop.is_set():
            if pictures.path(sha256).exists():
                pictures.remove("pictures", sha256, before=time.time() - 60)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for _ in range(300):
            with contextlib.suppress(FileNotFoundError):
                os.utime(pictures.path(sha256), (1000, 1000))
            pictures.keep_bytes(b"x")
            assert pictures.path(sha256).exists()
    finally:
        stop.set()
        cleaner.join()


def test_many_at_once_keep_the_same(pictures):
    found, problems = [], []

    def keep():
        try:
            found.extend(pictures.keep_bytes(bytes([i])) for i in range(40))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=keep) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [] and len(set(found)) == 40
    assert len(files_of(pictures)) == 40


@contextlib.contextmanager
def full_disk(room: int):
    """Nothing can grow beyond so many bytes, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [5_000, 50_000, 5_000_000])  # below and above what is written at once
@pytest.mark.parametrize("step", ["write", "flush", "keep"])
def test_a_full_disk_is_told_as_such_whenever_it_shows(pictures, size, step):
    with full_disk(1000):
        with pytest.raises(OutputError), pictures.incoming() as incoming:  # and not an OSError, when it is closed
            incoming.write(b"x" * size)
            if step == "flush":
                incoming.flush()
            pictures.keep(incoming)
        with pytest.raises(OutputError):
            pictures.put_evidence(b"x" * size)
        with contextlib.suppress(OutputError), pictures.incoming() as incoming:  # what is given up needs no room
            incoming.write(b"x" * size)
    assert files_of(pictures) == []
    assert pictures.keep_bytes(b"x" * size)
