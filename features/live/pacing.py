"""What watching a camera goes by, without a clock or a connection: which frames, how late, which state, when again."""

import math
from dataclasses import dataclass, replace

CREEP = 1e-3
"""Seconds a second by which a camera's clock may run slower than ours, at first, before its frames are called late."""

MOST_LAG_SECONDS = 2.0
"""A stream is behind when its frames come so much later than they should."""

GIVE_IN_SECONDS = 10.0
"""Who is behind for so long will never catch up: its clock is what is wrong."""

MORE_CREEP = 20.0
"""A clock that was wrong is trusted so many times less."""

JUMP_SECONDS = 10.0
"""A live stream whose time leaps by more, or back by more than a second, begins anew."""

_EPSILON = 1e-9


def instant(start: float, fps: float) -> float:
    """The first of the instants (i + 1/2) / fps that does not lie before a frame's start."""
    return (max(0, math.ceil((start - _EPSILON) * fps - 0.5)) + 0.5) / fps


def is_picked(start: float, end: float, fps: float) -> bool:
    """Whether a frame that is on the screen in [start, end) shows one of the instants (i + 1/2) / fps.

    These are the very frames that sampling at a rate takes out of a file.
    """
    return instant(start, fps) + _EPSILON < end


@dataclass(frozen=True)
class Lag:
    """How late frames come, compared with the promptest ones so far."""

    creep: float = CREEP
    origin: float = math.inf
    """The clock when second 0 of the stream would have come, had it come promptly."""
    at: float = -math.inf

    def after(self, seconds: float, now: float) -> "Lag":
        """With one more frame, of the stream's second `seconds`, that came at `now`."""
        allowed = self.origin + self.creep * (now - self.at) if math.isfinite(self.at) else math.inf
        return replace(self, origin=min(now - seconds, allowed), at=now)

    def of(self, seconds: float, now: float) -> float:
        """Seconds that this frame is late."""
        return now - seconds - self.origin


@dataclass
class CatchUp:
    """Passes over packets of a stream that has fallen behind, up to a keyframe that has not."""

    lag: Lag = Lag()
    last: float = -math.inf
    behind_since: float | None = None

    def skips(self, seconds: float, now: float, *, is_keyframe: bool) -> bool:
        """Whether a packet of the stream's second `seconds` that came at `now` is passed over."""
        gives_in = self.behind_since is not None and now - self.behind_since > GIVE_IN_SECONDS
        if gives_in or seconds < self.last - 1.0:  # its clock is wrong or was set back: nothing is late
            self.lag, self.behind_since = Lag(self.lag.creep * (MORE_CREEP if gives_in else 1.0)), None
        self.last = seconds
        self.lag = self.lag.after(seconds, now)
        late = self.lag.of(seconds, now)
        if self.behind_since is None and late > MOST_LAG_SECONDS:
            self.behind_since = now
        elif self.behind_since is not None and is_keyframe and late <= MOST_LAG_SECONDS / 2:
            self.behind_since = None
        return self.behind_since is not None
