"""The tile of a camera, and the window on a virtual display."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from multiprocessing import Pipe
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from features.live.types import LiveFrame, StatusChange
from hazard.cli.main import hazard
from hazard.events.decision import Decision
from hazard.events.rule import EventRule
from hazard.monitor.camera_watcher import CameraWatcher
from hazard.monitor.cameras import CameraSettings
from hazard.monitor.display.screen import Screen
from hazard.monitor.display.tile import SignalLoss, Tile
from hazard.monitor.display.tile_updater import TileUpdater
from hazard.monitor.events.event_log import LOG_FILE_NAME
from hazard.monitor.live_windows import LiveWindow, WindowGrid
from tests.conftest import Run
from tests.helpers.desktop import MISSING, desktop, has_desktop
from tests.helpers.paths import ROOT
from tests.helpers.tile_images import GREEN, NOW, SIZE, is_orange, middle

DECISION = Decision(("fight", "calm"), "fight", 0.6, (EventRule("fight", 0, 0.6, 0.3),))
FRAME = LiveFrame("door", 1, 0.0, NOW, 0.0, np.zeros(0, np.uint8), b"a picture")


def make_updater(**camera: object) -> TileUpdater:
    watcher = CameraWatcher(DECISION, WindowGrid(1.0, 1, 1))
    watcher.begin_session(1)
    return TileUpdater(CameraSettings(name="door", source="a.mp4", **camera), watcher)  # type: ignore[arg-type]


def update(updater: TileUpdater, second: int, probability: float, *, session: int = 1) -> Tile:
    """Take updater frame and its prediction, and return the updated tile."""
    if session != updater.watcher.session:
        updater.watcher.begin_session(session)
    updater.receive(replace(FRAME, session=session, seconds=second + 0.5, wall=NOW + timedelta(seconds=second)))
    window = LiveWindow((second, second + 1), (second, second + 1), np.zeros((1, 1), np.float16))
    updater.watcher.process_window(window, (probability, 1 - probability))
    updater.update()
    return updater.tile


def test_a_sight_follows_what_is_said() -> None:
    updater = make_updater()
    updater.update()
    assert (updater.tile.label, updater.tile.threshold, updater.tile.curve) == ("", 0.6, ())
    calm = update(updater, 0, 0.1)
    assert (calm.label, calm.probability, calm.event_since) == ("calm", 0.1, None)
    first = update(updater, 1, 0.9)
    assert (first.label, first.event_since) == ("fight", NOW + timedelta(seconds=0.5))
    later = update(updater, 2, 0.8)
    assert later.event_since == first.event_since, "once shown it does not change"
    over = update(updater, 3, 0.0)
    assert (over.label, over.event_since) == ("calm", None)
    assert [(event.start, event.end) for event in over.events] == [(1, 3)]
    assert [value for _, _, value in over.curve] == [0.1, 0.9, 0.8, 0.0]
    anew = update(updater, 0, 0.2, session=2)
    assert (len(anew.curve), anew.events) == (1, ())


def test_the_timeline_reaches_back_a_few_minutes() -> None:
    updater = make_updater()
    for second in range(400):
        last = update(updater, second, 0.9 if second < 5 else 0.1)
    assert 178 < last.end_seconds - last.curve[0][0] < 182
    assert last.events == ()


def test_offline_and_back() -> None:
    updater = make_updater()
    update(updater, 0, 0.1)
    updater.receive(StatusChange("door", "offline", NOW, NOW - timedelta(seconds=20), "silent"))
    assert updater.tile.signal_loss == SignalLoss("offline", NOW, NOW - timedelta(seconds=20), "silent")
    updater.receive(StatusChange("door", "back", NOW, None))
    assert updater.tile.signal_loss is None
    updater.receive(StatusChange("door", "ended", NOW, None, "played to its end"))
    assert updater.tile.signal_loss is not None and updater.tile.signal_loss.kind == "ended"


def test_who_is_not_watched_now_is_marked() -> None:
    assert not update(make_updater(schedule="mon 08:00-09:00", timezone="UTC"), 0, 0.1).has_alerts
    assert update(make_updater(), 0, 0.1).has_alerts


def test_a_window_that_hangs_holds_up_nobody() -> None:
    """Nobody reads at the other end of the pipe, which holds much less than is sent here."""
    ours, theirs = Pipe()
    updater = make_updater()
    screen = Screen([updater], ours)
    began = time.monotonic()
    for _ in range(200):
        screen([replace(FRAME, jpeg=bytes(1_000_000))])
        assert not screen.is_closed
    assert time.monotonic() - began < 60
    screen()
    theirs.close()
    screen.stop()
    assert not screen.is_closed, "it crashed; the monitor goes on"
    ours.close()


# ---- the window -----------------------------------------------------------------------------------------------------


def test_where_windows_hang_is_not_imported() -> None:
    """OpenCV's windows hang in a process that has imported PyAV."""
    code = "import sys, hazard.monitor.display.window; assert not {'av', 'torch'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Write four minutes of updater color: long enough for a busy machine."""
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=8)
        stream.codec_context.thread_count = 1
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for _ in range(8 * 240):
            frame = av.VideoFrame.from_ndarray(np.full((90, 160, 3), GREEN, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return tmp_path / "a.mp4"


@pytest.fixture
def command(small_model: Path, clip: Path, tmp_path: Path) -> list[str]:
    given = ["monitor", f"door={clip}", "--model", small_model, "-o", tmp_path / "o", "--runtime", "torch", "--window"]
    return [str(argument) for argument in (*given, "--threshold", "0.01", "--window-seconds", "1", "--stride", "0.5")]


STUB = """
class error(Exception): ...
WINDOW_NORMAL = WINDOW_FREERATIO = WINDOW_GUI_NORMAL = 0
def setNumThreads(count): ...
def namedWindow(*given): raise error("The function is not implemented. Rebuild the library with ...")
"""


@pytest.mark.parametrize(
    ("display", "is_headless", "said"),
    [
        ("", False, "neither DISPLAY nor"),
        (":987", False, "no window can be opened on display :987"),
        (":987", True, "built without windows"),
    ],
)
def test_without_a_desktop_is_one_line(
    command: list[str],
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    display: str,
    is_headless: bool,
    said: str,
) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", display)
    if is_headless:
        (tmp_path / "stub").mkdir()
        (tmp_path / "stub" / "cv2.py").write_text(STUB)
        monkeypatch.syspath_prepend(str(tmp_path / "stub"))
    elif display and not cv2.currentUIFramework():
        said = "built without windows"  # opencv-python-headless stands in for opencv-python on a bare machine
    ran = run(hazard, *command)
    assert ran.code == 5
    assert said in ran.err.splitlines()[-1] and "leave --window out" in ran.err
    assert "Traceback" not in ran.err and "watching" not in ran.out


@pytest.mark.skipif(not has_desktop(), reason=MISSING)
@pytest.mark.parametrize("way", ["q", pytest.param("cross", marks=pytest.mark.long)])
def test_a_window_shows_a_camera_until_it_is_closed(command: list[str], tmp_path: Path, way: str) -> None:
    with desktop(SIZE) as screen:
        run = [sys.executable, "-m", "hazard", *command]
        there = {**os.environ, "DISPLAY": screen.display}
        running = subprocess.Popen(run, env=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            until = time.monotonic() + 220
            while not is_green_and_orange(screen.screenshot()):
                assert running.poll() is None, running.communicate()
                assert time.monotonic() < until, "no event was shown"
                time.sleep(0.05)
            screen.press("q") if way == "q" else screen.close_windows()
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
            running.wait()
    assert (running.returncode, "Traceback" in err) == (0, False)
    assert "the window was closed" in err
    assert "event door hazardous" in out
    overs = ['"over": true' in line for line in (tmp_path / "o" / LOG_FILE_NAME).read_text().splitlines()]
    assert (overs[0], overs[-1]) == (False, True), "the event began and ended"


def is_green_and_orange(image: np.ndarray) -> bool:
    return is_orange(image[:, :2]) and middle(image) == pytest.approx(GREEN, abs=8)
