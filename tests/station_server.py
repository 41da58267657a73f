"""A station for tests: settings for a tiny model, the application in this process, a server in a thread or in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import httpx
import numpy as np
from stations import start_with_tables

import spadework
from spadework.server.decoding import Decoders
from spadework.server.settings import Settings, Token

TOKENS = {role: f"token-of-{role}-0123456789abcdef" for role in ("inspect", "decide", "manage")}
HERE = "http://127.0.0.1"  # the name under which tests ask, without a server


def png(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


def settings_for(model: Path, folder: Path, *, tokens: bool = False, **changes: Any) -> Settings:
    given = tuple(Token(f"{role}-holder", role, secret) for role, secret in TOKENS.items()) if tokens else ()
    plain = {
        "models": {"part": model},
        "folder": folder,
        "port": 0,
        "tokens": given,
        "threads": 1,
        "decoders": 1,
        "rate": 10_000.0,
    }
    return Settings(**{**plain, **changes})


@functools.cache
def _decoders(*limits: Any) -> Decoders:
    return Decoders(*limits)


class LentDecoders:
    """Decoders with these limits, started once and lent to one station after the other."""

    def __init__(self, *limits: Any) -> None:
        self._lent = _decoders(*limits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lent, name)

    def close(self) -> None:
        """They are needed again."""


def quick_start(settings: Settings) -> Any:
    """Spare a station of this process what takes long when it opens, and is tested elsewhere."""
    start_with_tables(settings.folder / "history.sqlite")
    return mock.patch("spadework.server.services.Decoders", LentDecoders)


@contextlib.contextmanager
def client_of(settings: Settings, **named: Any) -> Iterator[Any]:
    """The application and a client of it, in this process; no socket is opened."""
    from starlette.testclient import TestClient

    from spadework.server.app import create_app

    with quick_start(settings), TestClient(create_app(settings), base_url=HERE, **named) as client:
        yield client


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[str]:
    """A server in a thread; yields its address."""
    from spadework.server.serve import serve

    stop, found, ready = threading.Event(), [], threading.Event()
    failed: list[BaseException] = []

    def on_ready(address: str) -> None:
        found.append(address.rstrip("/"))
        ready.set()

    def run() -> None:
        try:
            serve(settings, on_ready=on_ready, stop=stop)
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    try:
        with quick_start(settings):
            thread.start()
            assert ready.wait(60)
        if failed:
            raise failed[0]
        yield found[0]
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
    if failed:
        raise failed[0]


class Process:
    """`spadework serve` in a process of its own, on a free port."""

    def __init__(self, *arguments: object, environment: dict[str, str] | None = None) -> None:
        source = str(Path(spadework.__file__).parents[1])
        command = [sys.executable, "-m", "spadework", "serve", *map(str, arguments)]
        if "--port" not in command:
            command += ["--port", "0"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": source, **(environment or {})},
        )
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        line = self.process.stdout.readline()  # the address, or nothing when it ended
        self.url = line.removeprefix("Spadework is at ").strip().rstrip("/")

    def _read(self) -> None:
        self.errors.extend(iter(self.process.stderr.readline, ""))

    def wait_ready(self, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("".join(self.errors))

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        self.process.stdout.close()
        self.process.stderr.close()
