"""What a screen shows of each camera: plain facts, ready to be drawn, that any process can read."""

from dataclasses import dataclass
from datetime import datetime

from hazard.types import Event

TIMELINE_SECONDS = 180.0
"""What the timeline looks back on."""


@dataclass(frozen=True)
class SignalLoss:
    """Why no more pictures come."""

    kind: str
    """`offline` or `ended`."""
    at: datetime
    """When that was noticed."""
    since: datetime | None
    """None: nobody knows."""
    reason: str


@dataclass(frozen=True)
class Tile:
    """One camera as it is shown. Empty text and None leave their place free."""

    name: str
    jpeg: bytes = b""
    """Its newest picture; empty before the first one."""
    captured_at: datetime | None = None
    """When that came."""
    label: str = ""
    probability: float | None = None
    probability_label: str = ""
    """The label that the probability is of."""
    threshold: float | None = None
    event_since: datetime | None = None
    """Since when an event is on; None: none is."""
    curve: tuple[tuple[float, float, float], ...] = ()
    """Start and end second of each window's core, and its probability."""
    events: tuple[Event, ...] = ()
    end_seconds: float = 0.0
    """Where the timeline ends, in the seconds of `curve`."""
    signal_loss: SignalLoss | None = None
    has_alerts: bool = True
    """Whether its schedule has it watched now."""
