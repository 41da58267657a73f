"""The folder of exported networks: one ONNX file and one JSON record for each network and set of weights.

    CACHE/backbones/KIND-MODEL-KEY.onnx
    CACHE/backbones/KIND-MODEL-KEY.json    what it was made of, and the SHA-256 of the ONNX file
    CACHE/weights/                         a place for weight files that were downloaded elsewhere

`CACHE` is `SPADEWORK_CACHE`, else the user's cache folder with `spadework` below it. The key is a SHA-256 over the
kind, the model's name, the identity of the weights (the SHA-256 of their file), the version of the export code and the
ONNX opset. An ONNX file whose hash is not the record's is as good as absent: the network is exported again.
Nothing here imports torch: once a network is exported, inspection does without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from spadework.backbones.onnx import file_hash
from spadework.errors import BackboneError, OutputError

# Raise when the exported graph changes, so that older files are not taken for the new ones.
EXPORT_VERSION = 1
OPSET = 18


@dataclass(frozen=True)
class Record:
    """What an exported network was made of. `weights` is the SHA-256 of the weights file, or "random-SEED"."""

    kind: str
    model: str
    weights: str
    source: str  # "hub", "file" or "random"
    sha256: str  # of the ONNX file
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    made_with: str
    export_version: int = EXPORT_VERSION
    opset: int = OPSET


@dataclass(frozen=True)
class Exported:
    """An ONNX file of the cache, its hash already compared with its record."""

    path: Path
    record: Record


def cache_folder() -> Path:
    """Where Spadework keeps what it can make again."""
    chosen = os.environ.get("SPADEWORK_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "spadework" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spadework"


def weights_folder() -> Path:
    """Where a weight file that was downloaded elsewhere is looked for."""
    return cache_folder() / "weights"


def entry_path(kind: str, model: str, weights: str) -> Path:
    """The ONNX file for these weights, whether it exists or not."""
    parts = {"kind": kind, "model": model, "weights": weights, "export": EXPORT_VERSION, "opset": OPSET}
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / "backbones" / f"{kind}-{model}-{key}.onnx"


def find(kind: str, model: str, weights: str) -> Exported | None:
    """The exported network of exactly these weights, None where it is absent or damaged."""
    return _checked(entry_path(kind, model, weights))


def find_by(kind: str, model: str, wanted: Callable[[Record], bool]) -> Exported | None:
    """The first undamaged network of this model whose record is wanted."""
    fitting = (p for p, record in _records() if (record.kind, record.model) == (kind, model) and wanted(record))
    return next((found for found in map(_checked, fitting) if found is not None), None)


def list_records() -> list[Record]:
    """What has been exported so far by this version of the export code."""
    return [record for path, record in _records() if path.is_file()]


def store(write: Callable[[Path], Record], target: Path) -> Exported:
    """Let `write` make the ONNX file under a temporary name; keep it only when that raises nothing."""
    temporary = target.with_name(f".{target.stem}-{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        record = write(temporary)
        target.with_suffix(".json").unlink(missing_ok=True)
        os.replace(temporary, target)
        # The record comes last: an ONNX file without one is not trusted.
        temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, target.with_suffix(".json"))
    except OSError as error:
        raise OutputError(
            f"the exported network cannot be kept in {target.parent}: {error.strerror or error}; "
            "make room there, or set SPADEWORK_CACHE to a folder that can be written"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # what went wrong above is what is to be told
            temporary.unlink()
    return Exported(target, record)


def _records() -> Iterator[tuple[Path, Record]]:
    for path in sorted((cache_folder() / "backbones").glob("*.json")):
        record = _read_record(path)
        if record is not None and (record.export_version, record.opset) == (EXPORT_VERSION, OPSET):
            yield path.with_suffix(".onnx"), record


def _read_record(path: Path) -> Record | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        lists = {key: tuple(values[key]) for key in ("strides", "channels")}
        return Record(**{**values, **lists})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _checked(path: Path) -> Exported | None:
    record = _read_record(path.with_suffix(".json"))
    if record is None:
        return None
    try:
        return Exported(path, record) if file_hash(path) == record.sha256 else None
    except BackboneError:
        return None
