"""An open model together with its decision rule and the zero-shot namer of unknown clips."""

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
    """An open model, the rule that turns its probabilities into labels and events, and the namer of unknown clips."""

    predictor: "Predictor"
    decision: Decision
    namer: "ZeroShotNamer | None"


def open_recognizer(model_folder: Path, settings: InferSettings, *, stride_seconds: float) -> Recognizer:
    """Open the model, its decision rule and, with the setting `zero_shot`, the namer. The imports take seconds.

    Raises the errors of `open_model`, `make_decision` and `open_zero_shot_namer`.
    """
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
