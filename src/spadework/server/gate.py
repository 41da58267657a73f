"""What every request passes first and last: the name it came under, where from, how often; security headers, metrics, one line of log."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spadework.server.logs import log
from spadework.server.problems import Problem, unavailable
from spadework.server.routes.guarded import PREFIX

if TYPE_CHECKING:
    from spadework.server.services import Services

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), usb=(), payment=()",
}
DRAIN_SECONDS = 5.0
DRAINED = 1 << 30  # bytes: so much of a refused body is read away; then, or with more announced, the line is cut
TOO_SLOW = 408
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
COSTLY = frozenset({"/readyz", "/metrics"})  # one asks the database, the other counts everything
CROWDED = "crowded"  # in a request's state: its connection came when there was no place for it
NO_PLACE = unavailable("connections", "Too many clients are connected.", "Close some, and ask again.", after=5)
NO_PLACE.headers["Connection"] = "close"
FAILED = Problem(
    500, "internal", "Something went wrong in the station.", "Its log says what, under the answer's X-Request-Id."
)


class Body:
    """A request's body, and whether it was read to its end."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._waits = headers.get("expect", "").lower() == "100-continue"  # sends nothing before it is asked to
        self._length = headers.get("content-length", "0")
        self.left = self._length != "0" or "transfer-encoding" in headers

    async def receive(self) -> Message:
        """As ASGI has it."""
        self._waits = False
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self.left = False
        return message

    async def drain(self) -> None:
        """Read away what is left, if it is not too much and comes soon: a client that still sends would not see the answer."""
        most = DRAINED
        if self._waits or not self._length.isdecimal() or int(self._length) > most:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self.left and most > 0:
                    most -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app, self._services = app, services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, begun = time.perf_counter(), 500, False
        number, body = secrets.token_hex(6), Body(scope, receive)

        async def answer(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                if body.left and status >= 400 and status != TOO_SLOW:
                    await body.drain()
                headers = MutableHeaders(scope=message)
                if body.left:
                    headers["connection"] = "close"
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                headers["x-request-id"] = number
            await send(message)

        try:
            problem = self._refuse(scope)
            if problem is None:
                await self._app(scope, body.receive, answer)
            else:
                self._services.metrics.turned_away.labels(problem.code).inc()
                await problem.response()(scope, body.receive, answer)
        except (
            Exception
        ) as error:  # what nobody thought of: the log has where, the client only learns that something is wrong
            log("failed", level=logging.ERROR, error=error, request=number, path=scope["path"])
            if begun:
                raise  # the server cuts the connection, so that half an answer is not taken for a whole one
            await FAILED.response()(scope, body.receive, answer)
        finally:
            self._note(scope, status, time.perf_counter() - started, number)

    def _refuse(self, scope: Scope) -> Problem | None:
        headers, path = Headers(scope=scope), scope["path"]
        api = path.startswith(PREFIX)
        if scope.get("state", {}).get(CROWDED):
            return NO_PLACE
        try:
            self._services.origins.check(scope["method"], scope["scheme"], headers, api=api)
            if api or path in COSTLY:
                self._services.rate.take(scope["client"][0] if scope["client"] else "")
        except Problem as problem:
            return problem
        return None

    def _note(self, scope: Scope, status: int, seconds: float, number: str) -> None:
        route = getattr(scope.get("route"), "path", "") or "other"
        method = scope["method"] if scope["method"] in METHODS else "other"  # clients must not make up labels
        self._services.metrics.requests.labels(method, route, status).inc()
        self._services.metrics.seconds.labels(method, route).observe(seconds)
        principal = scope.get("state", {}).get("principal")
        log(
            "request",
            level=logging.INFO if status < 500 else logging.WARNING,
            request=number,
            method=scope["method"],
            path=scope["path"],
            status=status,
            ms=round(seconds * 1000, 1),
            who=principal.who if principal else None,
            client=scope["client"][0] if scope["client"] else None,
        )
