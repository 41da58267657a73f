"""The station's page: plain files of the package, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from spadework.server.problems import not_found
from spadework.server.routes.guarded import PUBLIC, Guarded, spec

router = APIRouter(route_class=Guarded, include_in_schema=False)
PAGE = Path(__file__).parents[1] / "page"
FRESH = {"cache-control": "no-cache"}  # kept, but asked for again each time: an upgrade shows at once


class PageFiles(StaticFiles):
    """The page's files, always checked for newer ones."""

    async def check_config(self) -> None:
        """Nothing to check: an installation without the page answers 404."""

    def file_response(self, *args: object, **named: object) -> Response:
        """As `StaticFiles.file_response`."""
        answer = super().file_response(*args, **named)  # type: ignore[arg-type]
        answer.headers.update(FRESH)
        return answer


def page_files() -> PageFiles:
    """Return what serves /static."""
    return PageFiles(directory=PAGE, check_dir=False)


@router.get("/", **spec(PUBLIC, 404))
async def page(request: Request) -> Response:
    """Return the page."""
    index = PAGE / "index.html"
    if not index.is_file():
        raise not_found("page in this installation")
    return FileResponse(index, headers=FRESH)


@router.get("/favicon.ico", **spec(PUBLIC, 404))
async def icon(request: Request) -> Response:
    """Return the page's icon, where browsers ask for it."""
    for name in ("favicon.ico", "icon.svg", "favicon.svg"):
        if (PAGE / name).is_file():
            return FileResponse(PAGE / name, headers=FRESH)
    raise not_found("icon in this installation")
