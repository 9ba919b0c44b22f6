"""Signing in and out: the token from a form becomes a cookie that no script can read."""

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from hazard.web.http.guard import COOKIE, SESSION_SECONDS, Sessions, local_path, session_of
from hazard.web.http.uploads import small_body
from hazard.web.pages import login_page

router = APIRouter(include_in_schema=False)


@router.get("/login")
def show_login(request: Request, next: str = "/") -> Response:
    """The form; the start page where no token is needed, or it was given already."""
    sessions: Sessions | None = request.app.state.sessions
    if sessions is None or sessions.is_known(request.headers):
        return RedirectResponse(local_path(next), 303)
    return login_page(next=local_path(next))


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Takes `token` and `next` from the form."""
    sessions: Sessions | None = request.app.state.sessions
    form = parse_qs((await small_body(request)).decode("utf-8", "replace"), max_num_fields=10)
    token, next = (form.get(name, [""])[0] for name in ("token", "next"))
    if sessions is not None and not sessions.is_token(token.strip()):
        return login_page(wrong=True, next=local_path(next))
    answer = RedirectResponse(local_path(next), 303)
    if sessions is not None:
        answer.set_cookie(COOKIE, sessions.open(), max_age=SESSION_SECONDS, httponly=True, samesite="strict")
    return answer


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Forgets the session."""
    if request.app.state.sessions is not None:
        request.app.state.sessions.close(session_of(request.headers))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer
