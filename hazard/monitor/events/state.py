"""The state of a monitor that survives a restart: open events and offline cameras."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hazard.monitor.events.event_log import LogEntry

EventKey = tuple[str, str]
"""Camera and label."""


@dataclass
class OpenEvent:
    """A logged event whose end has not been seen."""

    id: str
    started: datetime
    last_seen: datetime
    """Time at which it was last in progress."""
    files: dict[str, str | None] = field(default_factory=dict)
    """Paths of its snapshot and its clip, by `snapshot` and `clip`."""
    is_cut: bool = False
    """Whether a restart or a lost connection interrupted it."""

    def is_resumed(self, start: datetime, *, within_seconds: float) -> bool:
        """Check whether an event seen from the start of a session, from `start` on, continues this interrupted one."""
        return self.is_cut and start <= self.last_seen + timedelta(seconds=within_seconds)


@dataclass
class MonitorState:
    """The open events, and the times since when cameras are offline (ISO 8601)."""

    open_events: dict[EventKey, OpenEvent] = field(default_factory=dict)
    offline_since: dict[str, str] = field(default_factory=dict)

    def apply_entry(self, entry: LogEntry) -> None:
        """Update the state with an entry of the log. A repeated entry changes nothing."""
        camera = entry["camera"]
        if entry["kind"] == "offline":
            self.offline_since[camera] = entry["since"]
        elif entry["kind"] == "back":
            self.offline_since.pop(camera, None)
        elif entry["kind"] == "event":
            self._apply_event((camera, entry["label"]), entry)

    def _apply_event(self, key: EventKey, entry: LogEntry) -> None:
        if entry["over"] and not entry["is_cut"]:
            self.open_events.pop(key, None)
            return
        files = {name: entry.get(name) for name in ("snapshot", "clip")}
        started, at = (datetime.fromisoformat(entry[name]) for name in ("started", "at"))
        known = self.open_events.get(key)
        last_seen = max(at, known.last_seen) if known and known.id == entry["id"] else at
        self.open_events[key] = OpenEvent(entry["id"], started, last_seen, files, is_cut=entry["is_cut"])


def dump_state(state: MonitorState) -> bytes:
    """Return the content of the state file, as JSON."""
    events = [
        {
            "camera": camera,
            "label": label,
            "id": event.id,
            "started": str(event.started),
            "until": str(event.last_seen),
            "files": event.files,
            "is_cut": event.is_cut,
        }
        for (camera, label), event in state.open_events.items()
    ]
    return json.dumps({"open": events, "offline": state.offline_since}, indent=1).encode()


def load_state(content: bytes, entries: Iterable[LogEntry]) -> MonitorState:
    """Return the state that the state file and the last entries of the log give together.

    The log is newer than the file, but its last entries do not reach back to the beginning.
    """
    state = _parse_state(content)
    for entry in entries:
        try:
            state.apply_entry(entry)
        except (KeyError, TypeError, ValueError):  # an entry of another program
            continue
    return state


def _parse_state(content: bytes) -> MonitorState:
    try:
        tree: Mapping[str, Any] = json.loads(content)
        events = {(event["camera"], event["label"]): _parse_open_event(event) for event in tree["open"]}
        return MonitorState(events, {str(camera): str(since) for camera, since in tree["offline"].items()})
    except (KeyError, TypeError, ValueError, AttributeError):
        return MonitorState()


def _parse_open_event(values: Mapping[str, Any]) -> OpenEvent:
    started, last_seen = (datetime.fromisoformat(values[name]) for name in ("started", "until"))
    return OpenEvent(values["id"], started, last_seen, dict(values["files"]), bool(values["is_cut"]))
