"""Inspecting a picture, and the history of all that were inspected."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, AwareDatetime
from starlette.requests import Request
from starlette.responses import Response

from spadework.server import schemas
from spadework.server.inspecting import Candidate
from spadework.server.problems import Json
from spadework.server.receiving import Received, inspecting
from spadework.server.records import Filter
from spadework.server.records import Inspection as Inspected
from spadework.server.routes.decisions import Id, find
from spadework.server.routes.guarded import PREFIX, Guarded, services, spec, who

router = APIRouter(prefix=PREFIX, route_class=Guarded, tags=["inspections"])
Model = Annotated[str, Path(max_length=64)]
Name = Annotated[
    str | None, Query(max_length=200, description="what the picture is called; by default its file's name")
]


def _in_utc(at: datetime) -> datetime:
    """The first and the last hours of all time are none in UTC."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]


@router.post(
    "/models/{model}/inspections",
    status_code=201,
    response_model=schemas.Inspection,
    **spec("inspect", 404, upload=True),
)
async def inspect(
    request: Request, model: Model, name: Name = None, source: Literal["upload", "camera"] = "upload"
) -> Response:
    """Inspect a picture. The answer comes once the inspection is in the history."""
    station, asked_by = services(request), who(request)
    served = station.station(model)

    def submit(received: Received) -> Future[Inspected]:
        return served.submit(
            Candidate(
                rgb=received.rgb,
                picture=received.picture,
                name=received.name,
                source=source,
                who=asked_by,
                media_type=received.media_type,
                decode_seconds=received.seconds,
            )
        )

    inspection = await inspecting(request, station, name, submit)
    return Json(inspection.to_json(), status=201)


@router.get("/inspections", response_model=schemas.InspectionList, **spec("inspect", 422))
def history(
    request: Request,
    model: Annotated[schemas.Text | None, Query(max_length=64)] = None,
    verdict: schemas.Verdict | None = None,
    decision: Literal["normal", "defect", "none"] | None = None,
    since: Time | None = None,
    until: Time | None = None,
    text: Annotated[schemas.Text | None, Query(max_length=200, description="part of the name")] = None,
    score_min: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    score_max: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    newest_first: bool = True,
    cursor: Annotated[schemas.Text | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """List the history, page by page."""
    page = services(request).history.find(
        Filter(
            model=model,
            verdict=verdict,
            decision=decision,
            since=since,
            until=until,
            text=text,
            score_min=score_min,
            score_max=score_max,
            newest_first=newest_first,
            cursor=cursor,
            limit=limit,
        )
    )
    return Json({"items": [item.to_json() for item in page.items], "cursor": page.cursor, "total": page.total})


@router.get("/inspections/{id}", response_model=schemas.Inspection, **spec("inspect", 404, 422))
def one(request: Request, id: Id) -> Response:
    """Tell one inspection."""
    return Json(find(services(request), id).to_json())
