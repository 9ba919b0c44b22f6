"""Significance tests of each model against the best one, on the same folds and the same draws of groups.

There are two tests: a paired bootstrap over groups, and the resampled t-test over folds, corrected for overlapping
training parts (Nadeau and Bengio 2003, equation 9; for repeated folds Bouckaert and Frank 2004). The best of many
models leads by chance even if all are equal. The bootstrap therefore compares a difference with the largest among all
models in the same draw, each in its own standard errors (White 2000, Hansen 2005). The t-test multiplies by the number
of models (Bonferroni).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t  # type: ignore[import-untyped]

from hazard.data.splits import CrossValidationSplits
from hazard.experiments.evaluation_metrics import EvaluationMetrics, ranking_metric
from hazard.metrics.bootstrap import CONFIDENCE_LEVEL
from hazard.metrics.intervals import widen_draws

COMPARED_METRICS = ("roc_auc", "accuracy")
SMALLEST_ERROR = 1e-6
"""Least standard error of a difference: models that predict the same have none."""


def compare_with_best(measured: Sequence[EvaluationMetrics], splits: CrossValidationSplits) -> list[dict[str, Any]]:
    """Return columns of leaderboard.csv, one entry per model; the first of `measured` must be the best.

    `METRIC_behind` with `_low` and `_high` is the distance to the best model. `_p` is the p-value of no difference by
    the paired bootstrap, `_t_p` that of the corrected t-test (NaN for one fold); interval and p-values allow for the
    number of models. `within_noise` is 1 if the interval of the difference in the ranking metric includes 0. All but
    the distance and `_t_p` are NaN if there are too few groups for an interval.
    """
    test_share = float(np.mean([len(fold.test) / (len(fold.train) + len(fold.val)) for fold in splits.folds]))
    ranking = ranking_metric(measured[0].sample.classes)
    rows: list[dict[str, Any]] = [{} for _ in measured]
    for name in dict.fromkeys((ranking, *COMPARED_METRICS)):
        centred = _centre_draws(name, measured)  # (M, R)
        for number, (row, model) in enumerate(zip(rows, measured, strict=True)):
            difference = measured[0].metrics[name]["value"] - model.metrics[name]["value"]
            chance, error = _largest_chance_difference(centred, number)
            margin = float(np.quantile(chance, CONFIDENCE_LEVEL)) * error if len(chance) else math.nan
            folds = [np.array([f[name] for f in each.metrics.get("folds", [])]) for each in (measured[0], model)]
            t_p = corrected_t_test_p_value(folds[0] - folds[1], test_share) * max(1, len(measured) - 1)
            row |= {
                f"{name}_behind": difference,
                f"{name}_behind_low": difference - margin,
                f"{name}_behind_high": difference + margin,
                f"{name}_behind_p": exceedance(chance, abs(difference) / error),
                f"{name}_behind_t_p": min(1.0, t_p) if math.isfinite(t_p) else math.nan,
            }
    for row in rows:
        low = row[f"{ranking}_behind_low"]
        row["within_noise"] = math.nan if math.isnan(low) else int(low <= 0)
    return rows


def exceedance(draws: NDArray[np.float64], value: float) -> float:
    """Return the share of draws (R,) that reach `value`, never 0, because one more is counted; NaN without any draw."""
    return (float((draws >= value).sum()) + 1) / (len(draws) + 1) if len(draws) else math.nan


def _centre_draws(name: str, measured: Sequence[EvaluationMetrics]) -> NDArray[np.float64]:
    """Return a metric of all models (M, R) in all draws in which it is defined, each model centred at 0.

    There is no draw if there are too few groups.
    """
    sample = measured[0].sample
    if sample.explain_missing(name):
        return np.zeros((len(measured), 0))
    draws = [widen_draws(each.draws[name] - each.metrics[name]["value"], 0.0, sample.groups) for each in measured]
    centred = np.stack(draws)
    return centred[:, np.isfinite(centred).all(axis=0)]


def _largest_chance_difference(centred: NDArray[np.float64], number: int) -> tuple[NDArray[np.float64], float]:
    """Return the largest difference (R,) of a model from any other in each draw, and the standard error from the first.

    Differences are counted in their own standard errors.
    """
    differences = centred - centred[number]  # (M, R)
    errors = np.maximum(differences.std(axis=1), SMALLEST_ERROR) if differences.size else np.ones(len(differences))
    return np.abs(differences / errors[:, None]).max(axis=0), float(errors[0])


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
