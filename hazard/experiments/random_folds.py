"""What folds drawn at random, which part groups, would have said: leakage made visible, never a result."""

from dataclasses import replace
from typing import Any

from hazard.data.splits import HOLD_OUT_PARTS, make_splits
from hazard.experiments.cross_validation import cross_validate
from hazard.experiments.figures import compute_metrics
from hazard.models.settings import TrainSettings
from hazard.training.fit import NO_CALLBACKS, FitCallbacks
from hazard.types import Sequences

REPORTED_METRICS = ("accuracy", "roc_auc")


def evaluate_random_folds(
    sequences: Sequences, settings: TrainSettings, metrics: dict[str, Any], *, callbacks: FitCallbacks = NO_CALLBACKS
) -> dict[str, Any]:
    """The model of `settings` on random stratified folds, beside its honest `figures`: metrics.json's `random_split`.

    Its intervals are over groups too; `leakage` is how much higher each figure is than the honest one.
    """
    count = settings.folds or HOLD_OUT_PARTS
    apart = replace(sequences, groups=sequences.paths)
    division = make_splits(apart, folds=count, repeats=settings.repeats, seed=settings.seed)
    found = compute_metrics(sequences, cross_validate(apart, division, settings, callbacks=callbacks), settings)
    random = {name: found.metrics[name] for name in found.draws}
    return {
        "how": f"{count} random stratified folds that split groups, seed {settings.seed}: these figures are inflated",
        **random,
        "leakage": {name: random[name]["value"] - metrics[name]["value"] for name in random},
    }


def format_leakage(random_metrics: dict[str, Any], metrics: dict[str, Any]) -> str:
    """One line for the terminal and the model card."""
    said = ", ".join(
        f"{name.replace('_', ' ').replace('roc auc', 'ROC AUC')} {random_metrics[name]['value']:.3f} instead of "
        f"{metrics[name]['value']:.3f} ({random_metrics['leakage'][name]:+.3f})"
        for name in REPORTED_METRICS
    )
    return f"random folds, which part groups, would have said: {said}; what they add is leakage"
