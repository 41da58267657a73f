"""Cleaning up: files of old inspections go, their rows stay. Never what a person marked, and never what another inspection still needs.

In: a history, for how many days and how many bytes files are kept. Out: what was removed.
First it is written down, in one transaction, which inspections lose their files; then the files go. A crash in between leaves files that
no inspection names, and so does one between a new file and its row: the next clean-up finds them. A file that was kept, or kept again, within
the last hour is left alone: its row may be on the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from spadework import check
from spadework.errors import InputError
from spadework.server.database import microseconds
from spadework.server.history import History
from spadework.server.pictures import KINDS, YOUNG_SECONDS
from spadework.server.tables import decisions, inspections, model_changes

AT_ONCE = 500  # inspections in one transaction: others write in between
COLUMNS = {"pictures": "picture", "evidence": "evidence"}

assert set(COLUMNS) == set(KINDS)


@dataclass(frozen=True)
class Cleaned:
    """What a clean-up did. inspections: how many lost their files. orphans: files removed that none named. freed, left: bytes."""

    inspections: int
    orphans: int
    freed: int
    left: int


def clean(
    history: History,
    keep_days: float | None,
    keep_bytes: int | None,
    now: datetime | None = None,
    *,
    young_seconds: float = YOUNG_SECONDS,
) -> Cleaned:
    """Remove files, oldest inspections first. May run beside everything else, in any process.

    Args:
        history: with its pictures.
        keep_days: files of inspections older than so many days go; None keeps them whatever their age.
        keep_bytes: then the oldest go until the files take no more than this; None sets no limit. What must stay may take more.
        now: the time; None for the history's clock.
        young_seconds: files that were kept within this time are left alone.

    Raises:
        InputError: a number breaks a rule; nothing was removed.
        OutputError: a file cannot be removed.
    """
    now = history.now() if now is None else now
    if keep_days is not None and not (math.isfinite(keep_days) and keep_days >= 0):
        raise InputError(f"keep_days must be a finite number of at least 0, not {keep_days}.")
    if keep_bytes is not None:
        check.whole(keep_bytes, "keep_bytes")
    check.not_negative(young_seconds, "young_seconds")
    cleaner = _Cleaner(history, now, young_seconds)
    cleaner.orphans()
    if keep_days is not None:
        cleaner.until(now - timedelta(days=keep_days))
    left = history.pictures.size()
    if keep_bytes is not None and left > keep_bytes:
        left -= cleaner.free(left - keep_bytes)
    return Cleaned(cleaner.count, cleaner.orphan_count, cleaner.freed, left)


class _Cleaner:
    """One clean-up: counts what it does."""

    def __init__(self, history: History, now: datetime, young_seconds: float) -> None:
        self.history = history
        self.now = now
        self.young = now - timedelta(seconds=young_seconds)
        self.before = microseconds(self.young) / 1e6
        self.count = self.orphan_count = self.freed = 0

    def until(self, oldest: datetime) -> None:
        """Take the files of all inspections older than `oldest`."""
        for _ in self._batches(oldest, AT_ONCE):
            pass

    def free(self, wanted: int) -> int:
        """Take files, oldest inspections first, until so many bytes are free; return how many became free."""
        freed = 0
        for batch in self._batches(self.now, AT_ONCE // 20):
            freed += batch
            if freed >= wanted:
                break
        return freed

    def _batches(self, oldest: datetime, at_once: int) -> Iterator[int]:
        """Take the files of inspections older than `oldest`, some at a time; yield how many bytes each time freed."""
        last = (-(2**62), 0)
        while True:
            with self.history.database.writing() as connection:
                found = connection.execute(_candidates(min(oldest, self.young), last).limit(at_once)).all()
                if not found:
                    return
                last = (found[-1].time, found[-1].id)
                pictures = _unneeded(connection, {row.picture for row in found}, last)
                count, evidence = _take(connection, pictures, self.now)
            freed = self._remove("pictures", pictures) + self._remove("evidence", evidence)
            self.count += count
            yield freed

    def _remove(self, kind: str, hashes: set[str]) -> int:
        freed = sum(self.history.pictures.remove(kind, sha256, before=self.before) for sha256 in sorted(hashes))
        self.freed += freed
        return freed

    def orphans(self) -> None:
        """Remove old files that no inspection names, and what was left half received."""
        pictures = self.history.pictures
        self.orphan_count += pictures.remove_incoming(before=self.before)
        for kind, name in COLUMNS.items():
            for part in pictures.listing(kind):
                old = [sha256 for sha256, _, kept in part if kept < self.before]
                with self.history.database.reading() as connection:
                    orphans = set(old) - _named(connection, name, old)
                for sha256 in sorted(orphans):
                    self.orphan_count += 1
                    self._remove(kind, {sha256})


def _candidates(oldest: datetime, last: tuple[int, int]) -> Any:
    """Inspections older than `oldest` that have their files and that nobody marked, after the place `last`, oldest first."""
    column = inspections.c
    return (
        sa.select(column.id, _time(inspections).label("time"), column.picture)
        .where(
            _is_after(inspections, last),
            column.at < oldest,
            column.files_removed_at.is_(None),
            ~_is_marked(inspections),
        )
        .order_by(column.at, column.id)
    )


def _time(table: Any) -> sa.ColumnElement[int]:
    return sa.type_coerce(table.c.at, sa.BigInteger)


def _is_after(table: Any, last: tuple[int, int]) -> sa.ColumnElement[bool]:
    place = sa.tuple_(sa.literal(last[0], sa.BigInteger), sa.literal(last[1], sa.BigInteger))
    return sa.tuple_(_time(table), table.c.id) > place


def _is_marked(table: Any) -> sa.ColumnElement[bool]:
    """Whether a person said anything of an inspection, taken back or not, or a model was changed because of it."""
    return sa.or_(
        sa.exists().where(decisions.c.inspection_id == table.c.id),
        sa.exists().where(model_changes.c.inspection_id == table.c.id),
    )


def _unneeded(connection: sa.Connection, pictures: set[str], last: tuple[int, int]) -> set[str]:
    """Those of these pictures that no inspection needs: none that is marked, and none after the place `last`.

    One that an inspection further on needs is taken when the clean-up comes there, for all that have it.
    """
    column = inspections.c
    needs = sa.and_(
        column.picture.in_(pictures),
        column.files_removed_at.is_(None),
        sa.or_(_is_after(inspections, last), _is_marked(inspections)),
    )
    return pictures - set(connection.execute(sa.select(column.picture).distinct().where(needs)).scalars())


def _take(connection: sa.Connection, pictures: set[str], now: datetime) -> tuple[int, set[str]]:
    """Write down that all inspections of these pictures lose their files; return how many, and the evidence none needs now."""
    column = inspections.c
    theirs = sa.and_(column.picture.in_(pictures), column.files_removed_at.is_(None))
    chosen = sa.select(column.evidence).distinct().where(theirs, column.evidence.is_not(None))
    evidence = set(connection.execute(chosen).scalars())
    count = connection.execute(sa.update(inspections).where(theirs).values(files_removed_at=now)).rowcount
    return count, evidence - _named(connection, "evidence", sorted(evidence))


def _named(connection: sa.Connection, name: str, hashes: list[str]) -> set[str]:
    """Those of these hashes that an inspection has which did not lose its files."""
    column: sa.Column[str] = inspections.c[name]
    found: set[str] = set()
    for start in range(0, len(hashes), AT_ONCE):
        some = column.in_(hashes[start : start + AT_ONCE])
        chosen = sa.select(column).distinct().where(some, inspections.c.files_removed_at.is_(None))
        found.update(connection.execute(chosen).scalars())
    return found
