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

from features.utils.text import printable
from hazard.web.errors import Refused
from hazard.web.metrics import Counts
from hazard.web.settings import ServeSettings

COOKIE = "hazard"
SESSION_SECONDS = 12 * 3600
MOST_SESSIONS = 1000
RETRY_SECONDS = 5
"""When to try again what was too much."""
OPEN = ("/healthz", "/login", "/static/")
"""What needs no token."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, forms come with the origin `null`
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SAFE = ("GET", "HEAD", "OPTIONS")

log = logging.getLogger(__name__)


def problem(status: int, reason: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as every route answers it: one line, and the status again."""
    return JSONResponse({"error": printable(reason), "status": status}, status, headers=dict(headers or {}))


def problem_of(refused: Refused) -> JSONResponse:
    """A refusal as an answer."""
    wait = {"Retry-After": str(RETRY_SECONDS)} if refused.status in (429, 503) else {}
    return problem(refused.status, refused.reason, headers=wait)


@dataclass
class Sessions:
    """Browsers that gave the token. They are forgotten when the server ends."""

    token: str = field(repr=False)
    until: dict[str, float] = field(default_factory=dict, repr=False)

    def is_token(self, text: str) -> bool:
        """Whether somebody knows the token; how long the comparison takes says nothing about it."""
        return hmac.compare_digest(_digest(text), _digest(self.token))

    def open(self) -> str:
        """The secret of a new session."""
        now = time.monotonic()
        self.until = {key: end for key, end in self.until.items() if end > now}
        while len(self.until) >= MOST_SESSIONS:
            del self.until[next(iter(self.until))]
        secret = secrets.token_urlsafe(32)
        self.until[_digest(secret).hex()] = now + SESSION_SECONDS
        return secret

    def close(self, secret: str) -> None:
        """Its cookie opens nothing any more."""
        self.until.pop(_digest(secret).hex(), None)

    def is_known(self, headers: Headers) -> bool:
        """Whether a request carries the token or the cookie of a session."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        return self.until.get(_digest(session_of(headers)).hex(), 0.0) > time.monotonic()


def session_of(headers: Headers) -> str:
    """The secret in a request's cookie, empty without one."""
    cookies = SimpleCookie()
    try:
        cookies.load("; ".join(headers.getlist("cookie")))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


class Guard:
    """The outermost layer: refuses what must not be asked, and lets no error out but as one line."""

    def __init__(self, app: ASGIApp, *, settings: ServeSettings, sessions: Sessions | None, counts: Counts) -> None:
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
            answer = self._objection(scope)
            await (answer or self.app)(scope, receive, guarded)
        except Exception as error:
            log.error("%s %s: %s: %s", scope["method"], scope["path"], type(error).__name__, printable(str(error)))
            if not started:
                await problem(500, "the server made a mistake; its log says which")(scope, receive, guarded)
        except asyncio.CancelledError:  # the server ends before the answer is whole
            if not started:
                await problem(503, "the server is ending")(scope, receive, guarded)

    def _objection(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        try:
            check_host(headers, self.settings, reached=(scope.get("server") or ("", None))[0])
            if scope["method"] not in _SAFE:
                check_origin(headers)
        except Refused as refused:
            return problem_of(refused)
        if self.sessions is None or is_open(scope["path"]) or self.sessions.is_known(headers):
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            query = scope["query_string"].decode("latin-1")
            return RedirectResponse("/login?next=" + quote(scope["path"] + (f"?{query}" if query else "")), 303)
        said = "give the token: Authorization: Bearer TOKEN"
        return problem(401, said, headers={"WWW-Authenticate": "Bearer"})


def is_open(path: str) -> bool:
    """Whether a path needs no token."""
    return any(path == one or (one.endswith("/") and path.startswith(one)) for one in OPEN)


def check_host(headers: Headers, settings: ServeSettings, *, reached: str) -> None:
    """Raises Refused where a browser was led here by another name: its page could read all answers (DNS rebinding).

    `reached` is the address of this machine that the connection came to.
    """
    given = headers.getlist("host")
    name = _host_name(given[0]) if len(given) == 1 else ""
    known = {"localhost", "127.0.0.1", "::1", settings.host.lower(), reached.lower()}
    known |= {host.lower() for host in settings.hosts}
    if not name or name not in known:
        raise Refused(400, f"the host '{name}' is not one of this server; the setting serve.hosts names more")


def check_origin(headers: Headers) -> None:
    """Raises Refused where another site's page sends what changes something."""
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    is_own = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if site not in ("same-origin", "none") or not is_own:
        raise Refused(403, "a page of another site may not do this")


def local_path(text: str) -> str:
    """Where to go after signing in: a path of this server, `/` for anything else."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_local else "/"


def _host_name(host: str) -> str:
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
    for name, value in HEADERS.items():
        headers[name] = value
    is_static = scope["path"].startswith("/static/")
    headers["Cache-Control"] = "no-cache" if is_static else "no-store"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
