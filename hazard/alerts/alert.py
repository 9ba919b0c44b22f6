"""One alert: the data class, its JSON form for programs and its text for people."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

AlertKind = Literal["event", "offline", "back", "test"]
ALERT_KINDS: tuple[str, ...] = get_args(AlertKind)
MAX_ID_LENGTH = 1000


@dataclass(frozen=True)
class Alert:
    """A message about one camera. Raises ValueError if a field is not valid.

    The caller builds the id from the alert's subject (camera, kind, start), so that the same alert always has the same
    id. An alert that is put into the outbox twice is therefore sent once.
    """

    id: str
    kind: AlertKind
    camera: str
    label: str
    started: datetime  # UTC
    ended: datetime | None
    """None while the event is in progress."""
    probability: float
    snapshot: Path | None
    clip: Path | None

    def __post_init__(self) -> None:
        if not 0 < len(self.id) <= MAX_ID_LENGTH:
            raise ValueError(f"expected an id of 1 to {MAX_ID_LENGTH} characters, got {len(self.id)}")
        if self.kind not in ALERT_KINDS:
            raise ValueError(f"expected one of the kinds {', '.join(ALERT_KINDS)}, got '{self.kind}'")
        for time in (self.started, self.ended):
            if time is not None and time.utcoffset() is None:
                raise ValueError(f"expected times with a time zone, got {time.isoformat()}")
        if not 0 <= self.probability <= 1 or math.isnan(self.probability):
            raise ValueError(f"expected a probability from 0 to 1, got {self.probability}")


def alert_to_json(alert: Alert) -> dict[str, Any]:
    """Return the alert as a JSON object: times in UTC (RFC 3339), paths as text, null for a missing value."""
    return {
        "id": alert.id,
        "kind": alert.kind,
        "camera": alert.camera,
        "label": alert.label,
        "started": _format_time(alert.started),
        "ended": alert.ended and _format_time(alert.ended),
        "probability": round(alert.probability, 6),
        "snapshot": alert.snapshot and str(alert.snapshot),
        "clip": alert.clip and str(alert.clip),
    }


def alert_from_json(values: Mapping[str, Any]) -> Alert:
    """Return the alert that `alert_to_json` wrote."""
    times = {name: values[name] and datetime.fromisoformat(values[name]) for name in ("started", "ended")}
    paths = {name: values[name] and Path(values[name]) for name in ("snapshot", "clip")}
    return Alert(**{**values, **times, **paths})


def dump_alert(alert: Alert) -> str:
    """Return the alert as one line of JSON."""
    return json.dumps(alert_to_json(alert))


def parse_alert(text: str) -> Alert:
    """Return the alert that one line of JSON holds."""
    return alert_from_json(json.loads(text))


def format_alert(alert: Alert) -> tuple[str, str]:
    """Return the title and the body of the message that people read."""
    started = f"{alert.started.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if alert.kind == "event":
        duration = f", {(alert.ended - alert.started).total_seconds():.0f} s" if alert.ended else ""
        title, text = f"{alert.label} at {alert.camera}", f"{started}{duration}, probability {alert.probability:.0%}"
    else:
        title, text = {
            "offline": (f"{alert.camera} is offline", f"no frames since {started}"),
            "back": (f"{alert.camera} is back", f"frames again since {started}"),
            "test": (f"test alert of {alert.camera}", f"sent {started}; nothing happened"),
        }[alert.kind]
    return title, "\n".join([text, *([f"clip: {alert.clip}"] if alert.clip else [])])


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
