from dataclasses import replace

import numpy as np
import pytest

from hazard.data.splits import make_splits
from hazard.experiments import leaderboard
from hazard.experiments.cross_validation import Evaluation, average_evaluations
from hazard.experiments.evaluation_metrics import compute_metrics
from hazard.models.calibration import calibrate_at_temperature
from hazard.models.settings import TrainSettings
from tests.helpers.data.sequences import make_moving_sequences

DATA = make_moving_sequences(clips=40, groups=10)


def result(name, probs, division):
    rows = np.concatenate([fold.test for fold in division.folds])
    folds = np.concatenate([np.full(len(fold.test), number) for number, fold in enumerate(division.folds)])
    repeats = np.array([fold.repeat for fold in division.folds])[folds]
    said = probs(rows, folds)
    return Evaluation(name, "head", rows, folds, repeats, said, calibrate_at_temperature(said, 1.0), 1.0, 10, (), ())


def right_in(folds_where_right):
    """Return scores that are right in some folds and inverted in the others."""

    def probs(rows, folds):
        score = np.where(np.isin(folds, folds_where_right), DATA.y[rows], 1 - DATA.y[rows]) * 0.8 + 0.1
        return np.stack([1 - score, score], axis=1)

    return probs


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_model_of_a_fold_is_chosen_on_other_clips(repeats):
    """One model is right in all folds but the last, another only there, by chance: it must not be chosen there."""
    division = make_splits(DATA, folds=5, repeats=repeats)
    good, luck = ([n for n in range(5 * repeats) if (n % 5 == 4) is wanted] for wanted in (False, True))
    results = [result("good", right_in(good), division), result("luck", right_in(luck), division)]
    found = leaderboard.evaluate_model_choice(DATA, results, TrainSettings())
    assert found["models"] == ["good"] * 5 * repeats
    assert found["accuracy"]["value"] == np.mean(results[0].probs.argmax(1) == DATA.y[results[0].rows]) < 1


def test_a_single_split_leaves_nothing_to_choose_on():
    division = make_splits(DATA)
    assert leaderboard.evaluate_model_choice(DATA, [result("a", right_in([0]), division)], TrainSettings()) is None


def test_an_ensemble_is_the_mean_of_its_members():
    division = make_splits(DATA, folds=3)
    first, second = (result(name, right_in(folds), division) for name, folds in (("lstm", [0]), ("gru", [1])))
    both = average_evaluations("both", [first, second], DATA)
    np.testing.assert_allclose(both.calibrated.raw, (first.probs + second.probs) / 2)
    assert (both.kind, both.name, both.parameters) == ("ensemble", "both", 20)


@pytest.mark.parametrize(("groups", "has_interval"), [(4, False), (10, True)])
def test_few_groups_leave_the_interval_and_the_noise_open(groups, has_interval):
    data = replace(DATA, groups=np.array([f"g{number}" for number in np.arange(len(DATA)) % groups]))
    division = make_splits(data, folds=4)
    results = [result(name, right_in(folds), division) for name, folds in (("good", [0, 1, 2]), ("bad", [0]))]
    measured = [compute_metrics(data, each, TrainSettings()) for each in results]
    rows = leaderboard.make_leaderboard(results, measured, division)
    assert all(np.isfinite(row["roc_auc"]) and np.isfinite(row["accuracy_low"]) == has_interval for row in rows)
    assert all(np.isnan(row["within_noise"]) != has_interval for row in rows)
    text = leaderboard.format_leaderboard(rows, ranking="roc_auc")
    assert (" none " in text) != has_interval and "nan" not in text
    assert ("reason" in measured[0].metrics["accuracy"]) != has_interval
