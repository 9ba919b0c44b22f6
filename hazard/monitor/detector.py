"""Live cameras: frames of all of them through one backbone and one head, events by the rule of the reports."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from features.encoders.base import FrameEncoder
from features.live.cameras import LiveCameras
from features.live.types import LiveFrame, StatusChange
from hazard.data.sequences import pad_tracks, subsample_steps
from hazard.models.predictor import Predictor
from hazard.monitor.live_windows import LiveWindow
from hazard.monitor.watcher import CameraWatcher, EventChange
from hazard.types import Event

Observer = Callable[[Sequence[LiveFrame | StatusChange]], None]
"""Is shown what came since the last look, after it was judged; possibly nothing."""


@dataclass(frozen=True)
class CameraEvent:
    """Something to tell of a camera."""

    camera: str
    change: EventChange | StatusChange
    wall_time: datetime
    """When it came, UTC."""
    session: int = 0
    seconds: float = 0.0
    """The camera's own time then."""
    arrived: float = 0.0
    """When the frame came by which it was known, by the monotonic clock."""
    jpeg: bytes = b""


@dataclass
class LiveDetector:
    """What turns frames into news; it knows neither files nor receivers."""

    predictor: Predictor
    encoder: FrameEncoder
    watchers: dict[str, CameraWatcher]

    def process(self, items: Sequence[LiveFrame | StatusChange]) -> Iterator[CameraEvent]:
        """What the frames of all cameras that came together mean; notices pass through in their place."""
        frames = [item for item in items if isinstance(item, LiveFrame)]
        rows = iter(self._encode_frames(frames)) if frames else iter(())
        due: list[tuple[LiveFrame, LiveWindow]] = []
        for item in items:
            if isinstance(item, StatusChange):
                yield CameraEvent(item.camera, item, item.at)
                continue
            watcher = self.watchers[item.camera]
            if item.session != watcher.session:
                yield from self._process_windows(
                    due
                )  # what the old session's windows mean, before its rules are forgotten
                due = []
                yield from (_make_camera_event(item, news) for news in watcher.begin_session(item.session))
            due += [(item, window) for window in watcher.window_buffer.add(item.seconds, next(rows))]
        yield from self._process_windows(due)

    def _encode_frames(self, frames: Sequence[LiveFrame]) -> NDArray[np.float16]:
        raw = self.encoder.encode(np.stack([frame.pixels for frame in frames]))  # (N, D) of all cameras
        return self.predictor.reduction.apply(raw) if self.predictor.reduction else raw

    def _process_windows(self, due: Sequence[tuple[LiveFrame, LiveWindow]]) -> Iterator[CameraEvent]:
        if due:
            for (item, window), probs in zip(due, self._predict_windows([window for _, window in due]), strict=True):
                for news in self.watchers[item.camera].process_window(window, probs.tolist()):
                    yield _make_camera_event(item, news)

    def _predict_windows(self, windows: Sequence[LiveWindow]) -> NDArray[np.float64]:
        most = self.predictor.info.settings.max_steps
        x, mask = pad_tracks([window.steps[subsample_steps(len(window.steps), most)] for window in windows])
        return self.predictor.predict(x, mask)


def _make_camera_event(frame: LiveFrame, change: EventChange) -> CameraEvent:
    return CameraEvent(frame.camera, change, frame.wall, frame.session, frame.seconds, frame.arrived, frame.jpeg)


def watch_cameras(
    live: LiveCameras,
    detector: LiveDetector,
    *,
    is_stopped: Callable[[], bool],
    observers: Sequence[Observer] = (),
) -> Iterator[CameraEvent]:
    """What happens in front of the cameras, until somebody stops it or all of them are files that ended.

    Onlookers are called after every look.
    """
    while not is_stopped() and not live.is_over:
        items = live.poll(1.0)
        yield from detector.process(items)
        for look in observers:
            look(items)
    for name, watcher in detector.watchers.items():
        for news in watcher.end_session():
            last = replace(news, is_cut=not live.is_over)
            yield CameraEvent(name, last, datetime.now(UTC), watcher.session, news.event.end, time.monotonic())


def collect_events(camera_events: Iterable[CameraEvent]) -> dict[str, list[tuple[Event, float]]]:
    """By camera, each event that ended, with the camera's time when it was first told of: for measuring a replay."""
    told: dict[tuple[str, str, float], float] = {}
    found: dict[str, list[tuple[Event, float]]] = {}
    for happening in camera_events:
        if isinstance(happening.change, StatusChange):
            continue
        event = happening.change.event
        key = (happening.camera, event.label, event.start)
        if not happening.change.is_over:
            told.setdefault(key, happening.seconds)
        else:
            found.setdefault(happening.camera, []).append((event, told.get(key, happening.seconds)))
    return found
