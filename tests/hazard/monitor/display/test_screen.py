"""What a screen shows of a camera; the window, on a display that nobody sits at."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from multiprocessing import Pipe
from pathlib import Path

import av
import numpy as np
import pytest

from features.live.types import LiveFrame, StatusChange
from hazard.cli.main import hazard
from hazard.events.decision import Decision
from hazard.events.rule import EventRule
from hazard.monitor.cameras import CameraSettings
from hazard.monitor.display.screen import Screen
from hazard.monitor.display.tile import SignalLoss, Tile
from hazard.monitor.display.tile_updater import TileUpdater
from hazard.monitor.events.event_log import LOG_FILE_NAME
from hazard.monitor.live_windows import LiveWindow, WindowGrid
from hazard.monitor.watcher import CameraWatcher
from tests.conftest import Run
from tests.hazard.monitor.display.test_mosaic import GREEN, NOW, SIZE, is_orange, middle
from tests.hazard.monitor.test_detector import model  # noqa: F401
from tests.helpers.desktop import MISSING, desktop, has_desktop
from tests.helpers.paths import ROOT

DECISION = Decision(("fight", "calm"), "fight", 0.6, (EventRule("fight", 0, 0.6, 0.3),))
FRAME = LiveFrame("door", 1, 0.0, NOW, 0.0, np.zeros(0, np.uint8), b"a picture")


def following(**camera: object) -> TileUpdater:
    watcher = CameraWatcher(DECISION, WindowGrid(1.0, 1, 1))
    watcher.begin_session(1)
    return TileUpdater(CameraSettings(name="door", source="a.mp4", **camera), watcher)  # type: ignore[arg-type]


def look(one: TileUpdater, second: int, probability: float, *, session: int = 1) -> Tile:
    """One frame, judged at once."""
    if session != one.watcher.session:
        one.watcher.begin_session(session)
    one.receive(replace(FRAME, session=session, seconds=second + 0.5, wall=NOW + timedelta(seconds=second)))
    window = LiveWindow((second, second + 1), (second, second + 1), np.zeros((1, 1), np.float16))
    one.watcher.process_window(window, (probability, 1 - probability))
    one.update()
    return one.tile


def test_a_sight_follows_what_is_said() -> None:
    one = following()
    one.update()
    assert (one.tile.label, one.tile.threshold, one.tile.curve) == ("", 0.6, ())
    calm = look(one, 0, 0.1)
    assert (calm.label, calm.probability, calm.event_since) == ("calm", 0.1, None)
    first = look(one, 1, 0.9)
    assert (first.label, first.event_since) == ("fight", NOW + timedelta(seconds=0.5))
    later = look(one, 2, 0.8)
    assert later.event_since == first.event_since, "once said it stays"
    over = look(one, 3, 0.0)
    assert (over.label, over.event_since) == ("calm", None)
    assert [(event.start, event.end) for event in over.events] == [(1, 3)]
    assert [value for _, _, value in over.curve] == [0.1, 0.9, 0.8, 0.0]
    anew = look(one, 0, 0.2, session=2)
    assert (len(anew.curve), anew.events) == (1, ())


def test_the_timeline_reaches_back_a_few_minutes() -> None:
    one = following()
    for second in range(400):
        last = look(one, second, 0.9 if second < 5 else 0.1)
    assert 178 < last.end_seconds - last.curve[0][0] < 182
    assert last.events == ()


def test_offline_and_back() -> None:
    one = following()
    look(one, 0, 0.1)
    one.receive(StatusChange("door", "offline", NOW, NOW - timedelta(seconds=20), "silent"))
    assert one.tile.signal_loss == SignalLoss("offline", NOW, NOW - timedelta(seconds=20), "silent")
    one.receive(StatusChange("door", "back", NOW, None))
    assert one.tile.signal_loss is None
    one.receive(StatusChange("door", "ended", NOW, None, "played to its end"))
    assert one.tile.signal_loss is not None and one.tile.signal_loss.what == "ended"


def test_who_is_not_watched_now_is_marked() -> None:
    assert not look(following(schedule="mon 08:00-09:00", timezone="UTC"), 0, 0.1).has_alerts
    assert look(following(), 0, 0.1).has_alerts


def test_a_window_that_hangs_holds_up_nobody() -> None:
    """Nobody reads at the other end: a pipe holds much less than what is shown here."""
    ours, theirs = Pipe()
    one = following()
    screen = Screen([one], ours)
    began = time.monotonic()
    for _ in range(200):
        screen([replace(FRAME, jpeg=bytes(1_000_000))])
        assert not screen.is_closed
    assert time.monotonic() - began < 60
    screen()
    theirs.close()
    screen.stop()
    assert not screen.is_closed, "it crashed; watching goes on"
    ours.close()


# ---- the window -----------------------------------------------------------------------------------------------------


def test_where_windows_hang_is_not_imported() -> None:
    """PyAV and OpenCV's windows do not go together."""
    code = "import sys, hazard.monitor.display.window; assert not {'av', 'torch'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Four minutes of one colour: a busy machine may lose sight of it now and then."""
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
def command(model: Path, clip: Path, tmp_path: Path) -> list[str]:  # noqa: F811
    given = ["monitor", f"door={clip}", "--model", model, "-o", tmp_path / "o", "--runtime", "torch", "--window"]
    return [str(one) for one in (*given, "--threshold", "0.01", "--window-seconds", "1", "--stride", "0.5")]


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
    assert (overs[0], overs[-1]) == (False, True), "it began, and was seen no longer"


def is_green_and_orange(image: np.ndarray) -> bool:
    return is_orange(image[:, :2]) and middle(image) == pytest.approx(GREEN, abs=8)
