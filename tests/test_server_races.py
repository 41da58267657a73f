"""Everybody at once: decisions, undoing, appending, removing, reloading and inspecting on one model; then all the parts must agree."""

from __future__ import annotations

import random
import threading
import time

import pytest

pytest.importorskip("fastapi")
import httpx
from builders import defective_picture, normal_picture
from station_server import png, running, settings_for

import spadework
from spadework.images import pixel_hash

API = "/api/v1"
PNG = {"Content-Type": "image/png"}
PICTURES = [defective_picture(index)[0] if index % 2 else normal_picture(60 + index) for index in range(6)]
ADDED = [normal_picture(80 + index) for index in range(3)]
FINE = {200, 201, 204, 404, 409}  # 409: the last normal picture, or one that the model holds already


def somebody(url: str, seed: int, stop: threading.Event, wrong: list[str], seen: list[int]) -> None:
    rng = random.Random(seed)
    with httpx.Client(base_url=url + API, timeout=60) as client:

        def act() -> httpx.Response:
            number = rng.choice(seen)
            what = rng.randrange(8)
            if what < 3:
                return client.post(f"/inspections/{number}/decisions", json={"kind": rng.choice(["normal", "defect"])})
            if what < 5:
                listed = client.get(f"/inspections/{number}/decisions").json()["items"]
                return client.post(f"/decisions/{rng.choice(listed)['id'] if listed else 1}/undo")
            if what == 5:
                picture = rng.choice(ADDED)
                if rng.random() < 0.5:
                    return client.delete(f"/models/part/normals/{pixel_hash(picture)}")
                return client.post("/models/part/normals", content=png(picture), headers=PNG)
            if what == 6:
                return client.post("/models/part/reload")
            return client.post("/models/part/inspections", content=png(rng.choice(PICTURES)), headers=PNG)

        while not stop.is_set():
            answer = act()
            if answer.status_code not in FINE:
                wrong.append(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_all_parts_agree_after_everybody_did_everything_at_once(model, tmp_path, seed):
    path = model.save(tmp_path / "part.spade")
    began = {entry.sha256 for entry in model.gallery_.entries}
    with (
        running(settings_for(path, tmp_path / "station")) as url,
        httpx.Client(base_url=url + API, timeout=60) as client,
    ):
        where = "/models/part/inspections"
        seen = [client.post(where, content=png(picture), headers=PNG).json()["id"] for picture in PICTURES]
        stop, wrong = threading.Event(), []
        threads = [
            threading.Thread(target=somebody, args=(url, 10 * seed + index, stop, wrong, seen)) for index in range(6)
        ]
        [thread.start() for thread in threads]
        time.sleep(6.0)
        stop.set()
        [thread.join(60) for thread in threads]
        assert wrong == []
        listed = {item["hash"] for item in client.get("/models/part/normals?limit=200").json()["items"]}
        decided = {number: client.get(f"/inspections/{number}").json()["decision"] for number in seen}
        changes = client.get("/models/part/changes?limit=200").json()["items"]
        told = client.get("/models/part").json()
    normal = {
        pixel_hash(picture)
        for number, picture in zip(seen, PICTURES, strict=True)
        if decided[number] is not None and decided[number]["kind"] == "normal"
    }
    disk = spadework.load(path)
    assert {entry.sha256 for entry in disk.gallery_.entries} == listed
    assert disk.model_hash() == told["model_hash"]
    added = {pixel_hash(picture) for picture in ADDED}
    assert listed - added == (began | normal)
    assert changes
    with (
        running(settings_for(path, tmp_path / "station")) as url,
        httpx.Client(base_url=url + API, timeout=60) as client,
    ):
        again = {item["hash"] for item in client.get("/models/part/normals?limit=200").json()["items"]}
        assert again == listed  # nothing was left to be finished
        assert client.get("/models/part/changes?limit=1").json()["items"][0]["id"] == changes[0]["id"]
