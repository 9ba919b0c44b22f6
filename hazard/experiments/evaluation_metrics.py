"""Metrics of evaluations with intervals, the ranking of models, and the threshold that a model decides by."""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from hazard.data.splits import CrossValidationSplits, RowIndices, number_grouped_parts
from hazard.experiments.cross_validation import Evaluation
from hazard.metrics import bootstrap
from hazard.metrics import classification as metrics
from hazard.metrics.bootstrap import MetricDraws
from hazard.metrics.intervals import SampleSize, add_intervals, measure_sample
from hazard.metrics.operating_points import (
    explain_missing_hours,
    find_operating_points,
    has_all_durations,
    hours_needed,
)
from hazard.metrics.positive_label import find_positive
from hazard.models.settings import TrainSettings
from hazard.types import Sequences

log = logging.getLogger(__name__)


def ranking_metric(classes: int) -> str:
    """Return the metric that models are ranked by: ROC AUC for two labels, balanced accuracy for more.

    The mean ROC AUC of many labels is near 1 for any model that is worth something. Balanced accuracy counts each label
    alike and means what people ask for. How often each tells the better of two models: `benchmarks/ranking_metrics.py`.
    """
    return "roc_auc" if classes == 2 else "balanced_accuracy"


@dataclass(frozen=True)
class EvaluationMetrics:
    """An evaluation's part of metrics.json, and its headline metrics in R bootstrap draws, the same for all models."""

    metrics: dict[str, Any]
    draws: MetricDraws  # name → (R,)
    sample: SampleSize


@dataclass(frozen=True)
class PositiveChoice:
    """The label that alarms are for, and where it comes from: "setting", "names" or "guess"; None without one."""

    label: str | None
    source: str | None


def choose_positive_label(labels: Sequence[str], settings: TrainSettings) -> PositiveChoice:
    """Return the label that alarms are for, set or read from the names; there is none unless there are two labels.

    Raises SettingsError if the set label does not exist.
    """
    if settings.positive_label is not None and settings.positive_label not in labels:
        raise SettingsError(
            f"positive_label '{settings.positive_label}' is not a label of the cache; "
            f"choose one of: {', '.join(labels)}"
        )
    if len(labels) != 2:
        return PositiveChoice(None, None)
    if settings.positive_label is not None:
        return PositiveChoice(settings.positive_label, "setting")
    found = find_positive(labels)
    return PositiveChoice(found.label, "names" if found.is_known else "guess")


def warn_if_guessed(positive: PositiveChoice, labels: Sequence[str]) -> None:
    """Log a warning if the positive label is only a guess."""
    if positive.source == "guess":
        log.warning(
            "WARNING: the names of the labels %s and %s do not tell which one alarms are for; '%s' is a guess; "
            "set it with --set positive_label=NAME",
            *(*labels, positive.label),
        )


def compute_metrics(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> EvaluationMetrics:
    """Return headline metrics with intervals over groups, metrics per fold and repeat, and the folds' mean and std.

    A metric is computed over all test parts of a repeat together, then averaged over the repeats. If a threshold was
    chosen, each clip is decided by one that was chosen on clips of other groups, and `at_half` has the metrics at 0.5.
    """
    y, groups, labels = sequences.y[result.rows], sequences.groups[result.rows], sequences.labels
    positive = _find_label_index(labels, choose_positive_label(labels, settings).label)
    threshold, alarms = find_alarm_threshold(sequences, result, settings)
    predicted = metrics.predict_labels(result.probs, positive=positive)
    decision: dict[str, Any] = {"positive": positive, "predicted": predicted}
    held_out = result.calibrated.held_out
    weights, unit_weights = bootstrap.draw_groups(groups, seed=settings.seed), bootstrap.make_unit_weights(len(y))
    at_half: dict[str, Any] = {}
    if positive is not None and settings.false_alarms_per_hour is not None:
        half = bootstrap.average_over_repeats(y, result.probs, result.repeats, unit_weights, **decision)
        at_half = {"at_half": {name: bootstrap.select_draw(half)[name] for name in metrics.DECISION_METRICS}}
        predicted = _predict_at_cross_fitted_thresholds(sequences, result, positive, settings, default=threshold)
        decision["predicted"] = predicted
    draws = bootstrap.average_over_repeats(y, result.probs, result.repeats, weights, held_out=held_out, **decision)
    values = bootstrap.select_draw(
        bootstrap.average_over_repeats(y, result.probs, result.repeats, unit_weights, held_out=held_out, **decision)
    )
    _, clips = np.unique(result.rows, return_index=True)  # each clip once
    sample = measure_sample(y[clips], groups[clips], classes=len(labels), positive=positive)
    values_by_name: dict[str, Any] = add_intervals(values, draws, sample) | {
        "per_class": metrics.per_class_metrics(y, predicted, labels),
        "confusion": {"labels": list(labels), "counts": metrics.confusion_matrix(y, predicted, len(labels)).tolist()},
        "ece_uncalibrated": metrics.ece(y, result.calibrated.raw),
        "temperature": result.calibrated.temperature,
    }
    folds = _compute_part_metrics(y, result, result.folds, "fold", decision)
    for entry in folds:
        entry["repeat"] = int(result.repeats[result.folds == entry["fold"]][0])
    repeats = _compute_part_metrics(y, result, result.repeats, "repeat", decision)
    values_by_name |= ({"folds": folds} | _summarize_folds(folds)) if len(folds) > 1 else {}
    values_by_name |= at_half | alarms | ({"repeats": repeats} if len(repeats) > 1 else {})
    return EvaluationMetrics(values_by_name, draws, sample)


def find_alarm_threshold(
    sequences: Sequences, result: Evaluation, settings: TrainSettings
) -> tuple[float, dict[str, Any]]:
    """Return the decision threshold and the entry `false_alarms_per_hour` of metrics.json.

    The threshold is the one for the settings' `false_alarms_per_hour`, found on these same predictions, otherwise 0.5.
    Without a positive label there is no entry; if a clip's duration is unknown, the entry is None.
    """
    positive = _find_label_index(sequences.labels, choose_positive_label(sequences.labels, settings).label)
    if positive is None:
        return 0.5, {}
    durations = None if sequences.durations is None else sequences.durations[result.rows]
    target = settings.false_alarms_per_hour
    points = find_operating_points(
        sequences.y[result.rows] == positive,
        result.probs[:, positive],
        durations,
        requested=target,
        clips=result.rows,
    )
    threshold = next((point.threshold for point in points or () if point.target == target), 0.5)
    return threshold, {"false_alarms_per_hour": None if points is None else [asdict(point) for point in points]}


def _predict_at_cross_fitted_thresholds(
    sequences: Sequences, result: Evaluation, positive: int, settings: TrainSettings, *, default: float
) -> NDArray[np.int64]:
    """Return the classes (N,) of all predictions, each at the threshold for the target that clips of other groups give.

    Where these clips lack a label, it is the threshold `default`.
    """
    clips = np.unique(result.rows)
    parts = np.zeros(len(sequences), np.int64)
    parts[clips] = number_grouped_parts(sequences.y[clips], sequences.groups[clips], seed=0)
    of_prediction = parts[result.rows]  # (N,)
    predicted = np.empty(len(result.rows), np.int64)
    for part in np.unique(of_prediction):
        others, inside = of_prediction != part, of_prediction == part
        elsewhere = replace(result, rows=result.rows[others], probs=result.probs[others])
        threshold = default
        if len(np.unique(sequences.y[elsewhere.rows])) == 2:
            threshold, _ = find_alarm_threshold(sequences, elsewhere, settings)
        predicted[inside] = metrics.predict_labels(result.probs[inside], positive=positive, threshold=threshold)
    return predicted


def make_decision_settings(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> dict[str, float]:
    """Return the threshold and the temperature that the saved model decides with."""
    threshold, _ = find_alarm_threshold(sequences, result, settings)
    return {"threshold": threshold, "temperature": result.calibrated.temperature}


def check_false_alarm_target(sequences: Sequences, splits: CrossValidationSplits, settings: TrainSettings) -> None:
    """Check that the test clips can support a requested rate of false alarms per hour; raises SettingsError if not."""
    target = settings.false_alarms_per_hour
    if target is None:
        return
    if len(sequences.labels) != 2:
        raise SettingsError(
            "false_alarms_per_hour needs exactly two labels, one of them the positive label; "
            f"the cache has {len(sequences.labels)}"
        )
    if sequences.durations is None or not has_all_durations(sequences.durations):
        raise SettingsError(
            "false_alarms_per_hour needs the duration of every clip, but the cache lacks some; "
            "import the features with a manifest that has the column duration"
        )
    positive = _find_label_index(sequences.labels, choose_positive_label(sequences.labels, settings).label)
    tested = np.unique(np.concatenate([fold.test for fold in splits.folds]))
    seconds = float(sequences.durations[tested][sequences.y[tested] != positive].sum())
    if seconds < hours_needed(target) * 3600:
        raise SettingsError(explain_missing_hours(target, seconds / 3600, remedy="add harmless clips"))


def rank_evaluations(sequences: Sequences, results: Sequence[Evaluation], settings: TrainSettings) -> list[Evaluation]:
    """Sort evaluations as in the leaderboard, the best first."""
    return sorted(results, key=lambda result: _ranking_key(sequences, result, settings), reverse=True)


def _ranking_key(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> tuple[float, ...]:
    """Return the ranking metric, accuracy and log likelihood over the repeats; an undefined one is ranked last."""
    labels = sequences.labels
    y, unit_weights = sequences.y[result.rows], bootstrap.make_unit_weights(len(result.rows))
    positive = _find_label_index(labels, choose_positive_label(labels, settings).label)
    held_out = result.calibrated.held_out
    values = bootstrap.select_draw(
        bootstrap.average_over_repeats(
            y, result.probs, result.repeats, unit_weights, positive=positive, held_out=held_out
        )
    )
    keys = values[ranking_metric(len(labels))], values["accuracy"], -values["nll"]
    return tuple(-math.inf if math.isnan(key) else key for key in keys)


def _compute_part_metrics(
    y: NDArray[np.int64], result: Evaluation, part_of_clip: RowIndices, part_name: str, decision: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return one entry for each part (fold or repeat): its number as `part_name`, its clips and headline metrics.

    `part_of_clip` (N,) is the part's number for each clip.
    """
    draws = bootstrap.headline_metrics(
        y, result.probs, bootstrap.subset_weights(part_of_clip), held_out=result.calibrated.held_out, **decision
    )
    numbers, clips = np.unique(part_of_clip, return_counts=True)
    return [
        {part_name: int(number), "clips": int(clips[index]), **bootstrap.select_draw(draws, index)}
        for index, number in enumerate(numbers)
    ]


def _summarize_folds(folds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation (n - 1) of each metric over the folds in which it is defined."""
    summary: dict[str, dict[str, float]] = {"mean": {}, "std": {}}
    for name in [key for key in folds[0] if key not in ("fold", "repeat", "clips")]:
        defined = np.array([values[name] for values in folds if math.isfinite(values[name])])
        summary["mean"][name] = float(defined.mean()) if len(defined) else math.nan
        summary["std"][name] = float(defined.std(ddof=1)) if len(defined) > 1 else math.nan
    return summary


def _find_label_index(labels: Sequence[str], positive: str | None) -> int | None:
    return None if positive is None else list(labels).index(positive)
