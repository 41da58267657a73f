"""One served model: it inspects what comes, tells what people want to know of it, and learns what they say, at once and without a pause.

A facade: inspections in inspecting.py, decisions in lessons.py, the model and its changes in served_model.py, what is shown in showing.py.
"""

from __future__ import annotations

import os
from concurrent.futures import Future

import numpy as np

from spadework.detectors.base import Detector
from spadework.images import pixel_hash, read_image
from spadework.server.decoding import Decoders
from spadework.server.errors import Conflict, NotFound, PictureGone
from spadework.server.evidence import Evidence
from spadework.server.history import History
from spadework.server.inspecting import Candidate, Inspector
from spadework.server.lessons import Lessons, Marked
from spadework.server.pictures import Pictures
from spadework.server.records import Decision, Inspection, ModelChange
from spadework.server.served_model import ServedModel
from spadework.server.showing import Matched, Normal, Showing

__all__ = ["Candidate", "Marked", "Matched", "Normal", "Station"]
QUEUE_BYTES = 1 << 30


class Station:
    """One served model. All methods may be called from any thread.

    Args:
        name: what people call the model.
        path: its folder.
        history: open, and of the newest version.
        pictures: where the files of inspections lie.
        threads: of the network and of the search; None for the default.
        queue: how many pictures may wait.
        batch: how many inspections are recorded in one transaction.
        decoders: what decodes kept pictures; None to do so in this process.
        queue_bytes: how much memory the pixels of those that wait may take.

    Raises:
        ModelGone: the model cannot be opened.
        Conflict: another station has it open.
    """

    def __init__(
        self,
        name: str,
        path: str | os.PathLike[str],
        history: History,
        pictures: Pictures,
        *,
        threads: int | None = None,
        queue: int = 64,
        batch: int = 8,
        decoders: Decoders | None = None,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.name, self.history, self.pictures, self.decoders = name, history, pictures, decoders
        self.model = ServedModel(name, path, history, threads=threads)
        try:
            self.lessons = Lessons(self.model, history, self._read)
            self.showing = Showing(self.model, history, pictures, self._read)
            self.lessons.finish()
            self.model.note_strangers()
            limits = {"most": queue, "most_bytes": queue_bytes, "batch": batch}
            self.inspector = Inspector(name, lambda: self.model.current, history, pictures, **limits)
        except BaseException:
            self.model.close()
            raise

    # ---- inspecting --------------------------------------------------------------------------------------------------------

    def submit(self, candidate: Candidate) -> Future[Inspection]:
        """Put a picture into the queue; the future is answered once its inspection is on the disk.

        Raises:
            Overloaded: the queue is full.
            Stopped: the station is closing.
        """
        return self.inspector.submit(candidate)

    def snapshot(self) -> Detector:
        """Return the detector in use. It is never changed: whoever holds it has one state of the model."""
        return self.model.current.detector

    @property
    def model_hash(self) -> str:
        """Of the model in use."""
        return self.model.current.model_hash

    @property
    def can_learn(self) -> bool:
        """Whether single pictures can be taken in and out."""
        return self.model.can_learn

    @property
    def waiting(self) -> int:
        """How many pictures wait."""
        return self.inspector.waiting

    def stop(self) -> None:
        """Take nothing new from now on; what was taken is finished."""
        self.inspector.stop()

    def close(self) -> None:
        """Finish what was taken and the change under way, and end."""
        self.inspector.close()
        self.model.close()

    # ---- what people say ---------------------------------------------------------------------------------------------------

    def mark_normal(self, inspection_id: int, who: str, note: str = "") -> Marked:
        """Record that a picture is normal, and take it into the model. Whatever is submitted after this returns is judged knowing it.

        Said again, it is answered again. If the picture cannot be taken in, nothing stays recorded. `passes` in the answer tells whether the
        model agrees now; it may not where the threshold lies below the scores of all pictures.

        Raises:
            NotFound: there is no such inspection of this model.
            CannotLearn: the detector cannot take pictures in.
            PictureGone: its file was cleaned away.
            ModelGone: the model on the disk cannot be changed.
            OutputError: nothing can be written, or another process is writing to the model.
        """
        return self.lessons.mark_normal(inspection_id, who, note)

    def mark_defect(self, inspection_id: int, who: str, note: str = "") -> Decision:
        """Record that a picture shows a defect. Where it was said to be normal, that is undone: the model does not keep it.

        Raises:
            NotFound: there is no such inspection of this model.
            Conflict: it is the last normal picture of the model.
        """
        return self.lessons.mark_defect(inspection_id, who, note)

    def undo(self, decision_id: int, who: str) -> Decision:
        """Take a decision back. Of a "normal" the picture goes out of the model again, unless it was there before, or another decision holds it.

        Thresholds are then those of a fresh fit on what is left: see `Spade.remove`.

        Raises:
            NotFound: there is no such decision on this model.
            Conflict: it is the last normal picture of the model.
            ModelGone: the model on the disk cannot be changed; the decision is undone, the picture goes at the next attempt.
        """
        return self.lessons.undo(decision_id, who)

    # ---- who manages the model ---------------------------------------------------------------------------------------------

    def append(self, rgb: np.ndarray, name: str, who: str) -> ModelChange:
        """Take a normal picture, uint8 (H, W, 3), into the model.

        Raises:
            Conflict: the model holds it already.
            CannotLearn, ModelGone, OutputError: as `mark_normal`.
        """
        with self.model.changing():
            detector = self.model.learner()
            detector.append([rgb], names=[name])
            if detector.repeated_:
                raise Conflict(f"{self.name}: holds this very picture already.")
            self.model.use(detector)
            return self.model.changed("append", who, pictures=[pixel_hash(rgb)], detail={"name": name})

    def remove(self, picture: str, who: str) -> ModelChange:
        """Take a normal picture out of the model.

        Args:
            picture: its pixel hash, whole.
            who: whoever wants it.

        Raises:
            NotFound: the model holds no such picture.
            Conflict: it is the last one.
            CannotLearn, ModelGone, OutputError: as `mark_normal`.
        """
        with self.model.changing():
            detector = self.model.learner()
            names = [entry.name for entry in detector.gallery_.entries if entry.sha256 == picture]
            if not names:
                raise NotFound(f"{self.name}: holds no normal picture {picture[:80]}.")
            if detector.n_normal_ == 1:
                raise Conflict(f"{self.name}: this is its last normal picture. Take in another one first.")
            detector.remove(picture)
            self.model.use(detector)
            return self.model.changed("remove", who, pictures=[picture], detail={"name": names[0]})

    def set_max_false_alarms(self, rate: float, who: str) -> ModelChange:
        """Move the threshold to another rate of false alarms.

        Raises:
            InputError: not between 0 and 1.
            ModelGone, OutputError: as `mark_normal`.
        """
        with self.model.changing():
            detector = self.model.second()
            old = detector.threshold_
            detector.set_max_false_alarms(rate)
            self.model.use(detector)
            told = {"max_false_alarms": detector.threshold_.asked, "before": old.asked, "threshold_before": old.value}
            return self.model.changed("threshold", who, detail=told)

    def reload(self, who: str) -> ModelChange:
        """Take up the model as it stands on the disk, after another process changed it. If it cannot be opened, the one in use stays.

        Raises:
            ModelGone: it is deleted or damaged.
        """
        with self.model.changing():
            detector = self.model.second()
            self.model.use(detector)
            return self.model.changed("reload", who)

    # ---- what is shown -----------------------------------------------------------------------------------------------------

    def normals(self, offset: int = 0, limit: int = 50) -> tuple[Normal, ...]:
        """Return normal pictures of the model in use, in its order; `snapshot().n_normal_` says how many there are.

        Raises:
            InputError: offset or limit are no such numbers.
        """
        return self.showing.normals(offset, limit)

    def normal_thumbnail(self, pixel_hash: str) -> np.ndarray:
        """Return a small picture of a normal one: uint8 (h, w, 3) RGB, its longer side at most 320. Raises NotFound."""
        return self.showing.normal_thumbnail(pixel_hash)

    def evidence(self, inspection: Inspection) -> Evidence:
        """Return map and matches of an inspection.

        Raises:
            NotFound: its detector gives no map.
            PictureGone: it was cleaned away.
            DamagedEvidenceError: its file is damaged.
        """
        return self.showing.evidence(inspection)

    def match(self, inspection: Inspection, y: int, x: int, *, patch: int = 48) -> Matched:
        """Return the normal place that a pixel was compared with, and both as pictures, also after the model changed.

        Args:
            inspection: of this model.
            y, x: the pixel.
            patch: side of the boxes, in pixels of the network's view.

        Raises:
            InputError: the pixel lies outside the picture or its inspected part, or the detector tells no matches.
            NotFound, PictureGone, DamagedEvidenceError: as `evidence`.
        """
        return self.showing.match(inspection, y, x, patch=patch)

    def _read(self, picture: str) -> np.ndarray:
        """The pixels of a kept picture."""
        path = self.pictures.path(picture)
        if not path.is_file():
            raise PictureGone("the picture was cleaned away. Inspect the part again.")
        return read_image(path) if self.decoders is None else self.decoders.decode(path)[0]
