"""What a camera shows → windows → events, step by step: the live counterpart of cutting a video."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hazard.events.decision import Decision
from hazard.events.rule import INITIAL_STATE, EventState, finish_event, ongoing_event, update_state
from hazard.monitor.live_windows import LiveWindow, WindowBuffer, WindowGrid
from hazard.types import Event

MAX_RECENT_WINDOWS = 240
"""Windows of a camera that are remembered."""


@dataclass(frozen=True)
class EventChange:
    """An event that has begun, or ended."""

    is_over: bool
    event: Event
    is_cut: bool = False
    """The sight of it ended, because the camera's session did: nobody knows whether the event did."""
    is_from_session_start: bool = False
    """Of one that has begun: in this session nothing was seen before it, so that it may have gone on for long."""


class WindowPrediction(NamedTuple):
    """What was said of a window."""

    core: tuple[float, float]
    probs: tuple[float, ...]  # (K,)


@dataclass
class CameraWatcher:
    """One camera: its session, and what the rules remember of it."""

    decision: Decision
    grid: WindowGrid
    session: int = -1
    window_buffer: WindowBuffer = field(init=False)
    states: list[EventState] = field(init=False)
    announced_starts: dict[str, float] = field(default_factory=dict)
    """The start of the event that was told of, by label."""
    labels_below: set[str] = field(default_factory=set)
    """The labels that were below what an event needs in some window of this session."""
    recent_windows: deque[WindowPrediction] = field(default_factory=lambda: deque(maxlen=MAX_RECENT_WINDOWS))
    """The last windows of the session, for whoever draws them."""

    def __post_init__(self) -> None:
        self.begin_session(self.session)

    def begin_session(self, session: int) -> list[EventChange]:
        """Another session: times start anew, what was going on has ended."""
        ended = [replace(news, is_cut=True) for news in self.end_session()] if self.session >= 0 else []
        self.session, self.window_buffer = session, WindowBuffer(self.grid)
        self.states = [INITIAL_STATE] * len(self.decision.rules)
        self.announced_starts.clear()
        self.labels_below.clear()
        self.recent_windows.clear()
        return ended

    def process_window(self, window: LiveWindow, probs: Sequence[float]) -> list[EventChange]:
        """What the probabilities (K,) of one more window mean: each event is told of once, and once that it is over."""
        news: list[EventChange] = []
        self.recent_windows.append(WindowPrediction(window.core, tuple(probs)))
        for number, rule in enumerate(self.decision.rules):
            self.states[number], ended = update_state(rule, self.states[number], window.core, probs)
            news += [EventChange(True, event) for event in ended]
            if probs[rule.column] < rule.leave:
                self.labels_below.add(rule.label)
            now = ongoing_event(rule, self.states[number])
            if now is not None and self.announced_starts.get(rule.label) != now.start:
                self.announced_starts[rule.label] = now.start
                news.append(EventChange(False, now, is_from_session_start=rule.label not in self.labels_below))
        return news

    def list_active_labels(self) -> list[str]:
        """The labels of events that were told of and are not over."""
        rules = zip(self.decision.rules, self.states, strict=True)
        return [rule.label for rule, state in rules if ongoing_event(rule, state) is not None]

    def end_session(self) -> list[EventChange]:
        """The events that the end of the session ends."""
        rules = zip(self.decision.rules, self.states, strict=True)
        return [EventChange(True, event) for rule, state in rules for event in finish_event(rule, state)]


def replace_threshold(decision: Decision, threshold: float | None) -> Decision:
    """The same rules with a camera's own threshold; they leave at the same share of it."""
    if threshold is None:
        return decision
    enter = max(threshold, 1e-9)
    rules = tuple(replace(rule, enter=enter, leave=rule.leave / rule.enter * enter) for rule in decision.rules)
    return replace(decision, threshold=threshold, rules=rules)
