"""hazard.inference.recognizer."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hazard.events.decision import Decision
from hazard.inference.settings import InferSettings

if TYPE_CHECKING:
    from hazard.inference.zero_shot import Namer
    from hazard.models.predictor import Predictor


@dataclass(frozen=True)
class Judge:
    """A model that is open, by what its probabilities become labels and events, and who names unknown clips."""

    predictor: "Predictor"
    decision: Decision
    namer: "Namer | None"


def open_judge(model_folder: Path, settings: InferSettings, *, stride_seconds: float) -> Judge:
    """Opens the model; importing what that needs takes seconds. Raises as `open_model`, `decision`, `open_namer` do."""
    from hazard.inference.thresholds import decision
    from hazard.models.model_folder import open_model

    namer = None
    if settings.zero_shot:
        from hazard.inference.zero_shot import open_namer

        namer = open_namer(settings.zero_shot, settings.device)
    predictor = open_model(model_folder)
    rules = decision(predictor, model_folder, settings, stride_seconds=stride_seconds)
    return Judge(predictor, replace(rules, unknown_from=predictor.unknown_from(settings.unknown_share)), namer)
