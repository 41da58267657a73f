"""Makers for the tests of the station's history: databases of both kinds, records, files."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import postgresql
import pytest
from stations import start_with_tables

from spadework.server.history import History
from spadework.server.pictures import Pictures
from spadework.server.records import Inspection, NewInspection, Watched

START = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)  # half an hour before clocks change in Europe


class Clock:
    """A time that goes on by a second whenever it is asked for."""

    def __init__(self) -> None:
        self.at = START
        self.step = timedelta(seconds=1)

    def __call__(self) -> datetime:
        self.at += self.step
        return self.at


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    if postgresql.why_not():
        pytest.skip(postgresql.why_not())
    with postgresql.server() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request, tmp_path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/history.sqlite"
    server = request.getfixturevalue("postgresql_server")
    return postgresql.new_database(server, f"t{secrets.token_hex(8)}")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(database_url, tmp_path, clock) -> Iterator[History]:
    if database_url.startswith("sqlite"):
        start_with_tables(tmp_path / "history.sqlite")
    with opened(database_url, tmp_path / "files", clock) as found:
        found.upgrade()
        yield found


@contextmanager
def opened(url: str, folder: Path, clock: Clock | None = None) -> Iterator[History]:
    found = History(url, Pictures(folder), **({} if clock is None else {"now": clock}))
    try:
        yield found
    finally:
        found.close()


def seen(index: int = 0, **changes) -> NewInspection:
    """An inspection whose every part is its own."""
    base = NewInspection(
        model="part",
        model_hash="m" * 64,
        backbone_hash="b" * 64,
        detector="spade",
        name=f"Part {index:04d}.png",
        source="upload",
        who="anna",
        picture=sha_of(index),
        media_type="image/png",
        height=480,
        width=640,
        score=index / 8,
        threshold=2.5,
        map_threshold=2.25,
        verdict="anomalous" if index / 8 > 2.5 else "normal",
        regions=({"box": [1, 2, 3, 4], "area": 4, "peak": [1, 2], "score": 3.5, "polygons": [[[1, 2], [3, 4]]]},),
        nearest=({"name": "ok/7.png", "distance": 0.25},),
        nearest_distance=0.25,
        timings={"decode": 0.001, "wait": 0.5, "inspect": 0.25},
        evidence=sha_of(-index - 1),
    )
    return replace(base, **changes)


def sha_of(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()


def file_of(index: int = 0, **changes) -> Watched:
    return replace(Watched(f"/line/in/{index}.png", 2049, 1000 + index, 1_700_000_000_123_456_789, 5000), **changes)


def decide(history: History, inspection: Inspection | int, kind: str = "normal", who: str = "ben", **changes):
    number = inspection if isinstance(inspection, int) else inspection.id
    return history.decide(number, kind, who, **{"model": "part", "model_hash": "m" * 64, "threshold": 2.5, **changes})
