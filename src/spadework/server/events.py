"""Live events to many clients: server-sent events with bounded queues, and the way back in for who was away.

An event's id is `BOOT-NUMBER-INSPECTION`: which run of the station, the event's number in it, the highest inspection by then. Who comes
back with the last id of this run gets what came since; after a restart, or a long time away, the inspections since then from the history and
an event `resync`: read lists again, other things may have changed. A client that reads too slowly is cut off and comes back so. A new client is
told an id at once, before anything happens, so that a line that breaks early costs nothing either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

KEPT = 1000  # events that can be sent again
WAITING = 256  # events that a slow client may lag behind
SILENCE = 15.0  # seconds until a comment shows that the line is alive
COMMENT = b": alive\n\n"
GREETING = b"retry: 1000\n" + COMMENT

Numbered = tuple[int, bytes]


@dataclass(frozen=True)
class Mark:
    """What an event's id says."""

    boot: str
    number: int
    inspection: int

    def __str__(self) -> str:
        return f"{self.boot}-{self.number}-{self.inspection}"

    @classmethod
    def read(cls, text: str) -> Mark | None:
        """Return what an id says; None for anything that is no id."""
        boot, _, rest = text.partition("-")
        number, _, inspection = rest.partition("-")
        if not (number.isdecimal() and inspection.isdecimal() and len(number) < 19 and len(inspection) < 19):
            return None
        return cls(boot, int(number), int(inspection))


class Listener:
    """One client's queue."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Numbered | None] = asyncio.Queue(WAITING)
        self.cut_off = False

    def put(self, message: Numbered) -> None:
        """Give it a message; one whose queue is full is cut off after what it has, so that it misses none without knowing."""
        if self.cut_off:
            return
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.cut_off = True

    def end(self) -> None:
        """Let it go once it has read what waits."""
        self.cut_off = True
        with contextlib.suppress(asyncio.QueueFull):
            self.queue.put_nowait(None)


class Events:
    """Takes events from any thread and hands them to all that listen."""

    def __init__(self) -> None:
        self.boot = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._number = self._inspection = 0
        self._kept: deque[Numbered] = deque(maxlen=KEPT)
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def open(self, loop: asyncio.AbstractEventLoop, *, inspection: int) -> None:
        """Begin: clients are served by `loop`; `inspection` is the highest number in the history."""
        with self._lock:  # watched folders may have begun to tell already
            self._loop, self._inspection = loop, max(self._inspection, inspection)

    def close(self) -> None:
        """Let all clients go; to be called in the loop."""
        self._closed = True
        for listener in self._listeners:
            listener.end()

    @property
    def listening(self) -> int:
        """How many clients listen."""
        return len(self._listeners)

    def publish(self, kind: str, content: dict[str, Any], *, inspection: int = 0) -> None:
        """Send an event to all. `inspection`: its number, where it is one."""
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        with self._lock:  # numbers and the order in the loop's queue agree
            self._number += 1
            self._inspection = max(self._inspection, inspection)
            mark = Mark(self.boot, self._number, self._inspection)
            message = frame(kind, text, mark)
            numbered = self._number, message
            self._kept.append(numbered)
            if self._loop is not None and not self._loop.is_closed():
                with contextlib.suppress(RuntimeError):  # closed in between
                    self._loop.call_soon_threadsafe(self._hand_out, numbered)

    def _hand_out(self, message: Numbered) -> None:
        for listener in self._listeners:
            listener.put(message)

    @contextlib.contextmanager
    def listen(self) -> Iterator[Listener]:
        """Be given every event from now on."""
        listener = Listener()
        self._listeners.add(listener)
        if self._closed:
            listener.end()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def now(self) -> Mark:
        """Return the mark of the latest event."""
        with self._lock:
            return Mark(self.boot, self._number, self._inspection)

    def elsewhere(self) -> Mark:
        """Return the mark of somebody whose id says nothing here: no inspection is told again, but that lists must be read again."""
        return Mark("", 0, self.now().inspection)

    def since(self, mark: Mark) -> list[Numbered] | None:
        """Return what came after a mark of this run; None if it is of another or not all is kept."""
        with self._lock:
            if mark.boot != self.boot or mark.number > self._number:
                return None
            first = self._kept[0][0] if self._kept else self._number + 1
            if mark.number + 1 < first:
                return None
            return [numbered for numbered in self._kept if numbered[0] > mark.number]


def frame(kind: str, text: str, mark: Mark) -> bytes:
    """Return an event as it goes over the line. `text` must be one line, as JSON is."""
    return f"event: {kind}\nid: {mark}\ndata: {text}\n\n".encode()


async def stream(
    events: Events,
    last: Mark | None,
    missed: Callable[[int], list[tuple[int, dict[str, Any]]]],
    still_welcome: Callable[[], bool],
    *,
    silence: float = SILENCE,
) -> AsyncIterator[bytes]:
    """Yield what one client is sent, until it is cut off or no longer welcome.

    Args:
        events: the source.
        last: where the client was when it went away; None for a new one.
        missed: returns the inspections after a number from the history, oldest first; called in a thread.
        still_welcome: whether the client's session still holds; asked every `silence` seconds, whatever happens.
        silence: seconds until a comment is sent.
    """
    with events.listen() as listener:
        if last is None:
            now = events.now()  # what comes after it reaches the queue: that listens already
            sent = now.number
            yield GREETING + f"id: {now}\n\n".encode()
        else:
            sent = 0
            yield GREETING
            for number, message in await _missed(events, last, missed):
                sent = max(sent, number)
                yield message
        asked = time.monotonic()
        while not (listener.cut_off and listener.queue.empty()):
            try:
                found = await asyncio.wait_for(listener.queue.get(), silence)
            except TimeoutError:
                found = sent + 1, COMMENT
            if time.monotonic() - asked >= silence:  # also where there never is silence
                asked = time.monotonic()
                if not still_welcome():
                    return
            if found is None:
                return
            if found[0] > sent:  # else it was among those missed
                yield found[1]


async def _missed(
    events: Events, last: Mark, missed: Callable[[int], list[tuple[int, dict[str, Any]]]]
) -> list[Numbered]:
    """What a client that was away is sent first.

    Inspections from the history keep the old run in their ids: who breaks off between two of them is told the rest, and `resync`, too.
    """
    kept = events.since(last)
    if kept is not None:
        return kept
    now = events.now()
    found = await asyncio.to_thread(missed, last.inspection)
    frames = []
    for inspection, told in found:
        text = json.dumps(told, allow_nan=False, separators=(",", ":"))
        frames.append((now.number, frame("inspection", text, Mark(last.boot, last.number, inspection))))
    return [*frames, (now.number, frame("resync", "{}", now))]
