"""How things stand in front of cameras: which events go on, which cameras are offline. Known again after a restart."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hazard.monitor.events.event_log import LogEntry


@dataclass
class OpenEvent:
    """An event that was written down and, as far as anybody knows, is not over."""

    id: str
    started: datetime
    until: datetime
    """When it was last seen."""
    files: dict[str, str | None] = field(default_factory=dict)
    """Its snapshot and its clip."""
    is_cut: bool = False
    """The sight of it was lost: a restart, or the camera was gone."""

    def is_resumed(self, start: datetime, *, within_seconds: float) -> bool:
        """Whether what is seen again from the first moment on, from `start`, is this event."""
        return self.is_cut and start <= self.until + timedelta(seconds=within_seconds)


@dataclass
class MonitorState:
    """Events by camera and label, and since when cameras are offline (ISO 8601)."""

    open_events: dict[tuple[str, str], OpenEvent] = field(default_factory=dict)
    offline_since: dict[str, str] = field(default_factory=dict)

    def apply_entry(self, entry: LogEntry) -> None:
        """What an entry of the log changes; the same again changes nothing."""
        camera = entry["camera"]
        if entry["kind"] == "offline":
            self.offline_since[camera] = entry["since"]
        elif entry["kind"] == "back":
            self.offline_since.pop(camera, None)
        elif entry["kind"] == "event":
            self._apply_event((camera, entry["label"]), entry)

    def _apply_event(self, key: tuple[str, str], entry: LogEntry) -> None:
        if entry["over"] and not entry["is_cut"]:
            self.open_events.pop(key, None)
            return
        files = {name: entry.get(name) for name in ("snapshot", "clip")}
        started, at = (datetime.fromisoformat(entry[name]) for name in ("started", "at"))
        held = self.open_events.get(key)
        until = max(at, held.until) if held and held.id == entry["id"] else at
        self.open_events[key] = OpenEvent(entry["id"], started, until, files, is_cut=entry["is_cut"])


def dump_state(state: MonitorState) -> bytes:
    """As a file has it."""
    events = [
        {"camera": camera, "label": label, **vars(told), "started": str(told.started), "until": str(told.until)}
        for (camera, label), told in state.open_events.items()
    ]
    return json.dumps({"open": events, "offline": state.offline_since}, indent=1).encode()


def load_state(content: bytes, entries: Iterable[LogEntry]) -> MonitorState:
    """What a file and the end of the log say together: the log is the newer one, but does not reach back for ever."""
    standing = _parse_state(content)
    for entry in entries:
        try:
            standing.apply_entry(entry)
        except (KeyError, TypeError, ValueError):  # somebody else's line
            continue
    return standing


def _parse_state(content: bytes) -> MonitorState:
    try:
        tree: Mapping[str, Any] = json.loads(content)
        events = {(one["camera"], one["label"]): _parse_open_event(one) for one in tree["open"]}
        return MonitorState(events, {str(camera): str(since) for camera, since in tree["offline"].items()})
    except (KeyError, TypeError, ValueError, AttributeError):
        return MonitorState()


def _parse_open_event(values: Mapping[str, Any]) -> OpenEvent:
    started, until = (datetime.fromisoformat(values[name]) for name in ("started", "until"))
    return OpenEvent(values["id"], started, until, dict(values["files"]), bool(values["is_cut"]))
