"""All that stands behind the routes: history, pictures, decoders, stations, watched folders; opened in this order, closed in reverse."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import anyio

from spadework.server.auth import Doorkeeper, Origins
from spadework.server.cleaning import clean
from spadework.server.decoding import Decoders
from spadework.server.events import Events
from spadework.server.history import History
from spadework.server.limits import Rate, Room
from spadework.server.logs import log
from spadework.server.metrics import Metrics
from spadework.server.pictures import Pictures
from spadework.server.problems import not_found
from spadework.server.records import Inspection, NewInspection
from spadework.server.settings import Settings
from spadework.server.settling import Settling
from spadework.server.station import Station
from spadework.server.watch import Watch

CLEANING_SECONDS = 3600.0


class LiveHistory(History):
    """A history that waits for the pictures of inspections to be on the disk, and tells everybody who listens of what was written."""

    def __init__(self, url: str, pictures: Pictures, *, settling: Settling, events: Events, metrics: Metrics) -> None:
        super().__init__(url, pictures)
        self._settling, self._events, self._metrics = settling, events, metrics

    def record_many(self, new: Sequence[NewInspection]) -> list[Inspection]:
        """As `History.record_many`."""
        self._settling.wait({one.picture for one in new})
        written = super().record_many(new)
        for inspection in written:
            seen = inspection.seen
            self._events.publish("inspection", inspection.to_json(), inspection=inspection.id)
            self._metrics.inspections.labels(seen.model, seen.verdict, seen.source).inc()
            for stage, seconds in seen.timings.items():
                self._metrics.stages.labels(seen.model, stage).observe(seconds)
        return written


class Services:
    """The station as a whole. `draining`: it takes nothing new, and finishes what it has."""

    history: LiveHistory
    pictures: Pictures
    decoders: Decoders
    pool: ThreadPoolExecutor

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.door, self.origins = Doorkeeper(settings), Origins(settings)
        self.rate = Rate(settings.rate)
        self.room = Room(settings.queue + settings.batch, settings.queued_bytes)
        self.settling, self.events, self.metrics = Settling(), Events(), Metrics()
        self.stations: dict[str, Station] = {}
        self.watches: list[Watch] = []
        self.draining = False
        self.ready = False
        # Whole pictures and changes of models take memory and locks: few at a time, so that lists and inspections go on beside them.
        self.drawing, self.changing = anyio.CapacityLimiter(2), anyio.CapacityLimiter(4)
        self._stack = contextlib.ExitStack()
        self._stop_cleaning = threading.Event()
        self.metrics.under_way.set_function(lambda: self.room.taken)
        self.metrics.held_bytes.set_function(lambda: self.room.bytes)
        self.metrics.listeners.set_function(lambda: self.events.listening)

    def open(self) -> None:
        """Open everything; what was opened is closed again if something cannot be."""
        with contextlib.ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        self.ready = True
        log("opened", models=sorted(self.stations), watches=len(self.watches))

    def _open(self, stack: contextlib.ExitStack) -> None:
        settings = self.settings
        settings.folder.mkdir(parents=True, exist_ok=True)
        self.pictures = Pictures(settings.pictures)
        self.history = LiveHistory(
            settings.database_url, self.pictures, settling=self.settling, events=self.events, metrics=self.metrics
        )
        stack.callback(self.history.close)
        self.history.upgrade()
        self.decoders = Decoders(settings.decoders, settings.max_pixels, settings.decode_bytes, settings.decode_seconds)
        stack.callback(self.decoders.close)
        self.pool = ThreadPoolExecutor(
            settings.decoders + 2, "upload"
        )  # two decode, others write, none waits for an inspection
        stack.callback(self.pool.shutdown)
        for name, path in settings.models.items():
            station = Station(
                name,
                path,
                self.history,
                self.pictures,
                threads=settings.threads,
                queue=settings.queue,
                batch=settings.batch,
                decoders=self.decoders,
                queue_bytes=settings.queued_bytes,
            )
            stack.callback(station.close)
            self.stations[name] = station
            self.metrics.normals.labels(name).set(station.snapshot().n_normal_)
        for watch in settings.watches:
            station = self.stations[watch.model]
            self.watches.append(Watch(watch.folder, station, self.pictures, self.decoders, self.history))
            stack.callback(self.watches[-1].close)
        for name in {watch.model for watch in settings.watches}:
            own = [watch for watch in self.watches if watch.station.name == name]
            self.metrics.watch(name, own)
        cleaner = threading.Thread(target=self._clean_now_and_then, name="cleaning", daemon=True)
        cleaner.start()
        stack.callback(cleaner.join)
        stack.callback(self._stop_cleaning.set)

    def close(self) -> None:
        """Finish what was accepted, and close everything."""
        self.ready, self.draining = False, True
        self._stack.close()
        log("closed")

    def drain(self) -> None:
        """Take nothing new from now on, and let listeners go. To be called in the loop."""
        self.draining = True
        self.events.close()

    def station(self, name: str) -> Station:
        """Return the station of a model. Raises Problem 404."""
        found = self.stations.get(name)
        if found is None:
            raise not_found("such model here")
        return found

    def _clean_now_and_then(self) -> None:
        """Also where everything is kept for ever: what a crash left behind goes."""
        settings = self.settings
        while not self._stop_cleaning.wait(CLEANING_SECONDS):
            started = time.monotonic()
            try:
                removed = clean(self.history, settings.keep_days, settings.keep_bytes)
            except Exception as error:  # a full disk, a database away: it is tried again in an hour
                log("cleaning failed", level=40, error=error)
            else:
                log("cleaned", **asdict(removed), seconds=round(time.monotonic() - started, 3))
