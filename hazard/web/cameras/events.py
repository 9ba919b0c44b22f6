"""Lines of event logs folded into events: the last line of an id says how it stands, earlier ones what it was."""

import math
from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePosixPath
from sys import intern
from typing import Any

from hazard.monitor.events.event_log import Entry

MOST_EVENTS = 100_000
"""Of a site; of more the oldest are forgotten."""
MOST_CAMERAS = 1000
"""Names of cameras that a log may bring; no monitor watches so many."""
MOST_LABELS = 1000
LONGEST_NAME = 200
LONGEST_ID = 1000


@dataclass(frozen=True, slots=True)
class Seen:
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
    def place(self) -> tuple[float, str]:
        """Its place in time."""
        return self.started, self.key


@dataclass
class Folded:
    """The events of one site, and why its cameras went offline; bounded."""

    site: str
    events: dict[str, Seen] = field(default_factory=dict)
    order: list[tuple[float, str]] = field(default_factory=list)
    """The place of each in time, oldest first."""
    cameras: dict[str, Seen | None] = field(default_factory=dict)
    """By name, the newest event."""
    pictured: dict[str, Seen] = field(default_factory=dict)
    """By name, the newest event of which there is a snapshot."""
    labels: set[str] = field(default_factory=set)
    offline: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Since when a camera is offline, and why."""

    def follow(self, entry: Entry) -> bool:
        """What one line changes; False where it changes nothing or is somebody else's."""
        try:
            camera = _text(entry["camera"])
            if camera not in self.cameras and len(self.cameras) >= MOST_CAMERAS:
                return False
            match entry["kind"]:
                case "event":
                    return self._event(camera, entry)
                case "offline":
                    self.offline[camera] = _seconds(entry["since"]), clean(entry.get("reason") or "")[:LONGEST_NAME]
                case "back":
                    self.offline.pop(camera, None)
                case _:
                    return False
            self.cameras.setdefault(camera, None)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):  # somebody else's line
            return False
        return True

    def _event(self, camera: str, entry: Entry) -> bool:
        key = key_of(self.site, clean(entry["id"]))
        held = self.events.get(key)
        event = _seen(self.site, key, camera, entry, held)
        if event == held:
            return False
        self.events[event.key] = event
        if held is None:
            insort(self.order, event.place)
            self._forget()
        newest = self.cameras.get(camera)
        if newest is None or newest.place <= event.place:
            self.cameras[camera] = event
        self._note_picture(event)
        if len(self.labels) < MOST_LABELS:
            self.labels.add(event.label)
        return True

    def _note_picture(self, event: Seen) -> None:
        held = self.pictured.get(event.camera)
        if event.snapshot and (held is None or held.place <= event.place):
            self.pictured[event.camera] = event

    def _forget(self) -> None:
        if len(self.order) > MOST_EVENTS * 1.02:  # not one by one: that would move all others each time
            for _, key in self.order[:-MOST_EVENTS]:
                del self.events[key]
            del self.order[:-MOST_EVENTS]

    def before(self, place: tuple[float, str] | None) -> int:
        """How many events come before a place in time; None: all."""
        return len(self.order) if place is None else bisect_left(self.order, place)


def key_of(site: str, event_id: str) -> str:
    """What an event is called by in addresses: letters and digits, the same after a restart."""
    return sha256(f"{site}\0{event_id}".encode()).hexdigest()[:24]


def as_time(seconds: float) -> str:
    """UTC, as JSON has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seen(site: str, key: str, camera: str, entry: Entry, held: Seen | None) -> Seen:
    """How an event stands. What was told of, or muted, when it began stays so; its beginning and its peak stay too."""
    started = held.started if held else _seconds(entry["started"])
    is_resumed = bool(entry.get("goes_on")) or (held is not None and held.is_resumed)
    until = _until(entry, started, is_resumed=is_resumed)
    event = Seen(
        site=site,
        id=clean(entry["id"]),
        key=key,
        camera=camera,
        label=_text(entry["label"]),
        started=started,
        until=until,
        is_over=bool(entry["over"]),
        is_cut=bool(entry["is_cut"]),
        is_resumed=is_resumed,
        is_muted=bool(entry.get("is_muted")),
        is_alerted=bool(entry.get("is_alerted")),
        probability=_share(entry.get("peak", 0.0)),
        snapshot=_name(entry.get("snapshot")),
        clip=_name(entry.get("clip")),
    )
    return event if held is None else _remembering(held, event)


def _remembering(held: Seen, event: Seen) -> Seen:
    return replace(
        event,
        is_muted=held.is_muted or event.is_muted,
        is_alerted=held.is_alerted or event.is_alerted,
        probability=max(held.probability, event.probability),
        snapshot=event.snapshot or held.snapshot,
        clip=event.clip or held.clip,
    )


def _until(entry: Entry, started: float, *, is_resumed: bool) -> float:
    """An event that is known to be over ended a little earlier than that was known; the camera's own time says when."""
    at, span = _seconds(entry["at"]), entry.get("seconds")
    if entry["over"] and not is_resumed and isinstance(span, list) and len(span) == 2:
        at = min(at, started + max(0.0, float(span[1]) - float(span[0])))
    return max(started, at)


def _seconds(moment: Any) -> float:
    """Raises ValueError for a time without a zone: nobody could say when that was."""
    time = datetime.fromisoformat(moment)
    if time.tzinfo is None:
        raise ValueError("no time zone")
    if not 1990 < time.year < 3000:
        raise ValueError("no time of ours")
    return time.timestamp()


def _share(value: Any) -> float:
    number = float(value)
    return min(1.0, max(0.0, number)) if math.isfinite(number) else 0.0


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("no name")
    return intern(clean(value)[:LONGEST_NAME])


def clean(value: Any) -> str:
    """Text that can be sent: lone surrogates are written out."""
    return str(value)[:LONGEST_ID].encode("utf-8", "backslashreplace").decode()


def _name(path: Any) -> str:
    """The name alone: the folder is where the log lies, wherever the monitor thought that was."""
    name = PurePosixPath(path).name if isinstance(path, str) else ""
    return "" if name.startswith(".") or not name.isprintable() else name
