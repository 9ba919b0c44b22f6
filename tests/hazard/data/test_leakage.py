import json
from dataclasses import replace

import numpy as np
import pytest

import features.cache.hdf5
from hazard.cli.train import train_temporal
from hazard.data import leakage
from hazard.data.splits import make_splits
from hazard.types import Sequences
from tests.helpers.data.sequences import make_cache

QUICK = ["--baseline", "knn", "--device", "cpu"]


def clips_of_scenes(clips=60, groups=15, width=64, seed=0) -> Sequences:
    """Make clips whose group is a scene and whose label is a kind of scene: more alike than others, but no copies."""
    rng = np.random.default_rng(seed)
    group = np.arange(clips) % groups
    y = group % 2
    scene = rng.normal(size=(groups, 1, width))[group] + 0.7 * rng.normal(size=(2, 1, width))[y]
    x = scene + rng.normal(size=(clips, 1, width)) + 0.5 * rng.normal(size=(clips, 8, width))
    return Sequences(
        x=x.astype(np.float32),
        mask=np.ones((clips, 8), bool),
        y=y.astype(np.int64),
        groups=np.array([f"scene{number:02d}" for number in group]),
        paths=np.array([f"{'ab'[k]}/{number:03d}.mp4" for number, k in enumerate(y)]),
        splits=np.where(group < 10, "train", "test").astype("<U5"),
        labels=("a", "b"),
    )


def with_copy(sequences: Sequences, source: int, place: int) -> Sequences:
    """Replace clip `place` by a copy of `source` without its first two steps and with coding noise."""
    x, mask = sequences.x.copy(), sequences.mask.copy()
    noise = 0.3 * np.random.default_rng(1).normal(size=x[source, 2:].shape)
    x[place], mask[place] = 0, np.arange(8) < 6
    x[place, :6] = x[source, 2:] + noise
    return replace(sequences, x=x, mask=mask)


DATA = clips_of_scenes()
COPIED = with_copy(DATA, 0, 10)  # scene00 is in train, scene10 in test


def test_clips_of_one_label_and_of_one_group_are_not_reported():
    assert len(leakage.find_near_duplicates(DATA)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_narrow_features_of_strangers_are_not_reported(seed):
    assert len(leakage.find_near_duplicates(clips_of_scenes(width=8, seed=seed))) == 0


def test_a_copy_that_is_cut_and_encoded_again_is_found():
    pairs = leakage.find_near_duplicates(COPIED)
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(0, 10)]
    assert pairs.similarity[0] > 0.9


def test_a_copy_inside_its_group_is_no_leak():
    assert len(leakage.find_near_duplicates(with_copy(DATA, 0, 15))) == 0


def test_blocks_find_the_same_pairs(monkeypatch):
    copies = with_copy(with_copy(COPIED, 3, 59), 20, 4)
    whole = leakage.find_near_duplicates(copies)
    monkeypatch.setattr(leakage, "_BLOCK_ROWS", 7)
    blocks = leakage.find_near_duplicates(copies)
    assert len(whole) == 3
    np.testing.assert_array_equal(np.stack([whole.first, whole.second]), np.stack([blocks.first, blocks.second]))


def test_joined_groups_hold_the_copies_and_nothing_else():
    joined = leakage.merge_near_duplicates(COPIED, leakage.find_near_duplicates(COPIED))
    assert joined.groups[0] == joined.groups[10] == "scene00"
    kept = ~np.isin(COPIED.groups, ["scene00", "scene10"])
    np.testing.assert_array_equal(joined.groups[kept], COPIED.groups[kept])


@pytest.mark.parametrize(("place", "count"), [(10, 1), (1, 0)])
def test_only_pairs_that_the_split_parts_are_leaks(place, count):
    """Scene 1 is in train, as scene 0 is."""
    data = with_copy(DATA, 0, place)
    assert len(leakage.select_across_split(leakage.find_near_duplicates(data), make_splits(data))) == count


@pytest.fixture
def train(monkeypatch, run, tmp_path):
    def train_it(data, *arguments):
        monkeypatch.setattr(features.cache.hdf5, "read_cache", lambda path: make_cache(data))
        ran = run(train_temporal, "any.h5", "-o", tmp_path / "run", *QUICK, *arguments)
        file = tmp_path / "run" / "metrics.json"
        return ran, json.loads(file.read_text())["leakage"] if file.is_file() else None

    return train_it


@pytest.mark.parametrize("arguments", [(), ("--folds", "5", "--repeats", "2")])
def test_the_command_reports_a_planted_copy(train, tmp_path, arguments):
    ran, found = train(COPIED, *arguments)
    assert ran.code == 0
    assert "WARNING: near-duplicate clips are on two sides of the split: 1 pair, a/000.mp4 and a/010.mp4" in ran.out
    assert found["duplicate_pairs"] == 1
    pair = found["duplicates"][0]
    assert (pair["a"], pair["b"]) == ("a/000.mp4", "a/010.mp4") and pair["similarity"] > 0.9
    assert sorted(pair["sides"]) == ["test", "train"] and pair["folds"]
    assert "a/000.mp4 and a/010.mp4" in (tmp_path / "run" / "model_card.md").read_text()


def test_the_command_says_nothing_where_there_is_nothing(train):
    ran, found = train(DATA)
    assert "alike" not in ran.out and found["duplicate_pairs"] == 0


def test_the_command_may_ignore_copies(train):
    ran, found = train(COPIED, "--set", "duplicates=ignore")
    assert "alike" not in ran.out and found["duplicate_pairs"] == 0


def test_the_command_gives_copies_one_group_before_folds_are_drawn(train):
    ran, found = train(COPIED, "--folds", "5", "--set", "duplicates=group")
    assert "put in one group: 1 pair, a/000.mp4" in ran.out and "from 14 groups" in ran.out
    assert found["duplicate_pairs"] == 0 and "WARNING" not in ran.out


def test_a_given_split_that_parts_joined_copies_is_refused(train):
    ran, _ = train(COPIED, "--set", "duplicates=group")
    assert ran.code == 2 and "puts group 'scene00' into test and train" in ran.err
