"""Makers for the tests of the station: a served tiny model with a real history, and pictures that come to it."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from spadework.server.history import History
from spadework.server.inspecting import Candidate
from spadework.server.pictures import Pictures
from spadework.server.records import Inspection
from spadework.server.station import Station

NAME = "part"


@functools.cache
def empty_database() -> bytes:
    """A new SQLite database with its tables. Making one takes longer than most of what is tested with it."""
    with tempfile.TemporaryDirectory() as folder:
        history = History(f"sqlite:///{folder}/history.sqlite", Pictures(folder))
        history.upgrade()
        history.close()
        return (Path(folder) / "history.sqlite").read_bytes()


def start_with_tables(database: Path) -> None:
    """Put an empty database where there is none."""
    database.parent.mkdir(parents=True, exist_ok=True)
    if not database.exists():
        database.write_bytes(empty_database())


@contextmanager
def history_in(root: Path) -> Iterator[History]:
    start_with_tables(root / "history.sqlite")
    history = History(f"sqlite:///{root / 'history.sqlite'}", Pictures(root / "files"))
    history.upgrade()
    try:
        yield history
    finally:
        history.close()


@contextmanager
def station_in(root: Path, model: Path, **options) -> Iterator[Station]:
    with history_in(root) as history:
        station = Station(NAME, model, history, history.pictures, **options)
        try:
            yield station
        finally:
            station.close()


def png_of(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def candidate(station: Station, picture: np.ndarray, name: str = "new.png", **changes) -> Candidate:
    sha256 = station.pictures.keep_bytes(png_of(picture))
    told = {"source": "upload", "who": "anna", "media_type": "image/png", **changes}
    return Candidate(picture, sha256, name, **told)


def inspect(station: Station, picture: np.ndarray, name: str = "new.png", **changes) -> Inspection:
    return station.submit(candidate(station, picture, name, **changes)).result(60)
