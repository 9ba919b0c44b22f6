"""Killing the server does not stop the monitor, and killing the monitor does not stop the server: real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from hazard.monitor.events.event_log import LOG_FILE_NAME
from hazard.monitor.housekeeping.heartbeat import HEARTBEAT_STALE_SECONDS
from tests.helpers.servers.alarms import clock_camera, train_alarm_model

PATIENCE = 90.0


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [sys.executable, "-m", "hazard", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        yield running
    finally:
        killed(running)


def killed(running: subprocess.Popen[str]) -> None:
    """Kill a process and those it started with SIGKILL."""
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)
    running.wait(PATIENCE)


def address_of(server: subprocess.Popen[str]) -> str:
    assert server.stdout
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"http://[\d.:]+", line):
            return found[0]
    raise AssertionError(said)


def ask(url: str, said: dict[str, Any] | None = None) -> Any:
    content = None if said is None else json.dumps(said).encode()
    with urlopen(Request(url, content, {"Content-Type": "application/json"}), timeout=30) as answer:
        return json.load(answer)


def wait_for(condition: Callable[[], Any], running: subprocess.Popen[str], seconds: float = PATIENCE) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert running.poll() is None, running.communicate()[0]
        if time.monotonic() > until:
            killed(running)
            raise AssertionError(f"it did not come to that: {running.communicate()[0]}")
        time.sleep(0.1)
    return found


@pytest.mark.long
def test_neither_the_page_nor_the_monitor_falls_with_the_other(tmp_path: Path) -> None:
    model = train_alarm_model(tmp_path)
    watching = ("--model", model, "-o", tmp_path / "o", "--runtime", "torch", "--threshold", "0.5", "--stride", "0.5",
                "--set", "monitor.after_seconds=1")  # fmt: skip
    serving = ("serve", "--model", model, "--monitor", f"yard={tmp_path / 'o'}", "--port", "0", "--runtime", "torch",
               "--data", tmp_path / "d")  # fmt: skip
    with clock_camera() as camera, process("monitor", camera.url, *watching) as monitor:

        def alarm(seconds: float = 10.0) -> None:
            now = time.monotonic()
            camera.events.append((now, now + seconds))

        wait_for((tmp_path / "o" / "watching.json").exists, monitor)
        with process(*serving) as first:
            url = address_of(first)

            def seen(least: int, *, is_going_on: bool) -> list[dict[str, Any]]:
                """Return the events if there are enough. A busy machine may interrupt an event and count it twice."""
                events = ask(url + "/api/events")["events"]
                is_so = bool(events) and (events[0]["state"] == "going on") == is_going_on
                return events if len(events) >= least and is_so else []

            def states() -> list[str]:
                return [one["state"] for one in ask(url + "/api/cameras")["cameras"]]

            wait_for(lambda: states() == ["up"], monitor)
            alarm()
            wait_for(lambda: seen(1, is_going_on=True), monitor)
            event = wait_for(lambda: seen(1, is_going_on=False), monitor)[-1]
            wait_for(lambda: ask(f"{url}/api/events/{event['key']}")["clip"]["url"], monitor)
            assert ask(f"{url}/api/events/{event['key']}/mark", {"mark": "right"})["mark"] == "right"
            size = (tmp_path / "o" / LOG_FILE_NAME).stat().st_size
            killed(first)
        alarm()
        wait_for(lambda: (tmp_path / "o" / LOG_FILE_NAME).stat().st_size > size, monitor)
        assert monitor.poll() is None, "the page was killed, and the monitor watches on"
        with process(*serving) as second:
            url = address_of(second)
            events = wait_for(lambda: seen(2, is_going_on=False), monitor)
            assert [one["mark"] for one in events if one["key"] == event["key"]] == ["right"]
            alarm(seconds=600)
            count = len(wait_for(lambda: seen(len(events) + 1, is_going_on=True), monitor))
            killed(monitor)
            began = time.monotonic()
            wait_for(lambda: states() == ["not watching"], second, HEARTBEAT_STALE_SECONDS + 20)
            print(f"a monitor that was killed is told as not watching after {time.monotonic() - began:.0f} s")
            assert len(seen(count, is_going_on=False)) == count, "what it saw is shown still"
            assert ask(url + "/api/statistics")["total"]["count"] == count
            camera.events.clear()
            with process("monitor", camera.url, *watching) as again:
                wait_for(lambda: states() == ["up"], again)
                again.terminate()
                wait_for(lambda: states() == ["not watching"], second, 20)
                assert again.wait(PATIENCE) == 143
            assert second.poll() is None
