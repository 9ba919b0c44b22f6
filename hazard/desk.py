"""What happens in front of cameras: written down, and each alert put into an outbox once, across restarts too."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

from features.files import write_atomically
from features.live import Notice
from hazard.alerts import Alert
from hazard.monitor import Happening
from hazard.outbox import Outbox
from hazard.types import Event
from hazard.video_names import output_name

RESTART_SECONDS = 60.0
"""An event that goes on when watching begins again within so long is the same event: it was told of."""
PER_MINUTE = 6
"""Alerts of one camera in a minute at most, by default; more are in the log alone."""
LOG, STATE, OUTBOX = "events.jsonl", "state.json", "outbox.sqlite"


@dataclass
class Desk:
    """Takes what happens: writes it down, and puts alerts into the outbox, each once, whenever it is begun again."""

    folder: Path
    outbox: Outbox | None
    log: IO[str]
    seen: dict[str, dict[str, str]]
    """By camera and label: until when its last event that was told of was seen, ISO 8601."""
    offline: dict[str, str]
    """Since when cameras are known to be offline."""
    before: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """Until when events were seen before watching began again, as long as nothing was seen of them since."""
    sent: dict[str, list[datetime]] = field(default_factory=dict)
    per_minute: int = PER_MINUTE

    def take(self, happening: Happening) -> Alert | None:
        """The alert that it is worth, if any. Raises EnvironmentStopped where the disk does not take it."""
        if isinstance(happening.news, Notice):
            return self._notice(happening, happening.news)
        event, over = happening.news.event, happening.news.is_over
        start = happening.wall - timedelta(seconds=max(0.0, happening.seconds - event.start))
        goes_on = not over and self._goes_on(happening.camera, event.label, start)
        snapshot = None if over or goes_on else self._snapshot(happening, start)
        is_muted = not over and not goes_on and self._is_too_many(happening.camera, happening.wall)
        self._write(happening, event, start, over=over, goes_on=goes_on, is_muted=is_muted, snapshot=snapshot)
        if over or goes_on or is_muted:
            self.mark([(happening.camera, event.label)], happening.wall)
            return None
        alert = Alert(
            id=f"{happening.camera}/event/{event.label}/{start.isoformat(timespec='seconds')}",
            kind="event",
            camera=happening.camera,
            label=event.label,
            started=start,
            ended=None,
            probability=event.peak,
            snapshot=snapshot,
            clip=None,
        )
        put = self._put(alert)  # before it is marked: killed in between, it is told of again rather than never
        self.mark([(happening.camera, event.label)], happening.wall)
        return put

    def mark(self, going_on: Iterable[tuple[str, str]], now: datetime) -> None:
        """Notes until when events of (camera, label) were seen."""
        for camera, label in going_on:
            self.seen.setdefault(camera, {})[label] = now.isoformat()
            self._save()

    def _notice(self, happening: Happening, notice: Notice) -> Alert | None:
        if notice.kind == "ended":
            return None
        since = (notice.since or notice.at).isoformat(timespec="seconds")
        if notice.kind == "back":
            since = self.offline.get(notice.camera, since)
        entry: dict[str, object] = {
            "kind": notice.kind,
            "camera": notice.camera,
            "at": notice.at.isoformat(),
            "reason": notice.reason,
        }
        self._line(entry)
        put = self._put(
            Alert(
                id=f"{notice.camera}/{notice.kind}/{since}",
                kind=notice.kind,
                camera=notice.camera,
                label="",
                started=notice.at,
                ended=None,
                probability=0.0,
                snapshot=None,
                clip=None,
            )
        )
        if notice.kind == "offline":
            self.offline[notice.camera] = since
        else:
            self.offline.pop(notice.camera, None)
        self._save()
        return put

    def _put(self, alert: Alert) -> Alert | None:
        return alert if self.outbox is None or self.outbox.put(alert) else None

    def _goes_on(self, camera: str, label: str, start: datetime) -> bool:
        """Whether it was told of before watching began again."""
        until = self.before.pop((camera, label), None)
        return until is not None and start <= until + timedelta(seconds=RESTART_SECONDS)

    def _is_too_many(self, camera: str, now: datetime) -> bool:
        recent = [moment for moment in self.sent.get(camera, []) if now - moment < timedelta(minutes=1)]
        is_too_many = len(recent) >= self.per_minute
        self.sent[camera] = recent if is_too_many else [*recent, now]
        return is_too_many

    def _save(self) -> None:
        state = {"seen": self.seen, "offline": self.offline}
        write_atomically(self.folder / STATE, json.dumps(state, indent=1).encode())

    def _snapshot(self, happening: Happening, start: datetime) -> Path | None:
        if not happening.jpeg:
            return None
        name = output_name(f"{happening.camera}.mp4").stem
        file = self.folder / "snapshots" / f"{name}-{start:%Y%m%dT%H%M%S}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, happening.jpeg)
        return file

    def _write(self, happening: Happening, event: Event, start: datetime, **facts: object) -> None:
        self._line(
            {
                "kind": "event",
                "camera": happening.camera,
                "label": event.label,
                "at": happening.wall.isoformat(),
                "started": start.isoformat(),
                "seconds": [round(event.start, 3), round(event.end, 3)],
                "session": happening.session,
                "peak": event.peak,
                "mean": event.mean,
                **{key: str(value) if isinstance(value, Path) else value for key, value in facts.items()},
            }
        )

    def _line(self, entry: dict[str, object]) -> None:
        self.log.write(json.dumps(entry, ensure_ascii=True) + "\n")
        self.log.flush()
        os.fsync(self.log.fileno())


@contextmanager
def open_desk(folder: Path, outbox: Outbox | None, *, per_minute: int = PER_MINUTE) -> Iterator[Desk]:
    """What was told of before is known again."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        state = {}
    with open(folder / LOG, "a", encoding="utf-8") as log_file:
        seen = state.get("seen", {})
        before = {
            (camera, label): datetime.fromisoformat(at) for camera, each in seen.items() for label, at in each.items()
        }
        yield Desk(folder, outbox, log_file, seen, state.get("offline", {}), before, per_minute=per_minute)
