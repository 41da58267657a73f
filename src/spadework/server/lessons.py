"""What people say of inspections, and what the model learns from it.

"This is normal": the decision is recorded, the picture goes into the model, then decision and change are marked in one transaction. "Undo":
recorded, taken out, marked. What a crash cuts short between two steps is finished when the station opens (`finish`): the pictures that were taken
in bear the number of their inspection in their names, so it can tell which they are.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass

import numpy as np

from spadework.detectors.spade import Spade
from spadework.errors import SpadeworkError
from spadework.images import pixel_hash
from spadework.server.errors import Conflict, NotFound
from spadework.server.history import History
from spadework.server.records import Decision, Inspection
from spadework.server.served_model import STATION, Read, ServedModel, Snapshot

LABEL = re.compile(r" \(inspection (\d{1,18})\)$")
LOG = logging.getLogger("spadework.station")


@dataclass(frozen=True)
class Marked(Decision):
    """A decision "normal", and what the model says of the picture now that it knows it.

    passes: whether it is no alarm any more; None without a threshold. score_now, verdict_now, model_hash_now: of the model. seconds: it took.
    """

    passes: bool | None = None
    score_now: float | None = None
    verdict_now: str | None = None
    model_hash_now: str | None = None
    seconds: float = 0.0


def label_of(inspection: Inspection) -> str:
    """Return what a picture is called in the model that it was taken into because of this inspection."""
    return f"{inspection.seen.name} (inspection {inspection.id})"


class Lessons:
    """Decisions on the inspections of one model.

    Args:
        model: the model.
        history: of its inspections.
        read: returns the pixels of a kept picture; raises PictureGone.
    """

    def __init__(self, model: ServedModel, history: History, read: Read) -> None:
        self.model, self.history, self.read = model, history, read

    def mark_normal(self, inspection_id: int, who: str, note: str = "") -> Marked:
        """See `Station.mark_normal`."""
        started = time.perf_counter()
        inspection = self.inspection(inspection_id)
        rgb = self.read(inspection.seen.picture)
        with self.model.changing():
            detector = self.model.learner()
            decision = self._standing(inspection)
            if decision is not None and decision.kind == "normal":
                return self._learn(decision, inspection, rgb, detector, started)
            decision = self._decide(inspection, "normal", who, note)
            try:
                return self._learn(decision, inspection, rgb, detector, started)
            except Exception:
                if not self._is_held(inspection, rgb):  # nothing was learnt, so nothing was said
                    self.history.undo(decision.id, who)
                raise

    def mark_defect(self, inspection_id: int, who: str, note: str = "") -> Decision:
        """See `Station.mark_defect`."""
        inspection = self.inspection(inspection_id)
        with self.model.changing():
            standing = self._standing(inspection)
            if standing is not None and standing.kind == "defect":
                return standing
            for decision in reversed(self.history.decisions(inspection_id)):
                if decision.undone_at is None and decision.kind == "normal":
                    self._undo(decision, inspection, who)
            return self._decide(inspection, "defect", who, note)

    def undo(self, decision_id: int, who: str) -> Decision:
        """See `Station.undo`."""
        with self.model.changing():
            decision = self.history.decision(decision_id)
            if decision is None or decision.model != self.model.name:
                raise NotFound(f"{self.model.name}: there is no decision {decision_id}.")
            return self._undo(decision, self.inspection(decision.inspection_id), who)

    def finish(self) -> int:
        """Finish what a crash cut short; return how many decisions it was. What cannot be finished now is told in the log and stays."""
        finished = 0
        with self.model.changing():
            for decision in self.history.unfinished(self.model.name):
                try:
                    inspection = self.inspection(decision.inspection_id)
                    if decision.undone_at is not None:
                        self._withdraw(decision, inspection, decision.undone_by or STATION)
                    else:
                        rgb = self.read(inspection.seen.picture)
                        self._learn(decision, inspection, rgb, self.model.learner(), time.perf_counter())
                    finished += 1
                except SpadeworkError as error:
                    LOG.warning("%s: decision %d cannot be finished: %s", self.model.name, decision.id, error)
        return finished

    # ---- in ----------------------------------------------------------------------------------------------------------------

    def _learn(
        self, decision: Decision, inspection: Inspection, rgb: np.ndarray, detector: Spade, started: float
    ) -> Marked:
        """Take a picture in because of a decision, unless it is in; ask the model again; mark it."""
        model = self.model
        held = decision.appended
        if not held:
            detector.append([rgb], names=[label_of(inspection)])
            held = not detector.repeated_ or self._is_held(inspection, rgb, detector)
        found = detector.predict(rgb).only
        model.use(detector)
        if held and not decision.appended:
            told = {
                "name": label_of(inspection),
                "decision": decision.id,
                "score": found.score,
                "verdict": found.verdict,
            }
            of = {"inspection_id": inspection.id, "decision_id": decision.id}
            model.changed("append", decision.who, pictures=[pixel_hash(rgb)], detail=told, **of)
            decision = self.history.decision(decision.id) or decision
        return Marked(
            **vars(decision),
            passes=None if found.is_anomalous is None else not found.is_anomalous,
            score_now=float(found.score),
            verdict_now=found.verdict,
            model_hash_now=model.current.model_hash,
            seconds=time.perf_counter() - started,
        )

    def _is_held(self, inspection: Inspection, rgb: np.ndarray, detector: Spade | None = None) -> bool:
        """Whether a picture is in the model because of this inspection, or of another whose decision stands no more.

        Not one that was there from the beginning: undoing must leave it.
        """
        snapshot = Snapshot.of(detector or self.model.learner())
        place = snapshot.places.get(pixel_hash(rgb))
        label = (
            None if place is None or snapshot.gallery is None else LABEL.search(snapshot.gallery.entries[place].name)
        )
        if label is None:
            return False
        owner = int(label.group(1))
        return owner == inspection.id or not any(
            one.kind == "normal" and one.appended and one.undone_at is None for one in self.history.decisions(owner)
        )

    # ---- out ---------------------------------------------------------------------------------------------------------------

    def _undo(self, decision: Decision, inspection: Inspection, who: str) -> Decision:
        if decision.kind != "normal" or decision.withdrawn:
            return self.history.undo(decision.id, who)
        if not decision.appended and decision.undone_at is None:
            rgb = self.read(inspection.seen.picture)
            if self._is_held(inspection, rgb):  # taken in, but an error came before it was marked
                decision = self.history.mark_appended(decision.id)
        if not decision.appended:
            return self.history.undo(decision.id, who)
        if self.model.learner().n_normal_ == 1 and self._heir(decision, inspection) is None:
            raise Conflict(f"{self.model.name}: this is its last normal picture. Take in another one first.")
        return self._withdraw(self.history.undo(decision.id, who), inspection, who)

    def _withdraw(self, decision: Decision, inspection: Inspection, who: str) -> Decision:
        """Take a picture out because its decision was undone, and mark it."""
        heir = self._heir(decision, inspection)
        if heir is not None:  # it stays, and goes out with that one
            withdrawn = self.history.mark_withdrawn(decision.id)
            self.history.mark_appended(heir.id)
            return withdrawn
        picture = pixel_hash(self.read(inspection.seen.picture))
        detector = self.model.learner()
        if picture in Snapshot.of(detector).places:
            detector.remove(picture)
            self.model.use(detector)
        elif self._was_removed(picture):  # by somebody else, who told
            return self.history.mark_withdrawn(decision.id)
        told = {"name": label_of(inspection), "decision": decision.id}
        of = {"inspection_id": inspection.id, "decision_id": decision.id}
        self.model.changed("remove", who, pictures=[picture], detail=told, **of)
        return self.history.decision(decision.id) or decision

    def _was_removed(self, picture: str) -> bool:
        """Whether the history knows that a picture, once taken in, was taken out since."""
        name = self.model.name
        taken_in = self.history.appended(name, [picture]).get(picture)
        cursor: str | None = None
        while taken_in is not None:
            page = self.history.changes(name, cursor, 200)
            for change in page.items:
                if change.id <= taken_in.id:
                    return False
                if change.made.what == "remove" and picture in change.made.pictures:
                    return True
            cursor = page.cursor
            if cursor is None:
                return False
        return False

    def _heir(self, decision: Decision, inspection: Inspection) -> Decision | None:
        """Another standing decision that says the same of the very same file, which was in the model by then."""
        for other in self.history.unfinished(self.model.name):
            if other.undone_at is None and other.id != decision.id:
                found = self.history.get(other.inspection_id)
                if found is not None and found.seen.picture == inspection.seen.picture:
                    return other
        return None

    # ---- records -----------------------------------------------------------------------------------------------------------

    def inspection(self, inspection_id: int) -> Inspection:
        """Return an inspection of this model. Raises NotFound."""
        found = self.history.get(inspection_id)
        if found is None or found.seen.model != self.model.name:
            raise NotFound(f"{self.model.name}: there is no inspection {inspection_id}.")
        return found

    def _standing(self, inspection: Inspection) -> Decision | None:
        standing = [one for one in self.history.decisions(inspection.id) if one.undone_at is None]
        return standing[-1] if standing else None

    def _decide(self, inspection: Inspection, kind: str, who: str, note: str) -> Decision:
        """Record a decision, with the model and the threshold that it is said of."""
        seen = inspection.seen
        return self.history.decide(
            inspection.id, kind, who, note, model=self.model.name, model_hash=seen.model_hash, threshold=seen.threshold
        )
