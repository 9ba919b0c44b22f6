"""A monitor from settings: made ready, run, or given a recording to be measured by."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from features.live.cameras import LiveSet, open_cameras
from features.utils.text import counted
from hazard.alerts.alert import Alert, as_json
from hazard.alerts.delivery import delivering
from hazard.alerts.settings import AlertSettings
from hazard.inference.settings import InferSettings
from hazard.monitor.cameras import CameraSettings
from hazard.monitor.detector import Onlooker, watch
from hazard.monitor.display.screen import open_screen
from hazard.monitor.events.event_clips import kept_seconds
from hazard.monitor.events.event_processor import OUTBOX, Desk, open_desk
from hazard.monitor.housekeeping.heartbeat import PULSE, PulseFile
from hazard.monitor.housekeeping.maintenance import Upkeep
from hazard.monitor.metrics.counters import Tally
from hazard.monitor.metrics.prometheus import Exposition
from hazard.monitor.metrics.server import scrapable
from hazard.monitor.settings import MonitorSettings
from hazard.monitor.setup import brain_for, labels_of, late_seconds, prepared
from hazard.utils.bind_address import parse_bind_address
from hazard.utils.structured_logging import Say

PRELOAD = ("features.live.reader", "hazard.alerts.channels")
"""What the fork server imports for readers and couriers; it may not hold OpenVINO."""

LAST_CLIPS_SECONDS = 5.0
"""How long the last clips may take to be written when watching ends."""

PICTURE_WIDTH = 640
"""Of snapshots, in pixels."""


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
