import numpy as np
import pytest

from hazard.models.pooling import POOLED_CLIPS, STATISTICS, normalize_statistic_sizes, pool
from tests.helpers.data.sequences import WIDTH, make_moving_sequences

DATA = make_moving_sequences(clips=40)
BY_HAND = {
    "mean": lambda x: x.mean(0),
    "deviation": lambda x: x.std(0),
    "difference": lambda x: (x[-1] - x[0]) / (len(x) - 1),
    "absolute_difference": lambda x: np.abs(np.diff(x, axis=0)).mean(0),
    "second_difference": lambda x: np.abs(np.diff(x, n=2, axis=0)).mean(0) if len(x) > 2 else 0 * x[0],
    "minimum": lambda x: x.min(0),
    "maximum": lambda x: x.max(0),
    "largest_difference": lambda x: np.abs(np.diff(x, axis=0)).max(0),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_is_of_the_real_steps_alone(name):
    expected = [BY_HAND[name](x[mask]) for x, mask in zip(DATA.x, DATA.mask, strict=True)]
    np.testing.assert_allclose(pool(DATA.x, DATA.mask, [name]), expected, atol=1e-5)
    longer = np.concatenate([DATA.x, np.full_like(DATA.x, 1e3)], axis=1)
    mask = np.concatenate([DATA.mask, np.zeros_like(DATA.mask)], axis=1)
    np.testing.assert_allclose(pool(longer, mask, [name]), pool(DATA.x, DATA.mask, [name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_single_step_has_a_value_and_no_movement(name):
    pooled = pool(DATA.x, np.arange(DATA.x.shape[1]) < np.ones((len(DATA), 1)), [name])
    expected = DATA.x[:, 0] if name in ("mean", "minimum", "maximum") else 0
    np.testing.assert_allclose(pooled, np.broadcast_to(expected, pooled.shape), atol=1e-6)


def test_statistics_stand_side_by_side_in_the_order_asked_for():
    both = pool(DATA.x, DATA.mask, ["maximum", "mean"])
    assert both.shape == (len(DATA), 2 * WIDTH)
    np.testing.assert_array_equal(both[:, :WIDTH], pool(DATA.x, DATA.mask, ["maximum"]))


def test_differences_by_hand():
    x = np.array([[[1.0], [3.0], [0.0], [9.0]]], np.float32)
    mask = np.array([[True, True, True, False]])
    rows = pool(x, mask, ["mean", "absolute_difference", "second_difference", "deviation"])
    np.testing.assert_allclose(rows, [[4 / 3, 2.5, 5.0, np.std([1, 3, 0])]], rtol=1e-6)


def test_appearance_counts_less_beside_motion_and_fully_alone():
    assert normalize_statistic_sizes(["mean", "deviation"]) == {"mean": 0.25, "deviation": 1.0}
    assert normalize_statistic_sizes(["mean"]) == {"mean": 1.0}
    assert normalize_statistic_sizes(["mean", "deviation"], mean_size=4.0) == {"mean": 1.0, "deviation": 0.25}


def test_more_clips_than_are_pooled_at_once():
    rows = np.arange(POOLED_CLIPS + 3) % len(DATA)
    many = pool(DATA.x[rows], DATA.mask[rows], ["deviation"])
    np.testing.assert_allclose(many, pool(DATA.x, DATA.mask, ["deviation"])[rows], atol=1e-6)
