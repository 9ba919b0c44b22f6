"""hazard.monitor.setup."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from features.encoders.factory import open_encoder
from features.spec import FeatureSpec
from hazard.events.decision import Decision
from hazard.inference.settings import InferSettings
from hazard.inference.thresholds import decision
from hazard.inference.windowing import windows_of
from hazard.models.input_spec import check_spec, model_weights, read_source
from hazard.models.model_folder import open_model
from hazard.models.predictor import Predictor
from hazard.monitor.detector import Brain
from hazard.monitor.live_windows import Grid, live_grid
from hazard.monitor.watcher import Watcher, with_threshold


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


def labels_of(brain: Brain) -> dict[str, list[str]]:
    """By camera, what its events may be called."""
    return {name: [rule.label for rule in one.decision.rules] for name, one in brain.watchers.items()}


def late_seconds(ready: Prepared) -> float:
    """How long after its end an event is known to be over, at most, where frames come in time."""
    grid = ready.grid
    return (grid.rows + 2 * grid.stride) / grid.fps + max(rule.merge_seconds for rule in ready.decision.rules)
