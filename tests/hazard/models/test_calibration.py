import numpy as np
import pytest

from hazard.metrics import classification as metrics
from hazard.models.calibration import (
    apply_temperature,
    calibrate,
    calibrate_at_temperature,
    cross_fit_temperatures,
    fit_temperature,
)

RNG = np.random.default_rng(0)


def overconfident(clips=3000, classes=3, factor=3.0):
    """Return labels drawn from probabilities, and those probabilities with their logits multiplied by `factor`."""
    logits = RNG.normal(size=(clips, classes))
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (RNG.random((clips, 1)) > honest.cumsum(1)[:, :-1]).sum(1)
    return apply_temperature(honest, 1 / factor), y, honest


def test_the_temperature_that_blew_logits_up_is_found_again():
    probs, y, honest = overconfident()
    temperature = fit_temperature(probs, y)
    assert temperature == pytest.approx(3, rel=0.1)
    scaled = apply_temperature(probs, temperature)
    np.testing.assert_allclose(apply_temperature(probs, 3.0), honest, atol=1e-9)
    assert metrics.ece(y, scaled) < 0.03 < metrics.ece(y, probs)
    assert metrics.nll(y, scaled) < metrics.nll(y, probs)


@pytest.mark.parametrize("temperature", [0.5, 4.0, 20.0])
def test_a_temperature_changes_no_decision_and_no_ranking_of_two_labels(temperature):
    probs, y, _ = overconfident(classes=2, factor=1.0)
    scaled = apply_temperature(probs, temperature)
    np.testing.assert_allclose(scaled.sum(1), 1)
    np.testing.assert_array_equal(scaled.argmax(1), probs.argmax(1))
    assert metrics.roc_auc(y, scaled, positive=1) == pytest.approx(metrics.roc_auc(y, probs, positive=1), abs=1e-4)


def test_certainty_and_nothing_are_survived():
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(apply_temperature(certain, 2.0), certain)
    assert apply_temperature(certain[:0], 2.0).shape == (0, 2)
    assert fit_temperature(certain[:0], np.zeros(0, np.int64)) == 1.0
    assert np.isfinite(fit_temperature(certain, np.array([0, 0])))


def test_one_is_kept_where_nothing_is_better():
    assert fit_temperature(np.full((10, 2), 0.5), np.arange(10) % 2) == 1.0


def test_a_fold_is_calibrated_by_other_groups_alone():
    """Swapping the labels of a group's clips must not change their own probabilities, in any fold."""
    probs, y, _ = overconfident(clips=400, classes=2)
    groups = np.arange(400) % 10  # each group's clips are in a fold of the first round and in one of the second
    folds = np.where(np.arange(400) < 200, groups % 5, 5 + groups // 2)
    turned = np.where(groups == 3, 1 - y, y)
    before, after = (
        cross_fit_temperatures(probs, y, folds, groups),
        cross_fit_temperatures(probs, turned, folds, groups),
    )
    np.testing.assert_array_equal(before[groups == 3], after[groups == 3])
    assert not np.array_equal(before, after)


def test_what_is_saved_and_what_is_judged():
    probs, y, _ = overconfident(clips=600)
    both = calibrate(probs, y, np.arange(600) % 3, np.arange(600))
    assert both.temperature == fit_temperature(probs, y)
    np.testing.assert_array_equal(both.probs, apply_temperature(probs, both.temperature))
    np.testing.assert_allclose(both.held_out, both.probs, atol=0.15)
    assert metrics.ece(y, both.held_out) < metrics.ece(y, both.raw)
    single = calibrate_at_temperature(probs, 2.0)
    assert single.held_out is single.probs


def test_few_clips_move_the_temperature_little_and_many_clips_all_the_way():
    """Six clips in perfect order, all said to be likely: the likelihood alone asks for the largest temperature."""
    score = np.array([0.6, 0.65, 0.7, 0.9, 0.95, 0.97])
    probs, y = np.stack([1 - score, score], axis=1), np.array([0, 0, 0, 1, 1, 1])
    assert 0.5 < fit_temperature(probs, y) < 2
    blown_up, labels, _ = overconfident()
    assert fit_temperature(blown_up[:10], labels[:10]) < fit_temperature(blown_up, labels)
