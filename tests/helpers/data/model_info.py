"""The content of model.json for a small model of `make_moving_sequences`, for tests that save models."""

from typing import Any

from hazard.models.input_spec import TrainingWindow
from hazard.models.predictor import ModelInfo, library_versions
from hazard.models.settings import TrainSettings
from tests.helpers.data.sequences import WIDTH, make_cache, make_moving_sequences

DATA = make_moving_sequences(clips=40)
SPEC = make_cache(DATA).spec


def make_model_info(kind: str, name: str, **changes: Any) -> ModelInfo:
    """Return the info of a model of this kind and name. `changes` replace its fields."""
    fields = {
        "kind": kind,
        "name": name,
        "settings": TrainSettings(hidden_size=4, projection=4, members=2),
        "labels": DATA.labels,
        "positive_label": "fight",
        "width": WIDTH,
        "feature_spec": SPEC.model_dump(mode="json"),
        "fingerprint": SPEC.fingerprint,
        "reduction_kind": "select:12",
        "weights_file": "weights.pth",
        "window": TrainingWindow(duration_seconds=2.0, steps=8),
        "cache_digest": "d",
        "split": "5 folds",
        "groups_known": True,
        "libraries": library_versions(),
    }
    return ModelInfo(**(fields | changes))
