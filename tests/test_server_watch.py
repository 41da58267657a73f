"""A watched folder: each file is inspected exactly once, whatever happens to it or to us."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from builders import normal_picture
from forks import Fork
from stations import NAME, history_in, png_of, station_in

from spadework.errors import OutputError
from spadework.server import watch as watch_module
from spadework.server.decoding import Decoders
from spadework.server.history import History
from spadework.server.records import Filter
from spadework.server.watch import Watch


@pytest.fixture(scope="module")
def decoders():
    with Decoders(2, 4_000_000, 512 << 20, 20.0) as made:
        yield made


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(watch_module, "EVERY", 0.02)
    monkeypatch.setattr(watch_module, "SETTLED", 0.4)
    monkeypatch.setattr(watch_module, "RETRY", (0.05, 0.2))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "in"
    made.mkdir()
    return made


@contextmanager
def watching(root: Path, model: Path, folder: Path, decoders: Decoders, **options):
    with station_in(root, model, **options) as station:
        watch = Watch(folder, station, station.pictures, decoders, station.history)
        try:
            yield station, watch
        finally:
            watch.close()


@pytest.fixture
def line(saved, tmp_path, folder, decoders):
    with watching(tmp_path / "s", saved, folder, decoders) as made:
        yield made


def until(true, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def names(history: History) -> list[str]:
    found, cursor = [], None
    while True:
        page = history.find(Filter(limit=200, cursor=cursor, newest_first=False))
        found += [item.seen.name for item in page.items]
        cursor = page.cursor
        if cursor is None:
            return found


def looks(watch: Watch, count: int = 8) -> None:
    """Wait until the folder was looked at so many times more."""
    calls, real = [], watch._look
    watch._look = lambda now: (calls.append(now), real(now))[1]
    until(lambda: len(calls) >= count)
    watch._look = real


def drop(folder: Path, name: str, index: int = 0) -> Path:
    """As a careful program does: written under another name, then renamed."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(path.name + ".part")
    hidden.write_bytes(png_of(normal_picture(100 + index)))
    hidden.rename(path)
    return path


# ---------------------------------------------------------------- each once


def test_what_appears_is_inspected_once(line, folder):
    station, watch = line
    path = drop(folder, "a.png")
    until(lambda: watch.done == 1)
    looks(watch)
    (found,) = station.history.find(Filter()).items
    told = path.stat()
    assert (found.seen.name, found.seen.source, found.seen.who, found.seen.media_type) == (
        "a.png",
        "watch",
        "watch",
        "image/png",
    )
    assert (found.seen.watched.path, found.seen.watched.inode, found.seen.watched.mtime_ns) == (
        str(path),
        told.st_ino,
        told.st_mtime_ns,
    )
    assert station.pictures.path(found.seen.picture).read_bytes() == path.read_bytes()
    assert found.seen.timings["decode"] > 0
    assert watch.waiting == 0


def test_what_was_there_before_counts_and_subfolders_do(saved, tmp_path, folder, decoders):
    drop(folder, "old.png", 1)
    drop(folder, "monday/early/part.JPG", 2)
    for name in (".hidden.png", ".thumbs/x.png", "notes.txt", "part.png.tmp", "model.spade/x.png", "anim.gif"):
        drop(folder, name, 3)
    os.mkfifo(folder / "pipe.png")
    (folder / "broken-link.png").symlink_to(folder / "nowhere")
    (folder / "folder.png").mkdir()
    with watching(tmp_path / "s", saved, folder, decoders) as (station, watch):
        until(lambda: watch.done == 2)
        looks(watch)
        assert sorted(names(station.history)) == ["monday/early/part.JPG", "old.png"]
        assert list(watch.bad) == []


def test_a_file_that_is_written_slowly_is_inspected_when_it_is_whole(line, folder):
    station, watch = line
    data = png_of(normal_picture(100))
    with open(folder / "slow.png", "wb", buffering=0) as file:
        for start in range(0, len(data), len(data) // 5):
            file.write(data[start : start + len(data) // 5])
            looks(watch, 4)  # longer than it must rest
            assert names(station.history) == [] or file.tell() == len(data)
    until(lambda: watch.done == 1)
    looks(watch)
    assert names(station.history) == ["slow.png"]
    assert list(watch.bad) == []


def test_a_file_that_stays_half_is_told_once_and_inspected_when_it_is_mended(line, folder, caplog):
    station, watch = line
    data = png_of(normal_picture(100))
    (folder / "half.png").write_bytes(data[:900])
    (folder / "text.png").write_text("no picture")
    drop(folder, "good.png", 1)
    until(lambda: len(watch.bad) == 2)
    looks(watch)
    assert sorted(Path(path).name for path, _ in watch.bad) == ["half.png", "text.png"]
    assert caplog.text.count("half.png") == 1
    assert names(station.history) == ["good.png"]
    (folder / "half.png").write_bytes(data)
    until(lambda: watch.done == 2)
    assert names(station.history) == ["good.png", "half.png"]


def test_renamed_moved_and_linked_files_are_not_inspected_again(line, folder):
    station, watch = line
    path = drop(folder, "a.png")
    until(lambda: watch.done == 1)
    path.rename(folder / "b.png")
    looks(watch)
    (folder / "done").mkdir()
    (folder / "b.png").rename(folder / "done" / "c.png")
    looks(watch)
    os.link(folder / "done" / "c.png", folder / "d.png")
    looks(watch)
    assert names(station.history) == ["a.png"]


def test_renamed_while_we_were_away(saved, tmp_path, folder, decoders):
    path = drop(folder, "a.png")
    with watching(tmp_path / "s", saved, folder, decoders) as (_, watch):
        until(lambda: watch.done == 1)
    path.rename(folder / "b.png")
    drop(folder, "new.png", 5)
    with watching(tmp_path / "s", saved, folder, decoders) as (station, watch):
        until(lambda: watch.done == 1)
        looks(watch)
        assert names(station.history) == ["a.png", "new.png"]


def test_new_content_under_an_old_name_is_a_new_part(line, folder):
    station, watch = line
    drop(folder, "latest.png", 1)
    until(lambda: watch.done == 1)
    drop(folder, "latest.png", 2)
    until(lambda: watch.done == 2)
    looks(watch)
    assert names(station.history) == ["latest.png", "latest.png"]


def test_equal_pictures_of_two_parts_are_two(line, folder):
    station, watch = line
    drop(folder, "a.png", 1)
    drop(folder, "b.png", 1)
    until(lambda: watch.done == 2)
    assert sorted(names(station.history)) == ["a.png", "b.png"]


def test_the_oldest_come_first(saved, tmp_path, folder, decoders):
    for index, name in enumerate("dcbafe"):
        os.utime(drop(folder, f"{name}.png", index), ns=(10**18, 10**18 + index * 10**9))
    with watching(tmp_path / "s", saved, folder, decoders) as (station, watch):
        until(lambda: watch.done == 6)
        assert names(station.history) == [f"{name}.png" for name in "dcbafe"]


def test_a_file_that_goes_or_changes_while_it_is_read_is_looked_at_again(line, folder, monkeypatch):
    station, watch = line
    real, first = watch_module._copy, []

    def changing(source, incoming, key):
        if not first:
            first.append(1)
            with open(folder / "a.png", "ab") as file:
                file.write(b"more")
        real(source, incoming, key)

    monkeypatch.setattr(watch_module, "_copy", changing)
    drop(folder, "a.png")
    until(lambda: watch.done == 1)
    looks(watch)
    (found,) = station.history.find(Filter()).items
    assert found.seen.watched.size == (folder / "a.png").stat().st_size
    watch_files = dict(watch._files)
    (folder / "a.png").unlink()
    until(lambda: not watch._files)
    assert len(watch_files) == 1  # and what has gone is forgotten


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_becomes_no_file_between_the_look_and_the_reading_hangs_nothing(line, folder, monkeypatch, kind):
    station, watch = line
    real, swapped = Watch._prepare, []

    def swapping(self, file):
        if not swapped and file.path.endswith("a.png"):
            path = folder / "a.png"
            path.rename(folder / "b.png")
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "socket":
                socket.socket(socket.AF_UNIX).bind(os.fspath(path))
            elif kind == "device":
                path.symlink_to("/dev/zero")
            else:
                path.mkdir()
            swapped.append(1)
        return real(self, file)

    monkeypatch.setattr(Watch, "_prepare", swapping)
    drop(folder, "a.png")
    until(lambda: watch.done == 1, 20)
    looks(watch)
    assert swapped
    assert names(station.history) == ["b.png"]
    assert not list((station.pictures.folder / "incoming").iterdir())


# ---------------------------------------------------------------- many, and trouble


@pytest.mark.slow
def test_a_thousand_at_once_and_a_restart_in_between(saved, tmp_path, folder, decoders):
    content = [png_of(normal_picture(100 + index, (32, 32))) for index in range(20)]
    for index in range(1000):
        (folder / f"{index:04d}.png").write_bytes(content[index % 20])
    with watching(tmp_path / "s", saved, folder, decoders, queue=4, batch=4) as (station, watch):
        until(lambda: watch.done > 300, 300)
    with watching(tmp_path / "s", saved, folder, decoders, queue=4, batch=4) as (station, watch):
        until(lambda: watch._files and watch.waiting == 0, 300)
        assert Counter(names(station.history)) == Counter(f"{index:04d}.png" for index in range(1000))
        assert list(watch.bad) == []
    assert not list((tmp_path / "s" / "files" / "incoming").iterdir())


def test_a_full_queue_is_waited_for(saved, tmp_path, folder, decoders, monkeypatch):
    for index in range(12):
        drop(folder, f"{index}.png", index)
    monkeypatch.setattr(watch_module, "ROUND", 5)
    with watching(tmp_path / "s", saved, folder, decoders, queue=1, batch=1) as (station, watch):
        until(lambda: watch.done == 12)
        assert len(set(names(station.history))) == 12


def test_what_is_not_the_files_fault_is_tried_again(line, folder, monkeypatch):
    station, watch = line
    real, failures = History.record_many, []

    def fails_twice(self, new):
        if len(failures) < 2:
            failures.append(1)
            raise OutputError("the database is away")
        return real(self, new)

    monkeypatch.setattr(History, "record_many", fails_twice)
    drop(folder, "a.png")
    until(lambda: watch.done == 1)
    assert names(station.history) == ["a.png"]
    assert len(watch.bad) == 1  # told once


def test_a_folder_that_goes_comes_back(line, folder, caplog):
    station, watch = line
    drop(folder, "a.png", 1)
    until(lambda: watch.done == 1)
    shutil.move(folder, folder.with_name("away"))
    until(lambda: watch.error is not None)
    shutil.move(folder.with_name("away"), folder)
    drop(folder, "b.png", 2)
    until(lambda: watch.done == 2)
    assert watch.error is None
    assert sorted(names(station.history)) == ["a.png", "b.png"]
    assert caplog.text.count("cannot be listed") == 1


def test_closing_does_not_wait_for_a_queue_that_does_not_move(saved, tmp_path, folder, decoders, monkeypatch):
    for index in range(6):
        drop(folder, f"{index}.png", index)
    with station_in(tmp_path / "s", saved, queue=1, batch=1) as station:
        gate = threading.Event()
        real = History.record_many
        monkeypatch.setattr(History, "record_many", lambda self, new: (gate.wait(60), real(self, new))[1])
        watch = Watch(folder, station, station.pictures, decoders, station.history)
        until(lambda: watch._room._value == 0)
        watch.close()
        gate.set()
    with watching(tmp_path / "s", saved, folder, decoders) as (station, watch):
        until(lambda: watch._files and watch.waiting == 0)
        assert sorted(names(station.history)) == [f"{index}.png" for index in range(6)]


def test_a_station_that_stops_ends_the_watch(saved, tmp_path, folder, decoders):
    with watching(tmp_path / "s", saved, folder, decoders) as (station, watch):
        station.stop()
        drop(folder, "late.png")
        until(lambda: not watch._thread.is_alive())
        assert names(station.history) == []


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from stations import station_in
from spadework.server import watch
from spadework.server.decoding import Decoders
watch.EVERY = 0.02
if __name__ == "__main__":
    with Decoders(1, 4_000_000, 512 << 20, 20.0) as decoders, station_in(Path(sys.argv[1]), Path(sys.argv[2]), batch=3) as station:
        watch.Watch(sys.argv[3], station, station.pictures, decoders, station.history)
        print("go", flush=True)
        time.sleep(1000)
"""


@pytest.mark.slow
def test_killed_at_random_moments_each_file_is_inspected_once(saved, tmp_path, folder, decoders):
    rng, count = np.random.default_rng(5), 0
    for number in range(8):
        for _ in range(15):
            drop(folder, f"{count:03d}.png", count % 10)
            count += 1
        child = Fork(CHILD, tmp_path / "s", saved, folder, Path(__file__).parent)
        assert child.stdout.readline() == "go\n"
        time.sleep(rng.uniform(0.05, 0.8))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        for path in list(folder.glob(f"{3 * number:03d}.png")):
            path.rename(folder / f"renamed-{number}.png")
    with history_in(tmp_path / "s") as history:
        before = history.count()
    assert 0 < before < count  # some were done before a kill, some were not
    with watching(tmp_path / "s", saved, folder, decoders) as (station, watch):
        until(lambda: watch._files and watch.waiting == 0, 120)
        inodes = [item.seen.watched.inode for item in all_of(station.history)]
        assert sorted(inodes) == sorted(path.stat().st_ino for path in folder.glob("*.png"))
        assert all(item.seen.model == NAME for item in all_of(station.history))


def all_of(history: History):
    cursor = None
    while True:
        page = history.find(Filter(limit=200, cursor=cursor))
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return
