import os
from pathlib import Path

import pytest

from features.errors import SettingsError
from features.sources.discover import find_clips
from features.types import Clip
from tests.helpers.data.folders import tree


def found(*sources: Path) -> list[tuple[str, str, str]]:
    return [(clip.path, clip.label, clip.split) for clip in find_clips(sources)]


def test_class_folders(tmp_path: Path) -> None:
    tree(tmp_path, "walk/b.mp4", "walk/a.AVI", "fall/deep/c.mkv", "fall/notes.txt", ".hidden/d.mp4", "walk/.e.mp4")
    assert found(tmp_path) == [("fall/deep/c.mkv", "fall", ""), ("walk/a.AVI", "walk", ""), ("walk/b.mp4", "walk", "")]


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    assert found(tree(tmp_path, "b.mp4", "a.mov")) == [("a.mov", "", ""), ("b.mp4", "", "")]


def test_split_folders(tmp_path: Path) -> None:
    tree(tmp_path, "train/walk/a.mp4", "valid/walk/b.mp4", "Test/fall/c.mp4")
    assert found(tmp_path) == [
        ("Test/fall/c.mp4", "fall", "test"),
        ("train/walk/a.mp4", "walk", "train"),
        ("valid/walk/b.mp4", "walk", "val"),
    ]


def test_split_folders_beside_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"mixes split folders \(train\) with others \(walk\)"):
        find_clips([tree(tmp_path, "train/walk/a.mp4", "walk/b.mp4")])


def test_single_file_and_several_sources(tmp_path: Path) -> None:
    tree(tmp_path, "one/walk/a.mp4", "two/walk/a.mp4", "x.mp4")
    paths = [clip.path for clip in find_clips([tmp_path / "one", tmp_path / "two", tmp_path / "x.mp4"])]
    assert paths == ["two/walk/a.mp4", "walk/a.mp4", "x.mp4"]


def test_symlink_loop_is_walked_once(tmp_path: Path) -> None:
    tree(tmp_path, "walk/a.mp4")
    (tmp_path / "walk" / "loop").symlink_to(tmp_path)
    assert found(tmp_path) == [("walk/a.mp4", "walk", "")]


def test_odd_names_become_text(tmp_path: Path) -> None:
    names = [b"new\nline.mp4", "größe: ü.mp4".encode(), b"\xff\xfe.mp4"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    paths = [clip.path for clip in find_clips([tmp_path])]
    assert paths == sorted(["new\nline.mp4", "größe: ü.mp4", "\\xff\\xfe.mp4"])
    assert all(path.encode() for path in paths)


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no video found in .*looked for .*\.mp4"):
        find_clips([tmp_path])
    with pytest.raises(SettingsError, match="does not exist"):
        find_clips([tmp_path / "absent"])


def manifest(folder: Path, text: str) -> Path:
    file = folder / "m.csv"
    file.write_text(text)
    return file


def test_manifest(tmp_path: Path) -> None:
    file = manifest(tmp_path, "path,label,group,split,seconds\nb.mp4,fall,g1,train,3\na/c.mp4,walk,g2,validation,4\n")
    assert find_clips([file]) == [
        Clip("a/c.mp4", tmp_path / "a/c.mp4", "walk", "g2", "val"),
        Clip("b.mp4", tmp_path / "b.mp4", "fall", "g1", "train"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.mp4,x\n", r"row 1: no column 'path', found: file, label"),
        ("path,lable\na.mp4,x\n", r"row 1: unknown column 'lable'; did you mean 'label'"),
        ("path,label\na.mp4,x\n,y\n", r"row 3, column 'path': empty"),
        (
            "path,split\na.mp4,training set\n",
            r"row 2, column 'split': unknown split 'training set'; expected train, val, test",
        ),
        ("path,label\na.mp4,x\na.mp4,y\n", r"row 3, column 'path': 'a.mp4' is already in row 2"),
        ("path,label\na.mp4\n", r"row 2: expected 2 columns"),
        ("path,label\na.mp4,x,y\n", r"row 2: expected 2 columns"),
        ('path,label\n"a.mp4,x\n', r"cannot be read"),
        ("", r"no column 'path'"),
        ("path,label\n", r"no video found"),
    ],
)
def test_wrong_manifest_names_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        find_clips([manifest(tmp_path, text)])


def test_binary_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(SettingsError, match="cannot be read"):
        find_clips([tmp_path / "m.csv"])
