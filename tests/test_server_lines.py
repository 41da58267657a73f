"""Lines on which clients stall: before a request, within one, between two, and while they are answered. Each is cut, and none other."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

pytest.importorskip("fastapi")
import httpx
from builders import defective_picture, normal_picture
from station_server import png, running, settings_for

from spadework.server import serve

API = "/api/v1"
HEAD = "Host: 127.0.0.1\r\n"
ALIVE = f"GET /healthz HTTP/1.1\r\n{HEAD}\r\n".encode()
BODY_SECONDS = 0.6


PLACES, SPARE = 20, 5


@dataclass
class Station:
    """A running one: where, and what it is inside."""

    address: tuple[str, int]
    server: serve.Server

    @property
    def lines(self) -> int:
        return len(self.server.server_state.connections)

    def falls_to(self, count: int, seconds: float = 15.0) -> bool:
        until = time.monotonic() + seconds
        while self.lines > count and time.monotonic() < until:
            time.sleep(0.05)
        return self.lines <= count


@pytest.fixture(scope="module")
def station(model, tmp_path_factory) -> Iterator[Station]:
    """A station that soon loses patience; it holds one inspection of a large picture."""
    folder, made = tmp_path_factory.mktemp("lines"), []

    class Server(serve.Server):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    settings = settings_for(model.save(folder / "part.spade"), folder / "station", body_seconds=BODY_SECONDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "SILENT_SECONDS", 0.6)
        patch.setattr(serve, "STALLED_SECONDS", 0.6, raising=False)
        patch.setattr(serve, "LOOK_SECONDS", 0.05, raising=False)
        patch.setattr(serve, "MOST_CONNECTIONS", PLACES)
        patch.setattr(serve, "SPARE", SPARE)
        patch.setattr(serve, "Server", Server)
        with running(settings) as url:
            where = f"{url}{API}/models/part/inspections"
            large = png(normal_picture(3, (1500, 2000)))
            assert (
                httpx.post(where, content=large, headers={"Content-Type": "image/png"}, timeout=60).status_code == 201
            )
            host, port = url.removeprefix("http://").split(":")
            yield Station((host, int(port)), made[0])


@contextlib.contextmanager
def line(station: Station, *, buffer: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as made:
        if buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        made.settimeout(15)
        made.connect(station.address)
        yield made


def rest(made: socket.socket) -> bytes:
    """All that comes until the station closes the line."""
    got = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while piece := made.recv(1 << 16):
            got += piece
    return got


def answered(made: socket.socket, request: bytes = ALIVE) -> None:
    """Ask, and read one whole answer with a short body."""
    made.sendall(request)
    got = b""
    while b"\r\n\r\n" not in got or not got.endswith(b"}"):
        piece = made.recv(1 << 16)
        assert piece
        got += piece
    assert got.startswith(b"HTTP/1.1 200"), got


def drip(made: socket.socket, data: bytes, every: float = 0.1) -> float:
    """Send byte by byte until the line is cut; return after how many seconds it was."""
    started = time.monotonic()
    made.settimeout(every)
    for index in range(len(data)):
        try:
            made.sendall(data[index : index + 1])
            if not made.recv(1 << 16):
                break
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            break
    else:
        raise AssertionError("it was never cut")
    return time.monotonic() - started


def test_a_first_request_that_never_ends_is_cut_however_slowly_it_drips(station):
    with line(station) as made:
        assert drip(made, b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 200) < 10


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"GET / HTTP/1.1\r\nX: a"])
def test_a_later_request_that_stops_in_its_head_is_cut(station, start):
    with line(station) as made:
        answered(made)
        answered(made)
        made.sendall(start)
        assert rest(made) == b""


def test_a_later_request_that_drips_is_cut(station):
    with line(station) as made:
        answered(made)
        assert drip(made, b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 200) < 10


@pytest.mark.parametrize("path", [f"{API}/inspections/1/decisions", f"{API}/session", f"{API}/decisions/1/undo"])
@pytest.mark.parametrize("length", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
def test_a_small_body_that_stalls_is_answered_408(station, path, length):
    with line(station) as made:
        made.sendall(f"POST {path} HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\n{length}\r\n\r\n".encode())
        made.sendall(b'{"kind"' if "Length" in length else b'7\r\n{"kind"\r\n')
        started = time.monotonic()
        got = rest(made)
    assert got.startswith(b"HTTP/1.1 408"), got
    assert b'"code":"slow"' in got
    assert b"connection: close" in got.lower()
    assert time.monotonic() - started < 10


def test_a_small_body_that_drips_is_answered_408(station):
    with line(station) as made:
        head = f"POST {API}/inspections/1/decisions HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
        made.sendall(head.encode())
        got, until = b"", time.monotonic() + 15
        made.settimeout(0.1)
        while not got and time.monotonic() < until:
            made.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                got = made.recv(1 << 16)
    assert got.startswith(b"HTTP/1.1 408"), got


def test_an_answer_that_nobody_reads_is_cut(station):
    """Else a hundred such lines hold memory and places for ever."""
    with line(station, buffer=4096) as made:
        made.sendall(f"GET {API}/inspections/1/map.f32 HTTP/1.1\r\n{HEAD}\r\n".encode())  # 12 MB
        assert station.falls_to(0)


def test_events_that_nobody_reads_are_cut(station):
    with line(station, buffer=4096) as made:
        made.sendall(f"GET {API}/events HTTP/1.1\r\n{HEAD}\r\n".encode())
        assert b"200" in made.recv(100)
        loops, filler = 0, {"text": "x" * 50_000}
        while station.lines > 0:
            station.server._services.events.publish("model", filler)
            time.sleep(0.02)
            loops += 1
            assert loops < 500


@pytest.mark.slow
def test_an_answer_that_is_read_slowly_comes_whole(station):
    with line(station, buffer=1 << 16) as made:
        made.sendall(f"GET {API}/inspections/1/map.f32 HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n".encode())
        got, started = 0, time.monotonic()
        while piece := made.recv(1 << 18):
            got += len(piece)
            if time.monotonic() - started < 2.0:
                time.sleep(0.1)
    assert got > 4 * 1500 * 2000


@pytest.mark.slow
def test_a_line_that_waits_between_two_requests_stays(station):
    with line(station) as made:
        for _ in range(3):
            answered(made)
            time.sleep(1.0)


def test_a_slow_inspection_is_not_cut(station, monkeypatch):
    from spadework.detectors.spade import Spade

    judge = Spade._judge
    monkeypatch.setattr(Spade, "_judge", lambda self, seen: (time.sleep(1.5), judge(self, seen))[1])
    body = png(defective_picture()[0])
    with line(station) as made:
        made.sendall(
            f"POST {API}/models/part/inspections HTTP/1.1\r\n{HEAD}Content-Type: image/png\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        assert rest(made).startswith(b"HTTP/1.1 201")


def test_more_lines_than_there_are_places_are_told_so(station):
    """The answer is as any other: JSON, and when to come back. Far too many are not even asked what they want."""
    assert station.falls_to(0)
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(line(station)) for _ in range(PLACES)]
        for made in busy:
            answered(made)
        with line(station) as made:
            made.sendall(ALIVE)
            got = rest(made)
        assert got.startswith(b"HTTP/1.1 503"), got
        assert b"retry-after" in got.lower()
        assert b'"code":"connections"' in got
        for _ in range(2 * PLACES):
            stack.enter_context(line(station))
        assert station.falls_to(PLACES + SPARE, 5.0)
        for made in busy:  # those that were there before go on
            answered(made)
