"""Long drawn videos with events at known times, and the events that inference finds in them."""

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest

from features.cli.extract import extract_features
from hazard.cli.infer import infer
from hazard.cli.train import train_temporal
from hazard.events.ground_truth import TrueEvent, read_truth
from hazard.models.model_folder import open_model
from hazard.synthetic.clips import draw_clip
from hazard.synthetic.recordings import PlantedEvent, draw_recording, plant_evenly
from hazard.synthetic.scenes import Scene, make_scene
from tests.conftest import Run
from tests.helpers.data.videos import decode_video

NAMES = {"fight": "hazardous", "fall": "hazardous"}
WINDOW, STRIDE = 3.0, 1.5


def small(seed: int) -> Scene:
    return make_scene(seed, size=(160, 120), frame_rate=10)


def test_a_recording_is_as_long_as_it_says_and_its_truth_lies_beside_it(tmp_path: Path) -> None:
    events = [PlantedEvent(5, 9.5, "fight"), PlantedEvent(20, 24, "fall")]
    truth = draw_recording(tmp_path / "a.mp4", events=events, seconds=30, labels=NAMES)
    draw_recording(tmp_path / "quiet.mp4", events=[], seconds=2)
    draw_recording(tmp_path / "b.mp4", events=[(0, 2, "fall")], seconds=2)
    assert truth == tmp_path / "truth.csv"
    assert read_truth(truth) == {
        "a.mp4": [TrueEvent("hazardous", 5, 9.5), TrueEvent("hazardous", 20, 24)],
        "quiet.mp4": [],
        "b.mp4": [TrueEvent("fall", 0, 2)],
    }
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames, stream.average_rate) == (160, 120, 300, 10)


def test_the_same_seed_draws_the_same_and_nothing_jumps_when_an_event_begins(tmp_path: Path) -> None:
    events = [PlantedEvent(8, 14, "fight")]
    for name, seed in (("a", 1), ("again", 1), ("other", 2)):
        draw_recording(tmp_path / f"{name}.mp4", events=events, seconds=20, seed=seed, scene=small(3))
    first, again, other = (decode_video(tmp_path / f"{name}.mp4")[0] for name in ("a", "again", "other"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    changes = (np.abs(np.diff(first.astype(int), axis=0)) > 60).any(axis=3).mean(axis=(1, 2))
    assert changes[78:82].max() < 2.5 * np.median(changes), "people come walking to where they fight"


def test_events_are_planted_one_in_each_part() -> None:
    events = plant_evenly(10, seconds=600, actions=("fight", "fall"), seed=4)
    assert [event.action for event in events] == ["fight", "fall"] * 5
    assert all(60 * i < e.start < e.end < 60 * (i + 1) for i, e in enumerate(events))
    assert all(5 <= round(e.end - e.start, 1) <= 9 for e in events)
    assert events == plant_evenly(10, seconds=600, actions=("fight", "fall"), seed=4)


@pytest.mark.parametrize("events", [[(5, 9, "fall"), (8, 12, "fall")], [(5, 31, "fall")], [(5, 5, "fall")]])
def test_events_that_cannot_be_drawn_are_refused(events: list[tuple[float, float, str]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one after the other within 0 to 30 s"):
        draw_recording(tmp_path / "a.mp4", events=events, seconds=30)


def draw_training(folder: Path, scenes: range) -> Path:
    """Make training data from clips and windows of recordings; a window has the label of what fills half of it."""
    rows: list[tuple[object, ...]] = []
    for place in scenes:
        for number in range(40):
            for label, action in (("normal", "walk"), ("hazardous", "fight")):
                rows.append((name := f"{label}_{place}_{number}.mp4", "", "", label, place))
                seed = ((place - scenes.start) * 40 + number) * 2 + (action == "fight")
                draw_clip(folder / name, action, seed=seed, scene=small(place), seconds=WINDOW)
        for number in range(2):
            seed, name = place * 10 + number, f"{place}_{number}.mp4"
            events = plant_evenly(8, seconds=240, actions=("fight",), duration_range=(4, 8), seed=seed)
            draw_recording(
                folder / name, events=events, seconds=240, background=("walk",), seed=seed, scene=small(place)
            )
            for start in np.arange(0, 240 - WINDOW + 0.1, STRIDE):
                inside = sum(max(0, min(start + WINDOW, e.end) - max(start, e.start)) for e in events) / WINDOW
                if not 0.2 <= inside < 0.5:
                    rows.append((name, start, start + WINDOW, "hazardous" if inside >= 0.5 else "normal", place))
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "start", "end", "label", "group"), *rows])
    return folder / "manifest.csv"


@pytest.mark.real
@pytest.mark.long
def test_ten_planted_events_are_found_and_nothing_else(
    real_weights: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes of people that training never saw, in one of its three places; about two minutes of one core.

    One fixed recording: docs/events.md says how six of them fare.
    """
    monkeypatch.setenv("FEATURES_WEIGHTS", str(real_weights))
    manifest = draw_training(tmp_path / "clips", range(503, 506))
    looks = ("--set", "fit=squash", "--set", "size=128")
    assert run(extract_features, manifest, "-o", tmp_path / "c.h5", *looks).code == 0
    assert run(train_temporal, tmp_path / "c.h5", "-o", tmp_path / "model", "--folds", 3).code == 0
    assert open_model(tmp_path / "model").info.window.duration_seconds == WINDOW
    events = plant_evenly(10, seconds=600, actions=("fight",), seed=31)
    about = {"seconds": 600, "background": ("walk",), "seed": 31, "scene": small(503), "labels": NAMES}
    truth = draw_recording(tmp_path / "a.mp4", events=events, **about)  # type: ignore[arg-type]
    given = (tmp_path / "a.mp4", "--model", tmp_path / "model", "-o", tmp_path / "report", "--truth", truth)
    ran = run(infer, *given, "--false-alarms-per-hour", 10)
    assert "10 of 10 true events found, 0 false alarms in 9 min of video without events" in ran.out, ran.err
    found = json.loads((tmp_path / "report" / "report.json").read_text())["evaluation"]["events"]
    assert (found["truth"], found["found"], found["recall"], found["false_alarms"]) == (10, 10, 1.0, 0)
    with open(tmp_path / "report" / "events.csv", newline="") as file:
        starts = [float(row["start"]) for row in csv.DictReader(file)]
    assert np.abs(np.array(starts) - [event.start for event in events]).max() <= STRIDE
