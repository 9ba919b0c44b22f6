"""hazard.monitor.setup."""

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
from hazard.monitor.detector import LiveDetector
from hazard.monitor.live_windows import WindowGrid, make_window_grid
from hazard.monitor.watcher import CameraWatcher, replace_threshold


@dataclass(frozen=True)
class DetectorSetup:
    """All that watching needs besides cameras."""

    spec: FeatureSpec
    weights: Path | None
    predictor: Predictor
    decision: Decision
    grid: WindowGrid


def load_detector_setup(model_folder: Path, settings: InferSettings) -> DetectorSetup:
    """Opens the model. Raises SettingsError and ArtefactRefused where it cannot watch."""
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
    """One watcher a camera, each with its own threshold where it has one."""
    watchers = {
        name: CameraWatcher(replace_threshold(setup.decision, own), setup.grid) for name, own in thresholds.items()
    }
    with open_encoder(setup.spec, setup.weights, settings) as encoder:
        yield LiveDetector(setup.predictor, encoder, watchers)


def labels_by_camera(detector: LiveDetector) -> dict[str, list[str]]:
    """By camera, what its events may be called."""
    return {name: [rule.label for rule in one.decision.rules] for name, one in detector.watchers.items()}


def max_delay_seconds(setup: DetectorSetup) -> float:
    """How long after its end an event is known to be over, at most, where frames come in time."""
    grid = setup.grid
    return (grid.window_frames + 2 * grid.stride_frames) / grid.fps + max(
        rule.merge_seconds for rule in setup.decision.rules
    )
