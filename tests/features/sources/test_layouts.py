"""Folders, split lists and label maps, as a user gives them."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from features.cli.extract import extract_features
from features.sources.discover import find_clips
from features.types import Clip
from tests.conftest import Run
from tests.helpers.data.folders import tree
from tests.helpers.data.image_folders import write_hmdb51, write_ucf101


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ucf101(tmp_path_factory.mktemp("ucf101"))


@pytest.fixture(scope="module")
def hmdb51(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hmdb51(tmp_path_factory.mktemp("hmdb51"))


def summarize(clips: list[Clip]) -> list[tuple[str, str, str]]:
    return [(clip.path, clip.label, clip.split) for clip in clips]


def test_class_folders_of_image_folders(tmp_path: Path) -> None:
    tree(tmp_path, "fall/a/1.jpg", "fall/a/2.jpg", "walk/b/1.PNG", "walk/b/.hidden.jpg", "walk/c.mp4", "walk/notes.txt")
    clips = find_clips([tmp_path])
    assert summarize(clips) == [("fall/a", "fall", ""), ("walk/b", "walk", ""), ("walk/c.mp4", "walk", "")]
    assert clips[0].file == tmp_path / "fall" / "a"


def test_split_folders_of_image_folders(tmp_path: Path) -> None:
    tree(tmp_path, "train/fall/a/1.jpg", "val/fall/b/1.jpg", "test/walk/a/1.jpg")
    assert summarize(find_clips([tmp_path])) == [
        ("test/walk/a", "walk", "test"),
        ("train/fall/a", "fall", "train"),
        ("val/fall/b", "fall", "val"),
    ]


def test_flat_folder_of_image_folders_and_a_single_one(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.jpg", "b/1.jpeg")
    assert summarize(find_clips([tmp_path])) == [("a", "", ""), ("b", "", "")]
    assert summarize(find_clips([tmp_path / "a"])) == [("a", "", "")]


def test_images_beside_videos_or_folders_are_no_clip(tmp_path: Path) -> None:
    tree(tmp_path, "cover.jpg", "walk/a.mp4", "walk/a.jpg", "fall/sheet.png", "fall/b/1.jpg")
    assert [clip.path for clip in find_clips([tmp_path])] == ["fall/b", "walk/a.mp4"]


def test_loops_among_image_folders_are_walked_once(tmp_path: Path) -> None:
    tree(tmp_path, "walk/a/1.jpg")
    (tmp_path / "walk" / "loop").symlink_to(tmp_path)
    (tmp_path / "walk" / "same").symlink_to(tmp_path / "walk" / "a")
    assert len(find_clips([tmp_path])) == 1


def test_a_folder_of_many_images_is_streamed(tmp_path: Path) -> None:
    tree(tmp_path, "walk/a/0.jpg")
    for i in range(1, 20_000):
        os.link(tmp_path / "walk/a/0.jpg", tmp_path / f"walk/a/{i}.jpg")
    tracemalloc.start()
    try:
        clips = find_clips([tmp_path])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(clips), peak < 500_000) == (1, True)


def test_groups_of_ucf101_come_from_the_names(tmp_path: Path) -> None:
    tree(tmp_path, "Jump/v_Jump_g01_c02.avi", "Jump/v_Jump_g12_c01/1.jpg", "Jump/other_g1.avi")
    assert [clip.group for clip in find_clips([tmp_path])] == ["", "Jump_g01", "Jump_g12"]


def test_a_folder_that_cannot_be_read_is_one_line(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, numbered: Path
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refuse)
    ran = run(extract_features, numbered, "-o", tmp_path / "c.h5")
    assert (ran.code, ran.err.count("\n")) == (5, 1)
    assert f"folder {numbered} cannot be read: permission denied" in ran.err


Dry = Callable[..., tuple[list[list[str]], str]]


@pytest.fixture
def dry(extract: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Dry:
    """`dry(ARGUMENTS...)` returns the table of labels that a dry run prints, and its whole output."""

    def dry_run(*arguments: object) -> tuple[list[list[str]], str]:
        with caplog.at_level("INFO"):
            ran = extract(*arguments, "-o", tmp_path / "c.h5", "--dry-run")
        assert (ran.code, (tmp_path / "c.h5").exists()) == (0, False)
        lines = ran.out.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("  label"))
        return [line.split() for line in lines[start : lines.index("", start)]], ran.out + caplog.text

    return dry_run


def test_ucf101_with_its_lists(ucf101: Path, dry: Dry) -> None:
    table, message = dry(ucf101 / "videos", "--split-file", ucf101 / "lists", "--split-number", "2")
    assert table == [
        ["label", "train", "test", "all"],
        ["Basketball", "1", "1", "2"],
        ["HandstandPushups", "1", "1", "2"],
        ["all", "2", "2", "4"],
    ]
    assert "split lists: 2 train, 2 test\n" in message
    assert "groups     4" in message


def test_ucf101_single_lists_and_clips_in_none_of_them(ucf101: Path) -> None:
    clips = find_clips([ucf101 / "videos"], split_files=[ucf101 / "lists" / "trainlist01.txt"])
    assert [clip.split for clip in clips] == ["", "train", "", "train"]
    assert [clip.group for clip in clips][:2] == ["Basketball_g01", "Basketball_g02"]


def test_lists_label_a_flat_folder(ucf101: Path, tmp_path: Path) -> None:
    for video in (ucf101 / "videos").rglob("*.avi"):
        (tmp_path / video.name).touch()
    clips = find_clips([tmp_path], split_files=[ucf101 / "lists"], split_number=1)
    assert [(clip.label, clip.split) for clip in clips] == [
        ("Basketball", "test"),
        ("Basketball", "train"),
        ("HandstandPushups", "test"),
        ("HandstandPushups", "train"),
    ]


def test_ucf101_as_image_folders(ucf101: Path, tmp_path: Path) -> None:
    for video in (ucf101 / "videos").rglob("*.avi"):
        tree(tmp_path, f"{video.parent.name}/{video.stem}/00001.jpg")
    clips = find_clips([tmp_path], split_files=[ucf101 / "lists"], split_number=1)
    assert summarize(clips)[:2] == [
        ("Basketball/v_Basketball_g01_c01", "Basketball", "test"),
        ("Basketball/v_Basketball_g02_c01", "Basketball", "train"),
    ]
    assert [clip.group for clip in clips[2:]] == ["HandStandPushups_g01", "HandStandPushups_g02"]


def test_hmdb51_as_image_folders_with_its_lists(hmdb51: Path, dry: Dry) -> None:
    table, message = dry(hmdb51 / "frames", "--split-file", hmdb51 / "lists")
    assert table[0] == ["label", "train", "test", "no", "split", "all"]
    assert table[1:3] == [["dribble", "1", "1", "1", "3"], ["throw", "1", "1", "1", "3"]]
    assert "split lists: 2 train, 2 test; 2 listed as unused" in message
    assert "6 image folders" in message


def test_lists_from_the_settings_file(hmdb51: Path, tmp_path: Path, dry: Dry) -> None:
    (tmp_path / "c.yaml").write_text(f"extract:\n  split_files: ['{hmdb51 / 'lists'}']\n")
    _, message = dry(hmdb51 / "frames", "--config", tmp_path / "c.yaml")
    assert "split lists: 2 train, 2 test" in message


WRONG_LISTS = [
    (
        "trainlist01.txt",
        "Jump/v_Jump_g01_c01.avi 1\n",
        "1 clip that SOURCE does not have (no clip at all of the class Jump",
    ),
    ("trainlist01.txt", "Basketball/v_Basketball_g01_c01.avi 2\n", "line 1: class 'Basketball' has the number 2"),
    (
        "trainlist01.txt",
        "Basketball/v_Basketball_g01_c01.avi 7\n",
        "line 1: no class has the number 7; classInd.txt has 1 to 2",
    ),
    ("testlist01.txt", "Base/x.avi\n", "line 1: class 'Base' is not in classInd.txt"),
    ("Basketball_test_split1.txt", "v_Basketball_g01_c01.avi\n", "expected a clip and 1 (train), 2 (test) or 0"),
    ("list.txt", "a.avi 1\n", "does not say which split it lists; expected trainlist01.txt"),
    ("trainlist01.txt", "\n", "no clip is listed"),
]


@pytest.mark.parametrize(("name", "text", "message"), WRONG_LISTS, ids=[message[:30] for _, _, message in WRONG_LISTS])
def test_a_wrong_list_is_one_line(ucf101: Path, tmp_path: Path, run: Run, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    given: list[object] = ["--split-file", tmp_path / name]
    if "Jump" not in text:
        (tmp_path / "classInd.txt").write_text("1 Basketball\n2 HandstandPushups\n")
    else:
        given += ["--split-file", ucf101 / "lists" / "testlist01.txt"]
    ran = run(extract_features, ucf101 / "videos", *given, "-o", tmp_path / "c.h5")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert message in ran.err


def test_lists_that_do_not_fit_say_what_to_do(ucf101: Path, hmdb51: Path, tmp_path: Path, run: Run) -> None:
    videos, lists, cache = ucf101 / "videos", ucf101 / "lists", tmp_path / "c.h5"
    for arguments, message in (
        ([videos, "--split-file", lists], "holds the splits 1, 2; choose one with --split-number N"),
        ([videos, "--split-file", lists, "--split-number", "3"], "no list of split 3"),
        ([videos, "--split-file", videos], "no split list in"),
        ([videos, "--split-file", tmp_path / "absent.txt"], "does not exist"),
        ([videos, "--split-file", hmdb51 / "lists"], "SOURCE has none of the 6 clips of the split lists"),
        (
            [videos, "--split-file", lists / "trainlist01.txt", "--split-file", lists / "testlist02.txt"],
            "is train in trainlist01.txt, line 1 and test in testlist02.txt, line 1; give the lists of one split",
        ),
    ):
        ran = run(extract_features, *arguments, "-o", cache)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert message in ran.err


def test_a_part_of_a_data_set_is_taken_when_asked_for(ucf101: Path, tmp_path: Path, run: Run) -> None:
    part, lists = ucf101 / "videos" / "Basketball", ucf101 / "lists"
    ran = run(extract_features, part, "--split-file", lists / "trainlist01.txt", "-o", tmp_path / "c.h5")
    assert "the class HandstandPushups" in ran.err
    assert "split_absent=ignore" in ran.err
    clips = find_clips([part], split_files=[lists], split_number=1, split_absent="ignore")
    assert summarize(clips) == [
        ("v_Basketball_g01_c01.avi", "Basketball", "test"),
        ("v_Basketball_g02_c01.avi", "Basketball", "train"),
    ]


def test_classes_of_two_data_sets_are_mixed(ucf101: Path, hmdb51: Path, tmp_path: Path, dry: Dry) -> None:
    (tmp_path / "map.yaml").write_text("dribble: ball\nBasketball: ball\nHandstandPushups: HandstandPushups\n*: -\n")
    sources = [ucf101 / "videos", hmdb51 / "frames"]
    lists = ["--split-file", ucf101 / "lists", "--split-file", hmdb51 / "lists", "--split-number", "1"]
    table, message = dry(*sources, *lists, "--label-map", tmp_path / "map.yaml")
    assert table[0] == ["label", "train", "test", "no", "split", "all"]
    assert table[1:] == [["HandstandPushups", "1", "1", "0", "2"], ["ball", "2", "2", "1", "5"], ["all", *"3317"]]
    assert "label map map.yaml: 4 classes of SOURCE become 2, 1 dropped with 3 clips" in message
    assert "4 video files, 3 image folders" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ball: [dribble, throw]\n", "line 1: 'ball' has more than one new name; expected one line per class"),
        ("- dribble\n", "holds no `old: new` lines"),
        ("", "is empty"),
        ("a: [\n", "is not YAML"),
        ("dribble: a\ndribble: b\n", "line 2: 'dribble' appears twice"),
        ("drible: ball\n", "names 1 class that SOURCE does not have: 'drible'; did you mean 'dribble'?"),
        ("a: b\nc: d\n", "names 2 classes that SOURCE does not have: 'a', 'c'"),
        ("dribble: dribble\n", "changes nothing"),
        ("'*': null\n", "drops all 6 clips"),
    ],
)
def test_a_wrong_label_map_is_one_line(hmdb51: Path, tmp_path: Path, run: Run, text: str, message: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    ran = run(extract_features, hmdb51 / "frames", "--label-map", tmp_path / "map.yaml", "-o", tmp_path / "c.h5")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert message in ran.err


def test_a_map_without_labels_and_an_absent_map(hmdb51: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "map.yaml").write_text("dribble: ball\n")
    for source, file, message in (
        (hmdb51 / "frames" / "throw", "map.yaml", "SOURCE has no labels"),
        (hmdb51 / "frames", "absent.yaml", "cannot be read: No such file"),
    ):
        ran = run(extract_features, source, "--label-map", tmp_path / file, "-o", tmp_path / "c.h5")
        assert (ran.code, message in ran.err) == (2, True)
