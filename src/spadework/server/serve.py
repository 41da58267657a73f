"""Running the service: one process, one port, and a stop that finishes what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from spadework.errors import OutputError
from spadework.server.app import create_app
from spadework.server.gate import CROWDED
from spadework.server.logs import set_up
from spadework.server.services import Services
from spadework.server.settings import Settings

# Seconds after which a thread that runs Python must let another. The search and the network come back from compiled code many times a
# picture; waiting the usual 5 ms behind a request's parsing each time cost 7 % of the throughput (eight clients: 46.2 ms a picture, now 43.1).
TURN = 0.0005
SILENT_SECONDS = 10.0  # how long a client may take to send the head of a request, the first from when it connects
STALLED_SECONDS = 30.0  # how long it may read nothing of what waits for it
LOOK_SECONDS = 1.0  # from one look at a connection to the next
MOST_CONNECTIONS = 400  # those beyond it are told so,
SPARE = 50  # and those beyond these cut: each takes one of the files that the system lets us open


class Connection(H11Protocol):
    """A connection that is cut when its client stalls: idle ones would use up what the machine has. Between two requests it may rest."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._heard = self._moved = self.loop.time()
        self._left = 0
        self._next_look = self.loop.call_later(LOOK_SECONDS, self._look)
        if len(self.connections) > MOST_CONNECTIONS:  # those that were here before keep their places
            self.app_state = {**self.app_state, CROWDED: True}
        if len(self.connections) > MOST_CONNECTIONS + SPARE:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self._next_look.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """As uvicorn's; something was read."""
        self._moved = self.loop.time()
        super().resume_writing()

    @property
    def _waits_for_head(self) -> bool:
        """Whether a request must come; a timer of uvicorn's runs while none has begun after another."""
        if self.cycle is None:
            return True
        return self.cycle.response_complete and self.timeout_keep_alive_task is None and not self.transport.is_closing()

    def _look(self) -> None:
        """Cut it if its request's head does not end, or if it reads nothing of its answer."""
        now, left = self.loop.time(), _unread(self.transport)
        if not self._waits_for_head:
            self._heard = now
        if left == 0 or left < self._left:
            self._moved = now
        self._left = left
        if now - self._heard > SILENT_SECONDS or now - self._moved > STALLED_SECONDS:
            self.transport.abort()
        else:
            self._next_look = self.loop.call_later(LOOK_SECONDS, self._look)


def _unread(transport: asyncio.Transport) -> int:
    """How many bytes wait to be sent. Those that the system has count too, where it tells: it takes a megabyte at a time."""
    left = transport.get_write_buffer_size()
    if not left:
        return 0
    try:
        import fcntl
        import termios

        told = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (ImportError, AttributeError, OSError):
        return left
    return left + int.from_bytes(told, sys.byteorder)


class Server(uvicorn.Server):
    """Uvicorn, that tells when it is ready, and lets those who listen to events go when it stops."""

    def __init__(self, config: uvicorn.Config, services: Services, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._services, self._on_ready = services, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets)
        self._on_ready()
        _notify("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but streams end first: it would wait for them for ever."""
        _notify("STOPPING=1")
        self._services.drain()
        await super().shutdown(sockets)

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        """Leave signals alone: they are caught until everything is closed, and not raised again after it."""
        return contextlib.nullcontext()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal takes nothing new from this moment; a second Ctrl-C does not wait for clients."""
        self._services.draining = True
        super().handle_exit(sig, frame)


def serve(settings: Settings, *, on_ready: Callable[[str], None] | None = None, stop: Any = None) -> None:
    """Run a station until SIGTERM or SIGINT; then finish what was accepted, and return.

    Args:
        settings: of the station.
        on_ready: called with the address to open, once it answers.
        stop: a `threading.Event`-like that also stops it, for those who run it in a thread; looked at ten times a second.

    Raises:
        OutputError: the port is taken, or must not be used.
        SpadeworkError: a model or the database cannot be opened.
    """
    set_up()
    listening = bind(settings.host, settings.port)
    port = listening.getsockname()[1]
    app = create_app(settings)
    services: Services = app.state.services
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",  # ours is entered below, so that its errors reach the caller as they are
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips="127.0.0.1,::1",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(settings.stop_seconds)),
    )
    server = Server(config, services, lambda: on_ready(address(settings.host, port)) if on_ready else None)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            watching = asyncio.create_task(_watch(stop, server)) if stop is not None else None
            try:
                await server.serve(sockets=[listening])
            finally:
                if watching is not None:
                    watching.cancel()

    with contextlib.closing(listening), _caught(server), _short_turns():
        asyncio.run(run())


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def _caught(server: Server) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the server while this lasts; in another thread than the first nothing can be caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _watch(stop: Any, server: Server) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.1)
    server.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at the first address of a host. Raises OutputError, saying why and what else to do."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                listening.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # a restart need not wait for old connections
            listening.bind(where)
            listening.listen(256)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        why = error.strerror or str(error)
        raise OutputError(
            f"cannot listen at {host}, port {port}: {why}. Choose another with --port; 0 takes a free one."
        ) from error
    listening.setblocking(False)
    return listening


def address(host: str, port: int) -> str:
    """Return what to type into a browser."""
    if host in ("0.0.0.0", "::"):  # every address of the machine: its name is one that others know
        return f"http://{socket.gethostname()}:{port}/"
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


def _notify(state: str) -> None:
    """Tell systemd, where it runs us as Type=notify."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.connect("\0" + where[1:] if where.startswith("@") else where)
        line.sendall(state.encode())
