"""The detectors by name. Command line, docs, benchmark and contract tests read this registry.

A compared method takes its place here as one line and one file beside `spade.py`.
"""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from typing import Any

from spadework import check
from spadework.check import one_of
from spadework.detectors.base import Detector
from spadework.errors import MissingExtraError, ModelError

DETECTORS = {
    "spade": "spadework.detectors.spade:Spade",
    "spade-scales": "spadework.detectors.spade_scales:SpadeScales",
    "patchcore": "spadework.detectors.patchcore:PatchCore",
    "padim": "spadework.detectors.padim:PaDiM",
    "nearest-image": "spadework.detectors.nearest_image:NearestImage",
    "texture-inspection": "spadework.detectors.texture_inspection:TextureInspection",
    "variation-model": "spadework.detectors.variation_model:VariationModel",
    "cnn-dictionary": "spadework.detectors.cnn_dictionary:CnnDictionary",
    "ae-l2": "spadework.detectors.ae_l2:AutoencoderL2",
    "ae-ssim": "spadework.detectors.ae_ssim:AutoencoderSSIM",
    "anogan": "spadework.detectors.anogan:AnoGAN",
    "ganomaly": "spadework.detectors.ganomaly:GANomaly",
    "geom": "spadework.detectors.geom:Geom",
    "itae": "spadework.detectors.itae:ITAE",
    "cavga-ru": "spadework.detectors.cavga:CAVGARu",
}


def get_detector(name: str) -> type[Detector]:
    """Return a detector's class by its name."""
    module, _, cls = DETECTORS[one_of(name, "detector", DETECTORS)].partition(":")
    found: type[Detector] = getattr(import_module(module), cls)
    return found


def load_detector(
    path: str | os.PathLike[str],
    *,
    backbone: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> Detector:
    """Load a fitted model, whatever detector made it.

    Args:
        path: the model's folder.
        backbone: as in `Detector.load`.
        weights: as in `Detector.load`.
        threads: as in `Detector.load`.

    Raises:
        ModelError: no model, damaged, of a newer version, or of a detector that is not known here.
    """
    from spadework.storage import ModelFolder

    name = ModelFolder.open(check.path(path, "path")).header.get("detector")
    if name not in DETECTORS:
        raise ModelError(
            f"{path}: was made by detector {name!r}; known here: {', '.join(DETECTORS)}. Upgrade Spadework."
        )
    return get_detector(str(name)).load(path, backbone=backbone, weights=weights, threads=threads)


def describe(name: str) -> dict[str, Any]:
    """Return what a detector is and its settings, each with its default and its meaning, as plain JSON values.

    "quick" holds the settings that `Detector.quick` changes; "extra" the optional part of the installation it needs, "" for none.
    """
    cls = get_detector(name)
    meanings = _meanings(inspect.getdoc(cls) or "")
    parameters = inspect.signature(cls.__init__).parameters
    settings = [
        {"name": key, "default": parameters[key].default, "meaning": meanings.get(key, "")}
        for key in cls.setting_names()
    ]
    about = {"name": name, "summary": cls.summary, "source": cls.source, "needs": cls.needs, "localises": cls.localises}
    limits = {"cannot": cls.cannot, "cost": cls.cost, "extra": cls.extra, "quick": _plain(dict(cls.QUICK))}
    return about | limits | {"settings": settings}


def describe_all() -> list[dict[str, Any]]:
    """Return `describe` of every detector; of one that cannot even be imported here, its name and why, as "unavailable"."""
    found = []
    for name in DETECTORS:
        try:
            found.append(describe(name))
        except MissingExtraError as error:
            found.append({"name": name, "unavailable": str(error)})
    return found


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, (tuple, range)) else value for key, value in values.items()}


def _meanings(doc: str) -> dict[str, str]:
    """What a docstring's Args say, by name: lines of four spaces start one, deeper ones go on."""
    found: dict[str, str] = {}
    name = ""
    for line in doc.partition("Args:\n")[2].splitlines():
        if not line.startswith("    "):
            break
        if line.startswith("     "):
            found[name] += " " + line.strip()
        else:
            name, _, text = line.strip().partition(": ")
            found[name] = text
    return found
