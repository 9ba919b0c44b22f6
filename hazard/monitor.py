"""Live cameras: frames of all of them through one backbone and one head, events by the rule of the reports, alerts.

Watching never waits: readers are processes of their own that drop what is stale, alerts go to an outbox on disk.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoder
from features.files import write_atomically
from features.live import LiveFrame, LiveSet, Notice
from features.openvino_kept import kept_network
from features.openvino_runtime import openvino_encoder
from features.spec import FeatureSpec
from features.stream import check_devices
from hazard.alerts import Alert
from hazard.infer_config import InferSettings
from hazard.model import Predictor
from hazard.outbox import Outbox
from hazard.sequences import pad, thin
from hazard.types import Event
from hazard.video_names import output_name
from hazard.watching import News, Watcher, Window

RESTART_SECONDS = 60.0
"""An event that goes on when watching begins again within so long is the same event: it was told of."""
PER_MINUTE = 6
"""Alerts of one camera in a minute at most; more are in the log alone."""
LOG, STATE, OUTBOX = "events.jsonl", "state.json", "outbox.sqlite"
log = logging.getLogger(__name__)


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
                yield from (_happening(item, news) for news in watcher.begin(item.session))
            if (window := watcher.stream.add(item.seconds, next(rows))) is not None:
                due.append((item, window))
        if due:
            for (item, window), probs in zip(due, self._judge([window for _, window in due]), strict=True):
                for news in self.watchers[item.camera].judge(window, probs.tolist()):
                    yield _happening(item, news)

    def _features(self, frames: Sequence[LiveFrame]) -> NDArray[np.float16]:
        raw = self.encoder.encode(np.stack([frame.pixels for frame in frames]))  # (N, D) of all cameras
        return self.predictor.reduction.apply(raw) if self.predictor.reduction else raw

    def _judge(self, windows: Sequence[Window]) -> NDArray[np.float64]:
        most = self.predictor.info.settings.max_steps
        x, mask = pad([window.steps[thin(len(window.steps), most)] for window in windows])
        return self.predictor.predict(x, mask)


def _happening(frame: LiveFrame, news: News) -> Happening:
    return Happening(frame.camera, news, frame.wall, frame.session, frame.seconds, frame.jpeg)


@contextmanager
def live_encoder(spec: FeatureSpec, weights: Path | None, settings: InferSettings) -> Iterator[Encoder]:
    """The backbone in this process, on the device and runtime of the settings."""
    devices, runtime = check_devices(settings)
    with tempfile.TemporaryDirectory() as folder:
        if runtime == "openvino":
            yield openvino_encoder(kept_network(spec, weights, Path(folder)), spec, batch_size=settings.batch_size)
            return
        from features.torch_encoder import build_encoder

        yield build_encoder(spec, weights, device=devices[0], batch_size=settings.batch_size)


def watch(
    live: LiveSet,
    brain: Brain,
    *,
    is_stopped: Callable[[], bool],
    each: Callable[[], None] = lambda: None,
) -> Iterator[Happening]:
    """What happens in front of the cameras, until somebody stops it or all of them are files that ended.

    `each` is called after every look.
    """
    while not is_stopped() and not live.is_over:
        yield from brain.see(live.poll(1.0))
        each()
    for name, watcher in brain.watchers.items():
        for news in watcher.end():
            yield Happening(name, news, datetime.now().astimezone(), watcher.session, news.event.end)


@dataclass
class Desk:
    """Takes what happens: writes it down, and puts alerts into the outbox, each once, whenever it is begun again."""

    folder: Path
    outbox: Outbox | None
    log: IO[str]
    seen: dict[str, dict[str, str]]
    """By camera and label: until when its last event that was told of was seen, ISO 8601."""
    offline: dict[str, str]
    """Since when cameras are known to be offline."""
    before: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """Until when events were seen before watching began again, as long as nothing was seen of them since."""
    sent: dict[str, list[datetime]] = field(default_factory=dict)

    def take(self, happening: Happening) -> Alert | None:
        """The alert that it is worth, if any. Raises EnvironmentStopped where the disk does not take it."""
        if isinstance(happening.news, Notice):
            return self._notice(happening, happening.news)
        event, over = happening.news.event, happening.news.is_over
        start = happening.wall - timedelta(seconds=max(0.0, happening.seconds - event.start))
        goes_on = not over and self._goes_on(happening.camera, event.label, start)
        snapshot = None if over or goes_on else self._snapshot(happening, start)
        is_muted = not over and not goes_on and self._is_too_many(happening.camera, happening.wall)
        self._write(happening, event, start, over=over, goes_on=goes_on, is_muted=is_muted, snapshot=snapshot)
        if over or goes_on or is_muted:
            self.mark([(happening.camera, event.label)], happening.wall)
            return None
        alert = Alert(
            id=f"{happening.camera}/event/{event.label}/{start.isoformat(timespec='seconds')}",
            kind="event",
            camera=happening.camera,
            label=event.label,
            started=start,
            ended=None,
            probability=event.peak,
            snapshot=snapshot,
            clip=None,
        )
        put = self._put(alert)  # before it is marked: killed in between, it is told of again rather than never
        self.mark([(happening.camera, event.label)], happening.wall)
        return put

    def mark(self, going_on: Iterable[tuple[str, str]], now: datetime) -> None:
        """Notes until when events of (camera, label) were seen."""
        for camera, label in going_on:
            self.seen.setdefault(camera, {})[label] = now.isoformat()
            self._save()

    def _notice(self, happening: Happening, notice: Notice) -> Alert | None:
        if notice.kind == "ended":
            return None
        since = (notice.since or notice.at).isoformat(timespec="seconds")
        if notice.kind == "back":
            since = self.offline.get(notice.camera, since)
        entry: dict[str, object] = {
            "kind": notice.kind,
            "camera": notice.camera,
            "at": notice.at.isoformat(),
            "reason": notice.reason,
        }
        self._line(entry)
        put = self._put(
            Alert(
                id=f"{notice.camera}/{notice.kind}/{since}",
                kind=notice.kind,
                camera=notice.camera,
                label="",
                started=notice.at,
                ended=None,
                probability=0.0,
                snapshot=None,
                clip=None,
            )
        )
        if notice.kind == "offline":
            self.offline[notice.camera] = since
        else:
            self.offline.pop(notice.camera, None)
        self._save()
        return put

    def _put(self, alert: Alert) -> Alert | None:
        return alert if self.outbox is None or self.outbox.put(alert) else None

    def _goes_on(self, camera: str, label: str, start: datetime) -> bool:
        """Whether it was told of before watching began again."""
        until = self.before.pop((camera, label), None)
        return until is not None and start <= until + timedelta(seconds=RESTART_SECONDS)

    def _is_too_many(self, camera: str, now: datetime) -> bool:
        recent = [moment for moment in self.sent.get(camera, []) if now - moment < timedelta(minutes=1)]
        is_too_many = len(recent) >= PER_MINUTE
        self.sent[camera] = recent if is_too_many else [*recent, now]
        return is_too_many

    def _save(self) -> None:
        state = {"seen": self.seen, "offline": self.offline}
        write_atomically(self.folder / STATE, json.dumps(state, indent=1).encode())

    def _snapshot(self, happening: Happening, start: datetime) -> Path | None:
        if not happening.jpeg:
            return None
        name = output_name(f"{happening.camera}.mp4").stem
        file = self.folder / "snapshots" / f"{name}-{start:%Y%m%dT%H%M%S}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, happening.jpeg)
        return file

    def _write(self, happening: Happening, event: Event, start: datetime, **facts: object) -> None:
        self._line(
            {
                "kind": "event",
                "camera": happening.camera,
                "label": event.label,
                "at": happening.wall.isoformat(),
                "started": start.isoformat(),
                "seconds": [round(event.start, 3), round(event.end, 3)],
                "session": happening.session,
                "peak": event.peak,
                "mean": event.mean,
                **{key: str(value) if isinstance(value, Path) else value for key, value in facts.items()},
            }
        )

    def _line(self, entry: dict[str, object]) -> None:
        self.log.write(json.dumps(entry, ensure_ascii=True) + "\n")
        self.log.flush()
        os.fsync(self.log.fileno())


@contextmanager
def open_desk(folder: Path, outbox: Outbox | None) -> Iterator[Desk]:
    """What was told of before is known again."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        state = {}
    with open(folder / LOG, "a", encoding="utf-8") as log_file:
        seen = state.get("seen", {})
        before = {
            (camera, label): datetime.fromisoformat(at) for camera, each in seen.items() for label, at in each.items()
        }
        yield Desk(folder, outbox, log_file, seen, state.get("offline", {}), before)


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
