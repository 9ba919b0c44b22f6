"""What cameras show and what is said of it → what a screen shows of each, look by look."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from features.live.types import LiveFrame, Notice
from hazard.events.decision import Decision, alarming, one_threshold, quiet_label
from hazard.events.rule import NOTHING, EventState, step, under_way
from hazard.monitor.cameras import CameraSettings
from hazard.monitor.display.tile import TIMELINE_SECONDS, Lost, Sight
from hazard.monitor.watcher import Judged, Watcher
from hazard.types import Event


@dataclass
class Following:
    """One camera's sight, and what it takes to keep it up to date."""

    camera: CameraSettings
    watcher: Watcher
    sight: Sight = field(init=False)
    session: int = -1
    states: list[EventState] = field(default_factory=list)
    past: list[Event] = field(default_factory=list)
    last: Judged | None = None
    newest: LiveFrame | None = None

    def __post_init__(self) -> None:
        self.sight = Sight(self.camera.name, threshold=one_threshold(self.watcher.decision))

    def take(self, item: LiveFrame | Notice) -> None:
        """A frame shows that the camera is there, whatever was told before."""
        if isinstance(item, Notice):
            self.sight = replace(self.sight, lost=None if item.kind == "back" else _lost(item))
            return
        self.newest = item
        has_alerts = self.camera.is_watched(item.wall)
        self.sight = replace(self.sight, jpeg=item.jpeg, at=item.wall, lost=None, has_alerts=has_alerts)

    def judge(self) -> None:
        """What the watcher said since the last look; another session begins with an empty timeline."""
        if self.watcher.session != self.session:
            self.session, self.last, self.past = self.watcher.session, None, []
            self.states = [NOTHING] * len(self.watcher.decision.rules)
            self.sight = replace(self.sight, label="", probability=None, since=None, curve=(), events=())
        recent = self.watcher.recent
        if not recent or recent[-1] is self.last or self.newest is None:
            return
        until = self.last.core[1] if self.last else -1.0
        for judged in [one for one in recent if one.core[1] > until]:
            self._step(judged)
        self.last = recent[-1]
        self._show(self.newest, self.last)

    def _step(self, judged: Judged) -> None:
        for number, rule in enumerate(self.watcher.decision.rules):
            self.states[number], ended = step(rule, self.states[number], judged.core, judged.probs)
            self.past += ended

    def _show(self, newest: LiveFrame, judged: Judged) -> None:
        decision = self.watcher.decision
        start = newest.seconds - TIMELINE_SECONDS
        self.past = [event for event in self.past if event.end > start]
        unfinished = [(under_way(rule, state), state) for rule, state in zip(decision.rules, self.states, strict=True)]
        going_on = [event for event, state in unfinished if event and state.inside]  # others may still go on, or not
        event = max(going_on, key=lambda one: judged.probs[decision.labels.index(one.label)], default=None)
        column = _column(decision, judged)
        self.sight = replace(
            self.sight,
            label=event.label if event else quiet_label(judged.probs, decision),
            probability=judged.probs[column],
            of=decision.labels[column],
            since=self._since(newest, event) if event else None,
            curve=tuple(
                (*one.core, one.probs[_column(decision, one)]) for one in self.watcher.recent if one.core[1] > start
            ),
            events=(*self.past, *(event for event, _ in unfinished if event)),
            seconds=max(newest.seconds, judged.core[1]),
        )

    def _since(self, newest: LiveFrame, event: Event) -> datetime:
        """By the clock. Once said it stays: frames come a little early or late."""
        known = {(one.label, one.start) for one in self.sight.events}
        if self.sight.since is not None and (event.label, event.start) in known and self.sight.label == event.label:
            return self.sight.since
        return newest.wall - timedelta(seconds=max(0.0, newest.seconds - event.start))


def _column(decision: Decision, judged: Judged) -> int:
    """Of the label that the number shown is of."""
    columns = alarming(decision) or range(len(decision.labels))
    return max(columns, key=lambda column: judged.probs[column])


def _lost(notice: Notice) -> Lost:
    since = notice.since if notice.kind == "offline" else notice.at
    return Lost(notice.kind, notice.at, since, notice.reason)
