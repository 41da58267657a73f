"""What the tests of the page run against: the stand-in, or the service itself once it is there. SPADEWORK_PAGE_STATION=fake or real chooses."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from page_server import PEOPLE, TOKENS, FakeService, png

import spadework
from spadework.detectors.spade import Spade

SOURCE = Path(spadework.__file__).resolve().parents[1]


def kind() -> str:
    there = importlib.util.find_spec("spadework.server") and importlib.util.find_spec("spadework.server.app")
    return os.environ.get("SPADEWORK_PAGE_STATION", "real" if there else "fake")


def start_station(models: dict[str, Spade], pictures: dict[str, list[np.ndarray]], *, login: bool = False) -> Station:
    return Station(
        RealService(models, login=login) if kind() == "real" else FakeService(models, pictures, login=login), login
    )


class RealService:
    """`spadework serve` in a process of its own. `stop` and `start` keep port, history and models."""

    def __init__(self, models: dict[str, Spade], *, login: bool) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="spadework-page-")
        self.paths = [str(model.save(Path(self.folder.name) / f"{name}.spade")) for name, model in models.items()]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        lines = "\n".join(f"{name}:{role}:{TOKENS[role]}" for name, role in PEOPLE)
        self.environment = {**os.environ, "PYTHONPATH": str(SOURCE), "SPADEWORK_TOKENS": lines if login else ""}
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        station = str(Path(self.folder.name) / "station")
        command = [
            sys.executable,
            "-m",
            "spadework",
            "serve",
            *self.paths,
            "--port",
            str(self.port),
            "--folder",
            station,
        ]
        log = Path(self.folder.name) / "log.txt"
        with open(log, "ab") as out:
            self.process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
        until = time.monotonic() + 300
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(log.read_text())
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise RuntimeError("the service did not get ready")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()
        self.folder.cleanup()


class Station:
    """A running service with a client that may do everything: as the line's own software would speak to it."""

    def __init__(self, service: Any, login: bool) -> None:
        self.service = service
        headers = {"Authorization": f"Bearer {TOKENS['manage']}"} if login else {}
        self.client = httpx.Client(base_url=f"{service.url}/api/v1/", headers=headers, timeout=60)

    @property
    def url(self) -> str:
        return str(self.service.url)

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(path, params=query).raise_for_status().json()

    def inspect(self, rgb: np.ndarray, name: str, model: str = "gear") -> dict[str, Any]:
        sent = self.client.post(
            f"models/{model}/inspections",
            params={"name": name},
            content=png(rgb),
            headers={"Content-Type": "image/png"},
        )
        found: dict[str, Any] = sent.raise_for_status().json()
        return found

    def stop(self) -> None:
        self.service.stop()

    def start(self) -> None:
        self.service.start()

    def close(self) -> None:
        self.client.close()
        self.service.close()
