"""The web application: routes, errors and the gate around a station's services."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import spadework
from spadework.errors import SpadeworkError
from spadework.server import settings as station_settings
from spadework.server.gate import Gate
from spadework.server.problems import Problem
from spadework.server.routes import decisions, health, inspections, live, maps, models, page, session
from spadework.server.routes.guarded import PREFIX
from spadework.server.services import Services
from spadework.server.translation import as_problem

ROUTERS = (
    inspections.router,
    maps.router,
    decisions.router,
    models.router,
    session.router,
    live.router,
    health.router,
    page.router,
)
ABOUT = (
    "Inspects pictures of parts, keeps a history, and learns a new normal picture at once. "
    'Errors are {"error": {"code", "message", "hint"}}.'
)
SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of the station."},
    "session": {"type": "apiKey", "in": "cookie", "name": "", "description": "Unsafe requests also need X-CSRF-Token."},
}


def create_app(settings: station_settings.Settings) -> FastAPI:
    """Return the application; its lifespan opens what the settings name, and closes it."""
    services = Services(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(services.open)
        latest = services.history.count()  # the highest number, whatever the clock said when
        services.events.open(asyncio.get_running_loop(), inspection=latest)
        try:
            yield
        finally:
            services.drain()
            await anyio.to_thread.run_sync(services.close)

    app = FastAPI(
        title="Spadework inspection station",
        description=ABOUT,
        version=spadework.__version__,
        lifespan=lifespan,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.services = services
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", page.page_files())
    app.add_exception_handler(Problem, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    app.add_exception_handler(SpadeworkError, _answer)
    app.add_middleware(Gate, services=services)
    app.openapi = lambda: _describe(app, services)  # type: ignore[method-assign]
    return app


async def _answer(request: Request, error: Exception) -> Response:
    problem = as_problem(error)
    request.app.state.services.metrics.turned_away.labels(problem.code).inc()
    return problem.response()


def _describe(app: FastAPI, services: Services) -> dict[str, Any]:
    if app.openapi_schema is None:
        routes = [route for router in ROUTERS for route in router.routes]
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=routes)
        schemes = {**SCHEMES, "session": {**SCHEMES["session"], "name": services.door.cookie}}
        found.setdefault("components", {})["securitySchemes"] = schemes
        app.openapi_schema = found
    return app.openapi_schema
