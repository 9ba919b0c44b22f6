"""The rule that turns window probabilities into events. Reports and live monitors use the same one.

A report applies it to a whole recording, a monitor to one window at a time. It has hysteresis, like a Schmitt trigger:
an event begins when the probability reaches `on_threshold` and goes on until it falls below the lower `off_threshold`.
A probability that fluctuates around one threshold is therefore one event, not twenty.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from hazard.types import Event

_ROUNDING_SECONDS = 1e-6
"""Tolerance for comparisons of times: gaps and `merge_seconds` are mostly whole strides, so they often are equal."""
WindowSpan = tuple[float, float]
"""Start and end of a window in seconds."""

_STORED_NAMES = {"on_threshold": "enter", "off_threshold": "leave"}
"""Field → its name in report.json and results.sqlite."""


@dataclass(frozen=True)
class EventRule:
    """When the probability of one label counts as an event. Raises ValueError for impossible thresholds or times."""

    label: str
    column: int
    """Index of the label's probability among the K probabilities of a window."""
    on_threshold: float = 0.5
    """Lowest probability that begins an event."""
    off_threshold: float = 0.4
    """Lowest probability that continues an event; at most `on_threshold`."""
    min_seconds: float = 0.0
    """Minimum length of an event; shorter ones are dropped."""
    merge_seconds: float = 0.0
    """Largest gap between two segments that are still one event."""
    cooldown_seconds: float = 0.0
    """Time after the end of an event in which no other one begins."""

    def __post_init__(self) -> None:
        if not 0 < self.off_threshold <= self.on_threshold <= 1:
            raise ValueError(
                "expected 0 < off_threshold <= on_threshold <= 1, "
                f"got off_threshold {self.off_threshold:g} and on_threshold {self.on_threshold:g}"
            )
        for name in ("min_seconds", "merge_seconds", "cooldown_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"expected {name} of 0 or more, got {getattr(self, name):g}")

    def to_json(self) -> dict[str, Any]:
        """Return the rule as report.json and results.sqlite store it: the thresholds are called `enter` and `leave`."""
        return {_STORED_NAMES.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "EventRule":
        """Return the rule that `to_json` stored."""
        field_names = {stored_name: name for name, stored_name in _STORED_NAMES.items()}
        return cls(**{field_names.get(name, name): value for name, value in stored.items()})


@dataclass(frozen=True)
class EventSegment:
    """An event while it grows: its windows so far, from `start` to `end` in seconds, and their probabilities."""

    start: float
    end: float
    peak: float
    probability_sum: float
    window_count: int

    def add_window(self, span: WindowSpan, probability: float) -> "EventSegment":
        """Return the segment with one more window."""
        return EventSegment(
            min(self.start, span[0]),
            max(self.end, span[1]),
            max(self.peak, probability),
            self.probability_sum + probability,
            self.window_count + 1,
        )


@dataclass(frozen=True)
class EventState:
    """State of a rule between two windows. It holds only numbers, so that a monitor can store it across a restart."""

    segment: EventSegment | None = None
    """Current event, or the last one while it may still go on; None without one."""
    is_active: bool = False
    """Whether the last window was part of `segment`."""
    cooldown_until: float = -math.inf
    last_start: float = -math.inf


INITIAL_STATE = EventState()


def update_state(
    rule: EventRule, state: EventState, span: WindowSpan, probs: Iterable[float]
) -> tuple[EventState, tuple[Event, ...]]:
    """Return the state after one more window, and the event that this window ends, if any.

    `span` is the window in seconds, `probs` (K,) are its probabilities. Windows must come in order of their starts and
    may overlap. Raises ValueError if a window starts before the previous one.
    """
    probability = float(tuple(probs)[rule.column])
    if span[0] < state.last_start or span[1] < span[0]:
        raise ValueError(f"expected windows in the order of their starts, got {span} after {state.last_start:g}")
    state, ended = _close_if_over(rule, replace(state, last_start=span[0]), span[0])
    if state.segment and probability >= (rule.off_threshold if state.is_active else rule.on_threshold):
        return replace(state, segment=state.segment.add_window(span, probability), is_active=True), ended
    if (
        state.segment is None
        and probability >= rule.on_threshold
        and span[0] >= state.cooldown_until - _ROUNDING_SECONDS
    ):
        return replace(state, segment=EventSegment(*span, probability, probability, 1), is_active=True), ended
    return replace(state, is_active=False), ended


def finish_event(rule: EventRule, state: EventState) -> tuple[Event, ...]:
    """Return the event that is still open when the recording ends, if any."""
    return _close_if_over(rule, replace(state, is_active=False), math.inf)[1]


def ongoing_event(rule: EventRule, state: EventState) -> Event | None:
    """Return the event that is going on and has reached `min_seconds`, or None. Alerts are raised for it."""
    return None if state.segment is None else _make_event(rule, state.segment)


def find_events(rule: EventRule, spans: Iterable[WindowSpan], probs: Iterable[Iterable[float]]) -> list[Event]:
    """Return all events of a recording, given its windows in order: spans (B, 2) in seconds, probabilities (B, K)."""
    state = INITIAL_STATE
    events: list[Event] = []
    for span, row in zip(spans, probs, strict=True):
        state, ended = update_state(rule, state, (float(span[0]), float(span[1])), row)
        events += ended
    return [*events, *finish_event(rule, state)]


def _close_if_over(rule: EventRule, state: EventState, now: float) -> tuple[EventState, tuple[Event, ...]]:
    """Close the segment if no window from second `now` on can be part of it any more."""
    segment = state.segment
    if segment is None or now <= segment.end + rule.merge_seconds + _ROUNDING_SECONDS:
        return state, ()
    event = _make_event(rule, segment)
    cooldown_until = state.cooldown_until if event is None else segment.end + rule.cooldown_seconds
    return replace(state, segment=None, is_active=False, cooldown_until=cooldown_until), (
        () if event is None else (event,)
    )


def _make_event(rule: EventRule, segment: EventSegment) -> Event | None:
    if segment.end - segment.start < rule.min_seconds - _ROUNDING_SECONDS:
        return None
    return Event(rule.label, segment.start, segment.end, segment.peak, segment.probability_sum / segment.window_count)
