"""The web application: its routes, its middleware, and its error answers of one line."""

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
from hazard.web.http.guard import (
    INTERNAL_ERROR_MESSAGE,
    GuardMiddleware,
    Sessions,
    error_response,
    is_public_path,
    request_error_response,
)
from hazard.web.metrics import ServerCounts
from hazard.web.settings import ServeSettings

if TYPE_CHECKING:
    from hazard.web.engine.engine import Engine


def create_app(settings: ServeSettings, engine: "Engine") -> FastAPI:
    """Return the application of a running engine. Routes read `settings`, `engine`, … from `request.app.state`."""
    app = FastAPI(
        title="hazard serve",
        version=_version(),
        description="Send a video, get what the model sees in it. Errors are one line of JSON: `error` and `status`.",
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
    page = _make_error_page(request, error.status_code, "")
    return page or error_response(error.status_code, str(error.detail).lower(), headers=headers)


async def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    reason = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
    return _make_error_page(request, 422, make_printable(reason)) or error_response(422, reason)


async def _handle_unexpected_error(request: Request, error: Exception) -> Response:
    return error_response(500, INTERNAL_ERROR_MESSAGE)


_ERROR_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    RequestError: _handle_request_error,
    HTTPException: _handle_http_error,
    RequestValidationError: _handle_validation_error,
    Exception: _handle_unexpected_error,
}


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes of a path. The framework itself names only those of the first route."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in matching for method in route.methods or ()})


def _add_token_to_openapi(app: FastAPI) -> None:
    """Add the token to the OpenAPI description, if the server needs one."""
    make_openapi = app.openapi

    def make_openapi_with_token() -> dict[str, Any]:
        openapi = make_openapi()
        openapi.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in openapi["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if is_public_path(path) else [{"token": []}]
        return openapi

    if app.state.sessions is not None:
        app.openapi = make_openapi_with_token  # type: ignore[method-assign]


def _make_error_page(request: Request, status: int, reason: str) -> Response | None:
    """Return an error as a page if a browser asks for a page, else None."""
    is_browser = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    return pages.render_error_page(status, reason) if is_browser else None


def _version() -> str:
    try:
        return version("hazard-video")
    except PackageNotFoundError:
        return "0"
