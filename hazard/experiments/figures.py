"""What evaluations are worth: figures with intervals, the order of models, the threshold that a model decides by."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from hazard.data.splits import RowIndices
from hazard.experiments.cross_validation import Evaluation
from hazard.metrics import bootstrap
from hazard.metrics import classification as metrics
from hazard.metrics.bootstrap import MetricDraws
from hazard.metrics.operating_points import find_operating_points, has_all_durations
from hazard.models.settings import TrainSettings
from hazard.types import Sequences

RANKING_METRIC = "roc_auc"


@dataclass(frozen=True)
class EvaluationMetrics:
    """An evaluation's part of metrics.json, and its headline figures in draws of groups, the same for all models."""

    metrics: dict[str, Any]
    draws: MetricDraws  # name → (R,)


def find_positive_label(labels: Sequence[str], settings: TrainSettings) -> str | None:
    """The label of two that an alarm is for, given or guessed; none with three labels or more."""
    return None if len(labels) != 2 else settings.positive_label or metrics.guess_positive(labels)


def compute_metrics(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> EvaluationMetrics:
    """Headline figures with intervals over groups, one entry a fold and a repeat, and the folds' mean and std.

    A figure is that of all test parts of a repeat together, averaged over the repeats.
    """
    y, groups, labels = sequences.y[result.rows], sequences.groups[result.rows], sequences.labels
    positive = _find_label_index(labels, find_positive_label(labels, settings))
    threshold, alarms = find_alarm_threshold(sequences, result, settings)
    by: dict[str, Any] = {"positive": positive, "threshold": threshold}
    judged = result.calibrated.held_out
    weights, whole = bootstrap.draw_groups(groups, seed=settings.seed), bootstrap.make_unit_weights(len(y))
    draws = bootstrap.average_over_repeats(y, result.probs, result.repeats, weights, held_out=judged, **by)
    values = bootstrap.select_draw(
        bootstrap.average_over_repeats(y, result.probs, result.repeats, whole, held_out=judged, **by)
    )
    predicted = metrics.predict_labels(result.probs, **by)
    tree: dict[str, Any] = bootstrap.add_intervals(values, draws) | {
        "per_class": metrics.per_class_metrics(y, predicted, labels),
        "confusion": {"labels": list(labels), "counts": metrics.confusion_matrix(y, predicted, len(labels)).tolist()},
        "ece_uncalibrated": metrics.ece(y, result.calibrated.raw),
        "temperature": result.calibrated.temperature,
    }
    each = _compute_part_metrics(y, result, result.folds, "fold", by)
    for entry in each:
        entry["repeat"] = int(result.repeats[result.folds == entry["fold"]][0])
    repeats = _compute_part_metrics(y, result, result.repeats, "repeat", by)
    tree |= ({"folds": each} | _summarize_folds(each)) if len(each) > 1 else {}
    return EvaluationMetrics(tree | alarms | ({"repeats": repeats} if len(repeats) > 1 else {}), draws)


def find_alarm_threshold(
    sequences: Sequences, result: Evaluation, settings: TrainSettings
) -> tuple[float, dict[str, Any]]:
    """The threshold to decide by, and what metrics.json says of false alarms per hour; nothing with three labels.

    The threshold is that of the settings' `false_alarms_per_hour`, found on these very predictions, else 0.5. There is
    None to say where a clip's duration is unknown.
    """
    positive = _find_label_index(sequences.labels, find_positive_label(sequences.labels, settings))
    if positive is None:
        return 0.5, {}
    durations = None if sequences.durations is None else sequences.durations[result.rows]
    asked = settings.false_alarms_per_hour
    points = find_operating_points(
        sequences.y[result.rows] == positive, result.probs[:, positive], durations, requested=asked
    )
    threshold = next((point.threshold for point in points or () if point.target == asked), 0.5)
    return threshold, {"false_alarms_per_hour": None if points is None else [asdict(point) for point in points]}


def decision_settings(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> dict[str, float]:
    """What the saved model decides by: its threshold and its temperature."""
    threshold, _ = find_alarm_threshold(sequences, result, settings)
    return {"threshold": threshold, "temperature": result.calibrated.temperature}


def check_false_alarm_target(sequences: Sequences, settings: TrainSettings) -> None:
    """Raises SettingsError where a number of false alarms per hour is asked for and cannot be told."""
    if settings.false_alarms_per_hour is None:
        return
    if len(sequences.labels) != 2:
        raise SettingsError(
            f"false_alarms_per_hour is for two labels, one of them an alarm; the cache holds {len(sequences.labels)}"
        )
    if not has_all_durations(sequences.durations):
        raise SettingsError(
            "false_alarms_per_hour needs to know how long every clip is, and the cache does not say; "
            "import features with a manifest that has the column duration"
        )


def rank_evaluations(sequences: Sequences, results: Sequence[Evaluation], settings: TrainSettings) -> list[Evaluation]:
    """In the order of the leaderboard."""
    return sorted(results, key=lambda result: _ranking_key(sequences, result, settings), reverse=True)


def _ranking_key(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> tuple[float, float]:
    """By ROC AUC, then accuracy, each averaged over the repeats; an undefined figure comes last."""
    labels = sequences.labels
    y, whole = sequences.y[result.rows], bootstrap.make_unit_weights(len(result.rows))
    positive = _find_label_index(labels, find_positive_label(labels, settings))
    values = bootstrap.select_draw(
        bootstrap.average_over_repeats(y, result.probs, result.repeats, whole, positive=positive)
    )
    return tuple(-1.0 if math.isnan(values[name]) else values[name] for name in (RANKING_METRIC, "accuracy"))  # type: ignore[return-value]


def _compute_part_metrics(
    y: NDArray[np.int64], result: Evaluation, part_of_clip: RowIndices, part_name: str, decision: dict[str, Any]
) -> list[dict[str, Any]]:
    """An entry for each number in `which`, called `word`: its clips and headline figures."""
    draws = bootstrap.headline_metrics(
        y, result.probs, bootstrap.subset_weights(part_of_clip), held_out=result.calibrated.held_out, **decision
    )
    numbers, clips = np.unique(part_of_clip, return_counts=True)
    return [
        {part_name: int(number), "clips": int(clips[place]), **bootstrap.select_draw(draws, place)}
        for place, number in enumerate(numbers)
    ]


def _summarize_folds(each: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (n - 1) of each figure over the folds where it is defined."""
    spread: dict[str, dict[str, float]] = {"mean": {}, "std": {}}
    for name in [key for key in each[0] if key not in ("fold", "repeat", "clips")]:
        known = np.array([values[name] for values in each if math.isfinite(values[name])])
        spread["mean"][name] = float(known.mean()) if len(known) else math.nan
        spread["std"][name] = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return spread


def _find_label_index(labels: Sequence[str], positive: str | None) -> int | None:
    return None if positive is None else list(labels).index(positive)
