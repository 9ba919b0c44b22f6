"""`hazard serve` in a thread of the test process, with a real socket and the real engine."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from hazard.inference.settings import InferSettings
from hazard.web.app import create_app
from hazard.web.engine.engine import Engine, open_engine
from hazard.web.engine.worker_job import AnalysisWorkerJob
from hazard.web.server import open_listener, serve, server_url
from hazard.web.settings import ServeSettings


@dataclass
class RunningServer:
    """A running server."""

    url: str
    engine: Engine
    settings: ServeSettings
    client: httpx.Client = field(repr=False)
    app: FastAPI = field(repr=False)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def connect(self, seconds: float = 20.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def wait_until_finished(self, identity: str, *, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until a job is done or failed, and return it. Raises AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = self.client.get(f"/jobs/{identity}").json()
            if job["state"] in ("done", "failed"):
                return job
            self.engine.wait_for_job(identity, 1.0)
        raise AssertionError(f"not finished after {seconds:g} s: {job}")

    def list_unfinished_uploads(self) -> list[Path]:
        """Return the files of unfinished uploads."""
        return list(self.engine.incoming_folder.iterdir())


@contextmanager
def run_server(
    models: dict[str, Path],
    data: Path,
    *,
    infer: Mapping[str, Any] = {},
    work: Any = AnalysisWorkerJob,
    **settings: Any,
) -> Iterator[RunningServer]:
    """Run a server on a free port, with a client that has its URL and token."""
    serve_settings = ServeSettings(models=models, data=data, port=0, **settings)
    infer_settings = InferSettings(runtime="torch", **infer)
    with (
        open_listener(serve_settings) as listener,
        open_engine(serve_settings, infer_settings, make_worker_job=work) as engine,
    ):
        stop = threading.Event()
        app = create_app(serve_settings, engine)
        thread = threading.Thread(target=serve, args=(app, listener), kwargs={"is_stopped": stop.is_set})
        thread.start()
        token = serve_settings.token.get_secret_value() if serve_settings.token else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = server_url(listener, serve_settings)
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
                yield RunningServer(url, engine, serve_settings, client, app)
        finally:
            stop.set()
            thread.join(20)


def read_response(connection: socket.socket, received: bytes = b"") -> tuple[int, bytes]:
    """Read from a raw connection until it is closed, and return the status and the body.

    `received` holds the bytes that were read before. The status is 0 if there is no answer.
    """
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    head, _, body = received.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def make_form(
    content: bytes, *, name: str = "a.mp4", field: str = "video", boundary: str = "b", end: bool = True
) -> bytes:
    """Return a multipart body with one file."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode("utf-8", "surrogateescape") + content + (f"\r\n--{boundary}--\r\n".encode() if end else b"")


def make_post_head(path: str, *headers: str, boundary: str = "b") -> bytes:
    """Return the head of a raw upload."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: multipart/form-data; boundary={boundary}"]
    return ("\r\n".join([*lines, *headers]) + "\r\n\r\n").encode()


def make_chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
