"""The model of a monitor: opened, checked and put together with one watcher per camera."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from features.encoders.factory import open_encoder
from features.spec import FeatureSpec
from hazard.events.decision import Decision
from hazard.inference.settings import InferSettings
from hazard.inference.thresholds import make_decision
from hazard.inference.windowing import choose_windows
from hazard.models.input_spec import check_model_spec, find_model_weights, read_input_spec
from hazard.models.model_folder import open_model
from hazard.models.predictor import Predictor
from hazard.monitor.camera_watcher import CameraWatcher, replace_threshold
from hazard.monitor.detector import LiveDetector
from hazard.monitor.live_windows import WindowGrid, make_window_grid


@dataclass(frozen=True)
class DetectorSetup:
    """The model, its decision rule and its window grid."""

    spec: FeatureSpec
    weights: Path | None
    predictor: Predictor
    decision: Decision
    grid: WindowGrid


def load_detector_setup(model_folder: Path, settings: InferSettings) -> DetectorSetup:
    """Open the model. Raises SettingsError or ArtifactError if it cannot be used with live cameras."""
    source = read_input_spec(model_folder)
    check_model_spec(source.spec)
    windows = choose_windows(source, settings)
    grid = make_window_grid(source, windows)
    weights = find_model_weights(source.spec, settings.weights, hint=source.weights_file)
    predictor = open_model(model_folder)
    rules = make_decision(predictor, model_folder, settings, stride_seconds=windows.stride_seconds)
    return DetectorSetup(source.spec, weights, predictor, rules, grid)


@contextmanager
def open_detector(
    setup: DetectorSetup, settings: InferSettings, thresholds: Mapping[str, float | None]
) -> Iterator[LiveDetector]:
    """Open the detector. `thresholds` holds each camera's own threshold, or None for that of all cameras."""
    watchers = {
        name: CameraWatcher(replace_threshold(setup.decision, threshold), setup.grid)
        for name, threshold in thresholds.items()
    }
    with open_encoder(setup.spec, setup.weights, settings) as encoder:
        yield LiveDetector(setup.predictor, encoder, watchers)


def labels_by_camera(detector: LiveDetector) -> dict[str, list[str]]:
    """Return the labels that events may have, by camera."""
    return {name: [rule.label for rule in watcher.decision.rules] for name, watcher in detector.watchers.items()}


def max_delay_seconds(setup: DetectorSetup) -> float:
    """Return the longest time in seconds from the end of an event until the end is detected, if no frame is late."""
    grid = setup.grid
    return (grid.window_frames + 2 * grid.stride_frames) / grid.fps + max(
        rule.merge_seconds for rule in setup.decision.rules
    )
