"""Is the difference real? Models on the same folds and the same draws of groups, each against the best.

Two opinions: a paired bootstrap over groups, and the resampled t-test over folds with the correction for training parts
that overlap (Nadeau and Bengio 2003, equation 9; for repeated folds Bouckaert and Frank 2004). The best was picked on
these very folds, so that a small difference flatters it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student  # type: ignore[import-untyped]

from hazard.data.splits import CrossValidationSplits
from hazard.experiments.figures import RANKING_METRIC, EvaluationMetrics
from hazard.metrics import bootstrap

COMPARED_METRICS = ("roc_auc", "accuracy")


def compare_with_best(measured: Sequence[EvaluationMetrics], splits: CrossValidationSplits) -> list[dict[str, Any]]:
    """Columns of leaderboard.csv, one entry a model, the best of `measured` first in the list.

    `FIGURE_behind` with `_low` and `_high` is how far it lies below the best, `_p` the two-sided p-value of no
    difference by the paired bootstrap, `_t_p` that of the corrected t-test (NaN for one fold), and `within_noise` 1
    where the interval of the ROC AUC's difference holds 0.
    """
    share = float(np.mean([len(fold.test) / (len(fold.train) + len(fold.val)) for fold in splits.folds]))
    rows = []
    for one in measured:
        row: dict[str, Any] = {}
        for name in COMPARED_METRICS:
            row |= _compare_metric(name, measured[0], one, share)
        low = row[f"{RANKING_METRIC}_behind_low"]
        rows.append(row | {"within_noise": math.nan if math.isnan(low) else int(low <= 0)})
    return rows


def bootstrap_p_value(differences: NDArray[np.float64]) -> float:
    """Twice the share of draws (R,) on the rarer side of 0, one draw added to it, so that it is never 0."""
    known = differences[np.isfinite(differences)]
    rarer = min((known <= 0).sum(), (known >= 0).sum())
    return min(1.0, 2 * (float(rarer) + 1) / (len(known) + 1)) if len(known) else math.nan


def corrected_t_test_p_value(differences: NDArray[np.float64], test_share: float) -> float:
    """Two-sided p-value of differences (J,) over folds; `test_share` is test clips over training clips."""
    known = differences[np.isfinite(differences)]
    if len(known) < 2:
        return math.nan
    spread = math.sqrt((1 / len(known) + test_share) * known.var(ddof=1))
    if spread == 0:
        return 1.0 if known.mean() == 0 else 0.0
    return float(2 * student.sf(abs(known.mean()) / spread, len(known) - 1))


def _compare_metric(name: str, best: EvaluationMetrics, one: EvaluationMetrics, share: float) -> dict[str, float]:
    draws = best.draws[name] - one.draws[name]
    limits = bootstrap.percentile_interval(draws)
    folds = [np.array([fold[name] for fold in each.metrics.get("folds", [])]) for each in (best, one)]
    return {
        f"{name}_behind": best.metrics[name]["value"] - one.metrics[name]["value"],
        f"{name}_behind_low": limits["low"],
        f"{name}_behind_high": limits["high"],
        f"{name}_behind_p": bootstrap_p_value(draws),
        f"{name}_behind_t_p": corrected_t_test_p_value(folds[0] - folds[1], share),
    }
