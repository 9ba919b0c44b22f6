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
WindowSpan = tuple[float, float]
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
class EventSegment:
    """What an event is made of while it grows: windows from `start` to `end` with these probabilities."""

    start: float
    end: float
    peak: float
    probability_sum: float
    window_count: int

    def add_window(self, span: WindowSpan, probability: float) -> "EventSegment":
        """One window more."""
        return EventSegment(
            min(self.start, span[0]),
            max(self.end, span[1]),
            max(self.peak, probability),
            self.probability_sum + probability,
            self.window_count + 1,
        )


@dataclass(frozen=True)
class EventState:
    """All that the rule remembers: numbers alone, so that a monitor can keep it across a restart."""

    segment: EventSegment | None = None
    """What has been an event since its start, or was until a moment ago and may go on."""
    is_active: bool = False
    """Whether the last window was part of it."""
    cooldown_until: float = -math.inf
    last_start: float = -math.inf


INITIAL_STATE = EventState()


def update_state(
    rule: EventRule, state: EventState, span: WindowSpan, probs: Iterable[float]
) -> tuple[EventState, tuple[Event, ...]]:
    """The state after one more window, and the event that it ends, if it ends one.

    `probs` (K,) are its probabilities. Windows come in the order of their starts and may overlap. Raises ValueError for
    one that starts before the last.
    """
    probability = float(tuple(probs)[rule.column])
    if span[0] < state.last_start or span[1] < span[0]:
        raise ValueError(f"expected windows in the order of their starts, got {span} after {state.last_start:g}")
    state, ended = _close_if_over(rule, replace(state, last_start=span[0]), span[0])
    if state.segment and probability >= (rule.leave if state.is_active else rule.enter):
        return replace(state, segment=state.segment.add_window(span, probability), is_active=True), ended
    if state.segment is None and probability >= rule.enter and span[0] >= state.cooldown_until - _ROUNDING_SECONDS:
        return replace(state, segment=EventSegment(*span, probability, probability, 1), is_active=True), ended
    return replace(state, is_active=False), ended


def finish_event(rule: EventRule, state: EventState) -> tuple[Event, ...]:
    """The event that the end of the recording ends, if any."""
    return _close_if_over(rule, replace(state, is_active=False), math.inf)[1]


def ongoing_event(rule: EventRule, state: EventState) -> Event | None:
    """The event that has not ended yet and is long enough to be one: what an alert is raised for."""
    return None if state.segment is None else _make_event(rule, state.segment)


def find_events(rule: EventRule, spans: Iterable[WindowSpan], probs: Iterable[Iterable[float]]) -> list[Event]:
    """All events of a recording, its windows' spans (B, 2) and probabilities (B, K) in order."""
    state = INITIAL_STATE
    events: list[Event] = []
    for span, row in zip(spans, probs, strict=True):
        state, ended = update_state(rule, state, (float(span[0]), float(span[1])), row)
        events += ended
    return [*events, *finish_event(rule, state)]


def _close_if_over(rule: EventRule, state: EventState, now: float) -> tuple[EventState, tuple[Event, ...]]:
    """Ends a stretch that no window from `now` on can be part of any more."""
    stretch = state.segment
    if stretch is None or now <= stretch.end + rule.merge_seconds + _ROUNDING_SECONDS:
        return state, ()
    event = _make_event(rule, stretch)
    quiet = state.cooldown_until if event is None else stretch.end + rule.cooldown_seconds
    return replace(state, segment=None, is_active=False, cooldown_until=quiet), (() if event is None else (event,))


def _make_event(rule: EventRule, segment: EventSegment) -> Event | None:
    if segment.end - segment.start < rule.min_seconds - _ROUNDING_SECONDS:
        return None
    return Event(rule.label, segment.start, segment.end, segment.peak, segment.probability_sum / segment.window_count)
