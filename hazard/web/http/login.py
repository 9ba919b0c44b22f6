"""Sign-in and sign-out: the token from a form becomes a session cookie that scripts cannot read."""

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from hazard.web.http.guard import COOKIE_NAME, SESSION_SECONDS, Sessions, local_redirect_path, read_session_cookie
from hazard.web.http.uploads import read_small_body
from hazard.web.pages import render_login_page

router = APIRouter(include_in_schema=False)


@router.get("/login")
def show_login(request: Request, next: str = "/") -> Response:
    """Show the form. If no token is needed, or the user is signed in, go on to the page."""
    sessions: Sessions | None = request.app.state.sessions
    if sessions is None or sessions.is_authenticated(request.headers):
        return RedirectResponse(local_redirect_path(next), 303)
    return render_login_page(next=local_redirect_path(next))


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Sign in with `token` and go on to `next`, both from the form."""
    sessions: Sessions | None = request.app.state.sessions
    form = parse_qs((await read_small_body(request)).decode("utf-8", "replace"), max_num_fields=10)
    token, next = (form.get(name, [""])[0] for name in ("token", "next"))
    if sessions is not None and not sessions.is_valid_token(token.strip()):
        return render_login_page(is_wrong=True, next=local_redirect_path(next))
    response = RedirectResponse(local_redirect_path(next), 303)
    if sessions is not None:
        response.set_cookie(
            COOKIE_NAME, sessions.open_session(), max_age=SESSION_SECONDS, httponly=True, samesite="strict"
        )
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Close the session and delete its cookie."""
    sessions: Sessions | None = request.app.state.sessions
    if sessions is not None:
        sessions.close_session(read_session_cookie(request.headers))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE_NAME, httponly=True, samesite="strict")
    return response
