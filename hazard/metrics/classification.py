"""Classification metrics as pure functions on arrays.

B clips, K classes. `y` (B,) holds class numbers, `probs` (B, K) rows that sum to one. An undefined metric (only one
class, no clips) is NaN here and null in JSON. Definitions are those of scikit-learn's user guide, section 3.4, unless a
source is named.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata  # type: ignore[import-untyped]

Labels = NDArray[np.int64]
Probs = NDArray[np.float64]

HEADLINE_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "precision",
    "recall",
    "roc_auc",
    "pr_auc",
    "ece",
    "nll",
    "brier",
)
"""Metrics with a confidence interval; `top5_accuracy` is added for five classes or more."""

DECISION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "precision", "recall")
"""Those of them that depend on the threshold."""


def predict_labels(probs: Probs, *, positive: int | None = None, threshold: float = 0.5) -> Labels:
    """Return the predicted classes (B,).

    With a positive class of two, a clip is positive if its probability is the threshold or more. Otherwise the most
    probable class is predicted.
    """
    if positive is None or probs.shape[1] != 2:
        return probs.argmax(axis=1)
    return np.where(probs[:, positive] >= threshold, positive, 1 - positive)


def accuracy(y: Labels, predicted: Labels) -> float:
    """Return the share of clips whose class was predicted correctly."""
    return float((y == predicted).mean()) if len(y) else math.nan


def balanced_accuracy(y: Labels, predicted: Labels) -> float:
    """Return the mean recall over the classes that occur in `y`."""
    present = np.unique(y)
    return float(np.mean([(predicted[y == k] == k).mean() for k in present])) if len(present) else math.nan


def macro_f1(y: Labels, predicted: Labels, classes: int) -> float:
    """Return the unweighted mean of the F1 of the classes that occur in `y` or `predicted`."""
    return _class_mean(confusion_matrix(y, predicted, classes), "f1", None)


def precision(y: Labels, predicted: Labels, classes: int, *, positive: int | None = None) -> float:
    """Return the precision of the positive class, or its mean over the classes that occur.

    The precision of a class that is never predicted is 0.
    """
    return _class_mean(confusion_matrix(y, predicted, classes), "precision", positive)


def recall(y: Labels, predicted: Labels, classes: int, *, positive: int | None = None) -> float:
    """Return the recall of the positive class, or its mean over the classes that occur.

    The recall of a class without clips is 0.
    """
    return _class_mean(confusion_matrix(y, predicted, classes), "recall", positive)


def top5_accuracy(y: Labels, probs: Probs) -> float:
    """Return the share of clips whose class is among the five most probable; NaN below five classes."""
    if probs.shape[1] < 5 or not len(y):
        return math.nan
    best = np.argsort(-probs, axis=1, kind="stable")[:, :5]
    return float((best == y[:, None]).any(axis=1).mean())


def roc_auc(y: Labels, probs: Probs, *, positive: int | None = None) -> float:
    """Return the area under the ROC curve of the positive class, or the one-vs-rest mean over the classes that occur.

    Computed as the Mann-Whitney statistic (Hanley and McNeil 1982).
    """
    wanted, columns = _one_vs_rest(y, probs, positive)
    if not columns.shape[1]:
        return math.nan
    hits, misses = wanted.sum(axis=0), (~wanted).sum(axis=0)
    ranks = (rankdata(columns, axis=0) * wanted).sum(axis=0)
    return float(((ranks - hits * (hits + 1) / 2) / (hits * misses)).mean())


def pr_auc(y: Labels, probs: Probs, *, positive: int | None = None) -> float:
    """Return the average precision of the positive class, or the one-vs-rest mean over the classes that occur."""
    wanted, columns = _one_vs_rest(y, probs, positive)
    each = [_average_precision(wanted[:, k], columns[:, k]) for k in range(columns.shape[1])]
    return float(np.mean(each)) if each else math.nan


def ece(y: Labels, probs: Probs, *, bins: int = 10) -> float:
    """Return the expected calibration error over equal bins of the highest probability.

    Guo et al. 2017, equation 3.
    """
    if not len(y):
        return math.nan
    confidence, right, number = reliability_curve(y, probs, bins=bins)
    used = number > 0
    return float((number[used] * np.abs(right[used] - confidence[used])).sum() / len(y))


def nll(y: Labels, probs: Probs) -> float:
    """Return the mean negative log likelihood of the true label, in nats; a probability of zero counts as 1e-12."""
    return float(log_losses(y, probs).mean()) if len(y) else math.nan


def brier(y: Labels, probs: Probs) -> float:
    """Return the mean squared distance of the probabilities from the truth, summed over the labels: 0 to 2.

    Brier 1950.
    """
    return float(brier_scores(y, probs).mean()) if len(y) else math.nan


def log_losses(y: Labels, probs: Probs) -> NDArray[np.float64]:
    """Return the negative log likelihood (B,) of each clip, in nats; `nll` is their mean."""
    return -np.log(np.maximum(probs[np.arange(len(y)), y], 1e-12))


def brier_scores(y: Labels, probs: Probs) -> NDArray[np.float64]:
    """Return the squared distance (B,) of each clip; `brier` is their mean."""
    return (probs**2).sum(axis=1) - 2 * probs[np.arange(len(y)), y] + 1


def reliability_curve(y: Labels, probs: Probs, *, bins: int = 10) -> tuple[NDArray, NDArray, NDArray]:
    """Return the mean confidence, the share of correct predictions and the number of clips of each bin: all (bins,).

    The first two are NaN in an empty bin.
    """
    confidence, hit = probs.max(axis=1), probs.argmax(axis=1) == y
    bucket = np.minimum((confidence * bins).astype(int), bins - 1)
    number = np.bincount(bucket, minlength=bins).astype(float)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bucket, confidence, minlength=bins) / number
        share = np.bincount(bucket, hit.astype(float), minlength=bins) / number
    return mean, share, number


def confusion_matrix(y: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Return counts (K, K): rows are true classes, columns predicted classes."""
    return np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def per_class_metrics(y: Labels, predicted: Labels, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the precision, recall, F1 and number of clips of each label."""
    counts = confusion_matrix(y, predicted, len(labels))
    table = {}
    for k, label in enumerate(labels):
        hits, predicted_count, true_count = counts[k, k], counts[:, k].sum(), counts[k].sum()
        shares = {
            "precision": _safe_ratio(hits, predicted_count),
            "recall": _safe_ratio(hits, true_count),
            "f1": _safe_ratio(2 * hits, predicted_count + true_count),
        }
        table[label] = shares | {"clips": int(true_count)}
    return table


def headline_metrics(
    y: Labels,
    probs: Probs,
    *,
    positive: int | None = None,
    threshold: float = 0.5,
    held_out: Probs | None = None,
) -> dict[str, float]:
    """Return every headline metric as a plain number.

    `held_out` replaces `probs` in the calibration metrics.
    """
    calibration_probs = probs if held_out is None else held_out
    predicted, classes = predict_labels(probs, positive=positive, threshold=threshold), probs.shape[1]
    positive = positive if classes == 2 else None
    result = {
        "accuracy": accuracy(y, predicted),
        "balanced_accuracy": balanced_accuracy(y, predicted),
        "macro_f1": macro_f1(y, predicted, classes),
        "precision": precision(y, predicted, classes, positive=positive),
        "recall": recall(y, predicted, classes, positive=positive),
        "roc_auc": roc_auc(y, probs, positive=positive),
        "pr_auc": pr_auc(y, probs, positive=positive),
        "ece": ece(y, calibration_probs),
        "nll": nll(y, calibration_probs),
        "brier": brier(y, calibration_probs),
    }
    return result | ({"top5_accuracy": top5_accuracy(y, probs)} if classes >= 5 else {})


def replace_nan_by_none(tree: Any) -> Any:
    """Return the same tree with NaN and infinity as None, since JSON has neither."""
    if isinstance(tree, dict):
        return {key: replace_nan_by_none(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [replace_nan_by_none(value) for value in tree]
    if isinstance(tree, float | np.floating):
        return float(tree) if math.isfinite(tree) else None
    return tree.item() if isinstance(tree, np.generic) else tree


def _class_mean(counts: NDArray[np.int64], metric: str, positive: int | None) -> float:
    hits, predicted_counts, true_counts = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    either_counts = predicted_counts + true_counts
    part, whole = {
        "precision": (hits, predicted_counts),
        "recall": (hits, true_counts),
        "f1": (2 * hits, either_counts),
    }[metric]
    shares = part / np.maximum(whole, 1)
    if positive is not None:
        return float(shares[positive]) if counts.sum() else math.nan
    present = either_counts > 0
    return float(shares[present].mean()) if present.any() else math.nan


def _one_vs_rest(y: Labels, probs: Probs, positive: int | None) -> tuple[NDArray[np.bool_], Probs]:
    """Return truth (B, J) and scores (B, J) of the J classes that have clips on both sides."""
    classes = [positive] if positive is not None and probs.shape[1] == 2 else list(range(probs.shape[1]))
    wanted = y[:, None] == np.array(classes)  # (B, J)
    defined = wanted.any(axis=0) & ~wanted.all(axis=0)
    return wanted[:, defined], probs[:, classes][:, defined]


def _average_precision(wanted: NDArray[np.bool_], score: Probs) -> float:
    """Return the sum of precision times step in recall over the distinct thresholds, from the highest down."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # ends of runs of equal scores
    hits = np.cumsum(wanted[order])[last]
    return float((hits / (last + 1) * np.diff(hits, prepend=0)).sum() / hits[-1])


def _safe_ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan
