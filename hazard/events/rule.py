"""Probabilities of windows → events, by one rule. Reports fold it over a recording, monitors step it as windows come.

Hysteresis as in a Schmitt trigger: an event begins where the probability reaches `enter` and goes on until it falls
below the lower `leave`, so that a probability that trembles about one threshold is one event and not twenty.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hazard.types import Event

_ROUNDING_SECONDS = 1e-6
"""Gaps are mostly whole strides, and so is what is merged: the last digit must not decide."""
Span = tuple[float, float]
"""Seconds of a window, start and end."""


@dataclass(frozen=True)
class EventRule:
    """When the probability of one label is an event. Raises ValueError for thresholds and times that make no rule."""

    label: str
    column: int
    """Where the label's probability stands."""
    enter: float = 0.5
    """An event begins where the probability is no less."""
    leave: float = 0.4
    """It goes on where the probability is no less; at most `enter`."""
    min_seconds: float = 0.0
    """Shorter events are dropped."""
    merge_seconds: float = 0.0
    """Stretches that are no further apart are one event."""
    cooldown_seconds: float = 0.0
    """After the end of an event none begins for so long."""

    def __post_init__(self) -> None:
        if not 0 < self.leave <= self.enter <= 1:
            raise ValueError(f"expected 0 < leave <= enter <= 1, got leave {self.leave:g} and enter {self.enter:g}")
        for name in ("min_seconds", "merge_seconds", "cooldown_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"expected {name} of 0 or more, got {getattr(self, name):g}")


@dataclass(frozen=True)
class Stretch:
    """What an event is made of while it grows: windows from `start` to `end` with these probabilities."""

    start: float
    end: float
    peak: float
    total: float
    windows: int

    def with_window(self, span: Span, probability: float) -> "Stretch":
        """One window more."""
        return Stretch(
            min(self.start, span[0]),
            max(self.end, span[1]),
            max(self.peak, probability),
            self.total + probability,
            self.windows + 1,
        )


@dataclass(frozen=True)
class EventState:
    """All that the rule remembers: numbers alone, so that a monitor can keep it across a restart."""

    stretch: Stretch | None = None
    """What has been an event since its start, or was until a moment ago and may go on."""
    inside: bool = False
    """Whether the last window was part of it."""
    quiet_until: float = -math.inf
    last_start: float = -math.inf


NOTHING = EventState()


def step(
    rule: EventRule, state: EventState, span: Span, probs: Iterable[float]
) -> tuple[EventState, tuple[Event, ...]]:
    """The state after one more window, and the event that it ends, if it ends one.

    `probs` (K,) are its probabilities. Windows come in the order of their starts and may overlap. Raises ValueError for
    one that starts before the last.
    """
    probability = float(tuple(probs)[rule.column])
    if span[0] < state.last_start or span[1] < span[0]:
        raise ValueError(f"expected windows in the order of their starts, got {span} after {state.last_start:g}")
    state, ended = _close_if_over(rule, replace(state, last_start=span[0]), span[0])
    if state.stretch and probability >= (rule.leave if state.inside else rule.enter):
        return replace(state, stretch=state.stretch.with_window(span, probability), inside=True), ended
    if state.stretch is None and probability >= rule.enter and span[0] >= state.quiet_until - _ROUNDING_SECONDS:
        return replace(state, stretch=Stretch(*span, probability, probability, 1), inside=True), ended
    return replace(state, inside=False), ended


def finish(rule: EventRule, state: EventState) -> tuple[Event, ...]:
    """The event that the end of the recording ends, if any."""
    return _close_if_over(rule, replace(state, inside=False), math.inf)[1]


def under_way(rule: EventRule, state: EventState) -> Event | None:
    """The event that has not ended yet and is long enough to be one: what an alert is raised for."""
    return None if state.stretch is None else _event(rule, state.stretch)


def find_events(rule: EventRule, spans: Iterable[Span], probs: Iterable[Iterable[float]]) -> list[Event]:
    """All events of a recording, its windows' spans (B, 2) and probabilities (B, K) in order."""
    state = NOTHING
    events: list[Event] = []
    for span, row in zip(spans, probs, strict=True):
        state, ended = step(rule, state, (float(span[0]), float(span[1])), row)
        events += ended
    return [*events, *finish(rule, state)]


def _close_if_over(rule: EventRule, state: EventState, now: float) -> tuple[EventState, tuple[Event, ...]]:
    """Ends a stretch that no window from `now` on can be part of any more."""
    stretch = state.stretch
    if stretch is None or now <= stretch.end + rule.merge_seconds + _ROUNDING_SECONDS:
        return state, ()
    event = _event(rule, stretch)
    quiet = state.quiet_until if event is None else stretch.end + rule.cooldown_seconds
    return replace(state, stretch=None, inside=False, quiet_until=quiet), (() if event is None else (event,))


def _event(rule: EventRule, stretch: Stretch) -> Event | None:
    if stretch.end - stretch.start < rule.min_seconds - _ROUNDING_SECONDS:
        return None
    return Event(rule.label, stretch.start, stretch.end, stretch.peak, stretch.total / stretch.windows)
