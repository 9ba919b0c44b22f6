"""Live cameras: frames of all of them through one backbone and one head, events by the rule of the reports."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from features.encoders.base import Encoder
from features.live.cameras import LiveSet
from features.live.types import LiveFrame, Notice
from hazard.data.sequences import pad, thin
from hazard.models.predictor import Predictor
from hazard.monitor.live_windows import Window
from hazard.monitor.watcher import News, Watcher
from hazard.types import Event

Onlooker = Callable[[Sequence[LiveFrame | Notice]], None]
"""Is shown what came since the last look, after it was judged; possibly nothing."""


@dataclass(frozen=True)
class Happening:
    """Something to tell of a camera."""

    camera: str
    news: News | Notice
    wall: datetime
    """When it came, UTC."""
    session: int = 0
    seconds: float = 0.0
    """The camera's own time then."""
    arrived: float = 0.0
    """When the frame came by which it was known, by the monotonic clock."""
    jpeg: bytes = b""


@dataclass
class Brain:
    """What turns frames into news; it knows neither files nor receivers."""

    predictor: Predictor
    encoder: Encoder
    watchers: dict[str, Watcher]

    def see(self, items: Sequence[LiveFrame | Notice]) -> Iterator[Happening]:
        """What the frames of all cameras that came together mean; notices pass through in their place."""
        frames = [item for item in items if isinstance(item, LiveFrame)]
        rows = iter(self._features(frames)) if frames else iter(())
        due: list[tuple[LiveFrame, Window]] = []
        for item in items:
            if isinstance(item, Notice):
                yield Happening(item.camera, item, item.at)
                continue
            watcher = self.watchers[item.camera]
            if item.session != watcher.session:
                yield from self._judged(due)  # what the old session's windows mean, before its rules are forgotten
                due = []
                yield from (_happening(item, news) for news in watcher.begin(item.session))
            due += [(item, window) for window in watcher.stream.add(item.seconds, next(rows))]
        yield from self._judged(due)

    def _features(self, frames: Sequence[LiveFrame]) -> NDArray[np.float16]:
        raw = self.encoder.encode(np.stack([frame.pixels for frame in frames]))  # (N, D) of all cameras
        return self.predictor.reduction.apply(raw) if self.predictor.reduction else raw

    def _judged(self, due: Sequence[tuple[LiveFrame, Window]]) -> Iterator[Happening]:
        if due:
            for (item, window), probs in zip(due, self._probs([window for _, window in due]), strict=True):
                for news in self.watchers[item.camera].judge(window, probs.tolist()):
                    yield _happening(item, news)

    def _probs(self, windows: Sequence[Window]) -> NDArray[np.float64]:
        most = self.predictor.info.settings.max_steps
        x, mask = pad([window.steps[thin(len(window.steps), most)] for window in windows])
        return self.predictor.predict(x, mask)


def _happening(frame: LiveFrame, news: News) -> Happening:
    return Happening(frame.camera, news, frame.wall, frame.session, frame.seconds, frame.arrived, frame.jpeg)


def watch(
    live: LiveSet,
    brain: Brain,
    *,
    is_stopped: Callable[[], bool],
    onlookers: Sequence[Onlooker] = (),
) -> Iterator[Happening]:
    """What happens in front of the cameras, until somebody stops it or all of them are files that ended.

    Onlookers are called after every look.
    """
    while not is_stopped() and not live.is_over:
        items = live.poll(1.0)
        yield from brain.see(items)
        for look in onlookers:
            look(items)
    for name, watcher in brain.watchers.items():
        for news in watcher.end():
            last = replace(news, is_cut=not live.is_over)
            yield Happening(name, last, datetime.now(UTC), watcher.session, news.event.end, time.monotonic())


def events_of(happenings: Iterable[Happening]) -> dict[str, list[tuple[Event, float]]]:
    """By camera, each event that ended, with the camera's time when it was first told of: for measuring a replay."""
    told: dict[tuple[str, str, float], float] = {}
    found: dict[str, list[tuple[Event, float]]] = {}
    for happening in happenings:
        if isinstance(happening.news, Notice):
            continue
        event = happening.news.event
        key = (happening.camera, event.label, event.start)
        if not happening.news.is_over:
            told.setdefault(key, happening.seconds)
        else:
            found.setdefault(happening.camera, []).append((event, told.get(key, happening.seconds)))
    return found
