"""Long runs of the monitor: metrics of an hour against a simple count; constant memory over thousands of windows."""

import csv
import json
import re
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from os import getpid
from pathlib import Path

import numpy as np
import pytest

from features.cli.extract import extract_features
from features.live.cameras import open_cameras
from features.live.source import Camera
from features.live.types import LiveFrame, StatusChange
from hazard.alerts.delivery import deliver_alerts
from hazard.cli.infer import infer
from hazard.cli.main import hazard
from hazard.cli.train import train_temporal
from hazard.inference.settings import InferSettings
from hazard.monitor.detector import watch_cameras
from hazard.monitor.events.event_log import LOG_FILE_NAME
from hazard.monitor.events.event_processor import OUTBOX_FILE_NAME, STATE_FILE_NAME, open_event_processor
from hazard.monitor.settings import MonitorSettings
from hazard.monitor.setup import load_detector_setup, open_detector
from hazard.synthetic.recordings import PlantedEvent, draw_recording, plant_evenly
from hazard.synthetic.scenes import Scene, make_scene
from tests.conftest import Run
from tests.helpers.servers.receivers import make_alert_settings, run_receiver

FRAME_RATE, HOUR = 6, 3600
ROWS, WINDOW, STRIDE = 4, 3.0, 1.5  # frames and seconds
TORCH = ("--runtime", "torch")
FIGURES = re.compile(
    r"(?P<found>\d+) of (?P<truth>\d+) true events found, recall (?P<recall>[\d.]+)\n"
    r"(?P<false>\d+) false alarms? in (?P<hours>[\d.]+) hours, (?P<rate>[\d.]+) per hour\n"
    r"delay of events: (?P<delay>[-\d.]+) s .*of alerts: (?P<alert>[-\d.]+) s \(median\), (?P<p90>[-\d.]+) s \(90 %\)"
)


def scene() -> Scene:
    return make_scene(503, size=(160, 120), frame_rate=FRAME_RATE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on windows of other recordings, with a random backbone: it finds most fights, and has many false alarms."""
    folder = tmp_path_factory.mktemp("model")
    rows: list[tuple[object, ...]] = []
    for number in range(4):
        name, events = (
            f"{number}.mp4",
            plant_evenly(12, seconds=150, actions=("fight",), duration_range=(4, 8), seed=number),
        )
        draw_recording(
            folder / name,
            events=events,
            seconds=150,
            background=("walk",),
            seed=number,
            scene=scene(),
            frame_rate=FRAME_RATE,
        )
        for start in np.arange(0, 150 - WINDOW, STRIDE):
            inside = sum(max(0, min(start + WINDOW, e.end) - max(start, e.start)) for e in events) / WINDOW
            label = "hazardous" if inside >= 0.5 else "normal"
            rows += [] if 0.2 <= inside < 0.5 else [(name, start, start + WINDOW, label, number)]
    with open(folder / "m.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "start", "end", "label", "group"), *rows])
    looks = ("--weights", "random", "--frames", ROWS, "--set", "fit=squash", "--set", "size=96", *TORCH)
    given = [folder / "m.csv", "-o", folder / "c.h5", *looks]
    assert extract_features.main([str(a) for a in given], standalone_mode=False) == 0
    given = [folder / "c.h5", "-o", folder / "model", "--baseline", "logistic_regression"]
    assert train_temporal.main([str(a) for a in given], standalone_mode=False) == 0
    return folder / "model"


def read(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.long
def test_the_figures_of_an_hour_are_those_of_a_count_by_hand(model: Path, tmp_path: Path, run: Run) -> None:
    planted = plant_evenly(20, seconds=HOUR, actions=("fight",), seed=5)
    truth = draw_recording(
        tmp_path / "hour.mp4",
        events=planted,
        seconds=HOUR,
        background=("walk",),
        seed=5,
        scene=scene(),
        frame_rate=FRAME_RATE,
        labels={"fight": "hazardous"},
    )
    given = (tmp_path / "hour.mp4", "--model", model, *TORCH)
    assert run(infer, *given, "-o", tmp_path / "r").code == 0
    threshold = threshold_missing_six(planted, read(tmp_path / "r" / "windows.csv"))
    assert run(infer, *given, "-o", tmp_path / "r", "--threshold", threshold).code == 0
    ran = run(hazard, "monitor", "--evaluate", *given, "--truth", truth, "--threshold", threshold)
    assert ran.code == 0, ran.err
    printed = FIGURES.search(ran.out)
    assert printed, ran.out
    print(ran.out)

    true_events = [(float(row["start"]), float(row["end"])) for row in read(truth)]
    alarms = [(float(row["start"]), float(row["end"])) for row in read(tmp_path / "r" / "events.csv")]
    windows = [(float(row["start"]), float(row["end"])) for row in read(tmp_path / "r" / "windows.csv")]
    delays, alert_delays = [], []
    for true_start, true_end in true_events:
        starts, alert_times = [], []
        for start, end in alarms:
            if start < true_end and end > true_start:
                starts.append(start)
                alert_times.append(alert_time(start, windows))
        if starts:
            delays.append(min(starts) - true_start)
            alert_delays.append(min(alert_times) - true_start)
    false = 0
    for start, end in alarms:
        if all(end <= true_start or start >= true_end for true_start, true_end in true_events):
            false += 1
    hours = (HOUR - sum(end - start for start, end in true_events)) / 3600

    assert 8 <= len(delays) < 20 and false > 5, "there are misses and false alarms to count"
    assert (int(printed["truth"]), int(printed["found"]), int(printed["false"])) == (20, len(delays), false)
    assert float(printed["recall"]) == pytest.approx(len(delays) / 20, abs=0.006)
    assert float(printed["hours"]) == pytest.approx(hours, abs=0.006)
    assert float(printed["rate"]) == pytest.approx(false / hours, rel=0.001)
    assert float(printed["delay"]) == pytest.approx(statistics.median(delays), abs=0.006)
    assert float(printed["alert"]) == pytest.approx(statistics.median(alert_delays), abs=0.006)
    assert float(printed["p90"]) == pytest.approx(np.quantile(alert_delays, 0.9), abs=0.006)


def threshold_missing_six(planted: Sequence[PlantedEvent], windows: list[dict[str, str]]) -> float:
    """Return a threshold that about six of the events do not reach."""
    peaks = sorted(
        max(float(w["hazardous"]) for w in windows if float(w["start"]) < event.end and float(w["end"]) > event.start)
        for event in planted
    )
    return (peaks[5] + peaks[6]) / 2


def alert_time(event_start: float, windows: list[tuple[float, float]]) -> float:
    """Return the time of the frame that completed the window in which an event began."""
    for start, end in windows:
        begins = 0.0 if start == 0 else (start + end) / 2 - STRIDE / 2
        if abs(begins - event_start) < 1e-3:
            last_instant = end - WINDOW / ROWS / 2
            return int(last_instant * FRAME_RATE + 1e-6) / FRAME_RATE
    raise AssertionError(f"no window begins an event at {event_start}")


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc")
def test_thousands_of_windows_leave_memory_as_it_was(model: Path, tmp_path: Path) -> None:
    """Repeat two files, as fast as their frames are taken: a new session and new events every few frames."""
    events = [(4.0, 8.0, "fight"), (12.0, 16.0, "fight")]
    for name in ("a", "b"):
        draw_recording(
            tmp_path / f"{name}.mp4",
            events=events,
            seconds=20,
            background=("walk",),
            scene=scene(),
            frame_rate=FRAME_RATE,
            seed=ord(name),
        )
    settings = InferSettings(runtime="torch", threshold=0.7, stride_seconds=WINDOW / ROWS)
    setup = load_detector_setup(model, settings)
    cameras = [Camera(name, str(tmp_path / f"{name}.mp4"), is_repeated=True) for name in ("a", "b")]
    warm_frames, max_frames = 2000, 10_000
    frames, memory = 0, []
    began = time.monotonic()

    def count(items: list[LiveFrame | StatusChange]) -> None:
        nonlocal frames
        frames += sum(isinstance(item, LiveFrame) for item in items)
        if frames >= warm_frames * (len(memory) + 1):
            memory.append(memory_bytes())

    limits = MonitorSettings(alerts_per_minute=10**6, longest_clip_seconds=0)
    with ExitStack() as stack:
        receiver = stack.enter_context(run_receiver())
        outbox = stack.enter_context(
            deliver_alerts(tmp_path / "o" / OUTBOX_FILE_NAME, make_alert_settings(receiver.url))
        )
        processor = stack.enter_context(open_event_processor(tmp_path / "o", outbox, limits))
        detector = stack.enter_context(open_detector(setup, settings, {"a": None, "b": None}))
        live = stack.enter_context(
            open_cameras(cameras, setup.spec.preprocessing, setup.grid.fps, is_paced=False, thumbnail_width=160)
        )
        alerts = []
        for camera_event in watch_cameras(live, detector, is_stopped=lambda: frames >= max_frames, observers=[count]):
            alert = processor.process(camera_event)
            alerts += [alert.id] if alert else []
        counters = live.counters()
        assert outbox.wait_until_empty(60)
        assert outbox.count_by_state() == {"pending": 0, "done": len(alerts), "dead": 0}
        seconds = time.monotonic() - began
    print(f"{frames} frames in {seconds:.0f} s, {len(alerts)} alerts; MB: {[round(m / 1e6, 1) for m in memory]}")
    assert all(count.dropped == 0 and count.reconnects == 0 for count in counters.values())
    assert len(memory) == max_frames // warm_frames
    assert memory[-1] - memory[0] < 10e6
    assert len(receiver.ids()) == len(set(receiver.ids())) == len(alerts)
    lines = [json.loads(line) for line in (tmp_path / "o" / LOG_FILE_NAME).read_text().splitlines()]
    turns = frames / 2 / (20 * setup.grid.fps)
    assert len(lines) > 2 * turns, "each repetition begins and ends events"
    assert sum(line["over"] for line in lines) == len(lines) / 2, "each event that begins also ends"
    snapshots = list((tmp_path / "o" / "snapshots").iterdir())
    assert len(snapshots) == len(alerts)
    assert (tmp_path / "o" / STATE_FILE_NAME).stat().st_size < 1000
    assert sum(file.stat().st_size for file in (tmp_path / "o").glob(f"{OUTBOX_FILE_NAME}*")) < 6e6


def memory_bytes() -> int:
    """Return the memory of this process and its children without libraries. Shared memory counts once."""
    parents, own = {}, {getpid()}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    for _ in range(3):  # the fork server, and its children
        own |= {pid for pid, parent in parents.items() if parent in own}
    total = 0
    for pid in own:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    return total
