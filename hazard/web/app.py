"""The web application: routes, layers around them, errors as one line."""

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from features.words import printable
from hazard.web import api, reference, signing
from hazard.web.guard import Guard, Sessions, problem, problem_of
from hazard.web.intake import Intake
from hazard.web.metrics import Counts
from hazard.web.refused import Refused
from hazard.web.settings import ServeSettings

if TYPE_CHECKING:
    from hazard.web.engine import Engine


def create_app(settings: ServeSettings, engine: "Engine") -> FastAPI:
    """The application of an engine that runs; routes find `settings`, `engine`, … in `request.app.state`."""
    app = FastAPI(
        title="hazard serve",
        version=_version(),
        description="Videos in, what a model sees in them out. Errors are one line of JSON: `error` and `status`.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings, app.state.engine, app.state.counts = settings, engine, Counts()
    app.state.sessions = Sessions(settings.token.get_secret_value()) if settings.token else None
    app.state.intake = Intake(engine, settings, app.state.counts)
    for module in (api, *_pages(), signing, reference):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=str(files("hazard.web") / "static"), check_dir=False))
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(Guard, settings=settings, sessions=app.state.sessions, counts=app.state.counts)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _page(request, error.status, error.reason) or problem_of(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    shown = _page(request, error.status_code, "")
    return shown or problem(error.status_code, str(error.detail).lower(), headers=error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
    return _page(request, 422, printable(said)) or problem(422, said)


async def _failed(request: Request, error: Exception) -> Response:
    return problem(500, "the server made a mistake; its log says which")


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    Refused: _refused,
    HTTPException: _http_error,
    RequestValidationError: _invalid,
    Exception: _failed,
}


def _page(request: Request, status: int, reason: str) -> Response | None:
    """An error as a page, for people who look at one; None for programs."""
    is_looked_at = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if not is_looked_at or not find_spec("hazard.web.pages"):
        return None
    return import_module("hazard.web.pages").error_page(status, reason)


def _pages() -> list[Any]:
    names = ("hazard.web.pages", "hazard.web.watch_pages")
    return [import_module(name) for name in names if find_spec(name)]


def _version() -> str:
    try:
        return version("hazard-video")
    except PackageNotFoundError:
        return "0"
