import numpy as np
import pytest

from hazard.metrics import bootstrap
from hazard.metrics.intervals import SampleSize, add_intervals, format_interval, measure_sample, widen_draws


def intervals(y, probs, groups, *, positive=1):
    """Return the headline metrics of predictions with their intervals."""
    options = {"positive": positive}
    values = bootstrap.select_draw(bootstrap.headline_metrics(y, probs, bootstrap.make_unit_weights(len(y)), **options))
    draws = bootstrap.headline_metrics(y, probs, bootstrap.draw_groups(groups), **options)
    return add_intervals(values, draws, measure_sample(y, groups, classes=probs.shape[1], positive=positive))


def binary(score):
    return np.stack([1 - score, score], axis=1)


def test_intervals_of_eight_groups_hold_the_truth():
    """Groups shift their clips' scores: percentiles of the bootstrap hold the true accuracy in 87 % of such draws."""
    rng = np.random.default_rng(0)

    def draw(groups):
        unit = np.repeat(np.arange(groups), rng.integers(1, 12, size=groups))
        y = rng.integers(2, size=len(unit))
        score = 2 * (y - 0.5) + 0.6 * rng.normal(size=groups)[unit] + rng.normal(size=len(unit))
        return y, score, unit

    y, score, _ = draw(20_000)
    truth, hits = np.mean((score >= 0) == y), []
    for _ in range(120):
        y, score, unit = draw(8)
        found = intervals(y, binary(1 / (1 + np.exp(-score))), unit)["accuracy"]
        hits.append(found["low"] <= truth <= found["high"])
    assert np.mean(hits) >= 0.92


def test_no_mistake_is_no_certainty_and_fewer_groups_are_less():
    y = np.tile([0, 1], 60)
    lows = {groups: intervals(y, binary(0.1 + 0.8 * y), np.arange(120) // 2 % groups) for groups in (6, 12, 40)}
    for name in ("accuracy", "roc_auc", "recall"):
        low = [found[name]["low"] for found in lows.values()]
        assert all(found[name]["high"] == 1 for found in lows.values())
        assert 0.5 < low[0] < low[1] < low[2] < 0.98


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        (np.arange(40) % 2, "only 2 groups"),
        (np.arange(40) % 5, "only 5 groups"),
        (np.zeros(40, int), "only 1 group"),
    ],
)
def test_few_groups_have_a_value_and_no_interval(groups, reason):
    y = np.arange(40) // 20
    for entry in intervals(y, binary(0.1 + 0.8 * y), groups).values():
        assert np.isfinite(entry["value"]) and np.isnan(entry["low"]) and np.isnan(entry["high"])
        assert format_interval(entry) == f"no interval: {reason}"


def test_a_label_of_two_groups_has_no_interval_besides_accuracy():
    groups = np.arange(60) // 5
    y = (groups < 2).astype(np.int64)
    found = intervals(y, binary(0.4 + 0.2 * y), groups)
    assert format_interval(found["roc_auc"]) == "no interval: one label is in only 2 groups"
    assert found["accuracy"]["low"] < 1 == found["accuracy"]["high"]


def test_rare_positives_widen_what_depends_on_them():
    groups = np.arange(300) // 10
    rare, even = (np.arange(300) % 300 // 10 % 10 == 0).astype(np.int64), np.arange(300) % 2
    low = [intervals(y, binary(0.1 + 0.8 * y), groups)["roc_auc"]["low"] for y in (rare, even)]
    assert low[0] < low[1]


def test_every_metric_lies_in_its_interval():
    rng = np.random.default_rng(1)
    y = rng.integers(7, size=210)
    probs = rng.dirichlet(np.ones(7), size=210)
    probs = (probs + 0.3 * np.eye(7)[y]) / 1.3
    for name, entry in intervals(y, probs, np.arange(210) % 15, positive=None).items():
        assert 0 <= entry["low"] < entry["value"] <= entry["high"] > entry["low"], name
        assert entry["high"] <= 1 or name in ("nll", "brier")


def test_an_undefined_metric_has_no_interval():
    found = intervals(np.zeros(40, np.int64), np.full((40, 2), 0.5), np.arange(40))
    assert np.isnan(found["roc_auc"]["low"]) and np.isfinite(found["accuracy"]["low"])


def test_a_sample_counts_the_groups_of_each_class():
    sample = measure_sample(np.array([0, 0, 1, 1, 1]), np.array(["a", "b", "b", "b", "c"]), classes=3)
    assert sample == SampleSize((2, 3, 0), 3, (2, 2, 0))


def test_draws_of_a_difference_are_widened_more_for_fewer_groups():
    draws = np.array([0.1, 0.2, 0.3])
    widths = [np.ptp(widen_draws(draws, 0.2, groups)) for groups in (6, 20, 1000)]
    assert widths[0] > widths[1] > widths[2] == pytest.approx(0.2, rel=0.01)
