"""Operating points: the threshold that allows a given rate of false alarms per hour, and the recall at it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TARGET_FALSE_ALARMS_PER_HOUR = (1.0, 10.0, 60.0)
"""Rates for which metrics.json always gives a threshold."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it achieves. There is one decision per clip; rates are per hour of harmless video."""

    target: float
    """Highest number of false alarms per hour that was allowed."""
    threshold: float
    """Lowest probability of the positive label that raises an alarm."""
    recall: float
    """Share of the hazardous clips that raise an alarm."""
    achieved: float
    """False alarms per hour at that threshold: the target or less, unless harmless clips have a score of one."""


def has_all_durations(durations: NDArray[np.float64] | None) -> bool:
    """Return True if the duration of every clip is known; features of other programs often have none."""
    return durations is not None and bool((np.isfinite(durations) & (durations > 0)).all())


def harmless_hours(hazardous: NDArray[np.bool_], durations: NDArray[np.float64]) -> float:
    """Return the hours of harmless video; a clip that was predicted several times counts each time."""
    return float(durations[~hazardous].sum() / 3600)


def find_operating_point(
    hazardous: NDArray[np.bool_], score: NDArray[np.float64], durations: NDArray[np.float64], *, target: float
) -> OperatingPoint:
    """Return the lowest threshold with at most `target` false alarms per hour.

    Scores are those of clips (N,) with `durations` in seconds. The threshold lies midway between the lowest score that
    raises an alarm and the next one below. Raises ValueError without a hazardous clip or without any harmless video,
    since recall or rate is then undefined.
    """
    hours = harmless_hours(hazardous, durations)
    if not hazardous.any() or not hours > 0:
        raise ValueError("an operating point needs hazardous clips and harmless ones of known duration")
    values = np.unique(score)[::-1]  # distinct, from the highest down: (V,)
    rank = len(values) - 1 - np.searchsorted(values[::-1], score)  # (N,) position of each score among them
    false_alarms = np.cumsum(np.bincount(rank[~hazardous], minlength=len(values)))  # (V,) at each threshold
    allowed = int((false_alarms / hours <= target).sum())  # this many of the highest values stay within the target
    threshold = _find_threshold(values, allowed)
    alarm = score >= threshold
    return OperatingPoint(target, threshold, float(alarm[hazardous].mean()), float(alarm[~hazardous].sum() / hours))


def find_operating_points(
    hazardous: NDArray[np.bool_],
    score: NDArray[np.float64],
    durations: NDArray[np.float64] | None,
    *,
    requested: float | None = None,
    targets: Sequence[float] = TARGET_FALSE_ALARMS_PER_HOUR,
) -> list[OperatingPoint] | None:
    """Return the points of `targets` and of the `requested` rate, in ascending order.

    None if durations are unknown, or if all clips are hazardous or all harmless.
    """
    if durations is None or not has_all_durations(durations) or not hazardous.any() or hazardous.all():
        return None
    rates = sorted({*targets, *([] if requested is None else [requested])})
    return [find_operating_point(hazardous, score, durations, target=target) for target in rates]


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
