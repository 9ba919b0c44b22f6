"""What a camera shows → windows → events, step by step: the live counterpart of cutting a video."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hazard.events.decision import Decision
from hazard.events.rule import NOTHING, EventState, finish, step, under_way
from hazard.monitor.live_windows import Grid, Stream, Window
from hazard.types import Event

RECENT = 240
"""Windows of a camera that are remembered."""


@dataclass(frozen=True)
class News:
    """An event that has begun, or ended."""

    is_over: bool
    event: Event
    is_cut: bool = False
    """The sight of it ended, because the camera's session did: nobody knows whether the event did."""
    is_from_start: bool = False
    """Of one that has begun: in this session nothing was seen before it, so that it may have gone on for long."""


class Judged(NamedTuple):
    """What was said of a window."""

    core: tuple[float, float]
    probs: tuple[float, ...]  # (K,)


@dataclass
class Watcher:
    """One camera: its session, and what the rules remember of it."""

    decision: Decision
    grid: Grid
    session: int = -1
    stream: Stream = field(init=False)
    states: list[EventState] = field(init=False)
    told: dict[str, float] = field(default_factory=dict)
    """The start of the event that was told of, by label."""
    quiet: set[str] = field(default_factory=set)
    """The labels that were below what an event needs in some window of this session."""
    recent: deque[Judged] = field(default_factory=lambda: deque(maxlen=RECENT))
    """The last windows of the session, for whoever draws them."""

    def __post_init__(self) -> None:
        self.begin(self.session)

    def begin(self, session: int) -> list[News]:
        """Another session: times start anew, what was going on has ended."""
        ended = [replace(news, is_cut=True) for news in self.end()] if self.session >= 0 else []
        self.session, self.stream = session, Stream(self.grid)
        self.states = [NOTHING] * len(self.decision.rules)
        self.told.clear()
        self.quiet.clear()
        self.recent.clear()
        return ended

    def judge(self, window: Window, probs: Sequence[float]) -> list[News]:
        """What the probabilities (K,) of one more window mean: each event is told of once, and once that it is over."""
        news: list[News] = []
        self.recent.append(Judged(window.core, tuple(probs)))
        for number, rule in enumerate(self.decision.rules):
            self.states[number], ended = step(rule, self.states[number], window.core, probs)
            news += [News(True, event) for event in ended]
            if probs[rule.column] < rule.leave:
                self.quiet.add(rule.label)
            now = under_way(rule, self.states[number])
            if now is not None and self.told.get(rule.label) != now.start:
                self.told[rule.label] = now.start
                news.append(News(False, now, is_from_start=rule.label not in self.quiet))
        return news

    def going_on(self) -> list[str]:
        """The labels of events that were told of and are not over."""
        rules = zip(self.decision.rules, self.states, strict=True)
        return [rule.label for rule, state in rules if under_way(rule, state) is not None]

    def end(self) -> list[News]:
        """The events that the end of the session ends."""
        rules = zip(self.decision.rules, self.states, strict=True)
        return [News(True, event) for rule, state in rules for event in finish(rule, state)]


def with_threshold(decision: Decision, threshold: float | None) -> Decision:
    """The same rules with a camera's own threshold; they leave at the same share of it."""
    if threshold is None:
        return decision
    enter = max(threshold, 1e-9)
    rules = tuple(replace(rule, enter=enter, leave=rule.leave / rule.enter * enter) for rule in decision.rules)
    return replace(decision, threshold=threshold, rules=rules)
