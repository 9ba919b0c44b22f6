"""Temperature scaling (Guo et al. 2017, section 4.2): one number that calibrates the probabilities of a model.

All logits are divided by one temperature. This changes neither the ranking of a clip's labels nor, with two labels, the
ranking of the clips. Accuracy at the most probable label and a binary ROC AUC therefore stay the same.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import logsumexp  # type: ignore[import-untyped]

Labels = NDArray[np.int64]
Probs = NDArray[np.float64]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.5, 20.0
"""Bounds of the temperature. Beyond them the predictions are worthless, or the clips are too few or too easy to
calibrate."""

MIN_GAIN_NATS = 1e-9
"""Improvement in nats that a temperature needs to be preferred to 1, so that rounding alone chooses none."""

MIN_PROBABILITY = 1e-12
"""Lower bound before the logarithm: zero has none, and one such clip must not decide the temperature."""


@dataclass(frozen=True)
class CalibratedPredictions:
    """The predictions of N clips before and after temperature scaling, each (N, K)."""

    temperature: float
    """Divisor of the saved model's logits, fitted on all held-out predictions."""
    raw: Probs
    """Probabilities as the models gave them."""
    probs: Probs
    """Probabilities as the saved model gives them: all at `temperature`."""
    held_out: Probs
    """Probabilities at temperatures that no clip of the same fold or group helped to fit; they give an unbiased
    `ece`."""


def fit_temperature(probs: Probs, y: Labels) -> float:
    """Return the temperature with the least mean negative log likelihood of probs (N, K), given y (N,).

    Returns 1 without any clip, and if no temperature is better.
    """
    if not len(y):
        return 1.0
    logs = np.log(np.maximum(probs, MIN_PROBABILITY))  # (N, K), logits up to a constant a row

    def loss(log_temperature: float) -> float:
        scaled = logs * math.exp(-log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(y)), y]).mean())

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(math.exp(best.x)) if best.fun < loss(0.0) - MIN_GAIN_NATS else 1.0


def apply_temperature(probs: Probs, temperature: float) -> Probs:
    """Return probs (N, K) to the power 1 / temperature, with rows that sum to one; zeros stay zero."""
    if temperature == 1.0:
        return probs
    with np.errstate(divide="ignore"):
        logs = np.log(probs) / temperature
    return np.exp(logs - logsumexp(logs, axis=1, keepdims=True)) if len(probs) else probs


def cross_fit_temperatures(probs: Probs, y: Labels, folds: NDArray, groups: NDArray) -> Probs:
    """Scale probs (N, K) of each fold at the temperature of the clips that share neither its fold nor its groups.

    In repeated folds a clip is predicted several times; none of its predictions helps to calibrate another.
    """
    result = probs.copy()
    for fold in np.unique(folds):
        test = folds == fold
        unrelated = ~test & ~np.isin(groups, groups[test])
        result[test] = apply_temperature(probs[test], fit_temperature(probs[unrelated], y[unrelated]))
    return result


def calibrate(probs: Probs, y: Labels, folds: NDArray, groups: NDArray) -> CalibratedPredictions:
    """Calibrate the test predictions (N,) of two folds or more: one temperature to save, others to evaluate."""
    temperature = fit_temperature(probs, y)
    scaled = apply_temperature(probs, temperature)
    return CalibratedPredictions(temperature, probs, scaled, cross_fit_temperatures(probs, y, folds, groups))


def calibrate_at_temperature(probs: Probs, temperature: float) -> CalibratedPredictions:
    """Calibrate the predictions of one test part at a temperature that was fitted on other clips."""
    scaled = apply_temperature(probs, temperature)
    return CalibratedPredictions(temperature, probs, scaled, scaled)
