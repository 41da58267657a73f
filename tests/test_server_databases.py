"""The whole service on each of its databases, over HTTP, in a process of its own: a day's work, killed in the middle, and on it goes."""

from __future__ import annotations

import itertools
import signal

import httpx
import pytest

pytest.importorskip("fastapi")
from builders import defective_picture, normal_picture
from histories import database_url, postgresql_server
from station_server import Process, png

from spadework.client import Client
from spadework.detectors.spade import Spade

__all__ = ["database_url", "postgresql_server"]  # fixtures

pytestmark = pytest.mark.slow
BAD = defective_picture(colour=(250, 240, 30))[0]


def ids(station: Client, **filters) -> list[int]:
    return [one.id for one in station.inspections(**filters)]


def listed(url: str, **query) -> dict:
    answer = httpx.get(f"{url}/api/v1/inspections", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_days_work(database_url, saved, tmp_path):
    """Inspect, filter, page, decide, undo, learn; a kill loses nothing; the next start goes on where this one was."""
    given = saved, "--folder", tmp_path / "station", "--database", database_url
    expected = Spade.load(saved).predict(BAD).only
    process = Process(*given)
    try:
        process.wait_ready()
        with Client(process.url) as station:
            bad = station.inspect(BAD, name="Größe 100%_bad.png")
            good = [station.inspect(normal_picture(60 + i), name=f"good {i}.png") for i in range(6)]
            assert (bad.id, bad.score, bad.verdict) == (1, expected.score, "anomalous")

            # the history: filters of each kind, and pages that meet without gap or double
            assert ids(station, verdict="anomalous", text="größe 100%_") == [1]
            assert ids(station, text="100%b") == []  # of what was typed nothing is a wildcard
            assert ids(station, model="part", newest_first=False) == list(range(1, 8))
            assert ids(station, model="another") == []
            assert ids(station, score_min=bad.score) == [1]
            below = ids(station, score_max=max(one.score for one in good))
            assert below == [one.id for one in reversed(good)]
            assert ids(station, since=good[2].at, until=good[4].at) == [good[3].id, good[2].id]
            first = listed(process.url, limit=3)
            assert (len(first["items"]), first["total"]) == (3, 7)
            station.inspect(normal_picture(70), name="came between two pages.png")
            rest = listed(process.url, limit=10, cursor=first["cursor"])
            assert [one["id"] for one in first["items"] + rest["items"]] == [7, 6, 5, 4, 3, 2, 1]
            assert rest["cursor"] is None
            series = httpx.get(f"{process.url}/api/v1/models/part/series", params={"buckets": 4}).json()
            assert sum(part["count"] for part in series["items"]) == 8

            # what people say: the latest counts, nothing is overwritten
            defect = station.decide(bad.id, "defect", "a scratch")
            assert ids(station, decision="defect") == [1]
            assert station.undo(defect.id).undone_by == "local"
            assert ids(station, decision="none", verdict="anomalous") == [1]
            normal = station.decide(bad.id, "normal", "a reflection")
            assert normal.appended
            assert station.inspect(BAD, name="again.png").verdict == "normal"
        assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    finally:
        process.kill()

    again = Process(*given)
    try:
        again.wait_ready()
        with Client(again.url) as station:
            assert ids(station) == list(range(9, 0, -1))
            kept = station.inspection(bad.id)
            assert (kept.score, kept.at, kept.json["threshold"]) == (bad.score, bad.at, bad.json["threshold"])
            assert (kept.json["decision"]["id"], kept.json["decision"]["note"]) == (normal.id, "a reflection")
            decisions = httpx.get(f"{again.url}/api/v1/inspections/{bad.id}/decisions").json()["items"]
            assert [(one["kind"], one["undone_at"] is None) for one in decisions] == [
                ("defect", False),
                ("normal", True),
            ]
            assert station.models()[0]["n_normal"] == 7
            assert station.undo(normal.id).undone_by == "local"
            found = station.inspect(BAD, name="and again.png")
            assert (found.id, found.score) == (10, expected.score)
        changes = httpx.get(f"{again.url}/api/v1/models/part/changes").json()["items"]
        assert [one["what"] for one in changes] == ["remove", "append"]
        assert httpx.get(f"{again.url}/readyz").status_code == 200
        assert again.stop() == 0
    finally:
        again.kill()
    assert not any("Traceback" in line for line in itertools.chain(process.errors, again.errors))


def test_connections_that_the_database_ended_cost_nobody_anything(postgresql_server, saved, tmp_path):
    """As when PostgreSQL is started anew at night."""
    import postgresql
    import psycopg

    url = postgresql.new_database(postgresql_server, "ended")
    process = Process(saved, "--folder", tmp_path / "station", "--database", url)
    try:
        process.wait_ready()
        with Client(process.url) as station:
            first = station.inspect(BAD)
            with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
                ended = connection.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'ended'"
                ).fetchone()[0]
            assert ended > 0
            where = f"{process.url}/api/v1/models/part/inspections"
            answer = httpx.post(where, content=png(BAD), headers={"Content-Type": "image/png"}, timeout=60)
            assert (answer.status_code, answer.json()["id"]) == (201, first.id + 1)  # at once: `Client` would try again
            assert station.decide(first.id, "defect").kind == "defect"
            assert len(listed(process.url)["items"]) == 2
        assert process.stop() == 0
    finally:
        process.kill()


def test_a_back_up_that_was_made_while_it_ran_is_a_station(saved, tmp_path):
    """As docs/server.md says: the database first, then the files, then the model."""
    import shutil
    import sqlite3
    from contextlib import closing

    copy, station_folder = tmp_path / "copy", tmp_path / "station"
    process = Process(saved, "--folder", station_folder)
    try:
        process.wait_ready()
        with Client(process.url) as station:
            found = station.inspect(png(BAD), name="bad.png")
            station.decide(found.id, "normal", "a reflection")
            (copy / "station").mkdir(parents=True)
            with (
                closing(sqlite3.connect(station_folder / "history.sqlite")) as source,
                closing(sqlite3.connect(copy / "station" / "history.sqlite")) as target,
            ):
                source.backup(target)
            shutil.copytree(station_folder / "pictures", copy / "station" / "pictures")
            shutil.copytree(saved, copy / "part.spade")
            station.inspect(normal_picture(60), name="after the back-up.png")
    finally:
        process.kill()
    restored = Process(copy / "part.spade", "--folder", copy / "station")
    try:
        restored.wait_ready()
        with Client(restored.url) as station:
            assert ids(station) == [1]
            assert station.inspection(1).json["decision"]["note"] == "a reflection"
            assert station.models()[0]["n_normal"] == 7
            height, width = BAD.shape[:2]
            assert station.map(1).shape == (height, width)
            assert httpx.get(f"{restored.url}/api/v1/inspections/1/image").content == png(BAD)
            assert station.inspect(BAD).verdict == "normal"
        assert restored.stop() == 0
    finally:
        restored.kill()
