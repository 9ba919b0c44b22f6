"""The decision rule of a report: the given threshold, the one for a false alarm rate, or the model's own."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from features.errors import SettingsError
from hazard.events.decision import decide_clip
from hazard.inference.settings import InferSettings
from hazard.inference.thresholds import choose_event_labels, choose_threshold, find_operating_point, make_decision
from hazard.models.predictor import Predictor
from hazard.types import ClipPrediction, WindowPredictions

POINTS = [
    {"target": 1.0, "threshold": 0.9, "recall": 0.4, "achieved": 0.5},
    {"target": 10.0, "threshold": 0.7, "recall": 0.7, "achieved": 8.0},
    {"target": 60.0, "threshold": 0.4, "recall": 0.9, "achieved": 50.0},
]
"""As versions wrote them that did not note the hours."""
BOUNDED = [
    point | {"false_alarms": 0.0, "hours": 1.0, "upper_bound": bound, "supported": bound <= point["target"]}
    for point, bound in zip(POINTS, (3.0, 9.0, 59.0), strict=True)
]


def model(labels: tuple[str, ...] = ("fight", "noFight"), positive: str | None = "fight") -> Predictor:
    return cast(Predictor, SimpleNamespace(labels=labels, positive_label=positive, threshold=0.5))


def measured(folder: Path, points: object = POINTS) -> Path:
    (folder / "metrics.json").write_text(json.dumps({"false_alarms_per_hour": points}))
    return folder


def clip(*alarm: float) -> ClipPrediction:
    spans = np.array([[i, i + 2.0] for i in range(len(alarm))])
    probs = np.array([[p, 1 - p] for p in alarm])
    return ClipPrediction("a.mp4", "ok", duration=len(alarm) + 1.0, windows=WindowPredictions(spans, probs))


@pytest.mark.parametrize(("rate", "threshold"), [(3, 0.9), (8.5, 0.9), (9, 0.7), (58, 0.7), (59, 0.4)])
def test_the_upper_bound_of_a_threshold_is_within_the_rate(rate: float, threshold: float, tmp_path: Path) -> None:
    assert find_operating_point(model(), measured(tmp_path, BOUNDED), rate).threshold == threshold


def test_a_rate_that_the_hours_cannot_support_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError, match=r"a rate of 2 .* least 1 h 30 min .* was tested on 1 h; give --threshold"):
        find_operating_point(model(), measured(tmp_path, BOUNDED), 2)
    assert not caplog.text
    assert find_operating_point(model(), measured(tmp_path, POINTS), 2).threshold == 0.9
    assert "does not say on how many hours" in caplog.text


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [
        ({}, 0.5),
        ({"threshold": 0.3, "false_alarms_per_hour": 10}, 0.3),
        ({"false_alarms_per_hour": 0.5}, 0.9),
        ({"false_alarms_per_hour": 5}, 0.9),
        ({"false_alarms_per_hour": 49}, 0.7),
        ({"false_alarms_per_hour": 50}, 0.4),
    ],
)
def test_the_threshold_is_the_users_else_that_of_the_rate_else_the_models(
    settings: dict[str, float], threshold: float, tmp_path: Path
) -> None:
    assert choose_threshold(model(), measured(tmp_path), InferSettings(**settings)) == threshold


def test_of_equal_rates_the_one_that_finds_more(tmp_path: Path) -> None:
    points = [POINTS[0], POINTS[0] | {"threshold": 0.8, "recall": 0.6}]
    assert find_operating_point(model(), measured(tmp_path, points), 1.0).recall == 0.6


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (POINTS, r"at most 0\.4 false alarms per hour: the lowest .* is 0\.5, at threshold 0\.9.*train with"),
        (None, "holds no false alarms per hour: the duration.*--threshold"),
        ([], "holds no false alarms per hour: the duration"),
        ("absent", r"holds no false alarms per hour \("),
        ([{"target": 1}], r"holds no false alarms per hour \("),
    ],
)
def test_a_rate_that_was_not_measured_is_refused(points: object, message: str, tmp_path: Path) -> None:
    if points != "absent":
        measured(tmp_path, points)
    with pytest.raises(SettingsError, match=message):
        find_operating_point(model(), tmp_path, 0.4)
    three = model(("fall", "fight", "normal"), None)
    with pytest.raises(SettingsError, match="two labels; this one has 3"):
        find_operating_point(three, measured(tmp_path), 10)


def test_the_rule_follows_the_settings(tmp_path: Path) -> None:
    (rule,) = make_decision(model(), tmp_path, InferSettings(threshold=0.6), stride_seconds=1.5).rules
    assert (rule.label, rule.column, rule.on_threshold, rule.merge_seconds) == ("fight", 0, 0.6, 1.5)
    assert rule.off_threshold == pytest.approx(0.48)
    asked = InferSettings(leave=0.2, min_seconds=2, merge_seconds=0, cooldown_seconds=7)
    (rule,) = make_decision(model(), tmp_path, asked, stride_seconds=1.5).rules
    assert (rule.off_threshold, rule.min_seconds, rule.merge_seconds, rule.cooldown_seconds) == (0.2, 2, 0, 7)
    with pytest.raises(SettingsError, match=r"'leave' is 0\.7 and the threshold is 0\.6"):
        make_decision(model(), tmp_path, InferSettings(threshold=0.6, leave=0.7), stride_seconds=1)


def test_thresholds_of_zero_and_one_are_thresholds(tmp_path: Path) -> None:
    always = make_decision(model(), tmp_path, InferSettings(threshold=0), stride_seconds=1)
    never = make_decision(model(), tmp_path, InferSettings(threshold=1), stride_seconds=1)
    for probabilities in ([0.001], [0.001, 0.2, 0.999]):
        found = decide_clip(clip(*probabilities), always)
        assert (found.label, len(found.events)) == ("fight", 1)
        found = decide_clip(clip(*probabilities), never)
        assert (found.label, found.events) == ("noFight", ())
    assert decide_clip(clip(0.2, 1.0), never).label == "fight"
    assert decide_clip(clip(0.0), always).label == "fight"


def test_events_are_found_of_what_sounds_alarming(tmp_path: Path) -> None:
    three = model(("fall", "fight", "normal_walk"), None)
    assert choose_event_labels(three) == ("fall", "fight")
    assert choose_event_labels(three, ["normal_walk", "fall", "fall"]) == ("normal_walk", "fall")
    assert choose_event_labels(model(("none", "normal", "safe"), None)) == ("safe",)
    rules = make_decision(three, tmp_path, InferSettings(), stride_seconds=1).rules
    assert [(rule.label, rule.column) for rule in rules] == [("fall", 0), ("fight", 1)]
    with pytest.raises(SettingsError, match="has no label 'figth'; did you mean 'fight'"):
        make_decision(three, tmp_path, InferSettings(event_labels=("figth",)), stride_seconds=1)
