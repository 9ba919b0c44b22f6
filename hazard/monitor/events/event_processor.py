"""What the monitor does with each camera event: write it to the log, save its snapshot, request its clip, alert once.

The log comes first: an entry is on disk before its alert is put into the outbox. If the monitor is killed in between,
only the last entry can lack its alert. The alert is queued when the monitor starts again, and the outbox, which knows
the ids of its alerts, ignores it if it was queued before. `state.json` holds the open events and the offline cameras.
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
from hazard.monitor.camera_watcher import EventChange
from hazard.monitor.detector import CameraEvent
from hazard.monitor.events.event_clips import CLIPS_FOLDER, SNAPSHOTS_FOLDER, EventClips
from hazard.monitor.events.event_log import EventLog, LogEntry, open_event_log, read_last_entries
from hazard.monitor.events.state import EventKey, MonitorState, OpenEvent, dump_state, load_state
from hazard.monitor.settings import MonitorSettings
from hazard.types import Event
from hazard.utils.safe_names import annotated_video_path

STATE_FILE_NAME, OUTBOX_FILE_NAME = "state.json", "outbox.sqlite"

log = logging.getLogger(__name__)


@dataclass
class EventProcessor:
    """The log, the state and the alerts of one monitor folder. Each event is alerted once, even across restarts."""

    folder: Path
    outbox: Outbox | None
    """Outbox of the alerts; None if the monitor has no alert channels."""
    event_log: EventLog
    state: MonitorState
    event_clips: EventClips
    is_watched: Callable[[str, datetime], bool]
    """Whether the schedule of a camera covers a time."""
    alert_times: dict[str, list[datetime]] = field(default_factory=dict)
    """Times of the event alerts of the last minute, by camera."""
    muted_counts: Counter[str] = field(default_factory=Counter)
    """Number of events without an alert because of `alerts_per_minute`, by camera."""
    deferred_events: dict[EventKey, CameraEvent] = field(default_factory=dict)
    """Events in progress that began outside the schedule of their camera."""

    def process(self, camera_event: CameraEvent) -> Alert | None:
        """Log a camera event. Returns its alert if it has a new one.

        An event that begins outside the schedule of its camera is deferred. It is logged when the schedule begins, or
        dropped if it ends before that. Raises RuntimeEnvironmentError if the log or the state cannot be written.
        """
        key, is_beginning = _event_key(camera_event), _is_beginning(camera_event)
        if is_beginning and not self.is_watched(camera_event.camera, camera_event.wall_time):
            self.deferred_events[key] = camera_event
            return None
        if not is_beginning and key in self.deferred_events:
            del self.deferred_events[key]
            return None
        return self._process_change(key, camera_event)

    def process_deferred(self, now: datetime) -> list[Alert]:
        """Log the deferred events of cameras whose schedule has begun. Returns their alerts."""
        due = [key for key in self.deferred_events if self.is_watched(key[0], now)]
        return [alert for key in due if (alert := self._process_change(key, self.deferred_events.pop(key)))]

    def resume(self, entries: Sequence[LogEntry]) -> None:
        """Continue after a restart from the last entries of the log, oldest first.

        Queue the alert of the last entry, restore the alert times, and mark the open events as interrupted.
        """
        for entry in entries[-1:]:
            with suppress(KeyError, TypeError, ValueError):  # an entry of another program
                self._queue_alert(entry)
        for entry in entries:
            with suppress(KeyError, TypeError, ValueError):
                if entry["kind"] == "event" and entry["is_alerted"]:
                    self.alert_times.setdefault(entry["camera"], []).append(datetime.fromisoformat(entry["at"]))
        for key, open_event in list(self.state.open_events.items()):
            if not open_event.is_cut:
                self._write_entry(_make_event_entry(key, open_event, at=open_event.last_seen, over=True, is_cut=True))

    def update_last_seen(self, active_events: Iterable[EventKey], now: datetime) -> None:
        """Record that these events are still in progress, so that a restart can tell how long ago they were seen."""
        open_events = [self.state.open_events.get(key) for key in active_events]
        seen = [open_event for open_event in open_events if open_event and not open_event.is_cut]
        for open_event in seen:
            open_event.last_seen = now
        if seen:
            self._save_state()

    def _process_change(self, key: EventKey, camera_event: CameraEvent) -> Alert | None:
        change = camera_event.change
        if isinstance(change, StatusChange):
            return self._process_status_change(change)
        if change.is_over:
            self._end_event(key, camera_event, change)
            return None
        return self._begin_event(key, camera_event, change)

    def _begin_event(self, key: EventKey, camera_event: CameraEvent, change: EventChange) -> Alert | None:
        """Log the start of an event, or the continuation of the one that a lost connection or a restart interrupted."""
        event = change.event
        start = camera_event.wall_time - timedelta(seconds=_seconds_since(event.start, camera_event))
        interrupted = self.state.open_events.get(key)
        resume_seconds = self.event_clips.settings.resume_seconds
        if (
            interrupted
            and change.is_from_session_start
            and interrupted.is_resumed(start, within_seconds=resume_seconds)
        ):
            self._write_event(key, camera_event, event, interrupted, goes_on=True)
            return None
        files = self._create_event_files(camera_event, event, start)
        open_event = OpenEvent(make_event_id(*key, start), start, camera_event.wall_time, files)
        is_muted = self._is_rate_limited(camera_event.camera, camera_event.wall_time)
        self.muted_counts[camera_event.camera] += is_muted
        return self._queue_alert(
            self._write_event(key, camera_event, event, open_event, is_muted=is_muted, is_alerted=not is_muted)
        )

    def _end_event(self, key: EventKey, camera_event: CameraEvent, change: EventChange) -> None:
        open_event = self.state.open_events.get(key)
        if open_event is None:
            return  # its start was never logged
        self._write_event(key, camera_event, change.event, open_event, over=True, is_cut=change.is_cut)
        self.event_clips.end(open_event.id, camera_event.arrived - _seconds_since(change.event.end, camera_event))

    def _process_status_change(self, change: StatusChange) -> Alert | None:
        if change.kind == "ended":
            return None
        since = (change.since or change.at).isoformat()
        if change.kind == "back":
            since = self.state.offline_since.get(change.camera, since)
        entry = {
            "kind": change.kind,
            "id": f"{change.camera}/{change.kind}/{since}",
            "camera": change.camera,
            "at": change.at.isoformat(),
            "since": since,
            "reason": change.reason,
            "is_alerted": True,
        }
        self._write_entry(entry)
        return self._queue_alert(entry)

    def _write_event(
        self, key: EventKey, camera_event: CameraEvent, event: Event, open_event: OpenEvent, **flags: bool
    ) -> LogEntry:
        """Write an entry with the times and scores of an event to the log. Returns the entry."""
        entry = _make_event_entry(key, open_event, at=camera_event.wall_time, **flags) | {
            "seconds": [round(event.start, 3), round(event.end, 3)],
            "session": camera_event.session,
            "peak": event.peak,
            "mean": event.mean,
        }
        self._write_entry(entry)
        return entry

    def _write_entry(self, entry: LogEntry) -> None:
        self.event_log.append(entry)
        self.state.apply_entry(entry)
        self._save_state()

    def _save_state(self) -> None:
        write_atomically(self.folder / STATE_FILE_NAME, dump_state(self.state))

    def _queue_alert(self, entry: LogEntry) -> Alert | None:
        """Put the alert of an entry into the outbox. Returns None if it has no alert, or one that was queued before."""
        if not entry["is_alerted"]:
            return None
        alert = make_alert(entry)
        return alert if self.outbox is None or self.outbox.put(alert) else None

    def _is_rate_limited(self, camera: str, now: datetime) -> bool:
        """Check whether a camera has used up its alerts of the last minute. If not, count one more."""
        recent = [time for time in self.alert_times.get(camera, []) if now - time < timedelta(minutes=1)]
        is_limited = len(recent) >= self.event_clips.settings.alerts_per_minute
        self.alert_times[camera] = recent if is_limited else [*recent, now]
        return is_limited

    def _create_event_files(self, camera_event: CameraEvent, event: Event, start: datetime) -> dict[str, str | None]:
        """Write the snapshot and request the clip of a new event. Returns both paths, or None for no file."""
        camera = str(annotated_video_path(f"{camera_event.camera}.mp4").with_suffix("")).replace("/", "-")
        name = f"{camera}-{start:%Y%m%dT%H%M%S}.{start.microsecond // 1000:03d}Z"
        snapshot, clip = self.folder / SNAPSHOTS_FOLDER / f"{name}.jpg", self.folder / CLIPS_FOLDER / f"{name}.mp4"
        if self.event_clips.is_enabled:
            event_id = make_event_id(camera_event.camera, event.label, start)
            clip_start = camera_event.arrived - _seconds_since(event.start, camera_event)
            self.event_clips.begin(event_id, camera_event.camera, clip, clip_start)
        return {
            "snapshot": str(snapshot) if camera_event.jpeg and _write_snapshot(snapshot, camera_event.jpeg) else None,
            "clip": str(clip) if self.event_clips.is_enabled else None,
        }


@contextmanager
def open_event_processor(
    folder: Path,
    outbox: Outbox | None,
    settings: MonitorSettings | None = None,
    *,
    is_watched: Callable[[str, datetime], bool] = lambda camera, time: True,
) -> Iterator[EventProcessor]:
    """Open the event processor of a folder, and continue where the last monitor of this folder stopped.

    Creates the folders that do not exist. Raises RuntimeEnvironmentError if the log or the state cannot be written.
    """
    for path in (folder, folder / SNAPSHOTS_FOLDER, folder / CLIPS_FOLDER):
        path.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(path)
    with open_event_log(folder) as event_log:
        entries = read_last_entries(folder)
        stored_state = b""
        with suppress(OSError):
            stored_state = (folder / STATE_FILE_NAME).read_bytes()
        event_clips = EventClips(settings or MonitorSettings())
        processor = EventProcessor(
            folder, outbox, event_log, load_state(stored_state, entries), event_clips, is_watched
        )
        processor.resume(entries)
        yield processor


def make_event_id(camera: str, label: str, start: datetime) -> str:
    """Return the id of an event. It is the same in the log, in the alert and after a restart."""
    return f"{camera}/event/{label}/{start.isoformat(timespec='milliseconds')}"


def make_alert(entry: LogEntry) -> Alert:
    """Return the alert of a log entry. Raises KeyError, TypeError or ValueError if the entry is not one of ours."""
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


def _make_event_entry(key: EventKey, open_event: OpenEvent, *, at: datetime, **flags: bool) -> LogEntry:
    camera, label = key
    return {
        "kind": "event",
        "id": open_event.id,
        "camera": camera,
        "label": label,
        "at": at.isoformat(),
        "started": open_event.started.isoformat(),
        **{flag: flags.get(flag, False) for flag in ("over", "is_cut", "goes_on", "is_muted", "is_alerted")},
        **open_event.files,
    }


def _event_key(camera_event: CameraEvent) -> EventKey:
    """Return the camera and the event's label, or an empty label for a change of the camera's status."""
    change = camera_event.change
    return camera_event.camera, "" if isinstance(change, StatusChange) else change.event.label


def _is_beginning(camera_event: CameraEvent) -> bool:
    """Check whether an event begins or a camera goes offline."""
    change = camera_event.change
    return change.kind == "offline" if isinstance(change, StatusChange) else not change.is_over


def _seconds_since(seconds: float, camera_event: CameraEvent) -> float:
    """Return how long before the frame of a camera event a time of the camera's session was, at least 0."""
    return max(0.0, camera_event.seconds - seconds)


def _write_snapshot(file: Path, content: bytes) -> bool:
    """Write a snapshot. Returns False, with a warning, if that fails: the event is alerted without it."""
    try:
        write_atomically(file, content)
    except RuntimeEnvironmentError as error:
        log.warning("%s", error)
        return False
    return True
