"""A monitor from settings: made ready, run, or given a recording to be measured by."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import ClipError, SettingsError
from features.live import LiveFrame, LiveSet, Notice, open_cameras
from features.live_source import Camera
from features.opening import check_video
from features.progress import progress_bar
from features.runtimes import open_encoder
from features.spec import FeatureSpec
from features.words import counted
from hazard.alert_config import AlertSettings
from hazard.alerts import Alert, as_json
from hazard.bind_address import parse_bind_address
from hazard.cameras import CameraSettings
from hazard.cutting import windows_of
from hazard.decide import Decision
from hazard.delivery import delivering
from hazard.desk import OUTBOX, Desk, open_desk
from hazard.event_clips import kept_seconds
from hazard.event_truth import Watched, check_truth, evaluate_events, finders, read_truth
from hazard.exposition import Exposition
from hazard.infer_config import InferSettings
from hazard.model import Predictor
from hazard.model_files import open_model
from hazard.model_source import read_source
from hazard.monitor import Brain, Happening, Onlooker, events_of, watch
from hazard.monitor_config import MonitorSettings
from hazard.predict import check_spec, model_weights
from hazard.pulse import PULSE, PulseFile
from hazard.scraping import scrapable
from hazard.screen import open_screen
from hazard.structured import Say
from hazard.tally import Tally
from hazard.thresholds import decision
from hazard.upkeep import Upkeep
from hazard.watching import Grid, Watcher, live_grid, with_threshold

PRELOAD = ("features.live_reader", "hazard.channels")
"""What the fork server imports for readers and couriers; it may not hold OpenVINO."""
LAST_CLIPS_SECONDS = 5.0
"""How long the last clips may take to be written when watching ends."""
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
    with open_encoder(ready.spec, ready.weights, settings) as encoder:
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
    echo: Say,
) -> None:
    """Watches until it is stopped, or all cameras are files that ended; what happens is in `output`.

    Raises SettingsError, ArtefactRefused and EnvironmentStopped, before any camera is opened where it can.
    """
    output.mkdir(parents=True, exist_ok=True)
    ready = prepared(model_folder, settings)
    by_name = {camera.name: camera for camera in cameras}
    tally = Tally()
    with ExitStack() as stack:
        outbox = stack.enter_context(delivering(output / OUTBOX, alerts, preload=PRELOAD)) if alerts else None
        if watching.metrics:
            exposition = Exposition(tally, outbox.counts if outbox else None)
            url = stack.enter_context(scrapable(exposition, parse_bind_address(watching.metrics)))
            echo(f"metrics at {url}", url=url)
        desk = stack.enter_context(
            open_desk(output, outbox, watching, is_watched=lambda name, moment: by_name[name].is_watched(moment))
        )
        brain = stack.enter_context(brain_for(ready, settings, {name: c.threshold for name, c in by_name.items()}))
        screen = stack.enter_context(open_screen(brain, cameras)) if is_shown else None
        live = stack.enter_context(
            open_cameras(
                [camera.camera for camera in cameras],
                ready.spec.preprocessing,
                ready.grid.fps,
                picture_width=PICTURE_WIDTH,
                silence_seconds=watching.silence_seconds,
                offline=set(desk.standing.offline),
                clip_seconds=kept_seconds(watching, late_seconds(ready)),
                preload=PRELOAD,
            )
        )

        def tell(alert: Alert) -> None:
            tally.alerted(alert)
            at = f"{alert.started:%Y-%m-%d %H:%M:%S} UTC"
            echo(f"{alert.kind} {alert.camera} {alert.label} {at}", **as_json(alert))

        def is_over() -> bool:
            return is_stopped() or (screen is not None and screen.is_closed)

        upkeep = Upkeep(desk, brain, live, tell, time.monotonic, PulseFile(output / PULSE))
        stack.callback(upkeep.end)
        onlookers: list[Onlooker] = [upkeep, tally.looking_at(live, labels_of(brain), desk.muted)]
        onlookers += [screen] if screen else []
        echo(
            f"watching {counted(len(cameras), 'camera')}, {ready.grid.fps:.1f} frames a second of each",
            cameras=[*by_name],
            fps=ready.grid.fps,
        )
        for happening in watch(live, brain, is_stopped=is_over, onlookers=onlookers):
            tally.happened(happening)
            if alert := desk.take(happening):
                tell(alert)
        write_last_clips(desk, live)


def write_last_clips(desk: Desk, live: LiveSet) -> None:
    """What was not yet asked for, as far as it has come: watching ends."""
    desk.clips.flush(live.record)
    until = time.monotonic() + LAST_CLIPS_SECONDS
    while live.is_writing and time.monotonic() < until:
        live.poll(0.1)


def labels_of(brain: Brain) -> dict[str, list[str]]:
    """By camera, what its events may be called."""
    return {name: [rule.label for rule in one.decision.rules] for name, one in brain.watchers.items()}


def late_seconds(ready: Prepared) -> float:
    """How long after its end an event is known to be over, at most, where frames come in time."""
    grid = ready.grid
    return (grid.rows + 2 * grid.stride) / grid.fps + max(rule.merge_seconds for rule in ready.decision.rules)


def evaluate_recording(
    recording: Path,
    model_folder: Path,
    settings: InferSettings,
    *,
    is_quiet: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """What `evaluate_events` says of a recording that is replayed as if live, and how late alerts come.

    Every frame on the grid is looked at, as fast as the machine allows, behind a progress bar unless `is_quiet`. Raises
    SettingsError without true events of it, and where it is no video.
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
    happenings, seconds = _replayed(recording, name, ready, settings, is_quiet=is_quiet, is_stopped=is_stopped)
    told = dict(events_of(happenings).get(name, []))
    tolerance = settings.tolerance_seconds
    figures = evaluate_events([Watched(name, seconds, truth[name], list(told))], tolerance_seconds=tolerance)
    delays = [
        min(told[event] for event in found) - true.start
        for true in truth[name]
        if (found := list(finders(true, told, tolerance)))
    ]
    late = {"median": float(np.median(delays)), "p90": float(np.quantile(delays, 0.9))} if delays else {}
    return {**figures, "alert_delay_seconds": {"median": None, "p90": None} | late}


def _replayed(
    recording: Path,
    name: str,
    ready: Prepared,
    settings: InferSettings,
    *,
    is_quiet: bool,
    is_stopped: Callable[[], bool],
) -> tuple[list[Happening], float]:
    """What happens in a recording, and how many seconds of it were looked at."""
    last = 0.0
    with (
        brain_for(ready, settings, {name: None}) as brain,
        open_cameras([Camera(name, str(recording))], ready.spec.preprocessing, ready.grid.fps, is_paced=False) as live,
        progress_bar(0, what="replay", unit="s", is_shown=not is_quiet) as bar,
    ):

        def look(items: Sequence[LiveFrame | Notice]) -> None:
            nonlocal last
            times = brain.watchers[name].stream.times
            last = max(last, times[-1] if times else 0.0)
            bar.update(int(last) - bar.n)

        happenings = list(watch(live, brain, is_stopped=is_stopped, onlookers=[look]))
    return happenings, last + 0.5 / ready.grid.fps
