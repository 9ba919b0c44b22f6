"""The whole of it, with real parts: an RTSP server, the command, a webhook receiver."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from hazard.synthetic import draw_clip
from hazard.webhooks import verify
from tests.receivers import SECRET, receiving
from tests.rtsp import MISSING, has_server, rtsp_camera
from tests.test_monitor import model  # noqa: F401


def wait_for(condition: Callable[[], object], running: subprocess.Popen[str], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until, "nothing came"
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.skipif(not has_server(), reason=MISSING)
def test_events_offline_and_back_reach_a_webhook_once(model: Path, tmp_path: Path) -> None:  # noqa: F811
    draw_clip(tmp_path / "a.mp4", "fight", seed=2, size=(160, 120), frame_rate=10, seconds=60)
    with receiving() as receiver, rtsp_camera(tmp_path / "a.mp4") as camera:
        came: dict[str, datetime] = {}
        receiver.before = lambda number: came.setdefault(str(number), datetime.now(UTC))
        channel = {"kind": "webhook", "name": "hook", "url": receiver.url, "secret": SECRET}
        (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"alerts": {"channels": [channel]}}))
        command = [
            *(sys.executable, "-m", "hazard", "monitor", f"door={camera.address}", "--model", model),
            *("-o", tmp_path / "o", "--alerts", tmp_path / "alerts.yaml", "--runtime", "torch"),
            *("--threshold", "0.01", "--window-seconds", "1", "--stride", "0.5", "--offline-after", "8"),
        ]
        running = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def kinds() -> list[str]:
            return [json.loads(got.body)["type"] for got in list(receiver.accepted)]

        wait_for(lambda: "hazard.event" in kinds(), running)
        camera.kill()
        wait_for(lambda: "hazard.offline" in kinds(), running)
        before = kinds().count("hazard.event")
        camera.start()
        wait_for(lambda: "hazard.back" in kinds() and kinds().count("hazard.event") > before, running)
        running.send_signal(signal.SIGTERM)
        _out, err = running.communicate(timeout=60)
        assert running.returncode == 143, err
        assert (kinds().count("hazard.offline"), kinds().count("hazard.back")) == (1, 1)
        assert len(set(receiver.ids())) == len(receiver.ids()), "each once"
        assert "Traceback" not in err
        for got in receiver.accepted:
            verify(SECRET, got.headers, got.body, now=time.time())
        lines = [json.loads(line) for line in (tmp_path / "o" / "events.jsonl").read_text().splitlines()]
        at = [datetime.fromisoformat(line["at"]) for line in lines if line["kind"] == "event" and not line["over"]]
        print("latency from the frame to the webhook:", [(came["1"] - at[0]).total_seconds()])
        assert (came["1"] - at[0]).total_seconds() < 5
