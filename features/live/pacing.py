"""What watching a camera goes by, without a clock or a connection: which frames, how late, which state, when again."""

import math
from dataclasses import dataclass, replace

INITIAL_CLOCK_DRIFT = 1e-3
"""Seconds a second by which a camera's clock may run slower than ours, at first, before its frames are called late."""

MAX_LAG_SECONDS = 2.0
"""A stream is behind when its frames come so much later than they should."""

MAX_BEHIND_SECONDS = 10.0
"""Who is behind for so long will never catch up: its clock is what is wrong."""

CLOCK_DRIFT_FACTOR = 20.0
"""A clock that was wrong is trusted so many times less."""

MAX_TIME_JUMP_SECONDS = 10.0
"""A live stream whose time leaps by more, or back by more than a second, begins anew."""

_EPSILON = 1e-9


def next_sample_instant(start: float, fps: float) -> float:
    """The first of the instants (i + 1/2) / fps that does not lie before a frame's start."""
    return (max(0, math.ceil((start - _EPSILON) * fps - 0.5)) + 0.5) / fps


def is_picked(start: float, end: float, fps: float) -> bool:
    """Whether a frame that is on the screen in [start, end) shows one of the instants (i + 1/2) / fps.

    These are the very frames that sampling at a rate takes out of a file.
    """
    return next_sample_instant(start, fps) + _EPSILON < end


@dataclass(frozen=True)
class LagEstimate:
    """How late frames come, compared with the promptest ones so far."""

    drift: float = INITIAL_CLOCK_DRIFT
    origin: float = math.inf
    """The clock when second 0 of the stream would have come, had it come promptly."""
    updated_at: float = -math.inf

    def add_frame(self, seconds: float, now: float) -> "LagEstimate":
        """With one more frame, of the stream's second `seconds`, that came at `now`."""
        allowed = self.origin + self.drift * (now - self.updated_at) if math.isfinite(self.updated_at) else math.inf
        return replace(self, origin=min(now - seconds, allowed), updated_at=now)

    def lag_seconds(self, seconds: float, now: float) -> float:
        """Seconds that this frame is late."""
        return now - seconds - self.origin


@dataclass
class CatchUp:
    """Passes over packets of a stream that has fallen behind, up to a keyframe that has not."""

    lag: LagEstimate = LagEstimate()
    last_seconds: float = -math.inf
    behind_since: float | None = None

    def should_skip(self, seconds: float, now: float, *, is_keyframe: bool) -> bool:
        """Whether a packet of the stream's second `seconds` that came at `now` is passed over."""
        gives_in = self.behind_since is not None and now - self.behind_since > MAX_BEHIND_SECONDS
        if gives_in or seconds < self.last_seconds - 1.0:  # its clock is wrong or was set back: nothing is late
            self.lag, self.behind_since = LagEstimate(self.lag.drift * (CLOCK_DRIFT_FACTOR if gives_in else 1.0)), None
        self.last_seconds = seconds
        self.lag = self.lag.add_frame(seconds, now)
        late = self.lag.lag_seconds(seconds, now)
        if self.behind_since is None and late > MAX_LAG_SECONDS:
            self.behind_since = now
        elif self.behind_since is not None and is_keyframe and late <= MAX_LAG_SECONDS / 2:
            self.behind_since = None
        return self.behind_since is not None
