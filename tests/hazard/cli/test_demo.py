import csv
import json
from pathlib import Path

import pytest

from features.cache.hdf5 import read_cache
from hazard.cli.demo import read_result
from hazard.cli.demo_clips import divide_own_clips, write_clips
from hazard.cli.main import hazard
from hazard.synthetic.clips import draw_clip
from tests.conftest import Run


def draw_folder(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        action = "fight" if "fight" in name else "walk"
        draw_clip(folder / name, action, seed=number, size=(64, 48), frame_rate=8, seconds=1)
    return folder


def test_demo_reports_on_scenes_that_training_did_not_use(tmp_path: Path, run: Run) -> None:
    demo = tmp_path / "demo"
    demo.mkdir()
    (demo / "features.h5").write_text("a cache of an earlier demo, which may hold clips of the report")
    ran = run(hazard, "demo", "-o", demo, "--clips-per-class", 8)
    assert ran.code == 0
    *_, found, report, page = ran.out.strip().splitlines()
    assert f"serve --model {demo / 'model'}" in page and "http://127.0.0.1:8000" in page
    assert report == f"report: {(demo / 'report' / 'report.html').resolve()}"
    assert (demo / "report" / "report.html").is_file()
    assert "of 4 drawn clips right" in found and "clips of 1 scene that were not used in training" in found
    assert found.endswith("RANDOM weights")
    shown = {clip["path"] for clip in json.loads((demo / "report" / "report.json").read_text())["clips"]}
    trained = read_cache(demo / "features.h5").clips
    assert len(shown) == 4 and len(trained.path) == 12
    groups = {row["path"]: row["group"] for row in csv.DictReader((demo / "held_out.csv").open())}
    assert groups.keys() == shown and not set(groups.values()) & set(trained.group.tolist())


def test_a_small_folder_with_a_damaged_clip_ends_with_exit_code_3(tmp_path: Path, run: Run) -> None:
    names = [f"{label}/{number}.mp4" for label in ("fight", "normal") for number in range(4)]
    videos = draw_folder(tmp_path / "videos", *names)
    (videos / "normal" / "bad.mp4").write_bytes(b"not a video")
    ran = run(hazard, "demo", "--videos", videos, "-o", tmp_path / "demo")
    assert ran.code == 3
    found = ran.out.strip().splitlines()[-3]
    assert found.startswith("found: ") and "clips that were not used in training" in found


def test_own_split_is_kept(tmp_path: Path) -> None:
    sides = {"train": 3, "val": 1, "test": 2}
    names = [f"{s}/{c}/{n}.mp4" for s, count in sides.items() for c in ("a", "b", "c") for n in range(count)]
    clips = divide_own_clips(draw_folder(tmp_path, *names), 0)
    assert {clip.path.split("/")[-1] for clip in clips.report} <= {"0.mp4", "1.mp4"} and len(clips.report) == 6
    assert {clip.split for clip in clips.report} == {"test"} and {c.split for c in clips.training} == {"train", "val"}


def test_parts_of_a_video_stay_on_one_side_and_keep_their_times(tmp_path: Path) -> None:
    rows = [(f"{name}.mp4", label, start, start + 1) for name in "abcdef" for start, label in enumerate(("x", "y"))]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "start", "end"), *rows])
    clips = divide_own_clips(tmp_path / "list.csv", 0)
    assert not {clip.file for clip in clips.report} & {clip.file for clip in clips.training}
    names = write_clips(clips.report, tmp_path / "demo" / "held_out.csv")
    assert len(names) == len(clips.report) and all(name.startswith("../") and "#t=" in name for name in names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["fight/1.mp4", "fight/2.mp4"], "has only the class 'fight', but the demo needs clips of two or more classes"),
        (["1.mp4", "2.mp4"], "has no clip with a label"),
        (["a/1.mp4", "b/1.mp4"], "has too few clips: 2 in 2 clips"),
    ],
)
def test_a_folder_that_cannot_be_divided_is_refused(tmp_path: Path, run: Run, names: list[str], message: str) -> None:
    ran = run(hazard, "demo", "--videos", draw_folder(tmp_path / "videos", *names), "-o", tmp_path / "demo")
    assert ran.code == 2 and message in ran.err and "Traceback" not in ran.err


@pytest.mark.parametrize("groups", [5, 40])
def test_interval_has_a_width_if_every_clip_is_right_and_needs_six_groups(tmp_path: Path, groups: int) -> None:
    names = [f"{label}/v_x_g{group:02}_c01.mp4" for label in ("a", "b") for group in range(groups)]
    clips = divide_own_clips(draw_folder(tmp_path / "videos", *names), 0)
    named = write_clips(clips.report, tmp_path / "held_out.csv")
    with (tmp_path / "predictions.csv").open("w", newline="") as file:
        rows = [(name, "ok", clip.label) for name, clip in named.items()]
        csv.writer(file).writerows([("path", "status", "label"), *rows])
    (tmp_path / "report.json").write_text('{"evaluation": {"events": {"false_alarms": 1}}}')
    result = read_result(tmp_path, named)
    assert result.right == result.clips == len(named)
    if groups == 5:
        assert result.interval["reason"].startswith("only ")
    else:
        assert 0.5 < result.interval["low"] < 0.9 and result.interval["high"] == 1
    assert result.false_alarms == 1
