"""From a request's body to a picture's pixels: room for it, a bounded read, a decoding in a process of its own, its bytes kept on disk."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
from starlette.requests import Request

from spadework.server.pictures import Incoming
from spadework.server.problems import unavailable
from spadework.server.services import Services
from spadework.server.uploads import clean_name, read_picture


@dataclass(frozen=True)
class Received:
    """A picture that came: rgb uint8 (H, W, 3); picture: SHA-256 of its bytes, which are kept; seconds: of decoding."""

    rgb: np.ndarray
    picture: str
    name: str
    media_type: str
    seconds: float


@contextlib.asynccontextmanager
async def receiving(request: Request, station: Services, name: str | None) -> AsyncIterator[Received]:
    """Receive a picture, and hold its place and memory until the work on it is done.

    Args:
        request: with a picture as its body.
        station: where it goes.
        name: what to call it; None to take what a form says.

    Raises:
        Problem: too much to do, or a body that breaks a rule.
        StationError: no picture, damaged, too large; see `spadework.server.errors`.
    """
    if station.draining:
        raise unavailable("stopping", "The station is stopping.", "Send it again soon.", after=5)
    with station.room.place():
        received = await _receive(request, station, name)
        with station.room.hold(received.rgb.nbytes):
            yield received


async def _receive(request: Request, station: Services, name: str | None) -> Received:
    limits = station.settings
    with station.pictures.incoming() as file:
        told = await read_picture(request, file.write, most=limits.max_upload, seconds=limits.body_seconds)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(station.pool, _decode, station, file, clean_name(name or told))


def _decode(station: Services, file: Incoming, name: str) -> Received:
    """Decode first: what is no picture is not kept."""
    started = time.perf_counter()
    rgb, media_type = station.decoders.decode(file.flush())
    seconds = time.perf_counter() - started
    return Received(rgb, station.pictures.keep(file), name, media_type, seconds)
