"""Settings and a saved model → the Decision that its probabilities are judged by."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from features.errors import SettingsError
from features.utils.text import suggest_name
from hazard.events.decision import Decision
from hazard.events.rule import EventRule
from hazard.inference.settings import InferSettings
from hazard.metrics.classification import HARMLESS_LABEL, guess_positive
from hazard.metrics.operating_points import OperatingPoint
from hazard.models.predictor import Predictor

OFF_THRESHOLD_SHARE = 0.8
"""An event goes on down to this share of the threshold that it began at."""
MIN_EVENT_THRESHOLD = math.ulp(0.0)
"""What a threshold of 0 means to a rule: whatever is not impossible."""


def make_decision(
    predictor: Predictor, model_folder: Path, settings: InferSettings, *, stride_seconds: float
) -> Decision:
    """By what labels are given and events found: the settings' word first, then the model's.

    Raises SettingsError for thresholds that make no rule, for labels that the model does not know, and for a number of
    false alarms per hour that its evaluation says nothing about.
    """
    threshold = choose_threshold(predictor, model_folder, settings)
    enter = max(threshold, MIN_EVENT_THRESHOLD)
    timing = {
        "min_seconds": settings.min_seconds,
        "merge_seconds": stride_seconds if settings.merge_seconds is None else settings.merge_seconds,
        "cooldown_seconds": settings.cooldown_seconds,
    }
    leave = _choose_off_threshold(enter, settings.leave)
    return Decision(
        labels=predictor.labels,
        positive_label=predictor.positive_label or "",
        threshold=threshold,
        rules=tuple(
            EventRule(label, predictor.labels.index(label), enter=enter, leave=leave, **timing)
            for label in choose_event_labels(predictor, settings.event_labels)
        ),
    )


def choose_threshold(predictor: Predictor, model_folder: Path, settings: InferSettings) -> float:
    """The threshold itself, else that of the false alarms per hour, else the model's own."""
    if settings.threshold is not None:
        return settings.threshold
    if settings.false_alarms_per_hour is not None:
        return find_operating_point(predictor, model_folder, settings.false_alarms_per_hour).threshold
    return predictor.threshold


def find_operating_point(predictor: Predictor, model_folder: Path, max_false_alarms_per_hour: float) -> OperatingPoint:
    """The point of metrics.json that raised most false alarms per hour, and yet no more than `most`.

    One decision a clip: docs/events.md says what that means for windows. Raises SettingsError where there is none.
    """
    points = _read_operating_points(predictor, model_folder)
    allowed = [point for point in points if point.achieved <= max_false_alarms_per_hour]
    if not allowed:
        lowest = min(points, key=lambda point: point.achieved)
        raise SettingsError(
            f"{max_false_alarms_per_hour:g} false alarms per hour are fewer than {model_folder} was measured at: the least is "
            f"{lowest.achieved:.3g}, at threshold {lowest.threshold:.3g}; ask for no fewer, give --threshold, "
            f"or train with --false-alarms-per-hour {max_false_alarms_per_hour:g}"
        )
    return max(allowed, key=lambda point: (point.achieved, -point.threshold))


def choose_event_labels(predictor: Predictor, requested: Sequence[str] = ()) -> tuple[str, ...]:
    """What events are found of: what is wanted, else the positive label, else every label that sounds alarming.

    Raises SettingsError for a label that the model does not know.
    """
    for name in requested:
        if name not in predictor.labels:
            raise SettingsError(
                f"setting 'event_labels': the model knows no label '{name}'; {suggest_name(name, predictor.labels)}"
            )
    if requested:
        return tuple(dict.fromkeys(requested))
    if predictor.positive_label:
        return (predictor.positive_label,)
    alarming = tuple(label for label in predictor.labels if not HARMLESS_LABEL.match(label.lower()))
    return alarming or (guess_positive(predictor.labels),)


def _choose_off_threshold(on_threshold: float, requested: float | None) -> float:
    if requested is None:
        return max(OFF_THRESHOLD_SHARE * on_threshold, MIN_EVENT_THRESHOLD)
    if requested > on_threshold:
        raise SettingsError(
            f"an event cannot end above where it begins: leave is {requested:g}, the threshold {on_threshold:g}; "
            "give a lower leave or a higher threshold"
        )
    return max(requested, MIN_EVENT_THRESHOLD)


def _read_operating_points(predictor: Predictor, model_folder: Path) -> list[OperatingPoint]:
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
            f"{file} does not say how many false alarms per hour a threshold means ({_describe_error(error)}); give --threshold, "
            "or train again with --false-alarms-per-hour"
        ) from None
    if not points:
        raise SettingsError(
            f"{file} knows no false alarms per hour: some clip's duration was unknown, or one label had no clips; "
            "give --threshold, or train with --false-alarms-per-hour on clips whose durations are known"
        )
    return points


def _describe_error(error: Exception) -> str:
    return f"no {error} in it" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
