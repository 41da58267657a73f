"""Who may use which address: every route against every role, sessions without their CSRF token, other web sites. A new route needs its line."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("fastapi")
from station_server import TOKENS, bearer, client_of, settings_for

from spadework.server.app import ROUTERS

API = "/api/v1"
MATRIX = {
    ("GET", "/"): "public",
    ("GET", "/favicon.ico"): "public",
    ("GET", "/healthz"): "public",
    ("GET", "/readyz"): "public",
    ("GET", "/metrics"): "inspect",
    ("POST", f"{API}/session"): "public",
    ("GET", f"{API}/session"): "inspect",
    ("DELETE", f"{API}/session"): "inspect",
    ("GET", f"{API}/events"): "inspect",
    ("POST", f"{API}/models/{{model}}/inspections"): "inspect",
    ("GET", f"{API}/inspections"): "inspect",
    ("GET", f"{API}/inspections/{{id}}"): "inspect",
    ("GET", f"{API}/inspections/{{id}}/image"): "inspect",
    ("GET", f"{API}/inspections/{{id}}/map.png"): "inspect",
    ("GET", f"{API}/inspections/{{id}}/map.f32"): "inspect",
    ("GET", f"{API}/inspections/{{id}}/match"): "inspect",
    ("GET", f"{API}/inspections/{{id}}/decisions"): "inspect",
    ("POST", f"{API}/inspections/{{id}}/decisions"): "decide",
    ("POST", f"{API}/decisions/{{id}}/undo"): "decide",
    ("GET", f"{API}/models"): "inspect",
    ("GET", f"{API}/models/{{model}}"): "inspect",
    ("POST", f"{API}/models/{{model}}/reload"): "manage",
    ("PUT", f"{API}/models/{{model}}/threshold"): "manage",
    ("GET", f"{API}/models/{{model}}/normals"): "inspect",
    ("POST", f"{API}/models/{{model}}/normals"): "manage",
    ("GET", f"{API}/models/{{model}}/normals/{{hash}}/image"): "inspect",
    ("DELETE", f"{API}/models/{{model}}/normals/{{hash}}"): "manage",
    ("GET", f"{API}/models/{{model}}/changes"): "inspect",
    ("GET", f"{API}/models/{{model}}/series"): "inspect",
    ("GET", f"{API}/models/{{model}}/scores"): "inspect",
}
OUTSIDE = {"/static", f"{API}/openapi.json"}  # no routes of ours: plain files, and the description of the service
ORDER = ["inspect", "decide", "manage"]
ENTRIES = sorted(MATRIX)
IDS = [f"{method} {path}" for method, path in ENTRIES]


@pytest.fixture(scope="module")
def station(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("roles")
    with client_of(settings_for(model.save(folder / "part.spade"), folder / "station", tokens=True)) as client:
        client.app.state.services.draining = True  # streams end at once, and nothing is inspected
        yield client


def ask(client, method, path, **named):
    path = path.format(model="part", id=1, hash="0" * 64)
    return client.request(method, path, **named)


def code_of(response) -> str | None:
    kind = response.headers.get("content-type", "")
    return response.json().get("error", {}).get("code") if kind == "application/json" and response.content else None


def test_every_route_has_its_line():
    found = {(method, route.path) for router in ROUTERS for route in router.routes for method in route.methods}
    assert found == set(MATRIX)


def test_nothing_else_is_served(station):
    plain = {route.path for route in station.app.routes if hasattr(route, "path")}
    assert plain - {path for _, path in MATRIX} == OUTSIDE


@pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
@pytest.mark.parametrize("role", [None, *ORDER])
def test_who_may(station, entry, role):
    needed = MATRIX[entry]
    response = ask(station, *entry, headers={} if role is None else bearer(role))
    if needed == "public" or (role is not None and ORDER.index(role) >= ORDER.index(needed)):
        assert code_of(response) not in ("unauthorised", "role", "csrf")
    elif role is None:
        assert (response.status_code, code_of(response)) == (401, "unauthorised")
        assert response.headers["www-authenticate"].startswith("Bearer")
    else:
        assert (response.status_code, code_of(response)) == (403, "role")


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e[0] != "GET" and MATRIX[e] != "public"], ids="{0[0]} {0[1]}".format
)
def test_a_session_needs_its_csrf_token(station, entry):
    session = station.post(f"{API}/session", json={"token": TOKENS["manage"]})
    cookies = dict(session.cookies)
    station.cookies.clear()
    for headers in ({}, {"X-CSRF-Token": "wrong"}):
        response = ask(station, *entry, headers={**headers, "Cookie": "; ".join(map("=".join, cookies.items()))})
        assert (response.status_code, code_of(response)) == (403, "csrf")


@pytest.mark.parametrize(
    ("entry", "headers"),
    list(
        itertools.product(
            [e for e in ENTRIES if e[1].startswith(API)],
            [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}],
        )
    ),
    ids=str,
)
def test_other_web_sites_are_kept_out(station, entry, headers):
    response = ask(station, *entry, headers={**bearer("manage"), **headers})
    if entry[0] == "GET" and "Origin" in headers:
        assert "access-control-allow-origin" not in response.headers  # the browser gives them nothing of it
    else:
        assert code_of(response) in ("origin", "host")


def test_a_route_without_a_role_cannot_be_made():
    from fastapi import APIRouter

    from spadework.server.routes.guarded import Guarded

    router = APIRouter(route_class=Guarded)
    with pytest.raises(KeyError, match="x-role"):
        router.get("/new")(lambda: None)
