"""What people are told: one alert, as data for programs and as text for people."""

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
    """Something that people must know. Raises ValueError for what is none.

    The same alert always has the same id, made by the caller of what it is about (camera, kind, start): put twice, it
    is sent once.
    """

    id: str
    kind: AlertKind
    camera: str
    label: str
    started: datetime  # UTC
    ended: datetime | None
    """None where it goes on."""
    probability: float
    snapshot: Path | None
    clip: Path | None

    def __post_init__(self) -> None:
        if not 0 < len(self.id) <= MAX_ID_LENGTH:
            raise ValueError(f"expected an id of 1 to {MAX_ID_LENGTH} characters, got {len(self.id)}")
        if self.kind not in ALERT_KINDS:
            raise ValueError(f"expected a kind of {', '.join(ALERT_KINDS)}, got '{self.kind}'")
        for moment in (self.started, self.ended):
            if moment is not None and moment.utcoffset() is None:
                raise ValueError(f"expected times with a time zone, got {moment.isoformat()}")
        if not 0 <= self.probability <= 1 or math.isnan(self.probability):
            raise ValueError(f"expected a probability from 0 to 1, got {self.probability}")


def as_json(alert: Alert) -> dict[str, Any]:
    """The alert as JSON has it: times in UTC (RFC 3339), paths as text, null where there is none."""
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


def from_json(values: Mapping[str, Any]) -> Alert:
    """The alert that `as_json` wrote."""
    times = {name: values[name] and datetime.fromisoformat(values[name]) for name in ("started", "ended")}
    paths = {name: values[name] and Path(values[name]) for name in ("snapshot", "clip")}
    return Alert(**{**values, **times, **paths})


def dump_alert(alert: Alert) -> str:
    """The alert as one line of JSON."""
    return json.dumps(as_json(alert))


def parse_alert(text: str) -> Alert:
    """The alert of one line of JSON."""
    return from_json(json.loads(text))


def format_alert(alert: Alert) -> tuple[str, str]:
    """Title and body, for people to read."""
    when = f"{alert.started.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if alert.kind == "event":
        lasted = f", {(alert.ended - alert.started).total_seconds():.0f} s" if alert.ended else ""
        title, said = f"{alert.label} at {alert.camera}", f"{when}{lasted}, probability {alert.probability:.0%}"
    else:
        title, said = {
            "offline": (f"{alert.camera} is offline", f"no pictures since {when}"),
            "back": (f"{alert.camera} is back", f"pictures again since {when}"),
            "test": (f"test alert of {alert.camera}", f"sent {when}; nothing happened"),
        }[alert.kind]
    return title, "\n".join([said, *([f"clip: {alert.clip}"] if alert.clip else [])])


def _format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
