"""Found events, false alarms, hours and delays, on events made by hand."""

import math
from pathlib import Path

import pytest

from features.errors import SettingsError
from hazard.events.ground_truth import (
    EvaluatedVideo,
    TrueEvent,
    check_truth,
    evaluate_events,
    harmless_seconds,
    read_truth,
)
from hazard.types import Event


def said(start: float, end: float, label: str = "fight", peak: float = 0.9) -> Event:
    return Event(label, start, end, peak, peak)


def watched(truth: list[TrueEvent], events: list[Event], seconds: float = 3600.0, **more: object) -> EvaluatedVideo:
    return EvaluatedVideo("a.mp4", seconds, truth, events, **more)  # type: ignore[arg-type]


FIGHT, LATER = TrueEvent("fight", 100, 120), TrueEvent("fight", 200, 210)


def test_an_event_is_found_by_one_of_its_label_that_overlaps() -> None:
    figures = evaluate_events([watched([FIGHT, LATER], [said(118, 125), said(500, 501)])])
    assert (figures["truth"], figures["found"], figures["recall"]) == (2, 1, 0.5)
    assert (figures["predicted"], figures["right"], figures["false_alarms"], figures["precision"]) == (2, 1, 1, 0.5)
    assert figures["missed"] == [{"path": "a.mp4", "label": "fight", "start": 200, "end": 210}]
    assert [entry["start"] for entry in figures["false"]] == [500]


def test_false_alarms_are_per_hour_of_harmless_video() -> None:
    half_harmful = [TrueEvent("fight", 0, 1000), TrueEvent("fall", 800, 1800)]
    figures = evaluate_events([watched(half_harmful, [said(2000, 2001), said(3000, 3001)])])
    assert figures["hours"] == pytest.approx(0.5)
    assert figures["false_alarms_per_hour"] == pytest.approx(4)


def test_an_alarm_by_another_name_is_no_false_alarm_and_finds_nothing() -> None:
    figures = evaluate_events([watched([FIGHT], [said(105, 110, "fall")])])
    assert (figures["found"], figures["false_alarms"], figures["misnamed"], figures["precision"]) == (0, 0, 1, 0.0)
    assert figures["per_label"]["fight"]["recall"] == 0.0
    assert figures["per_label"]["fall"]["misnamed"] == 1


def test_touching_is_no_overlap_unless_tolerance_makes_it_one() -> None:
    near = [watched([FIGHT], [said(120, 121)])]
    assert evaluate_events(near)["found"] == 0
    wide = evaluate_events(near, tolerance_seconds=2)
    assert (wide["found"], wide["false_alarms"]) == (1, 0)
    assert wide["hours"] * 3600 == pytest.approx(3600 - 24)


def test_delay_is_from_true_start_to_the_start_of_the_first_event_that_found_it() -> None:
    truths = [TrueEvent("fight", 10.0 * i, 10.0 * i + 8) for i in range(11)]
    events = [said(10.0 * i + 0.1 * i, 10.0 * i + 6) for i in range(11)] + [said(7, 8)]
    delay = evaluate_events([watched(truths, events)])["delay_seconds"]
    assert delay == pytest.approx({"median": 0.5, "p90": 0.9})
    early = evaluate_events([watched([FIGHT], [said(97, 101)])])["delay_seconds"]
    assert early["median"] == -3
    untimed = evaluate_events([watched([FIGHT], [said(101, 102)], is_timed=False)])
    assert (untimed["found"], untimed["delay_seconds"]["median"]) == (1, None)


def test_one_long_event_finds_all_that_it_covers_and_is_right_once() -> None:
    figures = evaluate_events([watched([FIGHT, LATER], [said(90, 220)])])
    assert (figures["found"], figures["right"], figures["predicted"], figures["precision"]) == (2, 1, 1, 1.0)


def test_what_nothing_is_known_of_is_none() -> None:
    figures = evaluate_events([watched([], [])])
    assert (figures["recall"], figures["precision"], figures["false_alarms_per_hour"]) == (None, None, 0.0)
    whole = evaluate_events([watched([TrueEvent("fight", 0, math.inf)], [said(1, 2)])])
    assert (whole["hours"], whole["false_alarms_per_hour"], whole["recall"]) == (0, None, 1.0)
    assert evaluate_events([])["videos"] == 0


def test_only_the_longest_misses_and_the_surest_false_alarms_are_listed() -> None:
    truths = [TrueEvent("fight", 10.0 * i, 10.0 * i + 1 + i / 100) for i in range(40)]
    events = [said(10.0 * i + 5, 10.0 * i + 6, peak=0.5 + i / 100) for i in range(40)]
    figures = evaluate_events([watched(truths, events)])
    assert [entry["start"] for entry in figures["missed"]] == [10.0 * i for i in range(39, 27, -1)]
    assert [entry["peak"] for entry in figures["false"]] == [0.5 + i / 100 for i in range(39, 27, -1)]


def test_overlapping_true_events_are_subtracted_once() -> None:
    truth = [TrueEvent("fall", 50, math.inf), TrueEvent("fight", 10, 30), TrueEvent("fight", 20, 40)]
    assert harmless_seconds(truth, 100) == 20
    assert harmless_seconds([TrueEvent("fight", 0, 10)], 100, tolerance_seconds=5) == 85
    assert harmless_seconds([TrueEvent("fight", 200, 300)], 100) == 100


def test_a_file_of_true_events(tmp_path: Path) -> None:
    file = tmp_path / "truth.csv"
    file.write_text("path,start,end,label\na.mp4,10,12.5,fight\na.mp4,,5,fall\na.mp4,10,12.5,fall\nquiet.mp4,,,\n")
    truth = read_truth(file)
    assert truth == {
        "a.mp4": [TrueEvent("fight", 10, 12.5), TrueEvent("fall", 0, 5), TrueEvent("fall", 10, 12.5)],
        "quiet.mp4": [],
    }
    check_truth(file, truth, paths={"a.mp4", "quiet.mp4", "other.mp4"}, labels=("fight", "fall"))
    with pytest.raises(SettingsError, match=r"clip 'quiet\.mp4' does not exist; did you mean 'b/quiet\.mp4'"):
        check_truth(file, truth, paths={"a.mp4", "b/quiet.mp4"}, labels=("fight", "fall"))
    with pytest.raises(SettingsError, match="label 'fall' has no events; did you mean 'falls'"):
        check_truth(file, truth, paths={"a.mp4", "quiet.mp4"}, labels=("fight", "falls"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("start,end\n1,2\n", "row 1: no column 'path'"),
        ("path,start,end,lable\na,1,2,x\n", "unknown column 'lable'; did you mean 'label'"),
        ("path,start,end,label\na,2,1,fight\n", "row 2, column 'end': 1 is not after the start, 2"),
        ("path,start,end,label\na,soon,,fight\n", "row 2, column 'start': 'soon' is not a number"),
        ("path,start,end,label\na,1,2,\n", "row 2, column 'label': empty; give the label"),
        ("path,start,end,label\n,1,2,fight\n", "row 2, column 'path': empty"),
        ("path,start,end,label\na,1,2\n", "row 2: expected 4 columns"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_truth(tmp_path / "t.csv")
