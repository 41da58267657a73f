"""What clients are told of models and decisions, when they ask and when something changes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from spadework.calibration import Threshold
from spadework.detectors.base import Detector
from spadework.server.records import Decision, plain
from spadework.server.services import Services

KEPT_BACK = frozenset({"weights", "backbone", "threads", "device", "checkpoints"})  # where things lie on this machine


def announce_model(station: Services, name: str) -> dict[str, Any]:
    """Tell everybody of a model that changed, and return what is told."""
    told = model_json(name, station.stations[name].snapshot())
    station.metrics.normals.labels(name).set(told["n_normal"])
    station.events.publish("model", told)
    return told


def model_json(name: str, detector: Detector) -> dict[str, Any]:
    """Return what a client is told of a model. Where its files and weights lie is not."""
    threshold, header = detector.threshold_, detector.folder_.header
    return {
        "name": name,
        "detector": detector.name,
        "model_hash": detector.model_hash(),
        "backbone_hash": header["backbone"]["hash"] if header.get("backbone") else None,
        "settings": {key: value for key, value in detector.settings().items() if key not in KEPT_BACK},
        "max_false_alarms": threshold.asked,
        "threshold": _threshold(threshold),
        "map_threshold": _threshold(detector.map_threshold_),
        "n_normal": detector.n_normal_,
        "can_append": hasattr(detector, "append"),
        "can_explain": hasattr(detector, "explain"),
        "localises": detector.localises,
    }


def _threshold(threshold: Threshold) -> dict[str, Any]:
    return {**asdict(threshold), "text": str(threshold)}


def announce_decision(station: Services, decision: Decision, what: str) -> dict[str, Any]:
    """Tell everybody of a decision and of the inspection as it stands now; return the decision as JSON values."""
    told = plain(decision)
    station.metrics.decisions.labels(what).inc()
    inspection = station.history.get(decision.inspection_id)
    station.events.publish("decision", {"decision": told, "inspection": inspection.to_json() if inspection else None})
    if decision.kind == "normal" and decision.model in station.stations:
        announce_model(station, decision.model)
    return told
