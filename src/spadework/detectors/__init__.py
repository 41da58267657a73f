"""The detectors by name. Command line, docs, benchmark and contract tests read this registry.

A compared method takes its place here as one line and one file beside `spade.py`.
"""

from __future__ import annotations

from importlib import import_module

from spadework.check import one_of
from spadework.detectors.base import Detector

DETECTORS = {"spade": "spadework.detectors.spade:Spade"}


def get_detector(name: str) -> type[Detector]:
    """Return a detector's class by its name."""
    module, _, cls = DETECTORS[one_of(name, "detector", DETECTORS)].partition(":")
    found: type[Detector] = getattr(import_module(module), cls)
    return found


def load_detector(path: str, **options: object) -> Detector:
    """Load a fitted model, whatever detector made it; `options` as in `Detector.load`."""
    from spadework.storage import ModelFolder

    name = str(ModelFolder.open(path).header.get("detector"))
    return get_detector(name).load(path, **options)  # type: ignore[arg-type]
