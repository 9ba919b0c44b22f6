"""Temperature scaling (Guo et al. 2017, section 4.2): one number that makes probabilities mean what they say.

Dividing all logits by one temperature changes no ranking of the labels of a clip, and of two labels no ranking of the
clips either: accuracy at the most probable label and a binary ROC AUC stay what they were.
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
"""Beyond these the predictions are worthless, or the clips too few or too easy to tell how sure one may be."""

MIN_GAIN_NATS = 1e-9
"""Nats that a temperature must be better by than none, so that rounding alone chooses none."""

MIN_PROBABILITY = 1e-12
"""A probability of zero has no logarithm; one such clip must not decide the temperature."""


@dataclass(frozen=True)
class CalibratedPredictions:
    """The predictions of N clips before and after temperature scaling, each (N, K)."""

    temperature: float
    """What the saved model divides its logits by, fitted on all that was held out."""
    raw: Probs
    """As the models gave them."""
    probs: Probs
    """As the saved model gives them: all at `temperature`."""
    held_out: Probs
    """Each clip at a temperature that no clip of its fold or group helped to fit: what `ece` is honest about."""


def fit_temperature(probs: Probs, y: Labels) -> float:
    """The temperature with the least mean negative log likelihood of probs (N, K), given y (N,); 1 without any clip."""
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
    """probs (N, K) to the power 1 / temperature, rows summing to one again; zeros stay zero."""
    if temperature == 1.0:
        return probs
    with np.errstate(divide="ignore"):
        logs = np.log(probs) / temperature
    return np.exp(logs - logsumexp(logs, axis=1, keepdims=True)) if len(probs) else probs


def cross_fit_temperatures(probs: Probs, y: Labels, folds: NDArray, groups: NDArray) -> Probs:
    """probs (N, K), those of each fold at the temperature of the clips that share neither its fold nor its groups.

    In repeated folds a clip is predicted several times; none of its predictions then helps to calibrate another.
    """
    result = probs.copy()
    for fold in np.unique(folds):
        test = folds == fold
        others = ~test & ~np.isin(groups, groups[test])
        result[test] = apply_temperature(probs[test], fit_temperature(probs[others], y[others]))
    return result


def calibrate(probs: Probs, y: Labels, folds: NDArray, groups: NDArray) -> CalibratedPredictions:
    """Predictions for the test parts of two folds or more, all rows (N,): one temperature to save, others to judge."""
    temperature = fit_temperature(probs, y)
    scaled = apply_temperature(probs, temperature)
    return CalibratedPredictions(temperature, probs, scaled, cross_fit_temperatures(probs, y, folds, groups))


def calibrate_at_temperature(probs: Probs, temperature: float) -> CalibratedPredictions:
    """Predictions for one test part, at a temperature that was fitted on other clips."""
    scaled = apply_temperature(probs, temperature)
    return CalibratedPredictions(temperature, probs, scaled, scaled)
