"""Who may ask what: the host that is named, the site that sends, the token; what browsers are told with each answer."""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from features.utils.text import make_printable
from hazard.web.errors import RequestError
from hazard.web.metrics import ServerCounts
from hazard.web.settings import ServeSettings

COOKIE_NAME = "hazard"
SESSION_SECONDS = 12 * 3600
MAX_SESSIONS = 1000
RETRY_AFTER_SECONDS = 5
"""When to try again what was too much."""
PUBLIC_PATHS = ("/healthz", "/login", "/static/")
"""What needs no token."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, forms come with the origin `null`
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

log = logging.getLogger(__name__)


def error_response(status: int, reason: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as every route answers it: one line, and the status again."""
    return JSONResponse({"error": make_printable(reason), "status": status}, status, headers=dict(headers or {}))


def request_error_response(error: RequestError) -> JSONResponse:
    """A refusal as an answer."""
    wait = {"Retry-After": str(RETRY_AFTER_SECONDS)} if error.status in (429, 503) else {}
    return error_response(error.status, error.reason, headers=wait)


@dataclass
class Sessions:
    """Browsers that gave the token. They are forgotten when the server ends."""

    token: str = field(repr=False)
    expiry_times: dict[str, float] = field(default_factory=dict, repr=False)

    def is_valid_token(self, text: str) -> bool:
        """Whether somebody knows the token; how long the comparison takes says nothing about it."""
        return hmac.compare_digest(_digest(text), _digest(self.token))

    def open_session(self) -> str:
        """The secret of a new session."""
        now = time.monotonic()
        self.expiry_times = {key: end for key, end in self.expiry_times.items() if end > now}
        while len(self.expiry_times) >= MAX_SESSIONS:
            del self.expiry_times[next(iter(self.expiry_times))]
        secret = secrets.token_urlsafe(32)
        self.expiry_times[_digest(secret).hex()] = now + SESSION_SECONDS
        return secret

    def close_session(self, secret: str) -> None:
        """Its cookie opens nothing any more."""
        self.expiry_times.pop(_digest(secret).hex(), None)

    def is_authenticated(self, headers: Headers) -> bool:
        """Whether a request carries the token or the cookie of a session."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_valid_token(given.strip()):
            return True
        return self.expiry_times.get(_digest(read_session_cookie(headers)).hex(), 0.0) > time.monotonic()


def read_session_cookie(headers: Headers) -> str:
    """The secret in a request's cookie, empty without one."""
    cookies = SimpleCookie()
    try:
        cookies.load("; ".join(headers.getlist("cookie")))
    except CookieError:
        return ""
    return cookies[COOKIE_NAME].value if COOKIE_NAME in cookies else ""


class GuardMiddleware:
    """The outermost layer: refuses what must not be asked, and lets no error out but as one line."""

    def __init__(
        self, app: ASGIApp, *, settings: ServeSettings, sessions: Sessions | None, counts: ServerCounts
    ) -> None:
        self.app, self.settings, self.sessions, self.counts = app, settings, sessions, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self.counts.answers[message["status"]] += 1
                _add_headers(scope, message)
            await send(message)

        try:
            answer = self._find_rejection(scope)
            await (answer or self.app)(scope, receive, guarded)
        except Exception as error:
            log.error("%s %s: %s: %s", scope["method"], scope["path"], type(error).__name__, make_printable(str(error)))
            if not started:
                await error_response(500, "the server made a mistake; its log says which")(scope, receive, guarded)
        except asyncio.CancelledError:  # the server ends before the answer is whole
            if not started:
                await error_response(503, "the server is ending")(scope, receive, guarded)

    def _find_rejection(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        try:
            check_host(headers, self.settings, local_ip=(scope.get("server") or ("", None))[0])
            if scope["method"] not in _SAFE_METHODS:
                check_origin(headers)
        except RequestError as refused:
            return request_error_response(refused)
        if self.sessions is None or is_public_path(scope["path"]) or self.sessions.is_authenticated(headers):
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            query = scope["query_string"].decode("latin-1")
            return RedirectResponse("/login?next=" + quote(scope["path"] + (f"?{query}" if query else "")), 303)
        said = "give the token: Authorization: Bearer TOKEN"
        return error_response(401, said, headers={"WWW-Authenticate": "Bearer"})


def is_public_path(path: str) -> bool:
    """Whether a path needs no token."""
    return any(path == one or (one.endswith("/") and path.startswith(one)) for one in PUBLIC_PATHS)


def check_host(headers: Headers, settings: ServeSettings, *, local_ip: str) -> None:
    """Raises Refused where a browser was led here by another name: its page could read all answers (DNS rebinding).

    `reached` is the address of this machine that the connection came to.
    """
    given = headers.getlist("host")
    name = _parse_host_name(given[0]) if len(given) == 1 else ""
    known = {"localhost", "127.0.0.1", "::1", settings.host.lower(), local_ip.lower()}
    known |= {host.lower() for host in settings.hosts}
    if not name or name not in known:
        raise RequestError(400, f"the host '{name}' is not one of this server; the setting serve.hosts names more")


def check_origin(headers: Headers) -> None:
    """Raises Refused where another site's page sends what changes something."""
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    is_own = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if site not in ("same-origin", "none") or not is_own:
        raise RequestError(403, "a page of another site may not do this")


def local_redirect_path(text: str) -> str:
    """Where to go after signing in: a path of this server, `/` for anything else."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_local else "/"


def _parse_host_name(host: str) -> str:
    """Without the port, the brackets and a last dot; empty for what is no host."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _add_headers(scope: Scope, message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in SECURITY_HEADERS.items():
        headers[name] = value
    is_static = scope["path"].startswith("/static/")
    headers["Cache-Control"] = "no-cache" if is_static else "no-store"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
