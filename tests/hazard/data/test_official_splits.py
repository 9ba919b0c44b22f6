import json
from dataclasses import replace

import numpy as np
import pytest

import features.cache.hdf5
from features.errors import SettingsError
from hazard.cli.train import train_temporal
from hazard.data.official_splits import choose_splits, make_official_splits
from hazard.types import Sequences
from tests.helpers.data.sequences import make_cache, make_moving_sequences

LABELS = ("Archery", "Bowling")


def ucf101(groups=6, clips=4) -> Sequences:
    """Make clips with UCF101's names and the groups in these names."""
    data = make_moving_sequences(clips=groups * clips * len(LABELS), labels=LABELS)
    numbers = np.arange(len(data)) // len(LABELS)
    names = [f"{LABELS[k]}_g{n // clips + 1:02d}" for n, k in zip(numbers, data.y, strict=True)]
    paths = [f"{LABELS[k]}/v_{g}_c{n % clips + 1:02d}.avi" for g, n, k in zip(names, numbers, data.y, strict=True)]
    return replace(data, groups=np.array(names), paths=np.array(paths))


DATA = ucf101()


def write_lists(
    folder, *, is_test=lambda split, path: f"_g{2 * split - 1:02d}_" in path or f"_g{2 * split:02d}_" in path
):
    folder.mkdir(exist_ok=True)
    (folder / "classInd.txt").write_text("1 Archery\n2 Bowling\n")
    for split in (1, 2, 3):
        train = [f"{path} {LABELS.index(path.split('/')[0]) + 1}" for path in DATA.paths if not is_test(split, path)]
        (folder / f"trainlist{split:02d}.txt").write_text("\n".join(train))
        (folder / f"testlist{split:02d}.txt").write_text("\n".join(p for p in DATA.paths if is_test(split, p)))
    return folder


@pytest.fixture
def lists(tmp_path):
    return write_lists(tmp_path / "lists")


@pytest.fixture
def train(monkeypatch, run, tmp_path):
    def train_it(*arguments, data=DATA):
        monkeypatch.setattr(features.cache.hdf5, "read_cache", lambda path: make_cache(data))
        return run(train_temporal, "a.h5", "-o", tmp_path / "run", "--baseline", "knn", "--device", "cpu", *arguments)

    return train_it


def test_each_split_is_a_fold_as_its_list_says(lists):
    division = make_official_splits(DATA, lists)
    assert division.repeats == len(division.folds) == 3 and division.description == "official splits 1, 2, 3 of lists"
    for number, fold in enumerate(division.folds, start=1):
        assert {group[-2:] for group in DATA.groups[fold.test]} == {f"{2 * number - 1:02d}", f"{2 * number:02d}"}
        assert len(fold.train) + len(fold.val) + len(fold.test) == len(DATA)
        assert not set(DATA.groups[fold.val]) & set(DATA.groups[fold.train])


def test_the_command_gives_each_split_and_their_mean_and_deviation(train, lists, tmp_path):
    ran = train("--split-files", lists)
    tree = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert ran.code == 0 and "official splits 1, 2, 3 of lists" in ran.out
    each = [fold["accuracy"] for fold in tree["folds"]]
    assert len(each) == 3 and tree["split"]["repeats"] == 3
    assert tree["accuracy"]["value"] == pytest.approx(np.mean(each)) == tree["mean"]["accuracy"]
    assert tree["std"]["accuracy"] == pytest.approx(np.std(each, ddof=1))


def test_lists_that_split_a_group_are_refused_unless_allowed(train, tmp_path):
    lists = write_lists(tmp_path / "lists", is_test=lambda split, path: f"_c{split:02d}" in path)
    refused = train("--split-files", lists)
    assert refused.code == 2 and "official split 1 puts 12 groups on two sides (Archery_g01," in refused.err
    allowed = train("--split-files", lists, "--set", "split_groups=allow")
    tree = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert allowed.code == 0 and "WARNING: the official lists put 12 groups on two sides" in allowed.out
    assert len(tree["leakage"]["split_groups"]) == 12
    assert "leakage: the official lists put 12 groups" in (tmp_path / "run" / "model_card.md").read_text()


def test_lists_of_clips_without_groups_are_taken_and_the_doubt_is_said(train, tmp_path):
    lists = write_lists(tmp_path / "lists", is_test=lambda split, path: f"_c{split:02d}" in path)
    ran = train("--split-files", lists, data=replace(DATA, groups=np.full(len(DATA), "")))
    assert ran.code == 0 and "have no group" in ran.out


def test_hmdb51_s_lists(tmp_path):
    for split in (1, 2, 3):
        for label in LABELS:
            names = [path.split("/")[1] for path in DATA.paths if path.startswith(label)]
            lines = [f"{name} {2 if f'_g{split:02d}_' in name else 1} " for name in names]
            (tmp_path / f"{label}_test_split{split}.txt").write_text("\n".join(lines))
    division = make_official_splits(DATA, tmp_path)
    assert [len(fold.test) for fold in division.folds] == [8, 8, 8]


def test_what_the_cache_lacks_is_counted(lists):
    fewer = DATA.take(np.arange(len(DATA) - 3))
    assert "9 of the lists' entries are not in the cache" in make_official_splits(fewer, lists).description


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"folds": 5}, "not both"),
        ({"split": "split"}, "not both"),
        ({"repeats": 2}, "cannot be drawn again"),
    ],
)
def test_official_lists_go_with_no_other_division(lists, arguments, said):
    with pytest.raises(SettingsError, match=said):
        choose_splits(DATA, split_files=lists, **arguments)


def test_a_folder_without_lists(tmp_path):
    with pytest.raises(SettingsError, match="no numbered split list"):
        make_official_splits(DATA, tmp_path)
    with pytest.raises(SettingsError, match="is not a folder"):
        make_official_splits(DATA, tmp_path / "absent")


@pytest.mark.parametrize("given", ["column", "file"])
def test_a_given_split_that_parts_a_group_is_refused_by_name(train, tmp_path, given):
    sides = np.where(np.arange(len(DATA)) == 0, "test", "train").astype("<U5")
    sides[DATA.groups == "Bowling_g02"] = "test"
    rows = [f"{path},{side}" for path, side in zip(DATA.paths, sides, strict=True)]
    (tmp_path / "split.csv").write_text("\n".join(["path,split", *rows]))
    if given == "file":
        ran = train("--split", tmp_path / "split.csv")
    else:
        ran = train("--split", "split", data=replace(DATA, splits=sides))
    assert ran.code == 2 and "puts group 'Archery_g01' into test and train" in ran.err
    assert not (tmp_path / "run" / "metrics.json").exists()
