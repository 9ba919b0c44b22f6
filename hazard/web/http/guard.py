"""The checks of every request (host, origin, token) and the security headers of every answer."""

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
"""The value of `Retry-After` for rejected requests that may be tried again."""
PUBLIC_PATHS = ("/healthz", "/login", "/static/")
"""The paths that need no token. One that ends with a slash includes all paths below it."""
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
INTERNAL_ERROR_MESSAGE = "internal server error; see the server's log"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

log = logging.getLogger(__name__)


def error_response(status: int, reason: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error as every route answers it: one line, and the status again."""
    return JSONResponse({"error": make_printable(reason), "status": status}, status, headers=dict(headers or {}))


def request_error_response(error: RequestError) -> JSONResponse:
    """Return the answer to a rejected request."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if error.status in (429, 503) else {}
    return error_response(error.status, error.reason, headers=headers)


@dataclass
class Sessions:
    """The sessions of browsers that sent the token. They end with the server."""

    token: str = field(repr=False)
    expiry_times: dict[str, float] = field(default_factory=dict, repr=False)

    def is_valid_token(self, text: str) -> bool:
        """Return whether a text is the token, in constant time."""
        return hmac.compare_digest(_digest(text), _digest(self.token))

    def open_session(self) -> str:
        """Open a new session and return its secret. If there are too many, the oldest is closed."""
        now = time.monotonic()
        self.expiry_times = {key: end for key, end in self.expiry_times.items() if end > now}
        while len(self.expiry_times) >= MAX_SESSIONS:
            del self.expiry_times[next(iter(self.expiry_times))]
        secret = secrets.token_urlsafe(32)
        self.expiry_times[_digest(secret).hex()] = now + SESSION_SECONDS
        return secret

    def close_session(self, secret: str) -> None:
        """Close a session, so that its cookie is no longer accepted."""
        self.expiry_times.pop(_digest(secret).hex(), None)

    def is_authenticated(self, headers: Headers) -> bool:
        """Return whether a request carries the token or the cookie of an open session."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_valid_token(token.strip()):
            return True
        return self.expiry_times.get(_digest(read_session_cookie(headers)).hex(), 0.0) > time.monotonic()


def read_session_cookie(headers: Headers) -> str:
    """Return the session secret in a request's cookie, or "" if there is none."""
    cookies = SimpleCookie()
    try:
        cookies.load("; ".join(headers.getlist("cookie")))
    except CookieError:
        return ""
    return cookies[COOKIE_NAME].value if COOKIE_NAME in cookies else ""


class GuardMiddleware:
    """The outermost middleware: it rejects forbidden requests and turns every error into one line."""

    def __init__(
        self, app: ASGIApp, *, settings: ServeSettings, sessions: Sessions | None, counts: ServerCounts
    ) -> None:
        self.app, self.settings, self.sessions, self.counts = app, settings, sessions, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                self.counts.answers[message["status"]] += 1
                _add_headers(scope, message)
            await send(message)

        try:
            rejection = self._find_rejection(scope)
            await (rejection or self.app)(scope, receive, send_with_headers)
        except Exception as error:
            log.error("%s %s: %s: %s", scope["method"], scope["path"], type(error).__name__, make_printable(str(error)))
            if not has_started:
                await error_response(500, INTERNAL_ERROR_MESSAGE)(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server stops before the answer is complete
            if not has_started:
                await error_response(503, "the server is shutting down")(scope, receive, send_with_headers)

    def _find_rejection(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        try:
            check_host(headers, self.settings, local_ip=(scope.get("server") or ("", None))[0])
            if scope["method"] not in _SAFE_METHODS:
                check_origin(headers)
        except RequestError as error:
            return request_error_response(error)
        if self.sessions is None or is_public_path(scope["path"]) or self.sessions.is_authenticated(headers):
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            query = scope["query_string"].decode("latin-1")
            return RedirectResponse("/login?next=" + quote(scope["path"] + (f"?{query}" if query else "")), 303)
        reason = "the token is missing or wrong; send the header Authorization: Bearer TOKEN"
        return error_response(401, reason, headers={"WWW-Authenticate": "Bearer"})


def is_public_path(path: str) -> bool:
    """Return whether a path needs no token."""
    return any(path == public or (public.endswith("/") and path.startswith(public)) for public in PUBLIC_PATHS)


def check_host(headers: Headers, settings: ServeSettings, *, local_ip: str) -> None:
    """Check that the request names this server. Raises RequestError 400.

    A page under another name that leads to this server could read all answers (DNS rebinding). `local_ip` is the
    address of this machine on which the connection arrived.
    """
    hosts = headers.getlist("host")
    name = _parse_host_name(hosts[0]) if len(hosts) == 1 else ""
    accepted = {"localhost", "127.0.0.1", "::1", settings.host.lower(), local_ip.lower()}
    accepted |= {host.lower() for host in settings.hosts}
    if not name or name not in accepted:
        raise RequestError(400, f"the host name '{name}' is not accepted; the setting serve.hosts adds names")


def check_origin(headers: Headers) -> None:
    """Check that a request that changes something does not come from another site's page. Raises RequestError 403."""
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    is_same_origin = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if site not in ("same-origin", "none") or not is_same_origin:
        raise RequestError(403, "requests from pages of other sites are not accepted")


def local_redirect_path(text: str) -> str:
    """Return the path to open after signing in: `text` if it is a path of this server, else `/`."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_local else "/"


def _parse_host_name(host: str) -> str:
    """Return a host name without port, brackets and trailing dot, or "" if it is not valid."""
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
