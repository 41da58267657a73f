"""The models that are served: what they are, their normal pictures, how they changed, and what they said over time."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from spadework.calibration import Threshold
from spadework.detectors.base import Detector
from spadework.server import schemas
from spadework.server.problems import Json, not_found
from spadework.server.receiving import receiving
from spadework.server.records import ModelChange, plain
from spadework.server.routes.guarded import PREFIX, Guarded, content, services, spec, who
from spadework.server.routes.inspections import Model, Name
from spadework.server.services import Services

router = APIRouter(prefix=PREFIX, route_class=Guarded, tags=["models"])
Hash = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Cursor = Annotated[schemas.Text | None, Query(max_length=200)]


@router.get("/models", response_model=schemas.ModelList, **spec("inspect"))
def models(request: Request) -> Response:
    """List the models that are served."""
    station = services(request)
    return Json({"items": [tell(name, served.snapshot()) for name, served in sorted(station.stations.items())]})


@router.get("/models/{model}", response_model=schemas.ModelInfo, **spec("inspect", 404, 422))
def model(request: Request, model: Model) -> Response:
    """Tell of one model: settings, thresholds and what they promise."""
    return Json(tell(model, services(request).station(model).snapshot()))


def tell(name: str, detector: Detector) -> dict[str, Any]:
    """Return what a client is told of a model. Where its files and weights lie is not."""
    folder = detector.folder_.header
    kept_back = {"weights", "backbone", "threads", "device", "checkpoints"}
    return {
        "name": name,
        "detector": detector.name,
        "model_hash": detector.model_hash(),
        "backbone_hash": folder["backbone"]["hash"] if folder.get("backbone") else None,
        "settings": {key: value for key, value in detector.settings().items() if key not in kept_back},
        "threshold": _threshold(detector.threshold_),
        "map_threshold": _threshold(detector.map_threshold_),
        "n_normal": detector.n_normal_,
        "can_append": hasattr(detector, "append"),
        "can_explain": hasattr(detector, "explain"),
        "localises": detector.localises,
    }


def _threshold(threshold: Threshold) -> dict[str, Any]:
    return {**asdict(threshold), "text": str(threshold)}
