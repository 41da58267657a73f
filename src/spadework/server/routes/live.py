"""Live events of the station, as server-sent events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from spadework.server.events import Mark, stream
from spadework.server.problems import Problem, unavailable
from spadework.server.routes.guarded import PREFIX, Guarded, content, services, spec
from spadework.server.services import Services

router = APIRouter(prefix=PREFIX, route_class=Guarded, tags=["events"])
MOST_LISTENERS = 100
MOST_MISSED = 500
DESCRIBED = spec("inspect", 422)
DESCRIBED["responses"] |= content(
    "text/event-stream",
    "`inspection` holds an Inspection, `decision` a Decision and its Inspection, `model` a ModelInfo; after `resync` read lists again.",
)


@router.get("/events", response_class=Response, **DESCRIBED)
async def events(request: Request, last_event_id: Annotated[str | None, Header(max_length=100)] = None) -> Response:
    """Stream what happens. With Last-Event-ID first what came since; a comment every 15 s shows that the line is alive."""
    station = services(request)
    if station.draining:
        raise unavailable("stopping", "The station is stopping.", "Ask again.", after=5)
    if station.events.listening >= MOST_LISTENERS:
        raise unavailable("listeners", f"{MOST_LISTENERS} clients listen already.", "Close other pages.", after=10)
    headers, cookies = dict(request.headers), dict(request.cookies)

    def welcome() -> bool:
        try:
            station.door.identify(
                headers, cookies, renew=False
            )  # a page that only listens does not make a session live on
        except Problem:
            return False
        return True

    body = stream(
        station.events,
        (Mark.read(last_event_id) or station.events.elsewhere()) if last_event_id else None,
        lambda number: missed_since(station, number),
        welcome,
    )
    return StreamingResponse(body, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def missed_since(station: Services, number: int) -> list[tuple[int, dict[str, Any]]]:
    """Return the inspections after a number, oldest first, at most MOST_MISSED; the rest is for `resync`."""
    return [(item.id, item.to_json()) for item in station.history.after(number, MOST_MISSED)]
