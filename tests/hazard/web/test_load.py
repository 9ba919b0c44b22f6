"""Twenty uploads at once: none is lost, other requests are answered, memory stays bounded. The numbers are printed."""

import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hazard.synthetic.clips import draw_clip

pytest.importorskip("fastapi", reason="pip install '.[serve]'")


pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc"),
]
UPLOADS = 20
UPLOAD_BYTES = 30_000_000
"""The size of each upload, padded with a box that players skip. All of them would take 600 MB of memory."""
GROWTH_BYTES = 150_000_000
"""The most memory that the server process may gain during the uploads."""


@contextmanager
def program(model: Path, data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `hazard serve` as a process and yield it with its URL."""
    given = ["--model", model, "--port", 0, "--data", data, "--runtime", "torch", "--set", f"serve.uploads={UPLOADS}"]
    command = [sys.executable, "-m", "hazard", "serve", *map(str, given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        found = re.search(r"open (\S+) in", process.stdout.readline())
        assert found
        try:
            yield process, found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 143


def held_bytes(pid: int) -> int:
    """Return the memory of a process: its share of anonymous and shared memory."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended just now
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def family(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants, itself first."""
    found, parents = [pid], {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


class Onlooker(threading.Thread):
    """A thread that requests pages during the uploads and measures memory."""

    def __init__(self, url: str, pid: int) -> None:
        super().__init__()
        self.url, self.pid, self.is_over = url, pid, threading.Event()
        self.waits: list[float] = []
        self.server: list[int] = []
        self.all: list[int] = []

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self.is_over.wait(0.05):
                for path in ("/healthz", "/", "/jobs"):
                    began = time.monotonic()
                    assert client.get(path).status_code == 200
                    self.waits.append(time.monotonic() - began)
                held = [held_bytes(pid) for pid in family(self.pid)]
                self.server.append(held[0])
                self.all.append(sum(held))


def test_twenty_uploads_at_once(small_model: Path, tmp_path: Path) -> None:
    draw_clip(tmp_path / "a.mp4", "fight", seed=3, seconds=4, size=(320, 240))
    clip = (tmp_path / "a.mp4").read_bytes()
    rest = UPLOAD_BYTES - len(clip)
    content = clip + rest.to_bytes(4, "big") + b"free" + bytes(rest - 8)
    with program(small_model, tmp_path / "data") as (process, url):
        onlooker = Onlooker(url, process.pid)
        onlooker.start()
        until = time.monotonic() + 20
        while len(onlooker.server) < 10 and time.monotonic() < until:
            time.sleep(0.05)
        before, before_all = onlooker.server[-1], onlooker.all[-1]

        def upload(number: int) -> dict[str, object]:
            sent = httpx.post(f"{url}/jobs", files={"video": (f"{number}.mp4", content)}, timeout=120)
            assert sent.status_code == 202, sent.text
            return sent.json()

        began = time.monotonic()
        with ThreadPoolExecutor(UPLOADS) as senders:
            jobs = list(senders.map(upload, range(UPLOADS)))
        came = time.monotonic() - began
        with httpx.Client(base_url=url) as client:
            while not all(one["state"] in ("done", "failed") for one in client.get("/jobs").json()["jobs"]):
                assert time.monotonic() - began < 400
                time.sleep(0.5)
            done = time.monotonic() - began
            found = {one["id"]: one for one in client.get("/jobs").json()["jobs"]}
            answers = [client.get(f"/jobs/{job['id']}/result").json() for job in jobs]
        onlooker.is_over.set()
        onlooker.join()
    waits = sorted(onlooker.waits)
    print(
        f"\n{UPLOADS} uploads of {UPLOAD_BYTES / 1e6:.0f} MB came in {came:.1f} s, all answered after {done:.1f} s; "
        f"{len(waits)} other requests: median {statistics.median(waits) * 1e3:.0f} ms, 99 % "
        f"{waits[int(len(waits) * 0.99)] * 1e3:.0f} ms, worst {waits[-1] * 1e3:.0f} ms; "
        f"server {before / 1e6:.0f} MB, at most {max(onlooker.server) / 1e6:.0f} MB; with its workers "
        f"{before_all / 1e6:.0f} MB, at most {max(onlooker.all) / 1e6:.0f} MB; {os.cpu_count()} cores"
    )
    assert {job["id"] for job in jobs} == found.keys() and len(found) == UPLOADS
    assert {job["name"] for job in found.values()} == {f"{number}.mp4" for number in range(UPLOADS)}
    assert {job["state"] for job in found.values()} == {"done"}
    assert len({str(answer["segment_predictions"]) for answer in answers}) == 1, "the same video, the same answer"
    assert waits[-1] < 10 and statistics.median(waits) < 1
    assert max(onlooker.server) - before < GROWTH_BYTES
