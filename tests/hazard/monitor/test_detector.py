"""The live detector: the same windows and events as in a report, each returned once."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encoders.base import FrameEncoder
from features.live.pacing import is_picked
from features.live.types import LiveFrame
from features.utils.text import format_count
from hazard.cli.infer import infer
from hazard.cli.main import hazard
from hazard.events.decision import Decision, find_clip_events
from hazard.events.rule import EventRule
from hazard.monitor.camera_watcher import CameraWatcher, EventChange, replace_threshold
from hazard.monitor.detector import LiveDetector
from hazard.monitor.events.event_log import LOG_FILE_NAME
from hazard.monitor.live_windows import WindowBuffer, WindowGrid
from hazard.synthetic.clips import draw_clip
from hazard.synthetic.recordings import draw_recording, plant_evenly
from hazard.synthetic.scenes import make_scene
from hazard.types import WindowPredictions
from tests.conftest import Run

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TORCH = ("--runtime", "torch")
RULE = EventRule("fight", 0, on_threshold=0.6, off_threshold=0.3)
DECISION = Decision(("fight", "normal"), "fight", 0.6, (RULE,))


def entries(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LOG_FILE_NAME).read_text().splitlines()]


@pytest.fixture(scope="module")
def model(small_model: Path) -> Path:
    return small_model


@given(
    probs=st.lists(st.floats(0, 1), min_size=4, max_size=60),
    stride=st.integers(1, 4),
    fps=st.sampled_from([1.0, 4 / 3, 4.0, 4.19]),
    video_fps=st.sampled_from([5.0, 15.0, 30 / 1.001]),
    merged_strides=st.integers(0, 2),
)
def test_watching_finds_the_events_of_a_report(
    probs: list[float], stride: int, fps: float, video_fps: float, merged_strides: int
) -> None:
    """Give live windows and a report the same probabilities. Only the end of the last core may differ.

    A frame appears on the screen a little before the sampling instant that it is picked for.
    """
    rule = replace(RULE, merge_seconds=round(merged_strides * stride / fps, 6))
    grid, rows = WindowGrid(fps, 4, stride), 4
    watcher = CameraWatcher(replace(DECISION, rules=(rule,)), grid)
    watcher.begin_session(1)
    spans, table, begun, ended = [], [], [], []
    for number in range(rows + stride * (len(probs) - 1)):
        begins = math.floor((number + 0.5) / fps * video_fps) / video_fps
        for window in watcher.window_buffer.add(begins, np.zeros(1, np.float16)):
            table.append([probs[len(spans)], 1 - probs[len(spans)]])
            start = len(spans) * stride / fps
            spans.append((round(start, 6), round(start + rows / fps, 6)))
            changes = watcher.process_window(window, table[-1])
            begun += [change.event for change in changes if not change.is_over]
            ended += [change.event for change in changes if change.is_over]
    ended += [change.event for change in watcher.end_session()]
    assert len(spans) == len(probs)
    windows = WindowPredictions(np.array(spans), np.array(table))
    report = find_clip_events(windows, (rule,), spans[-1][1])
    assert [e.start for e in ended] == pytest.approx([e.start for e in report], abs=1e-5)
    assert [e.peak for e in ended] == [e.peak for e in report]
    assert [e.start for e in begun] == [e.start for e in ended], "each begins once"


def test_a_window_with_a_hole_says_nothing() -> None:
    stream = WindowBuffer(WindowGrid(2.0, 4, 2))
    times = [0.25, 0.75, 1.25, 1.75, 9.25, 9.75, 10.25, 10.75]
    windows = [stream.add(time, np.zeros(1, np.float16)) for time in times]
    assert [i for i, found in enumerate(windows) if found] == [3, 7]
    assert windows[3][0].span == (0.0, 2.0)
    assert windows[3][0].core == (0.0, 1.5)


@pytest.mark.parametrize("video_fps", [1.0, 2.0, 3.0, 25.0])
def test_a_slow_camera_has_the_windows_of_a_quick_one(video_fps: float) -> None:
    """Each frame counts for all sampling instants at which it was on the screen, as in a report."""
    stream = WindowBuffer(WindowGrid(4.0, 8, 4))
    begins = np.arange(0, 20, 1 / video_fps)
    picked = [begin for begin in begins if is_picked(begin, begin + 1 / video_fps, 4.0)]
    windows = [window for begin in picked for window in stream.add(begin, np.full(1, begin, np.float16))]
    assert [window.span for window in windows] == [(k, k + 2) for k in range(len(windows))]
    assert len(windows) >= 17
    for window in windows:
        instants = window.span[0] + (np.arange(8) + 0.5) / 4
        shown = begins[np.searchsorted(begins, instants + 1e-9, side="right") - 1]
        assert window.steps[:, 0] == pytest.approx(np.unique(shown), abs=0.01)


def test_another_session_ends_what_was_going_on_and_begins_anew() -> None:
    watcher = CameraWatcher(DECISION, WindowGrid(1.0, 1, 1))
    watcher.begin_session(1)
    (window,) = watcher.window_buffer.add(5.5, np.zeros(1, np.float16))
    assert [change.is_over for change in watcher.process_window(window, (0.9, 0.1))] == [False]
    assert watcher.list_active_labels() == ["fight"]
    assert [change.is_over for change in watcher.begin_session(2)] == [True]
    assert watcher.list_active_labels() == []
    (again,) = watcher.window_buffer.add(0.5, np.zeros(1, np.float16))
    assert len(watcher.process_window(again, (0.9, 0.1))) == 1


def detect(sessions: list[int], *, together: bool) -> list[tuple[bool, int, float]]:
    """Return the event changes of a camera that shows a fight in all frames. Each number is a frame of that session."""

    class CertainModel:
        """A model that predicts a fight for everything."""

        reduction = None
        info = SimpleNamespace(settings=SimpleNamespace(max_steps=None))

        def predict(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return np.tile([0.9, 0.1], (len(x), 1))

    frames = [
        LiveFrame("door", session, sessions[:i].count(session) + 0.5, NOW, 0.0, np.zeros((8, 8, 3), np.uint8))
        for i, session in enumerate(sessions)
    ]
    encoder = FrameEncoder(lambda batch: np.zeros((len(batch), 1), np.float32), batch_size=4)
    detector = LiveDetector(CertainModel(), encoder, {"door": CameraWatcher(DECISION, WindowGrid(1.0, 2, 1))})  # type: ignore[arg-type]
    batches = [frames] if together else [[frame] for frame in frames]
    camera_events = [camera_event for batch in batches for camera_event in detector.process(batch)]
    return [
        (h.change.is_over, h.session, h.change.event.start) for h in camera_events if isinstance(h.change, EventChange)
    ]


def test_frames_of_two_sessions_that_come_together_mean_what_they_mean_one_by_one() -> None:
    """A slow machine may get the last frames before a break and the first frames after it in one poll."""
    sessions = [1] * 5 + [2] * 4 + [3] + [4] * 3
    one_by_one = detect(sessions, together=False)
    assert [is_over for is_over, _, _ in one_by_one] == [False, True, False, True, False]
    assert detect(sessions, together=True) == one_by_one


def test_a_camera_may_have_a_threshold_of_its_own() -> None:
    own = replace_threshold(DECISION, 0.9)
    assert (own.threshold, own.rules[0].on_threshold, own.rules[0].off_threshold) == (0.9, 0.9, pytest.approx(0.45))
    assert replace_threshold(DECISION, None) is DECISION
    assert replace_threshold(DECISION, 0.0).rules[0].on_threshold > 0


@pytest.mark.parametrize("frame_rate", [10, 1])  # the model samples about 1.5 frames per second
def test_a_replay_finds_what_a_report_finds(model: Path, tmp_path: Path, run: Run, frame_rate: int) -> None:
    events = plant_evenly(3, seconds=60, actions=("fight",), seed=1)
    scene = make_scene(3, size=(160, 120), frame_rate=frame_rate)
    about = {"seconds": 60, "background": ("walk",), "scene": scene, "frame_rate": frame_rate}
    truth = draw_recording(tmp_path / "a.mp4", events=events, labels={"fight": "hazardous"}, **about)  # type: ignore[arg-type]
    given = (*TORCH, "--threshold", 0.5)
    assert run(infer, tmp_path / "a.mp4", "--model", model, "-o", tmp_path / "r", "--truth", truth, *given).code == 0
    ran = run(hazard, "monitor", "--evaluate", tmp_path / "a.mp4", "--model", model, "--truth", truth, *given)
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "r" / "report.json").read_text())["evaluation"]["events"]
    assert f"{found['found']} of 3 true events found" in ran.out
    assert f"{format_count(found['false_alarms'], 'false alarm')} in" in ran.out
    assert "of alerts:" in ran.out


def test_an_event_found_within_the_tolerance_has_a_delay_too(model: Path, tmp_path: Path, run: Run) -> None:
    draw_clip(tmp_path / "a.mp4", "fight", seed=2, size=(96, 72), frame_rate=10, seconds=4)
    (tmp_path / "t.csv").write_text("path,start,end,label\na.mp4,6,7,hazardous\n")
    given = ("--truth", tmp_path / "t.csv", "--threshold", 0.01, "--window-seconds", 1, "--stride", 0.5, *TORCH)
    for tolerance, found in ((0, 0), (3, 1)):
        again = (*given, "--set", f"tolerance_seconds={tolerance}")
        ran = run(hazard, "monitor", "--evaluate", tmp_path / "a.mp4", "--model", model, *again)
        assert f"{found} of 1 true events found" in ran.out, ran.err
        assert ("of alerts:" in ran.out) == bool(found)


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
        (("--evaluate", "absent.mp4", "--window"), "--annotate"),
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
