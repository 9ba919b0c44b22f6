"""features.live.health."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

FIRST_WAIT_SECONDS = 1.0

LONGEST_WAIT_SECONDS = 30.0

STEADY_SECONDS = 10.0
"""A connection whose frames have come for so long was a good one: after it the waits begin anew."""

CameraState = Literal["connecting", "live", "offline", "ended"]

CameraEvent = Literal["frame", "closed", "ended", "tick"]

CameraNews = Literal["offline", "back", "ended"]


@dataclass(frozen=True)
class Health:
    """What is known of a camera; all times by one monotonic clock."""

    last: float
    """When the last frame came, or watching began."""
    state: CameraState = "connecting"
    attempts: int = 0
    """Connections in a row that came to nothing."""
    first: float | None = None
    """When the first frame of this connection came."""


def step(
    health: Health, event: CameraEvent, now: float, *, silence_seconds: float = 20.0
) -> tuple[Health, tuple[CameraNews, ...]]:
    """The health after an event, and what there is to tell of it: `offline` once, and then once that it is `back`.

    `frame` is one that came at `now`, `closed` a connection that ended or never was, `ended` a file that was played to
    its end, `tick` the passing of time.
    """
    if health.state == "ended":
        return health, ()
    if event == "frame":
        return _with_frame(health, now), (("back",) if health.state == "offline" else ())
    if event == "ended":
        return replace(health, state="ended"), ("ended",)
    if event == "closed":
        state: CameraState = "offline" if health.state == "offline" else "connecting"
        health = replace(health, state=state, attempts=health.attempts + 1, first=None)
    if health.state != "offline" and now - health.last > silence_seconds:
        return replace(health, state="offline"), ("offline",)
    return health, ()


def _with_frame(health: Health, now: float) -> Health:
    first = now if health.first is None else health.first
    attempts = 0 if now - first >= STEADY_SECONDS else health.attempts
    return Health(max(now, health.last), "live", attempts, first)


def next_wait(attempt: int, random: Callable[[], float]) -> float:
    """Seconds before the `attempt`-th connection in a row is tried, counted from 1; `random` gives numbers in [0, 1).

    Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015): cameras that a power cut
    ended together do not come back together.
    """
    return random() * min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(attempt - 1, 30))
