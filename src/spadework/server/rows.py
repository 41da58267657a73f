"""Records to rows of the tables and back. Checks what comes in: what is written stays for ever."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from spadework import check
from spadework.errors import InputError
from spadework.server.database import storable
from spadework.server.records import (
    CHANGES,
    SOURCES,
    Decision,
    Inspection,
    ModelChange,
    NewChange,
    NewInspection,
    Watched,
)
from spadework.server.tables import decisions, inspections, watched_files

LOG = logging.getLogger("spadework.history")
Record = TypeVar("Record")
NAME_LENGTH = 400  # characters: PostgreSQL's indices take rows of up to 2700 bytes
NUMBERS = ("score", "threshold", "map_threshold", "nearest_distance")
DAMAGED = (ValueError, TypeError, KeyError, OverflowError)  # what reading a row raises that no version of ours wrote
VERDICTS = frozenset({"normal", "anomalous", "no threshold"})
AS_IT_IS = (
    *("model", "model_hash", "backbone_hash", "detector", "source", "picture", "media_type", "height", "width"),
    *("score", "threshold", "map_threshold", "verdict", "nearest_distance", "evidence", "timings"),
)

WHOLE = sa.select(
    inspections,
    *(column.label(f"decision__{column.name}") for column in decisions.c),
    *(watched_files.c[name].label(f"watched__{name}") for name in ("path", "device", "inode", "mtime_ns", "size")),
).select_from(
    inspections.outerjoin(decisions, decisions.c.id == inspections.c.decision_id).outerjoin(
        watched_files, watched_files.c.inspection_id == inspections.c.id
    )
)


def inspection_row(new: NewInspection, number: int, at: datetime) -> dict[str, Any]:
    """Return the row of a new inspection.

    Raises:
        InputError: a score is no finite number, or a word is none of those that are known.
    """
    check.one_of(new.source, "source", SOURCES)
    check.one_of(new.verdict, "verdict", VERDICTS)
    for name in NUMBERS:
        value = getattr(new, name)
        if value is not None and not math.isfinite(value):
            raise InputError(f"{new.name}: {name} must be a finite number, not {value}.")
    name = _shortened(storable(new.name))
    return {
        **{key: getattr(new, key) for key in AS_IT_IS},
        "id": number,
        "at": at,
        "name": name,
        "folded_name": _shortened(name.casefold()),
        "who": storable(new.who),
        "regions": list(new.regions),
        "nearest": list(new.nearest),
    }


def _shortened(name: str) -> str:
    return (
        name if len(name) <= NAME_LENGTH else "..." + name[3 - NAME_LENGTH :]
    )  # the end tells more than the beginning


def watched_keys(picture: str, watched: Watched) -> tuple[str, str]:
    """Return what makes a watched file the same one: its content, size and time, with its path, or with its place on the disk."""
    same = f"{picture}\0{watched.size}\0{watched.mtime_ns}\0".encode()
    where = f"{watched.device}\0{watched.inode}".encode()
    return hashlib.sha256(same + os.fsencode(watched.path)).hexdigest(), hashlib.sha256(
        same + b"\0" + where
    ).hexdigest()


def watched_row(new: NewInspection, number: int) -> dict[str, Any]:
    """Return the row of the file that an inspection came from."""
    watched = new.watched
    assert watched is not None  # the caller's affair
    by_path, by_inode = watched_keys(new.picture, watched)
    return {
        "inspection_id": number,
        "model": new.model,
        "path": storable(watched.path),
        "device": str(watched.device),
        "inode": str(watched.inode),
        "mtime_ns": watched.mtime_ns,
        "size": watched.size,
        "by_path": by_path,
        "by_inode": by_inode,
    }


def inspection(row: sa.RowMapping) -> Inspection:
    """Return the record of a row of `WHOLE`. Raises one of DAMAGED for one that is none."""
    if not all(row[name] is None or math.isfinite(row[name]) for name in NUMBERS):
        raise ValueError("a score is no finite number")
    seen = NewInspection(
        **{key: row[key] for key in AS_IT_IS},
        name=row["name"],
        who=row["who"],
        regions=tuple(row["regions"]),
        nearest=tuple(row["nearest"]),
        watched=_watched(row),
    )
    decision = None if row["decision__id"] is None else _decision(row, "decision__")
    return Inspection(row["id"], row["at"], seen, decision, row["files_removed_at"])


def _watched(row: sa.RowMapping) -> Watched | None:
    if row["watched__path"] is None:
        return None
    return Watched(
        row["watched__path"],
        int(row["watched__device"]),
        int(row["watched__inode"]),
        row["watched__mtime_ns"],
        row["watched__size"],
    )


def decision(row: sa.RowMapping) -> Decision:
    """Return the record of a row of `decisions`."""
    return _decision(row, "")


def _decision(row: sa.RowMapping, prefix: str) -> Decision:
    return Decision(**{column.name: row[prefix + column.name] for column in decisions.c})


def change_row(new: NewChange, number: int, at: datetime) -> dict[str, Any]:
    """Return the row of a change of a model. Raises InputError for a kind of change that is not known."""
    return {
        "id": number,
        "at": at,
        "model": new.model,
        "who": storable(new.who),
        "what": check.one_of(new.what, "what", CHANGES),
        "model_hash_before": new.model_hash_before,
        "model_hash_after": new.model_hash_after,
        "inspection_id": new.inspection_id,
        "pictures": list(new.pictures),
        "detail": new.detail,
    }


def change(row: sa.RowMapping) -> ModelChange:
    """Return the record of a row of `model_changes`."""
    made = NewChange(
        row["model"],
        row["who"],
        row["what"],
        row["model_hash_before"],
        row["model_hash_after"],
        tuple(row["pictures"]),
        row["inspection_id"],
        row["detail"],
    )
    return ModelChange(row["id"], row["at"], made)


def by_number(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, Inspection]:
    """Return the inspections of these numbers, by number, without those whose rows are damaged."""
    if not numbers:
        return {}
    found = each(connection, WHOLE.where(inspections.c.id.in_(numbers)), inspections.c.id, inspection)
    return {one.id: one for one in found}


def each(
    connection: sa.Connection, chosen: sa.Select[Any], number: sa.Column[int], make: Callable[[sa.RowMapping], Record]
) -> list[Record]:
    """Return the records of all rows that are chosen. One that is damaged is told in the log and left out: it costs its neighbours nothing.

    Args:
        connection: to the database.
        chosen: which rows.
        number: their numbers' column.
        make: returns the record of a row; raises one of DAMAGED.
    """
    try:
        return [make(row) for row in connection.execute(chosen).mappings()]
    except DAMAGED:
        numbers = connection.execute(chosen.with_only_columns(number, maintain_column_froms=True)).scalars().all()
    found = []
    for one in numbers:
        try:
            found.append(make(connection.execute(chosen.where(number == one)).mappings().one()))
        except DAMAGED as error:
            LOG.error("%s %d cannot be read: %s", number.table.name, one, error)
    return found
