"""`--log-format json`: every line, from any logger, is a JSON object, and none contains a secret."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hazard.synthetic.clips import draw_clip
from hazard.utils.structured_logging import JsonLinesFormatter
from tests.helpers.servers.receivers import SECRET
from tests.helpers.servers.scrapes import Samples, sample_value, scrape_metrics

COMMAND = (sys.executable, "-m", "hazard", "monitor")


def ran(*arguments: object) -> tuple[int, str, list[dict[str, Any]]]:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_holds_its_facts() -> None:
    record = logging.LogRecord(
        "features.live.cameras", logging.WARNING, "a.py", 1, "camera %s:\n%s", ("dö\u2028or", "x"), None
    )
    record.camera, record.level, record.path = "dö\u2028or", "not this", Path("a")
    line = JsonLinesFormatter().format(record)
    assert line.isascii() and "\n" not in line
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "warning",
        "logger": "features.live.cameras",
        "message": "camera dö\u2028or:\nx",
        "camera": "dö\u2028or",
        "path": "a",
    }


def test_a_line_may_hold_a_traceback() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "a.py", 1, "failed", None, sys.exc_info())
    found = json.loads(JsonLinesFormatter().format(record))
    assert found["message"] == "failed" and "ValueError: no" in found["exception"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import warnings; warnings.warn('old')", "UserWarning: old"),
        ("import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()", "ZeroDivisionError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import logging; logging.getLogger('urllib3').warning('a\\nb')", "a\nb"),
    ],
)
def test_what_nobody_expected_is_a_line_too(code: str, said: str) -> None:
    begin = (
        "import logging; logging.basicConfig(); "
        "from hazard.utils.structured_logging import configure_log_format; configure_log_format('json'); "
    )
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True)
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert said in line["message"]
    assert done.returncode == (code == "1 / 0")


class Running:
    """A running monitor and the JSON lines that it has logged so far."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self._too_long = threading.Timer(120, self._process.kill)
        self._too_long.start()

    def until(self, is_enough: Callable[[], bool]) -> None:
        """Read lines until there are enough, or until the end."""
        assert self._process.stderr is not None
        while not is_enough() and (text := self._process.stderr.readline()):
            assert "topsecret" not in text and SECRET not in text
            self.lines.append(json.loads(text))

    def said(self, *words: str) -> bool:
        return all(any(word in line["message"] for line in self.lines) for word in words)

    def end(self) -> tuple[int, str]:
        """Send SIGTERM; return the exit code and standard output."""
        self._process.send_signal(signal.SIGTERM)
        self.until(lambda: False)
        self._too_long.cancel()
        assert self._process.stdout is not None
        return self._process.wait(), self._process.stdout.read()


def test_what_a_monitor_says_and_counts_is_for_programs(small_model: Path, tmp_path: Path) -> None:
    """One camera plays and one refuses; the receivers do not exist; metrics are scraped; then SIGTERM."""
    pytest.importorskip("prometheus_client", reason="pip install '.[metrics]'")
    door = 'dö"or\\'
    draw_clip(tmp_path / "a.mp4", "fight", seed=2, size=(96, 72), frame_rate=10, seconds=60)
    hook = {"kind": "webhook", "name": "hook", "url": "http://127.0.0.1:9/?token=topsecret", "secret": SECRET}
    people = {"kind": "apprise", "name": "people", "url": "json://joe:topsecret@127.0.0.1:9/"}
    channels = [hook, people] if find_spec("apprise") else [hook]
    sources = {door: tmp_path / "a.mp4", "yard": "http://joe:${YARD}@127.0.0.1:9/?key=topsecret"}
    tree = {
        "monitor": {"log_format": "json", "metrics": 0},
        "cameras": [{"name": name, "source": str(source)} for name, source in sources.items()],
        "alerts": {"channels": channels, "first_retry_seconds": 0.01},
        "infer": {"runtime": "torch", "window_seconds": 1, "stride_seconds": 0.5, "threshold": 0.01},
    }
    (tmp_path / "m.yaml").write_text(json.dumps(tree))
    running = Running("--config", tmp_path / "m.yaml", "--model", small_model, "-o", tmp_path / "o", YARD="topsecret")
    running.until(
        lambda: running.said("watching", "connecting again", "event", *(str(one["name"]) for one in channels))
    )
    url = next(line["url"] for line in running.lines if "url" in line)
    found = scraped_once(url, lambda found: bool(sample_value(found, "hazard_alerts_total", camera=door, kind="event")))
    assert running.end() == (143, "")
    check_lines(running.lines, door, channels)
    check_samples(found, door, channels)


def scraped_once(url: str, is_enough: Callable[[Samples], bool]) -> Samples:
    until = time.monotonic() + 60
    while not is_enough(found := scrape_metrics(url)):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def check_lines(lines: Sequence[dict[str, Any]], door: str, channels: Sequence[dict[str, str]]) -> None:
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert "stopping" in {line["message"] for line in lines}
    (event,) = [line for line in lines if line["logger"] == "hazard" and line.get("kind") == "event"]
    assert (event["camera"], event["label"], event["ended"]) == (door, "hazardous", None)
    assert event["id"].startswith(f"{door}/event/hazardous/") and Path(event["snapshot"]).is_file()
    (watching,) = [line for line in lines if line["message"].startswith("watching")]
    assert watching["cameras"] == [door, "yard"] and watching["fps"] > 0
    again = next(line for line in lines if "wait_seconds" in line)
    assert again["camera"] == "yard" and again["reason"]
    failed = [line for line in lines if line["logger"] == "hazard.alerts.delivery"]
    assert {line["channel"] for line in failed} == {one["name"] for one in channels}
    assert all((line["alert"], line["camera"], line["level"]) == (event["id"], door, "warning") for line in failed)


def check_samples(found: Samples, door: str, channels: Sequence[object]) -> None:
    frames = {
        what: sample_value(found, f"hazard_frames_{what}_total", camera=door)
        for what in ("judged", "picked", "decoded")
    }
    assert 0 < (frames["judged"] or 0) <= (frames["picked"] or 0) <= (frames["decoded"] or 0), frames
    assert sample_value(found, "hazard_frame_latency_seconds_count", camera=door) == frames["judged"]
    assert sample_value(found, "hazard_events_total", camera=door, label="hazardous") == 1
    assert sample_value(found, "hazard_outbox_pending") in (0, len(channels))
    assert [sample_value(found, "hazard_camera_up", camera=camera) for camera in (door, "yard")] == [1, 0]
    assert sample_value(found, "hazard_frames_decoded_total", camera="yard") == 0
    assert sample_value(found, "hazard_alerts_total", camera="yard", kind="offline") == 0


def test_the_error_at_the_end_is_a_line(tmp_path: Path) -> None:
    for given, code, said in (
        (("--log-format", "json"), 2, "give cameras"),
        (("--set", "monitor.log_format=json", "--threshold", "0.5", "--set", "infer.leav=1"), 2, "leave"),
        (("--log-format", "json", "--metrics", "x"), 2, "expected PORT"),
        (("--log-format", "json", "a.mp4", "-o", tmp_path / "o"), 2, "no model at"),
    ):
        found, out, lines = ran("--model", tmp_path / "absent", *given)
        assert (found, out) == (code, "")
        assert said in lines[-1]["message"]
        assert (lines[-1]["level"], lines[-1]["exit_code"]) == ("error", code)


def test_for_people_it_is_text(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--model", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: give cameras")
