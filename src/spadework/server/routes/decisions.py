"""What people say of inspections: "this is normal" adds the picture to the model at once; everything can be undone."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from spadework.server.problems import Json, Problem, not_found
from spadework.server.records import Inspection as Inspected
from spadework.server.records import plain
from spadework.server.routes.guarded import PREFIX, Guarded, changing, services, spec, who
from spadework.server.schemas import Decided, Decision, DecisionList, NewDecision
from spadework.server.services import Services
from spadework.server.station import Station
from spadework.server.telling import announce_decision

router = APIRouter(prefix=PREFIX, route_class=Guarded, tags=["decisions"])
NOW = ("passes", "score_now", "verdict_now", "model_hash_now", "seconds")
Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.post(
    "/inspections/{id}/decisions", status_code=201, response_model=Decided, **spec("decide", 404, 409, 410, 413, 422)
)
async def decide(request: Request, id: Id, body: NewDecision) -> Response:
    """Say that an inspected picture is normal, which adds it to the model, or a defect."""
    return Json(await changing(request, lambda: _decide(request, id, body)), status=201)


def _decide(request: Request, id: int, body: NewDecision) -> dict[str, Any]:
    station, inspection = services(request), find(services(request), id)
    served = station_of(station, inspection)
    mark = served.mark_normal if body.kind == "normal" else served.mark_defect
    decision = mark(inspection.id, who(request), body.note)
    return {**dict.fromkeys(NOW), **announce_decision(station, decision, body.kind)}


@router.get("/inspections/{id}/decisions", response_model=DecisionList, **spec("inspect", 404, 422))
def decisions(request: Request, id: Id) -> Response:
    """List all that was said of an inspection, also what was undone."""
    station = services(request)
    find(station, id)
    return Json({"items": [plain(decision) for decision in station.history.decisions(id)]})


@router.post("/decisions/{id}/undo", response_model=Decision, **spec("decide", 404, 409, 422))
async def undo(request: Request, id: Id) -> Response:
    """Take a decision back; of "normal", the picture is also taken out of the model."""
    return Json(await changing(request, lambda: _undo(request, id)))


def _undo(request: Request, id: int) -> dict[str, Any]:
    station = services(request)
    said = station.history.decision(id)
    if said is None:
        raise not_found(f"decision {id}")
    inspection = find(station, said.inspection_id)
    decision = station_of(station, inspection).undo(id, who(request))
    return announce_decision(station, decision, "undo")


def find(station: Services, number: int) -> Inspected:
    """Return an inspection. Raises Problem 404."""
    found = station.history.get(number)
    if found is None:
        raise not_found(f"inspection {number}")
    return found


def station_of(station: Services, inspection: Inspected) -> Station:
    """Return the station that made an inspection. Raises Problem 409 if its model is not served now."""
    served = station.stations.get(inspection.seen.model)
    if served is None:
        raise Problem(
            409,
            "model_not_served",
            f"The model {inspection.seen.model} is not served now.",
            "Start the station with it.",
        )
    return served
