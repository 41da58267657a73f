"""The service over HTTP, in this process: inspecting, the history, pictures and maps, decisions, models, sessions, errors, headers."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
from builders import defective_picture, normal_picture, normal_pictures
from PIL import Image
from station_server import TOKENS, bearer, client_of, png, settings_for

import spadework
from spadework.errors import OutputError
from spadework.gallery import Gallery
from spadework.images import pixel_hash

API = "/api/v1"
SIZE = (80, 120)
BAD = defective_picture(99, SIZE)[0]
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def shared(model, tmp_path_factory):
    """A station whose model no test changes."""
    folder = tmp_path_factory.mktemp("api")
    with client_of(settings_for(model.save(folder / "part.spade"), folder / "station")) as client:
        yield client


@pytest.fixture(scope="module")
def seen(shared):
    """An inspection of BAD."""
    return inspect(shared, BAD, name="bad.png")


@pytest.fixture
def own(model, tmp_path):
    """A station for one test, which may change its model."""
    with client_of(settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station")) as client:
        yield client


def inspect(client, rgb, *, name="a part.png", **query) -> dict:
    response = client.post(
        f"{API}/models/part/inspections", params={"name": name, **query}, content=png(rgb), headers=PNG
    )
    assert response.status_code == 201, response.text
    return response.json()


def error_of(response) -> tuple[int, str]:
    told = response.json()["error"]
    assert set(told) == {"code", "message", "hint"}
    assert told["message"]
    return response.status_code, told["code"]


# ---------------------------------------------------------------- inspecting


def test_an_inspection_says_what_predict_says(shared, seen, model):
    found = model.predict(BAD)
    assert seen["score"] == found.score
    assert seen["threshold"] == found.threshold
    assert seen["verdict"] == "anomalous"
    assert [region["box"] for region in seen["regions"]] == [list(region.box) for region in found.regions]
    assert seen["nearest"][0] == {"name": found.nearest_images[0][0], "distance": found.nearest_images[0][1]}
    assert (seen["height"], seen["width"], seen["media_type"]) == (*SIZE, "image/png")
    assert (seen["name"], seen["source"], seen["who"], seen["model"]) == ("bad.png", "upload", "local", "part")
    assert seen["picture"] == hashlib.sha256(png(BAD)).hexdigest()
    assert seen["model_hash"] == model.model_hash()
    assert {"decode", "wait", "inspect"} <= set(seen["timings"])
    assert shared.get(f"{API}/inspections/{seen['id']}").json() == seen


def test_a_form_does_as_well(shared, seen):
    response = shared.post(
        f"{API}/models/part/inspections",
        files={"image": ("../b\u00e4d.png", png(BAD), "text/html")},
        params={"source": "camera"},
    )
    assert response.status_code == 201
    told = response.json()
    assert told["score"] == seen["score"]
    assert (told["name"], told["source"]) == ("b\u00e4d.png", "camera")


@pytest.mark.parametrize("suffix", ["JPEG", "TIFF", "BMP", "WEBP", "PNG"])
def test_the_type_comes_from_the_content(shared, suffix):
    file = io.BytesIO()
    Image.fromarray(normal_picture(1)).save(file, suffix)
    response = shared.post(
        f"{API}/models/part/inspections", content=file.getvalue(), headers={"Content-Type": "image/x-lie"}
    )
    assert response.json()["media_type"] == f"image/{suffix.lower()}"


@pytest.mark.parametrize(
    ("content", "headers", "expected"),
    [
        (b"", PNG, (422, "empty")),
        (b"no picture", PNG, (415, "not_a_picture")),
        (png(BAD)[:-40], PNG, (422, "damaged")),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {"Content-Type": "image/svg+xml"}, (415, "not_a_picture")),
        (b"{}", {"Content-Type": "application/json"}, (415, "media_type")),
        (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, (415, "media_type")),
        (png(BAD), {"Content-Type": "image/png", "Content-Encoding": "gzip"}, (415, "encoding")),
        (b"--b\r\n", {"Content-Type": "multipart/form-data; boundary=b"}, (400, "form")),
    ],
)
def test_what_is_no_picture_is_refused_and_not_kept(shared, content, headers, expected):
    folder = shared.app.state.services.pictures.folder
    before = sorted(path for path in folder.rglob("*") if path.is_file())
    assert error_of(shared.post(f"{API}/models/part/inspections", content=content, headers=headers)) == expected
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == before


def test_limits_of_size_are_told(model, tmp_path):
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", max_upload=5000, max_pixels=4000)
    with client_of(settings) as client:
        where = f"{API}/models/part/inspections"
        assert error_of(client.post(where, content=b"x" * 5001, headers=PNG)) == (413, "too_large")
        assert error_of(client.post(where, content=iter([b"x" * 3000] * 3), headers=PNG)) == (413, "too_large")
        assert error_of(client.post(where, content=png(np.zeros((64, 64, 3), np.uint8)), headers=PNG)) == (
            413,
            "too_many_pixels",
        )
        assert client.post(where, content=png(np.zeros((60, 60, 3), np.uint8)), headers=PNG).status_code == 201


def test_a_model_that_is_not_served(shared):
    assert error_of(shared.post(f"{API}/models/other/inspections", content=png(BAD), headers=PNG)) == (404, "not_found")
    assert error_of(shared.get(f"{API}/models/other")) == (404, "not_found")
    for path in ("normals", "changes", "series", "scores"):
        assert error_of(shared.get(f"{API}/models/other/{path}")) == (404, "not_found")


def test_a_picture_that_cannot_be_kept_is_not_in_the_history(own, monkeypatch):
    def full(incoming):
        raise OutputError("/secret/place: cannot be written: No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr(own.app.state.services.pictures, "keep", full)
        response = own.post(f"{API}/models/part/inspections", content=png(BAD), headers=PNG)
        assert error_of(response) == (503, "storage")
        assert "secret" not in response.text
    assert own.get(f"{API}/inspections").json()["items"] == []
    assert inspect(own, BAD)["id"] == 1


# ---------------------------------------------------------------- pictures and maps


def test_the_picture_comes_back_to_the_byte_and_safely(shared, seen):
    response = shared.get(f"{API}/inspections/{seen['id']}/image")
    assert response.content == png(BAD)
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-disposition"] == f'attachment; filename="inspection-{seen["id"]}.png"'
    assert response.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("size", ["view", "thumb"])
def test_pictures_for_a_page_are_jpeg(shared, seen, size):
    response = shared.get(f"{API}/inspections/{seen['id']}/image", params={"size": size})
    assert response.headers["content-type"] == "image/jpeg"
    drawn = Image.open(io.BytesIO(response.content))
    assert (drawn.format, drawn.size) == ("JPEG", SIZE[::-1])


def test_the_map_is_that_of_predict(shared, seen, model):
    response = shared.get(f"{API}/inspections/{seen['id']}/map.f32")
    assert response.headers["x-shape"] == f"{SIZE[0]},{SIZE[1]}"
    values = np.frombuffer(response.content, "<f4").reshape(SIZE)
    assert np.array_equal(values, model.predict(BAD).score_map)


def test_a_map_of_a_large_picture_is_small_for_a_page_and_whole_for_a_program(shared):
    told = inspect(shared, normal_picture(5, (300, 1200)))
    shapes = {
        size: shared.get(f"{API}/inspections/{told['id']}/map.f32", params={"size": size}).headers["x-shape"]
        for size in ("view", "full")
    }
    assert shapes == {"view": "128,512", "full": "300,1200"}


def test_the_heat_is_clear_where_nothing_is_and_opaque_at_the_defect(shared, seen):
    response = shared.get(f"{API}/inspections/{seen['id']}/map.png")
    heat = np.asarray(Image.open(io.BytesIO(response.content)))
    assert heat.shape == (*SIZE, 4)
    y, x = seen["regions"][0]["peak"]
    assert heat[y, x, 3] == heat[..., 3].max() > 150


def test_a_match_shows_both_places(shared, seen, model):
    y, x = seen["regions"][0]["peak"]
    told = shared.get(f"{API}/inspections/{seen['id']}/match", params={"y": y, "x": x}).json()
    expected = model.explain(model.predict(BAD), y, x)
    assert told["normal"]["name"] == expected.name
    assert told["box"] == list(expected.normal_box)
    assert told["distance"] == pytest.approx(expected.distance)
    assert not told["normal"]["removed"]
    assert told["here"].startswith("data:image/png;base64,")
    assert told["there"].startswith("data:image/png;base64,")


def test_a_match_outside_the_picture(shared, seen):
    assert error_of(shared.get(f"{API}/inspections/{seen['id']}/match", params={"y": 0, "x": 5000})) == (422, "invalid")
    assert error_of(shared.get(f"{API}/inspections/{seen['id']}/match", params={"y": 0})) == (422, "invalid")


def test_files_that_were_cleaned_away(own):
    told = inspect(own, BAD)
    pictures = own.app.state.services.pictures
    pictures.path(told["picture"]).unlink()
    pictures.evidence_path(told["evidence"]).unlink()
    for path in ("image", "image?size=view", "image?size=thumb", "map.png", "map.f32", "match?y=1&x=1"):
        assert error_of(own.get(f"{API}/inspections/{told['id']}/{path}")) == (410, "gone"), path


@pytest.mark.parametrize("path", ["", "/image", "/map.png", "/map.f32", "/match?y=1&x=1", "/decisions"])
def test_an_inspection_that_is_not_there(shared, path):
    assert error_of(shared.get(f"{API}/inspections/987654{path}")) == (404, "not_found")
    assert shared.get(f"{API}/inspections/0{path}").status_code == 422


def test_no_picture_that_came_from_anybody_is_decoded_in_this_process(own, monkeypatch):
    """Its bytes are decoded in processes of their own, also for what is drawn later."""
    told = inspect(own, BAD)
    where = f"{API}/inspections/{told['id']}"

    def here(*arguments, **named):
        raise AssertionError("decoded in the station's own process")

    with monkeypatch.context() as patch:
        for name in ("imread", "imdecode", "imdecodemulti"):
            patch.setattr(cv2, name, here)
        patch.setattr(Image, "open", here)
        small = np.zeros((64, 64, 3), np.uint8)
        patch.setattr(Gallery, "thumbnail", lambda self, image: small)  # those of a model were encoded by ourselves
        for path in ("image", "image?size=view", "image?size=thumb", "map.png", "map.f32", "match?y=1&x=1"):
            assert own.get(f"{where}/{path}").status_code == 200, path
        for kind in ("normal", "defect"):
            assert own.post(f"{where}/decisions", json={"kind": kind}).status_code == 201, kind
        assert own.post(f"{API}/models/part/normals", content=png(normal_picture(43)), headers=PNG).status_code == 201


# ---------------------------------------------------------------- the history


def test_the_history_is_filtered_and_paged(own):
    for index, rgb in enumerate([*normal_pictures(3), BAD]):
        inspect(own, rgb, name=f"part-{index}.png")
    listed = own.get(f"{API}/inspections", params={"limit": 3}).json()
    assert [item["id"] for item in listed["items"]] == [4, 3, 2]
    assert listed["total"] == 4
    rest = own.get(f"{API}/inspections", params={"limit": 3, "cursor": listed["cursor"]}).json()
    assert ([item["id"] for item in rest["items"]], rest["cursor"]) == ([1], None)

    def ids(**query):
        return [item["id"] for item in own.get(f"{API}/inspections", params=query).json()["items"]]

    assert ids(verdict="anomalous") == [4]
    assert ids(text="PART-1") == [2]
    assert ids(model="part", newest_first=False) == [1, 2, 3, 4]
    assert ids(model="other") == []
    assert ids(decision="defect") == []
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert ids(since=later) == []
    assert len(ids(until=later)) == 4


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 10_000}, {"verdict": "odd"}, {"decision": "odd"}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"},
     {"score_min": "nan"}, {"cursor": "odd"}, {"text": "\0"}, {"newest_first": "perhaps"}],
)  # fmt: skip
def test_filters_that_break_a_rule(shared, query):
    assert error_of(shared.get(f"{API}/inspections", params=query)) == (422, "invalid")


TIMES = [
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00Z",
    "1969-07-20T20:17:40Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
    "10000-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-01-01T00:00:00+99:99",
    "1e30",
    "-1e30",
    "1e308",
    "NaN",
    "inf",
    "-inf",
    "253402300800",
    "-62135596801",
    "99999999999999999999",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
]


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("side", ["since", "until"])
@pytest.mark.parametrize("path", ["inspections", "models/part/series"])
def test_no_time_is_too_odd_to_be_answered(shared, seen, path, side, time):
    response = shared.get(f"{API}/{path}", params={side: time})
    if response.status_code != 200:
        assert error_of(response) == (422, "invalid")
        assert side in response.text


@pytest.mark.parametrize("path", ["inspections", "models/part/series"])
def test_all_the_time_there_is(shared, seen, path):
    query = {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59.999999Z"}
    items = shared.get(f"{API}/{path}", params=query).json()["items"]
    assert sum(item.get("count", 1) for item in items) >= 1


# ---------------------------------------------------------------- decisions


def test_this_is_normal_holds_at_once_and_can_be_undone(own):
    told = inspect(own, BAD)
    response = own.post(f"{API}/inspections/{told['id']}/decisions", json={"kind": "normal", "note": "new colour"})
    assert response.status_code == 201
    decision = response.json()
    assert decision["appended"]
    assert (decision["who"], decision["kind"], decision["note"]) == ("local", "normal", "new colour")
    assert decision["passes"]
    again = inspect(own, BAD)
    assert again["verdict"] == "normal"
    assert again["model_hash"] != told["model_hash"]
    assert own.get(f"{API}/inspections/{told['id']}").json()["decision"]["id"] == decision["id"]
    assert own.get(f"{API}/models/part").json()["n_normal"] == 7
    change = own.get(f"{API}/models/part/changes").json()["items"][0]
    assert (change["what"], change["inspection_id"], change["pictures"]) == ("append", told["id"], [pixel_hash(BAD)])

    undone = own.post(f"{API}/decisions/{decision['id']}/undo").json()
    assert undone["undone_by"] == "local"
    last = inspect(own, BAD)
    assert (last["verdict"], last["score"]) == ("anomalous", told["score"])
    assert own.get(f"{API}/models/part").json()["n_normal"] == 6
    assert own.get(f"{API}/inspections/{told['id']}").json()["decision"] is None
    history = own.get(f"{API}/inspections/{told['id']}/decisions").json()["items"]
    assert [one["undone_by"] for one in history] == ["local"]


def test_this_is_a_defect(own):
    told = inspect(own, normal_picture(2))
    decision = own.post(f"{API}/inspections/{told['id']}/decisions", json={"kind": "defect"}).json()
    assert (decision["kind"], decision["appended"], decision["note"]) == ("defect", False, "")
    assert own.get(f"{API}/models/part").json()["n_normal"] == 6
    assert [item["id"] for item in own.get(f"{API}/inspections?decision=defect").json()["items"]] == [told["id"]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "odd"},
        {"kind": "normal", "who": "else"},
        {"kind": "normal", "note": "x" * 3000},
        {"kind": "normal", "note": "\0"},
        [],
    ],
)
def test_decisions_that_break_a_rule(shared, seen, body):
    assert error_of(shared.post(f"{API}/inspections/{seen['id']}/decisions", json=body)) == (422, "invalid")


def test_decisions_on_what_is_not_there(shared):
    assert error_of(shared.post(f"{API}/inspections/98765/decisions", json={"kind": "defect"})) == (404, "not_found")
    assert error_of(shared.post(f"{API}/decisions/98765/undo")) == (404, "not_found")


# ---------------------------------------------------------------- models


def test_a_model_is_told_without_where_things_lie(shared, model, tmp_path):
    told = shared.get(f"{API}/models").json()["items"]
    assert told == [shared.get(f"{API}/models/part").json()]
    assert (told[0]["name"], told[0]["detector"], told[0]["n_normal"], told[0]["can_append"]) == (
        "part",
        "spade",
        6,
        True,
    )
    assert told[0]["threshold"]["value"] == model.threshold_.value
    assert told[0]["threshold"]["text"] == str(model.threshold_)
    assert told[0]["backbone_hash"] == model.folder_.header["backbone"]["hash"]
    assert "/" not in json.dumps(told[0]["settings"])


def test_normal_pictures_come_and_go(own, model):
    listed = own.get(f"{API}/models/part/normals", params={"offset": 2, "limit": 3}).json()
    assert (listed["total"], listed["offset"], len(listed["items"])) == (6, 2, 3)
    assert listed["items"][0]["hash"] == pixel_hash(normal_picture(2))
    image = own.get(f"{API}/models/part/normals/{listed['items'][0]['hash']}/image")
    assert image.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(image.content)).size == (64, 64)

    new = normal_picture(40)
    added = own.post(f"{API}/models/part/normals", params={"name": "new.png"}, content=png(new), headers=PNG)
    assert (added.status_code, added.json()) == (201, {"hash": pixel_hash(new)})
    newest = own.get(f"{API}/models/part/normals", params={"offset": 6}).json()["items"]
    assert [(one["hash"], one["name"], one["added_by"]) for one in newest] == [(pixel_hash(new), "new.png", "local")]
    assert own.delete(f"{API}/models/part/normals/{pixel_hash(new)}").status_code == 204
    assert own.get(f"{API}/models/part").json()["n_normal"] == 6
    assert error_of(own.delete(f"{API}/models/part/normals/{pixel_hash(new)}")) == (404, "not_found")
    assert error_of(own.get(f"{API}/models/part/normals/{pixel_hash(new)}/image")) == (404, "not_found")
    assert [one["what"] for one in own.get(f"{API}/models/part/changes").json()["items"]] == ["remove", "append"]


def test_the_threshold_follows_the_rate(own):
    before = own.get(f"{API}/models/part").json()
    after = own.put(f"{API}/models/part/threshold", json={"max_false_alarms": 0.5}).json()
    assert after["threshold"]["asked"] == after["max_false_alarms"] == 0.5
    assert after["threshold"]["value"] < before["threshold"]["value"]
    assert inspect(own, BAD)["threshold"] == after["threshold"]["value"]
    for rate in (0, 5e-324, 1, -1, "many"):
        assert error_of(own.put(f"{API}/models/part/threshold", json={"max_false_alarms": rate})) == (422, "invalid")


def test_reload_takes_up_what_another_program_did(own, tmp_path):
    spadework.load(tmp_path / "part.spade").append([normal_picture(41)])
    assert own.post(f"{API}/models/part/reload").json()["n_normal"] == 7
    assert own.get(f"{API}/models/part/changes").json()["items"][0]["what"] == "reload"


def test_charts(own):
    assert own.get(f"{API}/models/part/series").json() == {"edges": [], "items": []}
    scores = [inspect(own, rgb)["score"] for rgb in (normal_picture(1), BAD)]
    assert own.get(f"{API}/models/part/scores").json() == {"scores": scores[::-1]}
    assert own.get(f"{API}/models/part/scores?last=1").json() == {"scores": scores[1:]}
    told = own.get(f"{API}/models/part/series", params={"buckets": 4}).json()
    assert len(told["items"]) == 4
    assert sum(part["count"] for part in told["items"]) == 2
    assert sum(part["anomalous"] for part in told["items"]) == 1
    assert all(len(part["histogram"]) == len(told["edges"]) - 1 for part in told["items"])


# ---------------------------------------------------------------- sessions


def test_a_session(model, tmp_path):
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", tokens=True)
    with client_of(settings) as client:
        assert error_of(client.get(f"{API}/session")) == (401, "unauthorised")
        assert error_of(client.post(f"{API}/session", json={"token": "wrong"})) == (401, "unauthorised")
        response = client.post(f"{API}/session", json={"token": TOKENS["decide"]})
        told = response.json()
        assert (response.status_code, told["who"], told["role"]) == (201, "decide-holder", "decide")
        cookie = response.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Secure" not in cookie
        assert TOKENS["decide"] not in cookie
        assert told["csrf"] not in cookie
        assert client.get(f"{API}/session").json() == told
        assert client.get(f"{API}/models").status_code == 200
        refused = client.post(f"{API}/models/part/inspections", content=png(BAD), headers=PNG)
        assert error_of(refused) == (403, "csrf")
        allowed = client.post(
            f"{API}/models/part/inspections", content=png(BAD), headers={**PNG, "X-CSRF-Token": told["csrf"]}
        )
        assert allowed.json()["who"] == "decide-holder"
        kept = dict(client.cookies)
        assert client.delete(f"{API}/session", headers={"X-CSRF-Token": told["csrf"]}).status_code == 204
        assert not client.cookies
        client.cookies.update(kept)
        assert error_of(client.get(f"{API}/models")) == (401, "unauthorised")


def test_a_cookie_is_secure_behind_https(model, tmp_path):
    from starlette.testclient import TestClient

    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", tokens=True)
    with client_of(settings) as client:
        safe = TestClient(client.app, base_url="https://127.0.0.1")
        assert "Secure" in safe.post(f"{API}/session", json={"token": TOKENS["decide"]}).headers["set-cookie"]


def test_without_tokens_nobody_signs_in(shared):
    assert shared.get(f"{API}/session").json() == {"who": "local", "role": "manage", "csrf": None}
    assert error_of(shared.post(f"{API}/session", json={"token": "any"})) == (409, "no_tokens")


# ---------------------------------------------------------------- errors, headers, health


def test_every_answer_has_safe_headers(shared, seen):
    for path in ("/", "/healthz", f"{API}/inspections", f"{API}/nowhere", f"{API}/openapi.json", "/static/nothing.js"):
        headers = shared.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-request-id"]
        assert "server" not in headers
    assert shared.get(f"{API}/inspections").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "TRACE", "PATCH"])
def test_addresses_and_methods_that_are_not_there(shared, method):
    assert error_of(shared.request(method, f"{API}/nowhere")) == (404, "not_found")
    response = shared.request("PATCH", f"{API}/models")
    assert error_of(response) == (405, "method")
    assert response.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        f"{API}/models/..%2f..%2fpart",
    ],
)
def test_paths_lead_nowhere(shared, path):
    assert shared.get(path).status_code in (404, 405)


def test_a_body_that_is_no_picture_is_bounded(shared, seen):
    where = f"{API}/inspections/{seen['id']}/decisions"
    assert error_of(shared.post(where, content=b"x" * 70_000, headers={"Content-Type": "application/json"})) == (
        413,
        "too_large",
    )
    assert error_of(shared.post(where, content=b"{", headers={"Content-Type": "application/json"})) == (422, "json")
    assert error_of(shared.post(where, content=b"\xff", headers={"Content-Type": "application/json"}))[0] in (400, 422)
    nested = b"[" * 30_000 + b"]" * 30_000
    for odd in (
        nested,
        b"9" * 60_000,
        b"1e999",
        b"-1e999",
        b"NaN",
        b'"\\ud800"',
        b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
    ):
        for body in (odd, b'{"kind":' + odd + b"}", b'{"kind":"defect","note":' + odd + b"}"):
            response = shared.post(where, content=body, headers={"Content-Type": "application/json"})
            assert error_of(response)[0] in (400, 422), body[:40]
        rate = b'{"max_false_alarms":' + odd + b"}"
        response = shared.put(
            f"{API}/models/part/threshold", content=rate, headers={"Content-Type": "application/json"}
        )
        assert error_of(response)[0] in (400, 422), rate[:40]


def test_what_nobody_thought_of_is_a_500_that_tells_nothing(model, tmp_path, monkeypatch, caplog):
    with client_of(
        settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station"), raise_server_exceptions=False
    ) as client:

        def broken(number):
            raise RuntimeError("a detail from inside")

        monkeypatch.setattr(client.app.state.services.history, "get", broken)
        response = client.get(f"{API}/inspections/1")
        assert error_of(response) == (500, "internal")
        assert "inside" not in response.text
        assert response.headers["x-content-type-options"] == "nosniff"
    assert any(record.exc_info and "inside" in str(record.exc_info[1]) for record in caplog.records)


def test_too_many_requests(model, tmp_path):
    with client_of(settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", rate=2.0)) as client:
        answers = [client.get(f"{API}/session") for _ in range(8)]
        assert error_of(answers[-1]) == (429, "rate")
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert client.get("/healthz").status_code == 200
        for path in ("/readyz", "/metrics"):  # they cost more than they look like
            assert error_of(client.get(path)) == (429, "rate")


def test_health(own):
    assert own.get("/healthz").json() == {"status": "alive"}
    assert own.get("/readyz").json() == {"status": "ready"}
    own.app.state.services.draining = True
    assert error_of(own.get("/readyz")) == (503, "stopping")
    refused = own.post(f"{API}/models/part/inspections", content=png(BAD), headers=PNG)
    assert error_of(refused) == (503, "stopping")
    assert refused.headers["retry-after"]
    assert own.get("/healthz").status_code == 200


def test_metrics_count(own):
    inspect(own, BAD)
    own.post(f"{API}/models/part/inspections", content=b"no picture", headers=PNG)
    own.get("/somewhere/else")
    text = own.get("/metrics").text
    assert 'spadework_inspections_total{model="part",source="upload",verdict="anomalous"} 1.0' in text
    assert 'spadework_turned_away_total{code="not_a_picture"} 1.0' in text
    assert 'spadework_normal_pictures{model="part"} 6.0' in text
    assert 'route="/api/v1/models/{model}/inspections",status="201"} 1.0' in text
    assert "somewhere" not in text


def test_metrics_tell_no_secret(model, tmp_path):
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", tokens=True)
    with client_of(settings) as client:
        headers = bearer("manage")
        told = client.post(
            f"{API}/models/part/inspections",
            params={"name": "a-secret-part"},
            content=png(BAD),
            headers={**PNG, **headers},
        ).json()
        client.post(
            f"{API}/inspections/{told['id']}/decisions", json={"kind": "defect", "note": "a-note"}, headers=headers
        )
        client.get(f"{API}/models/a-secret-model", headers=headers)
        client.request("SECRETMETHOD", f"{API}/models", headers=headers)
        client.post(f"{API}/session", json={"token": TOKENS["manage"]})
        client.cookies.clear()
        assert error_of(client.get("/metrics")) == (401, "unauthorised")
        text = client.get("/metrics", headers=headers).text
    for secret in (
        *TOKENS.values(),
        str(tmp_path),
        "manage-holder",
        "a-secret",
        "a-note",
        "SECRETMETHOD",
        told["picture"],
    ):
        assert secret not in text


def test_logs_hold_no_secrets(model, tmp_path, caplog):
    caplog.set_level("DEBUG")
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", tokens=True)
    with client_of(settings) as client:
        client.post(f"{API}/session", json={"token": TOKENS["manage"]})
        client.get(f"{API}/models", params={"token": TOKENS["manage"]}, headers=bearer("manage"))
        client.get(f"{API}/models", headers={"Authorization": f"Bearer {TOKENS['manage']}x"})
    own = [record for record in caplog.records if record.name.startswith(("spadework", "uvicorn"))]
    assert len(own) >= 3
    for record in own:
        assert TOKENS["manage"] not in repr(vars(record))
