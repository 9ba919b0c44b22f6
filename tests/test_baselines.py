import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from features.errors import SettingsError
from hazard.baselines import BASELINES, fit_baseline, parameter_count, pool, predict_baseline
from tests.stage_two import WIDTH, moving_sequences

DATA = moving_sequences(clips=80)
TRAIN, TEST = DATA.take(np.arange(50)), DATA.take(np.arange(50, 80))


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_finds_planted_motion(name):
    probs = predict_baseline(fit_baseline(name, TRAIN, seed=0), TEST.x, TEST.mask, classes=2)
    np.testing.assert_allclose(probs.sum(1), 1)
    assert roc_auc_score(TEST.y, probs[:, 1]) > 0.8


@pytest.mark.parametrize("name", BASELINES)
def test_the_seed_decides(name):
    first, second = (predict_baseline(fit_baseline(name, TRAIN, seed=3), TEST.x, TEST.mask, classes=2) for _ in "ab")
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", BASELINES)
def test_a_label_that_training_never_met_gets_zero(name):
    data = dataclasses.replace(TRAIN, labels=("a", "b", "c"), y=TRAIN.y * 2)
    probs = predict_baseline(fit_baseline(name, data, seed=0), TEST.x, TEST.mask, classes=3)
    assert (probs[:, 1] == 0).all()
    assert probs.sum() == pytest.approx(len(TEST))


@pytest.mark.parametrize("name", BASELINES)
def test_few_clips_are_enough(name):
    few = TRAIN.take(np.arange(4))
    model = fit_baseline(name, few, seed=0)
    assert parameter_count(model) > 0
    assert predict_baseline(model, TEST.x[:0], TEST.mask[:0], classes=2).shape == (0, 2)


@pytest.mark.parametrize("name", BASELINES)
def test_one_label_is_refused(name):
    with pytest.raises(SettingsError, match="two or more labels"):
        fit_baseline(name, TRAIN.take(np.flatnonzero(TRAIN.y == 0)), seed=0)


def test_pooling_ignores_padding():
    longer = np.concatenate([DATA.x, np.full_like(DATA.x, 1e3)], axis=1)
    mask = np.concatenate([DATA.mask, np.zeros_like(DATA.mask)], axis=1)
    assert pool(DATA.x, DATA.mask).shape == (len(DATA), 3 * WIDTH)
    np.testing.assert_allclose(pool(longer, mask), pool(DATA.x, DATA.mask), rtol=1e-5, atol=1e-6)
