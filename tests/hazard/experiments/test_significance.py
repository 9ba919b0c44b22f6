import numpy as np
import pytest
from scipy import stats

from hazard.data.splits import make_splits
from hazard.experiments import significance
from hazard.experiments.cross_validation import Evaluation
from hazard.experiments.evaluation_metrics import compute_metrics
from hazard.models.calibration import calibrate_at_temperature
from hazard.models.settings import TrainSettings
from tests.helpers.data.sequences import make_moving_sequences

DATA = make_moving_sequences(clips=120, groups=30)
DIVISION = make_splits(DATA, folds=5, repeats=2)
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(DIVISION.repeats, len(DATA)))


def predicted(strength, noise=NOISE):
    """Return the evaluation of a model whose scores are a share of the truth plus noise."""
    rows = np.concatenate([fold.test for fold in DIVISION.folds])
    folds = np.concatenate([np.full(len(fold.test), number) for number, fold in enumerate(DIVISION.folds)])
    repeats = np.array([fold.repeat for fold in DIVISION.folds])[folds]
    score = 1 / (1 + np.exp(-strength * (2 * DATA.y[rows] - 1) - noise[repeats, rows]))
    probs = np.stack([1 - score, score], 1)
    result = Evaluation("m", "head", rows, folds, repeats, probs, calibrate_at_temperature(probs, 1.0), 0.0, 0, (), ())
    return compute_metrics(DATA, result, TrainSettings())


def test_a_clear_difference_is_told_from_none():
    best, same, worse = significance.compare_with_best([predicted(1.5), predicted(1.5), predicted(0.2)], DIVISION)
    assert best["roc_auc_behind"] == same["roc_auc_behind"] == 0
    assert best["within_noise"] == same["within_noise"] == 1 and same["roc_auc_behind_p"] == 1
    assert worse["within_noise"] == 0 and 0 < worse["roc_auc_behind_low"] < worse["roc_auc_behind"]
    assert worse["roc_auc_behind_p"] < 0.01 and worse["roc_auc_behind_t_p"] < 0.05
    assert worse["accuracy_behind_low"] < worse["accuracy_behind"] < worse["accuracy_behind_high"]


def test_pairing_sees_differences_that_the_models_own_intervals_hide():
    best, worse = predicted(0.5), predicted(0.45)
    own = best.metrics["roc_auc"]["high"] - best.metrics["roc_auc"]["low"]
    row = significance.compare_with_best([best, worse], DIVISION)[1]
    assert row["roc_auc_behind_high"] - row["roc_auc_behind_low"] < own / 3


def test_p_values_of_equal_models_are_not_small_too_often():
    small = 0
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=(2, *NOISE.shape))
        pair = [predicted(0.7, noise[0]), predicted(0.7, noise[1])]
        small += significance.compare_with_best(pair, DIVISION)[1]["roc_auc_behind_p"] < 0.05
    assert small <= 4


def test_the_t_test_is_the_ordinary_one_where_no_test_part_overlaps_and_milder_else():
    differences = RNG.normal(0.5, 1, size=15)
    ordinary = significance.corrected_t_test_p_value(differences, 0.0)
    assert ordinary == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert significance.corrected_t_test_p_value(differences, 0.25) > ordinary


@pytest.mark.parametrize(("differences", "p"), [([], None), ([0.1], None), ([0.0, 0.0], 1.0), ([0.1, 0.1], 0.0)])
def test_the_t_test_without_spread(differences, p):
    found = significance.corrected_t_test_p_value(np.array(differences), 0.25)
    assert np.isnan(found) if p is None else found == p


def test_the_share_of_draws_is_never_zero():
    assert significance.exceedance(np.zeros(499), 1.0) == pytest.approx(1 / 500)
    assert significance.exceedance(np.array([0.0, 2.0]), 1.0) == pytest.approx(2 / 3)
    assert np.isnan(significance.exceedance(np.array([]), 1.0))


def test_the_best_of_many_equal_models_is_not_said_to_be_better():
    """Against one other model the same lead counts for more than against the best of twelve."""
    noises = [np.random.default_rng(seed).normal(size=NOISE.shape) for seed in range(12)]
    models = sorted((predicted(0.7, noise) for noise in noises), key=lambda m: -m.metrics["roc_auc"]["value"])
    alone = significance.compare_with_best([models[0], models[-1]], DIVISION)[1]
    among = significance.compare_with_best(models, DIVISION)[-1]
    assert among["roc_auc_behind"] == alone["roc_auc_behind"]
    assert among["roc_auc_behind_p"] > alone["roc_auc_behind_p"]
    assert among["roc_auc_behind_low"] < alone["roc_auc_behind_low"]
