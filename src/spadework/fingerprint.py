"""What a measured number depends on, as short hashes: the pictures, the network, the code, the versions of what it runs on.

In: a detector that is not fitted, a category. Out: plain JSON values. Two runs with the same `identity` give the same measures.

- **Data**: names, kinds and content of a category's pictures and masks, not where they lie. Each file is read once a call, much faster than one run reads
  it. Names and lengths would not do: bitmaps of one camera are all of one length, and a new picture takes the name of the old one.
- **Code**: the files that the detector's own file imports, one by one, and those that measure. What only prints or schedules is not among them, nor are
  other detectors: a change there does not make a result old.
- **Settings** without `threads` and `checkpoints`, and without the network's name and place where its hash is known: these change no answer. `device`
  counts: a GPU draws other random numbers, and so trains another network.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import spadework
from spadework import evaluation
from spadework.backbones import open_backbone
from spadework.datasets import Category
from spadework.detectors.base import Detector

PACKAGE = Path(spadework.__file__).parent
LIBRARIES = ("numpy", "numba", "onnxruntime", "opencv-python-headless", "pillow")
FRAMEWORKS = ("torch",)  # counted for detectors that need an extra
# The registry grows with every detector, and the root holds the version, which counts by itself.
# What changes no answer: the registry, and the bill, which only tells beforehand what work will take.
APART = frozenset(
    PACKAGE / file for file in ("__init__.py", "detectors/__init__.py", "bill.py", "estimates.py", "probe.py")
)


def identity(
    detector: Detector, category: Category, *, pro_limit: float, resolution: str, data: str | None = None
) -> dict[str, Any]:
    """Return all that a run's measures depend on.

    Args:
        detector: not fitted.
        category: that it is to be fitted and measured on.
        pro_limit: as in `evaluate`.
        resolution: as in `evaluate`, not None.
        data: the category's `data_hash`, where it is known already.

    Raises:
        BackboneError: its network cannot be opened.
        MissingExtraError: likewise, for want of an optional part.
    """
    backbone = backbone_hash(detector)
    free = {"threads", "checkpoints"} if backbone is None else {"threads", "backbone", "weights"}
    settings = {key: value for key, value in detector.settings().items() if key not in free}
    return {
        "detector": detector.name,
        "settings": json.loads(json.dumps(settings)),
        "backbone": backbone,
        "dataset": category.dataset,
        "category": category.name,
        "data": data or data_hash(category),
        "pictures": [len(category.train), len(category.test)],
        "pro_limit": pro_limit,
        "resolution": resolution,
        "versions": versions(detector),
        "code": code_hash(type(detector)),
    }


def key_of(identified: dict[str, Any]) -> str:
    """Return 64 hexadecimal digits for an `identity`."""
    return _sha256(json.dumps(identified, sort_keys=True, allow_nan=False).encode())


def data_hash(category: Category) -> str:
    """Return 16 hexadecimal digits for a category: order, names, kinds and the bytes of pictures and masks."""
    lines = []
    for sample in (*category.train, *category.test):
        mask = None if sample.mask_path is None else _listed(sample.mask_path, category.root)
        picture = _listed(sample.path, category.root)
        lines.append([sample.split, sample.kind, sample.is_anomalous, sample.mask_above, picture, mask])
    return _sha256(json.dumps(lines).encode())[:16]


def _listed(path: Path, root: Path) -> list[Any]:
    try:
        with open(path, "rb") as file:
            content: str | None = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # whoever reads it reports it by name
        content = None
    return [Path(os.path.relpath(path, root)).as_posix(), content]


def backbone_hash(detector: Detector) -> str | None:
    """Return the hash of the network that the detector would take; None where it takes none of `open_backbone`."""
    if detector.needs != "pyramid":
        return None
    weights = None if detector.weights is None else os.fspath(detector.weights)
    return _backbone_hash(os.fspath(detector.backbone), weights)


@cache
def _backbone_hash(name: str, weights: str | None) -> str:
    return open_backbone(name, weights=weights, threads=1).hash


def versions(detector: Detector) -> dict[str, str | None]:
    """Return the versions of Spadework, Python and the libraries that the detector runs on; None for one that is not installed."""
    names = (*LIBRARIES, *(FRAMEWORKS if detector.extra else ()))
    found: dict[str, str | None] = {"spadework": spadework.__version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


@cache
def code_hash(cls: type[Detector]) -> str:
    """Return 16 hexadecimal digits for the source that decides a detector's measures."""
    files = sorted(_reached([Path(inspect.getfile(each)) for each in _classes(cls)] + [Path(evaluation.__file__)]))
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return _sha256("".join(hashes).encode())[:16]


def code_files(cls: type[Detector]) -> list[str]:
    """Return the names of the files that `code_hash` is of, below the package where they lie in it."""
    files = _reached([Path(inspect.getfile(each)) for each in _classes(cls)] + [Path(evaluation.__file__)])
    return sorted(f.relative_to(PACKAGE).as_posix() if f.is_relative_to(PACKAGE) else f.name for f in files)


def _classes(cls: type[Detector]) -> list[type]:
    return [each for each in cls.__mro__ if issubclass(each, Detector)]


def _reached(files: list[Path]) -> set[Path]:
    """These files and all of the package that they import, also inside functions; of a package, all of its files."""
    found: set[Path] = set()
    while files:
        file = files.pop()
        if file not in found and file not in APART:
            found.add(file)
            files += _imports(file)
    return found


@cache
def _imports(file: Path) -> tuple[Path, ...]:
    return tuple(path for name in _imported_names(file) for path in _files_of(name))


def _imported_names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files_of(name: str) -> list[Path]:
    """The files that a dotted name stands for; none where it is no module of the package."""
    root, *parts = name.split(".")
    if root != PACKAGE.name or not parts:
        return []
    place = PACKAGE.joinpath(*parts)
    if place.is_dir() and place != PACKAGE / "detectors":
        return sorted(place.rglob("*.py"))
    file = place.with_suffix(".py")
    return [file] if file.is_file() else []


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
