"""Metrics on random folds, which split groups. They only show how much leakage would inflate the result."""

from dataclasses import replace
from typing import Any

from hazard.data.splits import HOLD_OUT_PARTS, make_splits
from hazard.experiments.cross_validation import cross_validate
from hazard.experiments.evaluation_metrics import compute_metrics
from hazard.models.settings import TrainSettings
from hazard.training.fit import NO_CALLBACKS, FitCallbacks
from hazard.types import Sequences

REPORTED_METRICS = ("accuracy", "roc_auc")


def evaluate_random_folds(
    sequences: Sequences, settings: TrainSettings, metrics: dict[str, Any], *, callbacks: FitCallbacks = NO_CALLBACKS
) -> dict[str, Any]:
    """Evaluate the model on random stratified folds; return the entry `random_split` of metrics.json.

    `metrics` are the model's metrics on grouped folds. The intervals are over groups here too. `leakage` is how much
    higher each metric is than on grouped folds.
    """
    count = settings.folds or HOLD_OUT_PARTS
    ungrouped = replace(sequences, groups=sequences.paths)
    splits = make_splits(ungrouped, folds=count, repeats=settings.repeats, seed=settings.seed)
    measured = compute_metrics(sequences, cross_validate(ungrouped, splits, settings, callbacks=callbacks), settings)
    random = {name: measured.metrics[name] for name in measured.draws}
    return {
        "how": f"{count} random stratified folds that split groups, seed {settings.seed}: these metrics are inflated",
        **random,
        "leakage": {name: random[name]["value"] - metrics[name]["value"] for name in random},
    }


def format_leakage(random_metrics: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Format the difference to the grouped folds as one line for the terminal and the model card."""
    differences = ", ".join(
        f"{name.replace('_', ' ').replace('roc auc', 'ROC AUC')} {random_metrics[name]['value']:.3f} instead of "
        f"{metrics[name]['value']:.3f} ({random_metrics['leakage'][name]:+.3f})"
        for name in REPORTED_METRICS
    )
    return f"on random folds, which split groups: {differences}; the difference is leakage"
