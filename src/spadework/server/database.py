"""The database of the history: SQLite by default, PostgreSQL by its URL. Connections, transactions, errors, column types.

What is written is on the disk when the transaction ends: SQLite with a write-ahead log and `synchronous=FULL`, PostgreSQL with
`synchronous_commit`. One writer at a time, across threads and processes, in both: so numbers are given, and rows appear, in one order,
and whoever follows the highest number misses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from spadework.errors import InputError, MissingExtraError, SpadeworkError

try:
    import sqlalchemy as sa
    from sqlalchemy import event, exc
except ImportError as error:  # the base install has no database
    raise MissingExtraError("the station's history", "server") from error

WAIT_SECONDS = 30.0  # for another writer, before it is told that the database is busy
WRITER = 0x5BADE_0001  # PostgreSQL: the lock that a writer holds until its transaction ends
WRITE = "spadework_write"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class HistoryError(SpadeworkError):
    """The history cannot be read or written as asked."""


class HistoryUnavailableError(HistoryError):
    """The database does not answer, is locked, or has no room: the same call may work later."""


class HistoryVersionError(HistoryError):
    """The database was made by a newer Spadework, or holds something else."""


class UnknownRecordError(HistoryError):
    """There is no inspection or decision of this number."""


class UtcTime(sa.TypeDecorator[datetime]):
    """A time as whole microseconds since 1970 in UTC: the same in every database, exact, and quick to compare and to draw."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        """Take an aware time only: a naive one could mean anything."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        """Give an aware time in UTC."""
        return None if value is None else EPOCH + value * MICROSECOND


class JsonText(sa.TypeDecorator[Any]):
    """Plain values as JSON text, ASCII only: every name survives, whatever bytes it was made of."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        """Refuse NaN and infinity, which are not JSON."""
        return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        """Read it back. Raises ValueError for what was not written so."""
        return None if value is None else json.loads(value, parse_constant=_no_number)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


def microseconds(at: datetime) -> int:
    """Return a time as whole microseconds since 1970, UTC. Raises InputError for a naive one."""
    if at.tzinfo is None:
        raise InputError(f"{at.isoformat()} says no time zone: give an aware time, such as {at.isoformat()}+00:00.")
    return (at - EPOCH) // MICROSECOND


def storable(text: str) -> str:
    """Return text as every database takes it: without NUL, and with bytes that are no UTF-8 written out."""
    return text.replace("\0", "").encode("utf-8", "backslashreplace").decode()


class Database:
    """Connections to one database. May be shared by threads."""

    def __init__(self, url: str) -> None:
        self.url = _parsed(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.name = self.url.render_as_string(hide_password=True)
        self.engine = _sqlite(self.url) if self.is_sqlite else _postgresql(self.url)
        self._turn = threading.Lock()  # threads queue here: SQLite's own waiting sleeps up to 0.1 s at a time

    def close(self) -> None:
        """Let all connections go."""
        self.engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads: all of it sees the same state in SQLite, each statement one state in PostgreSQL."""
        with self._told("Try again"), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that writes, alone; when it ends without an error it is on the disk."""
        with self._told("Nothing was written; try again"), self._turn, self.engine.connect() as plain:
            connection = plain.execution_options(**{WRITE: True})
            with connection.begin() as transaction:
                if not self.is_sqlite:
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER})
                yield connection
                # Whoever loses the connection here cannot know: the server may have heard.
                unknown = "Nothing was written" if self.is_sqlite else "It is not known whether it was written"
                with self._told(f"{unknown}; look, and try again"):
                    transaction.commit()

    def prepare(self) -> None:
        """Set what stays with the database file: SQLite's write-ahead log."""
        if not self.is_sqlite:
            return
        with self._told("Try again"), self.engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None  # just connected
            if _write_ahead(raw) != "wal":
                raise HistoryError(
                    f"{self.name}: its file system allows no write-ahead log (a network folder?). "
                    "Put the database on a local disk, or use PostgreSQL."
                )

    @contextlib.contextmanager
    def _told(self, then: str) -> Iterator[None]:
        """Turn the errors of drivers into ours, without statements and values: those may hold what is nobody's business."""
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            why = _first_line(error)
            if "no such table" in why:
                raise HistoryError(f"{self.name}: holds no history yet: it must be upgraded first.") from error
            raise HistoryUnavailableError(f"{self.name}: the database does not answer: {why}. {then}.") from error
        except exc.DBAPIError as error:
            raise HistoryError(f"{self.name}: the database refused: {_first_line(error)}.") from error


def _first_line(error: exc.SQLAlchemyError) -> str:
    return (str(getattr(error, "orig", None) or error).strip() or "no reason given").splitlines()[0].rstrip(".")


def _parsed(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except exc.ArgumentError:
        raise InputError(
            "the database must be given as a URL, such as sqlite:///history.sqlite or postgresql://user@host/name."
        ) from None
    backend = url.get_backend_name()
    if backend == "postgres":  # as some hosts write it
        backend = "postgresql"
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise InputError(f"the database may be SQLite or PostgreSQL, not {backend!r}.")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise InputError("the history must outlive the process: give SQLite a file, such as sqlite:///history.sqlite.")
    return url.set(drivername="sqlite+pysqlite")


def _sqlite(url: sa.URL) -> sa.Engine:
    assert url.database is not None  # _parsed
    folder = Path(url.database).absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HistoryUnavailableError(f"{folder}: cannot be made: {error.strerror}.") from error
    engine = sa.create_engine(
        url, hide_parameters=True, connect_args={"timeout": WAIT_SECONDS, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def connected(raw: Any, record: Any) -> None:
        raw.isolation_level = None  # the driver begins no transactions of its own
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        # A writer takes its turn at once: one that began by reading could not wait for another.
        writes = connection.get_execution_options().get(WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(raw: Any) -> str:
    """Switch the write-ahead log on; two that do so at once do not wait for each other by themselves."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return str(raw.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise HistoryUnavailableError(f"the database cannot be opened: {error}.") from error
            time.sleep(0.02)


def _postgresql(url: sa.URL) -> sa.Engine:
    wait = int(WAIT_SECONDS * 1000)
    try:
        engine = sa.create_engine(
            url,
            hide_parameters=True,
            isolation_level="READ COMMITTED",  # a writer that waited must see what was written meanwhile
            pool_pre_ping=True,  # the database may have been started again since
            connect_args={
                "connect_timeout": 10,
                "options": f"{os.environ.get('PGOPTIONS', '')} -c lock_timeout={wait}".strip(),
            },
        )
    except ImportError as error:
        raise MissingExtraError("PostgreSQL", "postgresql") from error

    @event.listens_for(engine, "connect")
    def connected(raw: Any, record: Any) -> None:
        with (
            raw.cursor() as cursor
        ):  # whoever runs the server may have traded durability for speed; a verdict is not traded
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
            )
        raw.commit()

    return engine
