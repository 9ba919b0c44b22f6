"""What happens in front of cameras: written down, then told, each event once, whatever is killed and begun again.

The line in the log comes first. Only the last line can be of an alert that was not put into the outbox any more; it is
put when watching begins again, and the outbox knows by its id whether it had been.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from features.errors import RuntimeEnvironmentError
from features.live.types import StatusChange
from features.utils.files import remove_stale_temporaries, write_atomically
from hazard.alerts.alert import Alert
from hazard.alerts.outbox import Outbox
from hazard.monitor.detector import CameraEvent
from hazard.monitor.events.event_clips import CLIPS_FOLDER, SNAPSHOTS_FOLDER, EventClips
from hazard.monitor.events.event_log import EventLog, LogEntry, open_event_log, read_last_entries
from hazard.monitor.events.state import MonitorState, OpenEvent, dump_state, load_state
from hazard.monitor.settings import MonitorSettings
from hazard.monitor.watcher import EventChange
from hazard.types import Event
from hazard.utils.safe_names import annotated_video_path

STATE_FILE_NAME, OUTBOX_FILE_NAME = "state.json", "outbox.sqlite"

log = logging.getLogger(__name__)


@dataclass
class EventProcessor:
    """Takes what happens: writes it down, and puts alerts into the outbox, each once, whenever it is begun again."""

    folder: Path
    outbox: Outbox | None
    log: EventLog
    state: MonitorState
    clips: EventClips
    is_watched: Callable[[str, datetime], bool]
    """Whether a camera's schedule has it watched at a moment."""
    alert_times: dict[str, list[datetime]] = field(default_factory=dict)
    """By camera, the alerts of the last minute."""
    muted_counts: Counter[str] = field(default_factory=Counter)
    """By camera, the events that were one too many in a minute to be told of."""
    waiting_for_schedule: dict[tuple[str, str], CameraEvent] = field(default_factory=dict)
    """What began outside the hours of its camera and goes on."""

    def process(self, camera_event: CameraEvent) -> Alert | None:
        """The alert that it is worth, if any. Raises EnvironmentStopped where the disk does not take it.

        What begins outside the hours of its camera is told of when they begin, if it still goes on.
        """
        key, begins = _classify_event(camera_event)
        if begins and not self.is_watched(camera_event.camera, camera_event.wall_time):
            self.waiting_for_schedule[key] = camera_event
            return None
        if not begins and key in self.waiting_for_schedule:
            del self.waiting_for_schedule[key]
            return None
        return self._process_change(key, camera_event)

    def process_waiting(self, now: datetime) -> list[Alert]:
        """The alerts of what goes on while the hours of its camera begin."""
        due = [key for key in self.waiting_for_schedule if self.is_watched(key[0], now)]
        return [alert for key in due if (alert := self._process_change(key, self.waiting_for_schedule.pop(key)))]

    def resume(self, entries: Sequence[LogEntry]) -> None:
        """Goes on from the end of the log: what was about to be told is told, what went on was lost sight of."""
        for entry in entries[-1:]:
            with suppress(KeyError, TypeError, ValueError):  # somebody else's line
                self._queue_alert(entry)
        for entry in entries:
            with suppress(KeyError, TypeError, ValueError):
                if entry["kind"] == "event" and entry["is_alerted"]:
                    self.alert_times.setdefault(entry["camera"], []).append(datetime.fromisoformat(entry["at"]))
        for (camera, label), told in list(self.state.open_events.items()):
            if not told.is_cut:
                self._write_entry(_make_event_entry(camera, label, told, at=told.until, over=True, is_cut=True))

    def update_last_seen(self, active_events: Iterable[tuple[str, str]], now: datetime) -> None:
        """Notes until when events of (camera, label) were seen."""
        held = [told for key in active_events if (told := self.state.open_events.get(key)) and not told.is_cut]
        for told in held:
            told.until = now
        if held:
            self._save_state()

    def _process_change(self, key: tuple[str, str], camera_event: CameraEvent) -> Alert | None:
        if isinstance(camera_event.change, StatusChange):
            return self._process_status_change(camera_event.change)
        if camera_event.change.is_over:
            self._end_event(key, camera_event, camera_event.change.event, is_cut=camera_event.change.is_cut)
            return None
        return self._begin_event(key, camera_event, camera_event.change)

    def _begin_event(self, key: tuple[str, str], camera_event: CameraEvent, change: EventChange) -> Alert | None:
        event = change.event
        start = camera_event.wall_time - timedelta(seconds=max(0.0, camera_event.seconds - event.start))
        held = self.state.open_events.get(key)
        within = self.clips.settings.resume_seconds
        if held and change.is_from_session_start and held.is_resumed(start, within_seconds=within):
            self._write_event(camera_event, event, held, goes_on=True)
            return None
        told = OpenEvent(
            event_id(*key, start), start, camera_event.wall_time, self._make_event_files(camera_event, event, start)
        )
        is_muted = self._is_rate_limited(camera_event.camera, camera_event.wall_time)
        self.muted_counts[camera_event.camera] += is_muted
        return self._queue_alert(
            self._write_event(camera_event, event, told, is_muted=is_muted, is_alerted=not is_muted)
        )

    def _end_event(self, key: tuple[str, str], camera_event: CameraEvent, event: Event, *, is_cut: bool) -> None:
        if (held := self.state.open_events.get(key)) is None:
            return  # nobody was told that it began
        self._write_event(camera_event, event, held, over=True, is_cut=is_cut)
        self.clips.end(held.id, camera_event.arrived - max(0.0, camera_event.seconds - event.end))

    def _process_status_change(self, status_change: StatusChange) -> Alert | None:
        if status_change.kind == "ended":
            return None
        since = (status_change.since or status_change.at).isoformat()
        if status_change.kind == "back":
            since = self.state.offline_since.get(status_change.camera, since)
        entry = {
            "kind": status_change.kind,
            "id": f"{status_change.camera}/{status_change.kind}/{since}",
            "camera": status_change.camera,
            "at": status_change.at.isoformat(),
            "since": since,
            "reason": status_change.reason,
            "is_alerted": True,
        }
        self._write_entry(entry)
        return self._queue_alert(entry)

    def _write_event(self, camera_event: CameraEvent, event: Event, open_event: OpenEvent, **facts: bool) -> LogEntry:
        """Writes down how an event stands."""
        entry = _make_event_entry(camera_event.camera, event.label, open_event, at=camera_event.wall_time, **facts) | {
            "seconds": [round(event.start, 3), round(event.end, 3)],
            "session": camera_event.session,
            "peak": event.peak,
            "mean": event.mean,
        }
        self._write_entry(entry)
        return entry

    def _write_entry(self, entry: LogEntry) -> None:
        self.log.append(entry)
        self.state.apply_entry(entry)
        self._save_state()

    def _queue_alert(self, entry: LogEntry) -> Alert | None:
        if not entry["is_alerted"]:
            return None
        alert = make_alert(entry)
        return alert if self.outbox is None or self.outbox.put(alert) else None

    def _is_rate_limited(self, camera: str, now: datetime) -> bool:
        recent = [moment for moment in self.alert_times.get(camera, []) if now - moment < timedelta(minutes=1)]
        is_too_many = len(recent) >= self.clips.settings.alerts_per_minute
        self.alert_times[camera] = recent if is_too_many else [*recent, now]
        return is_too_many

    def _save_state(self) -> None:
        write_atomically(self.folder / STATE_FILE_NAME, dump_state(self.state))

    def _make_event_files(self, camera_event: CameraEvent, event: Event, start: datetime) -> dict[str, str | None]:
        """The snapshot, written, and the clip, asked for."""
        camera = str(annotated_video_path(f"{camera_event.camera}.mp4").with_suffix("")).replace("/", "-")
        name = f"{camera}-{start:%Y%m%dT%H%M%S}.{start.microsecond // 1000:03d}Z"
        snapshot, clip = self.folder / SNAPSHOTS_FOLDER / f"{name}.jpg", self.folder / CLIPS_FOLDER / f"{name}.mp4"
        if self.clips.is_enabled:
            began = camera_event.arrived - max(0.0, camera_event.seconds - event.start)
            self.clips.begin(event_id(camera_event.camera, event.label, start), camera_event.camera, clip, began)
        return {
            "snapshot": str(snapshot) if camera_event.jpeg and _write_snapshot(snapshot, camera_event.jpeg) else None,
            "clip": str(clip) if self.clips.is_enabled else None,
        }


def event_id(camera: str, label: str, start: datetime) -> str:
    """What an event is called by, everywhere and for ever."""
    return f"{camera}/event/{label}/{start.isoformat(timespec='milliseconds')}"


def make_alert(entry: LogEntry) -> Alert:
    """The alert that an entry of the log is worth."""
    paths = {name: Path(entry[name]) if entry.get(name) else None for name in ("snapshot", "clip")}
    return Alert(
        id=entry["id"],
        kind=entry["kind"],
        camera=entry["camera"],
        label=entry.get("label", ""),
        started=datetime.fromisoformat(entry.get("started") or entry["at"]),
        ended=None,
        probability=entry.get("peak", 0.0),
        **paths,
    )


@contextmanager
def open_event_processor(
    folder: Path,
    outbox: Outbox | None,
    settings: MonitorSettings | None = None,
    *,
    is_watched: Callable[[str, datetime], bool] = lambda camera, moment: True,
) -> Iterator[EventProcessor]:
    """What was told of before is known again, and what was about to be told is told now."""
    for part in (folder, folder / SNAPSHOTS_FOLDER, folder / CLIPS_FOLDER):
        part.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(part)
    with open_event_log(folder) as opened:
        entries = read_last_entries(folder)
        state = b""
        with suppress(OSError):
            state = (folder / STATE_FILE_NAME).read_bytes()
        clips = EventClips(settings or MonitorSettings())
        desk = EventProcessor(folder, outbox, opened, load_state(state, entries), clips, is_watched)
        desk.resume(entries)
        yield desk


def _make_event_entry(camera: str, label: str, open_event: OpenEvent, *, at: datetime, **facts: bool) -> LogEntry:
    return {
        "kind": "event",
        "id": open_event.id,
        "camera": camera,
        "label": label,
        "at": at.isoformat(),
        "started": open_event.started.isoformat(),
        **{fact: facts.get(fact, False) for fact in ("over", "is_cut", "goes_on", "is_muted", "is_alerted")},
        **open_event.files,
    }


def _classify_event(camera_event: CameraEvent) -> tuple[tuple[str, str], bool]:
    """What it is about, and whether it begins."""
    if isinstance(camera_event.change, StatusChange):
        return (camera_event.camera, ""), camera_event.change.kind == "offline"
    return (camera_event.camera, camera_event.change.event.label), not camera_event.change.is_over


def _write_snapshot(file: Path, content: bytes) -> bool:
    """A picture that cannot be written is no reason not to tell."""
    try:
        write_atomically(file, content)
    except RuntimeEnvironmentError as error:
        log.warning("%s", error)
        return False
    return True
