"""The client, against a server that answers what the test tells it: errors by kind, tries, lines that break, pictures as PNG."""

from __future__ import annotations

import http.server
import io
import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from builders import normal_picture
from PIL import Image

from spadework import SpadeworkError
from spadework import client as module
from spadework.client import (
    BusyError,
    Client,
    ConflictError,
    NotThereError,
    PictureError,
    RefusedError,
    StationError,
    UnreachableError,
    encode_png,
)

DECISION = {
    "id": 3, "inspection_id": 7, "kind": "normal", "who": "ann", "at": "2026-01-02T03:04:05+00:00", "note": "", "model": "part",
    "model_hash": "m", "threshold": 2.0, "appended": True, "undone_at": None, "undone_by": None, "withdrawn": False,
}  # fmt: skip
INSPECTION = {
    "id": 7, "at": "2026-01-02T03:04:05+00:00", "model": "part", "model_hash": "m", "name": "a.png", "height": 4, "width": 5,
    "score": 3.5, "threshold": 2.0, "map_threshold": None, "verdict": "anomalous", "timings": {"decode": 0.1}, "decision": DECISION,
    "regions": [{"box": [0, 1, 2, 3], "area": 4, "peak": [1, 2], "score": 3.5, "polygons": [[[1, 0], [3, 0], [3, 2]]]}],
    "nearest": [{"name": "n.png", "distance": 0.5}],
}  # fmt: skip


class Script:
    """A server on a free port of loopback that gives the answers of `answers` in turn, and keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes] | str] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                script.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                answer = script.answers.pop(0)
                if answer == "hang up":
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = headers.get("Connection") == "close"

            do_GET = do_POST = handle_any  # noqa: N815

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def say(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, body))

    def fail(self, status, code="code", **headers):
        self.say({"error": {"code": code, "message": "It is so.", "hint": "Do that."}}, status, **headers)


@pytest.fixture
def script():
    script = Script()
    yield script
    script.server.shutdown()
    script.server.server_close()


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    return slept


@pytest.fixture
def station(script):
    with Client(script.url, "the-token") as client:
        yield client


def test_an_inspection_is_typed(script, station):
    script.say(INSPECTION, 201)
    found = station.inspect(b"bytes of a picture", model="left part", name="ä.png")
    method, path, headers, body = script.asked[0]
    assert (method, path) == ("POST", "/api/v1/models/left%20part/inspections?name=%C3%A4.png")
    assert headers["authorization"] == "Bearer the-token"
    assert body == b"bytes of a picture"
    assert (found.id, found.verdict, found.is_anomalous, found.score) == (7, "anomalous", True, 3.5)
    assert found.at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert found.regions[0].box == (0, 1, 2, 3)
    assert found.regions[0].polygons == (((1, 0), (3, 0), (3, 2)),)
    assert found.nearest == (("n.png", 0.5),)
    assert found.decision.appended
    assert found.json == INSPECTION


def test_the_only_model_is_found_out_once(script, station):
    script.say({"items": [{"name": "part"}]})
    script.say(INSPECTION, 201)
    script.say(INSPECTION, 201)
    station.inspect(b"x")
    station.inspect(b"x")
    assert [path for _, path, _, _ in script.asked] == ["/api/v1/models", *["/api/v1/models/part/inspections"] * 2]


def test_one_of_several_models_must_be_named(script, station):
    script.say({"items": [{"name": "left"}, {"name": "right"}]})
    with pytest.raises(StationError, match="serves left, right. Say which: model=NAME"):
        station.inspect(b"x")


def test_a_file_goes_as_it_is_and_an_array_as_png(script, station, tmp_path):
    path = tmp_path / "part 1.png"
    path.write_bytes(b"not looked at")
    picture = normal_picture(1, (20, 31))
    for _ in range(3):
        script.say(INSPECTION, 201)
    station.inspect(path, model="part")
    station.inspect(str(path), model="part")
    station.inspect(picture, model="part")
    assert [body for *_, body in script.asked[:2]] == [b"not looked at"] * 2
    assert script.asked[0][1].endswith("?name=part+1.png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(script.asked[2][3]))), picture)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (3, 5, 4)])
def test_arrays_become_png(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(array)))), array)
    turned = array[::-1]  # not contiguous
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(turned)))), turned)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 5, 2), np.uint8), np.zeros((3, 5)), np.zeros((0, 5), np.uint8), np.zeros(3, np.uint8)]
)
def test_other_arrays_are_refused(array):
    with pytest.raises(PictureError, match="An array must be uint8"):
        encode_png(array)


def test_a_file_that_is_not_there_is_named(station):
    with pytest.raises(PictureError, match=r"absent.png: cannot be read: No such file"):
        station.inspect(Path("absent.png"), model="part")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, RefusedError), (403, RefusedError), (404, NotThereError), (410, NotThereError), (409, ConflictError),
     (413, PictureError), (415, PictureError), (422, PictureError), (500, StationError), (421, StationError)],
)  # fmt: skip
def test_errors_are_typed(script, station, status, kind):
    script.fail(status, "that")
    with pytest.raises(kind, match="^It is so. Do that.$") as caught:
        station.inspection(7)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, caught.value.hint) == (status, "that", "Do that.")
    assert isinstance(caught.value, SpadeworkError)
    assert len(script.asked) == 1


def test_an_answer_of_something_in_between_is_told(script, station):
    script.say(b"<html>Bad gateway</html>", 502)
    with pytest.raises(StationError, match="The answer was HTTP 502"):
        station.models()


@pytest.mark.parametrize("status", [503, 429])
def test_what_cannot_be_taken_now_is_sent_again_after_the_time_asked_for(script, station, naps, status):
    script.fail(status, Retry_After="3")
    script.fail(status)
    script.say(INSPECTION, 201)
    assert station.inspect(b"x" * 1000, model="part").id == 7
    assert len(script.asked) == 3
    assert {body for *_, body in script.asked} == {b"x" * 1000}
    assert 3.0 <= naps[0] <= 3.75
    assert 1.0 <= naps[1] <= 1.25


def test_tries_come_to_an_end_and_pauses_stay_bounded(script, naps):
    station = Client(script.url, tries=3)
    for _ in range(3):
        script.fail(503, "overloaded", Retry_After="99999")
    with pytest.raises(BusyError) as caught:
        station.models()
    assert caught.value.code == "overloaded"
    assert len(script.asked) == 3
    assert max(naps) <= 1.25 * module.LONGEST_PAUSE


def test_a_line_that_the_station_closed_meanwhile_is_opened_anew(script, station):
    script.say({"items": []}, Connection="close")
    script.say({"items": []})
    station.models()
    time.sleep(0.05)
    station.models()
    assert len(script.asked) == 2


def test_what_may_have_been_done_is_not_sent_again(script, station):
    script.answers.append("hang up")
    with pytest.raises(UnreachableError, match=r"No answer from http://127.0.0.1:\d+"):
        station.inspect(b"x", model="part")
    assert len(script.asked) == 1


def test_a_station_that_does_not_run():
    with pytest.raises(UnreachableError, match="Is the station running"):
        Client("http://127.0.0.1:9", timeout=1).models()


@pytest.mark.parametrize("url", ["ftp://there", "http://", ""])
def test_an_address_that_is_none(url):
    with pytest.raises(StationError, match="is no address of a station"):
        Client(url)


def test_the_history_comes_page_by_page(script, station):
    script.say({"items": [{**INSPECTION, "id": 9}, {**INSPECTION, "id": 8}], "cursor": "c", "total": 3})
    script.say({"items": [INSPECTION], "cursor": None, "total": None})
    since = datetime(2026, 1, 1, tzinfo=UTC)
    found = list(station.inspections(verdict="anomalous", since=since, newest_first=True, decision=None))
    assert [one.id for one in found] == [9, 8, 7]
    assert (
        script.asked[0][1]
        == "/api/v1/inspections?verdict=anomalous&since=2026-01-01T00%3A00%3A00%2B00%3A00&newest_first=true&limit=100"
    )
    assert "cursor=c" in script.asked[1][1]


def test_a_limit_asks_for_no_more(script, station):
    script.say({"items": [INSPECTION], "cursor": "c", "total": 30})
    assert len(list(station.inspections(limit=1))) == 1
    assert "limit=1" in script.asked[0][1]
    assert len(script.asked) == 1


def test_decisions(script, station):
    script.say(DECISION, 201)
    script.say({**DECISION, "undone_at": "2026-01-02T03:04:06+00:00", "undone_by": "bob"})
    assert station.decide(7, "normal", "fine").who == "ann"
    assert json.loads(script.asked[0][3]) == {"kind": "normal", "note": "fine"}
    assert script.asked[0][2]["content-type"] == "application/json"
    undone = station.undo(3)
    assert (undone.undone_by, undone.undone_at) == ("bob", datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC))


def test_a_map_is_what_numpy_takes(script, station):
    values = np.array([[1.5, np.nan, 2.5], [0, -1, 3]], "<f4")
    script.say(values.tobytes(), X_Shape="2,3")
    assert np.array_equal(np.asarray(station.map(7)), values, equal_nan=True)


def test_a_match(script, station):
    script.say({"distance": 1.0})
    assert station.match(7, 3, 4) == {"distance": 1.0}
    assert script.asked[0][1] == "/api/v1/inspections/7/match?y=3&x=4"


def test_events_go_on_where_the_line_broke(script, station, naps):
    first = b'retry: 1\n: alive\n\nevent: inspection\nid: b-1-7\ndata: {"id": 7}\n\nevent: inspection\nid: b-2-8\ndata: {"id'
    script.say(first, Connection="close")
    script.fail(503)
    script.say(b"event: resync\nid: c-1-8\ndata: {}\n\n", Connection="close")
    listening = station.events("b-0-6")
    found = [next(listening) for _ in range(2)]
    assert [(event.kind, event.id, event.json) for event in found] == [
        ("inspection", "b-1-7", {"id": 7}),
        ("resync", "c-1-8", {}),
    ]
    assert [headers["last-event-id"] for _, _, headers, _ in script.asked] == ["b-0-6", "b-1-7", "b-1-7"]


def test_a_line_that_breaks_before_the_first_event_is_taken_up_where_it_began(script, station, naps):
    script.say(b"retry: 1\n: alive\n\nid: b-4-9\n\n: alive\n\n", Connection="close")
    script.say(b'event: inspection\nid: b-5-10\ndata: {"id": 10}\n\n', Connection="close")
    event = next(station.events())
    assert (event.kind, event.id, event.json) == ("inspection", "b-5-10", {"id": 10})
    assert [headers.get("last-event-id") for _, _, headers, _ in script.asked] == [None, "b-4-9"]


def test_events_of_who_may_not_listen(script, station):
    script.fail(401)
    with pytest.raises(RefusedError):
        next(station.events())


def test_threads_have_lines_of_their_own(script, station):
    for _ in range(8):
        script.say({"items": []})
    threads = [threading.Thread(target=station.models) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(script.asked) == 8


def test_the_client_needs_nothing_but_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); import spadework.client; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(name for name in new if name not in sys.stdlib_module_names and name != 'spadework'))"
    )
    source = Path(module.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(source)}
    )
    assert done.stdout.strip() == "[]"
