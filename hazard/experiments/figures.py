"""What evaluations are worth: figures with intervals, the order of models, the threshold that a model decides by."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from hazard.data.splits import Index
from hazard.experiments.cross_validation import Evaluation
from hazard.metrics import bootstrap
from hazard.metrics import classification as metrics
from hazard.metrics.bootstrap import Draws
from hazard.metrics.operating_points import known, operating_points
from hazard.models.settings import TrainSettings
from hazard.types import Sequences

RANKED_BY = "roc_auc"


@dataclass(frozen=True)
class Measured:
    """An evaluation's part of metrics.json, and its headline figures in draws of groups, the same for all models."""

    figures: dict[str, Any]
    draws: Draws  # name → (R,)


def positive_label(labels: Sequence[str], settings: TrainSettings) -> str | None:
    """The label of two that an alarm is for, given or guessed; none with three labels or more."""
    return None if len(labels) != 2 else settings.positive_label or metrics.guess_positive(labels)


def measure(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> Measured:
    """Headline figures with intervals over groups, one entry a fold and a repeat, and the folds' mean and std.

    A figure is that of all test parts of a repeat together, averaged over the repeats.
    """
    y, groups, labels = sequences.y[result.rows], sequences.groups[result.rows], sequences.labels
    positive = _number(labels, positive_label(labels, settings))
    threshold, alarms = false_alarms(sequences, result, settings)
    by: dict[str, Any] = {"positive": positive, "threshold": threshold}
    judged = result.calibrated.held_out
    weights, whole = bootstrap.group_draws(groups, seed=settings.seed), bootstrap.everything(len(y))
    draws = bootstrap.repeated(y, result.probs, result.repeats, weights, held_out=judged, **by)
    values = bootstrap.plain(bootstrap.repeated(y, result.probs, result.repeats, whole, held_out=judged, **by))
    predicted = metrics.decide(result.probs, **by)
    tree: dict[str, Any] = bootstrap.with_intervals(values, draws) | {
        "per_class": metrics.per_class(y, predicted, labels),
        "confusion": {"labels": list(labels), "counts": metrics.confusion(y, predicted, len(labels)).tolist()},
        "ece_uncalibrated": metrics.ece(y, result.calibrated.raw),
        "temperature": result.calibrated.temperature,
    }
    each = _figures_of(y, result, result.folds, "fold", by)
    for entry in each:
        entry["repeat"] = int(result.repeats[result.folds == entry["fold"]][0])
    repeats = _figures_of(y, result, result.repeats, "repeat", by)
    tree |= ({"folds": each} | _spread(each)) if len(each) > 1 else {}
    return Measured(tree | alarms | ({"repeats": repeats} if len(repeats) > 1 else {}), draws)


def false_alarms(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> tuple[float, dict[str, Any]]:
    """The threshold to decide by, and what metrics.json says of false alarms per hour; nothing with three labels.

    The threshold is that of the settings' `false_alarms_per_hour`, found on these very predictions, else 0.5. There is
    None to say where a clip's duration is unknown.
    """
    positive = _number(sequences.labels, positive_label(sequences.labels, settings))
    if positive is None:
        return 0.5, {}
    durations = None if sequences.durations is None else sequences.durations[result.rows]
    asked = settings.false_alarms_per_hour
    points = operating_points(sequences.y[result.rows] == positive, result.probs[:, positive], durations, asked=asked)
    threshold = next((point.threshold for point in points or () if point.target == asked), 0.5)
    return threshold, {"false_alarms_per_hour": None if points is None else [asdict(point) for point in points]}


def decisions(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> dict[str, float]:
    """What the saved model decides by: its threshold and its temperature."""
    threshold, _ = false_alarms(sequences, result, settings)
    return {"threshold": threshold, "temperature": result.calibrated.temperature}


def check_false_alarms(sequences: Sequences, settings: TrainSettings) -> None:
    """Raises SettingsError where a number of false alarms per hour is asked for and cannot be told."""
    if settings.false_alarms_per_hour is None:
        return
    if len(sequences.labels) != 2:
        raise SettingsError(
            f"false_alarms_per_hour is for two labels, one of them an alarm; the cache holds {len(sequences.labels)}"
        )
    if not known(sequences.durations):
        raise SettingsError(
            "false_alarms_per_hour needs to know how long every clip is, and the cache does not say; "
            "import features with a manifest that has the column duration"
        )


def best_first(sequences: Sequences, results: Sequence[Evaluation], settings: TrainSettings) -> list[Evaluation]:
    """In the order of the leaderboard."""
    return sorted(results, key=lambda result: _rank(sequences, result, settings), reverse=True)


def _rank(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> tuple[float, float]:
    """By ROC AUC, then accuracy, each averaged over the repeats; an undefined figure comes last."""
    labels = sequences.labels
    y, whole = sequences.y[result.rows], bootstrap.everything(len(result.rows))
    positive = _number(labels, positive_label(labels, settings))
    values = bootstrap.plain(bootstrap.repeated(y, result.probs, result.repeats, whole, positive=positive))
    return tuple(-1.0 if math.isnan(values[name]) else values[name] for name in (RANKED_BY, "accuracy"))  # type: ignore[return-value]


def _figures_of(
    y: NDArray[np.int64], result: Evaluation, which: Index, word: str, by: dict[str, Any]
) -> list[dict[str, Any]]:
    """An entry for each number in `which`, called `word`: its clips and headline figures."""
    draws = bootstrap.headline(y, result.probs, bootstrap.parts(which), held_out=result.calibrated.held_out, **by)
    numbers, clips = np.unique(which, return_counts=True)
    return [
        {word: int(number), "clips": int(clips[place]), **bootstrap.plain(draws, place)}
        for place, number in enumerate(numbers)
    ]


def _spread(each: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (n - 1) of each figure over the folds where it is defined."""
    spread: dict[str, dict[str, float]] = {"mean": {}, "std": {}}
    for name in [key for key in each[0] if key not in ("fold", "repeat", "clips")]:
        known = np.array([values[name] for values in each if math.isfinite(values[name])])
        spread["mean"][name] = float(known.mean()) if len(known) else math.nan
        spread["std"][name] = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return spread


def _number(labels: Sequence[str], positive: str | None) -> int | None:
    return None if positive is None else list(labels).index(positive)
