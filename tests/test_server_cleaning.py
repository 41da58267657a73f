"""Cleaning up: the old goes, the marked and the needed stay, and what a crash left is found; on both databases."""

from __future__ import annotations

import os
import random
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from histories import START, clock, database_url, decide, history, postgresql_server, seen

from spadework.errors import InputError, OutputError
from spadework.images import read_image
from spadework.server.cleaning import Cleaned, clean
from spadework.server.records import Filter, Inspection, NewChange

__all__ = ["clock", "database_url", "history", "postgresql_server"]  # fixtures

DAY = timedelta(days=1)


class Line:
    """Inspections with files of a known size and age, one a day."""

    def __init__(self, history, clock) -> None:
        self.history, self.clock, self.pictures = history, clock, history.pictures

    def inspect(self, content: str, evidence: str | None = None, size: int = 1000) -> Inspection:
        self.clock.at += DAY
        picture = self.pictures.keep_bytes(content.encode().ljust(size))
        told = None if evidence is None else self.pictures.put_evidence(evidence.encode().ljust(100))
        new = self.history.record_many([seen(0, picture=picture, evidence=told)])[0]
        self.age(new)
        return new

    def age(self, inspection: Inspection) -> None:
        """Give the files the time of the inspection, as if the clock of the test were that of the disk."""
        for path in self.files(inspection):
            os.utime(path, (inspection.at.timestamp(), inspection.at.timestamp()))

    def files(self, inspection: Inspection) -> list[Path]:
        new = inspection.seen
        evidence = [] if new.evidence is None else [self.pictures.evidence_path(new.evidence)]
        return [self.pictures.path(new.picture), *evidence]

    def has_files(self, inspection: Inspection) -> bool:
        """All or none; and the row says the same."""
        there = {path.exists() for path in self.files(inspection)}
        assert len(there) == 1
        removed = self.history.get(inspection.id).files_removed_at
        assert (removed is None) == there.copy().pop()
        return there.pop()


@pytest.fixture
def line(history, clock) -> Line:
    return Line(history, clock)


def test_files_of_old_inspections_go_and_their_rows_stay(line, history, clock):
    old, young = [line.inspect(f"{i}", f"e{i}") for i in range(3)], [line.inspect(f"{i}", f"e{i}") for i in range(3, 6)]
    done = clean(history, 3, None, young[0].at + 3 * DAY)
    assert done == Cleaned(inspections=3, orphans=0, freed=3300, left=3300)
    assert [line.has_files(one) for one in (*old, *young)] == [False] * 3 + [True] * 3
    assert history.get(old[0].id).files_removed_at == young[0].at + 3 * DAY
    assert history.get(old[0].id).seen == old[0].seen
    assert history.count() == 6
    assert clean(history, 3, None, young[0].at + 3 * DAY) == Cleaned(0, 0, 0, 3300)


def test_what_a_person_marked_stays_whatever_its_age(line, history):
    marked, undone, appended, other = (line.inspect(f"{i}", f"e{i}") for i in range(4))
    decide(history, marked, "defect")
    history.undo(decide(history, undone, "normal").id, "ben")
    history.change(NewChange("part", "ben", "append", "a", "b", (), appended.id))
    done = clean(history, 0, 0, other.at + 900 * DAY)
    assert [line.has_files(one) for one in (marked, undone, appended, other)] == [True, True, True, False]
    assert done.left == 3300


def test_a_file_that_another_inspection_needs_stays(line, history):
    first = line.inspect("same", "e1")
    marked = line.inspect("kept", "e2")
    decide(history, marked)
    twin = line.inspect("kept", "e3")
    again = line.inspect("same", "e4")
    clean(history, 1, None, again.at + DAY / 2)
    assert all(line.has_files(one) for one in (first, marked, twin, again))
    clean(history, 1, None, again.at + 2 * DAY)  # now none needs "same"
    assert [line.has_files(one) for one in (first, marked, twin, again)] == [False, True, True, False]


def test_evidence_that_another_inspection_needs_stays(line, history):
    old, young = line.inspect("a", "same"), line.inspect("b", "same")
    clean(history, 1, None, young.at + DAY / 2)
    assert [path.exists() for path in line.files(old)] == [False, True]
    assert line.has_files(young)
    clean(history, 1, None, young.at + 2 * DAY)
    assert not line.has_files(young)


def test_the_oldest_go_until_the_rest_fits(line, history):
    found = [line.inspect(f"{i}", size=1000) for i in range(60)]
    decide(history, found[1])
    now = found[-1].at + DAY
    done = clean(history, None, 20_000, now)
    left = [line.has_files(one) for one in found]
    assert left[1] and left == [*left[:2], *sorted(left[2:])]  # what went is older than what stayed
    assert done.left == sum(left) * 1000 <= 20_000
    assert done.left > 20_000 - 25_000  # no more than a batch too many
    assert sum(left) >= 1
    assert clean(history, None, 20_000, now).inspections == 0
    assert clean(history, None, None, now).inspections == 0


def test_the_same_picture_again_and_again_does_not_hold_the_clean_up_up(line, history):
    same = [line.inspect("same", f"e{i}") for i in range(30)]
    others = [line.inspect(f"{i}", "x") for i in range(30)]
    done = clean(history, None, 29_000, others[-1].at + DAY)
    assert [line.has_files(one) for one in same] == [False] * 30
    assert [history.get(one.id).files_removed_at is None for one in others] == [False] * 20 + [True] * 10
    assert done.left == 10 * 1000 + 100


def test_thumbnails_go_with_their_pictures(line, history):
    _, data = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))
    one = line.inspect("x")
    picture = history.pictures.keep_bytes(data.tobytes())
    other = history.record_many([seen(1, picture=picture, evidence=None)])[0]
    small = history.pictures.thumbnail(picture, read_image)
    line.age(other)
    done = clean(history, 0, None, other.at + DAY)
    assert not small.exists() and not line.has_files(one) and done.left == 0


def test_what_a_crash_left_without_a_row_is_found(line, history):
    one = line.inspect("x", "e")
    orphans = [history.pictures.keep_bytes(b"no row"), history.pictures.put_evidence(b"no row either")]
    paths = [history.pictures.path(orphans[0]), history.pictures.evidence_path(orphans[1])]
    half = history.pictures.folder / "incoming" / "left"
    half.write_bytes(b"half")
    now = line.clock.at
    for path in (*paths, half):
        os.utime(path, (now.timestamp() - 4000, now.timestamp() - 4000))
    young = history.pictures.keep_bytes(b"row on the way")
    os.utime(history.pictures.path(young), (now.timestamp() - 3000, now.timestamp() - 3000))
    done = clean(history, None, None, now)
    assert (done.inspections, done.orphans) == (0, 3)
    assert not any(path.exists() for path in (*paths, half))
    assert history.pictures.path(young).exists() and line.has_files(one)


def test_a_crash_between_row_and_file_leaves_what_the_next_clean_up_finds(line, history, monkeypatch):
    one = line.inspect("x", "e")

    def dies(*_, **__):
        raise OutputError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(history.pictures, "remove", dies)
        with pytest.raises(OutputError):
            clean(history, 0, None, one.at + DAY)
    assert history.get(one.id).files_removed_at is not None
    assert all(path.exists() for path in line.files(one))
    assert clean(history, 0, None, one.at + DAY).orphans == 2
    assert not line.has_files(one)


def test_a_file_kept_again_while_the_clean_up_runs_is_not_taken(line, history, monkeypatch):
    """The picture of an old inspection comes again: its file is kept, its row not yet written, when the clean-up removes it."""
    one = line.inspect("x")
    now = one.at + 9 * DAY
    real = history.pictures.remove

    def kept_again(kind, sha256, *, before):
        history.pictures.keep_bytes(b"x".ljust(1000))
        os.utime(history.pictures.path(sha256), (now.timestamp(), now.timestamp()))
        return real(kind, sha256, before=before)

    monkeypatch.setattr(history.pictures, "remove", kept_again)
    clean(history, 1, None, now)
    assert history.pictures.path(one.seen.picture).exists()


def test_the_young_are_left_alone_whatever_is_asked(line, history):
    one = line.inspect("x", "e")
    assert clean(history, 0, 0, one.at + timedelta(minutes=59)) == Cleaned(0, 0, 0, 1100)
    assert line.has_files(one)
    assert clean(history, 0, 0, one.at + timedelta(minutes=61)).inspections == 1


@pytest.mark.parametrize("wrong", [(-1, None), (float("nan"), None), (None, -1), (None, 1.5)])
def test_wrong_numbers_are_refused(line, history, wrong):
    one = line.inspect("x")
    with pytest.raises(InputError, match="keep_"):
        clean(history, *wrong, one.at + 900 * DAY)
    assert line.has_files(one)


def test_at_random_nothing_that_must_stay_goes_and_rows_tell_the_truth(line, history):
    rng = random.Random(1)
    found = [line.inspect(f"p{rng.randrange(15)}", f"e{i}") for i in range(40)]
    for one in rng.sample(found, 6):
        decide(history, one)
    for days in (30, 20, 10):
        now = found[-1].at + DAY / 2
        clean(history, days, None, now)
        rows = [history.get(one.id) for one in found]
        marked = {row.seen.picture for row in rows if row.decision}
        for row in rows:
            if row.files_removed_at is None:
                assert all(path.exists() for path in line.files(row))
            else:
                assert row.at < now - days * DAY and row.seen.picture not in marked
        last = {row.seen.picture: row.at for row in rows}  # a picture is needed as long as its latest inspection
        for row in rows:
            gone = row.seen.picture not in marked and last[row.seen.picture] < now - days * DAY
            assert line.has_files(row) is not gone


def test_a_clean_up_beside_writers_takes_nothing_from_them(line, history):
    for i in range(10):
        line.inspect(f"{i}", f"e{i}")
    # The true time, which files that come in have: one an hour old, by the time that is told, would be taken for left behind.
    now = max(datetime.now(UTC), line.clock.at + 10 * DAY)
    stop, problems = threading.Event(), []

    def work():
        try:
            while not stop.is_set():
                clean(history, 1, None, now)
        except Exception as error:
            problems.append(error)

    cleaner = threading.Thread(target=work)
    cleaner.start()
    try:
        for i in range(30):  # the same pictures come again, in the present
            picture = history.pictures.keep_bytes(str(i % 10).encode().ljust(1000))
            os.utime(history.pictures.path(picture), (now.timestamp(), now.timestamp()))
            line.clock.at = now
            new = history.record_many([seen(i, picture=picture, evidence=None)])[0]
            assert history.pictures.path(picture).exists()
            assert history.get(new.id).files_removed_at is None
    finally:
        stop.set()
        cleaner.join()
    assert problems == []


def test_removed_files_can_be_listed_still(line, history):
    one = line.inspect("x", "e")
    clean(history, 0, None, one.at + DAY)
    assert history.find(Filter(since=START)).items[0].files_removed_at is not None
