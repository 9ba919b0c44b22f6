"""Events built from the lines of an event log. The last line of an event's id gives its current state."""

import math
from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePosixPath
from sys import intern
from typing import Any

from hazard.monitor.events.event_log import LogEntry

MAX_EVENTS = 100_000
"""The most events of a site. Beyond that, the oldest are dropped."""
MAX_CAMERAS = 1000
"""The most cameras of a site. No monitor watches so many; further names in a log are ignored."""
MAX_LABELS = 1000
MAX_NAME_LENGTH = 200
MAX_ID_LENGTH = 1000


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event of a camera. All times are seconds since 1970."""

    site: str
    id: str
    key: str
    """The name of the event in URLs."""
    camera: str
    label: str
    started: float
    until: float
    """The end of the event, or the last time that the log mentions it."""
    is_over: bool
    is_cut: bool
    """Whether the event was interrupted: the camera or the monitor stopped before its end."""
    is_resumed: bool
    """Whether the event continued after an interruption."""
    is_muted: bool
    is_alerted: bool
    probability: float
    """The highest probability of the event."""
    snapshot: str
    """The name of a file in the folder of snapshots; empty if none was made."""
    clip: str

    @property
    def position(self) -> tuple[float, str]:
        """The event's position in time order."""
        return self.started, self.key


@dataclass
class EventIndex:
    """The events of one site, and why its cameras are offline. Its size is limited."""

    site: str
    events: dict[str, RecordedEvent] = field(default_factory=dict)
    positions: list[tuple[float, str]] = field(default_factory=list)
    """The position of each event, oldest first."""
    newest_by_camera: dict[str, RecordedEvent | None] = field(default_factory=dict)
    """The newest event of each camera, by name."""
    newest_snapshot_by_camera: dict[str, RecordedEvent] = field(default_factory=dict)
    """The newest event with a snapshot of each camera, by name."""
    labels: set[str] = field(default_factory=set)
    offline_by_camera: dict[str, tuple[float, str]] = field(default_factory=dict)
    """The time since when a camera is offline, and the reason, by name."""

    def add_entry(self, entry: LogEntry) -> bool:
        """Add one log entry. Return False if it changes nothing or is not a valid entry."""
        try:
            camera = _parse_name(entry["camera"])
            if camera not in self.newest_by_camera and len(self.newest_by_camera) >= MAX_CAMERAS:
                return False
            match entry["kind"]:
                case "event":
                    return self._add_event(camera, entry)
                case "offline":
                    self.offline_by_camera[camera] = (
                        _parse_time(entry["since"]),
                        escape_surrogates(entry.get("reason") or "")[:MAX_NAME_LENGTH],
                    )
                case "back":
                    self.offline_by_camera.pop(camera, None)
                case _:
                    return False
            self.newest_by_camera.setdefault(camera, None)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):  # not a line of a monitor
            return False
        return True

    def _add_event(self, camera: str, entry: LogEntry) -> bool:
        key = make_event_key(self.site, escape_surrogates(entry["id"]))
        previous = self.events.get(key)
        event = _make_event(self.site, key, camera, entry, previous)
        if event == previous:
            return False
        self.events[event.key] = event
        if previous is None:
            insort(self.positions, event.position)
            self._drop_oldest()
        newest = self.newest_by_camera.get(camera)
        if newest is None or newest.position <= event.position:
            self.newest_by_camera[camera] = event
        self._update_newest_snapshot(event)
        if len(self.labels) < MAX_LABELS:
            self.labels.add(event.label)
        return True

    def _update_newest_snapshot(self, event: RecordedEvent) -> None:
        newest = self.newest_snapshot_by_camera.get(event.camera)
        if event.snapshot and (newest is None or newest.position <= event.position):
            self.newest_snapshot_by_camera[event.camera] = event

    def _drop_oldest(self) -> None:
        if len(self.positions) > MAX_EVENTS * 1.02:  # in batches, because each deletion moves all others
            for _, key in self.positions[:-MAX_EVENTS]:
                del self.events[key]
            del self.positions[:-MAX_EVENTS]

    def count_before(self, position: tuple[float, str] | None) -> int:
        """Return how many events come before a position; all of them for None."""
        return len(self.positions) if position is None else bisect_left(self.positions, position)


def make_event_key(site: str, event_id: str) -> str:
    """Return the name of an event in URLs: letters and digits, the same after a restart."""
    return sha256(f"{site}\0{event_id}".encode()).hexdigest()[:24]


def format_time(seconds: float) -> str:
    """Return a time in UTC as JSON has it, such as `2026-01-02T03:04:05.678Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _make_event(site: str, key: str, camera: str, entry: LogEntry, previous: RecordedEvent | None) -> RecordedEvent:
    """Return an event after an entry. Its start and peak, and whether it was alerted or muted, are kept."""
    started = previous.started if previous else _parse_time(entry["started"])
    is_resumed = bool(entry.get("goes_on")) or (previous is not None and previous.is_resumed)
    until = _end_time(entry, started, is_resumed=is_resumed)
    event = RecordedEvent(
        site=site,
        id=escape_surrogates(entry["id"]),
        key=key,
        camera=camera,
        label=_parse_name(entry["label"]),
        started=started,
        until=until,
        is_over=bool(entry["over"]),
        is_cut=bool(entry["is_cut"]),
        is_resumed=is_resumed,
        is_muted=bool(entry.get("is_muted")),
        is_alerted=bool(entry.get("is_alerted")),
        probability=_parse_probability(entry.get("peak", 0.0)),
        snapshot=_parse_file_name(entry.get("snapshot")),
        clip=_parse_file_name(entry.get("clip")),
    )
    return event if previous is None else _merge_events(previous, event)


def _merge_events(previous: RecordedEvent, event: RecordedEvent) -> RecordedEvent:
    return replace(
        event,
        is_muted=previous.is_muted or event.is_muted,
        is_alerted=previous.is_alerted or event.is_alerted,
        probability=max(previous.probability, event.probability),
        snapshot=event.snapshot or previous.snapshot,
        clip=event.clip or previous.clip,
    )


def _end_time(entry: LogEntry, started: float, *, is_resumed: bool) -> float:
    """Return the end of an event.

    A finished event ended a little before its entry was written; the camera's own time span gives the exact end.
    """
    end, span = _parse_time(entry["at"]), entry.get("seconds")
    if entry["over"] and not is_resumed and isinstance(span, list) and len(span) == 2:
        end = min(end, started + max(0.0, float(span[1]) - float(span[0])))
    return max(started, end)


def _parse_time(moment: Any) -> float:
    """Return a time as seconds since 1970. Raises ValueError without a time zone or for an implausible year."""
    time = datetime.fromisoformat(moment)
    if time.tzinfo is None:
        raise ValueError("no time zone")
    if not 1990 < time.year < 3000:
        raise ValueError("not a plausible time")
    return time.timestamp()


def _parse_probability(value: Any) -> float:
    number = float(value)
    return min(1.0, max(0.0, number)) if math.isfinite(number) else 0.0


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("no name")
    return intern(escape_surrogates(value)[:MAX_NAME_LENGTH])


def escape_surrogates(value: Any) -> str:
    """Return text that can be encoded as UTF-8: lone surrogates are escaped, and the length is limited."""
    return str(value)[:MAX_ID_LENGTH].encode("utf-8", "backslashreplace").decode()


def _parse_file_name(path: Any) -> str:
    """Return the file name of a path. The page looks in the folder beside the log, not at the path in the log."""
    name = PurePosixPath(path).name if isinstance(path, str) else ""
    return "" if name.startswith(".") or not name.isprintable() else name
