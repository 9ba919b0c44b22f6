"""The threshold that a number of false alarms per hour allows, and the share of hazards that it still finds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TARGET_FALSE_ALARMS_PER_HOUR = (1.0, 10.0, 60.0)
"""False alarms per hour that metrics.json always speaks of."""


@dataclass(frozen=True)
class OperatingPoint:
    """What one threshold means. One decision a clip; rates are per hour of harmless video."""

    target: float
    """At most so many false alarms per hour were asked for."""
    threshold: float
    """The least probability of the positive label that raises an alarm."""
    recall: float
    """Share of the hazardous clips that raise one."""
    achieved: float
    """False alarms per hour at that threshold: the target or less, unless harmless clips have a score of one."""


def has_all_durations(durations: NDArray[np.float64] | None) -> bool:
    """Whether every clip says how long it is; features made elsewhere do not."""
    return durations is not None and bool((np.isfinite(durations) & (durations > 0)).all())


def harmless_hours(hazardous: NDArray[np.bool_], durations: NDArray[np.float64]) -> float:
    """Hours of harmless video that were looked at; a clip that was predicted several times was looked at as often."""
    return float(durations[~hazardous].sum() / 3600)


def find_operating_point(
    hazardous: NDArray[np.bool_], score: NDArray[np.float64], durations: NDArray[np.float64], *, target: float
) -> OperatingPoint:
    """The lowest threshold with at most `target` false alarms per hour, over clips (N,) with `durations` in seconds.

    The threshold lies midway between the lowest score that raises an alarm and the next one below. Raises ValueError
    without a hazardous clip or without any harmless video: neither recall nor a rate is defined then.
    """
    hours = harmless_hours(hazardous, durations)
    if not hazardous.any() or not hours > 0:
        raise ValueError("an operating point needs hazardous clips and harmless ones of known duration")
    values = np.unique(score)[::-1]  # distinct, from the highest down: (V,)
    place = len(values) - 1 - np.searchsorted(values[::-1], score)  # (N,) where each score stands among them
    false = np.cumsum(np.bincount(place[~hazardous], minlength=len(values)))  # (V,) at each threshold
    threshold = _find_threshold(
        values, int((false / hours <= target).sum())
    )  # the first so many of them keep to the target
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
    """One for each of `targets` and for the one that was `asked`, in order; None where a rate cannot be told."""
    if durations is None or not has_all_durations(durations) or not hazardous.any() or hazardous.all():
        return None
    wanted = sorted({*targets, *([] if requested is None else [requested])})
    return [find_operating_point(hazardous, score, durations, target=target) for target in wanted]


def _find_threshold(values: NDArray[np.float64], allowed: int) -> float:
    """Between the last allowed of the falling `values` and the next; above all of them where none is allowed."""
    if allowed == 0:
        return float((values[0] + 1) / 2) if values[0] < 1 else 1.0
    if allowed == len(values):
        return float(values[-1])
    middle = float((values[allowed - 1] + values[allowed]) / 2)
    return middle if middle > values[allowed] else float(values[allowed - 1])
