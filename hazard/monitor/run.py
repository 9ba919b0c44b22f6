"""The run of a live monitor: opens cameras, detector, event processor, alerts, metrics and window, and runs them."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from features.live.cameras import LiveCameras, open_cameras
from features.utils.text import format_count
from hazard.alerts.alert import Alert, alert_to_json
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
"""Modules that the fork server imports for camera readers and delivery processes. They must not import OpenVINO."""

LAST_CLIPS_TIMEOUT_SECONDS = 5.0
"""Longest wait for the last clips when the monitor stops."""

SNAPSHOT_WIDTH_PIXELS = 640
"""Width of snapshots."""


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
    """Run a monitor until `is_stopped()`, until its window is closed, or until all sources are files that have ended.

    All results are written to the folder `output`. Raises SettingsError, ArtifactError or RuntimeEnvironmentError, if
    possible before any camera is opened.
    """
    output.mkdir(parents=True, exist_ok=True)
    setup = load_detector_setup(model_folder, settings)
    by_name = {camera.name: camera for camera in cameras}
    counters = MonitorCounters()
    with ExitStack() as stack:
        outbox = (
            stack.enter_context(deliver_alerts(output / OUTBOX_FILE_NAME, alerts, preload=PRELOAD)) if alerts else None
        )
        if monitor_settings.metrics:
            collector = MetricsCollector(counters, outbox.count_by_state if outbox else None)
            url = stack.enter_context(serve_metrics(collector, parse_bind_address(monitor_settings.metrics)))
            echo(f"metrics at {url}", url=url)
        processor = stack.enter_context(
            open_event_processor(
                output, outbox, monitor_settings, is_watched=lambda name, time: by_name[name].is_watched(time)
            )
        )
        detector = stack.enter_context(
            open_detector(setup, settings, {camera.name: camera.threshold for camera in cameras})
        )
        screen = stack.enter_context(open_screen(detector, cameras)) if is_shown else None
        live = stack.enter_context(
            open_cameras(
                [camera.camera for camera in cameras],
                setup.spec.preprocessing,
                setup.grid.fps,
                thumbnail_width=SNAPSHOT_WIDTH_PIXELS,
                silence_seconds=monitor_settings.silence_seconds,
                offline_cameras=set(processor.state.offline_since),
                clip_seconds=buffer_seconds(monitor_settings, max_delay_seconds(setup)),
                preload=PRELOAD,
            )
        )

        def report_alert(alert: Alert) -> None:
            counters.count_alert(alert)
            started = f"{alert.started:%Y-%m-%d %H:%M:%S} UTC"
            echo(f"{alert.kind} {alert.camera} {alert.label} {started}", **alert_to_json(alert))

        def is_finished() -> bool:
            return is_stopped() or (screen is not None and screen.is_closed)

        heartbeat_file = HeartbeatFile(output / HEARTBEAT_FILE_NAME)
        maintenance = Maintenance(processor, detector, live, report_alert, time.monotonic, heartbeat_file)
        stack.callback(maintenance.end)
        count_items = counters.make_observer(live, labels_by_camera(detector), processor.muted_counts)
        observers: list[Observer] = [maintenance, count_items]
        observers += [screen] if screen else []
        echo(
            f"watching {format_count(len(cameras), 'camera')}, {setup.grid.fps:.1f} frames per second each",
            cameras=[*by_name],
            fps=setup.grid.fps,
        )
        for camera_event in watch_cameras(live, detector, is_stopped=is_finished, observers=observers):
            counters.count_event(camera_event)
            if alert := processor.process(camera_event):
                report_alert(alert)
        write_last_clips(processor, live)


def write_last_clips(processor: EventProcessor, live: LiveCameras) -> None:
    """Request the clips that are still planned, and wait until they are written, at most for a few seconds."""
    processor.event_clips.record_all(live.record)
    deadline = time.monotonic() + LAST_CLIPS_TIMEOUT_SECONDS
    while live.is_writing and time.monotonic() < deadline:
        live.poll(0.1)
