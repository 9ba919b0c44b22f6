"""Settings and a saved model → the Decision that turns probabilities into labels and events."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from features.errors import SettingsError
from features.utils.text import suggest_name
from hazard.events.decision import Decision
from hazard.events.rule import EventRule
from hazard.inference.settings import InferSettings
from hazard.metrics.operating_points import OperatingPoint, explain_missing_hours, hours_needed
from hazard.metrics.positive_label import find_positive, is_harmless
from hazard.models.predictor import Predictor

log = logging.getLogger(__name__)

OFF_THRESHOLD_SHARE = 0.8
"""Default off-threshold of an event, as a share of its on-threshold."""
MIN_EVENT_THRESHOLD = math.ulp(0.0)
"""Threshold of an event rule if 0 is asked for: every probability above 0 counts."""


def make_decision(
    predictor: Predictor, model_folder: Path, settings: InferSettings, *, stride_seconds: float
) -> Decision:
    """Make the decision rule from the settings, and from the model where they do not say.

    Raises SettingsError if the thresholds contradict each other, a label is not one of the model's, or the model's
    evaluation has no threshold for the given false alarms per hour.
    """
    threshold = choose_threshold(predictor, model_folder, settings)
    on_threshold = max(threshold, MIN_EVENT_THRESHOLD)
    timing = {
        "min_seconds": settings.min_seconds,
        "merge_seconds": stride_seconds if settings.merge_seconds is None else settings.merge_seconds,
        "cooldown_seconds": settings.cooldown_seconds,
    }
    off_threshold = _choose_off_threshold(on_threshold, settings.leave)
    return Decision(
        labels=predictor.labels,
        positive_label=predictor.positive_label or "",
        threshold=threshold,
        rules=tuple(
            EventRule(
                label,
                predictor.labels.index(label),
                on_threshold=on_threshold,
                off_threshold=off_threshold,
                **timing,
            )
            for label in choose_event_labels(predictor, settings.event_labels)
        ),
    )


def choose_threshold(predictor: Predictor, model_folder: Path, settings: InferSettings) -> float:
    """Return the setting `threshold`, else the threshold for `false_alarms_per_hour`, else the model's own."""
    if settings.threshold is not None:
        return settings.threshold
    if settings.false_alarms_per_hour is not None:
        return find_operating_point(predictor, model_folder, settings.false_alarms_per_hour).threshold
    return predictor.threshold


def find_operating_point(predictor: Predictor, model_folder: Path, max_false_alarms_per_hour: float) -> OperatingPoint:
    """Return the point of metrics.json with the most false alarms whose upper bound is within the given maximum.

    The rate was measured with one decision per clip; docs/events.md says what that means for windows. A metrics.json of
    an older version has no upper bounds: then the measured rates count, and a warning says so. Raises SettingsError if
    there is no such point.
    """
    points = _read_operating_points(predictor, model_folder)
    if any(point.upper_bound is None for point in points):
        log.warning(
            "WARNING: %s does not say on how many hours of video its false alarms were measured; "
            "the true rate may be far higher; train again to know",
            model_folder / "metrics.json",
        )
    allowed = [point for point in points if _highest_rate(point) <= max_false_alarms_per_hour]
    if not allowed:
        raise SettingsError(_explain_refusal(model_folder, points, max_false_alarms_per_hour))
    return max(allowed, key=lambda point: (point.achieved, -point.threshold))


def choose_event_labels(predictor: Predictor, requested: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the labels to find events for: the requested ones, the positive one, or all that are not harmless.

    Raises SettingsError for a label that the model does not know.
    """
    for name in requested:
        if name not in predictor.labels:
            raise SettingsError(
                f"setting 'event_labels': the model has no label '{name}'; {suggest_name(name, predictor.labels)}"
            )
    if requested:
        return tuple(dict.fromkeys(requested))
    if predictor.positive_label:
        return (predictor.positive_label,)
    alarming = tuple(label for label in predictor.labels if not is_harmless(label))
    return alarming or (find_positive(predictor.labels).label,)


def _choose_off_threshold(on_threshold: float, requested: float | None) -> float:
    if requested is None:
        return max(OFF_THRESHOLD_SHARE * on_threshold, MIN_EVENT_THRESHOLD)
    if requested > on_threshold:
        raise SettingsError(
            f"setting 'leave' is {requested:g} and the threshold is {on_threshold:g}, but 'leave' may not be higher; "
            "lower 'leave' or raise the threshold"
        )
    return max(requested, MIN_EVENT_THRESHOLD)


def _highest_rate(point: OperatingPoint) -> float:
    return point.achieved if point.upper_bound is None else point.upper_bound


def _explain_refusal(model_folder: Path, points: Sequence[OperatingPoint], target: float) -> str:
    hours = points[0].hours
    if hours is not None and hours < hours_needed(target):
        tested = f"{model_folder} was tested on"
        return explain_missing_hours(target, hours, tested=tested, remedy="give --threshold")
    lowest = min(points, key=_highest_rate)
    return (
        f"no threshold of {model_folder} gives at most {target:g} false alarms per hour: the lowest rate is "
        f"{_highest_rate(lowest):.3g}, at threshold {lowest.threshold:.3g}; accept this rate, give --threshold, "
        f"or train with --false-alarms-per-hour {target:g}"
    )


def _read_operating_points(predictor: Predictor, model_folder: Path) -> list[OperatingPoint]:
    """Read the thresholds and their false alarms per hour from metrics.json. Raises SettingsError if there are none."""
    if predictor.positive_label is None:
        raise SettingsError(
            "false alarms per hour are measured only for models with two labels; "
            f"this one has {len(predictor.labels)}; give --threshold"
        )
    file = model_folder / "metrics.json"
    try:
        points = [OperatingPoint(**each) for each in json.loads(file.read_bytes())["false_alarms_per_hour"] or ()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{file} holds no false alarms per hour ({_describe_error(error)}); "
            "give --threshold, or train again with --false-alarms-per-hour"
        ) from None
    if not points:
        raise SettingsError(
            f"{file} holds no false alarms per hour: the duration of a clip was unknown, or a label had no clips; "
            "give --threshold, or train with --false-alarms-per-hour on clips of known duration"
        )
    return points


def _describe_error(error: Exception) -> str:
    return (
        f"key {error} does not exist" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
    )
