"""The contract of every detector, and all that they share: reading, batching, maps, thresholds, saving.

The constructor only stores. `fit` learns and returns self; `predict` changes nothing; learnt names end in `_`.
A method implements two hooks, `_learn` and `_judge`; one that can score its own normal images without bias adds `_normal_scores`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from spadework import check
from spadework.backbones import open_backbone
from spadework.calibration import Threshold, conformal_threshold
from spadework.canvas import canvas_entries, canvas_of
from spadework.detectors.configuration import Settings
from spadework.detectors.costs import READING, Costs
from spadework.detectors.reading import AHEAD, Decoded, Progress, Seen, gather_normal, read_ahead, see_ahead
from spadework.errors import BackboneError, ImageError, InputError, ModelError, SpadeworkError
from spadework.files import temporary_folder
from spadework.images import Picture, View, gather
from spadework.prediction import Failure, Judgement, Prediction, Predictions
from spadework.pyramid import Pyramid
from spadework.scores import find_regions, smooth_map, to_picture
from spadework.search_index import ARRAYS as SEARCH_INDEX
from spadework.storage import ModelFolder, check_target, draft_path, duplicate, publish


class Detector(Settings, Costs, ABC):
    """Base of all detectors."""

    needs: ClassVar[str]  # "pyramid" or "pixels"
    summary: ClassVar[str]
    source: ClassVar[str]
    localises: ClassVar[bool] = True
    cannot: ClassVar[str] = ""  # what it cannot do, in a few words: "objects that cannot be aligned"
    cost: ClassVar[str] = ""  # time and memory of `fit` and of one picture, in a few words
    extra: ClassVar[str] = ""  # the optional part of the installation that it needs: "torch"

    backbone: str
    weights: str | os.PathLike[str] | None
    threads: int | None
    smoothing: float
    wide_smoothing: float | None = None
    max_false_alarms: float

    # ---- hooks -------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        """Learn from normal pictures, seen once in order; keep in `folder` what is not in its header."""

    @abstractmethod
    def _judge(self, seen: Seen) -> Judgement:
        """Say what is wrong with one picture. Must not change the detector."""

    @abstractmethod
    def _open(self, folder: ModelFolder) -> None:
        """Take up what `_learn` kept."""

    @abstractmethod
    def _view(self) -> View:
        """What the network sees of a picture."""

    @abstractmethod
    def _check_settings(self) -> None:
        """Raise InputError for a setting that breaks a rule; called by `fit`."""

    def _choose_canvas(self, pictures: Sequence[Picture]) -> View | None:
        """(height, width) that all pictures are fitted into, from the normal ones' sizes; None for a view that follows from settings."""
        return None

    def _pyramid(self, view: np.ndarray) -> Pyramid:
        raise InputError(f"{self.name} works on pixels and has no pyramid.")

    def _normal_scores(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
        """Return image scores and map peaks, float64 each, of normal images by methods that were not fitted on them."""
        return np.empty(0), np.empty(0)

    def _known_pictures(self) -> set[str]:
        """`pixel_hash` of each normal picture that the model holds already."""
        return set()

    # ---- fit ---------------------------------------------------------------------------------------------------------------

    def fit(
        self,
        images: Picture | Iterable[Picture],
        *,
        path: str | os.PathLike[str] | None = None,
        bad_files: str = "raise",
        progress: Progress | None = None,
        tune: bool = False,
        tune_minutes: float = 10.0,
    ) -> Self:
        """Learn what normal looks like, and set the threshold from the same pictures.

        Args:
            images: normal pictures: a folder, paths, or arrays (see `spadework.images`); folders and lists may be mixed. A picture that comes
                twice counts once (`repeated_` names the copies): scored against its own copy it would look perfectly normal.
            path: write the model here as it grows (it appears when complete); None keeps it in a temporary folder until `save`.
            bad_files: "raise" at the first picture that cannot be read, or "skip" it; `failures_` lists those skipped.
            progress: called with (what, done, total).
            tune: first find the settings that suit these pictures, by planted defects; they become this detector's own. See docs/tuning.md.
            tune_minutes: the most that may take.

        Raises:
            InputError: no pictures, a setting that breaks a rule, or a picture that cannot be used; or `tune` of a method that cannot.
            OutputError: the model cannot be written; what was there before is unchanged.
        """
        check.one_of(bad_files, "bad_files", {"raise", "skip"})
        self._check_settings()
        if path is not None:
            check_target(Path(path))
        started = time.perf_counter()
        pictures = gather_normal(images)
        suited, told = self._tune(pictures, tune_minutes, progress) if tune else ({}, {})
        draft = self._draft(path)
        before = self._forget() | {name: getattr(self, name) for name in suited}
        try:
            vars(self).update(suited)
            folder = ModelFolder.create(draft, self._header() | told, lasting=path is not None)
            self._fit_into(folder, pictures, bad_files, progress)
            if path is not None:
                folder = publish(folder, Path(path))
        except BaseException:  # also on Ctrl-C: nothing half-made is left behind, and what was learnt before still is
            shutil.rmtree(draft.parent if path is None else draft, ignore_errors=True)
            self._forget()
            vars(self).update(before)
            raise
        self._adopt(folder, temporary=path is None)
        self.fit_seconds_ = time.perf_counter() - started
        return self

    def _fit_into(
        self, folder: ModelFolder, pictures: list[Picture], bad_files: str, progress: Progress | None
    ) -> None:
        self.failures_: tuple[Failure, ...] = ()
        self.repeated_: tuple[str, ...] = ()
        self.progress_ = progress  # `_learn` tells of itself, too
        self._open_backbone()
        self.canvas_, self.canvas_of_ = self._choose_canvas(pictures), folder.header["settings"].get("image_size")
        folder.header.update(canvas_entries(self.canvas_))
        self._learn(self._see_normal(pictures, folder, bad_files, progress, READING), folder)
        del self.progress_
        folder.header["backbone"] = self._backbone_identity()
        folder.commit()
        self._open(folder)
        self._calibrate(folder, progress)
        folder.commit()

    def _forget(self) -> dict[str, Any]:
        """Take off everything learnt and return it: a second fit is a fresh fit, also of another backbone."""
        return {name: vars(self).pop(name) for name in list(vars(self)) if name.endswith("_")}

    def _draft(self, path: str | os.PathLike[str] | None) -> Path:
        return temporary_folder() / "model.spade" if path is None else draft_path(Path(path))

    def _header(self) -> dict[str, Any]:
        from spadework import __version__

        return {"spadework": __version__, "detector": self.name, "settings": self.settings()}

    def _adopt(self, folder: ModelFolder, *, temporary: bool) -> None:
        """Make `folder` the fitted state."""
        self.folder_ = folder
        self.canvas_, self.canvas_of_ = canvas_of(folder.header), folder.header["settings"].get("image_size")
        if not temporary:
            folder.hold()  # others may write to it
        self._open(folder)
        self._read_calibration()
        if temporary:
            weakref.finalize(folder, shutil.rmtree, folder.path.parent, ignore_errors=True)

    def _see_normal(
        self,
        pictures: list[Picture],
        folder: ModelFolder,
        bad_files: str,
        progress: Progress | None,
        what: str,
        names: Sequence[str] | None = None,
    ) -> Iterator[Seen]:
        """Read normal pictures to keep in `folder`, whose header counts them; those it holds already are passed over."""
        failures, repeated, known = [], [], self._known_pictures()
        for done, item in enumerate(self._see_each(pictures, names, ahead=AHEAD), 1):
            if isinstance(item, Failure):
                if bad_files == "raise":
                    raise item.error
                failures.append(item)
            elif item.pixel_hash in known:
                repeated.append(item.name)
            else:
                known.add(item.pixel_hash)
                folder.header["n_normal"] = folder.header.get("n_normal", 0) + 1
                yield item
            if progress:
                progress(what, done, len(pictures))
        self.failures_, self.repeated_ = tuple(failures), tuple(repeated)
        if len(failures) == len(pictures):
            raise InputError(f"none of the {len(pictures)} pictures can be used; the first: {failures[0].error}")

    def _see_each(
        self, pictures: list[Picture], names: Sequence[str] | None = None, *, ahead: int = 0
    ) -> Iterator[Seen | Failure]:
        """Decode a few ahead, run the network ahead of whatever is done with its output; in order."""
        decoded = read_ahead(pictures, self._view(), names)
        if self.needs != "pyramid":
            yield from see_ahead(decoded, self._see_one, threads=2, ahead=ahead)
            return
        with self.backbone_.several(len(pictures)) as passes:
            yield from see_ahead(decoded, self._see_one, threads=min(passes, max(0, len(pictures) - 1)), ahead=ahead)

    def _see_one(self, name: str, picture: Picture, decoded: Decoded) -> Seen | Failure:
        try:
            image, seen = decoded.result()
            pyramid = self._pyramid(seen) if self.needs == "pyramid" else None
            if pyramid is not None and not pyramid.is_sound:
                raise ImageError(
                    f"{name}: the network's features of it are NaN, infinite or above 1e15. Use another network."
                )
        except SpadeworkError as error:
            return Failure(None if isinstance(picture, np.ndarray) else os.fspath(picture), error)
        return Seen(name, image, seen, pyramid)

    # ---- predict -----------------------------------------------------------------------------------------------------------

    def predict(self, images: Picture | Iterable[Picture], *, progress: Progress | None = None) -> Predictions:
        """Inspect pictures. Changes nothing.

        Args:
            images: as in `fit`.
            progress: called with (what, done, total).

        Returns:
            A sequence of `Prediction`, in the order given; one picture gives a sequence of one, which reads like the prediction.

        Raises:
            ImageError: a picture cannot be used; `predict_each` goes on past such.
            ModelError: not fitted.
        """
        predictions = []
        for item in self.predict_each(images, progress=progress):
            if isinstance(item, Failure):
                raise item.error
            predictions.append(item)
        return Predictions(predictions)

    def predict_each(
        self, images: Picture | Iterable[Picture], *, keep_images: bool = False, progress: Progress | None = None
    ) -> Iterator[Prediction | Failure]:
        """As `predict`, one after another in bounded memory; a bad picture gives a `Failure` in its place.

        With `keep_images` each prediction holds its picture as it was read, for those who draw on it.
        """
        self._check_fitted()
        pictures = gather(images)
        self._open_backbone()
        started = time.perf_counter()
        for done, (picture, item) in enumerate(zip(pictures, self._see_each(pictures), strict=True), 1):
            path = None if isinstance(picture, np.ndarray) else os.fspath(picture)
            if isinstance(item, Failure):
                yield item
            else:
                yield self._predict_one(item, path, started, image=item.image if keep_images else None)
            started = time.perf_counter()
            if progress:
                progress("inspecting", done, len(pictures))

    def _predict_one(self, seen: Seen, path: str | None, started: float, *, image: np.ndarray | None) -> Prediction:
        judged = self._judge(seen)
        score, small = self._scores(judged, seen.image.shape)
        score_map = None if small is None else to_picture(small, self._view(), seen.image.shape)
        threshold, map_threshold = self.threshold_.value, self.map_threshold_.value
        return Prediction(
            score=score,
            is_anomalous=None if threshold is None else score > threshold,
            score_map=score_map,
            regions=() if score_map is None else find_regions(score_map, map_threshold),
            path=path,
            size=(seen.image.shape[0], seen.image.shape[1]),
            threshold=threshold,
            map_threshold=map_threshold,
            nearest_images=judged.nearest_images,
            seconds=time.perf_counter() - started,
            view_map=small,
            correspondence=judged.correspondence,
            view=self._view(),
            image=image,
        )

    def _scores(self, judged: Judgement, shape: Sequence[int] | None = None) -> tuple[float, np.ndarray | None]:
        """Return the image score and the smoothed map of the view, without what pads a picture of `shape`; None for one that fills it."""
        if judged.distances is None:
            if judged.image_score is None:
                raise ModelError(f"{self.name} gave neither a map nor a score.")
            return judged.image_score, None
        view = self._view()
        part = view.part(tuple(shape)) if shape is not None and view.pad else None
        small = smooth_map(judged.distances, view.size, sigma=self.smoothing, wide=self.wide_smoothing, part=part)
        return (float(small.max()) if judged.image_score is None else judged.image_score), small

    @property
    def n_normal_(self) -> int:
        """How many normal pictures the model holds."""
        return int(self._check_fitted().header["n_normal"])

    # ---- thresholds --------------------------------------------------------------------------------------------------------

    def _calibrate(self, folder: ModelFolder, progress: Progress | None) -> None:
        scores, peaks = self._normal_scores(progress)
        folder.replace("normal_scores", scores.astype(np.float64))
        folder.replace("normal_peaks", peaks.astype(np.float64))
        folder.header["calibration"] = {"max_false_alarms": float(self.max_false_alarms)}

    def _read_calibration(self) -> None:
        """Take up the scores that thresholds are made from: they stay as they are, also when another process writes to the model."""
        self.calibration_ = (np.array(self.folder_.read("normal_scores")), np.array(self.folder_.read("normal_peaks")))

    @property
    def normal_scores_(self) -> np.ndarray:
        """Image scores of normal images, each left out in turn: float64 (n,). Raw; thresholds are made from them."""
        self._check_fitted()
        return self.calibration_[0].copy()

    @property
    def threshold_(self) -> Threshold:
        """The image threshold and what it promises."""
        return conformal_threshold(self.normal_scores_, self._rate())

    @property
    def map_threshold_(self) -> Threshold:
        """The map threshold: at most the same rate of normal images have any region above it."""
        self._check_fitted()
        return conformal_threshold(self.calibration_[1], self._rate())

    def _rate(self) -> float:
        return float(self._check_fitted().header["calibration"]["max_false_alarms"])

    def set_max_false_alarms(self, rate: float) -> Self:
        """Move the threshold to another rate of false alarms; nothing is fitted again. A model on disk keeps it.

        Raises:
            InputError: not between 0 and 1.
        """
        rate = check.share(rate, "max_false_alarms")
        folder = self._check_fitted()
        with folder.writing():
            folder.header["calibration"]["max_false_alarms"] = rate
            folder.header["settings"]["max_false_alarms"] = rate
            folder.commit()
        self.max_false_alarms = rate
        return self

    def recalibrate(self, *, progress: Progress | None = None) -> Self:
        """Score the normal images against each other again, e.g. after many were appended."""
        folder = self._check_fitted()
        with folder.writing():
            rate = self._rate()
            self._calibrate(folder, progress)
            folder.header["calibration"]["max_false_alarms"] = rate
            folder.commit()
        self._read_calibration()
        return self

    # ---- save and load -----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a folder, by custom NAME.spade; one that stands there is replaced in one step.

        Raises:
            OutputError: no room, no permission, or something else of that name; what was there before is unchanged.
        """
        source, target = self._check_fitted(), Path(path)
        if target.exists() and target.resolve() == source.path.resolve():
            self._write_settings(source)
            return target  # it lives there already
        draft = draft_path(target)
        try:
            copy = duplicate(source, draft)
            copy.header["settings"] = self.settings()  # they may have been changed since `fit`, and answers follow them
            copy.commit()
            publish(copy, target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return target

    def _write_settings(self, folder: ModelFolder) -> None:
        if folder.header["settings"] != json.loads(json.dumps(self.settings())):
            with folder.writing():
                folder.header["settings"] = self.settings()
                folder.commit()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: str | None = None,
        weights: str | os.PathLike[str] | None = None,
        threads: int | None = None,
    ) -> Self:
        """Open a saved model. `append` and `set_max_false_alarms` then write to this folder.

        Args:
            path: the model's folder.
            backbone: where its network lies now, if not where it lay at `fit`; it must be the same network.
            weights: likewise.
            threads: of the network and of the search; None for the default.

        Raises:
            InputError: `backbone` or `weights` for a method that uses no network.
            ModelError: no model, damaged, of a newer version, or of another detector. Another backbone is refused when it is first needed.
        """
        folder = ModelFolder.open(check.path(path, "path"))
        if folder.header.get("detector") != cls.name:
            raise ModelError(f"{path}: was made by detector {folder.header.get('detector')!r}, not {cls.name!r}.")
        known = inspect.signature(cls.__init__).parameters
        settings = {key: value for key, value in folder.header["settings"].items() if key in known}
        settings["threads"] = threads
        for name, value in (("backbone", backbone), ("weights", None if weights is None else os.fspath(weights))):
            if value is not None and name not in known:
                raise InputError(f"{path}: {cls.name} uses no network, so it takes no {name}: leave it out.")
            if value is not None:
                settings[name] = value
        detector = cls(**settings)
        while True:
            try:
                detector._adopt(folder, temporary=False)
                break
            except ModelError:
                newer = ModelFolder.open(path)
                if newer.header["checksum"] == folder.header["checksum"]:
                    raise  # damaged; otherwise a writer replaced files since it was opened: take the new ones
                folder = newer
        detector.failures_, detector.repeated_ = (), ()
        return detector

    def verify(self) -> None:
        """Read the whole model and check every checksum. Raises ModelError at the first damage."""
        self._check_fitted()

    def model_hash(self) -> str:
        """Return 16 hexadecimal digits that change with anything that changes an answer."""
        header = self._check_fitted().header
        # The search index, also a section's, only makes answers come faster.
        answering = sorted(key for key in header["arrays"] if key.rpartition(".")[2] not in SEARCH_INDEX)
        arrays = {key: [header["arrays"][key][part] for part in ("rows", "crc32")] for key in answering}
        # Where the network lies and how many threads run changes nothing: the backbone's hash says which network it is.
        elsewhere = {"threads", "weights", "backbone", "max_false_alarms", "device", "checkpoints"}
        settings = {key: value for key, value in self.settings().items() if key not in elsewhere}
        backbone = header["backbone"]["hash"] if header["backbone"] else None
        content = [header["detector"], settings, backbone, header["calibration"], arrays]
        content += [header[key] for key in ("canvas", "canvas_step") if key in header]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    # ---- the network -------------------------------------------------------------------------------------------------------

    def _open_backbone(self) -> None:
        if self.needs != "pyramid" or getattr(self, "backbone_", None) is not None:
            return
        folder: ModelFolder | None = getattr(self, "folder_", None)
        weights = None if self.weights is None else Path(self.weights)
        try:
            backbone = open_backbone(os.fspath(self.backbone), weights=weights, threads=self.threads)
        except BackboneError:
            if folder is None or weights is None or weights.exists():
                raise
            made = folder.header["backbone"]["hash"]  # the file is gone, but its export may still be in the cache
            backbone = open_backbone(os.fspath(self.backbone), threads=self.threads, sha256=made)
        if folder is not None and folder.header["backbone"]["hash"] != backbone.hash:
            made, found = folder.header["backbone"], backbone.hash[:12]
            raise ModelError(
                f"{folder.path}: was made with backbone {made['name']} ({made['hash'][:12]}), "
                f"but {backbone.name} is now {found}. Pass the same network, or fit again."
            )
        self.backbone_ = backbone

    def _backbone_identity(self) -> dict[str, Any] | None:
        if self.needs != "pyramid":
            return None
        return {"name": self.backbone_.name, "hash": self.backbone_.hash}

    def _check_fitted(self) -> ModelFolder:
        folder: ModelFolder | None = getattr(self, "folder_", None)
        if folder is None:
            raise ModelError(f"this {type(self).__name__} is not fitted: call fit(normal_images) or load(path) first.")
        return folder
