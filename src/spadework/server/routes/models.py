"""The models that are served: what they are, their normal pictures, how they changed, and what they said over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from spadework.server import schemas
from spadework.server.drawing import jpeg
from spadework.server.problems import Json
from spadework.server.receiving import receiving
from spadework.server.records import ModelChange, plain
from spadework.server.routes.guarded import PREFIX, Guarded, changing, services, spec, who
from spadework.server.routes.inspections import Model, Name, Time
from spadework.server.routes.maps import described
from spadework.server.station import Station
from spadework.server.telling import announce_model, model_json

router = APIRouter(prefix=PREFIX, route_class=Guarded, tags=["models"])
Hash = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Cursor = Annotated[schemas.Text | None, Query(max_length=200)]


@router.get("/models", response_model=schemas.ModelList, **spec("inspect"))
def models(request: Request) -> Response:
    """List the models that are served."""
    station = services(request)
    return Json({"items": [model_json(name, served.snapshot()) for name, served in sorted(station.stations.items())]})


@router.get("/models/{model}", response_model=schemas.ModelInfo, **spec("inspect", 404, 422))
def model(request: Request, model: Model) -> Response:
    """Tell of one model: settings, thresholds and what they promise."""
    return Json(model_json(model, services(request).station(model).snapshot()))


@router.post("/models/{model}/reload", response_model=schemas.ModelInfo, **spec("manage", 404, 409, 422))
async def reload(request: Request, model: Model) -> Response:
    """Take up the model as it is on the disk now, after another program changed it."""
    return await _change(request, model, lambda served: served.reload(who(request)))


@router.put("/models/{model}/threshold", response_model=schemas.ModelInfo, **spec("manage", 404, 409, 413, 422))
async def set_threshold(request: Request, model: Model, body: schemas.NewThreshold) -> Response:
    """Set how many normal pictures may be called anomalous; the threshold follows from it, and the model keeps it."""
    rate = body.max_false_alarms
    return await _change(request, model, lambda served: served.set_max_false_alarms(rate, who(request)))


async def _change(request: Request, model: str, change: Callable[[Station], object]) -> Response:
    station = services(request)
    served = station.station(model)
    await changing(request, lambda: change(served))
    return Json(await changing(request, lambda: announce_model(station, model)))


@router.get("/models/{model}/normals", response_model=schemas.NormalList, **spec("inspect", 404, 422))
def normals(
    request: Request,
    model: Model,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """List the normal pictures that a model holds."""
    served = services(request).station(model)
    items = [
        {
            "name": entry.name,
            "hash": entry.pixel_hash,
            "size": list(entry.size),
            "score": entry.score,
            "added_by": entry.added_by,
            "added_at": entry.added_at.isoformat() if entry.added_at else None,
            "inspection_id": entry.inspection_id,
        }
        for entry in served.normals(offset, limit)
    ]
    return Json({"items": items, "offset": offset, "total": served.snapshot().n_normal_})


@router.post(
    "/models/{model}/normals",
    status_code=201,
    response_model=schemas.NewNormal,
    **spec("manage", 404, 409, upload=True),
)
async def add_normal(request: Request, model: Model, name: Name = None) -> Response:
    """Add a normal picture to a model, without an inspection."""
    station, asked_by = services(request), who(request)
    served = station.station(model)
    async with receiving(request, station, name) as received:
        change = await changing(request, lambda: served.append(received.rgb, received.name, asked_by))
    await changing(request, lambda: announce_model(station, model))
    return Json({"hash": change.made.pictures[0]}, status=201)


@router.delete("/models/{model}/normals/{hash}", status_code=204, **spec("manage", 404, 409, 422))
async def remove_normal(request: Request, model: Model, hash: Hash) -> Response:
    """Take a normal picture out of a model; one must stay."""
    await _change(request, model, lambda served: served.remove(hash, who(request)))
    return Response(status_code=204)


@router.get("/models/{model}/normals/{hash}/image", **described("inspect", "image/jpeg", "A small picture."))
def normal_image(request: Request, model: Model, hash: Hash) -> Response:
    """Return the small picture that the model keeps of a normal picture."""
    drawn = jpeg(services(request).station(model).normal_thumbnail(hash))
    return Response(drawn, headers={"Cache-Control": "private, max-age=86400, immutable", "Content-Type": "image/jpeg"})


@router.get("/models/{model}/changes", response_model=schemas.ChangeList, **spec("inspect", 404, 422))
def changes(
    request: Request, model: Model, cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> Response:
    """List how a model was changed, newest first."""
    station = services(request)
    station.station(model)
    page = station.history.changes(model, cursor, limit)
    return Json({"items": [_made(change) for change in page.items], "cursor": page.cursor})


@router.get("/models/{model}/series", response_model=schemas.Series, **spec("inspect", 404, 422))
def series(
    request: Request,
    model: Model,
    since: Time | None = None,
    until: Time | None = None,
    buckets: Annotated[int, Query(ge=1, le=500)] = 48,
) -> Response:
    """Tell what a model saw over time, in equal parts of it: counts, quantiles and a histogram of the scores, nearest distances."""
    station = services(request)
    station.station(model)
    parts = station.history.series(model, since, until, buckets)
    items = [
        {
            **part,
            "from": part["from"].isoformat(),
            "to": part["to"].isoformat(),
            "histogram": part["histogram"]["counts"],
        }
        for part in parts
    ]
    return Json({"edges": parts[0]["histogram"]["edges"] if parts else [], "items": items})


@router.get("/models/{model}/scores", response_model=schemas.Scores, **spec("inspect", 404, 422))
def scores(request: Request, model: Model, last: Annotated[int, Query(ge=1, le=10_000)] = 500) -> Response:
    """List the latest scores of a model, newest first: what share of them a threshold would fail."""
    station = services(request)
    station.station(model)
    return Json({"scores": station.history.shares(model, last)})


def _made(change: ModelChange) -> dict[str, Any]:
    return {"id": change.id, "at": change.at.isoformat(), **plain(change.made)}
