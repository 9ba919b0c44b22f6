"""The whole monitor with real parts: an RTSP server, the command, a webhook receiver."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import av
import pytest
import yaml

from hazard.alerts.webhooks import verify
from tests.helpers.servers.alarms import train_alarm_model, write_recording
from tests.helpers.servers.receivers import SECRET, ReceivedRequest, run_receiver
from tests.helpers.servers.rtsp import MISSING, has_server, rtsp_camera

EVENTS = [(4.0, 8.0), (16.0, 20.0), (26.0, 44.0), (52.0, 56.0), (62.0, 66.0)]
KILLED_AT = 30.0
"""Seconds of the recording, in the middle of the third event."""


def wait_for(condition: Callable[[], object], running: subprocess.Popen[str], seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until, "nothing arrived"
        time.sleep(0.02)


def kind(got: ReceivedRequest) -> str:
    return str(json.loads(got.body)["type"]).removeprefix("hazard.")


@pytest.mark.long
@pytest.mark.skipif(not has_server(), reason=MISSING)
def test_planted_events_offline_and_back_reach_a_webhook_once_each(tmp_path: Path) -> None:
    model = train_alarm_model(tmp_path)
    whole = write_recording(tmp_path / "whole.mp4", EVENTS, start=0, end=72)
    rest = write_recording(tmp_path / "rest.mp4", EVENTS, start=KILLED_AT, end=72)
    with run_receiver() as receiver, rtsp_camera(whole) as camera:
        came: dict[int, datetime] = {}
        receiver.before = lambda number: came.setdefault(number, datetime.now(UTC))
        settings = {
            "monitor": {"silence_seconds": 4, "before_seconds": 2, "after_seconds": 2},
            "cameras": [{"name": "door", "source": camera.url}],
            "alerts": {"channels": [{"kind": "webhook", "url": receiver.url, "secret": SECRET}]},
        }
        (tmp_path / "monitor.yaml").write_text(yaml.safe_dump(settings))
        command = [
            *(sys.executable, "-m", "hazard", "monitor", "--config", tmp_path / "monitor.yaml", "--model", model),
            *("-o", tmp_path / "o", "--runtime", "torch", "--threshold", "0.5", "--stride", "0.5"),
        ]
        running = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def kinds() -> list[str]:
            return [kind(got) for got in list(receiver.accepted)]

        wait_for(lambda: kinds().count("event") == 3, running)
        third = datetime.fromisoformat(json.loads(receiver.accepted[-1].body)["data"]["started"])
        wait_for(lambda: (datetime.now(UTC) - third).total_seconds() > KILLED_AT - EVENTS[2][0], running)
        camera.kill()
        wait_for(lambda: "offline" in kinds(), running)
        camera.recording = rest
        camera.start()
        wait_for(lambda: "back" in kinds() and kinds().count("event") == 5, running)
        log = tmp_path / "o" / "events.jsonl"
        wait_for(lambda: len(lines := log.read_text().splitlines()) and '"over": true' in lines[-1], running)
        running.send_signal(signal.SIGTERM)
        _out, err = running.communicate(timeout=60)
    assert running.returncode == 143, err
    assert "Traceback" not in err
    assert kinds() == ["event", "event", "event", "offline", "back", "event", "event"]
    assert len(set(receiver.ids())) == len(receiver.ids()) == len(receiver.requests), "each alert once"
    for got in receiver.accepted:
        verify(SECRET, got.headers, got.body, now=time.time())
    alerts = [json.loads(got.body)["data"] for got in receiver.accepted]
    starts = [datetime.fromisoformat(alert["started"]) for alert in alerts if alert["kind"] == "event"]
    since = [(start - starts[0]).total_seconds() + EVENTS[0][0] for start in starts]
    assert since[:3] == pytest.approx([start for start, _ in EVENTS[:3]], abs=1.0)
    late = [(came[i + 1] - datetime.fromisoformat(a["started"])).total_seconds() for i, a in enumerate(alerts)]
    late = [seconds for seconds, alert in zip(late, alerts, strict=True) if alert["kind"] == "event"]
    print(f"from the start of an event to its webhook: {median(late):.2f} s (median), {max(late):.2f} s at most")
    assert max(late) < 10
    for alert in alerts:
        if alert["kind"] == "event":
            assert Path(alert["snapshot"]).read_bytes().startswith(b"\xff\xd8")
            with av.open(alert["clip"]) as clip:
                assert float(clip.duration or 0) / av.time_base > 3
