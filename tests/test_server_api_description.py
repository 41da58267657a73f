"""The service against its own description: requests made from it, good and bad ones, and every answer held to it."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")
import httpx
import schemathesis
from builders import defective_picture, normal_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from station_server import bearer, png, running, settings_for

from spadework.server.app import ROUTERS

API = "/api/v1"
PICTURES = [png(normal_picture(index, (32, 40))) for index in range(3)]
OPERATIONS = [
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    for method in sorted(route.methods)
    if route.include_in_schema and route.path != f"{API}/events"  # that goes on for ever
]
KNOWN = 4  # inspections that are there from the beginning

for _kind in ("png", "jpeg", "tiff", "bmp", "webp"):  # the type is found out from the content
    schemathesis.openapi.media_type(f"image/{_kind}", st.sampled_from(PICTURES))


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("description")
    with running(settings_for(model.save(folder / "part.spade"), folder / "station", tokens=True)) as url:
        with httpx.Client(base_url=url, headers=bearer("manage")) as client:
            for index in range(KNOWN):
                rgb = defective_picture(index)[0] if index % 2 else normal_picture(index)
                made = client.post(
                    f"{API}/models/part/inspections", content=png(rgb), headers={"Content-Type": "image/png"}
                )
                assert made.status_code == 201
            assert client.post(f"{API}/inspections/2/decisions", json={"kind": "normal"}).status_code == 201
            assert client.post(f"{API}/inspections/1/decisions", json={"kind": "defect"}).status_code == 201
        yield url


@pytest.fixture(scope="module")
def description(service):
    found = schemathesis.openapi.from_url(f"{service}{API}/openapi.json", headers=bearer("manage"))
    found.config.headers = bearer("manage")

    @found.hook
    def map_path_parameters(context, path_parameters):
        """Mostly ask for what is there."""
        if path_parameters is None:
            return None
        number = path_parameters.get("id")
        if isinstance(number, int) and 100 < number < 2**63:  # larger ones are against the description, and stay so
            path_parameters["id"] = number % KNOWN + 1
        if 1 < len(str(path_parameters.get("model", ""))) <= 64:
            path_parameters["model"] = "part"
        return path_parameters

    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_the_service_is_what_its_description_says(description, operation, mode):
    method, path = operation
    strategy = description[path][method].as_strategy(generation_mode=mode)

    @given(case=strategy)
    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def check(case):
        # A description cannot say which numbers are there, or which forms hold a picture: those may be refused.
        case.call_and_validate(excluded_checks=[positive_data_acceptance], headers=bearer("manage"))

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # there is nothing to get wrong


def test_the_description_names_every_address_but_the_page(service):
    told = httpx.get(f"{service}{API}/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    assert {"/healthz", "/readyz", "/metrics"} <= set(told["paths"])
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["x-role"] in ("public", "inspect", "decide", "manage"), where
            assert (operation["security"] == []) == (operation["x-role"] == "public"), where
            assert operation["summary"], where
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert response["content"]["application/json"]["schema"]["$ref"].endswith("/Error"), where
                if status in ("429", "503"):
                    assert "Retry-After" in response["headers"], where
    assert set(told["components"]["securitySchemes"]) == {"token", "session"}
