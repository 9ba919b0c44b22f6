"""Calibration: probabilities that mean what they say, without a change of any ranking.

Models are calibrated by temperature scaling (Guo et al. 2017, section 4.2): all logits are divided by one temperature.
This changes neither the ranking of a clip's labels nor, with two labels, the ranking of the clips. Accuracy at the most
probable label and a binary ROC AUC therefore stay the same. The scores of scikit-learn's classifiers become
probabilities by a rising sigmoid (Platt 1999), or by one temperature for three labels or more.
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import log_softmax, logsumexp  # type: ignore[import-untyped]
from sklearn.base import ClassifierMixin, clone
from sklearn.calibration import (
    CalibratedClassifierCV,
    _CalibratedClassifier,
    _SigmoidCalibration,
    _TemperatureScaling,
)

log = logging.getLogger(__name__)

Labels = NDArray[np.int64]
Probs = NDArray[np.float64]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.5, 20.0
"""Bounds of the temperature. Beyond them the predictions are worthless, or the clips are too few or too easy to
calibrate."""

PRIOR_SPREAD = 0.5
"""Standard deviation of the logarithm of the temperature before any clip is seen: mostly between 0.4 and 2.7."""

MIN_GAIN_NATS = 1e-9
"""Improvement in nats that a temperature needs to be preferred to 1, so that rounding alone chooses none."""

MIN_PROBABILITY = 1e-12
"""Lower bound before the logarithm: zero has none, and one such clip must not decide the temperature."""


LEAST_SPREAD = 0.01
"""Least standard deviation that calibration gives the logits of held-out clips: enough to rank clips, and too little to
move a probability by more than about a hundredth."""
SMALLEST_SPREAD = 1e-12
"""Scores that deviate less count as equal."""
MAX_FACTOR_RATIO = math.exp(15)
"""Largest factor of scores that is tried, as a multiple of the least."""


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
    """Return the most probable temperature of probs (N, K), given y (N,); 1 if none is better or there is no clip.

    Its logarithm is a priori normal around 0. With few clips it therefore stays near 1, and with many it is the one
    with the greatest likelihood.
    """
    if not len(y):
        return 1.0
    logs = np.log(np.maximum(probs, MIN_PROBABILITY))  # (N, K), logits up to a constant a row

    def loss(log_temperature: float) -> float:
        scaled = logs * math.exp(-log_temperature)
        likelihood = logsumexp(scaled, axis=1) - scaled[np.arange(len(y)), y]  # (N,) negative logarithms
        return float(likelihood.sum() + (log_temperature / PRIOR_SPREAD) ** 2 / 2) / len(y)

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


def calibrate_classifier(
    name: str, classifier: ClassifierMixin, scores: NDArray[np.float64], y: NDArray[np.int64]
) -> CalibratedClassifierCV:
    """Return the fitted classifier with a calibration learnt from held-out scores (B,) or (B, K) of the clips y (B,).

    Two labels get a sigmoid with slope and offset. More labels get one temperature for all, so that the order of the
    labels of a clip stays as well.
    """
    is_binary = scores.ndim == 1
    calibrator, has_signal = _fit_sigmoid(scores, y) if is_binary else _fit_shared_temperature(classifier, scores, y)
    if not has_signal:
        outcome = "close to the shares of the labels" if is_binary else "nearly equal for all labels"
        log.warning(
            "%s ranks held-out training clips no better than chance; its probabilities will be %s", name, outcome
        )
    method = "sigmoid" if is_binary else "temperature"
    calibrated = CalibratedClassifierCV(clone(classifier), method=method, ensemble=False)
    calibrated.classes_ = classifier.classes_
    calibrated.n_features_in_ = classifier.n_features_in_
    calibrated.calibrated_classifiers_ = [
        _CalibratedClassifier(classifier, [calibrator], classes=classifier.classes_, method=method)
    ]
    return calibrated


def _fit_sigmoid(scores: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[_SigmoidCalibration, bool]:
    """Fit Platt's sigmoid to scores (B,), and say whether its slope rises as it should.

    Where it does not, the slope is the least that still ranks, and the mean probability the share of the second label.
    """
    second = (y == y.max()).astype(int)
    sigmoid = _SigmoidCalibration().fit(scores, second)  # 1 / (1 + exp(a f + b)): it rises if a is below zero
    least = _least_slope(scores - scores.mean())
    if -sigmoid.a_ >= least:
        return sigmoid, True
    prior = np.log((second.sum() + 1) / ((1 - second).sum() + 1))
    # float64, so that scores of float32 that differ a little give different probabilities
    sigmoid.a_, sigmoid.b_ = np.float64(-least), np.float64(least * scores.mean() - prior)
    return sigmoid, False


def _least_slope(deviations: NDArray[np.float64]) -> float:
    """Return the slope at which centred scores have the deviation LEAST_SPREAD, or a small one if all are equal."""
    spread = float(deviations.std())
    return LEAST_SPREAD / spread if spread > SMALLEST_SPREAD else LEAST_SPREAD


def _fit_shared_temperature(
    classifier: ClassifierMixin, scores: NDArray[np.float64], y: NDArray[np.int64]
) -> tuple[_TemperatureScaling, bool]:
    """Fit one factor for the scores (B, K) of all labels, and say whether it is above the least one."""
    has_scores = hasattr(classifier, "decision_function")
    logits = scores if has_scores else np.log(scores + np.finfo(scores.dtype).eps)  # as scikit-learn does
    least = _least_slope(logits - logits.mean(1, keepdims=True))
    right = np.searchsorted(classifier.classes_, y)
    factor, loss = fit_score_factor(logits, right, least=least, largest=least * MAX_FACTOR_RATIO)
    has_signal = factor > least * 1.01 and loss < np.log(logits.shape[1])  # the loss of equal probabilities
    temperature = _TemperatureScaling()
    temperature.beta_ = np.float64(factor if has_signal else least)  # float64 as in the sigmoid
    return temperature, has_signal


def fit_score_factor(scores: NDArray[np.float64], y: Labels, *, least: float, largest: float) -> tuple[float, float]:
    """Return the factor that makes held-out scores (B, K) the logits of clips y (B,) best, and the loss with it.

    As in Platt's sigmoid, one clip right and one wrong are imagined beside those held out, so that a perfect ranking
    does not give certainty.
    """
    wrong_share = 1 / (len(y) + 2)

    def loss(log_factor: float) -> float:
        log_probs = log_softmax(np.exp(log_factor) * scores, axis=1)
        of_right = log_probs[np.arange(len(y)), y]
        of_wrong = (log_probs.sum(1) - of_right) / (scores.shape[1] - 1)
        return -float(((1 - wrong_share) * of_right + wrong_share * of_wrong).mean())

    best = minimize_scalar(loss, bounds=(math.log(least), math.log(largest)), method="bounded")
    return float(np.exp(best.x)), float(best.fun)
