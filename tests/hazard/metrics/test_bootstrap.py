import numpy as np
import pytest

from hazard.metrics import bootstrap
from hazard.metrics import classification as metrics

RNG = np.random.default_rng(0)


def example(clips, classes, digits=None):
    y = RNG.integers(classes, size=clips)
    probs = np.exp(RNG.normal(size=(clips, classes)) + np.eye(classes)[y])
    probs /= probs.sum(1, keepdims=True)
    return y, probs if digits is None else probs.round(digits)


@pytest.mark.parametrize(
    ("clips", "classes", "digits", "positive"),
    [(200, 2, None, 1), (200, 2, 1, 0), (150, 6, 1, None), (60, 3, None, None), (12, 2, None, None)],
)
def test_every_figure_is_that_of_the_rows_that_were_drawn(clips, classes, digits, positive):
    y, probs = example(clips, classes, digits)
    weights = bootstrap.draw_groups(RNG.integers(8, size=clips), draws=15)
    draws = bootstrap.headline_metrics(y, probs, weights, positive=positive)
    for place in range(15):
        rows = np.repeat(np.arange(clips), weights.counts[weights.units, place].astype(int))
        wanted = metrics.headline_metrics(y[rows], probs[rows], positive=positive)
        assert bootstrap.select_draw(draws, place) == pytest.approx(wanted, nan_ok=True)


def test_a_threshold_counts_as_it_does_in_metrics():
    y, probs = example(80, 2)
    draws = bootstrap.headline_metrics(y, probs, bootstrap.make_unit_weights(80), positive=1, threshold=0.2)
    assert bootstrap.select_draw(draws) == pytest.approx(metrics.headline_metrics(y, probs, positive=1, threshold=0.2))


def test_parts_are_figures_of_some_rows_each():
    y, probs = example(80, 3)
    which = RNG.integers(4, size=80)
    draws = bootstrap.headline_metrics(y, probs, bootstrap.subset_weights(which))
    for place in range(4):
        rows = which == place
        assert bootstrap.select_draw(draws, place) == pytest.approx(metrics.headline_metrics(y[rows], probs[rows]))


def test_a_draw_takes_a_group_with_all_its_clips_in_all_repeats():
    y, first = example(60, 2)
    _, second = example(60, 2)
    twice = np.tile(np.arange(60), 2)
    groups, repeats = (np.arange(60) // 6)[twice], np.repeat([0, 1], 60)
    weights = bootstrap.draw_groups(groups, draws=10)
    np.testing.assert_array_equal(weights.units[:60], weights.units[60:])
    draws = bootstrap.average_over_repeats(y[twice], np.concatenate([first, second]), repeats, weights, positive=1)
    each = [bootstrap.headline_metrics(y, probs, weights.take(repeats == 0), positive=1) for probs in (first, second)]
    np.testing.assert_allclose(draws["roc_auc"], (each[0]["roc_auc"] + each[1]["roc_auc"]) / 2)


def test_draws_depend_on_the_groups_and_the_seed_alone():
    groups = np.array(["b", "a", "b", "c"])
    draws = [bootstrap.draw_groups(groups, seed=seed).counts for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any() and (draws[0].sum(axis=0) == 3).all()


def test_the_interval_holds_the_value_and_copies_of_a_clip_do_not_narrow_it():
    y, probs = example(200, 2)
    rows = np.repeat(np.arange(20), 10)
    widths = []
    for some, groups in ((np.arange(200), np.arange(200)), (rows, rows)):
        draws = bootstrap.headline_metrics(y[some], probs[some], bootstrap.draw_groups(groups), positive=1)["roc_auc"]
        found = bootstrap.percentile_interval(draws)
        assert found["low"] < metrics.roc_auc(y[some], probs[some], positive=1) < found["high"]
        widths.append(found["high"] - found["low"])
    assert widths[1] > widths[0]


def test_one_class_alone_leaves_areas_undefined():
    draws = bootstrap.headline_metrics(np.zeros(4, np.int64), np.full((4, 2), 0.5), bootstrap.draw_groups(np.arange(4)))
    assert np.isnan(draws["roc_auc"]).all() and np.isfinite(draws["accuracy"]).all()
    assert np.isnan(bootstrap.percentile_interval(draws["roc_auc"])["low"])
