"""What Prometheus reads at /metrics: requests, inspections by stage, what was turned away, queues, events."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)


class Watched(Protocol):
    """A watched folder, as far as it is counted."""

    done: int

    @property
    def waiting(self) -> int:
        """Files that were not inspected yet."""

    @property
    def bad(self) -> Sized:
        """Files that cannot be."""


class Metrics:
    """The station's counters, in a registry of their own, so that several stations in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("http_requests", "Requests answered.", ["method", "route", "status"])
        self.seconds = Histogram(
            "spadework_http_request_seconds", "From a request's head to its answer's end.", ["method", "route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.inspections = self._counter("inspections", "Pictures inspected.", ["model", "verdict", "source"])
        self.stages = Histogram(
            "spadework_inspection_stage_seconds", "Parts of an inspection: decode, wait, inspect.", ["model", "stage"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.turned_away = self._counter("turned_away", "Requests answered with an error, by its code.", ["code"])
        self.decisions = self._counter("decisions", "Decisions of people, and undone ones.", ["kind"])
        self.under_way = self._gauge("inspections_under_way", "Inspections accepted and not answered yet.")
        self.held_bytes = self._gauge("decoded_bytes", "Bytes of decoded pictures that wait.")
        self.listeners = self._gauge("event_listeners", "Clients that listen to events.")
        self.normals = Gauge(
            "spadework_normal_pictures", "Normal pictures in a model.", ["model"], registry=self.registry
        )

        self.watched = Gauge(
            "spadework_watched_files", "Files of watched folders.", ["model", "state"], registry=self.registry
        )

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"spadework_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"spadework_{name}", text, registry=self.registry)

    def watch(self, model: str, watches: Sequence[Watched]) -> None:
        """Measure what became of the files of a model's watched folders."""
        self.watched.labels(model, "waiting").set_function(lambda: sum(one.waiting for one in watches))
        self.watched.labels(model, "inspected").set_function(lambda: sum(one.done for one in watches))
        self.watched.labels(model, "bad").set_function(lambda: sum(len(one.bad) for one in watches))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return bytes(generate_latest(self.registry))
