"""Rules of timing, free of clocks and connections: which frames are picked and which packets are skipped when late."""

import math
from dataclasses import dataclass, replace

INITIAL_CLOCK_DRIFT = 1e-3
"""Initial tolerance, in seconds per second, for a camera clock that runs slower than ours."""

MAX_LAG_SECONDS = 2.0
"""A stream is behind if its frames are more than this late."""

MAX_BEHIND_SECONDS = 10.0
"""A stream that stays behind for longer than this has a wrong clock: it will never catch up."""

CLOCK_DRIFT_FACTOR = 20.0
"""Factor by which the tolerance grows when a clock turns out to be wrong."""

MAX_TIME_JUMP_SECONDS = 10.0
"""A live stream whose time jumps forward by more than this, or back by more than 1 s, starts a new session."""

_EPSILON = 1e-9


def next_sample_instant(start: float, fps: float) -> float:
    """Return the first of the instants (i + 1/2) / fps, in seconds, at or after a frame's start."""
    return (max(0, math.ceil((start - _EPSILON) * fps - 0.5)) + 0.5) / fps


def is_picked(start: float, end: float, fps: float) -> bool:
    """Check if a frame that is on screen in [start, end) seconds covers one of the instants (i + 1/2) / fps.

    These are exactly the frames that sampling at a rate picks from a file.
    """
    return next_sample_instant(start, fps) + _EPSILON < end


@dataclass(frozen=True)
class LagEstimate:
    """Estimates how late frames are, compared with the most punctual ones so far."""

    drift: float = INITIAL_CLOCK_DRIFT
    origin: float = math.inf
    """Clock time at which second 0 of the stream would have arrived without delay."""
    updated_at: float = -math.inf

    def add_frame(self, seconds: float, now: float) -> "LagEstimate":
        """Return the estimate updated with a frame of stream time `seconds` that arrived at `now`."""
        latest_origin = (
            self.origin + self.drift * (now - self.updated_at) if math.isfinite(self.updated_at) else math.inf
        )
        return replace(self, origin=min(now - seconds, latest_origin), updated_at=now)

    def lag_seconds(self, seconds: float, now: float) -> float:
        """Return how many seconds late the frame of stream time `seconds` is if it arrives at `now`."""
        return now - seconds - self.origin


@dataclass
class CatchUp:
    """Skips packets of a stream that has fallen behind, up to a keyframe that is on time."""

    lag: LagEstimate = LagEstimate()
    last_seconds: float = -math.inf
    behind_since: float | None = None

    def should_skip(self, seconds: float, now: float, *, is_keyframe: bool) -> bool:
        """Decide if a packet of stream time `seconds` that arrived at `now` is skipped without decoding."""
        is_clock_wrong = self.behind_since is not None and now - self.behind_since > MAX_BEHIND_SECONDS
        if is_clock_wrong or seconds < self.last_seconds - 1.0:  # the clock is wrong or was set back: start over
            drift = self.lag.drift * (CLOCK_DRIFT_FACTOR if is_clock_wrong else 1.0)
            self.lag, self.behind_since = LagEstimate(drift), None
        self.last_seconds = seconds
        self.lag = self.lag.add_frame(seconds, now)
        lag_seconds = self.lag.lag_seconds(seconds, now)
        if self.behind_since is None and lag_seconds > MAX_LAG_SECONDS:
            self.behind_since = now
        elif self.behind_since is not None and is_keyframe and lag_seconds <= MAX_LAG_SECONDS / 2:
            self.behind_since = None
        return self.behind_since is not None
