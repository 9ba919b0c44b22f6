"""The pages for people: the start page, that of one job, signing in, and what is said of a page that there is none."""

from http import HTTPStatus
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from hazard.utils.text import format_duration
from hazard.web.templates import render

SHARED_SCRIPT_PATH = "/static/text.js"
_EXPORTED_NAMES = ("h", "s", "set", "byId", "readable", "marked", "percent", "clock", "span", "counted")
_STATUS_MESSAGES = {
    401: "Sign in to see this page.",
    403: "This page may not be opened from here.",
    404: "There is nothing here. A video and its result are removed after a while, or someone deleted them.",
    421: "The server is not called by this name. Whoever runs it can allow the name (setting hosts).",
    429: "Too much at once. Try again in a moment.",
    503: "The server is busy or just starting. Try again in a moment.",
}
router = APIRouter(include_in_schema=False)


@router.get("/")
def start_page(request: Request) -> HTMLResponse:
    """Where a video is given, and those that were."""
    settings, engine = request.app.state.settings, request.app.state.engine
    limits = {"bytes": settings.max_bytes, "kept": format_duration(settings.keep_hours * 3600)}
    return render("start.j2", nav_entry="Analyse", limits=limits, models=list(engine.models), default=engine.default)


@router.get("/jobs/{job_id}/page")
def job_page(request: Request, job_id: str) -> HTMLResponse:
    """One video: how far the work is, then what was seen."""
    job = request.app.state.engine.job(job_id)
    return error_page(404) if job is None else render("job.j2", nav_entry="Analyse", job=job.as_json())


@router.get("/static/text.js")
def serve_text_script() -> Response:
    """How pages write text: what reports embed, as a module."""
    text = files("hazard.report").joinpath("templates", "report_text.js").read_text(encoding="utf-8")
    return Response(f"{text}\nexport {{{', '.join(_EXPORTED_NAMES)}}};\n", media_type="text/javascript")


def login_page(*, wrong: bool = False, next: str = "/") -> HTMLResponse:
    """The form that asks for the token and posts `token` and `next` to /login."""
    return render("login.j2", status=401 if wrong else 200, signed_out=True, wrong=wrong, next=next)


def error_page(status: int, reason: str = "") -> HTMLResponse:
    """A page that says in one line what went wrong."""
    title = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Something went wrong"
    return render(
        "error.j2", status=status, code=status, title=title, reason=reason or _STATUS_MESSAGES.get(status, title)
    )
