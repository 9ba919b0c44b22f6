"""The leaderboard: every model's figures, how far each lies behind the best, and what choosing among them is worth."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hazard.data.splits import CrossValidationSplits
from hazard.experiments.cross_validation import Evaluation
from hazard.experiments.figures import RANKING_METRIC, EvaluationMetrics, compute_metrics, find_positive_label
from hazard.experiments.significance import compare_with_best
from hazard.metrics import bootstrap
from hazard.models.settings import TrainSettings
from hazard.types import Sequences

WITHIN_NOISE_MARK = "≈"


def make_leaderboard(
    results: Sequence[Evaluation], measured: Sequence[EvaluationMetrics], splits: CrossValidationSplits
) -> list[dict[str, Any]]:
    """Rows of leaderboard.csv: model, kind, figures with intervals, train_seconds, parameters, what lies behind."""
    rows = []
    for result, one, behind in zip(results, measured, compare_with_best(measured, splits), strict=True):
        row: dict[str, Any] = {"model": result.name, "kind": result.kind}
        for name in one.draws:
            entry = one.metrics[name]
            row |= {name: entry["value"], f"{name}_low": entry["low"], f"{name}_high": entry["high"]}
        rows.append(row | {"train_seconds": round(result.train_seconds, 3), "parameters": result.parameters} | behind)
    return rows


def format_leaderboard(rows: Sequence[dict[str, Any]]) -> str:
    """The leaderboard as text for a terminal."""
    width = max(20, *(len(row["model"]) for row in rows))
    head = (
        f"{'ROC AUC':>7} {'95 %':>13} {'behind':>7} {'p':>6}   {'PR AUC':>7} {'accuracy':>8} {'F1':>6} {'train s':>8}"
    )
    lines = [f"{'model':<{width}} {'kind':<9} {head}"]
    for row in rows:
        interval = f"{row['roc_auc_low']:.3f}–{row['roc_auc_high']:.3f}"
        behind = f"{row['roc_auc_behind']:>7.3f} {row['roc_auc_behind_p']:>6.3f} {WITHIN_NOISE_MARK if row['within_noise'] == 1 else ' '}"
        lines.append(
            f"{row['model']:<{width}} {row['kind']:<9} {row['roc_auc']:>7.3f} {interval:>13} {behind} "
            f"{row['pr_auc']:>7.3f} {row['accuracy']:>8.3f} {row['macro_f1']:>6.3f} {row['train_seconds']:>8.1f}"
        )
    return "\n".join(
        [
            *lines,
            f"{WITHIN_NOISE_MARK} no worse than the best within noise: 95 % interval of the difference, same groups drawn",
        ]
    )


def evaluate_model_choice(
    sequences: Sequences, results: Sequence[Evaluation], settings: TrainSettings
) -> dict[str, Any] | None:
    """What it is worth to choose a model here: each fold is predicted by the one that did best on all other clips.

    The winner's own figures are of the folds that it was chosen on; these are not. None for a single fold.
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
    figures = compute_metrics(sequences, replace(first, probs=probs), settings).metrics
    names = [results[model].name for model in chosen]
    return {name: figures[name] for name in ("accuracy", RANKING_METRIC)} | {"models": names}


def _score_other_folds(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> list[float]:
    """For each fold, the ROC AUC (F,) on all clips that it does not test, averaged over the repeats that have any."""
    y, labels = sequences.y[result.rows], sequences.labels
    label = find_positive_label(labels, settings)
    positive = None if label is None else labels.index(label)
    clips, units = np.unique(result.rows, return_inverse=True)
    folds = np.unique(result.folds)
    counts = np.stack([~np.isin(clips, result.rows[result.folds == fold]) for fold in folds], axis=1).astype(float)
    each = []
    for repeat in np.unique(result.repeats):
        rows = result.repeats == repeat
        weights = bootstrap.DrawWeights(units[rows], counts)
        each.append(bootstrap.headline_metrics(y[rows], result.probs[rows], weights, positive=positive)[RANKING_METRIC])
    defined = [[score for score in column if math.isfinite(score)] for column in np.transpose(each)]
    return [float(np.mean(scores)) if scores else math.nan for scores in defined]
