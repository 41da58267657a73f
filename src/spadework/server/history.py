"""The station's history: inspections, decisions, changes of models, in a database that survives what happens to the process.

In: new records. Out: records with number and time. Each call is one transaction, on the disk when it returns.
All calls may come from any thread, and from several processes on one database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from spadework import check
from spadework.errors import InputError
from spadework.server import history_charts, history_find, rows, schema
from spadework.server.database import Database, UnknownRecordError, storable
from spadework.server.records import (
    KINDS,
    Changes,
    Decision,
    Filter,
    Inspection,
    ModelChange,
    NewChange,
    NewInspection,
    Page,
    Watched,
)
from spadework.server.tables import changed_pictures, decisions, inspections, model_changes, watched_files

if TYPE_CHECKING:
    from spadework.server.pictures import Pictures


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class History:
    """The history in one database. Call `upgrade` before anything else.

    Args:
        url: "sqlite:///FILE" or "postgresql://USER@HOST/NAME".
        pictures: where the files of inspections lie.
        now: the clock.

    Raises:
        InputError: the URL is none, or of another database.
    """

    def __init__(self, url: str, pictures: Pictures, *, now: Callable[[], datetime] = utc_now) -> None:
        self.database = Database(url)
        self.pictures = pictures
        self.now = now

    def upgrade(self) -> None:
        """Make the tables, or bring them to the newest version; safe when several processes do so at once.

        Raises:
            HistoryVersionError: a newer Spadework made the database.
        """
        schema.upgrade(self.database)

    def close(self) -> None:
        """Let all connections go."""
        self.database.close()

    def check(self) -> None:
        """Ask the database for an answer. Raises HistoryUnavailableError where there is none."""
        with self.database.reading() as connection:
            connection.execute(sa.select(1))

    # ---- inspections -------------------------------------------------------------------------------------------------------

    def record_many(self, new: Sequence[NewInspection]) -> list[Inspection]:
        """Record inspections in one transaction; their files must be on the disk already.

        A watched file that this model has inspected already is not recorded again: the inspection that stands comes back in its place.

        Returns:
            As many as came, in their order.

        Raises:
            InputError: one of them breaks a rule; none is recorded.
        """
        if not new:
            return []
        at = self.now()
        with self.database.writing() as connection:
            number = _highest(connection, inspections)
            numbers, made, watched = [], [], []
            known = _known_files(connection, new)
            for one in new:
                standing = next((known[key] for key in _keys(one) if key in known), None)
                if standing is None:
                    standing = number = number + 1
                    made.append(rows.inspection_row(one, number, at))
                    known.update(dict.fromkeys(_keys(one), number))
                    if one.watched is not None:
                        watched.append(rows.watched_row(one, number))
                numbers.append(standing)
            if made:
                connection.execute(sa.insert(inspections), made)
            if watched:
                connection.execute(sa.insert(watched_files), watched)
            found = rows.by_number(connection, numbers)
        return [found[one] for one in numbers]

    def get(self, inspection_id: int) -> Inspection | None:
        """Return an inspection; None if there is none of this number."""
        with self.database.reading() as connection:
            return _inspection(connection, inspection_id)

    def find(self, wanted: Filter | None = None) -> Page:
        """Return a page of inspections, their total with the first page; see `history_find.find`.

        Raises:
            InputError: a part of the filter breaks a rule.
        """
        with self.database.reading() as connection:
            return history_find.find(connection, wanted or Filter())

    def count(self, wanted: Filter | None = None) -> int:
        """Return how many inspections a filter lets through."""
        with self.database.reading() as connection:
            return history_find.count(connection, wanted or Filter())

    def after(self, inspection_id: int, limit: int = 100) -> tuple[Inspection, ...]:
        """Return the inspections after this number, oldest first: going on from the last of them misses none."""
        chosen = rows.WHOLE.where(inspections.c.id > inspection_id).order_by(inspections.c.id).limit(limit)
        with self.database.reading() as connection:
            return tuple(rows.each(connection, chosen, inspections.c.id, rows.inspection))

    def seen(self, watched: Watched, sha256: str, *, model: str | None = None) -> Inspection | None:
        """Return the inspection of a watched file: same content, size and time, at the same path or the same place on the disk.

        Args:
            watched: the file.
            sha256: of its bytes.
            model: by this model; None for any.
        """
        with self.database.reading() as connection:
            found = _numbers_of(connection, rows.watched_keys(sha256, watched))
            numbers = [number for (_, by), number in found.items() if model in (None, by)]
            return _inspection(connection, min(numbers)) if numbers else None

    # ---- charts ------------------------------------------------------------------------------------------------------------

    def series(
        self, model: str, since: datetime | None = None, until: datetime | None = None, buckets: int = 48
    ) -> list[dict[str, Any]]:
        """Return what was seen of a model over time, in equal parts of it, for charts.

        Args:
            model: its name.
            since: from here on; None for the first inspection.
            until: to before here; None for now.
            buckets: how many parts, at most 1000.

        Returns:
            One for each part, none if there is no inspection: "from", "to" (times), "count", "anomalous", "quantiles" of the scores (by
            "0.05", "0.25", "0.5", "0.75", "0.95"; None without any), "histogram" of the scores ("edges", the same in all parts, and
            "counts"), "nearest_distance" (their mean; None without any).

        Raises:
            InputError: `since` does not lie before `until`, or there are too many parts.
        """
        with self.database.reading() as connection:
            return history_charts.series(connection, model, since, until, buckets, now=self.now())

    def shares(self, model: str, last: int = 500) -> list[float]:
        """Return the scores of a model's latest inspections, newest first: what share of them a threshold would fail."""
        with self.database.reading() as connection:
            return history_charts.scores(connection, model, last)

    # ---- decisions ---------------------------------------------------------------------------------------------------------

    def decide(
        self,
        inspection_id: int,
        kind: str,
        who: str,
        note: str = "",
        *,
        model: str,
        model_hash: str,
        threshold: float | None,
        appended: bool = False,
    ) -> Decision:
        """Record what a person says of an inspection; earlier decisions stay, the latest counts.

        Args:
            inspection_id: of which.
            kind: "normal" or "defect".
            who: the person.
            note: in their words.
            model, model_hash, threshold: what it was said of.
            appended: whether the picture is in the model because of it already; see `mark_appended`.

        Raises:
            UnknownRecordError: there is no such inspection.
        """
        check.one_of(kind, "kind", KINDS)
        with self.database.writing() as connection:
            if _inspection(connection, inspection_id) is None:
                raise UnknownRecordError(f"there is no inspection {inspection_id}.")
            number = _highest(connection, decisions) + 1
            row = {
                "id": number,
                "inspection_id": inspection_id,
                "kind": kind,
                "who": storable(who),
                "at": self.now(),
                "note": storable(note),
                "model": model,
                "model_hash": model_hash,
                "threshold": threshold,
                "appended": appended,
                "withdrawn": False,
            }
            connection.execute(sa.insert(decisions), row)
            _settle(connection, inspection_id)
            return _decision(connection, number)

    def undo(self, decision_id: int, who: str) -> Decision:
        """Take a decision back; the one before it counts again. One that was taken back already stays as it is.

        Raises:
            UnknownRecordError: there is no such decision.
        """
        with self.database.writing() as connection:
            found = _decision(connection, decision_id)
            if found.undone_at is not None:
                return found
            _mark(connection, decision_id, undone_at=self.now(), undone_by=storable(who))
            _settle(connection, found.inspection_id)
            return _decision(connection, decision_id)

    def mark_appended(self, decision_id: int) -> Decision:
        """Mark that the picture went into the model because of a decision."""
        with self.database.writing() as connection:
            _mark(connection, decision_id, appended=True)
            return _decision(connection, decision_id)

    def mark_withdrawn(self, decision_id: int) -> Decision:
        """Mark that the picture went out of the model again after a decision was undone."""
        with self.database.writing() as connection:
            _mark(connection, decision_id, withdrawn=True)
            return _decision(connection, decision_id)

    def decision(self, decision_id: int) -> Decision | None:
        """Return a decision; None if there is none of this number."""
        with self.database.reading() as connection:
            return _find_decision(connection, decision_id)

    def decisions(self, inspection_id: int) -> tuple[Decision, ...]:
        """Return all decisions of an inspection, also those taken back, oldest first."""
        chosen = sa.select(decisions).where(decisions.c.inspection_id == inspection_id).order_by(decisions.c.id)
        with self.database.reading() as connection:
            return tuple(rows.each(connection, chosen, decisions.c.id, rows.decision))

    def unfinished(self, model: str) -> tuple[Decision, ...]:
        """Return the decisions "normal" of a model that a crash may have cut short, oldest first.

        Those that stand, whose picture is not marked as appended; and those undone, whose picture was and is not marked as withdrawn.
        """
        column = decisions.c
        open_ones = sa.or_(
            sa.and_(column.undone_at.is_(None), column.appended.is_(False)),
            sa.and_(column.undone_at.is_not(None), column.appended.is_(True), column.withdrawn.is_(False)),
        )
        chosen = sa.select(decisions).where(column.model == model, column.kind == "normal", open_ones)
        with self.database.reading() as connection:
            return tuple(rows.each(connection, chosen.order_by(column.id), column.id, rows.decision))

    # ---- changes of models -------------------------------------------------------------------------------------------------

    def change(self, new: NewChange, *, decision_id: int | None = None) -> ModelChange:
        """Record that a model was changed.

        With `decision_id`, that decision is marked in the same transaction: as appended by an "append", as withdrawn by a "remove".
        """
        with self.database.writing() as connection:
            number = _highest(connection, model_changes) + 1
            connection.execute(sa.insert(model_changes), rows.change_row(new, number, self.now()))
            pictures = [{"change_id": number, "picture": picture} for picture in dict.fromkeys(new.pictures)]
            if pictures:
                connection.execute(sa.insert(changed_pictures), pictures)
            if decision_id is not None:
                mark = {"append": "appended", "remove": "withdrawn"}[
                    check.one_of(new.what, "what", {"append", "remove"})
                ]
                _mark(connection, decision_id, **{mark: True})
            row = connection.execute(sa.select(model_changes).where(model_changes.c.id == number)).mappings().one()
            return rows.change(row)

    def changes(self, model: str | None = None, cursor: str | None = None, limit: int = 50) -> Changes:
        """Return a page of the changes of a model, or of all, newest first.

        Raises:
            InputError: the cursor is not one that was given out, or the limit is not between 1 and 1000.
        """
        if check.positive_int(limit, "limit") > history_find.MOST:
            raise InputError(f"limit may be at most {history_find.MOST}, not {limit}.")
        if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):
            raise InputError(f"cursor {cursor[:50]!r} is not one that this list gave out: take it from the last page.")
        column = model_changes.c
        numbers = sa.select(column.id).order_by(column.id.desc()).limit(limit + 1)
        if model is not None:
            numbers = numbers.where(column.model == model)
        if cursor is not None:
            numbers = numbers.where(column.id < int(cursor))
        with self.database.reading() as connection:
            listed = list(connection.execute(numbers).scalars())
            chosen = sa.select(model_changes).where(column.id.in_(listed[:limit])).order_by(column.id.desc())
            found = rows.each(connection, chosen, column.id, rows.change)
        return Changes(tuple(found), str(listed[limit - 1]) if len(listed) > limit else None)

    def appended(self, model: str, pictures: Sequence[str]) -> dict[str, ModelChange]:
        """Return, for those of these pixel hashes that were appended to a model, the latest change that did so."""
        chosen = (
            sa.select(changed_pictures.c.picture, sa.func.max(model_changes.c.id).label("latest"))
            .join(model_changes, model_changes.c.id == changed_pictures.c.change_id)
            .where(
                changed_pictures.c.picture.in_(pictures),
                model_changes.c.model == model,
                model_changes.c.what == "append",
            )
            .group_by(changed_pictures.c.picture)
        )
        with self.database.reading() as connection:
            latest = {row.picture: row.latest for row in connection.execute(chosen)}
            wanted = sa.select(model_changes).where(model_changes.c.id.in_(set(latest.values())))
            found = {row["id"]: rows.change(row) for row in connection.execute(wanted).mappings()}
        return {picture: found[number] for picture, number in latest.items()}


def _highest(connection: sa.Connection, table: sa.Table) -> int:
    """The highest number given; only the one writer asks."""
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0))).scalar_one())


def _inspection(connection: sa.Connection, number: int) -> Inspection | None:
    if not 0 < number < 2**63:
        return None
    return rows.by_number(connection, [number]).get(number)


def _keys(one: NewInspection) -> list[tuple[str, str]]:
    """What makes the watched file of an inspection the same one, with the model: another model may inspect it too."""
    return [] if one.watched is None else [(key, one.model) for key in rows.watched_keys(one.picture, one.watched)]


def _known_files(connection: sa.Connection, new: Sequence[NewInspection]) -> dict[tuple[str, str], int]:
    return _numbers_of(connection, [key for one in new for key, _ in _keys(one)])


def _numbers_of(connection: sa.Connection, keys: Sequence[str]) -> dict[tuple[str, str], int]:
    """Which inspections stand for watched files of these keys, by key and model."""
    found: dict[tuple[str, str], int] = {}
    file = watched_files.c
    for column in (file.by_path, file.by_inode) if keys else ():
        chosen = sa.select(column, file.model, file.inspection_id).where(column.in_(keys))
        found.update({(key, model): number for key, model, number in connection.execute(chosen)})
    return found


def _find_decision(connection: sa.Connection, number: int) -> Decision | None:
    if not 0 < number < 2**63:
        return None
    row = connection.execute(sa.select(decisions).where(decisions.c.id == number)).mappings().one_or_none()
    return None if row is None else rows.decision(row)


def _decision(connection: sa.Connection, number: int) -> Decision:
    found = _find_decision(connection, number)
    if found is None:
        raise UnknownRecordError(f"there is no decision {number}.")
    return found


def _mark(connection: sa.Connection, number: int, **marks: Any) -> None:
    _decision(connection, number)
    connection.execute(sa.update(decisions).where(decisions.c.id == number).values(**marks))


def _settle(connection: sa.Connection, inspection_id: int) -> None:
    """Repeat in the inspection which decision counts: the latest that was not taken back."""
    chosen = (
        sa.select(decisions.c.id, decisions.c.kind)
        .where(decisions.c.inspection_id == inspection_id, decisions.c.undone_at.is_(None))
        .order_by(decisions.c.id.desc())
        .limit(1)
    )
    latest = connection.execute(chosen).one_or_none()
    connection.execute(
        sa.update(inspections)
        .where(inspections.c.id == inspection_id)
        .values(decision_id=latest.id if latest else None, decision_kind=latest.kind if latest else None)
    )
