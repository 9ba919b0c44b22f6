"""A monitor from settings: made ready, run, or given a recording to be measured by."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from features.live.cameras import LiveCameras, open_cameras
from features.utils.text import format_count
from hazard.alerts.alert import Alert, as_json
from hazard.alerts.delivery import deliver_alerts
from hazard.alerts.settings import AlertSettings
from hazard.inference.settings import InferSettings
from hazard.monitor.cameras import CameraSettings
from hazard.monitor.detector import Observer, watch_cameras
from hazard.monitor.display.screen import open_screen
from hazard.monitor.events.event_clips import buffer_seconds
from hazard.monitor.events.event_processor import OUTBOX_FILE_NAME, EventProcessor, open_event_processor
from hazard.monitor.housekeeping.heartbeat import HEARTBEAT_FILE_NAME, HeartbeatFile
from hazard.monitor.housekeeping.maintenance import Maintenance
from hazard.monitor.metrics.counters import MonitorCounters
from hazard.monitor.metrics.prometheus import MetricsCollector
from hazard.monitor.metrics.server import serve_metrics
from hazard.monitor.settings import MonitorSettings
from hazard.monitor.setup import labels_by_camera, load_detector_setup, max_delay_seconds, open_detector
from hazard.utils.bind_address import parse_bind_address
from hazard.utils.structured_logging import MessagePrinter

PRELOAD = ("features.live.reader", "hazard.alerts.channels")
"""What the fork server imports for readers and couriers; it may not hold OpenVINO."""

LAST_CLIPS_TIMEOUT_SECONDS = 5.0
"""How long the last clips may take to be written when watching ends."""

SNAPSHOT_WIDTH_PIXELS = 640
"""Of snapshots, in pixels."""


def run_monitor(
    cameras: Sequence[CameraSettings],
    model_folder: Path,
    output: Path,
    settings: InferSettings,
    monitor_settings: MonitorSettings,
    *,
    alerts: AlertSettings | None,
    is_shown: bool = False,
    is_stopped: Callable[[], bool],
    echo: MessagePrinter,
) -> None:
    """Watches until it is stopped, or all cameras are files that ended; what happens is in `output`.

    Raises SettingsError, ArtefactRefused and EnvironmentStopped, before any camera is opened where it can.
    """
    output.mkdir(parents=True, exist_ok=True)
    ready = load_detector_setup(model_folder, settings)
    by_name = {camera.name: camera for camera in cameras}
    tally = MonitorCounters()
    with ExitStack() as stack:
        outbox = (
            stack.enter_context(deliver_alerts(output / OUTBOX_FILE_NAME, alerts, preload=PRELOAD)) if alerts else None
        )
        if monitor_settings.metrics:
            exposition = MetricsCollector(tally, outbox.count_by_state if outbox else None)
            url = stack.enter_context(serve_metrics(exposition, parse_bind_address(monitor_settings.metrics)))
            echo(f"metrics at {url}", url=url)
        desk = stack.enter_context(
            open_event_processor(
                output, outbox, monitor_settings, is_watched=lambda name, moment: by_name[name].is_watched(moment)
            )
        )
        brain = stack.enter_context(open_detector(ready, settings, {name: c.threshold for name, c in by_name.items()}))
        screen = stack.enter_context(open_screen(brain, cameras)) if is_shown else None
        live = stack.enter_context(
            open_cameras(
                [camera.camera for camera in cameras],
                ready.spec.preprocessing,
                ready.grid.fps,
                thumbnail_width=SNAPSHOT_WIDTH_PIXELS,
                silence_seconds=monitor_settings.silence_seconds,
                offline_cameras=set(desk.state.offline_since),
                clip_seconds=buffer_seconds(monitor_settings, max_delay_seconds(ready)),
                preload=PRELOAD,
            )
        )

        def tell(alert: Alert) -> None:
            tally.count_alert(alert)
            at = f"{alert.started:%Y-%m-%d %H:%M:%S} UTC"
            echo(f"{alert.kind} {alert.camera} {alert.label} {at}", **as_json(alert))

        def is_over() -> bool:
            return is_stopped() or (screen is not None and screen.is_closed)

        upkeep = Maintenance(desk, brain, live, tell, time.monotonic, HeartbeatFile(output / HEARTBEAT_FILE_NAME))
        stack.callback(upkeep.end)
        onlookers: list[Observer] = [upkeep, tally.make_observer(live, labels_by_camera(brain), desk.muted_counts)]
        onlookers += [screen] if screen else []
        echo(
            f"watching {format_count(len(cameras), 'camera')}, {ready.grid.fps:.1f} frames a second of each",
            cameras=[*by_name],
            fps=ready.grid.fps,
        )
        for happening in watch_cameras(live, brain, is_stopped=is_over, observers=onlookers):
            tally.count_event(happening)
            if alert := desk.process(happening):
                tell(alert)
        write_last_clips(desk, live)


def write_last_clips(processor: EventProcessor, live: LiveCameras) -> None:
    """What was not yet asked for, as far as it has come: watching ends."""
    processor.clips.record_all(live.record)
    until = time.monotonic() + LAST_CLIPS_TIMEOUT_SECONDS
    while live.is_writing and time.monotonic() < until:
        live.poll(0.1)
