"""For those who run the service: whether it is alive, whether it takes inspections, what it counts."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from spadework.server.logs import log
from spadework.server.metrics import CONTENT_TYPE
from spadework.server.problems import Json, unavailable
from spadework.server.routes.guarded import PUBLIC, Guarded, content, services, spec
from spadework.server.schemas import Health, Readiness

router = APIRouter(route_class=Guarded, tags=["health"])
COUNTS = spec("inspect")
COUNTS["responses"] |= content("text/plain", "Prometheus' text format.")


@router.get("/healthz", response_model=Health, **spec(PUBLIC))
async def alive(request: Request) -> Response:
    """Say that the process answers."""
    return Json({"status": "alive"})


@router.get("/readyz", response_model=Readiness, **spec(PUBLIC))
async def ready(request: Request) -> Response:
    """Say that models are open and the database answers; 503 while stopping."""
    station = services(request)
    if station.draining or not station.ready:
        raise unavailable("stopping", "The station is starting or stopping.", "Ask again.", after=5)
    try:
        await run_in_threadpool(station.history.check)
    except Exception as error:  # whatever a database's driver raises
        log("database does not answer", level=40, error=error)
        raise unavailable("database", "The database does not answer.", "See the station's log.", after=5) from None
    return Json({"status": "ready"})


@router.get("/metrics", response_class=Response, **COUNTS)
async def metrics(request: Request) -> Response:
    """Tell the station's counters in Prometheus' text format."""
    return Response(services(request).metrics.text(), headers={"content-type": CONTENT_TYPE})
