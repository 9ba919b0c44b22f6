"""A monitor killed with SIGKILL at random times: no alert is lost and none is repeated."""

import json
import random
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from features.utils.worker_pool import make_worker_context
from hazard.alerts.webhooks import webhook_id
from hazard.monitor.events.event_log import LOG_FILE_NAME
from tests.helpers.servers.alarms import clock_camera, train_alarm_model
from tests.helpers.servers.receivers import SECRET, run_receiver

KILLS = 20
EVENT_SECONDS, QUIET_SECONDS, RESUME_SECONDS = 10.0, 12.0, 11.0
"""Events are shorter than the time within which an event continues, and pauses are longer."""
SEEN_SECONDS = 3.0
"""An event that a monitor saw for this long without a break must have an alert."""


def live_once(arguments: list[str]) -> None:
    """Run the command once, in a process that has imported everything already."""
    from hazard.cli.main import main

    sys.argv = ["hazard", *arguments]
    main()


@pytest.mark.long
def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    model, draw = train_alarm_model(tmp_path), random.Random(7)
    with run_receiver() as receiver, clock_camera() as camera:
        channel = {"kind": "webhook", "url": receiver.url, "secret": SECRET}
        settings = {
            "cameras": [{"name": "door", "source": camera.url}],
            "alerts": {"channels": [channel], "first_retry_seconds": 0.1},
            "monitor": {
                "alerts_per_minute": 1000,
                "silence_seconds": 60,
                "resume_seconds": RESUME_SECONDS,
                "longest_clip_seconds": 10,
            },
        }
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(settings))
        given = [
            "monitor",
            "--config",
            tmp_path / "m.yaml",
            "--model",
            model,
            "-o",
            tmp_path / "o",
            "--runtime",
            "torch",
        ]
        given += ["--threshold", "0.5", "--stride", "0.5"]
        context = make_worker_context(("hazard.monitor.run", "features.encoders.torch_encoder", "features.live.reader"))
        offset = time.time() - time.monotonic()
        now = time.monotonic()
        period = EVENT_SECONDS + QUIET_SECONDS
        camera.events += [(now + i * period, now + i * period + EVENT_SECONDS) for i in range(100)]
        for number in range(KILLS + 1):
            life = context.Process(target=live_once, args=(list(map(str, given)),))
            life.start()
            life.join(draw.uniform(1.5, 11.0))
            assert life.is_alive(), "it ended on its own"
            if number < KILLS:
                life.kill()
            else:  # the last one stops normally, with no delivery in progress
                wait_until(lambda: len(receiver.ids()) and not camera.is_alarming(time.monotonic()))
                wait_until(lambda: camera.is_alarming(time.monotonic()))
                life.join(SEEN_SECONDS + 2)
                life.terminate()
            life.join()
    lines = [json.loads(line) for line in (tmp_path / "o" / LOG_FILE_NAME).read_text().splitlines()]
    logged = {webhook_id(line["id"]) for line in lines if line["is_alerted"]}
    told = {got.headers["webhook-id"]: yaml.safe_load(got.body)["data"] for got in receiver.accepted}
    starts = [datetime.fromisoformat(one["started"]).timestamp() - offset for one in told.values()]
    assert logged == told.keys(), "each logged alert was delivered"
    assert all(one["kind"] == "event" for one in told.values())
    times = [sum(a - 1 <= start < b + 0.5 for start in starts) for a, b in camera.events]
    seen = [max((min(b, d) - max(a, c) for c, d in camera.connections), default=0.0) for a, b in camera.events]
    long_seen = sum(span > SEEN_SECONDS for span in seen)
    again = len(receiver.ids()) - len(told)
    print(f"{KILLS} kills, {sum(times)} alerts, {long_seen} events seen for {SEEN_SECONDS:g} s at a stretch, "
          f"{again} alerts delivered again under the same id")  # fmt: skip
    assert sum(times) == len(starts), "each alert belongs to an event"
    assert max(times) == 1, "no alert is repeated"
    assert all(count for count, span in zip(times, seen, strict=True) if span > SEEN_SECONDS), "no alert is lost"


def wait_until(condition, seconds: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
