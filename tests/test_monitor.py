"""Watching: the same windows and events as a report finds, told once, whatever is begun again."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cli import extract_features
from hazard.__main__ import hazard
from hazard.cli_infer import infer
from hazard.cli_train import train_temporal
from hazard.decide import Decision, events_of
from hazard.event_log import LOG
from hazard.events import EventRule
from hazard.recordings import draw_recording, plant_evenly
from hazard.scenes import make_scene
from hazard.synthetic import draw_clip, draw_dataset
from hazard.types import WindowPredictions
from hazard.watching import Grid, Stream, Watcher, with_threshold
from tests.conftest import Run

TORCH = ("--runtime", "torch")
RULE = EventRule("fight", 0, enter=0.6, leave=0.3)
DECISION = Decision(("fight", "normal"), "fight", 0.6, (RULE,))


def entries(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    draw_dataset(folder, classes={"normal": ["walk"], "hazardous": ["fight"]}, clips_per_class=6, scenes=3)
    given = [folder / "manifest.csv", "-o", folder / "c.h5", "--weights", "random", "--frames", 4, *TORCH]
    assert extract_features.main([str(a) for a in given], standalone_mode=False) == 0
    given = [folder / "c.h5", "-o", folder / "model", "--baseline", "ridge"]
    assert train_temporal.main([str(a) for a in given], standalone_mode=False) == 0
    return folder / "model"


@given(
    probs=st.lists(st.floats(0, 1), min_size=4, max_size=60),
    stride=st.integers(1, 4),
    fps=st.sampled_from([1.0, 2.0, 4.0]),
)
def test_watching_finds_the_events_of_a_report(probs: list[float], stride: int, fps: float) -> None:
    """The same windows with the same probabilities, on the way and afterwards; the end of the last core apart."""
    grid, rows = Grid(fps, 4, stride), 4
    watcher = Watcher(DECISION, grid)
    watcher.begin(1)
    spans, table, told, found = [], [], [], []
    for number in range(rows + stride * (len(probs) - 1)):
        window = watcher.stream.add((number + 0.5) / fps, np.zeros(1, np.float16))
        if window is not None:
            table.append([probs[len(spans)], 1 - probs[len(spans)]])
            spans.append(window.span)
            news = watcher.judge(window, table[-1])
            told += [n.event for n in news if not n.is_over]
            found += [n.event for n in news if n.is_over]
    found += [news.event for news in watcher.end()]
    assert len(spans) == len(probs)
    windows = WindowPredictions(np.array(spans), np.array(table))
    report = events_of(windows, DECISION.rules, spans[-1][1])
    assert [e.start for e in found] == pytest.approx([e.start for e in report])
    assert [e.peak for e in found] == [e.peak for e in report]
    assert [e.start for e in told] == [e.start for e in found], "each is told of once"


def test_a_window_with_a_hole_says_nothing() -> None:
    stream = Stream(Grid(2.0, 4, 2))
    times = [0.25, 0.75, 1.25, 1.75, 9.25, 9.75, 10.25, 10.75]
    windows = [stream.add(time, np.zeros(1, np.float16)) for time in times]
    assert [i for i, window in enumerate(windows) if window] == [3, 7]
    assert windows[3] is not None and windows[3].span == (0.0, 2.0)
    assert windows[3].core == (0.0, 1.5)


def test_another_session_ends_what_was_going_on_and_begins_anew() -> None:
    watcher = Watcher(DECISION, Grid(1.0, 1, 1))
    watcher.begin(1)
    window = watcher.stream.add(5.5, np.zeros(1, np.float16))
    assert window is not None
    assert [news.is_over for news in watcher.judge(window, (0.9, 0.1))] == [False]
    assert watcher.going_on() == ["fight"]
    assert [news.is_over for news in watcher.begin(2)] == [True]
    assert watcher.going_on() == []
    again = watcher.stream.add(0.5, np.zeros(1, np.float16))
    assert again is not None
    assert len(watcher.judge(again, (0.9, 0.1))) == 1


def test_a_camera_may_have_a_threshold_of_its_own() -> None:
    own = with_threshold(DECISION, 0.9)
    assert (own.threshold, own.rules[0].enter, own.rules[0].leave) == (0.9, 0.9, pytest.approx(0.45))
    assert with_threshold(DECISION, None) is DECISION
    assert with_threshold(DECISION, 0.0).rules[0].enter > 0


def test_a_replay_finds_what_a_report_finds(model: Path, tmp_path: Path, run: Run) -> None:
    events = plant_evenly(3, seconds=60, actions=("fight",), seed=1)
    about = {"seconds": 60, "background": ("walk",), "scene": make_scene(3, size=(160, 120), frame_rate=10)}
    truth = draw_recording(tmp_path / "a.mp4", events=events, labels={"fight": "hazardous"}, **about)  # type: ignore[arg-type]
    given = (*TORCH, "--threshold", 0.5)
    assert run(infer, tmp_path / "a.mp4", "--model", model, "-o", tmp_path / "r", "--truth", truth, *given).code == 0
    ran = run(hazard, "monitor", "--evaluate", tmp_path / "a.mp4", "--model", model, "--truth", truth, *given)
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "r" / "report.json").read_text())["evaluation"]["events"]
    assert f"{found['found']} of 3 true events found" in ran.out
    assert f"{found['false_alarms']} false alarms in" in ran.out
    assert "alerts come" in ran.out


def test_a_file_as_if_live_is_watched_to_its_end(model: Path, tmp_path: Path, run: Run) -> None:
    draw_clip(tmp_path / "a.mp4", "fight", seed=2, size=(96, 72), frame_rate=10, seconds=4)
    settings = {"cameras": [{"name": "door", "source": str(tmp_path / "a.mp4")}], "infer": {"threshold": 0.01}}
    (tmp_path / "m.yaml").write_text(json.dumps(settings))
    ran = run(hazard, "monitor", "--config", tmp_path / "m.yaml", "--model", model, "-o", tmp_path / "o", *TORCH,
              "--window-seconds", 1, "--stride", 0.5)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "watching 1 camera," in ran.out
    assert "event door hazardous" in ran.out
    begun, over = entries(tmp_path / "o")[0], entries(tmp_path / "o")[-1]
    assert (begun["over"], over["over"], over["is_cut"]) == (False, True, False)
    assert Path(str(begun["snapshot"])).read_bytes().startswith(b"\xff\xd8")
    with av.open(str(begun["clip"])) as clip:
        assert float(clip.duration or 0) / av.time_base >= 3.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "give cameras"),
        (("--evaluate", "absent.mp4"), "--truth"),
        (("gopher://x", "-o", "out"), "gopher"),
    ],
)
def test_bad_input_is_one_line(model: Path, run: Run, given: tuple[str, ...], said: str) -> None:
    ran = run(hazard, "monitor", *given, "--model", model)
    assert ran.code == 2
    assert said in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("content", [None, "no video"])
def test_a_recording_that_is_none_is_one_line(model: Path, tmp_path: Path, run: Run, content: str | None) -> None:
    (tmp_path / "t.csv").write_text("path,start,end,label\na.mp4,0,1,hazardous\n")
    if content:
        (tmp_path / "a.mp4").write_text(content)
    ran = run(hazard, "monitor", "--evaluate", tmp_path / "a.mp4", "--model", model, "--truth", tmp_path / "t.csv")
    assert ran.code == 2
    assert "cannot be replayed" in ran.err
    assert "Traceback" not in ran.err


def test_models_of_snippets_cannot_watch(model: Path, tmp_path: Path, run: Run) -> None:
    from features.spec import FeatureSpec

    tree = json.loads((model / "model.json").read_text())
    tree["feature_spec"]["sampling"] |= {"kind": "snippets", "fps": 5.0, "stride_seconds": 1.0}
    tree["fingerprint"] = FeatureSpec.model_validate(tree["feature_spec"]).fingerprint
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.json").write_text(json.dumps(tree))
    (tmp_path / "t.csv").write_text("path,start,end,label\na.mp4,0,1,hazardous\n")
    draw_clip(tmp_path / "a.mp4", "fight", seed=2, size=(96, 72), frame_rate=10, seconds=1)
    ran = run(
        hazard, "monitor", "--evaluate", tmp_path / "a.mp4", "--model", tmp_path / "m", "--truth", tmp_path / "t.csv"
    )
    assert ran.code == 2
    assert "snippets" in ran.err
