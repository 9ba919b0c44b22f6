"""Data sets prepared as a user does it: the manifest, its groups, its split and its warnings."""

import csv
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from features.cli.manage import features
from features.curation.near_duplicates import make_fingerprints, merge_near_duplicates
from features.curation.splitting import assign_splits, parse_shares
from features.errors import SettingsError
from features.sources.discover import find_clips
from features.types import SPLITS
from tests.conftest import CommandResult, Run
from tests.helpers.data.videos import write_numbered, write_scene

Make = Callable[..., CommandResult]


@pytest.fixture
def make(run: Run) -> Make:
    """`make(SOURCE..., "-o", OUTPUT)` writes a manifest with one worker."""
    return lambda *arguments: run(features, "manifest", *arguments, "--workers", "1")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of clips from four cameras: `calm/0_a.mp4` is the first clip of camera 0."""
    root = tmp_path_factory.mktemp("scenes")
    for camera in range(4):
        for i, label in enumerate(("calm", "wild")):
            write_scene(root / label / f"{camera}_{'ab'[i]}.mp4", camera, start=30 * i, count=12 + 5 * camera)
    return root


@pytest.fixture
def clips(scenes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / "clips"))


def rows(manifest: Path) -> dict[str, dict[str, str]]:
    with open(manifest, newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def parts(manifest: Path, column: str) -> list[list[str]]:
    """Return the paths of the clips that share a value of a column."""
    found = defaultdict(list)
    for path, row in rows(manifest).items():
        found[row[column]].append(path)
    return sorted(found.values())


def test_a_folder_becomes_a_manifest_that_is_a_source(clips: Path, make: Make) -> None:
    ran = make(clips, "-o", clips / "manifest.csv")
    assert ran.code == 0
    assert "groups: near-duplicate frames" in ran.out
    written = rows(clips / "manifest.csv")
    assert list(written["calm/0_a.mp4"]) == ["path", "label", "group", "split", "duration"]
    assert float(written["calm/1_a.mp4"]["duration"]) == pytest.approx(17 / 25, abs=0.001)
    found = find_clips([clips / "manifest.csv"])
    assert [(c.path, c.label, c.file.is_file()) for c in found] == [
        (c.path, c.label, True) for c in find_clips([clips])
    ]
    assert all(clip.group == written[clip.path]["group"] and clip.split in SPLITS for clip in found)


def test_clips_of_one_camera_are_one_group_and_on_one_side(clips: Path, make: Make) -> None:
    make(clips, "-o", clips / "m.csv")
    assert parts(clips / "m.csv", "group") == [[f"calm/{i}_a.mp4", f"wild/{i}_b.mp4"] for i in range(4)]
    assert {split for row in rows(clips / "m.csv").values() if (split := row["split"])} == set(SPLITS)
    assert all(len({rows(clips / "m.csv")[p]["split"] for p in pair}) == 1 for pair in parts(clips / "m.csv", "group"))


def test_a_manifest_elsewhere_finds_the_clips(clips: Path, tmp_path: Path, make: Make) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    assert make(clips, "-o", tmp_path / "link" / "m.csv").code == 0
    assert all(clip.file.is_file() for clip in find_clips([tmp_path / "link" / "m.csv"]))


def test_an_edited_manifest_keeps_its_groups_and_split(clips: Path, make: Make) -> None:
    lines = ["path,label,group,split,note", "calm/0_a.mp4,x,mine,train,a", "calm/1_a.mp4,y,other,,b"]
    (clips / "old.csv").write_text("\n".join([*lines, "wild/0_b.mp4,y,,train,c"]))
    ran = make(clips / "old.csv", "-o", clips / "new.csv")
    assert "UCF101-style names); for 1 clip without one: near-duplicate frames" in ran.out
    assert "split: kept from the source" in ran.out
    assert "warning: 1 clip without a split, used neither for training nor for evaluation: calm/1_a.mp4" in ran.err
    assert [(r["label"], r["group"], r["split"]) for r in rows(clips / "new.csv").values()] == [
        ("x", "mine", "train"),
        ("y", "other", ""),
        ("y", "mine", "train"),
    ]


def test_an_existing_manifest_is_not_replaced_unasked(clips: Path, make: Make) -> None:
    (clips / "m.csv").write_text("edited by hand")
    ran = make(clips, "-o", clips / "m.csv")
    assert ran.code == 2
    assert "exists" in ran.err
    assert "--force" in ran.err
    assert (clips / "m.csv").read_text() == "edited by hand"
    assert make(clips, "-o", clips / "m.csv", "--force").code == 0
    assert (clips / "m.csv.bak").read_text() == "edited by hand"


def test_what_cannot_be_read_is_named_and_left_out(clips: Path, make: Make) -> None:
    (clips / "calm" / "empty.mp4").touch()
    (clips / "calm" / "text.mp4").write_text("no video")
    Path(os.fsdecode(os.fsencode(clips) + b"/calm/\xff.mp4")).symlink_to(clips / "calm" / "0_a.mp4")
    ran = make(clips, "-o", clips / "m.csv")
    assert ran.code == 3
    assert "left out: calm/empty.mp4: empty file" in ran.err
    assert "left out: calm/text.mp4: not a video" in ran.err
    assert "left out: calm/\\xff.mp4: a manifest cannot store its name (not UTF-8" in ran.err
    assert "8 clips, 4 groups; 3 clips left out" in ran.out
    assert len(rows(clips / "m.csv")) == 8


def test_nothing_readable_writes_nothing(tmp_path: Path, make: Make) -> None:
    (tmp_path / "a.mp4").touch()
    ran = make(tmp_path, "-o", tmp_path / "m.csv")
    assert (ran.code, (tmp_path / "m.csv").exists()) == (3, False)
    assert "no clip can be read" in ran.out


def test_ucf_names_make_groups_within_a_class(clips: Path, tmp_path: Path, make: Make) -> None:
    names = ["Run/v_Run_g01_c01", "Run/v_Run_g01_c02", "Run/v_Run_g02_c01", "Fly/v_Fly_g01_c01"]
    sources = sorted(clips.rglob("*.mp4"))
    for name, source in zip(names, sources, strict=False):
        (tmp_path / "ucf" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / "ucf" / f"{name}.mp4")
    ran = make(tmp_path / "ucf", "-o", tmp_path / "m.csv")
    assert "groups: those of the source" in ran.out
    assert [row["group"] for row in rows(tmp_path / "m.csv").values()] == ["Fly_g01", "Run_g01", "Run_g01", "Run_g02"]


def test_a_pattern_of_ones_own(clips: Path, make: Make) -> None:
    assert make(clips, "-o", clips / "m.csv", "--group-pattern", r"(\d)_[ab]").code == 0
    assert {(path[5], row["group"]) for path, row in rows(clips / "m.csv").items()} == {(c, c) for c in "0123"}
    ran = make(clips, "-o", clips / "n.csv", "--group-from", "pattern", "--group-pattern", "calm/0")
    assert ran.code == 2
    assert "matches 1 of 8 clips, not 'calm/1_a.mp4'" in ran.err
    assert make(clips, "-o", clips / "n.csv", "--group-from", "pattern", "--group-pattern", "(").code == 2


def test_folders_between_class_and_clip(clips: Path, make: Make) -> None:
    ran = make(clips, "-o", clips / "n.csv", "--group-from", "folder")
    assert ran.code == 2
    assert "no folder between class and clip" in ran.err
    for file in list(clips.rglob("*.mp4")):
        camera = file.parent / f"cam{file.name[0]}"
        camera.mkdir(exist_ok=True)
        file.rename(camera / file.name)
    assert make(clips, "-o", clips / "m.csv", "--group-from", "folder").code == 0
    assert {row["group"] for row in rows(clips / "m.csv").values()} == {"cam0", "cam1", "cam2", "cam3"}


def split_folders(clips: Path, root: Path) -> Path:
    """Copy cameras 0 and 1 to train and 2 and 3 to test, with one clip of camera 0 in test too."""
    for file in clips.rglob("*.mp4"):
        side = "test" if file.name[0] in "23" or file.name == "0_b.mp4" else "train"
        target = root / side / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return root


def test_a_split_of_folders_is_kept_and_its_leak_named(clips: Path, tmp_path: Path, make: Make) -> None:
    root = split_folders(clips, tmp_path / "split")
    ran = make(root, "-o", root / "m.csv")
    assert ran.code == 0
    assert "split: kept from the source" in ran.out
    assert "warning: 1 group in more than one split" in ran.err
    assert "train/calm/0_a.mp4 in train, test/wild/0_b.mp4 in test" in ran.err
    assert {row["split"] for path, row in rows(root / "m.csv").items() if path.startswith("test/")} == {"test"}
    ran = make(root, "-o", root / "n.csv", "--split", "50/50")
    assert "instead of that of the source" in ran.out
    assert "more than one split" not in ran.err


def test_scenes_that_leak_besides_their_groups(clips: Path, tmp_path: Path, make: Make) -> None:
    root = split_folders(clips, tmp_path / "split")
    own = ("--group-from", "pattern", "--group-pattern", r"\d_[ab]")  # each clip a group
    ran = make(root, "-o", root / "m.csv", *own)
    assert "warning: 1 scene in more than one split, in different groups" in ran.err
    make(root, "-o", root / "n.csv", *own, "--join-alike", "--split", "60/40")
    assert sorted(len(part) for part in parts(root / "n.csv", "group")) == [2, 2, 2, 2]
    assert all(len({rows(root / "n.csv")[p]["split"] for p in part}) == 1 for part in parts(root / "n.csv", "group"))


def test_repeats_small_classes_and_one_big_group_are_named(clips: Path, make: Make) -> None:
    for i in range(11):
        (clips / "big").mkdir(exist_ok=True)
        shutil.copy(clips / "calm" / "0_a.mp4", clips / "big" / f"{i}.mp4")
    ran = make(clips, "-o", clips / "m.csv")
    assert ran.code == 0
    assert "warning: class 'calm' has 4 clips, fewer than 10" in ran.err
    assert "warning: class 'big' has 1 group for 3 splits" in ran.err
    assert "holds 11 of the 11 clips of class 'big'" in ran.err
    assert "11 clips identical to another, byte for byte: big/0.mp4 = big/1.mp4 = big/10.mp4" in ran.err
    assert "with different labels: big/0.mp4 (big)" in ran.err


def test_the_table_counts_clips_groups_and_minutes(clips: Path, tmp_path: Path, make: Make) -> None:
    write_scene(clips / "wild" / "5.mp4", 9, count=60, rate=1)
    ran = make(clips, "-o", tmp_path / "m.csv", "--split", "none")
    assert "split: none" in ran.out
    table = [line.split() for line in ran.out.splitlines() if line.startswith(("calm", "wild", "all"))]
    assert table == [["calm", "4", "4", "0.1"], ["wild", "5", "5", "1.1"], ["all", "9", "5", "1.1"]]


def test_folders_of_images_last_by_their_rate(clips: Path, tmp_path: Path, make: Make) -> None:
    for i in range(12):
        (tmp_path / "frames").mkdir(exist_ok=True)
        picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "frames" / f"frame_{i:04d}.jpg"), picture)
    (tmp_path / "old.csv").write_text("path,label\nframes,x\n")
    assert make(tmp_path / "old.csv", "-o", tmp_path / "m.csv", "--folder-fps", "4").code == 0
    assert rows(tmp_path / "m.csv")["frames"]["duration"] == "3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "70/20"), "must sum to 100, but they sum to 90"),
        (("--split", "many"), "shares such as 70/15/15"),
        (("--split", "0/50/50"), "train must be more than 0"),
        (("--split", "80/20", "--keep-split"), "--split and --keep-split cannot be used together"),
        (("--keep-split",), "the source has no split"),
        (("--group-from", "column"), "no clip has a group"),
        (("--group-from", "frames", "--group-pattern", "a"), "cannot be used with --group-from frames"),
    ],
)
def test_wishes_that_cannot_be(clips: Path, make: Make, options: tuple[str, ...], message: str) -> None:
    for file in sorted(clips.rglob("*.mp4"))[1:]:
        file.unlink()
    ran = make(clips, "-o", clips / "m.csv", *options)
    assert (ran.code, (clips / "m.csv").exists()) == (2, False)
    assert message in ran.err


def test_a_video_from_two_sources_is_refused(clips: Path, tmp_path: Path, make: Make) -> None:
    ran = make(clips, clips / "calm" / "0_a.mp4", "-o", tmp_path / "m.csv")
    assert ran.code == 2
    assert "comes from two of the sources" in ran.err


def test_real_clips_of_one_scene_are_found(real_clips: Path, tmp_path: Path, make: Make) -> None:
    folder = real_clips.parent / "noFight"
    for name in ("nofi070", "nofi071", "nofi076", "nofi144", "nofi022"):  # one corridor three times, two other places
        (tmp_path / f"{name}.mp4").symlink_to(folder / f"{name}.mp4")
    assert make(tmp_path, "-o", tmp_path / "m.csv").code == 0
    assert parts(tmp_path / "m.csv", "group") == [
        ["nofi022.mp4"],
        ["nofi070.mp4", "nofi071.mp4", "nofi076.mp4"],
        ["nofi144.mp4"],
    ]


def test_shares_are_reached_where_groups_allow() -> None:
    labels = [f"class{i % 3}" for i in range(600)]
    groups = [f"{i % 3}_{i // 15}" for i in range(600)]  # 120 groups of five
    splits = assign_splits(labels, groups, parse_shares("70/15/15"), seed=1)
    for label in set(labels):
        met = [s for s, own in zip(splits, labels, strict=True) if own == label]
        assert [met.count(side) for side in SPLITS] == [140, 30, 30]
    assert len({(g, s) for g, s in zip(groups, splits, strict=True)}) == 120
    assert splits == assign_splits(labels, groups, parse_shares("70/15/15"), seed=1)
    assert splits != assign_splits(labels, groups, parse_shares("70/15/15"), seed=2)


def test_rare_classes_are_trained_on_first_and_then_tested() -> None:
    splits = assign_splits(["rare", "rare", *["usual"] * 40], [f"g{i}" for i in range(42)], parse_shares("70/15/15"))
    assert sorted(splits[:2]) == ["test", "train"]
    assert assign_splits(["a"], ["g"], parse_shares("80/20")) == ["train"]


@pytest.mark.parametrize("text", ["", "70", "a/b", "70/-5/35", "nan/50/50", "70/15/15/0"])
def test_shares_that_make_no_sense(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_shares(text)


def test_frames_that_show_nothing_join_nothing() -> None:
    dark = np.full((2, 64, 64, 3), 3, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8).repeat(8, 1).repeat(8, 2).repeat(3, 3)
    prints = [
        make_fingerprints(dark),
        make_fingerprints(dark),
        make_fingerprints(noise),
        make_fingerprints(noise // 2 + 60),
    ]
    assert merge_near_duplicates(prints, list("abcd")).tolist() == [0, 1, 2, 2]


def test_one_file_is_one_scene(tmp_path: Path) -> None:
    assert write_numbered(tmp_path / "a.mp4", 3).is_file()
    prints = [np.zeros((3, 256), np.float32)] * 3
    assert merge_near_duplicates(prints, ["same", "other", "same"]).tolist() == [0, 1, 0]
