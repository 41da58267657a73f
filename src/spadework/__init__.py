"""Spadework finds defects it has never seen: exact SPADE, from pictures to verdicts, maps and measures.

>>> from spadework import Spade
>>> model = Spade().fit("good/")            # doctest: +SKIP
>>> model.predict("new.png").is_anomalous   # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Detector": "spadework.detectors.base",
    "Evaluation": "spadework.evaluation",
    "Explanation": "spadework.detectors.explaining",
    "Failure": "spadework.prediction",
    "Prediction": "spadework.prediction",
    "Predictions": "spadework.prediction",
    "Region": "spadework.scores",
    "Spade": "spadework.detectors.spade",
    "SpadeworkError": "spadework.errors",
    "Threshold": "spadework.calibration",
    "evaluate": "spadework.evaluation",
    "load": "spadework.detectors",
    "open_backbone": "spadework.backbones",
    "open_dataset": "spadework.datasets",
    "write_report": "spadework.report",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import spadework` itself loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'spadework' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), "load_detector" if name == "load" else name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
