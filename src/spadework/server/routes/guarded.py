"""Routes that say who may use them: one that does not cannot be made. Who asks is checked before anything else of a request is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import anyio.to_thread
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive

from spadework.server.auth import SAFE_METHODS, Principal
from spadework.server.problems import Problem, slow
from spadework.server.schemas import Error

if TYPE_CHECKING:
    from spadework.server.services import Services

Made = TypeVar("Made")
PREFIX = "/api/v1"
PUBLIC = "public"
SMALL_BODY = 64 << 10  # bytes of a body that is no picture
REASONS = {
    400: "The body cannot be read.",
    401: "Who asks is not known.",
    403: "Who asks may not, or the request comes from elsewhere.",
    404: "There is no such thing.",
    408: "The body did not come in time.",
    409: "Not in this state.",
    410: "It was there, and is gone.",
    413: "The body, or the picture, is too large.",
    415: "No picture of a known kind.",
    421: "Not asked for under an own name.",
    422: "A value breaks a rule.",
    429: "Too many requests of this client.",
    503: "Too much to do, or stopping; Retry-After says when to come back.",
}
RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


class Guarded(APIRoute):
    """A route with a role. Bodies are bounded here; an upload bounds its own."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, behind the check."""
        handler, told = super().get_route_handler(), self.openapi_extra or {}
        role, upload = told["x-role"], bool(told.get("x-upload"))

        async def guarded(request: Request) -> Response:
            if role != PUBLIC:
                door = services(request).door
                request.state.principal = door.admit(request.method, request.headers, request.cookies, role)
            if not upload and request.method not in SAFE_METHODS:
                request = Request(request.scope, await _small_body(request, services(request).settings.body_seconds))
            return await handler(request)

        return guarded


async def _small_body(request: Request, seconds: float) -> Receive:
    """Read a body of bounded size in bounded time, and return what hands it out again."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > SMALL_BODY:
                    raise Problem(413, "too_large", f"The body has more than {SMALL_BODY} bytes.")
    except TimeoutError:
        raise slow(seconds) from None
    except ClientDisconnect:
        raise Problem(400, "cut_off", "The body ended early.") from None
    messages: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def services(request: Request) -> Services:
    """The station behind a request."""
    return cast("Services", request.app.state.services)


def who(request: Request) -> str:
    """The name of who asks."""
    return cast("Principal", request.state.principal).who


async def drawing(request: Request, make: Callable[[], Made]) -> Made:
    """Do in a thread what takes the memory of whole pictures; few at a time."""
    return await anyio.to_thread.run_sync(make, limiter=services(request).drawing)


async def changing(request: Request, make: Callable[[], Made]) -> Made:
    """Do in a thread what changes a model, and may wait for its lock; few at a time."""
    return await anyio.to_thread.run_sync(make, limiter=services(request).changing)


def spec(role: str, *errors: int, upload: bool = False, **extra: Any) -> dict[str, Any]:
    """Return what a route's decorator takes: its role, the errors it may answer with, and what else its description holds.

    The role is "inspect", "decide", "manage" or "public". `errors` are statuses beside those that every route may answer with.
    With `upload` its body is a picture. `extra` are further parts of its OpenAPI description.
    """
    own = {421, 403, 429, 503, *errors} | (set() if role == PUBLIC else {401})
    own |= {413, 415, 422} if upload else set()
    own |= {400, 408} if 413 in own else set()  # whatever has a body
    described: dict[str, Any] = {"x-role": role, **extra}
    described["security"] = [] if role == PUBLIC else [{"token": []}, {"session": []}]
    if upload:
        described |= {"x-upload": True, "requestBody": PICTURE_BODY}
    return {"openapi_extra": described, "responses": {status: _error(status) for status in sorted(own)}}


def _error(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {"model": Error, "description": REASONS[status]}
    if status in (429, 503):
        found["headers"] = RETRY
    return found


BINARY = {"schema": {"type": "string", "format": "binary"}}
PICTURE_BODY = {
    "required": True,
    "description": "A picture: PNG, JPEG, TIFF, BMP or WebP; as the body itself or as the field `image` of a form.",
    "content": {
        **{f"image/{kind}": BINARY for kind in ("png", "jpeg", "tiff", "bmp", "webp")},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "format": "binary"}},
            }
        },
    },
}


def content(media_type: str, text: str, **headers: str) -> dict[int, dict[str, Any]]:
    """Describe an answer that is no JSON."""
    told = {
        name.replace("_", "-"): {"description": about, "schema": {"type": "string"}} for name, about in headers.items()
    }
    return {200: {"description": text, "content": {media_type: BINARY}, "headers": told}}
