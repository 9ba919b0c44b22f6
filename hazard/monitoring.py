"""A monitor from settings: made ready, run, or given a recording to be measured by."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import ClipError, SettingsError
from features.live import LiveFrame, Notice, open_cameras
from features.live_source import Camera
from features.opening import check_video
from features.progress import progress_bar
from features.spec import FeatureSpec
from features.words import counted
from hazard.alert_config import AlertSettings
from hazard.cameras import CameraSettings
from hazard.cutting import windows_of
from hazard.decide import Decision
from hazard.delivery import delivering
from hazard.desk import OUTBOX, Desk, open_desk
from hazard.event_truth import Watched, check_truth, evaluate_events, overlaps, read_truth
from hazard.infer_config import InferSettings
from hazard.model import Predictor
from hazard.model_files import open_model
from hazard.model_source import read_source
from hazard.monitor import Brain, Happening, Onlooker, events_of, live_encoder, watch
from hazard.monitor_config import MonitorSettings
from hazard.predict import check_spec, model_weights
from hazard.screen import open_screen
from hazard.thresholds import decision
from hazard.watching import Grid, Watcher, live_grid, with_threshold

MARK_SECONDS = 5.0
"""How often it is noted that an event goes on."""
PICTURE_WIDTH = 640
"""Of snapshots, in pixels."""


@dataclass(frozen=True)
class Prepared:
    """All that watching needs besides cameras."""

    spec: FeatureSpec
    weights: Path | None
    predictor: Predictor
    decision: Decision
    grid: Grid


def prepared(model_folder: Path, settings: InferSettings) -> Prepared:
    """Opens the model. Raises SettingsError and ArtefactRefused where it cannot watch."""
    source = read_source(model_folder)
    check_spec(source.spec)
    windows = windows_of(source, settings)
    grid = live_grid(source, windows)
    weights = model_weights(source.spec, settings.weights, hint=source.weights_file)
    predictor = open_model(model_folder)
    rules = decision(predictor, model_folder, settings, stride_seconds=windows.stride_seconds)
    return Prepared(source.spec, weights, predictor, rules, grid)


@contextmanager
def brain_for(ready: Prepared, settings: InferSettings, thresholds: Mapping[str, float | None]) -> Iterator[Brain]:
    """One watcher a camera, each with its own threshold where it has one."""
    watchers = {name: Watcher(with_threshold(ready.decision, own), ready.grid) for name, own in thresholds.items()}
    with live_encoder(ready.spec, ready.weights, settings) as encoder:
        yield Brain(ready.predictor, encoder, watchers)


def run_monitor(
    cameras: Sequence[CameraSettings],
    model_folder: Path,
    output: Path,
    settings: InferSettings,
    watching: MonitorSettings,
    *,
    alerts: AlertSettings | None,
    is_shown: bool = False,
    is_stopped: Callable[[], bool],
    echo: Callable[[str], None],
) -> None:
    """Watches until it is stopped, or all cameras are files that ended; what happens is in `output`.

    Raises SettingsError, ArtefactRefused and EnvironmentStopped, before any camera is opened where it can.
    """
    output.mkdir(parents=True, exist_ok=True)
    ready = prepared(model_folder, settings)
    by_name = {camera.name: camera for camera in cameras}
    with ExitStack() as stack:
        outbox = stack.enter_context(delivering(output / OUTBOX, alerts)) if alerts else None
        desk = stack.enter_context(open_desk(output, outbox, per_minute=watching.alerts_per_minute))
        brain = stack.enter_context(brain_for(ready, settings, {name: c.threshold for name, c in by_name.items()}))
        screen = stack.enter_context(open_screen(brain, cameras)) if is_shown else None
        live = stack.enter_context(
            open_cameras(
                [camera.camera for camera in cameras],
                ready.spec.preprocessing,
                ready.grid.fps,
                picture_width=PICTURE_WIDTH,
                silence_seconds=watching.silence_seconds,
                offline=set(desk.offline),
            )
        )
        onlookers: list[Onlooker] = [_marker(brain, desk), *([screen] if screen else [])]
        echo(f"watching {counted(len(cameras), 'camera')}, {ready.grid.fps:.1f} frames a second of each")
        seen = watch(
            live,
            brain,
            is_stopped=lambda: is_stopped() or (screen is not None and screen.is_closed),
            onlookers=onlookers,
        )
        for happening in seen:
            alert = desk.take(happening) if by_name[happening.camera].is_watched(happening.wall) else None
            if alert:
                echo(f"{alert.kind} {alert.camera} {alert.label} {alert.started:%Y-%m-%d %H:%M:%S} UTC")


def _marker(brain: Brain, desk: Desk) -> Onlooker:
    """Notes now and then which events go on, for a restart to know."""
    marked = time.monotonic()

    def mark(items: Sequence[LiveFrame | Notice]) -> None:
        nonlocal marked
        if time.monotonic() - marked > MARK_SECONDS:
            marked = time.monotonic()
            going_on = [(name, label) for name, watcher in brain.watchers.items() for label in watcher.going_on()]
            desk.mark(going_on, datetime.now(UTC))

    return mark


def evaluate_recording(
    recording: Path, model_folder: Path, settings: InferSettings, *, is_stopped: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """What `evaluate_events` says of a recording that is replayed as if live, and how late alerts come.

    Every frame on the grid is looked at, as fast as the machine allows. Raises SettingsError without true events of it,
    and where it is no video.
    """
    if settings.truth is None:
        raise SettingsError("--evaluate needs --truth FILE: a CSV of true events with the columns path,start,end,label")
    truth, name = read_truth(settings.truth), recording.name
    try:
        check_video(recording)
    except ClipError as error:
        raise SettingsError(f"{recording} cannot be replayed: {error.reason}; give a video file") from None
    ready = prepared(model_folder, settings)
    labels = [rule.label for rule in ready.decision.rules]
    check_truth(settings.truth, truth, paths=[name], labels=labels)
    happenings, seconds = _replayed(recording, name, ready, settings, is_stopped)
    found = events_of(happenings).get(name, [])
    events = [event for event, _ in found]
    figures = evaluate_events(
        [Watched(name, seconds, truth[name], events)], tolerance_seconds=settings.tolerance_seconds
    )
    delays = [
        min(told for event, told in found if event.label == true.label and overlaps(true, event, 0.0)) - true.start
        for true in truth[name]
        if any(event.label == true.label and overlaps(true, event, 0.0) for event in events)
    ]
    late = {"median": float(np.median(delays)), "p90": float(np.quantile(delays, 0.9))} if delays else {}
    return {**figures, "alert_delay_seconds": {"median": None, "p90": None} | late}


def _replayed(
    recording: Path, name: str, ready: Prepared, settings: InferSettings, is_stopped: Callable[[], bool]
) -> tuple[list[Happening], float]:
    """What happens in a recording, and how many seconds of it were looked at."""
    last = 0.0
    with (
        brain_for(ready, settings, {name: None}) as brain,
        open_cameras([Camera(name, str(recording))], ready.spec.preprocessing, ready.grid.fps, is_paced=False) as live,
        progress_bar(0, what="replay", unit="s") as bar,
    ):

        def look(items: Sequence[LiveFrame | Notice]) -> None:
            nonlocal last
            times = brain.watchers[name].stream.times
            last = max(last, times[-1] if times else 0.0)
            bar.update(int(last) - bar.n)

        happenings = list(watch(live, brain, is_stopped=is_stopped, onlookers=[look]))
    return happenings, last + 0.5 / ready.grid.fps
