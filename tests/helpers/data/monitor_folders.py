"""Output folders of a monitor, written line by line as the monitor does, and a client of the server for them."""

import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from fastapi.testclient import TestClient

from hazard.monitor.events.event_log import LOG_FILE_NAME
from hazard.monitor.events.event_processor import make_event_id
from hazard.monitor.housekeeping.heartbeat import HEARTBEAT_FILE_NAME, HeartbeatFile
from hazard.web.app import create_app
from hazard.web.cameras.events import RecordedEvent
from hazard.web.cameras.sites import MonitorSites, open_monitor_sites
from hazard.web.settings import ServeSettings

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class MonitorFolder:
    """The output folder of one monitor, and the log lines that are not written yet."""

    folder: Path
    camera: str = "door"
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for part in ("", "snapshots", "clips"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)

    def add_event(
        self,
        ago: float = 100.0,
        *,
        lasts: float | None = 12.5,
        camera: str = "",
        label: str = "fight",
        peak: float = 0.9,
        is_muted: bool = False,
        picture: bytes = b"",
        clip: bytes = b"",
    ) -> str:
        """Add the log lines of an event that began `ago` seconds ago, and return its id.

        It lasts `lasts` seconds; None means that it has not ended.
        """
        camera = camera or self.camera
        began = NOW - timedelta(seconds=ago)
        name = f"{camera}-{began:%Y%m%dT%H%M%S}.{began.microsecond // 1000:03d}Z"
        files = {"snapshot": f"/elsewhere/snapshots/{name}.jpg", "clip": f"/elsewhere/clips/{name}.mp4"}
        for folder, ending, content in (("snapshots", "jpg", picture), ("clips", "mp4", clip)):
            if content:
                (self.folder / folder / f"{name}.{ending}").write_bytes(content)
        common = {"kind": "event", "id": make_event_id(camera, label, began), "camera": camera, "label": label}
        flags = {"over": False, "is_cut": False, "goes_on": False, "is_muted": is_muted, "is_alerted": not is_muted}
        facts = {"session": 1, "peak": peak, "mean": peak}
        state = {"started": began.isoformat(), **flags, **files, "seconds": [5.0, 6.0], **facts}
        self.add(common | {"at": (began + timedelta(seconds=1)).isoformat()} | state)
        if lasts is not None:
            state |= {"over": True, "is_muted": False, "is_alerted": False, "seconds": [5.0, 5.0 + lasts]}
            self.add(common | {"at": (began + timedelta(seconds=lasts + 2)).isoformat()} | state)
        return str(common["id"])

    def add(self, entry: dict[str, Any]) -> None:
        self.lines.append(json.dumps(entry))

    def add_offline(self, camera: str = "", *, ago: float = 60.0) -> None:
        camera = camera or self.camera
        since = (NOW - timedelta(seconds=ago)).isoformat()
        common = {"kind": "offline", "id": f"{camera}/offline/{since}", "camera": camera, "at": since, "since": since}
        self.add(common | {"reason": "connection refused", "is_alerted": True})

    def write(self, *, end: str = "\n") -> None:
        """Append the lines that were added since the last call to the log."""
        with open(self.folder / LOG_FILE_NAME, "a") as file:
            file.write("".join(f"{line}\n" for line in self.lines[:-1]) + "".join(f"{x}{end}" for x in self.lines[-1:]))
        self.lines.clear()

    def write_heartbeat(self, *, ago: float = 0.0, is_over: bool = False, **cameras: str) -> None:
        """Write the heartbeat file as a running monitor does, dated `ago` seconds back."""
        HeartbeatFile(self.folder / HEARTBEAT_FILE_NAME).write(cameras or {self.camera: "live"}, is_over=is_over)
        os.utime(self.folder / HEARTBEAT_FILE_NAME, (time.time() - ago,) * 2)


def make_jpeg(number: int = 0, *, size: tuple[int, int] = (640, 360)) -> bytes:
    """Return a JPEG that looks a little like a corridor. Each `number` gives another picture."""
    y, x = np.mgrid[: size[1], : size[0]]
    shade = 60 + 40 * np.cos(x / size[0] * 6 + number) + 60 * y / size[1]
    frame = np.stack([shade * 0.9, shade, shade * (0.8 + 0.02 * (number % 9))], axis=-1).clip(0, 255).astype(np.uint8)
    cv2.circle(frame, (120 + 37 * number % 400, 220), 26, (40, 60, 90), -1)
    cv2.rectangle(frame, (100 + 37 * number % 400, 240), (140 + 37 * number % 400, 340), (60, 50, 40), -1)
    return cv2.imencode(".jpg", frame)[1].tobytes()


def make_client(folder: Path, **scenes: MonitorFolder) -> TestClient:
    """Return a client of the whole application with these sites and an engine without models or jobs."""
    monitors = {name: scene.folder for name, scene in scenes.items()}
    engine: Any = SimpleNamespace(models={}, default="", jobs=lambda: [])
    served = ServeSettings(monitors=monitors, data=folder / "serve")
    return TestClient(create_app(served, engine), base_url="http://127.0.0.1")


def refresh_sites(watch: MonitorSites) -> MonitorSites:
    _expire(watch)
    watch.refresh()
    return watch


def open_test_sites(folder: Path, **more: Any) -> MonitorSites:
    return refresh_sites(open_monitor_sites({"yard": folder}, **more))


def list_recorded_events(watch: MonitorSites) -> list[RecordedEvent]:
    return refresh_sites(watch).list_newest_first()


def request_events(client: TestClient, query: str = "") -> list[dict[str, Any]]:
    expire_sites(client)
    return client.get(f"/api/events?{query}").json()["events"]


def expire_sites(client: TestClient) -> None:
    """Make the next request read the disk again."""
    if hasattr(client.app.state, "camera_queries"):  # type: ignore[attr-defined]
        _expire(client.app.state.camera_queries.monitor_sites)  # type: ignore[attr-defined]


def _expire(watch: MonitorSites) -> None:
    with watch._lock:  # the thread that reads the logs at the start may still be reading
        watch._refreshed_at = -1e9
