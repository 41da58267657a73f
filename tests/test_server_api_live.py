"""The service as it runs: over sockets, under more than it can do, with hostile clients, and stopped in the middle of its work."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi")
from builders import defective_picture, normal_picture
from PIL import Image
from station_server import TOKENS, Process, png, running, settings_for

from spadework.client import BusyError, Client, NotThereError, PictureError, RefusedError
from spadework.detectors.spade import Spade
from spadework.errors import OutputError
from spadework.server.settings import WatchedFolder

API = "/api/v1"
PNG = {"Content-Type": "image/png"}
WHERE = f"{API}/models/part/inspections"
BAD = defective_picture()[0]


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    """A station for tests that change nothing of each other."""
    folder = tmp_path_factory.mktemp("live")
    settings = settings_for(
        model.save(folder / "part.spade"),
        folder / "station",
        max_upload=1_000_000,
        max_pixels=1_000_000,
        body_seconds=1.0,
    )
    with running(settings) as url:
        yield url


# ---------------------------------------------------------------- the client against the real thing


def test_the_client_does_it_all(model, tmp_path):
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station")
    with running(settings) as url, Client(url) as station:
        found = station.inspect(BAD, name="bad.png")
        expected = model.predict(BAD)
        assert (found.score, found.verdict, found.name) == (expected.score, "anomalous", "bad.png")
        assert station.inspect(png(BAD)).score == found.score
        assert np.array_equal(np.asarray(station.map(found.id)), expected.score_map)
        y, x = found.regions[0].peak
        assert station.match(found.id, y, x)["normal"]["name"] == model.explain(expected, y, x).name
        assert [one.id for one in station.inspections(verdict="anomalous")] == [2, 1]
        decision = station.decide(found.id, "normal", "as it should be")
        assert decision.appended
        assert station.inspect(BAD).verdict == "normal"
        assert station.undo(decision.id).undone_by == "local"
        assert station.inspect(BAD).score == found.score
        assert station.models()[0]["n_normal"] == 6
        with pytest.raises(NotThereError):
            station.inspection(999)
        with pytest.raises(PictureError):
            station.inspect(b"no picture")


def test_the_client_shows_its_token(model, tmp_path):
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", tokens=True)
    with running(settings) as url:
        with pytest.raises(RefusedError):
            Client(url).models()
        station = Client(url, TOKENS["inspect"])
        found = station.inspect(BAD)
        assert found.json["who"] == "inspect-holder"
        with pytest.raises(RefusedError):
            station.decide(found.id, "defect")
        assert Client(url, TOKENS["decide"]).decide(found.id, "defect").who == "decide-holder"


# ---------------------------------------------------------------- events


@pytest.mark.slow
def test_events_arrive_and_none_is_lost_over_a_restart(model, tmp_path):
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station")
    with running(settings) as url:
        station, found = Client(url), []
        listening = station.events()

        def listen():
            for event in listening:
                found.append(event)
                if event.kind == "model":
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        until = time.monotonic() + 10
        while "spadework_event_listeners 1.0" not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < until
        first = station.inspect(BAD)
        station.decide(first.id, "normal")
        thread.join(10)
        assert [event.kind for event in found] == ["inspection", "decision", "model"]
        assert found[0].json == first.json
        assert found[1].json["inspection"]["decision"]["kind"] == "normal"
        assert found[2].json["n_normal"] == 7
        second = station.inspect(BAD)
        again = Client(url).events(found[0].id)
        kinds = [(event.kind, event.json.get("id")) for event in (next(again) for _ in range(3))]
        assert kinds == [("decision", None), ("model", None), ("inspection", second.id)]
    with running(settings) as url:
        third = Client(url).inspect(BAD)
        again = Client(url).events(found[0].id)
        told = [next(again) for _ in range(3)]
        assert [(event.kind, event.json.get("id")) for event in told] == [
            ("inspection", second.id),
            ("inspection", third.id),
            ("resync", None),
        ]


@pytest.mark.slow
def test_pictures_of_a_watched_folder_are_told_as_any_other(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    settings = settings_for(
        model.save(tmp_path / "part.spade"), tmp_path / "station", watches=(WatchedFolder("part", folder),)
    )
    with running(settings) as url:
        listening = Client(url).events("x-0-0")  # as one who was away: from the first inspection on
        assert next(listening).kind == "resync"
        (folder / "new.png").write_bytes(png(BAD))
        event = next(listening)
        assert (event.kind, event.json["name"], event.json["source"]) == ("inspection", "new.png", "watch")
        assert event.json["verdict"] == "anomalous"
        text = httpx.get(f"{url}/metrics").text
    assert 'spadework_inspections_total{model="part",source="watch",verdict="anomalous"} 1.0' in text
    assert 'spadework_watched_files{model="part",state="bad"} 0.0' in text


# ---------------------------------------------------------------- overload


@pytest.fixture
def slow(monkeypatch):
    """Inspections take a while: `slow.clear()` holds them, `slow.set()` lets them go on."""
    gate, judge = threading.Event(), Spade._judge

    def judged(self, seen):
        assert gate.wait(30)
        return judge(self, seen)

    gate.set()
    monkeypatch.setattr(Spade, "_judge", judged)
    return gate


@pytest.mark.slow
def test_more_than_it_can_do_is_turned_away_and_nothing_accepted_is_lost(model, tmp_path, slow):
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", queue=3, batch=2)
    with running(settings) as url:
        slow.clear()
        body = png(BAD)

        def send(index: int) -> httpx.Response:
            return httpx.post(url + WHERE, params={"name": f"{index}"}, content=body, headers=PNG, timeout=60)

        with ThreadPoolExecutor(30) as pool:
            sent = [pool.submit(send, index) for index in range(30)]
            until = time.monotonic() + 20
            while sum(one.done() for one in sent) < 20:
                assert time.monotonic() < until
                time.sleep(0.01)
            slow.set()
            answers = [one.result() for one in sent]
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {201, 503}
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert {answer.json()["error"]["code"] for answer in refused} == {"overloaded"}
        accepted = {answer.json()["id"] for answer in answers if answer.status_code == 201}
        assert 1 <= len(accepted) <= 10
        assert {one.id for one in Client(url).inspections()} == accepted
        text = httpx.get(f"{url}/metrics").text
        assert f'spadework_turned_away_total{{code="overloaded"}} {float(len(refused))}' in text
        assert "spadework_inspections_under_way 0.0" in text
        assert "spadework_decoded_bytes 0.0" in text


@pytest.mark.slow
def test_a_client_that_goes_away_takes_nothing_back(model, tmp_path, slow):
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station")
    with running(settings) as url:
        slow.clear()
        with pytest.raises(httpx.TimeoutException):
            httpx.post(url + WHERE, content=png(BAD), headers=PNG, timeout=1.0)
        slow.set()
        until = time.monotonic() + 10
        while not list(Client(url).inspections()):
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.mark.slow
def test_the_client_waits_and_sends_again(model, tmp_path, slow):
    settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", queue=1, batch=1)
    with running(settings) as url:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: Client(url, tries=30).inspect(BAD).id, range(8)))
        assert sorted(found) == list(range(1, 9))
        slow.clear()
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(Client(url, tries=1).inspect, BAD) for _ in range(4)]
            until = time.monotonic() + 10
            while not any(one.done() for one in waiting):
                assert time.monotonic() < until
                time.sleep(0.01)
            slow.set()
        assert any(isinstance(one.exception(), BusyError) for one in waiting)


# ---------------------------------------------------------------- hostile clients


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims, and would unpack to, very many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def saved(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(normal_picture(3)).save(file, kind, **options)
    return file.getvalue()


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(normal_picture(index)) for index in range(3)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


HOSTILE = {
    "nothing": b"",
    "text": b"hello" * 100,
    "html": b"<html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>',
    "gif": saved("GIF"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "animated": animated(),
    "zip": b"PK\x03\x04" + bytes(500),
    "elf": b"\x7fELF" + bytes(500),
    "png bomb": bomb(60_000, 60_000),
    "huge": bytes(3_000_000),
    "png without an end": saved("PNG")[:-30],
    "jpeg without an end": saved("JPEG")[:-300],
    "tiff without an end": saved("TIFF")[:-300],
    "bmp without an end": saved("BMP")[:-300],
    "webp without an end": saved("WEBP")[:-100],
    "png with noise": bytes(b ^ (0x5A if 60 < i < 200 else 0) for i, b in enumerate(saved("PNG"))),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("way", ["raw", "form", "chunked"])
def test_hostile_files_get_a_clear_answer(address, name, way):
    content = HOSTILE[name]
    if way == "raw":
        response = httpx.post(address + WHERE, content=content, headers=PNG)
    elif way == "form":
        response = httpx.post(address + WHERE, files={"image": ("part.png", content, "image/png")})
    else:
        response = httpx.post(
            address + WHERE, content=(content[at : at + 50_000] for at in range(0, len(content), 50_000)), headers=PNG
        )
    assert response.status_code in (413, 415, 422), response.text
    told = response.json()["error"]
    assert told["message"]
    assert "incoming" not in response.text  # no path of the station's


def raw_request(address: str, data: bytes, *, wait: float = 10.0) -> bytes:
    """Send bytes as they are and return all that comes back until the line is closed."""
    host, port = address.removeprefix("http://").split(":")
    got = b""
    with socket.create_connection((host, int(port)), wait) as line:
        line.sendall(data)
        try:
            while piece := line.recv(65536):
                got += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return got


def head(*lines: str) -> bytes:
    return "\r\n".join(
        [f"POST {WHERE} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: image/png", *lines, "", ""]
    ).encode()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head("Content-Length: 99999999999"), b"413"),
        (head("Content-Length: -1"), b"400"),
        (head("Content-Length: 1", "Content-Length: 2"), b"400"),
        (head("Content-Length: 1000") + b"too little", b"408"),
        (head("Transfer-Encoding: chunked") + b"5\r\nhello\r\n", b"408"),
        (head("Transfer-Encoding: chunked") + b"zz\r\n", b"400"),
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"\x16\x03\x01" + bytes(100) + b"\r\n\r\n", b"400"),
        (head("X-Long: " + "a" * 200_000), b"4"),
        (b"GET /api/v1/models HTTP/1.0\r\n\r\n", b"421"),
        (b"GET /api/v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"4"),
        (b"GET /api/v1/inspections/" + b"9" * 5000 + b" HTTP/1.0\r\nHost: localhost\r\n\r\n", b"422"),
        (b"GET /api/v1/models/%00%ff HTTP/1.0\r\nHost: localhost\r\n\r\n", b"404"),
    ],
    ids=range(13),
)
def test_hostile_requests_get_a_clear_answer(address, data, status):
    answer = raw_request(address, data)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]


@pytest.mark.slow
def test_many_hostile_files_beside_good_ones_leave_no_trace(address):
    station = Client(address)
    station.inspect(BAD)
    files = list(HOSTILE.values())
    good: list[str] = []
    stop = threading.Event()

    def work():
        while not stop.is_set():
            good.append(Client(address).inspect(BAD).verdict)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(
                pool.map(
                    lambda n: httpx.post(address + WHERE, content=files[n % len(files)], headers=PNG).status_code,
                    range(60),
                )
            )
    finally:
        stop.set()
        worker.join(30)
    assert set(answers) <= {413, 415, 422}
    assert good
    assert set(good) == {"anomalous"}
    assert httpx.get(f"{address}/readyz").status_code == 200


# ---------------------------------------------------------------- starting and stopping


def test_a_port_that_is_taken(model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station", port=taken.getsockname()[1])
        with (
            pytest.raises(OutputError, match=r"cannot listen at 127.0.0.1, port \d+: .*Choose another with --port"),
            running(settings),
        ):
            pass


def run(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spadework", "serve", *map(str, arguments)]
    source = str(Path(__file__).parents[1] / "src")
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": source, **(environment or {})},
    )


@pytest.mark.slow
def test_another_address_without_tokens_is_refused_and_told_how(saved_model):
    done = run(saved_model, "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "--token-file" in done.stderr
    assert "SPADEWORK_TOKENS" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.spade",), "absent.spade"),
        (("--database", "mysql://there/x"), "mysql"),
        (("--watch", "absent"), "is no folder"),
        (("--queue", "0"), "queue must be at least 1"),
        (("--token-file", "absent"), "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_told(saved_model, arguments, message):
    model = () if arguments[0].endswith(".spade") else (saved_model,)
    done = run(*model, *arguments, "--port", "0", "--folder", saved_model.parent / "station")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_missing_extra_is_named(saved_model):
    code = "import sys; sys.modules['fastapi'] = None; sys.argv = ['spadework', 'serve', 'part.spade']; from spadework.cli import main; main()"
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source}
    )
    assert done.returncode == 2
    assert "pip install 'spadework[server]'" in done.stderr


@pytest.fixture
def saved_model(model, tmp_path) -> Path:
    return model.save(tmp_path / "part.spade")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_was_accepted(saved_model, tmp_path, number):
    process = Process(saved_model, "--folder", tmp_path / "station")
    try:
        process.wait_ready()
        listener = threading.Thread(
            target=lambda: [None for _ in httpx.get(f"{process.url}{API}/events", timeout=60).iter_lines()]
        )
        listener.start()
        answers: list[int] = []
        lost: list[Exception] = []
        body = png(normal_picture(7, (700, 900)))
        stop = threading.Event()

        def send():
            with httpx.Client(timeout=60) as client:
                while not stop.is_set():
                    try:
                        response = client.post(process.url + WHERE, content=body, headers=PNG)
                    except httpx.ConnectError:  # it stopped listening
                        return
                    except httpx.HTTPError as error:
                        lost.append(error)
                        return
                    if response.status_code == 503:
                        return
                    answers.append(response.json()["id"])

        threads = [threading.Thread(target=send) for _ in range(6)]
        [thread.start() for thread in threads]
        while len(answers) < 5:
            time.sleep(0.01)
        code = process.stop(number)
        stop.set()
        [thread.join() for thread in threads]
        listener.join(10)
        assert code == 0
        assert not listener.is_alive()
        # a line that was idle between two requests may be closed under the next; nothing that was answered may be missing
        assert all(isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)) for error in lost)
    finally:
        process.kill()
    lines = [json.loads(line) for line in process.errors if line.startswith("{")]
    assert lines[-1]["event"] == "closed"
    settings = settings_for(saved_model, tmp_path / "station")
    with running(settings) as url:
        kept = {one.id for one in Client(url).inspections()}
    assert set(answers) <= kept
    accepted = [line for line in lines if line["event"] == "request" and line["status"] == 201]
    assert len(accepted) == len(kept)  # whatever got into the history was answered


@pytest.mark.slow
def test_connections_that_say_nothing_are_closed(model, tmp_path, monkeypatch):
    monkeypatch.setattr("spadework.server.serve.SILENT_SECONDS", 0.2)
    with running(settings_for(model.save(tmp_path / "part.spade"), tmp_path / "station")) as url:
        assert raw_request(url, b"GET / HT") == b""
        host, port = url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port))
        for _ in range(2):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read()
            time.sleep(0.4)
