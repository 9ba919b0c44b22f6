"""What folds drawn at random, which part groups, would have said: leakage made visible, never a result."""

from dataclasses import replace
from typing import Any

from hazard.data.splits import HOLD_OUT_PARTS, divide
from hazard.experiments.cross_validation import evaluate
from hazard.experiments.figures import measure
from hazard.models.settings import TrainSettings
from hazard.training.fit import ALONE, Watch
from hazard.types import Sequences

SHOWN = ("accuracy", "roc_auc")


def random_split(
    sequences: Sequences, settings: TrainSettings, figures: dict[str, Any], *, watch: Watch = ALONE
) -> dict[str, Any]:
    """The model of `settings` on random stratified folds, beside its honest `figures`: metrics.json's `random_split`.

    Its intervals are over groups too; `leakage` is how much higher each figure is than the honest one.
    """
    count = settings.folds or HOLD_OUT_PARTS
    apart = replace(sequences, groups=sequences.paths)
    division = divide(apart, folds=count, repeats=settings.repeats, seed=settings.seed)
    found = measure(sequences, evaluate(apart, division, settings, watch=watch), settings)
    random = {name: found.figures[name] for name in found.draws}
    return {
        "how": f"{count} random stratified folds that split groups, seed {settings.seed}: these figures are inflated",
        **random,
        "leakage": {name: random[name]["value"] - figures[name]["value"] for name in random},
    }


def leak_line(random: dict[str, Any], figures: dict[str, Any]) -> str:
    """One line for the terminal and the model card."""
    said = ", ".join(
        f"{name.replace('_', ' ').replace('roc auc', 'ROC AUC')} {random[name]['value']:.3f} instead of "
        f"{figures[name]['value']:.3f} ({random['leakage'][name]:+.3f})"
        for name in SHOWN
    )
    return f"random folds, which part groups, would have said: {said}; what they add is leakage"
