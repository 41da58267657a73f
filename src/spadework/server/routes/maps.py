"""Pictures of an inspection: the part itself, the map over it, the normal place that a place was compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from spadework.report.pictures import heat_range
from spadework.scores import to_picture
from spadework.server import schemas
from spadework.server.drawing import data_uri, heat_png, jpeg
from spadework.server.evidence import Evidence
from spadework.server.problems import Json, Problem, not_found
from spadework.server.records import Inspection
from spadework.server.routes.decisions import Id, find, station_of
from spadework.server.routes.guarded import PREFIX, Guarded, content, drawing, services, spec
from spadework.server.services import Services

router = APIRouter(prefix=PREFIX, route_class=Guarded, tags=["pictures"])
KEPT = {"Cache-Control": "private, max-age=86400, immutable"}  # what an inspection saw never changes
USERS = {  # a picture that came from anybody: never run as anything, also where a browser opens it by itself
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/tiff": "tif", "image/bmp": "bmp", "image/webp": "webp"}
MAP_SIDE = 512  # longer side of a map of size "view", in pixels
HEAT_SIDE = 1280
MapSize = Annotated[
    Literal["full", "view"],
    Query(description='"full": the picture\'s own size; "view": the same, small enough for a page'),
]


def described(role: str, media_type: str, text: str, **headers: str) -> dict[str, Any]:
    """Return what the decorator of a route takes whose answer is no JSON."""
    found = spec(role, 404, 410, 422)
    found["responses"] |= content(media_type, text, **headers)
    return {**found, "response_class": Response}


@router.get("/inspections/{id}/image", **described("inspect", "image/*", "The picture."))
async def image(request: Request, id: Id, size: Literal["full", "view", "thumb"] = "full") -> Response:
    """Return the inspected picture: as it came, or as a JPEG for a page."""
    return await drawing(request, lambda: _image(services(request), id, size))


def _image(station: Services, id: int, size: str) -> Response:
    seen = find(station, id).seen
    picture = station.pictures.path(seen.picture)
    if not picture.is_file():
        raise gone("The picture")

    def read(path: Path) -> np.ndarray:
        return station.decoders.decode(path)[0]  # it came from anybody

    if size == "view":
        return Response(jpeg(read(picture)), headers={**KEPT, **USERS, "Content-Type": "image/jpeg"})
    if size == "thumb":
        small = station.pictures.thumbnail(seen.picture, read)
        if small is None:
            raise gone("The picture")
        return FileResponse(small, media_type="image/jpeg", headers={**KEPT, **USERS})
    suffix = SUFFIXES.get(seen.media_type)
    named = f'attachment; filename="inspection-{id}.{suffix or "bin"}"'
    kind = seen.media_type if suffix else "application/octet-stream"
    return FileResponse(picture, media_type=kind, headers={**KEPT, **USERS, "Content-Disposition": named})


@router.get(
    "/inspections/{id}/map.png", **described("inspect", "image/png", "Heat, clear where nothing is suspicious.")
)
async def heat(request: Request, id: Id, size: MapSize = "full") -> Response:
    """Return the heat of the map alone, as an RGBA PNG to lay over the picture. Colours as in the reports, by the map's threshold."""
    return await drawing(request, lambda: _heat(services(request), id, size))


def _heat(station: Services, id: int, size: str) -> Response:
    inspection = find(station, id)
    score_map = _map_of(evidence_of(station, inspection), size, HEAT_SIDE)
    low, high = heat_range([score_map], inspection.seen.map_threshold)
    return Response(heat_png(score_map, low=low, high=high), headers={**KEPT, "Content-Type": "image/png"})


@router.get(
    "/inspections/{id}/map.f32",
    **described("inspect", "application/octet-stream", "float32, little-endian, row by row.", X_Shape="height,width"),
)
async def raw(request: Request, id: Id, size: MapSize = "full") -> Response:
    """Return the map's scores: NaN where nothing was inspected."""
    return await drawing(request, lambda: _raw(services(request), id, size))


def _raw(station: Services, id: int, size: str) -> Response:
    score_map = _map_of(evidence_of(station, find(station, id)), size, MAP_SIDE)
    shape = {"X-Shape": f"{score_map.shape[0]},{score_map.shape[1]}", "Content-Type": "application/octet-stream"}
    return Response(score_map.astype("<f4").tobytes(), headers={**KEPT, **shape})


@router.get("/inspections/{id}/match", response_model=schemas.Match, **spec("inspect", 404, 409, 410, 422))
async def match(
    request: Request,
    id: Id,
    y: Annotated[int, Query(ge=0, le=10**6, description="row, in the picture's pixels")],
    x: Annotated[int, Query(ge=0, le=10**6, description="column")],
) -> Response:
    """Tell the normal place that a place of the picture was compared with, and show both."""
    return await drawing(request, lambda: _match(services(request), id, y, x))


def _match(station: Services, id: int, y: int, x: int) -> Response:
    inspection = find(station, id)
    found = station_of(station, inspection).match(inspection, y, x)
    normal = {
        "name": found.normal.name,
        "hash": found.normal.pixel_hash,
        "added_by": found.normal.added_by,
        "added_at": found.normal.added_at.isoformat() if found.normal.added_at else None,
        "removed": found.removed,
    }
    return Json(
        {
            "normal": normal,
            "box": list(found.normal_box),
            "distance": found.distance,
            "here_box": list(found.box),
            "here": None if found.here is None else data_uri(found.here),
            "there": None if found.there is None else data_uri(found.there),
        }
    )


def evidence_of(station: Services, inspection: Inspection) -> Evidence:
    """Return the evidence of an inspection. Raises Problem 404 where its detector gives no map, 410 where the file is gone."""
    sha256 = inspection.seen.evidence
    if sha256 is None:
        raise not_found(f"map: the detector {inspection.seen.detector} gives none")
    found = Evidence.read(station.pictures.evidence_path(sha256))
    if found is None:
        raise gone("The map")
    return found


def gone(what: str) -> Problem:
    """A 410 for a file that a clean-up took."""
    return Problem(410, "gone", f"{what} is no longer kept.", "Pictures that somebody marked are kept for ever.")


def _map_of(evidence: Evidence, size: str, longest: int) -> np.ndarray:
    scale = longest / max(evidence.size)
    if size == "full" or scale >= 1.0:
        return evidence.score_map()
    small = tuple(max(1, round(side * scale)) for side in evidence.size)
    return to_picture(evidence.view_map, evidence.view, small)
