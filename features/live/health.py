"""features.live.health."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

INITIAL_BACKOFF_SECONDS = 1.0

MAX_BACKOFF_SECONDS = 30.0

STABLE_CONNECTION_SECONDS = 10.0
"""A connection whose frames have come for so long was a good one: after it the waits begin anew."""

CameraState = Literal["connecting", "live", "offline", "ended"]

ConnectionEvent = Literal["frame", "closed", "ended", "tick"]

StatusChangeKind = Literal["offline", "back", "ended"]


@dataclass(frozen=True)
class CameraHealth:
    """What is known of a camera; all times by one monotonic clock."""

    last_frame_at: float
    """When the last frame came, or watching began."""
    state: CameraState = "connecting"
    failed_attempts: int = 0
    """Connections in a row that came to nothing."""
    first_frame_at: float | None = None
    """When the first frame of this connection came."""


def update_health(
    health: CameraHealth, event: ConnectionEvent, now: float, *, silence_seconds: float = 20.0
) -> tuple[CameraHealth, tuple[StatusChangeKind, ...]]:
    """The health after an event, and what there is to tell of it: `offline` once, and then once that it is `back`.

    `frame` is one that came at `now`, `closed` a connection that ended or never was, `ended` a file that was played to
    its end, `tick` the passing of time.
    """
    if health.state == "ended":
        return health, ()
    if event == "frame":
        return _record_frame(health, now), (("back",) if health.state == "offline" else ())
    if event == "ended":
        return replace(health, state="ended"), ("ended",)
    if event == "closed":
        state: CameraState = "offline" if health.state == "offline" else "connecting"
        health = replace(health, state=state, failed_attempts=health.failed_attempts + 1, first_frame_at=None)
    if health.state != "offline" and now - health.last_frame_at > silence_seconds:
        return replace(health, state="offline"), ("offline",)
    return health, ()


def _record_frame(health: CameraHealth, now: float) -> CameraHealth:
    first = now if health.first_frame_at is None else health.first_frame_at
    attempts = 0 if now - first >= STABLE_CONNECTION_SECONDS else health.failed_attempts
    return CameraHealth(max(now, health.last_frame_at), "live", attempts, first)


def backoff_seconds(attempt: int, random: Callable[[], float]) -> float:
    """Seconds before the `attempt`-th connection in a row is tried, counted from 1; `random` gives numbers in [0, 1).

    Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015): cameras that a power cut
    ended together do not come back together.
    """
    return random() * min(MAX_BACKOFF_SECONDS, INITIAL_BACKOFF_SECONDS * 2.0 ** min(attempt - 1, 30))
