"""The tile of one camera in the window: plain data that can be sent to the process that draws it."""

from dataclasses import dataclass
from datetime import datetime

from hazard.types import Event

TIMELINE_SECONDS = 180.0
"""Length of the timeline."""


@dataclass(frozen=True)
class SignalLoss:
    """Why a camera delivers no more frames."""

    kind: str
    """`offline` or `ended`."""
    at: datetime
    """Time at which it was detected."""
    since: datetime | None
    """Time of the last frame; None if unknown."""
    reason: str


@dataclass(frozen=True)
class Tile:
    """One camera as it is shown. Empty text and None are not drawn."""

    name: str
    jpeg: bytes = b""
    """Newest frame as JPEG; empty before the first one."""
    captured_at: datetime | None = None
    """Arrival of that frame."""
    label: str = ""
    probability: float | None = None
    probability_label: str = ""
    """Label to which the probability belongs."""
    threshold: float | None = None
    event_since: datetime | None = None
    """Start of the event in progress; None if there is none."""
    curve: tuple[tuple[float, float, float], ...] = ()
    """(start, end, probability) of each window's core, in seconds of the session."""
    events: tuple[Event, ...] = ()
    end_seconds: float = 0.0
    """End of the timeline, in seconds of the session."""
    signal_loss: SignalLoss | None = None
    has_alerts: bool = True
    """Whether the schedule of the camera covers this moment."""
