"""A web server on this machine that answers as a test wants and records the requests."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, dict[str, str], bytes] | Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """The answers by path, the requests so far and the number of connections."""

    pages: dict[str, Answer] = field(default_factory=dict)
    requested_paths: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    ip: str = "127.0.0.1"
    scheme: str = "http"

    def url(self, path: str, host: str = "") -> str:
        return f"{self.scheme}://{host or self.ip}:{self.port}{path}"

    def add_video(self, path: str, content: bytes, kind: str = "video/mp4") -> str:
        self.pages[path] = (200, {"Content-Type": kind, "Content-Length": str(len(content))}, content)
        return self.url(path)

    def add_redirect(self, path: str, to: str, status: int = 302) -> str:
        self.pages[path] = (status, {"Location": to, "Content-Length": "0"}, b"")
        return self.url(path)

    def add_html(self, path: str, text: str) -> str:
        return self.add_video(
            path, f"<!doctype html><html><body>{text}</body></html>".encode(), "text/html; charset=utf-8"
        )


@contextmanager
def run_site(ip: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    site = Site(ip=ip, scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            site.connections += 1
            super().setup()

        def do_GET(self) -> None:
            site.requested_paths.append(self.path)
            site.hosts.append(self.headers.get("Host", ""))
            answer = site.pages.get(self.path, (404, {"Content-Length": "0"}, b""))
            if callable(answer):
                answer(self)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer((ip, 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Send one byte at a time, slowly, until the client is gone."""
    handler.send_response(200)
    handler.send_header("Content-Type", "video/mp4")
    handler.end_headers()
    keep_sending(handler, b"\0", pause_seconds=0.02)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    """Send headers that never end."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
    keep_sending(handler, b"a", pause_seconds=0.02)


def send_endless(handler: BaseHTTPRequestHandler) -> None:
    """Send bytes without a length until the client is gone."""
    handler.send_response(200)
    handler.send_header("Content-Type", "video/mp4")
    handler.end_headers()
    keep_sending(handler, bytes(2**16), pause_seconds=0)


def keep_sending(handler: BaseHTTPRequestHandler, data: bytes, *, pause_seconds: float) -> None:
    try:
        while True:
            handler.wfile.write(data)
            handler.wfile.flush()
            time.sleep(pause_seconds)
    except OSError:
        handler.close_connection = True
