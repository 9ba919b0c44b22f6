import re

import numpy as np
import pytest
from scipy.stats import poisson

from hazard.metrics.operating_points import (
    TARGET_FALSE_ALARMS_PER_HOUR,
    explain_missing_hours,
    find_operating_point,
    find_operating_points,
    has_all_durations,
    hours_needed,
    upper_rate_bound,
)

SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
HAZARD = np.array([1, 1, 0, 1, 0, 1, 0, 0], bool)
HALF_HOUR = np.full(8, 1800.0)  # two harmless hours in all


@pytest.mark.parametrize(
    ("target", "threshold", "recall", "false_alarms", "upper_bound", "supported"),
    [
        (0, 0.75, 0.5, 0, 2.996 / 2, False),
        (1.49, 0.75, 0.5, 0, 2.996 / 2, False),
        (1.5, 0.75, 0.5, 0, 2.996 / 2, True),
        (2.36, 0.75, 0.5, 0, 2.996 / 2, True),
        (2.38, 0.55, 0.75, 1, 4.744 / 2, True),
        (3.15, 0.35, 1, 2, 6.296 / 2, True),
        (99, 0.2, 1, 4, 9.154 / 2, True),
    ],
)
def test_the_lowest_threshold_whose_bound_keeps_to_the_target(
    target, threshold, recall, false_alarms, upper_bound, supported
):
    point = find_operating_point(HAZARD, SCORE, HALF_HOUR, target=target)
    found = (point.threshold, point.recall, point.false_alarms, point.achieved, point.hours)
    assert found == pytest.approx((threshold, recall, false_alarms, false_alarms / 2, 2))
    assert point.upper_bound == pytest.approx(upper_bound, abs=1e-3) and point.supported == supported


def test_the_bound_is_the_exact_one_of_poisson_counts():
    for count in (0, 1, 3, 20):
        assert poisson.cdf(count, upper_rate_bound(count, 0.5) * 0.5) == pytest.approx(0.05)
    assert hours_needed(1) == pytest.approx(3.0, abs=0.01) and hours_needed(0) == np.inf


def test_the_true_rate_is_rarely_above_the_target_that_the_threshold_was_chosen_for():
    rng, over = np.random.default_rng(0), 0
    for _ in range(400):
        score = rng.uniform(size=60)  # harmless scores are uniform, so a threshold's true rate is known
        hazard = np.arange(60) < 10
        point = find_operating_point(hazard, score, np.full(60, 60.0), target=8.0)  # at most 2 in 50 minutes
        over += (1 - point.threshold) * 60 > 8.0
    assert 0 < over / 400 <= 0.07


@pytest.mark.parametrize(
    ("target", "hours", "line"),
    [
        (
            1,
            40 / 3600,
            "takes at least 3 h of harmless video, but the test clips have 40 s; add, or ask for 270 or",
        ),
        (10, 0, "takes at least 18 min .* have 0 s; add$"),
        (0, 5, "no amount of video"),
    ],
)
def test_missing_hours_are_explained_in_one_line(target, hours, line):
    text = explain_missing_hours(target, hours, remedy="add")
    assert re.search(line, text) and "\n" not in text


def test_only_harmless_video_counts_and_each_clip_once():
    long_hazards = np.where(HAZARD, 1e6, 1800.0)
    once = find_operating_point(HAZARD, SCORE, HALF_HOUR, target=2.5)
    assert find_operating_point(HAZARD, SCORE, long_hazards, target=2.5) == once
    clips = np.tile(np.arange(8), 3)
    data = (np.tile(HAZARD, 3), np.tile(SCORE, 3), np.tile(HALF_HOUR, 3))
    assert find_operating_point(*data, target=2.5, clips=clips) == once
    assert find_operating_point(*data, target=2.5).hours == 6  # without numbers each is a clip of its own


def test_equal_scores_raise_their_alarms_together():
    score = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    hazard = np.array([1, 1, 0, 1, 0], bool)
    point = find_operating_point(hazard, score, np.full(5, 1800.0), target=2.5)
    assert (point.threshold, point.recall, point.achieved) == pytest.approx((0.7, 1 / 3, 0))


def test_where_the_surest_clip_is_harmless_nothing_is_found():
    point = find_operating_point(~HAZARD, -np.sort(-SCORE) * [1, 1, 1, 1, 1, 1, 1, 1], HALF_HOUR, target=0)
    assert point.recall == 0 and point.achieved == 0 and 0.9 < point.threshold <= 1
    certain = find_operating_point(np.array([False, True]), np.array([1.0, 0.5]), np.full(2, 3600.0), target=0)
    assert certain.threshold == 1 and certain.achieved == 1 and not certain.supported  # no threshold can do better


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
