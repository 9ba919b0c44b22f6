import dataclasses

import numpy as np
import pytest

from features.errors import SettingsError
from hazard.data.splits import Fold, make_grouped_folds, make_inner_split, make_splits
from tests.helpers.data.sequences import make_moving_sequences

DATA = make_moving_sequences(clips=60, groups=10)


def with_splits(sides):
    return dataclasses.replace(DATA, splits=np.array(sides, dtype="<U5"))


def by_group(train="train", val="val", test="test"):
    number = np.array([int(group.removeprefix("video")) for group in DATA.groups])
    return np.where(number < 6, train, np.where(number < 8, val, test))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_group_lies_on_two_sides_of_any_fold(seed):
    folds = make_grouped_folds(DATA, 5, seed=seed)
    for fold in folds:
        sides = [set(DATA.groups[part]) for part in (fold.train, fold.val, fold.test)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert all(sides)
        assert set(DATA.y[fold.train]) == {0, 1}
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(len(DATA)))


def test_folds_depend_on_the_seed_alone():
    again = [make_grouped_folds(DATA, 5, seed=seed)[0].test.tolist() for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_repeats_are_other_folds_each_of_which_covers_every_clip_once():
    division = make_splits(DATA, folds=5, repeats=3)
    assert division.repeats == 3 and [fold.repeat for fold in division.folds] == [0] * 5 + [1] * 5 + [2] * 5
    tested = [sorted(tuple(fold.test) for fold in division.folds if fold.repeat == n) for n in range(3)]
    assert tested[0] != tested[1] != tested[2] != tested[0]
    for repeat in tested:
        np.testing.assert_array_equal(np.sort(np.concatenate(repeat)), np.arange(len(DATA)))
    for fold in division.folds:
        assert not set(DATA.groups[fold.test]) & set(DATA.groups[np.concatenate([fold.train, fold.val])])
    assert "drawn 3 times" in division.description


def test_repeats_need_folds():
    with pytest.raises(SettingsError, match="give --folds N"):
        make_splits(DATA, repeats=3)


def test_more_folds_than_groups_is_an_error_that_counts_them():
    with pytest.raises(SettingsError, match=r"11 groups or more.*60 clips come from 10"):
        make_splits(DATA, folds=11)


def test_inner_parts_differ_and_cover_all_rows():
    rows = np.arange(40)
    parts = [make_inner_split(DATA, rows, seed=0, part=part) for part in range(5)]
    assert sorted(np.concatenate([val for _, val in parts]).tolist()) == rows.tolist()
    assert all(not set(DATA.groups[train]) & set(DATA.groups[val]) for train, val in parts)


def test_one_group_alone_spares_nothing_for_validation():
    rows = np.flatnonzero(DATA.groups == "video0")
    train, val = make_inner_split(DATA, rows, seed=0)
    assert train.tolist() == rows.tolist() and len(val) == 0


def test_without_a_word_the_hold_out_is_grouped():
    (fold,) = make_splits(DATA).folds
    assert 0 < len(fold.test) < len(DATA) / 2
    assert not set(DATA.groups[fold.test]) & set(DATA.groups[np.concatenate([fold.train, fold.val])])


def test_the_cache_s_own_split_is_used_where_it_has_one():
    data = with_splits(by_group())
    (fold,) = make_splits(data).folds
    assert fold.val_is_given
    assert set(data.splits[fold.train]) == {"train"} and set(data.splits[fold.test]) == {"test"}


@pytest.mark.parametrize("only", ["val", "test"])
def test_with_two_sides_early_stopping_takes_a_part_of_train(only):
    data = with_splits(by_group(val=only, test=only))
    (fold,) = make_splits(data, split="split").folds
    assert set(data.splits[fold.test]) == {only}
    assert len(fold.val) and set(data.splits[fold.val]) == {"train"}


def test_clips_without_a_side_take_no_part():
    data = with_splits(by_group(val=""))
    (fold,) = make_splits(data).folds
    assert not (data.splits[np.concatenate([fold.train, fold.val, fold.test])] == "").any()


def test_a_split_file_names_paths(tmp_path):
    file = tmp_path / "split.csv"
    rows = [f"{path},{side}" for path, side in zip(DATA.paths, by_group(), strict=True)]
    file.write_text("\n".join(["path,split", *rows]))
    assert len(make_splits(DATA, split=str(file)).folds[0].test) == int((by_group() == "test").sum())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("clip,side\na,train\n", "columns path and split"),
        ("path,split\nelsewhere.mp4,train\n", "names none of the cache's clips"),
        ("path,split\nfight/000.mp4,trian\n", "unknown split 'trian'"),
        ("path,split\nfight/000.mp4,train\nnoFight/001.mp4,test\n", "group 'video0' into test and train"),
        ("path,split\nfight/000.mp4,train\n", "in val or test"),
        ("", "columns path and split"),
    ],
)
def test_split_files_that_cannot_be_used(tmp_path, content, said):
    file = tmp_path / "split.csv"
    file.write_text(content)
    with pytest.raises(SettingsError, match=said):
        make_splits(DATA, split=str(file))


def test_a_binary_split_file_is_one_clear_line(tmp_path):
    file = tmp_path / "split.csv"
    file.write_bytes(b"\xff\xfe\x00path\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        make_splits(DATA, split=str(file))


def test_a_split_that_cuts_a_group_is_refused():
    sides = by_group()
    sides[0] = "test"
    with pytest.raises(SettingsError, match="must stay on one side"):
        make_splits(with_splits(sides))


def test_folds_and_a_split_exclude_each_other():
    with pytest.raises(SettingsError, match="not both"):
        make_splits(DATA, folds=5, split="split")


@pytest.mark.parametrize("split", ["no/such/file.csv", "label"])
def test_neither_file_nor_column(split):
    with pytest.raises(SettingsError, match="does not exist"):
        make_splits(DATA, split=split)


def test_a_rare_label_does_not_stop_the_folds():
    y = np.zeros(len(DATA), np.int64)
    y[:2] = 1
    assert len(make_splits(dataclasses.replace(DATA, y=y), folds=5).folds) == 5


def test_overlapping_parts_are_a_bug():
    with pytest.raises(ValueError, match="overlap"):
        Fold(np.array([0, 1]), np.array([1]), np.array([2]))
