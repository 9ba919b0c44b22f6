"""Row 42 of the faults on a running server: a name that resolves differently the second time (DNS rebinding)."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hazard.synthetic.clips import draw_clip
from tests.helpers.paths import ROOT
from tests.helpers.servers.web import Site, run_site

ALLOWED, HOME, NAME = "127.0.0.2", "127.0.0.1", "rebinding.example"
RESOLVER = f"""
import socket

look_up, asked = socket.getaddrinfo, []


def rebinding(host, port, *rest, **more):
    if host != "{NAME}":
        return look_up(host, port, *rest, **more)
    asked.append(host)
    return look_up("{ALLOWED}" if len(asked) == 1 else "{HOME}", port, *rest, **more)


socket.getaddrinfo = rebinding
"""
"""A resolver for each process of the server: the first look-up gives the allowed address, all others 127.0.0.1."""


@contextmanager
def connections_at(ip: str, port: int) -> Iterator[list[object]]:
    """Yield a list of all connections to an address."""
    came: list[object] = []
    with socket.create_server((ip, port)) as listening:

        def accept() -> None:
            try:
                while True:
                    connection, who = listening.accept()
                    came.append(who)
                    connection.close()
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield came
        finally:
            listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def server(model: Path, folder: Path) -> Iterator[str]:
    (folder / "sitecustomize.py").write_text(RESOLVER)
    given = ["--model", model, "--port", 0, "--data", folder / "data", "--runtime", "torch"]
    given += ["--set", f"serve.networks=[{ALLOWED}/32]"]
    paths = [str(folder), str(ROOT)]
    with subprocess.Popen(
        [sys.executable, "-m", "hazard", "serve", *map(str, given)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    ) as process:
        assert process.stdout
        said = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"open (\S+) in", said)
        assert found, said
        try:
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.mark.skipif(sys.platform != "linux", reason="needs two addresses of this machine")
def test_42_only_the_address_that_was_checked_is_connected_to(small_model: Path, tmp_path: Path) -> None:
    draw_clip(tmp_path / "a.mp4", "walk", seed=1, seconds=1, size=(96, 72))
    for path, outcome in (("/a.mp4", "done"), ("/elsewhere", "failed")):
        folder = tmp_path / outcome
        folder.mkdir()
        with run_site(ALLOWED) as site, connections_at(HOME, site.port) as home, server(small_model, folder) as url:
            job, reason = fetched(site, url, path, (tmp_path / "a.mp4").read_bytes())
            assert job == outcome, reason
            assert not home, "nobody connects home"
            assert site.connections == 1
            assert outcome == "done" or "URL rejected" in reason


def fetched(site: Site, url: str, path: str, video: bytes) -> tuple[str, str]:
    """Return the state and the reason of the job for the URL of a path."""
    site.add_video("/a.mp4", video)
    site.add_redirect("/elsewhere", site.url("/a.mp4", NAME))
    with httpx.Client(base_url=url, timeout=90) as client:
        answer = client.post("/predict", json={"url": site.url(path, NAME)})
        [job] = client.get("/jobs").json()["jobs"]
        assert (answer.status_code == 200) == (job["state"] == "done")
        return job["state"], job["reason"]
