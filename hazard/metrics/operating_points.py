"""Operating points: the threshold that allows a given rate of false alarms per hour, and the recall at it.

A rate that was measured on little video says little: no false alarm in 40 s agrees with 270 an hour. Each point has the
hours that it was chosen on and an upper bound of its rate. The bound, not the measured rate, stays within the target.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2  # type: ignore[import-untyped]

from hazard.utils.text import format_rounded_duration

TARGET_FALSE_ALARMS_PER_HOUR = (1.0, 10.0, 60.0)
"""Rates for which metrics.json always gives a threshold."""
CONFIDENCE = 0.95
"""Confidence of the upper bounds, which are one-sided."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it achieves. There is one decision per clip; rates are per hour of harmless video.

    The last four fields are None in a metrics.json of an older version.
    """

    target: float
    """Highest number of false alarms per hour that was allowed."""
    threshold: float
    """Lowest probability of the positive label that raises an alarm."""
    recall: float
    """Share of the hazardous clips that raise an alarm."""
    achieved: float
    """False alarms per hour at that threshold, as measured."""
    false_alarms: float | None = None
    """False alarms at that threshold; the mean over the repeats if there are several."""
    hours: float | None = None
    """Hours of harmless video that the threshold was chosen on. A clip that was predicted several times counts once."""
    upper_bound: float | None = None
    """False alarms per hour that the true rate is below, with 95 % confidence."""
    supported: bool | None = None
    """Whether that bound is within the target. If not, the threshold is the lowest without any false alarm."""


def has_all_durations(durations: NDArray[np.float64] | None) -> bool:
    """Return True if the duration of every clip is known; features of other programs often have none."""
    return durations is not None and bool((np.isfinite(durations) & (durations > 0)).all())


def upper_rate_bound(false_alarms: ArrayLike, hours: float) -> NDArray[np.float64]:
    """Return the one-sided exact 95 % upper bounds of rates per hour, given counts in `hours` of video.

    Garwood 1936, "Fiducial limits for the Poisson distribution": chi2.ppf(0.95, 2 (k + 1)) / 2 / hours. Repeats may
    give counts that are not whole; they are rounded up. If the threshold is the lowest with k false alarms, chosen on
    these same clips, the bound still holds (Wilks 1941): in at most 5 % of such choices the true rate is above it. It
    holds for clips that err independently, so it is too low where many clips show one scene.
    """
    counts = np.ceil(np.asarray(false_alarms, dtype=np.float64) - 1e-9)
    return np.asarray(chi2.ppf(CONFIDENCE, 2 * (counts + 1)) / 2 / hours)


def hours_needed(target: float) -> float:
    """Return the hours of video without a false alarm whose upper bound is `target` per hour: 3.0 / target."""
    return float(upper_rate_bound(0, 1.0)) / target if target > 0 else math.inf


def explain_missing_hours(target: float, hours: float, *, tested: str = "the test clips have", remedy: str) -> str:
    """Return one line: the hours of harmless video that a target takes, and the lowest rate that `hours` support."""
    if target == 0:
        return "no amount of video supports a rate of 0 false alarms per hour; ask for a rate above 0"
    needed, found = (format_rounded_duration(value * 3600) for value in (hours_needed(target), hours))
    lowest = f", or ask for {_round_up(hours_needed(1) / hours):g} or more" if hours else ""
    return (
        f"a rate of {target:g} false alarms per hour takes at least {needed} of harmless video, but {tested} {found}; "
        f"{remedy}{lowest}"
    )


def find_operating_point(
    hazardous: NDArray[np.bool_],
    score: NDArray[np.float64],
    durations: NDArray[np.float64],
    *,
    target: float,
    clips: NDArray[np.int64] | None = None,
) -> OperatingPoint:
    """Return the lowest threshold whose rate has an upper bound of at most `target` false alarms per hour.

    Scores are those of predictions (N,) with `durations` in seconds. `clips` (N,) numbers the clip of each; without it
    each is a clip of its own. A clip that was predicted several times counts once, as the mean of its predictions. The
    threshold lies midway between the lowest score that raises an alarm and the next one below. Without enough hours for
    the target it is the lowest threshold without a false alarm. Raises ValueError without a hazardous clip or without
    any harmless video, since recall or rate is then undefined.
    """
    weights = _weigh_predictions(len(score), clips)
    hours = float((weights * durations)[~hazardous].sum() / 3600)
    if not hazardous.any() or not hours > 0:
        raise ValueError("an operating point needs hazardous clips and harmless ones of known duration")
    values = np.unique(score)[::-1]  # distinct, from the highest down: (V,)
    rank = len(values) - 1 - np.searchsorted(values[::-1], score)  # (N,) position of each score among them
    false_alarms = np.cumsum(np.bincount(rank, weights * ~hazardous, minlength=len(values)))  # (V,) at each threshold
    within = upper_rate_bound(false_alarms, hours) <= target
    threshold = _find_threshold(values, int((within | (false_alarms == 0)).sum()))
    alarm = score >= threshold
    count = float(weights[alarm & ~hazardous].sum())
    upper = float(upper_rate_bound(count, hours))
    recall = float(alarm[hazardous].mean())
    return OperatingPoint(target, threshold, recall, count / hours, round(count, 6), hours, upper, upper <= target)


def find_operating_points(
    hazardous: NDArray[np.bool_],
    score: NDArray[np.float64],
    durations: NDArray[np.float64] | None,
    *,
    requested: float | None = None,
    targets: Sequence[float] = TARGET_FALSE_ALARMS_PER_HOUR,
    clips: NDArray[np.int64] | None = None,
) -> list[OperatingPoint] | None:
    """Return the points of `targets` and of the `requested` rate, in ascending order.

    None if durations are unknown, or if all clips are hazardous or all harmless.
    """
    if durations is None or not has_all_durations(durations) or not hazardous.any() or hazardous.all():
        return None
    rates = sorted({*targets, *([] if requested is None else [requested])})
    return [find_operating_point(hazardous, score, durations, target=target, clips=clips) for target in rates]


def _weigh_predictions(count: int, clips: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Return the weight (N,) of each prediction: one, divided by the number of predictions of its clip."""
    if clips is None:
        return np.ones(count)
    _, clip, predictions = np.unique(clips, return_inverse=True, return_counts=True)
    return 1 / predictions[clip]


def _find_threshold(values: NDArray[np.float64], allowed: int) -> float:
    """Return a threshold between the last allowed of the descending `values` and the next.

    It is above all of them if none is allowed.
    """
    if allowed == 0:
        return float((values[0] + 1) / 2) if values[0] < 1 else 1.0
    if allowed == len(values):
        return float(values[-1])
    middle = float((values[allowed - 1] + values[allowed]) / 2)
    return middle if middle > values[allowed] else float(values[allowed - 1])


def _round_up(rate: float) -> float:
    """Return a rate with two digits that is not below the given one."""
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return round(math.ceil(rate / unit - 1e-9) * unit, 12)
