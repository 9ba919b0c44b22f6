"""Signing in and out: the token from a form becomes a cookie that no script can read."""

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from hazard.web.http.guard import COOKIE_NAME, SESSION_SECONDS, Sessions, local_redirect_path, read_session_cookie
from hazard.web.http.uploads import read_small_body
from hazard.web.pages import login_page

router = APIRouter(include_in_schema=False)


@router.get("/login")
def show_login(request: Request, next: str = "/") -> Response:
    """The form; the start page where no token is needed, or it was given already."""
    sessions: Sessions | None = request.app.state.sessions
    if sessions is None or sessions.is_authenticated(request.headers):
        return RedirectResponse(local_redirect_path(next), 303)
    return login_page(next=local_redirect_path(next))


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Takes `token` and `next` from the form."""
    sessions: Sessions | None = request.app.state.sessions
    form = parse_qs((await read_small_body(request)).decode("utf-8", "replace"), max_num_fields=10)
    token, next = (form.get(name, [""])[0] for name in ("token", "next"))
    if sessions is not None and not sessions.is_valid_token(token.strip()):
        return login_page(wrong=True, next=local_redirect_path(next))
    answer = RedirectResponse(local_redirect_path(next), 303)
    if sessions is not None:
        answer.set_cookie(
            COOKIE_NAME, sessions.open_session(), max_age=SESSION_SECONDS, httponly=True, samesite="strict"
        )
    return answer


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Forgets the session."""
    if request.app.state.sessions is not None:
        request.app.state.sessions.close(read_session_cookie(request.headers))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE_NAME, httponly=True, samesite="strict")
    return answer
