"""What a station shows of its model: the normal pictures it holds, and the normal place that a place of a part was compared with."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np

from spadework import check
from spadework.detectors.explaining import cut
from spadework.detectors.spade import Spade
from spadework.errors import InputError
from spadework.server.errors import NotFound, PictureGone
from spadework.server.evidence import Evidence
from spadework.server.history import History
from spadework.server.pictures import Pictures
from spadework.server.records import Inspection
from spadework.server.served_model import Read, ServedModel

MOST = 1000  # normal pictures in one answer
KEPT_PICTURES, KEPT_EVIDENCE = 2, 8  # for whoever moves over a picture
Value = TypeVar("Value")


@dataclass(frozen=True)
class Normal:
    """A normal picture of a model. score: when it was last left out to set the threshold, if it was. added_by, added_at: if it was appended."""

    name: str
    pixel_hash: str
    size: tuple[int, int]
    score: float | None = None
    added_by: str | None = None
    added_at: datetime | None = None
    inspection_id: int | None = None


@dataclass(frozen=True)
class Matched:
    """The normal place that a place was compared with.

    y, x, box: the place, and what surrounds it, in the picture. normal: the picture that was matched. normal_box: where, in its pixels.
    distance: squared. removed: whether it was taken out of the model since.
    here, there: uint8 (h, w, 3), both places; None where their pictures are gone.
    """

    y: int
    x: int
    box: tuple[int, int, int, int]
    normal: Normal
    normal_box: tuple[int, int, int, int]
    distance: float
    removed: bool
    here: np.ndarray | None
    there: np.ndarray | None


class _Few:
    """The values asked for last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[str, object] = OrderedDict()
        self._turn = threading.Lock()

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        with self._turn:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]  # type: ignore[return-value]
        value = make()
        with self._turn:
            self._values[key] = value
            while len(self._values) > self.most:
                self._values.popitem(last=False)
        return value


class Showing:
    """Answers from the model in use, the history and the kept files.

    Args:
        model: the model.
        history: of its inspections and changes.
        pictures: where evidence lies.
        read: returns the pixels of a kept picture; raises PictureGone.
    """

    def __init__(self, model: ServedModel, history: History, pictures: Pictures, read: Read) -> None:
        self.model, self.history, self.pictures, self.read = model, history, pictures, read
        self._pictures, self._evidence = _Few(KEPT_PICTURES), _Few(KEPT_EVIDENCE)

    def normals(self, offset: int = 0, limit: int = 50) -> tuple[Normal, ...]:
        """See `Station.normals`."""
        offset, limit = check.whole(offset, "offset"), check.positive_int(limit, "limit")
        if limit > MOST:
            raise InputError(f"limit may be at most {MOST}, not {limit}.")
        gallery, detector = self.model.current.gallery, self.model.current.detector
        entries = [] if gallery is None else gallery.entries[offset : offset + limit]
        scores = detector.score_of_each() if isinstance(detector, Spade) else {}
        added = self.history.appended(self.model.name, [entry.sha256 for entry in entries]) if entries else {}
        found = []
        for place, entry in enumerate(entries, offset):
            change = added.get(entry.sha256)
            how = (None, None, None) if change is None else (change.made.who, change.at, change.made.inspection_id)
            found.append(Normal(entry.name, entry.sha256, entry.size, scores.get(place), *how))
        return tuple(found)

    def normal_thumbnail(self, pixel_hash: str) -> np.ndarray:
        """See `Station.normal_thumbnail`."""
        current = self.model.current
        place = current.places.get(pixel_hash)
        if place is None or current.gallery is None:
            raise NotFound(f"{self.model.name}: holds no normal picture {pixel_hash[:80]}.")
        return current.gallery.thumbnail(place)

    def evidence(self, inspection: Inspection) -> Evidence:
        """See `Station.evidence`."""
        name = inspection.seen.evidence
        if name is None:
            raise NotFound(f"{self.model.name}: inspection {inspection.id} has no map: its detector gives none.")
        found = self._evidence.get(name, lambda: Evidence.read(self.pictures.evidence_path(name)))
        if found is None:
            raise PictureGone("the map was cleaned away. Inspect the part again.")
        return found

    def match(self, inspection: Inspection, y: int, x: int, *, patch: int = 48) -> Matched:
        """See `Station.match`."""
        found = self.evidence(inspection).match(y, x, patch=patch)
        change = self.history.appended(self.model.name, [found.pixel_hash]).get(found.pixel_hash)
        how = (None, None, None) if change is None else (change.made.who, change.at, change.made.inspection_id)
        try:
            thumbnail: np.ndarray | None = self.normal_thumbnail(found.pixel_hash)
        except NotFound:
            thumbnail = None
        try:
            picture = self._pictures.get(inspection.seen.picture, lambda: self.read(inspection.seen.picture))
            y0, x0, y1, x1 = found.box
            here: np.ndarray | None = picture[y0:y1, x0:x1].copy()
        except PictureGone:
            here = None
        return Matched(
            y=y,
            x=x,
            box=found.box,
            normal=Normal(found.name, found.pixel_hash, found.size, None, *how),
            normal_box=found.normal_box,
            distance=found.distance,
            removed=thumbnail is None,
            here=here,
            there=None if thumbnail is None else cut(thumbnail, found.normal_box, found.size),
        )
