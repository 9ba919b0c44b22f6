"""The start page, the page of one job, the sign-in page and the error page."""

from http import HTTPStatus
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from hazard.utils.text import format_rounded_duration
from hazard.web.templates import render

_EXPORTED_NAMES = ("h", "s", "set", "byId", "readable", "marked", "percent", "clock", "span", "counted")
_STATUS_MESSAGES = {
    401: "Sign in to see this page.",
    403: "Pages of other sites cannot open this page.",
    404: "This page does not exist. Videos and their results are deleted after a while.",
    421: "The server does not accept this host name. Its administrator can add it to the setting hosts.",
    429: "Too many requests. Try again in a moment.",
    503: "The server is busy or starting. Try again in a moment.",
}
router = APIRouter(include_in_schema=False)


@router.get("/")
def start_page(request: Request) -> HTMLResponse:
    """Show the start page: upload videos, see the earlier ones."""
    settings, engine = request.app.state.settings, request.app.state.engine
    limits = {"bytes": settings.max_bytes, "kept": format_rounded_duration(settings.keep_hours * 3600)}
    return render(
        "start.j2", nav_entry="Analyse", limits=limits, models=list(engine.models), default=engine.default_model
    )


@router.get("/jobs/{job_id}/page")
def job_page(request: Request, job_id: str) -> HTMLResponse:
    """Show one video: the progress of its analysis, then the result."""
    job = request.app.state.engine.get_job(job_id)
    return render_error_page(404) if job is None else render("job.j2", nav_entry="Analyse", job=job.as_json())


@router.get("/static/text.js")
def serve_text_script() -> Response:
    """Serve the text functions that reports embed, as a JavaScript module."""
    text = files("hazard.report").joinpath("templates", "report_text.js").read_text(encoding="utf-8")
    return Response(f"{text}\nexport {{{', '.join(_EXPORTED_NAMES)}}};\n", media_type="text/javascript")


def render_login_page(*, is_wrong: bool = False, next: str = "/") -> HTMLResponse:
    """Return the form that asks for the token and posts `token` and `next` to /login."""
    return render("login.j2", status=401 if is_wrong else 200, signed_out=True, is_wrong=is_wrong, next=next)


def render_error_page(status: int, reason: str = "") -> HTMLResponse:
    """Return a page that says in one line what went wrong."""
    title = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Something went wrong"
    return render(
        "error.j2", status=status, code=status, title=title, reason=reason or _STATUS_MESSAGES.get(status, title)
    )
