"""Errors as the service answers them: {"error": {"code", "message", "hint"}} with the right status and headers.

`code` is for programs and stays the same; `message` and `hint` are for people. Nothing in them comes from inside the service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

HINTS = {
    400: "Check the request against /api/v1/openapi.json.",
    404: "Check the address; /api/v1/openapi.json lists all.",
    405: "The header Allow lists what this address takes.",
}


class Problem(Exception):  # noqa: N818 - it is an answer as any other
    """An answer other than success: HTTP status, code for programs, message and hint for people."""

    def __init__(
        self, status: int, code: str, message: str, hint: str | None = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.hint = HINTS.get(status) if hint is None else hint
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the answer."""
        return Json(
            {"error": {"code": self.code, "message": self.message, "hint": self.hint}},
            status=self.status,
            headers=self.headers,
        )


class Json(Response):
    """A JSON answer, compact; NaN and infinity, which JSON does not know, are an error here and not in the client."""

    media_type = "application/json"

    def __init__(self, content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status, dict(headers or {}))

    def render(self, content: Any) -> bytes:
        """Return the bytes of `content`."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )


def unavailable(code: str, message: str, hint: str, *, after: float = 1.0) -> Problem:
    """A 503 that says when to come back, in whole seconds."""
    return Problem(503, code, message, hint, headers={"Retry-After": str(max(1, round(after)))})


def slow(seconds: float) -> Problem:
    """A 408 for a body that took too long."""
    return Problem(408, "slow", f"The body did not come within {seconds:g} s.", "Try again.")


def not_found(what: str) -> Problem:
    """A 404 for something that the address names."""
    return Problem(404, "not_found", f"There is no {what}.")
