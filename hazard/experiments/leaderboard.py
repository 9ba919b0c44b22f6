"""The leaderboard: metrics of every model, its distance to the best, and a fair score for choosing the best one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hazard.data.splits import CrossValidationSplits
from hazard.experiments.cross_validation import Evaluation
from hazard.experiments.evaluation_metrics import (
    EvaluationMetrics,
    choose_positive_label,
    compute_metrics,
    ranking_metric,
)
from hazard.experiments.significance import compare_with_best
from hazard.metrics import bootstrap
from hazard.models.settings import TrainSettings
from hazard.types import Sequences

WITHIN_NOISE_MARK = "≈"
"""Mark of a model that is no worse than the best within noise."""
SHOWN_COLUMNS = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "recall": "recall",
}
"""Metric → heading of its column in the terminal."""


def make_leaderboard(
    results: Sequence[Evaluation], measured: Sequence[EvaluationMetrics], splits: CrossValidationSplits
) -> list[dict[str, Any]]:
    """Return the rows of leaderboard.csv.

    The columns are model, kind, metrics with intervals, train_seconds, parameters, and the columns of
    `compare_with_best`.
    """
    rows = []
    for result, metrics, behind in zip(results, measured, compare_with_best(measured, splits), strict=True):
        row: dict[str, Any] = {"model": result.name, "kind": result.kind}
        for name in metrics.draws:
            entry = metrics.metrics[name]
            row |= {name: entry["value"], f"{name}_low": entry["low"], f"{name}_high": entry["high"]}
        rows.append(row | {"train_seconds": round(result.train_seconds, 3), "parameters": result.parameters} | behind)
    return rows


def format_leaderboard(rows: Sequence[dict[str, Any]], *, ranking: str) -> str:
    """Format the leaderboard, whose models were ranked by the metric `ranking`, as text for a terminal."""
    width = max(20, *(len(row["model"]) for row in rows))
    others = [name for name in SHOWN_COLUMNS if name != ranking]
    heads = [f"{SHOWN_COLUMNS[ranking]:>8} {'95 %':>13} {'behind':>7} {'p':>6}  "]
    heads += [f"{SHOWN_COLUMNS[name]:>8}" for name in others]
    lines = [f"{'model':<{width}} {'kind':<9} {' '.join(heads)} {'train s':>8}"]
    for row in rows:
        low, high = row[f"{ranking}_low"], row[f"{ranking}_high"]
        interval = "none" if math.isnan(low) else f"{low:.3f}–{high:.3f}"
        mark = WITHIN_NOISE_MARK if row["within_noise"] == 1 else " "
        p = row[f"{ranking}_behind_p"]
        cells = [f"{row[ranking]:>8.3f} {interval:>13} {row[f'{ranking}_behind']:>7.3f}"]
        cells += [f"{'' if math.isnan(p) else f'{p:.3f}':>6} {mark}", *(f"{row[name]:>8.3f}" for name in others)]
        lines.append(f"{row['model']:<{width}} {row['kind']:<9} {' '.join(cells)} {row['train_seconds']:>8.1f}")
    return "\n".join(
        [
            *lines,
            f"{WITHIN_NOISE_MARK} no worse than the best within noise: the 95 % interval of the difference includes 0; "
            f"it allows for the choice among {len(rows)} models",
        ]
    )


def evaluate_model_choice(
    sequences: Sequences, results: Sequence[Evaluation], settings: TrainSettings
) -> dict[str, Any] | None:
    """Return metrics of choosing the best model: each fold is predicted by the model that did best on all other clips.

    The winner's own metrics are from the folds that it was chosen on; these are not. None for a single fold.
    """
    first = results[0]
    numbers = np.unique(first.folds)
    if len(numbers) < 2:
        return None
    scores = np.array([_score_other_folds(sequences, result, settings) for result in results])  # (M, F)
    chosen = np.argmax(np.where(np.isfinite(scores), scores, -1), axis=0)  # (F,) ties go to the better ranked
    probs = np.empty_like(first.probs)
    for number, model in zip(numbers, chosen, strict=True):
        probs[first.folds == number] = results[model].probs[first.folds == number]
    metrics = compute_metrics(sequences, replace(first, probs=probs), settings).metrics
    names = [results[model].name for model in chosen]
    shown = dict.fromkeys(("accuracy", "roc_auc", ranking_metric(len(sequences.labels))))
    return {name: metrics[name] for name in shown} | {"models": names}


def _score_other_folds(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> list[float]:
    """Return for each fold the ranking metric (F,) on all clips outside its test part, averaged over the repeats.

    Repeats in which it is undefined are left out; NaN if it is undefined in all.
    """
    y, labels = sequences.y[result.rows], sequences.labels
    label = choose_positive_label(labels, settings).label
    positive = None if label is None else labels.index(label)
    clips, units = np.unique(result.rows, return_inverse=True)
    folds = np.unique(result.folds)
    counts = np.stack([~np.isin(clips, result.rows[result.folds == fold]) for fold in folds], axis=1).astype(float)
    scores_by_repeat = []
    for repeat in np.unique(result.repeats):
        rows = result.repeats == repeat
        weights = bootstrap.DrawWeights(units[rows], counts)
        scores_by_repeat.append(
            bootstrap.headline_metrics(y[rows], result.probs[rows], weights, positive=positive)[
                ranking_metric(len(labels))
            ]
        )
    defined = [[score for score in column if math.isfinite(score)] for column in np.transpose(scores_by_repeat)]
    return [float(np.mean(scores)) if scores else math.nan for scores in defined]
