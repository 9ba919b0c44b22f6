"""The live detector: frames of all cameras go through one backbone and one head, and the event rule of reports."""

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
from hazard.monitor.camera_watcher import CameraWatcher, EventChange
from hazard.monitor.live_windows import LiveWindow
from hazard.types import Event

Observer = Callable[[Sequence[LiveFrame | StatusChange]], None]
"""Function called after each poll with the new items, which the model has processed by then. The list may be empty."""


@dataclass(frozen=True)
class CameraEvent:
    """A change of an event or of a camera's status."""

    camera: str
    change: EventChange | StatusChange
    wall_time: datetime
    """Time at which it was detected, in UTC."""
    session: int = 0
    seconds: float = 0.0
    """Time of that frame in the camera's session, in seconds."""
    arrived: float = 0.0
    """Arrival of that frame, by the monotonic clock."""
    jpeg: bytes = b""
    """That frame as a small picture; empty if there is none."""


@dataclass
class LiveDetector:
    """The model and one watcher per camera: turns frames into camera events. It writes no files and sends no alerts."""

    predictor: Predictor
    encoder: FrameEncoder
    watchers: dict[str, CameraWatcher]

    def process(self, items: Sequence[LiveFrame | StatusChange]) -> Iterator[CameraEvent]:
        """Yield the events of frames of all cameras that arrived together. Status changes are passed on, in order."""
        frames = [item for item in items if isinstance(item, LiveFrame)]
        rows = iter(self._encode_frames(frames)) if frames else iter(())
        due: list[tuple[LiveFrame, LiveWindow]] = []
        for item in items:
            if isinstance(item, StatusChange):
                yield CameraEvent(item.camera, item, item.at)
                continue
            watcher = self.watchers[item.camera]
            if item.session != watcher.session:
                yield from self._process_windows(due)  # of the old session, before its state is reset
                due = []
                yield from (_make_camera_event(item, change) for change in watcher.begin_session(item.session))
            due += [(item, window) for window in watcher.window_buffer.add(item.seconds, next(rows))]
        yield from self._process_windows(due)

    def _encode_frames(self, frames: Sequence[LiveFrame]) -> NDArray[np.float16]:
        raw = self.encoder.encode(np.stack([frame.pixels for frame in frames]))  # (N, D), all cameras
        return self.predictor.reduction.apply(raw) if self.predictor.reduction else raw

    def _process_windows(self, due: Sequence[tuple[LiveFrame, LiveWindow]]) -> Iterator[CameraEvent]:
        if due:
            for (item, window), probs in zip(due, self._predict_windows([window for _, window in due]), strict=True):
                for change in self.watchers[item.camera].process_window(window, probs.tolist()):
                    yield _make_camera_event(item, change)

    def _predict_windows(self, windows: Sequence[LiveWindow]) -> NDArray[np.float64]:
        max_steps = self.predictor.info.settings.max_steps
        x, mask = pad_tracks([window.steps[subsample_steps(len(window.steps), max_steps)] for window in windows])
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
    """Yield the events of all cameras, until `is_stopped()` or until all sources are files that have ended.

    Each observer is called after each poll of the cameras.
    """
    while not is_stopped() and not live.is_over:
        items = live.poll(1.0)
        yield from detector.process(items)
        for observe in observers:
            observe(items)
    for name, watcher in detector.watchers.items():
        for change in watcher.end_session():
            last = replace(change, is_cut=not live.is_over)
            yield CameraEvent(name, last, datetime.now(UTC), watcher.session, change.event.end, time.monotonic())


def collect_events(camera_events: Iterable[CameraEvent]) -> dict[str, list[tuple[Event, float]]]:
    """Return by camera each ended event, with the session time in seconds at which its start was detected."""
    detected_at: dict[tuple[str, str, float], float] = {}
    events: dict[str, list[tuple[Event, float]]] = {}
    for item in camera_events:
        if isinstance(item.change, StatusChange):
            continue
        event = item.change.event
        key = (item.camera, event.label, event.start)
        if not item.change.is_over:
            detected_at.setdefault(key, item.seconds)
        else:
            events.setdefault(item.camera, []).append((event, detected_at.get(key, item.seconds)))
    return events
