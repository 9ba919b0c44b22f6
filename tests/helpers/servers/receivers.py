"""A webhook receiver on this machine that accepts, fails, redirects, answers slowly or hangs, as a test wants."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hazard.alerts.alert import Alert
from hazard.alerts.settings import AlertSettings, parse_alert_settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
START = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
WAIT_SECONDS = 60.0
"""Seconds that a test waits at most for something that takes milliseconds."""


@dataclass
class ReceivedRequest:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """The requests in order. `plan` holds the next answers; afterwards every request is accepted."""

    plan: list[str | int] = field(default_factory=list)
    requests: list[ReceivedRequest] = field(default_factory=list)
    accepted: list[ReceivedRequest] = field(default_factory=list)
    before: Callable[[int], object] = lambda number: None
    """Called with the number of a request before it is answered."""
    after: Callable[[int], object] = lambda number: None
    port: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    hanging: threading.Event = field(default_factory=threading.Event)
    """Set once a client waits for an answer that never comes."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=topsecret"

    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.accepted]


@contextmanager
def run_receiver(plan: Sequence[str | int] = ()) -> Iterator[Receiver]:
    receiver = Receiver(list(plan))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got = ReceivedRequest(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            with lock:
                receiver.requests.append(got)
                number = len(receiver.requests)
                answer = receiver.plan.pop(0) if receiver.plan else 204
                if answer == 204:
                    receiver.accepted.append(got)
            receiver.before(number)
            self.answer(answer)
            receiver.after(number)

        def do_GET(self) -> None:
            receiver.requests.append(ReceivedRequest(self.path, {}, b""))  # a client that follows a redirect ends here
            self.answer(204)

        def answer(self, answer: str | int) -> None:
            if answer == "hang":
                receiver.hanging.set()
                receiver.closing.wait(WAIT_SECONDS)
            elif answer == "drip":
                self.drip()
            else:
                self.send_response(int(answer))
                self.send_header("Location", receiver.url)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def drip(self) -> None:
            try:
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
                while not receiver.closing.wait(0.01):
                    self.wfile.write(b"a")
            except OSError:
                self.close_connection = True

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    receiver.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        server.server_close()


def make_alert(number: int = 0, **changes: Any) -> Alert:
    values = {
        "id": f"hall/event/{number}",
        "kind": "event",
        "camera": "hall",
        "label": "fight",
        "started": START + timedelta(seconds=number),
        "ended": None,
        "probability": 0.91,
        "snapshot": None,
        "clip": Path("events/a.mp4"),
    }
    return Alert(**{**values, **changes})


def make_alert_settings(*urls: str, **changes: Any) -> AlertSettings:
    """Return settings with one webhook for each URL and very short pauses before retries."""
    channels = [{"kind": "webhook", "name": f"hook{i}", "url": url, "secret": SECRET} for i, url in enumerate(urls)]
    quick = {"deadline_seconds": WAIT_SECONDS, "first_retry_seconds": 0.001, "longest_retry_seconds": 0.01}
    return parse_alert_settings({"channels": channels, **quick, **changes})
