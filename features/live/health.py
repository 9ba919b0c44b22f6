"""A camera's state as a pure function of events, and the wait before it is connected again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

INITIAL_BACKOFF_SECONDS = 1.0

MAX_BACKOFF_SECONDS = 30.0

STABLE_CONNECTION_SECONDS = 10.0
"""A connection that delivered frames for this long was stable: the next wait is the shortest again."""

CameraState = Literal["connecting", "live", "offline", "ended"]

ConnectionEvent = Literal["frame", "closed", "ended", "tick"]

StatusChangeKind = Literal["offline", "back", "ended"]


@dataclass(frozen=True)
class CameraHealth:
    """The state of a camera. All times are of one monotonic clock."""

    last_frame_at: float
    """Time of the last frame, or of the start if there was none."""
    state: CameraState = "connecting"
    failed_attempts: int = 0
    """Failed connections in a row."""
    first_frame_at: float | None = None
    """Time of the first frame of this connection."""


def update_health(
    health: CameraHealth, event: ConnectionEvent, now: float, *, silence_seconds: float = 20.0
) -> tuple[CameraHealth, tuple[StatusChangeKind, ...]]:
    """Return the health after an event, and the status changes to report: `offline` once, then `back` once.

    `frame` is a frame that arrived at `now`, `closed` a connection that ended or failed, `ended` a file that was played
    to its end, `tick` the passing of time.
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
    """Return the wait before the `attempt`-th connection in a row, counted from 1. `random` returns numbers in [0, 1).

    Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015): cameras that lost power
    together do not reconnect at the same moment.
    """
    return random() * min(MAX_BACKOFF_SECONDS, INITIAL_BACKOFF_SECONDS * 2.0 ** min(attempt - 1, 30))
