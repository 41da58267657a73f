"""What charts are drawn from: scores over time, the drift of the nearest distance, the scores of the latest parts.

Read from an index alone, so that a million inspections take a second.
"""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from spadework import check
from spadework.errors import InputError
from spadework.server.database import EPOCH, MICROSECOND, microseconds
from spadework.server.tables import inspections

MOST_BUCKETS = 1000
MOST_SCORES = 100_000
BINS = 20
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
AT_ONCE = 20_000

Series = list[dict[str, Any]]


def series(
    connection: sa.Connection,
    model: str,
    since: datetime | None,
    until: datetime | None,
    buckets: int,
    *,
    now: datetime,
) -> Series:
    """Return what was seen of a model in each of `buckets` equal parts of a time; see `History.series`."""
    if check.positive_int(buckets, "buckets") > MOST_BUCKETS:
        raise InputError(f"buckets may be at most {MOST_BUCKETS}, not {buckets}.")
    end = microseconds(until if until is not None else now + MICROSECOND)
    start = _first(connection, model) if since is None else microseconds(since)
    if start is None:
        return []
    if start >= end:
        if since is None:
            return []  # the first came after `until`
        raise InputError(f"since ({since}) must lie before until ({EPOCH + end * MICROSECOND}).")
    at, scores, distances, anomalous = _read(connection, model, start, end)
    edges = np.linspace(*_range(scores), BINS + 1)
    ends = [start + (end - start) * i // buckets for i in range(buckets + 1)]
    places = np.searchsorted(at, ends)  # they come in order of time
    return [
        {
            "from": EPOCH + ends[i] * MICROSECOND,
            "to": EPOCH + ends[i + 1] * MICROSECOND,
            **_told(scores[part], distances[part], anomalous[part], edges),
        }
        for i, part in enumerate(slice(a, b) for a, b in itertools.pairwise(places))
    ]


def _told(scores: np.ndarray, distances: np.ndarray, anomalous: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    known = distances[~np.isnan(distances)]
    quantiles = np.quantile(scores, QUANTILES).tolist() if scores.size else None
    return {
        "count": int(scores.size),
        "anomalous": int(anomalous.sum()),
        "quantiles": None if quantiles is None else dict(zip(map(str, QUANTILES), quantiles, strict=True)),
        "histogram": {"edges": edges.tolist(), "counts": np.histogram(scores, edges)[0].tolist()},
        "nearest_distance": float(known.mean()) if known.size else None,
    }


def _range(scores: np.ndarray) -> tuple[float, float]:
    """The range of a histogram: never empty, and beginning at 0 unless scores lie below."""
    if not scores.size:
        return 0.0, 1.0
    low, high = min(0.0, float(scores.min())), float(scores.max())
    return low, high if high > low else low + 1.0


def _first(connection: sa.Connection, model: str) -> int | None:
    column = inspections.c
    chosen = (
        sa.select(sa.type_coerce(column.at, sa.BigInteger)).where(column.model == model).order_by(column.at).limit(1)
    )
    return connection.execute(chosen).scalar_one_or_none()


def _read(connection: sa.Connection, model: str, start: int, end: int) -> tuple[np.ndarray, ...]:
    """Return times, scores, distances (NaN where there is none) and whether it failed, in order of time."""
    column = inspections.c
    at = sa.type_coerce(column.at, sa.BigInteger)
    chosen = (
        sa.select(at, column.score, column.nearest_distance, sa.case((column.verdict == "anomalous", 1), else_=0))
        .where(column.model == model, at >= start, at < end)
        .order_by(column.at, column.id)
    )
    rows = connection.execution_options(yield_per=AT_ONCE).execute(chosen)
    # Microseconds are whole numbers below 2**53: float64 holds them exactly. None becomes NaN.
    # As tuples: NumPy asks every row of SQLAlchemy's for what it has not, which took ten times as long.
    parts = [np.array(list(map(tuple, part)), np.float64) for part in rows.partitions()]
    whole = np.concatenate([np.empty((0, 4)), *parts])
    return whole[:, 0], whole[:, 1], whole[:, 2], whole[:, 3] > 0


def scores(connection: sa.Connection, model: str, last: int) -> list[float]:
    """Return the scores of the latest `last` inspections of a model, newest first."""
    if check.positive_int(last, "last") > MOST_SCORES:
        raise InputError(f"last may be at most {MOST_SCORES}, not {last}.")
    column = inspections.c
    chosen = sa.select(column.score).where(column.model == model).order_by(column.at.desc(), column.id.desc())
    return [float(score) for score in connection.execute(chosen.limit(last)).scalars()]
