"""Headline figures over many draws of whole groups, all draws at once.

A draw is a weight a group, the number of times that it was drawn, so that a figure is a few sums over weights: no row
is ever copied, and 500 draws of 101 classes take seconds. The definitions are those of `hazard.metrics`.

N predictions, K classes, U groups, R draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hazard.metrics import classification as metrics
from hazard.metrics.classification import Labels, Probs

DEFAULT_DRAWS = 500
CONFIDENCE_LEVEL = 0.95

MetricDraws = dict[str, NDArray[np.float64]]
"""A figure's name and its value in each draw, (R,)."""


@dataclass(frozen=True)
class DrawWeights:
    """How often each of U units counts in each of R draws, and which unit each prediction belongs to."""

    units: Labels  # (N,)
    counts: NDArray[np.float64]  # (U, R)

    def take(self, rows: NDArray) -> "DrawWeights":
        """The same draws for some of the predictions."""
        return DrawWeights(self.units[rows], self.counts)

    def sum_by(self, column: Labels, length: int, values: NDArray | None = None) -> NDArray[np.float64]:
        """Weighted sums (length, R) of `values` (N,), by default ones, over the rows of each number in `column`."""
        shape = (length, len(self.counts))
        table = csr_array((np.ones(len(column)) if values is None else values, (column, self.units)), shape=shape)
        return np.asarray(table @ self.counts)


def draw_groups(groups: NDArray, *, rounds: int = DEFAULT_DRAWS, seed: int = 0) -> DrawWeights:
    """Draws with replacement of as many groups as there are, each with all its clips (Efron and Tibshirani 1993)."""
    names, units = np.unique(groups, return_inverse=True)
    shares = np.full(len(names), 1 / len(names))
    return DrawWeights(units, np.random.default_rng(seed).multinomial(len(names), shares, size=rounds).T.astype(float))


def subset_weights(subset: NDArray) -> DrawWeights:
    """One "draw" for each distinct number in `which` (N,), in their order: the predictions that have it."""
    names, units = np.unique(subset, return_inverse=True)
    return DrawWeights(units, np.eye(len(names)))


def headline_metrics(
    y: Labels,
    probs: Probs,
    weights: DrawWeights,
    *,
    positive: int | None = None,
    threshold: float = 0.5,
    held_out: Probs | None = None,
    predicted: Labels | None = None,
) -> MetricDraws:
    """Every headline figure in every draw; NaN where a draw leaves it undefined.

    Calibration is judged on `held_out` in place of `probs` where given. `predicted` are classes that something else
    than the threshold decided.
    """
    judged = probs if held_out is None else held_out
    classes = probs.shape[1]
    if predicted is None:
        predicted = metrics.predict_labels(probs, positive=positive, threshold=threshold)
    positive = positive if classes == 2 else None
    hits = weights.sum_by(y, classes, (predicted == y).astype(float))  # (K, R), as are the next two
    said, truly = weights.sum_by(predicted, classes), weights.sum_by(y, classes)
    clips = truly.sum(axis=0)  # (R,)
    areas = [
        _roc_and_pr_areas(y == k, probs[:, k], weights)
        for k in ([positive] if positive is not None else range(classes))
    ]
    figures = {
        "accuracy": _safe_ratio(hits.sum(axis=0), clips),
        "balanced_accuracy": _nan_mean(_safe_ratio(hits, truly)),
        "macro_f1": _class_mean(2 * hits, said + truly, said + truly, None),
        "precision": _class_mean(hits, said, said + truly, positive),
        "recall": _class_mean(hits, truly, said + truly, positive),
        "roc_auc": _nan_mean(np.stack([roc for roc, _ in areas])),
        "pr_auc": _nan_mean(np.stack([pr for _, pr in areas])),
        "ece": _ece(y, judged, weights),
        "nll": _weighted_mean(metrics.log_losses(y, judged), weights),
        "brier": _weighted_mean(metrics.brier_scores(y, judged), weights),
    }
    return figures | ({"top5_accuracy": _top5_accuracy(y, probs, weights)} if classes >= 5 else {})


def average_over_repeats(
    y: Labels,
    probs: Probs,
    repeats: Labels,
    weights: DrawWeights,
    *,
    positive: int | None = None,
    threshold: float = 0.5,
    held_out: Probs | None = None,
) -> MetricDraws:
    """`headline` of each repeat apart, averaged over the repeats: every draw takes the same groups in all of them."""
    judged = probs if held_out is None else held_out
    each = [
        headline_metrics(
            y[rows],
            probs[rows],
            weights.take(rows),
            positive=positive,
            threshold=threshold,
            held_out=judged[rows],
        )
        for rows in (repeats == repeat for repeat in np.unique(repeats))
    ]
    return {name: np.mean([draws[name] for draws in each], axis=0) for name in each[0]}


def percentile_interval(draws: NDArray[np.float64], *, level: float = CONFIDENCE_LEVEL) -> dict[str, float]:
    """The percentile interval of one figure, from the draws where it is defined."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return {"low": np.nan, "high": np.nan}
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return {"low": float(low), "high": float(high)}


def add_intervals(values: dict[str, float], draws: MetricDraws) -> dict[str, dict[str, float]]:
    """Name → value, low, high."""
    return {name: {"value": values[name], **percentile_interval(draws[name])} for name in draws}


def select_draw(draws: MetricDraws, place: int = 0) -> dict[str, float]:
    """The figures of one draw as plain numbers."""
    return {name: float(values[place]) for name, values in draws.items()}


def make_unit_weights(count: int) -> DrawWeights:
    """One draw that takes each of `count` predictions once."""
    return subset_weights(np.zeros(count))


def _roc_and_pr_areas(
    wanted: NDArray[np.bool_], score: NDArray[np.float64], weights: DrawWeights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Areas (R,) under the ROC curve, ties counting half, and under precision-recall, as average precision.

    Sums over the P positives of the weight of all that scores as high or higher.
    """
    order = np.flatnonzero(wanted)[np.argsort(score[wanted], kind="stable")]
    own, misses, marks = weights.counts[weights.units[order]], weights.take(~wanted), score[order]  # own (P, R)
    true_above = _reverse_cumsum(own)[np.searchsorted(marks, marks, "left")]  # (P, R)
    passed, beaten = (np.searchsorted(marks, score[~wanted], side) for side in ("right", "left"))
    no_less = _weight_of_negatives_above(misses, passed, len(marks))
    more = no_less if np.array_equal(passed, beaten) else _weight_of_negatives_above(misses, beaten, len(marks))
    positives = own.sum(axis=0)
    negatives = np.bincount(misses.units, minlength=len(weights.counts)) @ weights.counts
    below = negatives - (no_less + more) / 2
    defined = (positives > 0) & (negatives > 0)
    precision = true_above / np.maximum(true_above + no_less, 1)
    roc = (own * below).sum(axis=0) / np.maximum(positives * negatives, 1)
    pr = (own * precision).sum(axis=0) / np.maximum(positives, 1)
    return np.where(defined, roc, np.nan), np.where(defined, pr, np.nan)


def _weight_of_negatives_above(misses: DrawWeights, passed: Labels, positives: int) -> NDArray[np.float64]:
    """The weight (P, R) of the negatives above each positive; `passed` is how many positives each one passes."""
    return _reverse_cumsum(misses.sum_by(passed, positives + 1)[1:])


def _reverse_cumsum(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cumsum(rows[::-1], axis=0)[::-1]


def _ece(y: Labels, probs: Probs, weights: DrawWeights, *, bins: int = 10) -> NDArray[np.float64]:
    """As `metrics.ece`."""
    confidence, right = probs.max(axis=1), (probs.argmax(axis=1) == y).astype(float)
    bucket = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.abs(weights.sum_by(bucket, bins, right - confidence))  # (bins, R)
    return _safe_ratio(gaps.sum(axis=0), weights.sum_by(bucket, bins).sum(axis=0))


def _top5_accuracy(y: Labels, probs: Probs, weights: DrawWeights) -> NDArray[np.float64]:
    best = np.argsort(-probs, axis=1, kind="stable")[:, :5]
    return _weighted_mean((best == y[:, None]).any(axis=1).astype(float), weights)


def _weighted_mean(values: NDArray[np.float64], weights: DrawWeights) -> NDArray[np.float64]:
    """The mean (R,) of values (N,)."""
    everyone = np.zeros(len(values), np.int64)
    return _safe_ratio(weights.sum_by(everyone, 1, values)[0], weights.sum_by(everyone, 1)[0])


def _safe_ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where the whole is nothing."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def _nan_mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean (R,) over the rows (J, R) that are defined."""
    known = np.isfinite(rows)
    return _safe_ratio(np.where(known, rows, 0).sum(axis=0), known.sum(axis=0).astype(float))


def _class_mean(
    part: NDArray[np.float64], whole: NDArray[np.float64], present: NDArray[np.float64], positive: int | None
) -> NDArray[np.float64]:
    """Of the positive class, or the mean over the classes that are present; 0 for a share of nothing."""
    shares = part / np.maximum(whole, 1)
    if positive is not None:
        return np.where(present.sum(axis=0) > 0, shares[positive], np.nan)
    return _nan_mean(np.where(present > 0, shares, np.nan))
