"""Inference runs: what a second run repeats, and how a stopped run continues."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from features.cache.hdf5 import read_cache
from features.cli.extract import extract_features
from features.utils.text import format_count
from hazard.cli.infer import infer
from hazard.cli.train import train_temporal
from hazard.inference.result_store import DATABASE_NAME, open_result_store
from hazard.report.json_report import report_schema
from hazard.synthetic.clips import draw_clip, draw_dataset
from tests.conftest import Run

QUICK = ("--epochs", 2, "--set", "members=1", "--head", "lstm")
TORCH = ("--runtime", "torch", "--workers", 1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache, a model trained on it, and three videos: two short ones and a long one."""
    folder = tmp_path_factory.mktemp("batch")
    draw_dataset(folder, classes={"normal": ["walk"], "hazardous": ["fight"]}, clips_per_class=4, scenes=2)
    given = [folder / "manifest.csv", "-o", folder / "c.h5", "--weights", "random", "--frames", 3, *TORCH]
    assert extract_features.main([str(a) for a in given], standalone_mode=False) == 0
    given = [folder / "c.h5", "-o", folder / "model", *QUICK]
    assert train_temporal.main([str(a) for a in given], standalone_mode=False) == 0
    for number in (1, 2):
        draw_clip(folder / f"videos/short{number}.mp4", "walk", seed=number, size=(96, 72), frame_rate=10)
    draw_clip(folder / "videos/long.mp4", "fight", seed=3, size=(96, 72), frame_rate=10, seconds=13)
    return folder


@pytest.fixture
def videos(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn / "videos", tmp_path / "videos"))


def table(report: Path, name: str = "predictions.csv") -> list[dict[str, str]]:
    with open(report / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_second_run_looks_only_at_what_is_new_or_changed(drawn: Path, videos: Path, tmp_path: Path, run: Run) -> None:
    given = (videos, "--model", drawn / "model", "-o", tmp_path / "r", *TORCH)
    (videos / "bad.mp4").write_text("no video")
    assert run(infer, *given).code == 3
    first = table(tmp_path / "r")
    draw_clip(videos / "new.mp4", "walk", seed=9, size=(96, 72), frame_rate=10)
    os.utime(videos / "short1.mp4")
    ran = run(infer, *given)
    assert ran.code == 3
    assert "5 clips: 2 to analyse, 2 already analysed, 1 failed before" in ran.out
    assert [row for row in table(tmp_path / "r") if row["path"] != "new.mp4"] == first
    (videos / "long.mp4").unlink()
    assert "1 to analyse, 3 already analysed" in run(infer, *given, "--retry-failed").out
    assert [row["path"] for row in table(tmp_path / "r")] == ["bad.mp4", "new.mp4", "short1.mp4", "short2.mp4"]
    assert "already analysed" not in run(infer, *given, "--fresh").out


def test_another_threshold_looks_at_no_video_again(drawn: Path, videos: Path, tmp_path: Path, run: Run) -> None:
    labels = {}
    for threshold in (0, 1):
        ran = run(infer, videos, "--model", drawn / "model", "-o", tmp_path / "r", "--threshold", threshold, *TORCH)
        assert ran.code == 0
        labels[threshold] = {row["path"]: row["label"] for row in table(tmp_path / "r")}
    assert "3 clips: 0 to analyse, 3 already analysed" in ran.out
    assert set(labels[0].values()) == {"hazardous"}
    assert set(labels[1].values()) == {"normal"}


def test_another_model_or_other_windows_look_at_all_again(drawn: Path, videos: Path, tmp_path: Path, run: Run) -> None:
    run(infer, videos, "--model", drawn / "model", "-o", tmp_path / "r", *TORCH)
    for change in (("--window", 4), ("--window", 4, "--stride", 1)):
        ran = run(infer, videos, "--model", drawn / "model", "-o", tmp_path / "r", *change, *TORCH)
        assert "every clip is analysed again" in ran.out
    with open_result_store(tmp_path / "r") as results:
        windows = {clip.path: clip.windows for clip in results}
    assert windows["long.mp4"] is not None
    assert windows["long.mp4"].spans.tolist() == [[start, start + 4] for start in range(10)]
    assert windows["short1.mp4"] is not None
    assert len(windows["short1.mp4"]) == 1


def test_a_cache_is_reused_and_extended(drawn: Path, videos: Path, tmp_path: Path, run: Run) -> None:
    cache = tmp_path / "c.h5"
    shutil.copy(drawn / "c.h5", cache)
    given = (videos, "--model", drawn / "model", "--cache", cache, *TORCH)
    assert run(infer, *given, "-o", tmp_path / "r").code == 0
    paths = read_cache(cache).clips.path.tolist()
    assert {"long.mp4", "short1.mp4", "normal/walk_g01_c01.mp4"} < set(paths)
    assert sum(path.startswith("long.mp4#t=") for path in paths) > 5
    assert {label for label in read_cache(cache).clips.label.tolist() if label} == {"normal", "hazardous"}
    for file in videos.iterdir():  # same size and time, but no longer a video
        before = file.stat()
        file.write_bytes(bytes(before.st_size))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(infer, *given, "-o", tmp_path / "again").code == 0
    assert table(tmp_path / "again") == table(tmp_path / "r")
    assert "0 to analyse, 3 already analysed" in run(infer, *given, "-o", tmp_path / "again").out


def test_a_cache_that_is_not_there_is_made_with_the_model_s_reduction(
    drawn: Path, videos: Path, tmp_path: Path, run: Run
) -> None:
    ran = run(infer, videos, "--model", drawn / "model", "-o", tmp_path / "r", "--cache", tmp_path / "new.h5", *TORCH)
    assert ran.code == 0
    made, model = read_cache(tmp_path / "new.h5"), json.loads((drawn / "model" / "model.json").read_text())
    assert made.spec.fingerprint == model["fingerprint"]
    assert made.reduction_fitted_on == "model"
    assert (made.clips.label == "").all()


def test_a_cache_of_other_features_is_refused(drawn: Path, videos: Path, tmp_path: Path, run: Run) -> None:
    given = [drawn / "manifest.csv", "-o", tmp_path / "o.h5", "--weights", "random", "--frames", 4, *TORCH]
    extract_features.main([str(a) for a in given], standalone_mode=False)
    ran = run(infer, videos, "--model", drawn / "model", "-o", tmp_path / "r", "--cache", tmp_path / "o.h5", *TORCH)
    assert ran.code == 4
    assert "sampling.frames: 4, not 3" in ran.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--window", 2, "--stride", 3), "leaves gaps between windows of 2 s"),
        (("--window", -1), "window_seconds"),
        (("--set", "leave=0.9", "--threshold", 0.5), "leave"),
    ],
)
def test_windows_and_thresholds_that_make_no_sense(
    drawn: Path, videos: Path, tmp_path: Path, run: Run, change: tuple[object, ...], message: str
) -> None:
    ran = run(infer, videos, "--model", drawn / "model", "-o", tmp_path / "r", *change, *TORCH)
    assert ran.code == 2
    assert message in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


def test_an_empty_folder_says_what_was_looked_for(drawn: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    ran = run(infer, tmp_path / "empty", "--model", drawn / "model", "-o", tmp_path / "r")
    assert ran.code == 2
    assert "empty" in ran.err
    assert ".mp4" in ran.err


def test_results_that_are_damaged_are_made_anew(drawn: Path, videos: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / DATABASE_NAME).write_bytes(b"no database" * 1000)
    assert run(infer, videos, "--model", drawn / "model", "-o", tmp_path / "r", *TORCH).code == 0
    assert len(table(tmp_path / "r")) == 3


def test_two_runs_into_one_folder(drawn: Path, videos: Path, tmp_path: Path, run: Run) -> None:
    with open_result_store(tmp_path / "r"):
        ran = run(infer, videos, "--model", drawn / "model", "-o", tmp_path / "r", *TORCH)
    assert ran.code == 5
    assert "another run is writing to it" in ran.err


def test_everything_that_can_be_asked_for(drawn: Path, videos: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "truth.csv").write_text("path,start,end,label\nlong.mp4,2,9,hazardous\nshort1.mp4,,,\nshort2.mp4,,,\n")
    asked = ("--annotate", "--highlights", "--parquet", "--truth", tmp_path / "truth.csv", "--threshold", 0)
    ran = run(infer, videos, "--model", drawn / "model", "-o", tmp_path / "r", *asked, *TORCH)
    assert ran.code == 0
    assert "1 of 1 true event found, 2 false alarms" in ran.out
    assert "3 annotated videos" in ran.out
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    jsonschema.Draft202012Validator(report_schema()).validate(report)
    assert report["evaluation"]["events"]["recall"] == 1
    page = (tmp_path / "r" / "report.html").read_text()
    for name in ("long.mp4", "short1.mp4", "short2.mp4"):
        assert f'"v":"annotated/{name}"' in page
        assert (tmp_path / "r" / "annotated" / name).stat().st_size
    written = {
        "highlights.mp4",
        "events.parquet",
        "windows.parquet",
        "predictions.parquet",
        "events.csv",
        "windows.csv",
    }
    assert written < {file.name for file in (tmp_path / "r").iterdir()}
    assert len(table(tmp_path / "r", "windows.csv")) > 5


def test_a_report_is_reviewed_and_its_corrections_train(drawn: Path, videos: Path, tmp_path: Path, run: Run) -> None:
    cache = tmp_path / "c.h5"
    shutil.copy(drawn / "c.h5", cache)
    out = tmp_path / "r"
    assert run(infer, videos, "--model", drawn / "model", "-o", out, "--cache", cache, *TORCH).code == 0
    answered = CliRunner().invoke(infer, ["--review", "-o", str(out)], input="hazardous\nnormal\nq\n")
    assert answered.exit_code == 0, answered.output
    assert "2 marked in" in answered.output
    assert len(table(out, "corrections.csv")) == 2
    before = cache.read_bytes()
    ran = run(train_temporal, cache, "-o", tmp_path / "again", "--labels", out / "corrections.csv", *QUICK)
    assert ran.code == 0
    assert "labels from corrections.csv" in ran.out
    assert cache.read_bytes() == before
    assert run(infer, "--review", "-o", tmp_path / "absent").code == 2
    assert run(infer, "-o", tmp_path / "absent").code == 2


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on(drawn: Path, videos: Path, tmp_path: Path, run: Run, number: int) -> None:
    for copy in range(12):
        shutil.copy(videos / "long.mp4", videos / f"copy{copy:02}.mp4")
    given = (videos, "--model", drawn / "model", "-o", tmp_path / "r", *TORCH)
    running = subprocess.Popen([sys.executable, "infer.py", *map(str, given)], stderr=subprocess.PIPE)
    store = tmp_path / "r" / f"{DATABASE_NAME}-wal"
    while not (store.exists() and store.stat().st_size > 60_000) and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(number)
    _, message = running.communicate(timeout=60)
    assert running.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9}[number], message
    assert not (tmp_path / "r" / "report.html").exists()
    ran = run(infer, *given)
    assert ran.code == 0
    assert ran.out.startswith(format_count(15, "clip"))
    assert "0 already analysed" not in ran.out
    assert run(infer, *(str(tmp_path / "whole") if a == tmp_path / "r" else a for a in given)).code == 0
    assert table(tmp_path / "r") == table(tmp_path / "whole")
