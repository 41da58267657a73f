"""A stand-in for the inspection station's service, for tests of its page: the same HTTP, everything kept in memory.

Pictures are rendered parts, the model is really fitted, so scores, maps and matches are real. `FakeService` runs it on a free port of loopback in a
thread; `python tests/page_server.py` runs it by hand. What the page relies on beyond the plain records:

    GET  models                     {"items": [model]}; model: name, detector, n_normal, model_hash, backbone_hash, can_append, settings,
                                    max_false_alarms, threshold and map_threshold {"value", "asked", "promised", "n", "text"}
    GET  models/M/normals           {"items": [{"name", "hash", "size", "added_by", "added_at", "score"}], "total", "offset"}
    GET  models/M/changes           {"items": [ModelChange, flat], "cursor"}
    GET  models/M/series            {"edges": [...], "items": [{"from", "to", "count", "anomalous", "quantiles": {"0.05", "0.5", ...},
                                    "histogram": one count per bin of "edges", "nearest_distance"}]}
    GET  models/M/scores            {"scores": [newest first]}
    POST inspections/N/decisions    Decision, and "passes": whether the picture passes now, with "score_now"
    GET  inspections/N/map.f32      `size=view` gives the network's view where that is the whole picture: small, and enough for the page
    events                          `inspection`: Inspection; `decision`: {"decision": Decision, "inspection": Inspection}; `model`: model
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from spadework.datasets.synthetic import render
from spadework.detectors.spade import Spade
from spadework.images import pixel_hash
from spadework.scores import find_regions

PAGE = Path(__file__).resolve().parents[1] / "src" / "spadework" / "server" / "page"
RANKS = {"inspect": 1, "decide": 2, "manage": 3}
PEOPLE = (("ida", "inspect"), ("dora", "decide"), ("max", "manage"))
TOKENS = {
    "inspect": "token-of-ida-0123456789",
    "decide": "token-of-dora-0123456789",
    "manage": "token-of-max-0123456789",
}
CSP = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"


def part(
    index: int, *, defect: str | None = None, category: str = "gear", size: int = 128, severity: float = 0.9
) -> np.ndarray:
    """A rendered part, uint8 (size, size, 3) RGB."""
    split = "train" if defect is None else "test"
    return render(category, index=index, split=split, defect=defect, size=size, severity=severity)[0]


def png(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


def jpeg(rgb: np.ndarray, longest: int) -> bytes:
    scale = min(1.0, longest / max(rgb.shape[:2]))
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    return cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()


def now() -> str:
    return datetime.now(UTC).isoformat()


class RefusalError(Exception):
    def __init__(self, status: int, code: str, message: str, hint: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint, self.headers = status, code, message, hint, headers


class Model:
    """A detector by name; what is in use is never changed, only replaced."""

    def __init__(self, name: str, detector: Spade, pictures: list[tuple[str, np.ndarray]], folder: Path) -> None:
        self.name, self.detector, self.folder = name, detector, folder
        self.pictures = {pixel_hash(rgb): (label, rgb) for label, rgb in pictures}
        self.origin: dict[str, tuple[str, str]] = {}
        self.changes: list[dict[str, Any]] = []

    def threshold(self, which: str) -> dict[str, Any]:
        found = getattr(self.detector, which)
        return {
            "value": found.value,
            "asked": found.asked,
            "promised": found.promised,
            "n": found.n,
            "text": str(found),
        }

    def to_json(self) -> dict[str, Any]:
        header = self.detector.folder_.header
        return {
            "name": self.name,
            "detector": self.detector.name,
            "n_normal": self.detector.n_normal_,
            "model_hash": self.detector.model_hash(),
            "backbone_hash": header["backbone"]["hash"],
            "can_append": True,
            "settings": self.detector.settings(),
            "max_false_alarms": self.detector.max_false_alarms,
            "threshold": self.threshold("threshold_"),
            "map_threshold": self.threshold("map_threshold_"),
        }

    def normals(self) -> list[dict[str, Any]]:
        scores = {}
        for key, score in zip(self.pictures, self.detector.normal_scores_, strict=False):
            scores[key] = float(score)
        return [
            {"name": name, "hash": key, "size": list(rgb.shape[:2]), "added_by": self.origin.get(key, (None, None))[0],
             "added_at": self.origin.get(key, (None, None))[1], "score": scores.get(key)}
            for key, (name, rgb) in self.pictures.items()
        ]  # fmt: skip

    def _next(self, who: str, what: str, change: Any, **more: Any) -> dict[str, Any]:
        before = self.detector.model_hash()
        self.detector = change()
        made = {"id": len(self.changes) + 1, "at": now(), "model": self.name, "who": who, "what": what, "pictures": [],
                "model_hash_before": before, "model_hash_after": self.detector.model_hash(), "inspection_id": None, "detail": {}, **more}  # fmt: skip
        self.changes.append(made)
        return made

    def _own_copy(self) -> Spade:
        return Spade.load(self.detector.save(self.folder / f"{secrets.token_hex(6)}.spade"))

    def append(self, rgb: np.ndarray, name: str, who: str, inspection_id: int | None = None) -> str:
        key = pixel_hash(rgb)
        if key not in self.pictures:
            self._next(
                who, "append", lambda: self._own_copy().append([rgb]), pictures=[key], inspection_id=inspection_id
            )
            self.pictures[key], self.origin[key] = (name, rgb), (who, now())
        return key

    def remove(self, key: str, who: str, inspection_id: int | None = None) -> None:
        if len(self.pictures) == 1:
            raise RefusalError(409, "last_normal", "The last normal picture cannot be removed.")
        rest = {other: kept for other, kept in self.pictures.items() if other != key}
        fresh = Spade(**self.detector.settings())
        self._next(
            who,
            "remove",
            lambda: fresh.fit([rgb for _, rgb in rest.values()]),
            pictures=[key],
            inspection_id=inspection_id,
        )
        self.pictures = rest

    def set_rate(self, rate: float, who: str) -> None:
        self._next(
            who, "threshold", lambda: self._own_copy().set_max_false_alarms(rate), detail={"max_false_alarms": rate}
        )


class Store:
    """All that the service remembers."""

    def __init__(self, models: list[Model], tokens: dict[str, tuple[str, str]] | None) -> None:
        self.models = {model.name: model for model in models}
        self.tokens = tokens
        self.sessions: dict[str, dict[str, str]] = {}
        self.inspections: list[dict[str, Any]] = []
        self.hidden: dict[int, dict[str, Any]] = {}
        self.decisions: list[dict[str, Any]] = []
        self.events: list[tuple[int, str, Any]] = []
        self.listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Queue[Any]]] = set()
        self.lock = threading.RLock()

    def publish(self, kind: str, data: Any) -> None:
        event = (len(self.events) + 1, kind, data)
        self.events.append(event)
        for loop, queue in list(self.listeners):
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, event)

    def model(self, name: str) -> Model:
        if name not in self.models:
            raise RefusalError(404, "no_such_model", f"There is no model {name!r}.")
        return self.models[name]

    def inspection(self, number: int) -> dict[str, Any]:
        if not 0 < number <= len(self.inspections):
            raise RefusalError(404, "no_such_inspection", f"There is no inspection {number}.")
        return self.inspections[number - 1]

    def inspect(
        self, model: Model, data: bytes, name: str, source: str, who: str, at: str | None = None
    ) -> dict[str, Any]:
        rgb = decoded(data)
        with self.lock:
            started = time.perf_counter()
            found = model.detector.predict([rgb]).only
            number = len(self.inspections) + 1
            told = {
                "id": number, "at": at or now(), "model": model.name, "model_hash": model.detector.model_hash(),
                "backbone_hash": model.to_json()["backbone_hash"], "detector": "spade", "name": name, "source": source, "who": who,
                "picture": pixel_hash(rgb), "media_type": "image/png", "height": rgb.shape[0], "width": rgb.shape[1],
                "score": found.score, "threshold": found.threshold, "map_threshold": found.map_threshold, "verdict": found.verdict,
                "regions": [regions_json(found.score_map, region) for region in find_regions(found.score_map, found.map_threshold)],
                "nearest": [{"name": label, "distance": distance} for label, distance in found.nearest_images],
                "nearest_distance": found.nearest_images[0][1], "evidence": "0" * 64, "decision": None, "files_removed_at": None,
                "timings": {"decode": 0.002, "wait": 0.001, "inspect": time.perf_counter() - started},
            }  # fmt: skip
            self.inspections.append(told)
            self.hidden[number] = {
                "rgb": rgb,
                "bytes": data,
                "found": found,
                "detector": model.detector,
                "hashes": list(model.pictures),
            }
        self.publish("inspection", told)
        return told

    def decide(self, number: int, kind: str, who: str, note: str) -> dict[str, Any]:
        inspection = self.inspection(number)
        model, rgb = self.model(inspection["model"]), self.hidden[number]["rgb"]
        with self.lock:
            key = model.append(rgb, inspection["name"], who, number) if kind == "normal" else None
            again = model.detector.predict([rgb]).only
            made = {"id": len(self.decisions) + 1, "inspection_id": number, "kind": kind, "who": who, "at": now(), "note": note,
                    "model": model.name, "model_hash": model.detector.model_hash(), "threshold": inspection["threshold"],
                    "appended": key is not None, "undone_at": None, "undone_by": None}  # fmt: skip
            self.decisions.append(made)
            self._tell(number)
        if key:
            self.publish("model", model.to_json())
        return {**made, "passes": again.is_anomalous is False, "score_now": again.score}

    def undo(self, number: int, who: str) -> dict[str, Any]:
        made = next((one for one in self.decisions if one["id"] == number), None)
        if made is None:
            raise RefusalError(404, "no_such_decision", f"There is no decision {number}.")
        if made["undone_at"]:
            raise RefusalError(409, "undone_already", "This decision was undone already.")
        model = self.model(made["model"])
        with self.lock:
            if made["appended"]:
                model.remove(pixel_hash(self.hidden[made["inspection_id"]]["rgb"]), who, made["inspection_id"])
                self.publish("model", model.to_json())
            made.update(undone_at=now(), undone_by=who)
            self._tell(made["inspection_id"])
        return made

    def _tell(self, number: int) -> None:
        own = [one for one in self.decisions if one["inspection_id"] == number]
        standing = [one for one in own if not one["undone_at"]]
        inspection = self.inspection(number)
        inspection["decision"] = standing[-1] if standing else None
        self.publish("decision", {"decision": own[-1], "inspection": inspection})


def decoded(data: bytes) -> np.ndarray:
    if not data:
        raise RefusalError(415, "not_a_picture", "The file is empty.", "Send a PNG, JPEG, TIFF, BMP or WebP picture.")
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise RefusalError(
            415,
            "not_a_picture",
            "This is not a picture in a known format.",
            "Send a PNG, JPEG, TIFF, BMP or WebP picture.",
        )
    return np.ascontiguousarray(bgr[..., ::-1])


def regions_json(score_map: np.ndarray, region: Any) -> dict[str, Any]:
    y0, x0, y1, x1 = region.box
    return {"box": list(region.box), "area": region.area, "peak": list(region.peak), "score": region.score,
            "polygons": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]]}  # fmt: skip


def chosen(store: Store, query: Any) -> list[dict[str, Any]]:
    """The inspections that a query asks for, newest first."""
    since, until = (datetime.fromisoformat(query[key]) if query.get(key) else None for key in ("since", "until"))

    def fits(one: dict[str, Any]) -> bool:
        at, kind = datetime.fromisoformat(one["at"]), (one["decision"] or {}).get("kind", "none")
        return all((
            not query.get("model") or one["model"] == query["model"],
            not query.get("verdict") or one["verdict"] == query["verdict"],
            not query.get("decision") or kind == query["decision"],
            not query.get("text") or query["text"].lower() in one["name"].lower(),
            since is None or at >= since,
            until is None or at < until,
            not query.get("score_min") or one["score"] >= float(query["score_min"]),
            not query.get("score_max") or one["score"] <= float(query["score_max"]),
        ))  # fmt: skip

    return sorted(filter(fits, store.inspections), key=lambda one: (one["at"], one["id"]), reverse=True)


def series(items: list[dict[str, Any]], buckets: int, edges: np.ndarray) -> list[dict[str, Any]]:
    times = np.array([datetime.fromisoformat(one["at"]).timestamp() for one in items])
    walls = np.linspace(times.min(), times.max() + 1e-3, buckets + 1)
    out = []
    for start, end in itertools.pairwise(walls):
        own = [one for one, at in zip(items, times, strict=True) if start <= at < end]
        scores = np.array([one["score"] for one in own])
        out.append({
            "from": datetime.fromtimestamp(start, UTC).isoformat(), "to": datetime.fromtimestamp(end, UTC).isoformat(), "count": len(own),
            "anomalous": sum(one["verdict"] == "anomalous" for one in own), "histogram": np.histogram(scores, edges)[0].tolist(),
            "quantiles": {str(q): float(np.quantile(scores, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)} if own else None,
            "nearest_distance": float(np.mean([one["nearest_distance"] for one in own])) if own else None,
        })  # fmt: skip
    return out


def answer_of(error: RefusalError) -> JSONResponse:
    body = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    return JSONResponse(
        body, error.status, headers={key.replace("_", "-"): value for key, value in error.headers.items()}
    )


router, root = APIRouter(prefix="/api/v1"), APIRouter()


def make_app(store: Store) -> FastAPI:
    app = FastAPI()
    app.state.store = store
    app.include_router(router)
    app.include_router(root)
    app.mount("/static", StaticFiles(directory=PAGE))
    app.add_exception_handler(RefusalError, refuse)
    app.middleware("http")(guard)
    return app


def memory(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def refuse(request: Request, error: RefusalError) -> JSONResponse:
    return answer_of(error)


async def guard(request: Request, call_next: Any) -> Response:
    try:
        request.state.user = allowed(memory(request), request)
        response = await call_next(request)
    except RefusalError as error:
        response = answer_of(error)
    response.headers.update(
        {"Content-Security-Policy": CSP, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    )
    response.headers["Permissions-Policy"] = "camera=(self), microphone=(), geolocation=()"
    return response


def need(request: Request, role: str) -> str:
    user = request.state.user
    if user is None:
        raise RefusalError(401, "not_logged_in", "A token is needed.", "Log in with your token.")
    if RANKS[user["role"]] < RANKS[role]:
        raise RefusalError(403, "not_allowed", f"This needs the role {role!r}.")
    return str(user["who"])


@root.get("/")
def page() -> FileResponse:
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/session")
def session(request: Request) -> dict[str, Any]:
    need(request, "inspect")
    return dict(request.state.user)


@router.post("/session")
async def log_in(request: Request) -> JSONResponse:
    user = (memory(request).tokens or {}).get((await request.json()).get("token", ""))
    if user is None:
        raise RefusalError(401, "wrong_token", "This token is not known.", "Check it, or ask whoever runs the station.")
    key = secrets.token_urlsafe()
    memory(request).sessions[key] = {"who": user[0], "role": user[1], "csrf": secrets.token_urlsafe()}
    response = JSONResponse(memory(request).sessions[key], 201)
    response.set_cookie("spadework_session", key, httponly=True, samesite="strict")
    return response


@router.delete("/session", status_code=204)
def log_out(request: Request) -> Response:
    memory(request).sessions.pop(request.cookies.get("spadework_session", ""), None)
    return Response(status_code=204)


@router.post("/models/{model}/inspections", status_code=201)
async def inspect(model: str, request: Request, name: str = "picture", source: str = "upload") -> dict[str, Any]:
    who = need(request, "inspect")
    if len(name) > 200:
        raise RefusalError(422, "invalid", "query.name: String should have at most 200 characters.")
    return await asyncio.to_thread(
        memory(request).inspect, memory(request).model(model), await request.body(), name, source, who
    )


@router.get("/inspections")
def find(request: Request) -> dict[str, Any]:
    need(request, "inspect")
    query = request.query_params
    found, start, limit = chosen(memory(request), query), int(query.get("cursor") or 0), int(query.get("limit") or 50)
    more = str(start + limit) if start + limit < len(found) else None
    return {"items": found[start : start + limit], "cursor": more, "total": None if start else len(found)}


@router.get("/inspections/{number}")
def one(number: int, request: Request) -> dict[str, Any]:
    need(request, "inspect")
    return memory(request).inspection(number)


@router.get("/inspections/{number}/image")
def image(number: int, request: Request, size: str = "") -> Response:
    need(request, "inspect")
    memory(request).inspection(number)
    if size:
        return Response(
            jpeg(memory(request).hidden[number]["rgb"], 160 if size == "thumb" else 1600), media_type="image/jpeg"
        )
    return Response(memory(request).hidden[number]["bytes"], media_type="image/png")


@router.get("/inspections/{number}/map.f32")
def map_f32(number: int, request: Request, size: str = "") -> Response:
    need(request, "inspect")
    memory(request).inspection(number)
    found = memory(request).hidden[number]["found"]
    sent = found.view_map if size == "view" else found.score_map
    shape = ",".join(map(str, sent.shape))
    return Response(sent.astype("<f4").tobytes(), media_type="application/octet-stream", headers={"X-Shape": shape})


@router.get("/inspections/{number}/decisions")
def decisions(number: int, request: Request) -> dict[str, Any]:
    need(request, "inspect")
    return {"items": [made for made in memory(request).decisions if made["inspection_id"] == number]}


@router.get("/inspections/{number}/match")
def match(number: int, y: int, x: int, request: Request) -> dict[str, Any]:
    need(request, "inspect")
    inspection, kept = memory(request).inspection(number), memory(request).hidden[number]
    found = kept["detector"].explain(kept["found"], y, x)
    key, model = kept["hashes"][found.image], memory(request).model(inspection["model"])
    who, at = model.origin.get(key, (None, None))
    y0, x0, y1, x1 = found.box
    name = model.pictures[key][0] if key in model.pictures else found.name
    normal = {"name": name, "hash": key, "added_by": who, "added_at": at, "removed": key not in model.pictures}
    uris = ["data:image/png;base64," + base64.b64encode(png(np.ascontiguousarray(crop))).decode()
            for crop in (kept["rgb"][y0:y1, x0:x1], found.normal_patch)]  # fmt: skip
    return {
        "normal": normal,
        "box": list(found.normal_box),
        "distance": found.distance,
        "here": uris[0],
        "there": uris[1],
    }


@router.post("/inspections/{number}/decisions", status_code=201)
async def decide(number: int, request: Request) -> dict[str, Any]:
    who, body = need(request, "decide"), await request.json()
    return await asyncio.to_thread(memory(request).decide, number, body["kind"], who, body.get("note", ""))


@router.post("/decisions/{number}/undo")
def undo(number: int, request: Request) -> dict[str, Any]:
    return memory(request).undo(number, need(request, "decide"))


@router.get("/models")
def models(request: Request) -> dict[str, Any]:
    need(request, "inspect")
    return {"items": [model.to_json() for model in memory(request).models.values()]}


@router.get("/models/{model}")
def model_of(model: str, request: Request) -> dict[str, Any]:
    need(request, "inspect")
    return memory(request).model(model).to_json()


@router.post("/models/{model}/reload")
def reload(model: str, request: Request) -> dict[str, Any]:
    need(request, "manage")
    return memory(request).model(model).to_json()


@router.put("/models/{model}/threshold")
async def threshold(model: str, request: Request) -> dict[str, Any]:
    who, rate = need(request, "manage"), (await request.json())["max_false_alarms"]
    with memory(request).lock:
        memory(request).model(model).set_rate(rate, who)
    memory(request).publish("model", memory(request).model(model).to_json())
    return memory(request).model(model).to_json()


@router.get("/models/{model}/normals")
def normals(model: str, request: Request, offset: int = 0, limit: int = 50) -> dict[str, Any]:
    need(request, "inspect")
    found = memory(request).model(model).normals()
    return {"items": found[offset : offset + limit], "total": len(found), "offset": offset}


@router.get("/models/{model}/normals/{key}/image")
def normal_image(model: str, key: str, request: Request) -> Response:
    need(request, "inspect")
    return Response(jpeg(memory(request).model(model).pictures[key][1], 320), media_type="image/jpeg")


@router.post("/models/{model}/normals", status_code=201)
async def add_normal(model: str, request: Request, name: str = "picture") -> dict[str, Any]:
    who, data = need(request, "manage"), await request.body()
    with memory(request).lock:
        key = await asyncio.to_thread(memory(request).model(model).append, decoded(data), name, who)
    memory(request).publish("model", memory(request).model(model).to_json())
    return {"hash": key}


@router.delete("/models/{model}/normals/{key}", status_code=204)
def remove_normal(model: str, key: str, request: Request) -> Response:
    who = need(request, "manage")
    with memory(request).lock:
        memory(request).model(model).remove(key, who)
    memory(request).publish("model", memory(request).model(model).to_json())
    return Response(status_code=204)


@router.get("/models/{model}/changes")
def changes(model: str, request: Request) -> dict[str, Any]:
    need(request, "inspect")
    return {"items": memory(request).model(model).changes[::-1], "cursor": None}


@router.get("/models/{model}/series")
def series_of(model: str, request: Request, buckets: int = 48) -> dict[str, Any]:
    need(request, "inspect")
    items = chosen(memory(request), {**request.query_params, "model": model})
    scores = [one["score"] for one in items]
    edges = np.linspace(0, max(scores) * 1.0001, 21) if items else np.empty(0)
    return {"edges": edges.tolist(), "items": series(items, buckets, edges) if items else []}


@router.get("/models/{model}/scores")
def scores(model: str, request: Request, last: int = 500) -> dict[str, Any]:
    need(request, "inspect")
    return {"scores": [one["score"] for one in chosen(memory(request), {"model": model})[:last]]}


@router.get("/events")
async def events(request: Request) -> StreamingResponse:
    need(request, "inspect")
    after = int(request.headers.get("Last-Event-ID", len(memory(request).events)))
    return StreamingResponse(
        stream(memory(request), after), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


def allowed(store: Store, request: Request) -> dict[str, str] | None:
    """Who asks; refuses what a page of another origin may have sent."""
    unsafe = request.method not in {"GET", "HEAD", "OPTIONS"}
    origin = request.headers.get("origin")
    if unsafe and origin and origin != f"http://{request.headers['host']}":
        raise RefusalError(403, "wrong_origin", "The request comes from another page.")
    if store.tokens is None:
        return {"who": "local", "role": "manage", "csrf": None}
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme == "Bearer" and token in store.tokens:
        return dict(zip(("who", "role"), store.tokens[token], strict=True))
    user = store.sessions.get(request.cookies.get("spadework_session", ""))
    if (
        user
        and unsafe
        and not request.url.path.endswith("/session")
        and request.headers.get("x-csrf-token") != user["csrf"]
    ):
        raise RefusalError(403, "csrf", "The CSRF token is missing or wrong.", "Load the page again.")
    return user


async def stream(store: Store, after: int) -> Any:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    listener = (asyncio.get_running_loop(), queue)
    store.listeners.add(listener)
    try:
        yield ": connected\n\n"
        for event in store.events[after:]:
            queue.put_nowait(event)
        while True:
            try:
                number, kind, data = await asyncio.wait_for(queue.get(), 5)
                yield f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
            except TimeoutError:
                yield ": alive\n\n"
    finally:
        store.listeners.discard(listener)


def fit(category: str, *, n_normal: int = 8, size: int = 128) -> tuple[Spade, list[np.ndarray]]:
    """A small model of a rendered category, and the pictures it was fitted on."""
    pictures = [part(index, category=category, size=size) for index in range(n_normal)]
    return Spade(image_size=size, max_false_alarms=0.1, threads=1).fit(pictures), pictures


class FakeService:
    """The stand-in, running. `stop` and `start` keep port and memory."""

    def __init__(self, models: dict[str, Spade], pictures: dict[str, list[np.ndarray]], *, login: bool = False) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="spadework-page-")
        made = []
        for name, detector in models.items():
            named = [(f"good-{index:03d}.png", rgb) for index, rgb in enumerate(pictures[name])]
            made.append(Model(name, detector, named, Path(self.folder.name)))
        self.store = Store(
            made, {token: who for who, token in zip(PEOPLE, TOKENS.values(), strict=True)} if login else None
        )
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(
            make_app(self.store), port=self.port, log_level="warning", lifespan="off", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()

    def inspect(self, rgb: np.ndarray, name: str, *, hours_ago: float = 0.0) -> int:
        """Have a picture inspected as if by the line; returns the inspection's number."""
        at = (datetime.now(UTC) - timedelta(hours=hours_ago)).isoformat()
        return int(
            self.store.inspect(next(iter(self.store.models.values())), png(rgb), name, "watch", "line", at)["id"]
        )

    def close(self) -> None:
        self.stop()
        self.folder.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--login", action="store_true")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--parts", type=int, default=24)
    arguments = parser.parse_args()
    model, pictures = fit("gear", size=arguments.size)
    service = FakeService({"gear": model}, {"gear": pictures}, login=arguments.login)
    for index in range(arguments.parts):
        defect = "broken_tooth" if index % 5 == 3 else None
        service.inspect(
            part(100 + index, defect=defect, size=arguments.size),
            f"part-{index:04d}.png",
            hours_ago=arguments.parts - index,
        )
    print(service.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
