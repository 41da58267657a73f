"""Signing in and out in a browser: a token becomes a cookie that scripts cannot read and other sites cannot use."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from spadework.server.auth import Principal
from spadework.server.problems import Json, Problem
from spadework.server.routes.guarded import PREFIX, PUBLIC, Guarded, services, spec
from spadework.server.schemas import NewSession, Session

router = APIRouter(prefix=PREFIX, route_class=Guarded, tags=["session"])
COOKIE = {201: {"description": "Signed in.", "headers": {"Set-Cookie": {"schema": {"type": "string"}}}}}


@router.get("/session", response_model=Session, **spec("inspect"))
async def tell(request: Request) -> Response:
    """Say who asks."""
    return Json(_told(request.state.principal))


@router.post("/session", status_code=201, response_model=Session, **spec(PUBLIC, 401, 409, 413, 422))
async def sign_in(request: Request, body: NewSession) -> Response:
    """Sign in with a token; the session lasts twelve hours from its last request."""
    door = services(request).door
    if door.open_to_all:
        raise Problem(409, "no_tokens", "The station has no tokens: nobody needs to sign in.", "Just go on.")
    holder = door.holder(body.token)
    if holder is None:
        raise Problem(401, "unauthorised", "This token is not known here.", "Check it, or ask who manages the station.")
    key, principal = door.sessions.start(holder)
    answer = Json(_told(principal), status=201)
    secure = request.url.scheme == "https"
    answer.set_cookie(door.cookie, key, httponly=True, samesite="strict", secure=secure, path="/")
    return answer


@router.delete("/session", status_code=204, **spec("inspect"))
async def sign_out(request: Request) -> Response:
    """Sign out: the cookie is worth nothing from now on."""
    door = services(request).door
    key = request.cookies.get(door.cookie)
    if key is not None:
        door.sessions.end(key)
    answer = Response(status_code=204)
    answer.delete_cookie(door.cookie, path="/", httponly=True, samesite="strict")
    return answer


def _told(principal: Principal) -> dict[str, str | None]:
    return {"who": principal.who, "role": principal.role, "csrf": principal.csrf}
