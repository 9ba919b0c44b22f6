"""Significance tests of each model against the best one, on the same folds and the same draws of groups.

There are two tests: a paired bootstrap over groups, and the resampled t-test over folds, corrected for overlapping
training parts (Nadeau and Bengio 2003, equation 9; for repeated folds Bouckaert and Frank 2004). The best model was
chosen on these same folds, so its lead is slightly too large.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t  # type: ignore[import-untyped]

from hazard.data.splits import CrossValidationSplits
from hazard.experiments.evaluation_metrics import RANKING_METRIC, EvaluationMetrics
from hazard.metrics import bootstrap
from hazard.metrics.intervals import widen_draws

COMPARED_METRICS = ("roc_auc", "accuracy")


def compare_with_best(measured: Sequence[EvaluationMetrics], splits: CrossValidationSplits) -> list[dict[str, Any]]:
    """Return columns of leaderboard.csv, one entry per model; the first of `measured` must be the best.

    `METRIC_behind` with `_low` and `_high` is the distance to the best model. `_p` is the two-sided p-value of no
    difference by the paired bootstrap, `_t_p` that of the corrected t-test (NaN for one fold). `within_noise` is 1 if
    the interval of the difference in ROC AUC includes 0. All but the distance and `_t_p` are NaN if there are too few
    groups for an interval.
    """
    test_share = float(np.mean([len(fold.test) / (len(fold.train) + len(fold.val)) for fold in splits.folds]))
    rows = []
    for model in measured:
        row: dict[str, Any] = {}
        for name in COMPARED_METRICS:
            row |= _compare_metric(name, measured[0], model, test_share)
        low = row[f"{RANKING_METRIC}_behind_low"]
        rows.append(row | {"within_noise": math.nan if math.isnan(low) else int(low <= 0)})
    return rows


def bootstrap_p_value(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of differences (R,) over draws: twice the share on the rarer side of 0.

    One draw is added on that side, so that the p-value is never 0. NaN if no difference is finite.
    """
    finite = differences[np.isfinite(differences)]
    rarer = min((finite <= 0).sum(), (finite >= 0).sum())
    return min(1.0, 2 * (float(rarer) + 1) / (len(finite) + 1)) if len(finite) else math.nan


def corrected_t_test_p_value(differences: NDArray[np.float64], test_share: float) -> float:
    """Return the two-sided p-value of differences (J,) over folds (Nadeau and Bengio 2003, equation 9).

    `test_share` is the number of test clips divided by that of training clips. NaN for fewer than two finite
    differences.
    """
    finite = differences[np.isfinite(differences)]
    if len(finite) < 2:
        return math.nan
    standard_error = math.sqrt((1 / len(finite) + test_share) * finite.var(ddof=1))
    if standard_error == 0:
        return 1.0 if finite.mean() == 0 else 0.0
    return float(2 * student_t.sf(abs(finite.mean()) / standard_error, len(finite) - 1))


def _compare_metric(
    name: str, best: EvaluationMetrics, model: EvaluationMetrics, test_share: float
) -> dict[str, float]:
    difference = best.metrics[name]["value"] - model.metrics[name]["value"]
    draws = np.array([])
    if not best.sample.explain_missing(name):
        draws = widen_draws(best.draws[name] - model.draws[name], difference, best.sample.groups)
    interval = bootstrap.percentile_interval(draws)
    folds = [np.array([fold[name] for fold in each.metrics.get("folds", [])]) for each in (best, model)]
    return {
        f"{name}_behind": difference,
        f"{name}_behind_low": interval["low"],
        f"{name}_behind_high": interval["high"],
        f"{name}_behind_p": bootstrap_p_value(draws),
        f"{name}_behind_t_p": corrected_t_test_p_value(folds[0] - folds[1], test_share),
    }
