"""From a picture to a recorded inspection: a bounded queue, one thread that inspects what waits in batches, one that records in batches.

In: `Candidate`s, from any thread. Out: futures of `Inspection`s, answered once map and row are on the disk.
Nobody waits for a batch to fill: what waits when the inspecting thread is free is the batch. Recording runs beside it, so disks and
network do not wait for each other. Each batch is judged by the one snapshot of the model that was in use when it began.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from spadework import check
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
    candidate: Candidate
    future: Future[Inspection]
    came: float
    wait: float = 0.0


@dataclass(frozen=True)
class _Judged:
    job: _Job
    prediction: Prediction
    snapshot: Snapshot


class Inspector:
    """The queue and the two threads.

    Args:
        name: of the model.
        current: returns the snapshot that is in use.
        history: where inspections are recorded.
        pictures: where evidence is kept.
        most: how many pictures may wait.
        most_bytes: how much memory their pixels may take; one alone may take more.
        batch: how many pictures are inspected, and recorded, at once.
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
        self._pace = 0.05  # seconds a picture, of late
        self._judged: queue.Queue[_Judged | None] = queue.Queue(AHEAD * self.batch)
        self._threads = [
            threading.Thread(target=work, name=f"{name}-{what}", daemon=True)
            for what, work in (("inspect", self._inspect), ("record", self._record))
        ]
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
            self._changed.notify()
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

    def _inspect(self) -> None:
        while jobs := self._take():
            started = time.perf_counter()
            snapshot = self._current()
            judged = 0
            try:
                found = snapshot.detector.predict_each([job.candidate.rgb for job in jobs])
                for job, item in zip(jobs, found, strict=True):
                    judged += 1
                    self._hand_over(job, item, snapshot)
            except Exception as error:  # of the model itself: whoever waits is told, and the next batch tries again
                for job in jobs[judged:]:
                    job.future.set_exception(error)
            del jobs
            self._pace += 0.2 * ((time.perf_counter() - started) / max(1, judged) - self._pace)
        self._judged.put(None)

    def _take(self) -> list[_Job]:
        """What waits, at most a batch, as soon as anything does; nothing at the end."""
        jobs: list[_Job] = []
        with self._changed:
            while not jobs:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if not self._waiting:
                    return []
                while self._waiting and len(jobs) < self.batch:
                    job = self._waiting.popleft()
                    self._bytes -= job.candidate.rgb.nbytes
                    if job.future.set_running_or_notify_cancel():  # else whoever asked has gone
                        jobs.append(job)
        return jobs

    def _hand_over(self, job: _Job, item: Prediction | Failure, snapshot: Snapshot) -> None:
        if isinstance(item, Failure):
            job.future.set_exception(item.error)
            return
        job.wait = max(0.0, time.perf_counter() - job.came - item.seconds)
        self._judged.put(_Judged(job, item, snapshot))

    # ---- recording ---------------------------------------------------------------------------------------------------------

    def _record(self) -> None:
        open_ = True
        while open_:
            found = [self._judged.get()]
            while len(found) < self.batch and found[-1] is not None:
                try:
                    found.append(self._judged.get_nowait())
                except queue.Empty:
                    break
            open_ = found[-1] is not None
            self._write([one for one in found if one is not None])

    def _write(self, judged: Sequence[_Judged]) -> None:
        ready, new = [], []
        for one in judged:
            try:
                new.append(self._record_of(one))
                ready.append(one.job.future)
            except Exception as error:  # no room on the disk, say
                one.job.future.set_exception(error)
        try:
            inspections = self.history.record_many(new)
        except Exception as error:  # the database does not answer
            for future in ready:
                future.set_exception(error)
            return
        for future, inspection in zip(ready, inspections, strict=True):
            future.set_result(inspection)

    def _record_of(self, judged: _Judged) -> NewInspection:
        candidate, found, snapshot = judged.job.candidate, judged.prediction, judged.snapshot
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
            timings={"decode": candidate.decode_seconds, "wait": judged.job.wait, "inspect": found.seconds},
            evidence=None if evidence is None else self.pictures.put_evidence(evidence.to_bytes()),
            watched=candidate.watched,
        )


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
