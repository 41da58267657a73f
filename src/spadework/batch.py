"""Inspect many pictures into a folder: maps, overlays, one CSV and one JSON; goes on past bad files and after an interruption.

    OUT/
      predictions.csv, predictions.json    one row a picture, written when all is done (and after an interruption, for what was done)
      journal.jsonl                        one line a picture as it is done; a half-done batch goes on from here
      maps/NAME.tiff or .npy               raw map, float32 (H, W) at the picture's size, uncompressed
      overlays/NAME.jpg                    the map laid over the picture, regions numbered; verdict, score and scale below
      explanations/NAME.jpg                suspicious places beside the normal places they were matched with, on request

NAME is the picture's path below the folder that was given, without its suffix: the folders of the input are mirrored.
A picture is done when the journal holds it with the same size, time of change, model and options, and its files are there. Size and time
are those from before it was read. The next picture is inspected in a thread while the last one is written.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spadework import check
from spadework.detectors.base import Detector
from spadework.detectors.reading import Progress, in_background
from spadework.errors import ImageError, InputError, NameTakenError, OutputError
from spadework.files import as_output_error, write_file
from spadework.images import Listed, find_images, read_image
from spadework.prediction import Failure, Prediction
from spadework.report.montage import Place, montage, overlay_sheet

MAP_FORMATS = frozenset({"tiff", "npy"})
RESULT_FOLDERS = ("maps", "overlays", "explanations")
LONGEST_NAME = 200  # bytes
KEY_LENGTH = 6  # what a picture's results depend on: path, size, time of change, model, format of maps, explanations
OVERLAY_SIDE = 1600  # longer side of the picture in an overlay; maps keep the picture's size
COLUMNS = (
    "path",
    "verdict",
    "score",
    "threshold",
    "regions",
    "nearest_normal",
    "seconds",
    "model_hash",
    "map",
    "overlay",
)


@dataclass(frozen=True)
class Job:
    """One picture to inspect. path: the file. name: of its results, a relative path without suffix."""

    path: Path
    name: str


@dataclass(frozen=True)
class BatchResult:
    """What became of a batch. rows: one plain dict a picture, in order. failures: those that could not be inspected.

    resumed: how many rows were done by an earlier run.
    """

    rows: tuple[dict[str, Any], ...]
    failures: tuple[Failure, ...]
    resumed: int

    @property
    def anomalous(self) -> int:
        """How many pictures are called anomalous."""
        return sum(row["is_anomalous"] is True for row in self.rows)


def find_jobs(
    inputs: Iterable[str | os.PathLike[str]], *, named: Mapping[str, str] | None = None, out: Path | None = None
) -> tuple[list[Job], list[Failure]]:
    """List the pictures of folders and files, each once, with names for their results that never collide.

    Args:
        inputs: folders and files. With several folders each name starts with its folder's; files are named below the
            deepest folder that holds them all.
        named: real path -> name, of pictures whose results have names already.
        out: where results are written; what lies in it is no input. Where an input is that folder or lies in it, only the
            results themselves are none.

    Returns:
        The jobs, and a failure for each input that does not exist or holds no picture.
    """
    paths = [Path(item) for item in inputs]
    several = sum(path.is_dir() for path in paths) > 1
    base = _common_folder([path for path in paths if not path.is_dir()])
    jobs: dict[str, Job] = {}
    failures: list[Failure] = []
    named = named or {}
    taken = {name.lower() for name in named.values()}
    for given in paths:
        try:
            found = _find_inputs(given, out)
        except InputError as error:
            failures.append(Failure(os.fspath(given), error))
            continue
        for path, real in found:
            if real not in jobs:
                name = named.get(real) or _free_name(_name(path, given, several, base), path, taken)
                jobs[real] = Job(path, name)
    return list(jobs.values()), failures


def _find_inputs(given: Path, out: Path | None) -> list[tuple[Path, str]]:
    """The pictures of one input, each with its real path, without results of a batch. Raises InputError where there is none."""
    found = [(path, os.path.realpath(path)) for path in find_images(given)]
    if out is None:
        return found
    results = _result_places(given, out)
    inputs = [(path, real) for path, real in found if not any(Path(real).is_relative_to(place) for place in results)]
    if not inputs:
        raise InputError(f"{given}: no pictures but results of a batch, in the output folder {out}.")
    return inputs


def _result_places(given: Path, out: Path) -> list[Path]:
    """Folders that hold results and no inputs: all of `out`, or those in it if the input is `out` or lies in it (`--out .`)."""
    real = _real(out)
    return [real / name for name in RESULT_FOLDERS] if _real(given).is_relative_to(real) else [real]


def _real(path: Path) -> Path:
    """As `Path.resolve`, which raises at a link to itself."""
    return Path(os.path.realpath(path))


def _common_folder(files: Sequence[Path]) -> Path:
    """The deepest folder that holds all of these files."""
    try:
        return Path(os.path.commonpath([_real(file).parent for file in files]))
    except ValueError:  # none, or on different drives
        return Path()


def _name(path: Path, given: Path, several: bool, base: Path) -> str:
    if path == given:
        file = _real(path)
        return (file.relative_to(base) if file.is_relative_to(base) else Path(file.name)).with_suffix("").as_posix()
    inside = path.relative_to(given).with_suffix("")
    return (Path(_real(given).name) / inside if several else inside).as_posix()


def _free_name(name: str, path: Path, taken: set[str]) -> str:
    """`name`, or with the suffix (a.png beside a.jpg), or with a number. Letter case does not tell names apart."""
    folder = name.rpartition("/")[0]
    with_suffix = f"{folder}/{path.name}" if folder else path.name
    name, with_suffix = _short(name), _short(with_suffix)
    for candidate in chain([name, with_suffix], (f"{name}~{number}" for number in count(2))):
        if candidate.lower() not in taken:
            taken.add(candidate.lower())
            return candidate
    raise AssertionError("numbers never end")


def _short(name: str) -> str:
    """A name that leaves room for suffixes in file systems of 255 bytes a name: the end of a longer one becomes a hash."""
    folder, slash, last = name.rpartition("/")
    data = os.fsencode(last)
    if len(data) <= LONGEST_NAME:
        return name
    start = data[: LONGEST_NAME - 20].decode(errors="ignore")
    return f"{folder}{slash}{start}-{hashlib.sha256(data).hexdigest()[:16]}"


def inspect_batch(
    detector: Detector,
    inputs: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    map_format: str = "tiff",
    explain: bool = False,
    progress: Progress | None = None,
) -> BatchResult:
    """Inspect pictures and write everything about them to a folder.

    Args:
        detector: fitted.
        inputs: folders and files.
        out: the folder; made if missing. Results of other pictures in it are kept.
        map_format: "tiff" (what MVTec's evaluation tools read) or "npy".
        explain: also write the matched normal places.
        progress: called with (what, done, total).

    Raises:
        InputError: a bad option.
        OutputError: the folder cannot be written.
    """
    check.one_of(map_format, "map_format", MAP_FORMATS)
    writer = _Writer(Path(out), detector, map_format, explain)
    jobs, failures = find_jobs(inputs, named=writer.names(), out=Path(out))
    done = {job.name: row for job in jobs if (row := writer.known(job)) is not None}
    todo = [job for job in jobs if job.name not in done]
    resumed = len(done)
    try:
        with contextlib.closing(in_background(_inspect(detector, todo))) as inspected:
            for number, (job, found) in enumerate(inspected, 1):
                written = found if isinstance(found, Failure) else writer.write(job, found)
                if isinstance(written, Failure):
                    failures.append(written)
                else:
                    done[job.name] = written
                if progress:
                    progress("inspecting", resumed + number, len(jobs))
    finally:  # also on Ctrl-C: what was done is listed
        rows = [done[job.name] for job in jobs if job.name in done]
        writer.finish(rows, failures, jobs)
    return BatchResult(tuple(rows), tuple(failures), resumed)


def _inspect(detector: Detector, jobs: Sequence[Job]) -> Iterator[tuple[Job, Prediction | Failure]]:
    if jobs:
        paths = Listed(job.path for job in jobs)
        yield from zip(jobs, detector.predict_each(paths, keep_images=True), strict=True)


class _Writer:
    """Writes results below `out` and remembers them in its journal."""

    def __init__(self, out: Path, detector: Detector, map_format: str, explain: bool) -> None:
        self.out = out
        self.detector = detector
        self.map_format = map_format
        self.explain = explain
        self.model_hash = detector.model_hash()
        _make_folder(out)
        self.journal = out / "journal.jsonl"
        self.earlier = _read_journal(self.journal)
        self.keys: dict[str, list[Any]] = {}

    def names(self) -> dict[str, str]:
        """The names that pictures got in earlier runs, by real path: results of others are never written over."""
        return {entry["key"][0]: name for name, entry in self.earlier.items()}

    def known(self, job: Job) -> dict[str, Any] | None:
        """The row of a picture that an earlier run has done, if all of it still holds."""
        entry = self.earlier.get(job.name)
        try:
            key = self.keys[job.name] = self._key(job)
        except OSError:  # the picture cannot be looked at: let the inspection say so
            return None
        if (
            entry is None
            or entry["key"] != key
            or any(_size(self.out / file) != size for file, size in entry["files"].items())
        ):
            return None
        return dict(entry["row"])

    def _key(self, job: Job) -> list[Any]:
        stat = job.path.stat()
        return [
            os.path.realpath(job.path),
            stat.st_size,
            stat.st_mtime_ns,
            self.model_hash,
            self.map_format,
            self.explain,
        ]

    def write(self, job: Job, found: Prediction) -> dict[str, Any] | Failure:
        """Write one picture's files, then its line in the journal, and return its row; a failure where the picture is to blame."""
        try:
            return self._write(job, found)
        except ImageError as error:  # gone or changed since it was read
            return Failure(os.fspath(job.path), error)
        except NameTakenError as error:
            return Failure(os.fspath(job.path), NameTakenError(f"{job.path}: its results have no place. {error}"))

    def _write(self, job: Job, found: Prediction) -> dict[str, Any]:
        try:
            now = self._key(job)
        except OSError as error:
            raise ImageError(f"{job.path}: was there a moment ago and is gone: {error.strerror}.") from error
        key = self.keys.get(job.name, now)  # from before it was read: a change since then is seen at the next run
        row = found.to_json() | {"name": job.name, "model_hash": self.model_hash}
        files: list[str] = []
        if found.score_map is not None:
            picture = read_image(job.path) if found.image is None else found.image
            row["map"] = self._map(job, found.score_map)
            row["overlay"] = self._overlay(job, found, picture)
            files = [row["map"], row["overlay"]]
            if self.explain:
                row["matches"], row["explanation"] = self._explanation(job, found, picture)
                files += [row["explanation"]] if row["explanation"] else []
        for file in set(self.earlier.get(job.name, {}).get("files", ())) - set(files):
            self._remove(self.out / file)  # of an earlier state of the picture or the model: no longer true
        sizes = {file: _size(self.out / file) for file in files}
        line = json.dumps({"name": job.name, "key": key, "files": sizes, "row": row}) + "\n"
        with as_output_error(self.journal), open(self.journal, "a", encoding="utf-8") as file:
            file.write(line)
        self.earlier[job.name] = {"key": key, "files": sizes, "row": row}
        return row

    def _map(self, job: Job, score_map: np.ndarray) -> str:
        target = f"maps/{job.name}.{self.map_format}"
        if self.map_format == "npy":
            buffer = io.BytesIO()
            np.save(buffer, score_map, allow_pickle=False)
            self._put(target, buffer.getvalue())
        else:
            self._put(target, _encode(".tiff", score_map, [cv2.IMWRITE_TIFF_COMPRESSION, 1]))
        return target

    def _overlay(self, job: Job, found: Prediction, picture: np.ndarray) -> str:
        target = f"overlays/{job.name}.jpg"
        self._put(target, _encode_jpeg(overlay_sheet(picture, found, longest=OVERLAY_SIDE)))
        return target

    def _explanation(self, job: Job, found: Prediction, picture: np.ndarray) -> tuple[list[dict[str, Any]], str | None]:
        explain = getattr(self.detector, "explain_regions", None)
        gallery = getattr(self.detector, "gallery_", None)
        if explain is None or gallery is None:
            return [], None
        matches = explain(found)
        places = [Place(m, gallery.thumbnail(m.image), gallery.entries[m.image].size) for m in matches]
        target = f"explanations/{job.name}.jpg"
        self._put(target, _encode_jpeg(montage(picture, found, places)))
        return [match.to_json() for match in matches], target

    def _put(self, name: str, data: bytes) -> None:
        _make_folder(self.out / name.partition("/")[0])  # if it cannot be made, no picture's name is to blame
        write_file(self.out / name, data)

    def _remove(self, path: Path) -> None:
        if path.is_file():
            with as_output_error(path):
                path.unlink()

    def finish(self, rows: Sequence[dict[str, Any]], failures: Sequence[Failure], jobs: Sequence[Job]) -> None:
        """Write the CSV and the JSON: this batch's rows, then those that earlier runs left here of pictures not of this batch."""
        names = {job.name for job in jobs}
        failed = {os.path.realpath(failure.path) for failure in failures if failure.path}  # also given, but not there
        others = [e for name, e in self.earlier.items() if name not in names and e["key"][0] not in failed]
        everything = [*rows, *(entry["row"] for entry in others)]
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(_flat(row) for row in everything)
        write_file(self.out / "predictions.csv", table.getvalue().encode(errors="backslashreplace"))
        document = batch_json(self.detector, everything, failures)
        write_file(self.out / "predictions.json", json.dumps(document, indent=1).encode())


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    nearest = row["nearest_images"]
    return row | {"regions": len(row["regions"]), "nearest_normal": nearest[0]["name"] if nearest else ""}


def batch_json(detector: Detector, rows: Sequence[dict[str, Any]], failures: Sequence[Failure]) -> dict[str, Any]:
    """Return one JSON document about a batch: model, threshold and its promise, predictions, failures."""
    from spadework import __version__

    threshold = detector.threshold_
    return {
        "spadework": __version__,
        "model": os.fspath(detector.folder_.path),
        "model_hash": detector.model_hash(),
        "detector": detector.name,
        "backbone": detector.folder_.header["backbone"],
        "threshold": {
            "value": threshold.value,
            "max_false_alarms": threshold.asked,
            "promised": threshold.promised,
            "normal_images": threshold.n,
        },
        "predictions": list(rows),
        "failures": [{"path": failure.path, "error": str(failure.error)} for failure in failures],
    }


def _encode(suffix: str, array: np.ndarray, options: Sequence[int]) -> bytes:
    _, data = cv2.imencode(suffix, array, options)
    return bytes(data.tobytes())


def _encode_jpeg(picture: np.ndarray) -> bytes:
    return _encode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])


def _size(path: Path) -> int | None:
    """Size of a file in bytes; None where it is absent."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _make_folder(path: Path) -> None:
    with as_output_error(path):
        path.mkdir(parents=True, exist_ok=True)


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Entries by name, the latest of each; a line torn by a crash is passed over and closed."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}. Check its permissions.") from error
    if text and not text.endswith("\n"):
        with as_output_error(path), open(path, "a", encoding="utf-8") as file:
            file.write("\n")
    entries: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
            entry = _entry(line)
            entries[entry["row"]["name"]] = entry
    return entries


def _entry(line: str) -> dict[str, Any]:
    """Read a line of the journal. Raises ValueError, TypeError, LookupError or RecursionError for what none of ours can be."""
    entry = json.loads(line)
    key, files, row = entry["key"], entry["files"], entry["row"]
    kinds = ((key, list), (key[0], str), (files, dict), (row, dict), (row["name"], str), (row["path"], str))
    fits = all(isinstance(part, kind) for part, kind in kinds) and len(key) == KEY_LENGTH
    if not fits or row["name"] != entry["name"] or not {"verdict", "is_anomalous"} <= row.keys():
        raise ValueError("no entry of ours")
    float(row["score"])
    _flat(row)
    return {"key": key, "files": files, "row": row}
