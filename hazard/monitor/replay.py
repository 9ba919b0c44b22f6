"""hazard.monitor.replay."""

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
    ready = load_detector_setup(model_folder, settings)
    labels = [rule.label for rule in ready.decision.rules]
    check_truth(settings.truth, truth, paths=[name], labels=labels)
    happenings, seconds = _replay_recording(recording, name, ready, settings, is_quiet=is_quiet, is_stopped=is_stopped)
    told = dict(collect_events(happenings).get(name, []))
    tolerance = settings.tolerance_seconds
    figures = evaluate_events([EvaluatedVideo(name, seconds, truth[name], list(told))], tolerance_seconds=tolerance)
    delays = [
        min(told[event] for event in found) - true.start
        for true in truth[name]
        if (found := list(find_matching_events(true, told, tolerance)))
    ]
    late = {"median": float(np.median(delays)), "p90": float(np.quantile(delays, 0.9))} if delays else {}
    return {**figures, "alert_delay_seconds": {"median": None, "p90": None} | late}


def _replay_recording(
    recording: Path,
    name: str,
    setup: DetectorSetup,
    settings: InferSettings,
    *,
    is_quiet: bool,
    is_stopped: Callable[[], bool],
) -> tuple[list[CameraEvent], float]:
    """What happens in a recording, and how many seconds of it were looked at."""
    last = 0.0
    with (
        open_detector(setup, settings, {name: None}) as brain,
        open_cameras([Camera(name, str(recording))], setup.spec.preprocessing, setup.grid.fps, is_paced=False) as live,
        make_progress_bar(0, description="replay", unit="s", is_shown=not is_quiet) as bar,
    ):

        def look(items: Sequence[LiveFrame | StatusChange]) -> None:
            nonlocal last
            times = brain.watchers[name].window_buffer.times
            last = max(last, times[-1] if times else 0.0)
            bar.update(int(last) - bar.n)

        happenings = list(watch_cameras(live, brain, is_stopped=is_stopped, observers=[look]))
    return happenings, last + 0.5 / setup.grid.fps
