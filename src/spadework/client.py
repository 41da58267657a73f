"""A client of an inspection station, with nothing but the standard library: inspect, list, decide, undo, listen.

    >>> from spadework.client import Client  # doctest: +SKIP
    >>> station = Client("http://127.0.0.1:8000")  # doctest: +SKIP
    >>> result = station.inspect("part.png")  # doctest: +SKIP
    >>> result.verdict, result.regions[0].box  # doctest: +SKIP
    ('anomalous', (118, 40, 170, 96))

One client may be used by many threads: each has a connection of its own. What the station cannot take now (503, 429) is sent again
after the time it asks for.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import select
import struct
import threading
import time
import urllib.parse
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self, cast

from spadework.errors import SpadeworkError

PREFIX = "/api/v1"
LONGEST_PAUSE = 30.0  # seconds, whatever Retry-After says
JSON = "application/json"
_time = datetime.fromisoformat
LOST = (ConnectionError, http.client.HTTPException, TimeoutError, OSError)


class StationError(SpadeworkError):
    """The station answered with an error, or not at all. `status`: HTTP's, 0 for no answer; `code`: for programs; `hint`: what to do."""

    def __init__(self, status: int, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.status, self.code, self.hint = status, code, hint


class RefusedError(StationError):
    """The station does not know who asks, or they may not (401, 403)."""


class NotThereError(StationError):
    """What was asked for is not there, or is gone (404, 410)."""


class PictureError(StationError):
    """The picture cannot be used: too large, of an unknown kind, damaged (413, 415, 422)."""


class ConflictError(StationError):
    """The station's state does not allow it (409), e.g. a model that cannot append."""


class BusyError(StationError):
    """The station has too much to do or is stopping, also after all tries (429, 503)."""


class UnreachableError(StationError):
    """No answer came: not running, another address, or the line broke."""


KINDS: dict[int, type[StationError]] = {
    **dict.fromkeys((401, 403), RefusedError),
    **dict.fromkeys((404, 410), NotThereError),
    **dict.fromkeys((413, 415, 422), PictureError),
    409: ConflictError,
    **dict.fromkeys((429, 503), BusyError),
}


class Array(Protocol):
    """A picture as a NumPy array: uint8 (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, C)."""

    @property
    def dtype(self) -> Any:
        """uint8."""

    def tobytes(self) -> bytes:
        """Its pixels in order."""


@dataclass(frozen=True)
class Region:
    """A suspicious place: box (y0, x0, y1, x1) and peak (y, x) in pixels; polygons of (x, y)."""

    box: tuple[int, int, int, int]
    area: int
    peak: tuple[int, int]
    score: float
    polygons: tuple[tuple[tuple[float, float], ...], ...]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Read it from JSON values."""
        polygons = tuple(tuple((x, y) for x, y in polygon) for polygon in told["polygons"])
        y0, x0, y1, x1 = told["box"]
        y, x = told["peak"]
        return cls((y0, x0, y1, x1), told["area"], (y, x), told["score"], polygons)


@dataclass(frozen=True)
class Decision:
    """What a person said of an inspection: kind is "normal" or "defect"."""

    id: int
    inspection_id: int
    kind: str
    who: str
    at: datetime
    note: str
    appended: bool
    undone_at: datetime | None
    undone_by: str | None
    json: Mapping[str, Any]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Read it from JSON values."""
        plain = {name: told[name] for name in ("id", "inspection_id", "kind", "who", "note", "appended", "undone_by")}
        return cls(
            **plain,
            at=_time(told["at"]),
            undone_at=None if told["undone_at"] is None else _time(told["undone_at"]),
            json=told,
        )


@dataclass(frozen=True)
class Result:
    """An inspection as the station knows it; `json` holds all that it told.

    score: higher is more anomalous. verdict: "normal", "anomalous" or "no threshold". nearest: names and distances of normal pictures.
    """

    id: int
    at: datetime
    model: str
    model_hash: str
    name: str
    height: int
    width: int
    score: float
    threshold: float | None
    map_threshold: float | None
    verdict: str
    regions: tuple[Region, ...]
    nearest: tuple[tuple[str, float], ...]
    timings: Mapping[str, float]
    decision: Decision | None
    json: Mapping[str, Any]

    @property
    def is_anomalous(self) -> bool | None:
        """The verdict; None without a threshold."""
        return {"anomalous": True, "normal": False}.get(self.verdict)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Read it from JSON values."""
        names = "id model model_hash name height width score threshold map_threshold verdict timings"
        decision = told["decision"]
        return cls(
            **{name: told[name] for name in names.split()},
            at=_time(told["at"]),
            regions=tuple(Region.read(region) for region in told["regions"]),
            nearest=tuple((near["name"], near["distance"]) for near in told["nearest"]),
            decision=None if decision is None else Decision.read(decision),
            json=told,
        )


@dataclass(frozen=True)
class Event:
    """Something that happened: kind is "inspection", "decision", "model" or "resync" (read lists again). id: to go on from."""

    kind: str
    id: str
    json: Mapping[str, Any]


class Client:
    """A connection to a station.

    Args:
        url: the station's address, http or https.
        token: who asks; None where the station has no tokens.
        timeout: seconds to wait for an answer.
        tries: how often something is sent that the station could not take.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", token: str | None = None, *, timeout: float = 60.0, tries: int = 5
    ) -> None:
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StationError(0, "url", f"{url!r} is no address of a station.", "It looks like http://127.0.0.1:8000.")
        self._parts, self._timeout, self._tries = parts, timeout, max(1, tries)
        self._headers = {"Accept": JSON, "User-Agent": "spadework-client"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close this thread's connection."""
        connection = vars(self._local).pop("connection", None)
        if connection is not None:
            connection.close()

    # ---- what a line does --------------------------------------------------------------------------------------------------

    def inspect(
        self, picture: str | os.PathLike[str] | bytes | Array, *, model: str | None = None, name: str | None = None
    ) -> Result:
        """Inspect a picture; when this returns, the inspection is in the station's history.

        Args:
            picture: a file, the bytes of one, or an array of pixels.
            model: which model; None where the station serves one.
            name: what to call the picture; by default the file's name.

        Raises:
            PictureError: it cannot be used.
            BusyError: the station could not take it, after all tries.
            UnreachableError: no answer; the station may have inspected it all the same.
        """
        body, called = _picture(picture)
        query = {"name": name or called}
        told = self._json("POST", f"/models/{self._model(model)}/inspections", query=query, body=body, kind="image/png")
        return Result.read(told)

    def inspections(self, *, limit: int | None = None, **filters: Any) -> Iterator[Result]:
        """Yield inspections from the history, newest first, page by page, at most `limit`.

        Filters: model, verdict, decision, since, until (datetimes with a zone), text, score_min, score_max, newest_first.
        """
        told = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in filters.items()}
        cursor, left = None, limit
        while left is None or left > 0:
            size = 100 if left is None else min(100, left)
            page = self._json("GET", "/inspections", query={**told, "cursor": cursor, "limit": size})
            yield from map(Result.read, page["items"])
            cursor = page["cursor"]
            left = None if left is None else left - len(page["items"])
            if cursor is None:
                return

    def inspection(self, id: int) -> Result:
        """Return one inspection."""
        return Result.read(self._json("GET", f"/inspections/{int(id)}"))

    def decide(self, id: int, kind: str, note: str = "") -> Decision:
        """Say that an inspected picture is "normal", which adds it to the model at once, or a "defect"."""
        body = json.dumps({"kind": kind, "note": note}).encode()
        return Decision.read(self._json("POST", f"/inspections/{int(id)}/decisions", body=body))

    def undo(self, decision: int) -> Decision:
        """Take a decision back, by its id; of "normal" the picture leaves the model again."""
        return Decision.read(self._json("POST", f"/decisions/{int(decision)}/undo"))

    def models(self) -> list[dict[str, Any]]:
        """Return what the station tells of its models."""
        return list(self._json("GET", "/models")["items"])

    def map(self, id: int) -> memoryview[float]:
        """Return an inspection's map at the picture's size: float32 (H, W), NaN where nothing was inspected; `numpy.asarray` takes it."""
        body, headers = self._send("GET", f"/inspections/{int(id)}/map.f32")
        height, width = (int(side) for side in headers["x-shape"].split(","))
        values = bytearray(body)
        if struct.pack("=f", 1.0) != struct.pack("<f", 1.0):  # a big-endian machine
            values[0::4], values[1::4], values[2::4], values[3::4] = (
                values[3::4],
                values[2::4],
                values[1::4],
                values[0::4],
            )
        return memoryview(values).cast("B").cast("f", (height, width))

    def match(self, id: int, y: int, x: int) -> dict[str, Any]:
        """Return the normal place that a place of an inspected picture was compared with: which picture, where, how far."""
        return self._json("GET", f"/inspections/{int(id)}/match", query={"y": int(y), "x": int(x)})

    def events(self, last: str | None = None) -> Iterator[Event]:
        """Yield what happens, for ever; a line that breaks is taken up again without a gap.

        Args:
            last: the id of the last event that was seen, to get what came since.
        """
        failed = 0
        while True:
            try:
                for event in self._listen(last):
                    last, failed = event.id or last, 0
                    if event.kind:
                        yield event
            except UnreachableError:
                failed += 1
                if failed >= self._tries:
                    raise
            time.sleep(min(LONGEST_PAUSE, 0.2 * 2**failed))

    # ---- the line ----------------------------------------------------------------------------------------------------------

    def _model(self, name: str | None) -> str:
        if name is None:
            names = [model["name"] for model in self.models()] if not hasattr(self, "_only") else [self._only]
            if len(names) != 1:
                raise StationError(0, "model", f"The station serves {', '.join(names)}.", "Say which: model=NAME.")
            self._only: str = names[0]
            name = self._only
        return urllib.parse.quote(name, safe="")

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        kind: str = JSON,
    ) -> dict[str, Any]:
        answer, _ = self._send(method, path, query=query, body=body, kind=kind)
        return cast("dict[str, Any]", json.loads(answer))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        kind: str = JSON,
    ) -> tuple[bytes, Mapping[str, str]]:
        """Send a request until it is answered with success, or tries are used up."""
        headers = self._headers if body is None else {**self._headers, "Content-Type": kind}
        for left in reversed(range(self._tries)):
            response = self._answer(method, self._target(path, query), body, headers)
            told = {name.lower(): value for name, value in response.getheaders()}
            try:
                content = response.read()
            except LOST as error:
                self.close()
                raise self._unreachable(error) from error
            if response.status < 300:
                return content, told
            failure = _failure(response.status, content)
            if not isinstance(failure, BusyError) or not left:
                raise failure
            time.sleep(_pause(told.get("retry-after")))
        raise AssertionError("unreachable")

    def _target(self, path: str, query: Mapping[str, Any] | None) -> str:
        given = {key: _word(value) for key, value in (query or {}).items() if value is not None}
        return self._parts.path.rstrip("/") + PREFIX + path + (f"?{urllib.parse.urlencode(given)}" if given else "")

    def _answer(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """Send once. Nothing is sent again here: it may have been done already."""
        connection = self._kept()
        try:
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # refused before all was sent: the answer says why
                connection.request(method, target, body, dict(headers))
            return connection.getresponse()
        except LOST as error:
            self.close()
            raise self._unreachable(error) from error

    def _kept(self) -> http.client.HTTPConnection:
        """This thread's connection; a new one if the station closed it meanwhile, as servers do with idle ones."""
        connection: http.client.HTTPConnection | None = vars(self._local).get("connection")
        if connection is not None and connection.sock is not None:
            readable, _, _ = select.select([connection.sock], [], [], 0)
            if not readable:
                return connection
            self.close()
        self._local.connection = self._connect()
        return cast("http.client.HTTPConnection", self._local.connection)

    def _connect(self, timeout: float | None = None) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=timeout or self._timeout)

    def _unreachable(self, error: Exception) -> UnreachableError:
        where = f"{self._parts.scheme}://{self._parts.netloc}"
        return UnreachableError(
            0, "unreachable", f"No answer from {where}: {error or type(error).__name__}.", "Is the station running?"
        )

    def _listen(self, last: str | None) -> Iterator[Event]:
        headers = {**self._headers, "Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        connection = self._connect(timeout=max(self._timeout, 45.0))  # a comment comes every 15 s
        try:
            connection.request("GET", self._target("/events", None), headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                failure = _failure(response.status, response.read())
                raise self._unreachable(failure) if isinstance(failure, BusyError) else failure
            yield from _read_events(response)
        except LOST as error:
            if isinstance(error, StationError):
                raise
            raise self._unreachable(error) from error
        finally:
            connection.close()


def _read_events(lines: Iterator[bytes] | http.client.HTTPResponse) -> Iterator[Event]:
    """Yield events; an id alone, from where to go on, as one without a kind."""
    told: dict[str, str] = {}
    for line in lines:
        text = line.decode().rstrip("\r\n")
        if text:
            key, _, value = text.partition(":")
            told[key] = value.removeprefix(" ")
            continue
        if "data" in told:
            yield Event(told.get("event", "message"), told.get("id", ""), json.loads(told["data"]))
        elif told.get("id"):
            yield Event("", told["id"], {})
        told = {}


def _failure(status: int, content: bytes) -> StationError:
    kind = KINDS.get(status, StationError)
    try:
        told = json.loads(content)["error"]
        return kind(status, told["code"], told["message"], told["hint"])
    except (ValueError, KeyError, TypeError):  # a proxy in between
        return kind(status, "http", f"The answer was HTTP {status}.")


def _pause(after: str | None) -> float:
    """How long to wait: as asked, and a little more, so that those who were turned away together do not come back together."""
    asked = float(after) if after is not None and after.isdecimal() else 1.0
    return min(LONGEST_PAUSE, asked) * random.uniform(1.0, 1.25)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _picture(picture: str | os.PathLike[str] | bytes | Array) -> tuple[bytes, str | None]:
    """Return a picture's bytes and, of a file, its name."""
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture), None
    if isinstance(picture, (str, os.PathLike)):
        path = Path(picture)
        try:
            return path.read_bytes(), path.name
        except OSError as error:
            raise PictureError(0, "file", f"{path}: cannot be read: {error.strerror}.") from error
    return encode_png(picture), None


def encode_png(pixels: Array) -> bytes:
    """Return an array, uint8 (H, W), (H, W, 3) or (H, W, 4), as a PNG file; PictureError for another shape or type."""
    colours = {2: 0, (3, 3): 2, (3, 4): 6}
    shape = tuple(pixels.shape)
    colour = colours.get(2) if len(shape) == 2 else colours.get((len(shape), shape[-1] if shape else 0))
    if colour is None or str(pixels.dtype) != "uint8" or 0 in shape:
        raise PictureError(
            0, "array", f"An array must be uint8 (H, W), (H, W, 3) or (H, W, 4), not {pixels.dtype} {shape}."
        )
    height, width = shape[:2]
    data, row = pixels.tobytes(), len(pixels.tobytes()) // height
    lines = b"".join(b"\0" + data[start : start + row] for start in range(0, len(data), row))
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
