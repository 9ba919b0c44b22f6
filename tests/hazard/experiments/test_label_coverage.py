"""What a split leaves out of training or of the test is named, and one label alone is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from features.errors import SettingsError
from hazard.data.splits import make_splits
from hazard.experiments.label_coverage import make_label_warnings
from hazard.experiments.run import train_run
from hazard.models.settings import TrainSettings
from tests.helpers.data.sequences import make_cache, make_moving_sequences

DATA = make_moving_sequences(clips=60, groups=20, labels=("calm", "fight", "run"))
QUICK = TrainSettings(baseline="mean_logistic", positive_label=None)


def with_sides(sides_by_label):
    """Return the clips with a side for all clips of a label; other labels are on both, in turn by group."""
    turn = np.where(np.unique(DATA.groups, return_inverse=True)[1] % 2 == 0, "train", "test")
    sides = np.array([sides_by_label.get(DATA.labels[y]) or turn[i] for i, y in enumerate(DATA.y)])
    groups = np.char.add(DATA.groups, sides)  # so that no group is on two sides
    return replace(DATA, splits=sides, groups=groups)


@pytest.mark.parametrize(
    ("side", "said"),
    [("test", "label run that are tested without training clips"), ("train", "label run without test clips")],
)
def test_a_label_that_one_side_lacks_is_named_on_the_screen_and_in_the_files(side, said, tmp_path):
    lines = []
    train_run(make_cache(with_sides({"run": side})), QUICK, tmp_path, echo=lines.append)
    assert [line for line in lines if line.startswith(f"WARNING: {said}")]
    assert said in json.loads((tmp_path / "metrics.json").read_text())["label_warnings"][0]
    assert said in (tmp_path / "model_card.md").read_text()


@pytest.mark.parametrize("model", [{"baseline": "ridge"}, {"head": "lstm", "epochs": 1}])
def test_one_label_on_the_training_side_is_refused(model, tmp_path):
    data = with_sides({"run": "test", "fight": "test", "calm": "train"})
    with pytest.raises(SettingsError, match=r"all training clips have the label 'calm'.*--folds"):
        train_run(make_cache(data), TrainSettings(**model), tmp_path / "run", echo=lambda line: None)
    assert not (tmp_path / "run" / "model.json").exists()


def test_labels_of_one_clip_or_one_group_are_named_and_many_are_counted():
    y, groups = DATA.y.copy(), DATA.groups.copy()
    y[y == 2] = 0
    y[:1], y[1:4], groups[1:4] = 2, 3, "one"
    some = replace(DATA, y=y, groups=groups, labels=("calm", "fight", "run", "jump"))
    single, group = make_label_warnings(some, make_splits(some, folds=3))
    assert single.startswith("label run with a single clip") and group.startswith(
        "label jump whose clips are all of one"
    )
    many = replace(DATA, y=np.arange(len(DATA)), labels=tuple(f"label{k:02}" for k in range(len(DATA))))
    (line,) = make_label_warnings(many, make_splits(many, folds=3))
    assert "label04" in line and "label05" not in line and "55 more" in line


def test_a_split_without_gaps_has_no_warning():
    assert make_label_warnings(DATA, make_splits(DATA, folds=3)) == []
