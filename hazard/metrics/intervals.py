"""95 % intervals of the headline metrics, over groups of clips that are alike.

The bootstrap over groups measures how much a metric varies. Its percentiles are too narrow an interval for few groups,
and have no width if no clip is wrong. So a metric between 0 and 1 is taken as a share of independent clips: of as many
as would vary that much (Korn and Graubard 1998), and of no more than there are if 1 / G of the variance is between the
G groups, because few groups cannot show that their clips are independent. The interval is Wilson's of 1927, with the t
distribution of G - 1 degrees of freedom. `benchmarks/interval_coverage.py` measures how often it holds the truth.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm  # type: ignore[import-untyped]
from scipy.stats import t as student_t

from features.utils.text import format_count
from hazard.metrics.bootstrap import CONFIDENCE_LEVEL, MetricDraws
from hazard.metrics.classification import Labels

MIN_GROUPS = 6
"""Fewest groups that an interval needs. With five, one that holds the truth is half as wide as the whole scale."""
MIN_GROUPS_PER_LABEL = 3
"""Fewest groups with clips of each of two labels that an interval needs, for metrics besides OVERALL_METRICS."""
OVERALL_METRICS = ("accuracy", "top5_accuracy", "ece", "nll", "brier")
"""Metrics that are defined for clips of one label."""
POSITIVE_METRICS = ("precision", "recall", "pr_auc")
"""Metrics of the clips of the positive label, if there is one."""
LOSSES = ("nll", "brier")
"""Metrics that are at least 0, but not shares."""
ROUNDING = 1e-12

Interval = dict[str, float | str]
"""`low` and `high`; if there is no interval both are NaN, and `reason` says why."""


@dataclass(frozen=True)
class SampleSize:
    """How many clips and groups metrics are computed from, counting a clip once however many repeats there are."""

    clips_by_class: tuple[int, ...]  # (K,)
    groups: int
    groups_by_class: tuple[int, ...]  # (K,) groups that have clips of the class
    positive: int | None = None
    unit: str = "group"
    """What a group is called."""

    def count_clips(self, metric: str) -> float:
        """Return the number of clips behind `metric`: all, those of the positive label, or as many as equal classes.

        K classes of unequal size tell as much about a mean over classes as K times their harmonic mean.
        """
        if metric in OVERALL_METRICS:
            return sum(self.clips_by_class)
        if metric in POSITIVE_METRICS and self.positive is not None:
            return self.clips_by_class[self.positive]
        present = [count for count in self.clips_by_class if count]
        return len(present) ** 2 / sum(1 / count for count in present)

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.clips_by_class)

    def explain_missing(self, metric: str) -> str | None:
        """Return why there is no interval of `metric`; None if there is one."""
        if self.groups < MIN_GROUPS:
            return f"only {format_count(self.groups, self.unit)}"
        rarest = min(self.groups_by_class)
        if len(self.groups_by_class) == 2 and metric not in OVERALL_METRICS and rarest < MIN_GROUPS_PER_LABEL:
            return f"one label is in only {format_count(rarest, self.unit)}"
        return None


def measure_sample(
    y: Labels, groups: NDArray, *, classes: int, positive: int | None = None, unit: str = "group"
) -> SampleSize:
    """Count the clips and groups of labels `y` (N,) and `groups` (N,), one entry a clip."""
    names, units = np.unique(groups, return_inverse=True)
    labels_of_groups = np.unique(units * classes + y) % classes  # each label once a group
    return SampleSize(
        tuple(np.bincount(y, minlength=classes).tolist()),
        len(names),
        tuple(np.bincount(labels_of_groups, minlength=classes).tolist()),
        positive if classes == 2 else None,
        unit,
    )


def add_intervals(values: dict[str, float], draws: MetricDraws, sample: SampleSize) -> dict[str, Interval]:
    """Return name → `value`, `low`, `high`, and `reason` if there is no interval."""
    return {name: {"value": values[name], **compute_interval(name, values[name], draws, sample)} for name in values}


def compute_interval(metric: str, value: float, draws: MetricDraws, sample: SampleSize) -> Interval:
    """Return the interval of a metric from its value and its draws; these are not needed if there is no interval."""
    if reason := sample.explain_missing(metric):
        return {"low": math.nan, "high": math.nan, "reason": reason}
    defined = draws[metric][np.isfinite(draws[metric])]
    if not math.isfinite(value) or len(defined) < 2:
        return {"low": math.nan, "high": math.nan}
    variance = float(defined.var()) * sample.groups / (sample.groups - 1)
    quantile = float(student_t.ppf((1 + CONFIDENCE_LEVEL) / 2, sample.groups - 1))
    if metric in LOSSES:
        factor = math.exp(min(quantile * math.sqrt(variance) / value, 700)) if value > 0 else 1.0
        return {"low": value / factor, "high": value * factor}
    independent = sample.count_clips(metric)
    independent /= 1 + max(independent / sample.groups - 1, 0) / sample.groups
    if variance > ROUNDING and ROUNDING < value < 1 - ROUNDING:
        independent = min(independent, value * (1 - value) / variance)
    low, high = wilson_interval(value, independent, quantile)
    return {"low": low, "high": high}


def wilson_interval(share: float, clips: float, quantile: float) -> tuple[float, float]:
    """Return the interval of a share among independent clips (Wilson 1927); it always holds the share."""
    weight = quantile**2 / clips
    middle = (share + weight / 2) / (1 + weight)
    margin = math.sqrt(weight * share * (1 - share) + weight**2 / 4) / (1 + weight)
    return max(0.0, min(middle - margin, share)), min(1.0, max(middle + margin, share))


def widen_draws(draws: NDArray[np.float64], value: float, groups: int) -> NDArray[np.float64]:
    """Move draws (R,) of a difference away from its value, so that their percentiles are those of t intervals.

    The bootstrap's spread is too small by sqrt((G - 1) / G), and the normal distribution's tails are too short
    (Hesterberg 2015).
    """
    level = (1 + CONFIDENCE_LEVEL) / 2
    ratio = float(student_t.ppf(level, groups - 1) / norm.ppf(level))
    return value + (draws - value) * ratio * math.sqrt(groups / (groups - 1))


def format_interval(entry: Interval, digits: int = 3) -> str:
    """Format as "0.836–0.928", or as "no interval: …"."""
    if reason := entry.get("reason"):
        return f"no interval: {reason}"
    return f"{entry['low']:.{digits}f}–{entry['high']:.{digits}f}"
