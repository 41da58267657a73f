"""From a request's body to a picture's pixels: room for it, a bounded read, a decoding in a process of its own, its bytes kept on disk."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from starlette.requests import Request

from spadework.server.pictures import Incoming
from spadework.server.problems import unavailable
from spadework.server.records import Inspection
from spadework.server.services import Services
from spadework.server.uploads import clean_name, read_picture


@dataclass(frozen=True)
class Received:
    """A picture that came: rgb uint8 (H, W, 3); picture: SHA-256 of its bytes; seconds: of decoding."""

    rgb: np.ndarray
    picture: str
    name: str
    media_type: str
    seconds: float


Made = TypeVar("Made")
Submit = Callable[[Received], Future[Inspection]]


@contextlib.asynccontextmanager
async def receiving(request: Request, station: Services, name: str | None) -> AsyncIterator[Received]:
    """Receive a picture that is not to be kept, and hold its place and memory until the work on it is done.

    Args:
        request: with a picture as its body.
        station: where it goes.
        name: what to call it; None to take what a form says.

    Raises:
        Problem: too much to do, or a body that breaks a rule.
        DecodingError: no picture, damaged, too large.
    """
    async with _incoming(request, station) as (file, told):
        received = await _in_pool(station, lambda: _decode(station, file, clean_name(name or told)))
        with station.room.hold(received.rgb.nbytes):
            yield received


async def inspecting(request: Request, station: Services, name: str | None, submit: Submit) -> Inspection:
    """Receive a picture, have it inspected while its bytes go to the disk, and return what is in the history then.

    Args:
        request: as in `receiving`.
        station: as in `receiving`.
        name: as in `receiving`.
        submit: hands it over; called in a thread.

    Raises:
        Problem: as in `receiving`.
        StationError: as in `receiving`, and where the station takes nothing.
        OutputError: it cannot be kept; it is not in the history then.
    """
    async with _incoming(request, station) as (file, told):
        with contextlib.ExitStack() as held:

            def work() -> Future[Inspection]:
                received = _decode(station, file, clean_name(name or told))  # first: what is no picture is not kept
                held.enter_context(station.room.hold(received.rgb.nbytes))
                settled = held.enter_context(station.settling.picture(received.picture))
                answer = submit(received)
                _keep(station, file, settled)
                return answer

            answer = await _in_pool(station, work)
            # Shielded: a client that goes away takes nothing back of what was accepted.
            return await asyncio.shield(asyncio.wrap_future(answer))


@contextlib.asynccontextmanager
async def _incoming(request: Request, station: Services) -> AsyncIterator[tuple[Incoming, str | None]]:
    if station.draining:
        raise unavailable("stopping", "The station is stopping.", "Send it again soon.", after=5)
    limits = station.settings
    with station.room.place(), station.pictures.incoming() as file:
        told = await read_picture(request, file.write, most=limits.max_upload, seconds=limits.body_seconds)
        yield file, told


async def _in_pool(station: Services, work: Callable[[], Made]) -> Made:
    return await asyncio.get_running_loop().run_in_executor(station.pool, work)


def _decode(station: Services, file: Incoming, name: str) -> Received:
    started = time.perf_counter()
    rgb, media_type = station.decoders.decode(file.flush())
    return Received(rgb, file.sha256, name, media_type, time.perf_counter() - started)


def _keep(station: Services, file: Incoming, settled: Future[None]) -> None:
    """Keep a picture that is being inspected; what goes wrong reaches the client from whoever would write the row."""
    try:
        station.pictures.keep(file)
    except BaseException as error:
        settled.set_exception(error)
    else:
        settled.set_result(None)
