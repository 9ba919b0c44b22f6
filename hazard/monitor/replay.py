"""Evaluation of a monitor on a recording, which is replayed as if it were a live camera."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import ClipError, SettingsError
from features.live.cameras import open_cameras
from features.live.source import Camera
from features.live.types import LiveFrame, StatusChange
from features.utils.progress import make_progress_bar
from features.video.container import check_video
from hazard.events.ground_truth import EvaluatedVideo, check_truth, evaluate_events, find_matching_events, read_truth
from hazard.inference.settings import InferSettings
from hazard.monitor.detector import CameraEvent, collect_events, watch_cameras
from hazard.monitor.setup import DetectorSetup, load_detector_setup, open_detector


def evaluate_recording(
    recording: Path,
    model_folder: Path,
    settings: InferSettings,
    *,
    is_quiet: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Replay a recording as if live, and return the metrics of `evaluate_events` and the delays of alerts in seconds.

    Every frame on the grid is processed, as fast as the machine allows, with a progress bar unless `is_quiet`. Raises
    SettingsError if the recording is not a video or the truth file has no events of it.
    """
    if settings.truth is None:
        raise SettingsError("--evaluate needs --truth FILE: a CSV of true events with the columns path,start,end,label")
    truth, name = read_truth(settings.truth), recording.name
    try:
        check_video(recording)
    except ClipError as error:
        raise SettingsError(f"{recording} cannot be replayed: {error.reason}; give a video file") from None
    setup = load_detector_setup(model_folder, settings)
    labels = [rule.label for rule in setup.decision.rules]
    check_truth(settings.truth, truth, paths=[name], labels=labels)
    camera_events, seconds = _replay_recording(
        recording, name, setup, settings, is_quiet=is_quiet, is_stopped=is_stopped
    )
    detected_at = dict(collect_events(camera_events).get(name, []))
    tolerance = settings.tolerance_seconds
    video = EvaluatedVideo(name, seconds, truth[name], list(detected_at))
    metrics = evaluate_events([video], tolerance_seconds=tolerance)
    delays = [
        min(detected_at[event] for event in matching) - true_event.start
        for true_event in truth[name]
        if (matching := list(find_matching_events(true_event, detected_at, tolerance)))
    ]
    quantiles = {"median": float(np.median(delays)), "p90": float(np.quantile(delays, 0.9))} if delays else {}
    return {**metrics, "alert_delay_seconds": {"median": None, "p90": None} | quantiles}


def _replay_recording(
    recording: Path,
    name: str,
    setup: DetectorSetup,
    settings: InferSettings,
    *,
    is_quiet: bool,
    is_stopped: Callable[[], bool],
) -> tuple[list[CameraEvent], float]:
    """Return the camera events of a recording, and how many seconds of it were processed."""
    last_time = 0.0
    with (
        open_detector(setup, settings, {name: None}) as detector,
        open_cameras([Camera(name, str(recording))], setup.spec.preprocessing, setup.grid.fps, is_paced=False) as live,
        make_progress_bar(0, description="replay", unit="s", is_shown=not is_quiet) as bar,
    ):

        def update_progress(items: Sequence[LiveFrame | StatusChange]) -> None:
            nonlocal last_time
            times = detector.watchers[name].window_buffer.times
            last_time = max(last_time, times[-1] if times else 0.0)
            bar.update(int(last_time) - bar.n)

        camera_events = list(watch_cameras(live, detector, is_stopped=is_stopped, observers=[update_progress]))
    return camera_events, last_time + 0.5 / setup.grid.fps
