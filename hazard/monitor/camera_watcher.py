"""The per-camera event detector: frames become windows, windows become events, one step at a time."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hazard.events.decision import Decision
from hazard.events.rule import INITIAL_STATE, EventState, finish_event, ongoing_event, update_state
from hazard.monitor.live_windows import LiveWindow, WindowBuffer, WindowGrid
from hazard.types import Event

MAX_RECENT_WINDOWS = 240
"""Number of windows of a camera that are kept for the display."""


@dataclass(frozen=True)
class EventChange:
    """The beginning or the end of an event."""

    is_over: bool
    event: Event
    is_cut: bool = False
    """Whether only the camera's session ended. The event itself may still be in progress."""
    is_from_session_start: bool = False
    """Whether the session began in the midst of the event, so that the event may have begun long before."""


class WindowPrediction(NamedTuple):
    """Core and probabilities of one window."""

    core: tuple[float, float]
    probs: tuple[float, ...]  # (K,)


@dataclass
class CameraWatcher:
    """One camera: its window buffer, and the state of the event rules in its session."""

    decision: Decision
    grid: WindowGrid
    session: int = -1
    window_buffer: WindowBuffer = field(init=False)
    states: list[EventState] = field(init=False)
    announced_starts: dict[str, float] = field(default_factory=dict)
    """Start of the last reported event, by label, in seconds of the session."""
    labels_below: set[str] = field(default_factory=set)
    """Labels whose probability was below `off_threshold` in at least one window of this session."""
    recent_windows: deque[WindowPrediction] = field(default_factory=lambda: deque(maxlen=MAX_RECENT_WINDOWS))
    """Last windows of the session, for the display."""

    def __post_init__(self) -> None:
        self.begin_session(self.session)

    def begin_session(self, session: int) -> list[EventChange]:
        """Reset the state for a new session, whose times start at 0. Returns the events that this interrupts."""
        ended = [replace(change, is_cut=True) for change in self.end_session()] if self.session >= 0 else []
        self.session, self.window_buffer = session, WindowBuffer(self.grid)
        self.states = [INITIAL_STATE] * len(self.decision.rules)
        self.announced_starts.clear()
        self.labels_below.clear()
        self.recent_windows.clear()
        return ended

    def process_window(self, window: LiveWindow, probs: Sequence[float]) -> list[EventChange]:
        """Apply the rules to a window's probabilities (K,).

        Returns the events that have just begun or ended. Each event is returned once for each.
        """
        changes: list[EventChange] = []
        self.recent_windows.append(WindowPrediction(window.core, tuple(probs)))
        for number, rule in enumerate(self.decision.rules):
            self.states[number], ended = update_state(rule, self.states[number], window.core, probs)
            changes += [EventChange(True, event) for event in ended]
            if probs[rule.column] < rule.off_threshold:
                self.labels_below.add(rule.label)
            ongoing = ongoing_event(rule, self.states[number])
            if ongoing is not None and self.announced_starts.get(rule.label) != ongoing.start:
                self.announced_starts[rule.label] = ongoing.start
                changes.append(EventChange(False, ongoing, is_from_session_start=rule.label not in self.labels_below))
        return changes

    def list_active_labels(self) -> list[str]:
        """Return the labels of the events in progress."""
        rules = zip(self.decision.rules, self.states, strict=True)
        return [rule.label for rule, state in rules if ongoing_event(rule, state) is not None]

    def end_session(self) -> list[EventChange]:
        """Return the events that end with the session."""
        rules = zip(self.decision.rules, self.states, strict=True)
        return [EventChange(True, event) for rule, state in rules for event in finish_event(rule, state)]


def replace_threshold(decision: Decision, threshold: float | None) -> Decision:
    """Return the decision with a camera's own threshold. `off_threshold` keeps its ratio to the threshold."""
    if threshold is None:
        return decision
    on_threshold = max(threshold, 1e-9)
    rules = tuple(
        replace(rule, on_threshold=on_threshold, off_threshold=rule.off_threshold / rule.on_threshold * on_threshold)
        for rule in decision.rules
    )
    return replace(decision, threshold=threshold, rules=rules)
