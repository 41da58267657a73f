"""A model on the disk and the instance of it that is in use; how the one changes and the other follows.

The detector in use is never changed. A change is made by a second instance of the folder, atomically on the disk; then that one is put to use,
and inspections under way end on the one they began with: nobody sees half a change.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from spadework.detectors import load_detector
from spadework.detectors.base import Detector
from spadework.detectors.spade import Spade
from spadework.errors import ModelError
from spadework.gallery import Gallery
from spadework.kernels import thread_count
from spadework.server.errors import CannotLearn, Conflict, ModelGone, Stopped
from spadework.server.history import History
from spadework.server.records import ModelChange, NewChange
from spadework.storage import lock_file

LOCK = "station.lock"
STATION = "station"  # who made a change that nobody asked for


@dataclass(frozen=True)
class Snapshot:
    """A model as it is in use; never changed. What changes the model makes another."""

    detector: Detector
    model_hash: str
    backbone_hash: str | None

    @classmethod
    def of(cls, detector: Detector) -> Snapshot:
        """Take a fitted detector into use."""
        network = detector.folder_.header["backbone"]
        return cls(detector, detector.model_hash(), network["hash"] if network else None)

    @cached_property
    def beside(self) -> Detector:
        """The detector as it searches when it is not alone: with half the threads. Everything else it shares with `detector`."""
        if not self.can_share:
            return self.detector
        twin = copy(self.detector)
        twin.threads = thread_count(self.detector.threads) // 2
        return twin

    @property
    def can_share(self) -> bool:
        """Whether two pictures may be searched at once: SPADE's search changes nothing, and has threads to share."""
        return isinstance(self.detector, Spade) and thread_count(self.detector.threads) > 1

    @property
    def gallery(self) -> Gallery | None:
        """The normal pictures; None where the detector keeps none."""
        return getattr(self.detector, "gallery_", None)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each normal picture lies in the gallery, by its pixel hash."""
        return {} if self.gallery is None else {entry.sha256: image for image, entry in enumerate(self.gallery.entries)}


class ServedModel:
    """The model of one station.

    Args:
        name: what people call it.
        path: its folder.
        history: where its changes are recorded.
        threads: of the network and of the search; None for the default.

    Raises:
        ModelGone: it cannot be opened.
        Conflict: another station has it open.
    """

    def __init__(self, name: str, path: str | os.PathLike[str], history: History, *, threads: int | None) -> None:
        self.name, self.path, self.history, self.threads = name, Path(path), history, threads
        self._turn = threading.Lock()
        self._closed = False
        self._current: Snapshot | None = None
        first = self.second()
        self._lock = _own(self.path, name)
        side = first._view().size
        first.predict(np.full((*side, 3), 128, np.uint8))  # all is compiled and open before the first request
        self._current = Snapshot.of(first)
        last = history.changes(name, None, 1).items
        self._recorded = last[0].made.model_hash_after if last else self._current.model_hash

    @property
    def current(self) -> Snapshot:
        """What is in use."""
        assert self._current is not None  # only while it is being opened
        return self._current

    @property
    def can_learn(self) -> bool:
        """Whether single pictures can be taken in and out."""
        return isinstance(self.current.detector, Spade)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """One change at a time.

        Raises:
            Stopped: it was closed.
            ModelGone: the model on the disk cannot be used.
        """
        with self._turn:
            if self._closed:
                raise Stopped(f"{self.name}: is closed.")
            try:
                yield
            except ModelError as error:
                raise ModelGone(f"{self.name}: {error}") from error

    def second(self) -> Detector:
        """Open the folder once more, with the network that is in use already.

        Raises:
            ModelGone: it is deleted or damaged.
        """
        try:
            opened = load_detector(self.path, threads=self.threads)
        except ModelError as error:
            raise ModelGone(f"{self.name}: {error}") from error
        network = opened.folder_.header["backbone"]
        if self._current is not None and network is not None and network["hash"] == self._current.backbone_hash:
            cast("Any", opened).backbone_ = cast("Any", self._current.detector).backbone_
        return opened

    def learner(self) -> Spade:
        """As `second`, to take single pictures in or out.

        Raises:
            ModelGone: as `second`.
            CannotLearn: the detector cannot.
        """
        opened = self.second()
        if not isinstance(opened, Spade):
            raise CannotLearn(
                f"{self.name}: detector {opened.name!r} cannot take single pictures in or out. "
                "Fit it again on all normal pictures, or serve a model of detector 'spade'."
            )
        return opened

    def use(self, detector: Detector) -> None:
        """Put another instance to use. Raises ModelError where its network is not there."""
        detector._open_backbone()
        self._current = Snapshot.of(detector)

    def changed(
        self,
        what: str,
        who: str,
        *,
        pictures: Sequence[str] = (),
        inspection_id: int | None = None,
        decision_id: int | None = None,
        detail: dict[str, Any] | None = None,
    ) -> ModelChange:
        """Record a change that led to the model in use, and mark the decision that it was made for."""
        threshold = self.current.detector.threshold_
        told = {**(detail or {}), "threshold": threshold.value, "n_normal": self.current.detector.n_normal_}
        hashes = (self._recorded, self.current.model_hash)
        new = NewChange(self.name, who, what, *hashes, tuple(pictures), inspection_id, told)
        made = self.history.change(new, decision_id=decision_id)
        self._recorded = self.current.model_hash
        return made

    def close(self) -> None:
        """Wait for the change under way, and let others have the model."""
        with self._turn:
            self._closed = True
            if self._lock is not None:
                self._lock.close()

    def note_strangers(self) -> None:
        """Record that the model was changed while it was not served: by the command line, or by a crash before a change was recorded."""
        if self._recorded != self.current.model_hash:
            self.changed("reload", STATION, detail={"why": "changed while not served"})


def _own(path: Path, name: str) -> BinaryIO | None:
    """Keep other stations from a model: two would each miss what the other learns. One that nobody can write to needs no keeping."""
    try:
        file = open(path / LOCK, "a+b")  # noqa: SIM115 - held until `close`
    except OSError:
        return None
    try:
        lock_file(file.fileno())
    except OSError:
        file.close()
        raise Conflict(f"{name}: another station serves {path} already. Stop it first, or serve a copy.") from None
    return file


Read = Callable[[str], np.ndarray]  # SHA-256 of a kept picture -> its pixels
