"""From the errors of the parts behind the service to what a client is told."""

from __future__ import annotations

import logging

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from spadework.errors import InputError, ModelError, OutputError, SpadeworkError
from spadework.server import errors
from spadework.server.logs import log
from spadework.server.problems import Problem, unavailable

TRANSLATED: tuple[type[Exception], ...] = (SpadeworkError,)
CODES = {404: "not_found", 405: "method", 413: "too_large", 415: "media_type"}


def as_problem(error: Exception) -> Problem:
    """Return what a client is told of an error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        code = CODES.get(error.status_code, "request")
        return Problem(error.status_code, code, str(error.detail), headers=error.headers)
    return _of_station(error)


def _of_station(error: Exception) -> Problem:
    raise NotADirectoryError


def _invalid(error: RequestValidationError) -> Problem:
    """The first thing that is wrong with parameters or a body; what came is not repeated, for it may be anything."""
    first = next(iter(error.errors()), {})
    place = ".".join(str(part) for part in first.get("loc", ()) if isinstance(part, (str, int)))
    if first.get("type") == "json_invalid":
        return Problem(422, "json", "The body is no JSON.")
    return Problem(422, "invalid", f"{place}: {first.get('msg', 'is not valid')}.", "Check it against /api/v1/openapi.json.")
