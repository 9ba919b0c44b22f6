import numpy as np
import pytest

from hazard.metrics.operating_points import (
    TARGET_FALSE_ALARMS_PER_HOUR,
    find_operating_point,
    find_operating_points,
    has_all_durations,
)

SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
HAZARD = np.array([1, 1, 0, 1, 0, 1, 0, 0], bool)
HALF_HOUR = np.full(8, 1800.0)  # two harmless hours in all


@pytest.mark.parametrize(
    ("target", "threshold", "recall", "achieved"),
    [(0, 0.75, 0.5, 0), (0.4, 0.75, 0.5, 0), (0.5, 0.55, 0.75, 0.5), (1, 0.35, 1, 1), (99, 0.2, 1, 2)],
)
def test_the_lowest_threshold_that_keeps_to_the_target(target, threshold, recall, achieved):
    point = find_operating_point(HAZARD, SCORE, HALF_HOUR, target=target)
    assert (point.threshold, point.recall, point.achieved) == pytest.approx((threshold, recall, achieved))


def test_only_harmless_video_counts_and_every_look_at_it():
    long_hazards = np.where(HAZARD, 1e6, 1800.0)
    once = find_operating_point(HAZARD, SCORE, HALF_HOUR, target=0.5)
    assert find_operating_point(HAZARD, SCORE, long_hazards, target=0.5) == once
    twice = find_operating_point(np.tile(HAZARD, 2), np.tile(SCORE, 2), np.tile(HALF_HOUR, 2), target=0.5)
    assert twice == once


def test_equal_scores_raise_their_alarms_together():
    score = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    hazard = np.array([1, 1, 0, 1, 0], bool)
    point = find_operating_point(hazard, score, np.full(5, 1800.0), target=0.5)
    assert (point.threshold, point.recall, point.achieved) == pytest.approx((0.7, 1 / 3, 0))


def test_where_the_surest_clip_is_harmless_nothing_is_found():
    point = find_operating_point(~HAZARD, -np.sort(-SCORE) * [1, 1, 1, 1, 1, 1, 1, 1], HALF_HOUR, target=0)
    assert point.recall == 0 and point.achieved == 0 and 0.9 < point.threshold <= 1
    certain = find_operating_point(np.array([False, True]), np.array([1.0, 0.5]), np.full(2, 3600.0), target=0)
    assert certain.threshold == 1 and certain.achieved == 1  # no threshold can do better


def test_what_is_not_defined():
    for hazard in (np.zeros(8, bool), np.ones(8, bool)):
        assert find_operating_points(hazard, SCORE, HALF_HOUR) is None
        with pytest.raises(ValueError, match="hazardous clips and harmless"):
            find_operating_point(hazard, SCORE, HALF_HOUR, target=1)
    for unknown in (None, np.full(8, np.nan), np.where(HAZARD, 0, 2.0)):
        assert not has_all_durations(unknown) and find_operating_points(HAZARD, SCORE, unknown) is None


def test_the_target_that_was_asked_for_joins_the_others():
    points = find_operating_points(HAZARD, SCORE, HALF_HOUR, requested=0.5)
    assert [point.target for point in points] == sorted([*TARGET_FALSE_ALARMS_PER_HOUR, 0.5])
