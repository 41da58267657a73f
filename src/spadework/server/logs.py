"""Structured logs: one JSON object a line on standard error. Never a header, a body or a query: secrets may stand in them."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = "spadework.server"
FIELDS = "fields"  # where a record carries its own fields


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON: at, level, event, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "event": record.getMessage()}
        if record.name != LOGGER:
            line["logger"] = record.name
        line.update(getattr(record, FIELDS, {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(stream: TextIO | None = None) -> None:
    """Send the station's and the web server's records to `stream`, standard error by default, as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (
        ("spadework", logging.INFO),
        *((name, logging.WARNING) for name in ("uvicorn", "asyncio", "alembic")),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    errors = logging.getLogger("uvicorn.error")
    errors.handlers, errors.propagate = [], True
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate, access.disabled = [], False, True  # the station has its own, without queries


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Write one event with its fields; with `error` also where it came from."""
    told = None if error is None else (type(error), error, error.__traceback__)
    logging.getLogger(LOGGER).log(level, event, exc_info=told, extra={FIELDS: fields})
