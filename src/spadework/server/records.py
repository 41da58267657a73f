"""What the station remembers: inspections, what people decided of them, and what was changed in a model.

Plain values, the same from every database. Nothing is ever overwritten: a decision or change is a record of its own, and undoing one is a mark on it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

SOURCES = frozenset({"upload", "camera", "watch"})
KINDS = frozenset({"normal", "defect"})
CHANGES = frozenset({"append", "remove", "threshold", "reload"})


@dataclass(frozen=True)
class Watched:
    """A file in a watched folder, as it was when it was inspected."""

    path: str
    device: int
    inode: int
    mtime_ns: int
    size: int


@dataclass(frozen=True)
class NewInspection:
    """One picture, inspected once, before the history has given it a number.

    model: the station's name of the model. model_hash, backbone_hash, detector: which answered.
    name: what the picture is called; source: "upload", "camera" or "watch"; who: whose token, or "local".
    picture: SHA-256 of the bytes as they came. media_type: found out from them. height, width: in pixels, upright.
    score, threshold, map_threshold, verdict: as in `Prediction`.
    regions: highest first: box [y0, x0, y1, x1], area, peak [y, x], score, polygons [[[x, y], ...], ...].
    nearest: name and distance of the nearest normal pictures. nearest_distance: of the nearest one.
    timings: seconds of "decode", "wait", "inspect".
    evidence: SHA-256 of the file that holds map and matches; None where the detector gives no map.
    watched: the file it came from, of a watched folder.
    """

    model: str
    model_hash: str
    backbone_hash: str | None
    detector: str
    name: str
    source: str
    who: str
    picture: str
    media_type: str
    height: int
    width: int
    score: float
    threshold: float | None
    map_threshold: float | None
    verdict: str
    regions: tuple[dict[str, Any], ...] = ()
    nearest: tuple[dict[str, Any], ...] = ()
    nearest_distance: float | None = None
    timings: dict[str, float] = field(default_factory=dict)
    evidence: str | None = None
    watched: Watched | None = None


@dataclass(frozen=True)
class Decision:
    """What a person said of an inspection: "normal" or "defect"; who, when, of which model at which threshold.

    appended: whether the picture was added to the model because of it. undone_at, undone_by: set once, when it was taken back.
    withdrawn: whether the picture was taken out of the model again after that.
    """

    id: int
    inspection_id: int
    kind: str
    who: str
    at: datetime
    note: str
    model: str
    model_hash: str
    threshold: float | None
    appended: bool = False
    undone_at: datetime | None = None
    undone_by: str | None = None
    withdrawn: bool = False


@dataclass(frozen=True)
class Inspection:
    """An inspection in the history. `decision` is the latest that was not undone; `files_removed_at` is set when a clean-up took its files."""

    id: int
    at: datetime
    seen: NewInspection
    decision: Decision | None = None
    files_removed_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values: what was seen, with number, time (ISO 8601, UTC) and decision."""
        told = asdict(self.seen)
        told.pop("watched")
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            **told,
            "regions": list(told["regions"]),
            "nearest": list(told["nearest"]),
            "decision": None if self.decision is None else plain(self.decision),
            "files_removed_at": None if self.files_removed_at is None else self.files_removed_at.isoformat(),
        }


@dataclass(frozen=True)
class NewChange:
    """A change of a model, before it has a number. what: "append", "remove", "threshold" or "reload". pictures: pixel hashes."""

    model: str
    who: str
    what: str
    model_hash_before: str
    model_hash_after: str
    pictures: tuple[str, ...] = ()
    inspection_id: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelChange:
    """A change of a model in the history."""

    id: int
    at: datetime
    made: NewChange


@dataclass(frozen=True)
class Filter:
    """Which inspections to list. decision: "normal", "defect" or "none". since is included, until is not. text: part of the name."""

    model: str | None = None
    verdict: str | None = None
    decision: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    score_min: float | None = None
    score_max: float | None = None
    newest_first: bool = True
    cursor: str | None = None
    limit: int = 50


@dataclass(frozen=True)
class Page:
    """A page of a list. cursor: hand it back for the next page; None at the end. total: of the whole list, if it was counted."""

    items: tuple[Inspection, ...]
    cursor: str | None
    total: int | None = None


@dataclass(frozen=True)
class Changes:
    """A page of the changes of a model, newest first. cursor: as in `Page`."""

    items: tuple[ModelChange, ...]
    cursor: str | None


def plain(record: Decision | NewChange) -> dict[str, Any]:
    """Return a record as plain JSON values, times in ISO 8601."""
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(record).items()}
