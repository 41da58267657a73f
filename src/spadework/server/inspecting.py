"""From a picture to a recorded inspection: a bounded queue, threads that run the network, threads that search, one that records.

In: `Candidate`s, from any thread. Out: futures of `Inspection`s, in their order, answered once map and row are on the disk.
Nobody waits for a batch to fill. Each stage works on what the stage before has ready, as in `Detector.predict_each`, but without an end: network,
search and disk do not wait for each other across requests. Two pictures are searched at once, each by half the threads, where two are there: so no
core waits for the other at the end of each step; one that is alone has all threads. Rows are written in the order in which pictures were
taken, those that are ready together in one transaction. Each picture is judged by the one snapshot of the model that was in use when its turn came.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from spadework import check
from spadework.detectors.base import Detector
from spadework.detectors.reading import Decoded, Seen
from spadework.errors import ImageError
from spadework.images import as_rgb
from spadework.prediction import Failure, Prediction
from spadework.scores import Region, bounds
from spadework.server.errors import Overloaded, Stopped
from spadework.server.evidence import Evidence
from spadework.server.history import History
from spadework.server.pictures import Pictures
from spadework.server.records import Inspection, NewInspection, Watched
from spadework.server.served_model import Snapshot

REGIONS = 100  # recorded of one picture, the highest
AHEAD = 2  # batches that may wait to be recorded
PASSES = SEARCHES = 2  # forward passes and searches at once: together they are what works on a line's pictures


@dataclass(frozen=True)
class Candidate:
    """A picture to inspect: rgb uint8 (H, W, 3); the rest as in `NewInspection`. Its bytes must be kept already."""

    rgb: np.ndarray
    picture: str
    name: str
    source: str
    who: str
    media_type: str
    decode_seconds: float = 0.0
    watched: Watched | None = None


@dataclass
class _Job:
    """A picture on its way. came, began: when it was taken, and when its turn came. seen: what the network says of it; judged: the search."""

    candidate: Candidate
    future: Future[Inspection]
    came: float
    began: float = 0.0
    snapshot: Snapshot | None = None
    seen: Future[Seen | Failure] = field(default_factory=Future)
    judged: Future[Prediction] = field(default_factory=Future)


class Inspector:
    """The queue and the threads.

    Args:
        name: of the model.
        current: returns the snapshot that is in use.
        history: where inspections are recorded.
        pictures: where evidence is kept.
        most: how many pictures may wait.
        most_bytes: how much memory their pixels may take; one alone may take more.
        batch: how many inspections are recorded in one transaction.
    """

    def __init__(
        self,
        name: str,
        current: Callable[[], Snapshot],
        history: History,
        pictures: Pictures,
        *,
        most: int,
        most_bytes: int,
        batch: int,
    ) -> None:
        self.name, self.history, self.pictures = name, history, pictures
        self.most = check.positive_int(most, "queue")
        self.most_bytes = check.positive_int(most_bytes, "queue_bytes")
        self.batch = check.positive_int(batch, "batch")
        self._current = current
        self._waiting: deque[_Job] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._pace, self._last = 0.05, 0.0  # seconds a picture, of late; when the last was searched
        self._begun: deque[_Job] = deque()  # in order, the network at work on them
        self._searched = 0  # under way
        self._unrecorded: deque[_Job] = deque()  # in order, all that began
        detector = current().detector
        passes = 1 if _is_alone(detector) else PASSES
        searches = SEARCHES if current().can_share else 1
        self._ahead = passes + 1
        self._most_unrecorded = self._ahead + searches + AHEAD * self.batch
        works = [("network", self._see)] * passes + [("search", self._judge)] * searches + [("record", self._record)]
        self._threads = [threading.Thread(target=work, name=f"{name}-{what}", daemon=True) for what, work in works]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many pictures wait."""
        return len(self._waiting)

    @property
    def is_stopping(self) -> bool:
        """Whether nothing new is taken."""
        return self._stopping

    def submit(self, candidate: Candidate) -> Future[Inspection]:
        """Put a picture into the queue. What was taken is finished, also when the station stops.

        Raises:
            Overloaded: the queue is full.
            Stopped: nothing new is taken.
        """
        size = candidate.rgb.nbytes
        with self._changed:
            if self._stopping:
                raise Stopped(f"{self.name}: is stopping and takes nothing new.")
            full = len(self._waiting) >= self.most or (self._waiting and self._bytes + size > self.most_bytes)
            if full:
                seconds = max(0.1, len(self._waiting) * self._pace)
                raise Overloaded(f"{self.name}: {len(self._waiting)} pictures wait already. Try again later.", seconds)
            job = _Job(candidate, Future(), time.perf_counter())
            self._waiting.append(job)
            self._bytes += size
            self._changed.notify_all()
        return job.future

    def stop(self) -> None:
        """Take nothing new from now on."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        """Take nothing new, finish what was taken, end."""
        self.stop()
        for thread in self._threads:
            thread.join()

    # ---- inspecting --------------------------------------------------------------------------------------------------------

    def _see(self) -> None:
        """Run the network on what waits, a few ahead of the search."""
        while (job := self._begin()) is not None:
            assert job.snapshot is not None  # since it began
            try:
                job.seen.set_result(_seen(job.snapshot.detector, job.candidate))
            except Exception as error:
                job.seen.set_exception(error)

    def _begin(self) -> _Job | None:
        """The next one, as soon as there is one and room; None at the end."""
        with self._changed:
            while True:
                while not self._waiting or self._is_full():
                    if self._stopping and not self._waiting:
                        self._changed.notify_all()
                        return None
                    self._changed.wait()
                job = self._waiting.popleft()
                self._bytes -= job.candidate.rgb.nbytes
                if job.future.set_running_or_notify_cancel():  # else whoever asked has gone
                    job.began, job.snapshot = time.perf_counter(), self._current()
                    self._begun.append(job)
                    self._unrecorded.append(job)
                    self._changed.notify_all()
                    return job

    def _is_full(self) -> bool:
        return len(self._begun) >= self._ahead or len(self._unrecorded) >= self._most_unrecorded

    def _judge(self) -> None:
        """Search, one after another, beside others who do so."""
        while (job := self._first()) is not None:
            assert job.snapshot is not None  # since it began
            try:
                seen = job.seen.result()
                if isinstance(seen, Failure):
                    raise seen.error
                detector = job.snapshot.detector if self._is_only_one() else job.snapshot.beside
                job.judged.set_result(detector._predict_one(seen, None, job.began, image=None))
            except Exception as error:  # of the picture or the model: whoever waits is told, and the next is tried
                job.judged.set_exception(error)
                job.future.set_exception(error)
            with self._changed:
                now = time.perf_counter()
                self._pace += 0.1 * (now - max(self._last, job.began) - self._pace)
                self._last = now
                self._searched -= 1
                self._changed.notify_all()

    def _is_only_one(self) -> bool:
        """Whether the picture that is about to be searched has no other beside it."""
        with self._changed:
            return self._searched == 1 and not self._begun

    def _first(self) -> _Job | None:
        """The first that began and is not searched yet; None at the end."""
        with self._changed:
            while not self._begun:
                if self._stopping and not self._waiting:
                    return None
                self._changed.wait()
            self._searched += 1
            self._changed.notify_all()
            return self._begun.popleft()

    # ---- recording ---------------------------------------------------------------------------------------------------------

    def _record(self) -> None:
        while (jobs := self._judged()) is not None:
            self._write([job for job in jobs if job.judged.exception() is None])

    def _judged(self) -> list[_Job] | None:
        """The next that were judged, in order, as many as are there; None at the end."""
        found: list[_Job] = []
        with self._changed:
            while not (self._unrecorded and self._unrecorded[0].judged.done()):
                if self._stopping and not self._waiting and not self._unrecorded:
                    return None
                self._changed.wait()
            while len(found) < self.batch and self._unrecorded and self._unrecorded[0].judged.done():
                found.append(self._unrecorded.popleft())
            self._changed.notify_all()
        return found

    def _write(self, judged: Sequence[_Job]) -> None:
        ready, new = [], []
        for job in judged:
            try:
                new.append(self._record_of(job))
                ready.append(job.future)
            except Exception as error:  # no room on the disk, say
                job.future.set_exception(error)
        try:
            inspections = self.history.record_many(new)
        except Exception as error:  # the database does not answer
            for future in ready:
                future.set_exception(error)
            return
        for future, inspection in zip(ready, inspections, strict=True):
            future.set_result(inspection)

    def _record_of(self, job: _Job) -> NewInspection:
        candidate, found, snapshot = job.candidate, job.judged.result(), job.snapshot
        assert snapshot is not None  # since it began
        evidence = Evidence.of(found, snapshot.detector)
        nearest = tuple({"name": name, "distance": distance} for name, distance in found.nearest_images)
        return NewInspection(
            model=self.name,
            model_hash=snapshot.model_hash,
            backbone_hash=snapshot.backbone_hash,
            detector=snapshot.detector.name,
            name=candidate.name,
            source=candidate.source,
            who=candidate.who,
            picture=candidate.picture,
            media_type=candidate.media_type,
            height=found.size[0],
            width=found.size[1],
            score=float(found.score),
            threshold=found.threshold,
            map_threshold=found.map_threshold,
            verdict=found.verdict,
            regions=tuple(regions_of(found)),
            nearest=nearest,
            nearest_distance=found.nearest_images[0][1] if nearest else None,
            timings=_timings(job, found),
            evidence=None if evidence is None else self.pictures.put_evidence(evidence.to_bytes()),
            watched=candidate.watched,
        )


def _timings(job: _Job, found: Prediction) -> dict[str, float]:
    return {"decode": job.candidate.decode_seconds, "wait": job.began - job.came, "inspect": found.seconds}


def _is_alone(detector: Detector) -> bool:
    """Whether the network has one thread: who allows one means it."""
    return detector.needs == "pyramid" and getattr(getattr(detector, "backbone_", None), "threads", None) == 1


def _seen(detector: Detector, candidate: Candidate) -> Seen | Failure:
    """What the detector sees of a picture: the first half of `predict_each`."""
    decoded: Decoded = Future()
    try:
        image = as_rgb(candidate.rgb, name=candidate.name)
        decoded.set_result((image, detector._view().see(image)))
    except (ValueError, ArithmeticError) as error:
        own = isinstance(error, ImageError)
        decoded.set_exception(
            error if own else ImageError(f"{candidate.name}: cannot be brought to the network's size: {error}")
        )
    return detector._see_one(candidate.name, candidate.rgb, decoded)


# ---- regions ---------------------------------------------------------------------------------------------------------------


def regions_of(prediction: Prediction) -> list[dict[str, Any]]:
    """Return a prediction's regions as plain values, the REGIONS highest, each with the polygon around it: [[x, y], ...] in pixels."""
    if not prediction.regions or prediction.score_map is None:
        return []
    outlines = _outlines(prediction.score_map, prediction.map_threshold)
    return [
        {
            "box": list(region.box),
            "area": region.area,
            "peak": list(region.peak),
            "score": region.score,
            "polygons": outlines.get(region.box) or [_corners(region)],
        }
        for region in prediction.regions[:REGIONS]
    ]


def _outlines(score_map: np.ndarray, threshold: float | None) -> dict[tuple[int, int, int, int], list[list[list[int]]]]:
    """The outer contours of all regions, by their boxes."""
    above = score_map > threshold
    part = bounds(above)
    if part is None:
        return {}
    top, left = part[0].start, part[1].start
    contours, tree = cv2.findContours(above[part].astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    found: dict[tuple[int, int, int, int], list[list[list[int]]]] = {}
    for contour, (_, _, _, around) in zip(contours, tree[0], strict=True):
        if around < 0:  # else the edge of a hole
            x, y, width, height = cv2.boundingRect(contour)
            box = (top + y, left + x, top + y + height, left + x + width)
            points = cv2.approxPolyDP(contour, 1.0, True).reshape(-1, 2) + np.array([left, top])
            if len(points) > 2:
                found.setdefault(box, []).append(points.tolist())
    return found


def _corners(region: Region) -> list[list[int]]:
    y0, x0, y1, x1 = region.box
    return [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]
