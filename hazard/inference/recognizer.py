"""hazard.inference.recognizer."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hazard.events.decision import Decision
from hazard.inference.settings import InferSettings

if TYPE_CHECKING:
    from hazard.inference.zero_shot import ZeroShotNamer
    from hazard.models.predictor import Predictor


@dataclass(frozen=True)
class Recognizer:
    """A model that is open, by what its probabilities become labels and events, and who names unknown clips."""

    predictor: "Predictor"
    decision: Decision
    namer: "ZeroShotNamer | None"


def open_recognizer(model_folder: Path, settings: InferSettings, *, stride_seconds: float) -> Recognizer:
    """Opens the model; importing what that needs takes seconds. Raises as `open_model`, `decision`, `open_zero_shot_namer` do."""
    from hazard.inference.thresholds import make_decision
    from hazard.models.model_folder import open_model

    namer = None
    if settings.zero_shot:
        from hazard.inference.zero_shot import open_zero_shot_namer

        namer = open_zero_shot_namer(settings.zero_shot, settings.device)
    predictor = open_model(model_folder)
    rules = make_decision(predictor, model_folder, settings, stride_seconds=stride_seconds)
    return Recognizer(
        predictor, replace(rules, unknown_from=predictor.find_ood_threshold(settings.unknown_share)), namer
    )
