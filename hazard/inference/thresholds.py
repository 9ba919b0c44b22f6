"""Settings and a saved model → the Decision that its probabilities are judged by."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from features.errors import SettingsError
from features.utils.text import nearest
from hazard.events.decision import Decision
from hazard.events.rule import EventRule
from hazard.inference.settings import InferSettings
from hazard.metrics.classification import HARMLESS, guess_positive
from hazard.metrics.operating_points import OperatingPoint
from hazard.models.predictor import Predictor

LEAVE_SHARE = 0.8
"""An event goes on down to this share of the threshold that it began at."""
LEAST = math.ulp(0.0)
"""What a threshold of 0 means to a rule: whatever is not impossible."""


def decision(predictor: Predictor, model_folder: Path, settings: InferSettings, *, stride_seconds: float) -> Decision:
    """By what labels are given and events found: the settings' word first, then the model's.

    Raises SettingsError for thresholds that make no rule, for labels that the model does not know, and for a number of
    false alarms per hour that its evaluation says nothing about.
    """
    threshold = chosen_threshold(predictor, model_folder, settings)
    enter = max(threshold, LEAST)
    timing = {
        "min_seconds": settings.min_seconds,
        "merge_seconds": stride_seconds if settings.merge_seconds is None else settings.merge_seconds,
        "cooldown_seconds": settings.cooldown_seconds,
    }
    leave = _leave(enter, settings.leave)
    return Decision(
        labels=predictor.labels,
        positive_label=predictor.positive_label or "",
        threshold=threshold,
        rules=tuple(
            EventRule(label, predictor.labels.index(label), enter=enter, leave=leave, **timing)
            for label in event_labels(predictor, settings.event_labels)
        ),
    )


def chosen_threshold(predictor: Predictor, model_folder: Path, settings: InferSettings) -> float:
    """The threshold itself, else that of the false alarms per hour, else the model's own."""
    if settings.threshold is not None:
        return settings.threshold
    if settings.false_alarms_per_hour is not None:
        return point_for(predictor, model_folder, settings.false_alarms_per_hour).threshold
    return predictor.threshold


def point_for(predictor: Predictor, model_folder: Path, most: float) -> OperatingPoint:
    """The point of metrics.json that raised most false alarms per hour, and yet no more than `most`.

    One decision a clip: docs/events.md says what that means for windows. Raises SettingsError where there is none.
    """
    points = _points(predictor, model_folder)
    allowed = [point for point in points if point.achieved <= most]
    if not allowed:
        lowest = min(points, key=lambda point: point.achieved)
        raise SettingsError(
            f"{most:g} false alarms per hour are fewer than {model_folder} was measured at: the least is "
            f"{lowest.achieved:.3g}, at threshold {lowest.threshold:.3g}; ask for no fewer, give --threshold, "
            f"or train with --false-alarms-per-hour {most:g}"
        )
    return max(allowed, key=lambda point: (point.achieved, -point.threshold))


def event_labels(predictor: Predictor, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """What events are found of: what is wanted, else the positive label, else every label that sounds alarming.

    Raises SettingsError for a label that the model does not know.
    """
    for name in wanted:
        if name not in predictor.labels:
            raise SettingsError(
                f"setting 'event_labels': the model knows no label '{name}'; {nearest(name, predictor.labels)}"
            )
    if wanted:
        return tuple(dict.fromkeys(wanted))
    if predictor.positive_label:
        return (predictor.positive_label,)
    alarming = tuple(label for label in predictor.labels if not HARMLESS.match(label.lower()))
    return alarming or (guess_positive(predictor.labels),)


def _leave(enter: float, wanted: float | None) -> float:
    if wanted is None:
        return max(LEAVE_SHARE * enter, LEAST)
    if wanted > enter:
        raise SettingsError(
            f"an event cannot end above where it begins: leave is {wanted:g}, the threshold {enter:g}; "
            "give a lower leave or a higher threshold"
        )
    return max(wanted, LEAST)


def _points(predictor: Predictor, model_folder: Path) -> list[OperatingPoint]:
    """What the model's evaluation says of false alarms per hour, which may be nothing."""
    if predictor.positive_label is None:
        raise SettingsError(
            f"false alarms per hour are known of models with two labels, this one has {len(predictor.labels)}; "
            "give --threshold"
        )
    file = model_folder / "metrics.json"
    try:
        points = [OperatingPoint(**each) for each in json.loads(file.read_bytes())["false_alarms_per_hour"] or ()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{file} does not say how many false alarms per hour a threshold means ({_said(error)}); give --threshold, "
            "or train again with --false-alarms-per-hour"
        ) from None
    if not points:
        raise SettingsError(
            f"{file} knows no false alarms per hour: some clip's duration was unknown, or one label had no clips; "
            "give --threshold, or train with --false-alarms-per-hour on clips whose durations are known"
        )
    return points


def _said(error: Exception) -> str:
    return f"no {error} in it" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
