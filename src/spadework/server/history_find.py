"""Finding inspections: filters, pages, counts.

A page goes on from the time and number of the last one before it, not from a count of rows: whatever arrives meanwhile, an inspection that was
there when the first page was asked for comes exactly once.
"""

from __future__ import annotations

import math
import re
from typing import Any

import sqlalchemy as sa

from spadework import check
from spadework.errors import InputError
from spadework.server import rows
from spadework.server.database import microseconds, storable
from spadework.server.records import KINDS, Filter, Page
from spadework.server.tables import inspections

MOST = 1000  # on one page
DECISIONS = KINDS | {"none"}
CURSOR = re.compile(r"([on])(-?[0-9]{1,19})\.([0-9]{1,18})")  # order, microseconds, number


def find(connection: sa.Connection, wanted: Filter) -> Page:
    """Return one page of the inspections that a filter lets through; their total comes with the first.

    Raises:
        InputError: a part of the filter breaks a rule, or the cursor comes from elsewhere.
    """
    limit = check.positive_int(wanted.limit, "limit")
    if limit > MOST:
        raise InputError(f"limit may be at most {MOST}, not {limit}: go through the pages by the cursor.")
    if not isinstance(wanted.newest_first, bool):
        raise InputError(f"newest_first must be true or false, not {wanted.newest_first!r}.")
    conditions = _conditions(wanted)
    order = _order(wanted.newest_first)
    after = [] if wanted.cursor is None else [_after(wanted.cursor, wanted.newest_first)]
    # Numbers first, from an index alone; then the whole rows of this page.
    at = sa.type_coerce(inspections.c.at, sa.BigInteger)
    chosen = sa.select(inspections.c.id, at).where(*conditions, *after).order_by(*order).limit(limit + 1)
    places = [(number, time) for number, time in connection.execute(chosen)]
    numbers = [number for number, _ in places[:limit]]
    found = rows.by_number(connection, numbers)
    items = tuple(found[number] for number in numbers if number in found)
    cursor = _cursor(*places[limit - 1], wanted.newest_first) if len(places) > limit else None
    return Page(items, cursor, count(connection, wanted) if wanted.cursor is None else None)


def count(connection: sa.Connection, wanted: Filter) -> int:
    """Return how many inspections a filter lets through; its cursor and limit do not count."""
    conditions = _conditions(wanted)
    if not conditions:  # numbers have no gaps
        return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(inspections.c.id), 0))).scalar_one())
    return int(connection.execute(sa.select(sa.func.count()).select_from(inspections).where(*conditions)).scalar_one())


def _order(newest_first: bool) -> tuple[Any, Any]:
    at, number = inspections.c.at, inspections.c.id
    return (at.desc(), number.desc()) if newest_first else (at.asc(), number.asc())


def _conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    column = inspections.c
    found: list[sa.ColumnElement[bool]] = []
    if wanted.model is not None:
        found.append(column.model == storable(wanted.model))
    if wanted.verdict is not None:
        found.append(column.verdict == check.one_of(wanted.verdict, "verdict", rows.VERDICTS))
    if wanted.decision is not None:
        kind = check.one_of(wanted.decision, "decision", DECISIONS)
        found.append(column.decision_kind.is_(None) if kind == "none" else column.decision_kind == kind)
    if wanted.since is not None:
        microseconds(wanted.since)
        found.append(column.at >= wanted.since)
    if wanted.until is not None:
        microseconds(wanted.until)
        found.append(column.at < wanted.until)
    if wanted.score_min is not None:
        found.append(column.score >= _number(wanted.score_min, "score_min"))
    if wanted.score_max is not None:
        found.append(column.score <= _number(wanted.score_max, "score_max"))
    if wanted.text:
        found.append(column.folded_name.contains(storable(wanted.text).casefold(), autoescape=True))
    return found


def _number(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, not {value}.")
    return float(value)


def _cursor(number: int, time: int, newest_first: bool) -> str:
    return f"{'n' if newest_first else 'o'}{time}.{number}"


def _after(cursor: str, newest_first: bool) -> sa.ColumnElement[bool]:
    match = CURSOR.fullmatch(cursor)
    if match is None or (match[1] == "n") != newest_first or abs(int(match[2])) >= 2**63:
        raise InputError(
            f"cursor {cursor[:50]!r} is not one that this list gave out: take it from the last page, and leave the order as it was."
        )
    place = sa.tuple_(sa.type_coerce(inspections.c.at, sa.BigInteger), inspections.c.id)
    last = sa.tuple_(sa.literal(int(match[2]), sa.BigInteger), sa.literal(int(match[3]), sa.BigInteger))
    return place < last if newest_first else place > last
