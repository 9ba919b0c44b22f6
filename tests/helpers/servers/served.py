"""`hazard serve` as it is run, but in a thread: a real socket, the real engine."""

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
from hazard.web.server import open_listener, serve, url_of
from hazard.web.settings import ServeSettings


@dataclass
class Served:
    """A server that runs."""

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

    def finished(self, identity: str, *, seconds: float = 60.0) -> dict[str, Any]:
        """A job once it is done or failed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            job = self.client.get(f"/jobs/{identity}").json()
            if job["state"] in ("done", "failed"):
                return job
            self.engine.wait_for_job(identity, 1.0)
        raise AssertionError(f"not over after {seconds:g} s: {job}")

    def left_over(self) -> list[Path]:
        """Files of uploads that are under way."""
        return list(self.engine.incoming_folder.iterdir())


@contextmanager
def serving_models(
    models: dict[str, Path],
    data: Path,
    *,
    infer: Mapping[str, Any] = {},
    work: Any = AnalysisWorkerJob,
    **settings: Any,
) -> Iterator[Served]:
    """A server on a free port of this machine, with a client that knows its address and its token."""
    given = ServeSettings(models=models, data=data, port=0, **settings)
    judging = InferSettings(runtime="torch", **infer)
    with open_listener(given) as listener, open_engine(given, judging, make_worker_job=work) as engine:
        stop = threading.Event()
        app = create_app(given, engine)
        thread = threading.Thread(target=serve, args=(app, listener), kwargs={"is_stopped": stop.is_set})
        thread.start()
        token = given.token.get_secret_value() if given.token else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = url_of(listener, given)
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
                yield Served(url, engine, given, client, app)
        finally:
            stop.set()
            thread.join(20)


def answered(connection: socket.socket, said: bytes = b"") -> tuple[int, bytes]:
    """The status and the body of what a raw connection is answered until it is closed, after what it `said` before."""
    try:
        while piece := connection.recv(65536):
            said += piece
    except ConnectionResetError:
        pass
    head, _, body = said.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def form(content: bytes, *, name: str = "a.mp4", field: str = "video", boundary: str = "b", end: bool = True) -> bytes:
    """A multipart body with one file."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode("utf-8", "surrogateescape") + content + (f"\r\n--{boundary}--\r\n".encode() if end else b"")


def post(path: str, *headers: str, boundary: str = "b") -> bytes:
    """The head of a raw upload."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: multipart/form-data; boundary={boundary}"]
    return ("\r\n".join([*lines, *headers]) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
