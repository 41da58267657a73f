"""The history's records: what goes in comes out, nothing is overwritten, and a watched file counts once; on both databases."""

from __future__ import annotations

import json
import math
import multiprocessing
import threading
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from histories import Clock, clock, database_url, decide, file_of, history, opened, postgresql_server, seen, sha_of

from spadework.errors import InputError
from spadework.server.database import HistoryError, HistoryUnavailableError, UnknownRecordError
from spadework.server.history import History
from spadework.server.pictures import Pictures
from spadework.server.records import Filter, NewChange, NewInspection

__all__ = ["clock", "database_url", "history", "postgresql_server"]  # fixtures


# ---------------------------------------------------------------- inspections


def test_an_inspection_comes_back_as_it_went_in(history, clock):
    new = [seen(1), seen(2, source="watch", watched=file_of(2)), bare()]
    recorded = history.record_many(new)
    assert [one.seen for one in recorded] == new
    assert [one.id for one in recorded] == [1, 2, 3]
    assert [history.get(number) for number in (1, 2, 3)] == recorded
    assert {one.at for one in recorded} == {clock.at}
    assert recorded[0].decision is None
    assert history.record_many([]) == []
    json.dumps([one.to_json() for one in recorded])


def bare() -> NewInspection:
    """One in which nothing is that may be missing."""
    absent = dict.fromkeys(("backbone_hash", "threshold", "map_threshold", "nearest_distance", "evidence"))
    return seen(3, **absent, verdict="no threshold", regions=(), nearest=(), timings={})


def test_every_part_of_an_inspection_is_kept(history):
    """A field that is added to the record must reach the tables."""
    one, other = seen(1, watched=file_of(1)), bare()
    assert {f.name for f in fields(NewInspection) if getattr(one, f.name) == getattr(other, f.name)} == {
        *("model", "model_hash", "detector", "source", "who", "media_type", "height", "width")
    }
    for back, new in zip(history.record_many([one, other]), [one, other], strict=True):
        assert back.seen == new


def test_numbers_go_on_without_gaps_and_none_is_unknown(history):
    history.record_many([seen(i) for i in range(3)])
    with pytest.raises(InputError, match="score must be a finite number, not nan"):
        history.record_many([seen(3), seen(4, score=math.nan)])
    assert [one.id for one in history.record_many([seen(3)])] == [4]
    assert [history.get(number) for number in (0, -1, 5, 2**63, 2**70)] == [None] * 5


@pytest.mark.parametrize(
    "wrong", [{"score": math.inf}, {"threshold": math.nan}, {"verdict": "bad"}, {"source": "mail"}]
)
def test_what_breaks_a_rule_is_refused_and_nothing_is_written(history, wrong):
    with pytest.raises(InputError):
        history.record_many([seen(0), seen(1, **wrong)])
    assert history.count() == 0


def test_names_of_any_kind_are_kept_or_written_out(history):
    names = [
        "Größe 10µm.png",
        "部品.png",
        "nul\0byte.png",
        b"bad\xff.png".decode("utf-8", "surrogateescape"),
        "x" * 900,
    ]
    found = history.record_many([seen(i, name=name, who=name[:20]) for i, name in enumerate(names)])
    told = [one.seen.name for one in found]
    assert told[:4] == ["Größe 10µm.png", "部品.png", "nulbyte.png", "bad\\udcff.png"]
    assert told[4] == "..." + "x" * 397
    watched = file_of(9, path=b"/in/bad\xff.png".decode("utf-8", "surrogateescape"))
    recorded = history.record_many([seen(9, watched=watched)])[0]
    assert history.seen(watched, sha_of(9)) == recorded


def test_times_are_aware_utc_to_the_microsecond(history, clock):
    clock.at = datetime(2026, 3, 29, 3, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    clock.step = timedelta(0)
    one = history.record_many([seen()])[0]
    back = history.get(one.id)
    assert back.at == datetime(2026, 3, 29, 1, 0, 0, 123456, tzinfo=UTC)
    assert back.at.tzinfo is UTC
    assert decide(history, one).at.tzinfo is UTC
    with pytest.raises(InputError, match="says no time zone"):
        history.find(Filter(since=datetime(2026, 1, 1)))


# ---------------------------------------------------------------- watched files


def test_a_watched_file_is_recorded_once(history):
    first = history.record_many([seen(0, watched=file_of(0)), seen(1)])
    again = history.record_many([seen(2), seen(0, watched=file_of(0), score=99.0)])
    assert again[1] == first[0]
    assert history.count() == 3
    assert history.seen(file_of(0), sha_of(0)) == first[0]


def test_twice_in_one_batch_is_once(history):
    found = history.record_many([seen(0, watched=file_of(0)), seen(0, watched=file_of(0))])
    assert [one.id for one in found] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"path": "/line/in/renamed.png"}, True),
        ({"device": 7, "inode": 2**64 - 1}, True),  # copied over itself
        ({"path": "/line/in/other.png", "inode": 7}, False),
        ({"mtime_ns": 1}, False),
        ({"size": 1}, False),
    ],
)
def test_the_same_file_is_known_by_its_content_and_by_path_or_place(history, changes, same):
    first = history.record_many([seen(0, watched=file_of(0))])[0]
    other = file_of(0, **changes)
    assert history.seen(other, sha_of(0)) == (first if same else None)
    assert (history.record_many([seen(0, watched=other)])[0].id == first.id) is same
    assert history.seen(other, sha_of("other content")) is None


def test_each_model_may_inspect_a_watched_file(history):
    first, second = history.record_many([seen(0, watched=file_of(0)), seen(0, model="lid", watched=file_of(0))])
    assert (first.id, second.id) == (1, 2)
    assert history.seen(file_of(0), sha_of(0), model="lid") == second
    assert history.seen(file_of(0), sha_of(0)) == first
    assert history.seen(file_of(0), sha_of(0), model="none") is None


def record_files(url, folder, barrier, answers):
    with opened(url, folder) as own:
        barrier.wait()
        found = [own.record_many([seen(i, watched=file_of(i)) for i in range(k, k + 5)]) for k in range(0, 40, 5)]
        answers.put([one.id for batch in found for one in batch])


@pytest.mark.slow
def test_two_processes_that_race_record_each_file_once(history, database_url, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    racing = [
        context.Process(target=record_files, args=(database_url, tmp_path / "files", barrier, answers)) for _ in "ab"
    ]
    for process in racing:
        process.start()
    told = [answers.get(timeout=60) for _ in racing]
    for process in racing:
        process.join(60)
        assert process.exitcode == 0
    assert told[0] == told[1]
    assert sorted(told[0]) == list(range(1, 41)) and history.count() == 40


def test_the_database_itself_refuses_a_watched_file_twice(history, monkeypatch):
    """The constraint stands behind the question: also somebody who does not ask cannot record twice."""
    history.record_many([seen(0, watched=file_of(0))])
    monkeypatch.setattr("spadework.server.history._known_files", lambda connection, new: {})
    with pytest.raises(HistoryError, match="(?i)unique"):
        history.record_many([seen(0, watched=file_of(0))])
    assert history.count() == 1


def test_threads_write_at_once_and_nothing_is_lost(history):
    history.now = Clock().__call__
    problems = []

    def work(k):
        try:
            for i in range(10):
                one = history.record_many([seen(100 * k + i), seen(100 * k + i + 50)])[0]
                decide(history, one, note=str(k))
                history.find(Filter(limit=5))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    everything = history.find(Filter(limit=1000)).items
    assert sorted(one.id for one in everything) == list(range(1, 121))
    assert sum(one.decision is not None for one in everything) == 60
    assert history.count(Filter(decision="normal")) == 60


def test_following_by_number_misses_none(history):
    history.record_many([seen(i) for i in range(7)])
    assert [one.id for one in history.after(0, limit=3)] == [1, 2, 3]
    assert [one.id for one in history.after(3)] == [4, 5, 6, 7]
    assert history.after(7) == ()


# ---------------------------------------------------------------- decisions


def test_a_decision_says_who_when_what_and_of_which_model(history, clock):
    one = history.record_many([seen(0)])[0]
    made = decide(history, one, "defect", "ben", note="scratch ✗", model_hash="x" * 64, threshold=None)
    assert (made.kind, made.who, made.at, made.note) == ("defect", "ben", clock.at, "scratch ✗")
    assert (made.model, made.model_hash, made.threshold, made.appended) == ("part", "x" * 64, None, False)
    assert history.get(one.id).decision == made == history.decision(made.id)
    assert history.find().items[0].decision == made


def test_the_latest_decision_counts_and_the_earlier_stay(history):
    one = history.record_many([seen(0)])[0]
    first, second = decide(history, one, "normal"), decide(history, one, "defect")
    assert history.get(one.id).decision == second
    assert history.decisions(one.id) == (first, second)


def test_undo_brings_the_one_before_it_back(history, clock):
    one = history.record_many([seen(0)])[0]
    first, second = decide(history, one, "normal"), decide(history, one, "defect")
    undone = history.undo(second.id, "carla")
    assert undone == replace(second, undone_at=clock.at, undone_by="carla")
    assert history.get(one.id).decision == first
    assert history.undo(second.id, "dora") == undone  # what was set once stays
    history.undo(first.id, "dora")
    assert history.get(one.id).decision is None
    assert [found.undone_by for found in history.decisions(one.id)] == ["dora", "carla"]
    assert decide(history, one, "defect") == history.get(one.id).decision


def test_undoing_an_earlier_decision_leaves_the_later_one(history):
    one = history.record_many([seen(0)])[0]
    first, second = decide(history, one, "normal"), decide(history, one, "defect")
    history.undo(first.id, "ben")
    assert history.get(one.id).decision == second


def test_decisions_on_what_there_is_not_are_refused(history):
    with pytest.raises(UnknownRecordError, match="no inspection 3"):
        decide(history, 3)
    with pytest.raises(UnknownRecordError, match="no decision 3"):
        history.undo(3, "ben")
    with pytest.raises(UnknownRecordError, match=f"no decision {2**70}"):
        history.mark_appended(2**70)
    history.record_many([seen(0)])
    with pytest.raises(InputError, match="kind must be one of defect, normal"):
        decide(history, 1, "fine")
    assert history.decision(1) is None
    assert history.decisions(1) == ()


def test_what_a_crash_cut_short_is_found(history):
    one, two = history.record_many([seen(0), seen(1)])
    cut, whole = decide(history, one), decide(history, two)
    decide(history, two, "defect")
    assert history.mark_appended(whole.id).appended
    assert [found.id for found in history.unfinished("part")] == [cut.id]
    assert history.unfinished("lid") == ()
    history.undo(cut.id, "ben")  # never appended: nothing to take out
    assert history.unfinished("part") == ()
    history.undo(whole.id, "ben")
    assert [found.id for found in history.unfinished("part")] == [whole.id]
    assert history.mark_withdrawn(whole.id).withdrawn
    assert history.unfinished("part") == ()


# ---------------------------------------------------------------- changes of models


def test_a_change_comes_back_as_it_went_in(history, clock):
    history.record_many([seen(0)])
    new = NewChange("part", "ben", "append", "a" * 64, "b" * 64, (sha_of(1), sha_of(2)), 1, {"passes": True})
    made = history.change(new)
    assert (made.id, made.at, made.made) == (1, clock.at, new)
    assert history.changes("part").items == (made,)
    with pytest.raises(InputError, match="what must be one of"):
        history.change(replace(new, what="paint"))


def test_a_change_marks_its_decision_in_the_same_transaction(history):
    one = history.record_many([seen(0)])[0]
    made = decide(history, one)
    new = NewChange("part", "ben", "append", "a", "b", (sha_of(1),), one.id)
    with pytest.raises(UnknownRecordError):
        history.change(new, decision_id=77)
    assert history.changes().items == ()
    history.change(new, decision_id=made.id)
    assert history.decision(made.id).appended
    history.undo(made.id, "ben")
    history.change(replace(new, what="remove"), decision_id=made.id)
    assert history.decision(made.id).withdrawn
    with pytest.raises(InputError, match="what must be one of append, remove"):
        history.change(replace(new, what="reload"), decision_id=made.id)


def test_changes_are_paged_newest_first(history):
    for i in range(5):
        history.change(NewChange("part" if i % 2 else "lid", "ben", "reload", str(i), str(i + 1)))
    first = history.changes(limit=2)
    assert [one.id for one in first.items] == [5, 4]
    second = history.changes(cursor=first.cursor, limit=2)
    third = history.changes(cursor=second.cursor, limit=2)
    assert [one.id for one in (*second.items, *third.items)] == [3, 2, 1]
    assert third.cursor is None
    assert [one.id for one in history.changes("part").items] == [4, 2]
    for cursor in ("x", "-1", "", "9" * 40, "²"):
        with pytest.raises(InputError, match="not one that this list gave out"):
            history.changes(cursor=cursor)
    with pytest.raises(InputError, match="at most 1000"):
        history.changes(limit=1001)


def test_who_appended_a_picture_is_found(history):
    def change(what, pictures, model="part"):
        return history.change(NewChange(model, "ben", what, "a", "b", pictures))

    change("append", ("p", "q"))
    again = change("append", ("p", "p"))
    change("remove", ("p",))
    change("append", ("r",), model="lid")
    found = history.appended("part", ["p", "q", "r", "s"])
    assert {picture: made.id for picture, made in found.items()} == {"p": again.id, "q": 1}
    assert history.appended("part", []) == {}


# ---------------------------------------------------------------- the database itself


def test_an_answer_is_asked_for(history):
    history.check()


def test_a_database_that_is_away_says_so_without_its_password(tmp_path):
    away = History("postgresql://station:secret@127.0.0.1:1/x", Pictures(tmp_path))
    with pytest.raises(HistoryUnavailableError, match="does not answer") as caught:
        away.check()
    assert "secret" not in str(caught.value)
    assert "postgresql+psycopg://station:***@127.0.0.1:1/x" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("history.sqlite", "as a URL"),
        ("mysql://host/name", "SQLite or PostgreSQL, not 'mysql'"),
        ("sqlite://", "give SQLite a file"),
        ("sqlite:///:memory:", "give SQLite a file"),
    ],
)
def test_other_databases_are_refused(tmp_path, url, told):
    with pytest.raises(InputError, match=told):
        History(url, Pictures(tmp_path))


def test_sqlite_is_set_to_lose_nothing(tmp_path):
    with opened(f"sqlite:///{tmp_path}/new/history.sqlite", tmp_path / "files") as own:
        own.upgrade()
        with own.database.writing() as connection:
            told = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert told == ["wal", 2]


@pytest.mark.slow
def test_postgresql_waits_for_the_disk_whatever_the_server_says(postgresql_server, tmp_path):
    import postgresql
    import psycopg

    url = postgresql.new_database(postgresql_server, "hasty")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE hasty SET synchronous_commit = off")
        connection.execute("ALTER DATABASE hasty SET default_transaction_isolation = 'serializable'")
    with opened(url, tmp_path) as own, own.database.reading() as connection:
        told = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("synchronous_commit", "transaction_isolation")
        ]
    assert told == ["on", "read committed"]


def test_a_database_that_is_no_database_says_so(tmp_path):
    (tmp_path / "garbage.sqlite").write_bytes(b"garbage" * 1000)
    (tmp_path / "folder.sqlite").mkdir()
    (tmp_path / "file").write_text("x")
    for name, told in (
        ("garbage.sqlite", "not a database"),
        ("folder.sqlite", "unable to open"),
        ("file/x.sqlite", "file: cannot be made"),
    ):
        with pytest.raises(HistoryError, match=told), opened(f"sqlite:///{tmp_path}/{name}", tmp_path / "files") as own:
            own.upgrade()
    with (
        opened(f"sqlite:///{tmp_path}/new.sqlite", tmp_path / "files") as own,
        pytest.raises(HistoryError, match="must be upgraded first"),
    ):
        own.find()


def test_a_writer_waits_for_another_and_says_so_when_that_takes_too_long(database_url, tmp_path, monkeypatch):
    monkeypatch.setattr("spadework.server.database.WAIT_SECONDS", 0.5)
    with opened(database_url, tmp_path / "a") as one, opened(database_url, tmp_path / "b") as other:
        one.upgrade()
        with one.database.writing():
            with pytest.raises(
                HistoryUnavailableError, match=r"does not answer: .*lock.*Nothing was written; try again"
            ):
                other.record_many([seen(0)])
            assert other.find().total == 0  # readers do not wait
        assert [found.id for found in other.record_many([seen(0)])] == [1]
        done = []
        with one.database.writing():
            waiting = threading.Thread(target=lambda: done.append(other.record_many([seen(1)])))
            waiting.start()
            waiting.join(0.1)
            assert done == []
        waiting.join()
        assert [found.id for found in done[0]] == [2]


@pytest.mark.slow
def test_the_database_may_be_started_again_in_between(postgresql_server, tmp_path):
    import postgresql
    import psycopg

    with opened(postgresql.new_database(postgresql_server, "again"), tmp_path) as own:
        own.upgrade()
        own.record_many([seen(0)])

        def end_connections():
            with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
                chosen = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'again'"
                connection.execute(chosen)

        end_connections()
        assert [one.id for one in own.record_many([seen(1)])] == [2]
        with pytest.raises(HistoryUnavailableError), own.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM inspections")
            end_connections()
        assert own.count() == 2


def test_after_an_error_the_next_transaction_is_a_fresh_one(history):
    class StopError(Exception):
        pass

    with pytest.raises(StopError), history.database.writing() as connection:
        connection.exec_driver_sql("UPDATE inspections SET name = 'x'")
        raise StopError
    with pytest.raises(HistoryError, match="refused|does not answer"), history.database.writing() as connection:
        connection.exec_driver_sql("SELECT nonsense FROM inspections")
    assert [one.id for one in history.record_many([seen(0)])] == [1]
