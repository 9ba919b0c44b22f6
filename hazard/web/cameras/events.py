"""Lines of event logs folded into events: the last line of an id says how it stands, earlier ones what it was."""

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
"""Of a site; of more the oldest are forgotten."""
MAX_CAMERAS = 1000
"""Names of cameras that a log may bring; no monitor watches so many."""
MAX_LABELS = 1000
MAX_NAME_LENGTH = 200
MAX_ID_LENGTH = 1000


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event that a camera saw. All times are seconds since 1970."""

    site: str
    id: str
    key: str
    """What addresses call it by."""
    camera: str
    label: str
    started: float
    until: float
    """When it was over, or when it was last heard of."""
    is_over: bool
    is_cut: bool
    """It was lost sight of."""
    is_resumed: bool
    """It was lost sight of and seen again."""
    is_muted: bool
    is_alerted: bool
    probability: float
    """The highest."""
    snapshot: str
    """The name of a file in the folder of snapshots; empty: none was made."""
    clip: str

    @property
    def position(self) -> tuple[float, str]:
        """Its place in time."""
        return self.started, self.key


@dataclass
class EventIndex:
    """The events of one site, and why its cameras went offline; bounded."""

    site: str
    events: dict[str, RecordedEvent] = field(default_factory=dict)
    positions: list[tuple[float, str]] = field(default_factory=list)
    """The place of each in time, oldest first."""
    newest_by_camera: dict[str, RecordedEvent | None] = field(default_factory=dict)
    """By name, the newest event."""
    newest_snapshot_by_camera: dict[str, RecordedEvent] = field(default_factory=dict)
    """By name, the newest event of which there is a snapshot."""
    labels: set[str] = field(default_factory=set)
    offline_by_camera: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Since when a camera is offline, and why."""

    def add_entry(self, entry: LogEntry) -> bool:
        """What one line changes; False where it changes nothing or is somebody else's."""
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
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):  # somebody else's line
            return False
        return True

    def _add_event(self, camera: str, entry: LogEntry) -> bool:
        key = event_key(self.site, escape_surrogates(entry["id"]))
        held = self.events.get(key)
        event = _make_event(self.site, key, camera, entry, held)
        if event == held:
            return False
        self.events[event.key] = event
        if held is None:
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
        held = self.newest_snapshot_by_camera.get(event.camera)
        if event.snapshot and (held is None or held.position <= event.position):
            self.newest_snapshot_by_camera[event.camera] = event

    def _drop_oldest(self) -> None:
        if len(self.positions) > MAX_EVENTS * 1.02:  # not one by one: that would move all others each time
            for _, key in self.positions[:-MAX_EVENTS]:
                del self.events[key]
            del self.positions[:-MAX_EVENTS]

    def count_before(self, position: tuple[float, str] | None) -> int:
        """How many events come before a place in time; None: all."""
        return len(self.positions) if position is None else bisect_left(self.positions, position)


def event_key(site: str, event_id: str) -> str:
    """What an event is called by in addresses: letters and digits, the same after a restart."""
    return sha256(f"{site}\0{event_id}".encode()).hexdigest()[:24]


def format_time(seconds: float) -> str:
    """UTC, as JSON has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _make_event(site: str, key: str, camera: str, entry: LogEntry, previous: RecordedEvent | None) -> RecordedEvent:
    """How an event stands. What was told of, or muted, when it began stays so; its beginning and its peak stay too."""
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
    """An event that is known to be over ended a little earlier than that was known; the camera's own time says when."""
    at, span = _parse_time(entry["at"]), entry.get("seconds")
    if entry["over"] and not is_resumed and isinstance(span, list) and len(span) == 2:
        at = min(at, started + max(0.0, float(span[1]) - float(span[0])))
    return max(started, at)


def _parse_time(moment: Any) -> float:
    """Raises ValueError for a time without a zone: nobody could say when that was."""
    time = datetime.fromisoformat(moment)
    if time.tzinfo is None:
        raise ValueError("no time zone")
    if not 1990 < time.year < 3000:
        raise ValueError("no time of ours")
    return time.timestamp()


def _parse_probability(value: Any) -> float:
    number = float(value)
    return min(1.0, max(0.0, number)) if math.isfinite(number) else 0.0


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("no name")
    return intern(escape_surrogates(value)[:MAX_NAME_LENGTH])


def escape_surrogates(value: Any) -> str:
    """Text that can be sent: lone surrogates are written out."""
    return str(value)[:MAX_ID_LENGTH].encode("utf-8", "backslashreplace").decode()


def _parse_file_name(path: Any) -> str:
    """The name alone: the folder is where the log lies, wherever the monitor thought that was."""
    name = PurePosixPath(path).name if isinstance(path, str) else ""
    return "" if name.startswith(".") or not name.isprintable() else name
