"""Updates of the tiles, from the frames of the cameras and the predictions of the watchers."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from features.live.types import LiveFrame, StatusChange
from hazard.events.decision import Decision, alarm_columns, common_threshold, label_without_event
from hazard.events.rule import INITIAL_STATE, EventState, ongoing_event, update_state
from hazard.monitor.camera_watcher import CameraWatcher, WindowPrediction
from hazard.monitor.cameras import CameraSettings
from hazard.monitor.display.tile import TIMELINE_SECONDS, SignalLoss, Tile
from hazard.types import Event


@dataclass
class TileUpdater:
    """The tile of one camera, and the state that is needed to update it."""

    camera: CameraSettings
    watcher: CameraWatcher
    tile: Tile = field(init=False)
    session: int = -1
    states: list[EventState] = field(default_factory=list)
    past_events: list[Event] = field(default_factory=list)
    last_window: WindowPrediction | None = None
    newest_frame: LiveFrame | None = None

    def __post_init__(self) -> None:
        self.tile = Tile(self.camera.name, threshold=common_threshold(self.watcher.decision))

    def receive(self, item: LiveFrame | StatusChange) -> None:
        """Take a frame or a status change of the camera. A frame also ends a signal loss."""
        if isinstance(item, StatusChange):
            self.tile = replace(self.tile, signal_loss=None if item.kind == "back" else _make_signal_loss(item))
            return
        self.newest_frame = item
        has_alerts = self.camera.is_watched(item.wall)
        self.tile = replace(self.tile, jpeg=item.jpeg, captured_at=item.wall, signal_loss=None, has_alerts=has_alerts)

    def update(self) -> None:
        """Add the watcher's new windows to the tile. A new session begins with an empty timeline."""
        if self.watcher.session != self.session:
            self.session, self.last_window, self.past_events = self.watcher.session, None, []
            self.states = [INITIAL_STATE] * len(self.watcher.decision.rules)
            self.tile = replace(self.tile, label="", probability=None, event_since=None, curve=(), events=())
        recent = self.watcher.recent_windows
        if not recent or recent[-1] is self.last_window or self.newest_frame is None:
            return
        until = self.last_window.core[1] if self.last_window else -1.0
        for window in [window for window in recent if window.core[1] > until]:
            self._apply_rules(window)
        self.last_window = recent[-1]
        self._update_tile(self.newest_frame, self.last_window)

    def _apply_rules(self, window: WindowPrediction) -> None:
        for number, rule in enumerate(self.watcher.decision.rules):
            self.states[number], ended = update_state(rule, self.states[number], window.core, window.probs)
            self.past_events += ended

    def _update_tile(self, newest: LiveFrame, window: WindowPrediction) -> None:
        decision = self.watcher.decision
        start = newest.seconds - TIMELINE_SECONDS
        self.past_events = [event for event in self.past_events if event.end > start]
        unfinished = [
            (ongoing_event(rule, state), state) for rule, state in zip(decision.rules, self.states, strict=True)
        ]
        active = [event for event, state in unfinished if event and state.is_active]  # the others may be over already
        event = max(active, key=lambda event: window.probs[decision.labels.index(event.label)], default=None)
        column = _find_shown_column(decision, window)
        self.tile = replace(
            self.tile,
            label=event.label if event else label_without_event(window.probs, decision),
            probability=window.probs[column],
            probability_label=decision.labels[column],
            event_since=self._find_event_start(newest, event) if event else None,
            curve=tuple(
                (*recent.core, recent.probs[_find_shown_column(decision, recent)])
                for recent in self.watcher.recent_windows
                if recent.core[1] > start
            ),
            events=(*self.past_events, *(event for event, _ in unfinished if event)),
            end_seconds=max(newest.seconds, window.core[1]),
        )

    def _find_event_start(self, newest: LiveFrame, event: Event) -> datetime:
        """Return the wall-clock start of an event. Once shown it does not change, although frames may arrive late."""
        known = {(shown.label, shown.start) for shown in self.tile.events}
        if self.tile.event_since is not None and (event.label, event.start) in known and self.tile.label == event.label:
            return self.tile.event_since
        return newest.wall - timedelta(seconds=max(0.0, newest.seconds - event.start))


def _find_shown_column(decision: Decision, window: WindowPrediction) -> int:
    """Return the column of the label whose probability is shown: the most probable alarm label."""
    columns = alarm_columns(decision) or range(len(decision.labels))
    return max(columns, key=lambda column: window.probs[column])


def _make_signal_loss(status_change: StatusChange) -> SignalLoss:
    since = status_change.since if status_change.kind == "offline" else status_change.at
    return SignalLoss(status_change.kind, status_change.at, since, status_change.reason)
