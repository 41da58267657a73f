"""From the errors of the parts behind the service to what a client is told."""

from __future__ import annotations

import logging
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from spadework.errors import InputError, ModelError, OutputError, SpadeworkError
from spadework.server import errors
from spadework.server.database import HistoryUnavailableError, UnknownRecordError
from spadework.server.evidence import DamagedEvidenceError
from spadework.server.logs import log
from spadework.server.problems import Problem, unavailable

CODES = {404: "not_found", 405: "method", 413: "too_large", 415: "media_type"}
ANOTHER = "Send another picture."
LATER = "Send it again a little later."
TOLD: tuple[tuple[type[SpadeworkError], int, str, str], ...] = (
    (errors.NotAPicture, 415, "not_a_picture", "Send a PNG, JPEG, TIFF, BMP or WebP file."),
    (errors.TooLarge, 413, "too_many_pixels", "Scale it down, or start the station with a larger --max-pixels."),
    (errors.DecodingError, 422, "damaged", ANOTHER),
    (errors.NotFound, 404, "not_found", "Check the address."),
    (errors.PictureGone, 410, "gone", "Pictures that somebody marked are kept for ever."),
    (errors.ModelGone, 409, "model_gone", "Bring the model back, then reload it."),
    (errors.CannotLearn, 409, "cannot_learn", "Fit the model again with the picture."),
    (errors.Conflict, 409, "conflict", "Look at what is there now."),
    (DamagedEvidenceError, 410, "damaged_map", "Inspect the picture again."),
    (UnknownRecordError, 404, "not_found", "Check the number."),
    (InputError, 422, "invalid", "Change the request."),
)


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
    for kind, status, code, hint in TOLD:
        if isinstance(error, kind):
            own = getattr(error, "code", code) if isinstance(error, errors.DecodingError) and status == 422 else code
            return Problem(status, own, str(error), hint)
    if isinstance(error, errors.Overloaded):
        return unavailable("overloaded", str(error), LATER, after=error.seconds)
    if isinstance(error, errors.Stopped):
        return unavailable("stopping", "The station is stopping.", LATER, after=5)
    return _broken(error)


def _broken(error: Exception) -> Problem:
    """What is wrong with the station and not with the request: the log says what, the client only learns that it is."""
    log("failed", level=logging.ERROR, error=error)
    if isinstance(error, HistoryUnavailableError):
        return unavailable("database", "The database does not answer.", LATER, after=5)
    if isinstance(error, OutputError):
        return unavailable(
            "storage", "Nothing can be written: no room, or no permission.", "See the station's log.", after=30
        )
    if isinstance(error, ModelError):
        return Problem(409, "model", "The model cannot be used.", "See the station's log.")
    return Problem(500, "internal", "Something went wrong in the station.", "Its log says what.")


def _invalid(error: RequestValidationError) -> Problem:
    """The first thing that is wrong with parameters or a body; what came is not repeated, for it may be anything."""
    first: dict[str, Any] = next(iter(error.errors()), {})
    place = ".".join(str(part) for part in first.get("loc", ()) if isinstance(part, (str, int)))
    if first.get("type") == "json_invalid":
        return Problem(422, "json", "The body is no JSON.")
    return Problem(
        422, "invalid", f"{place}: {first.get('msg', 'is not valid')}.", "Check it against /api/v1/openapi.json."
    )
