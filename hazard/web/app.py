"""The web application: routes, layers around them, errors as one line."""

from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from features.utils.text import make_printable
from hazard.web import api_docs, pages
from hazard.web.api import routes as api_routes
from hazard.web.api.intake import Intake
from hazard.web.cameras import pages as camera_pages
from hazard.web.errors import RequestError
from hazard.web.http import login
from hazard.web.http.guard import GuardMiddleware, Sessions, error_response, is_public_path, request_error_response
from hazard.web.metrics import ServerCounts
from hazard.web.settings import ServeSettings

if TYPE_CHECKING:
    from hazard.web.engine.engine import Engine


def create_app(settings: ServeSettings, engine: "Engine") -> FastAPI:
    """The application of an engine that runs; routes find `settings`, `engine`, … in `request.app.state`."""
    app = FastAPI(
        title="hazard serve",
        version=_version(),
        description="Videos in, what a model sees in them out. Errors are one line of JSON: `error` and `status`.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings, app.state.engine, app.state.counts = settings, engine, ServerCounts()
    app.state.sessions = Sessions(settings.token.get_secret_value()) if settings.token else None
    app.state.intake = Intake(engine, settings, app.state.counts)
    for module in (api_routes, pages, camera_pages, login, api_docs):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=str(files("hazard.web") / "static")))
    for kind, handler in _ERROR_HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(GuardMiddleware, settings=settings, sessions=app.state.sessions, counts=app.state.counts)
    _add_token_to_openapi(app)
    return app


async def _handle_request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _make_error_page(request, error.status, error.reason) or request_error_response(error)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"Allow": ", ".join(_allowed_methods(request))} if error.status_code == 405 else error.headers
    shown = _make_error_page(request, error.status_code, "")
    return shown or error_response(error.status_code, str(error.detail).lower(), headers=headers)


async def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
    return _make_error_page(request, 422, make_printable(said)) or error_response(422, said)


async def _handle_unexpected_error(request: Request, error: Exception) -> Response:
    return error_response(500, "the server made a mistake; its log says which")


_ERROR_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    RequestError: _handle_request_error,
    HTTPException: _handle_http_error,
    RequestValidationError: _handle_validation_error,
    Exception: _handle_unexpected_error,
}


def _allowed_methods(request: Request) -> list[str]:
    """What a path may be asked by, of all routes that have it; the framework names those of the first."""
    known = [route for route in request.app.routes if isinstance(route, Route)]
    return sorted({m for one in known if one.matches(request.scope)[0] != Match.NONE for m in one.methods or ()})


def _add_token_to_openapi(app: FastAPI) -> None:
    """The token in the description, where one is needed."""
    describe = app.openapi

    def with_token() -> dict[str, Any]:
        found = describe()
        found.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in found["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if is_public_path(path) else [{"token": []}]
        return found

    if app.state.sessions is not None:
        app.openapi = with_token  # type: ignore[method-assign]


def _make_error_page(request: Request, status: int, reason: str) -> Response | None:
    """An error as a page, for people who look at one; None for programs."""
    is_looked_at = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    return pages.error_page(status, reason) if is_looked_at else None


def _version() -> str:
    try:
        return version("hazard-video")
    except PackageNotFoundError:
        return "0"
