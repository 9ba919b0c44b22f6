import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

import features.cache
from features.errors import SettingsError
from hazard import evaluate
from hazard.baselines import BASELINES
from hazard.cli_train import train_temporal
from hazard.config import TrainSettings
from hazard.heads import HEADS
from hazard.model import open_model
from hazard.run import train_run
from hazard.splits import divide
from tests.stage_two import as_cache, moving_sequences, with_views

DATA = moving_sequences(clips=40, groups=10)
QUICK = TrainSettings(hidden_size=4, projection=4, members=1, epochs=2, folds=3, device="cpu")
FILES = {"metrics.json", "predictions.csv", "history.csv", "model_card.md", "model.json"}
PICTURES = {"confusion.png", "curves.png", "history.png", "reliability.png"}


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("run"), []
    summary = train_run(as_cache(DATA), QUICK, folder, compare=True, echo=said.append)
    return folder, "\n".join(said), summary


def test_a_comparison_ranks_every_head_and_baseline(compared):
    folder, said, summary = compared
    rows = rows_of(folder / "leaderboard.csv")
    assert {row["model"] for row in rows} == {*HEADS, *BASELINES}
    values = [float(row["roc_auc"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert all(float(row["roc_auc_low"]) <= float(row["roc_auc"]) <= float(row["roc_auc_high"]) for row in rows)
    assert {"kind", "accuracy", "accuracy_low", "pr_auc_high", "ece", "train_seconds", "parameters"} <= set(rows[0])
    assert all(row["model"] in said for row in rows)
    assert open_model(folder).info.name == rows[0]["model"] == summary.info.name
    assert (folder / "leaderboard.png").is_file()


def test_metrics_json_has_the_promised_names(compared):
    folder, _, summary = compared
    tree = json.loads((folder / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "precision", "recall", "roc_auc", "pr_auc", "ece"):
        assert set(tree[name]) == {"value", "low", "high"}
        assert name in tree["mean"] and name in tree["std"] and name in tree["folds"][0]
    assert len(tree["folds"]) == 3 and tree["split"]["groups_known"] is True
    assert np.sum(tree["confusion"]["counts"]) == len(DATA)
    assert set(tree["per_class"]) == set(DATA.labels)
    assert tree["model"] == summary.info.name


def test_predictions_are_one_row_a_clip_out_of_fold(compared):
    rows = rows_of(compared[0] / "predictions.csv")
    assert [row["path"] for row in rows] == DATA.paths.tolist()
    assert list(rows[0]) == ["path", "label", "predicted", "fold", *DATA.labels]
    folds = dict(zip(DATA.groups.tolist(), [row["fold"] for row in rows], strict=True))
    assert all(folds[group] == row["fold"] for group, row in zip(DATA.groups, rows, strict=True))
    for row in rows:
        assert sum(float(row[label]) for label in DATA.labels) == pytest.approx(1, abs=1e-5)
        assert float(row[row["predicted"]]) >= 0.5


def test_every_file_is_there_and_none_is_left_over(compared):
    folder, _, summary = compared
    weights = {"head": {"model.safetensors", "last.safetensors"}, "baseline": {"model.skops"}}[summary.info.kind]
    assert {file.name for file in folder.iterdir()} == FILES | PICTURES | weights | {
        "leaderboard.csv",
        "leaderboard.png",
    }
    card = (folder / "model_card.md").read_text()
    assert "3 folds that never split a group" in card and "no group lies on two sides" in card


@pytest.mark.parametrize(
    ("changes", "weights"),
    [({"head": "lstm"}, {"model.safetensors", "last.safetensors"}), ({"baseline": "knn"}, {"model.skops"})],
)
def test_one_model_of_either_kind(tmp_path, changes, weights):
    train_run(as_cache(DATA), QUICK.model_copy(update=changes | {"folds": None}), tmp_path, echo=lambda text: None)
    assert {file.name for file in tmp_path.iterdir()} == FILES | PICTURES | weights
    tree = json.loads((tmp_path / "metrics.json").read_text())
    assert "folds" not in tree and tree["split"]["how"].startswith("hold-out")
    assert open_model(tmp_path).predict(DATA.x, DATA.mask).shape == (len(DATA), 2)


def test_views_are_for_training_alone(tmp_path):
    viewed, said = with_views(DATA, "crop", "flip"), []
    summary = train_run(as_cache(viewed), QUICK, tmp_path / "a", echo=said.append)
    assert summary.info.feature_spec["views"] == ["none"]
    assert summary.info.fingerprint == as_cache(DATA).spec.fingerprint != as_cache(viewed).spec.fingerprint
    assert summary.info.settings.views == ("none", "crop", "flip")
    assert "views none, crop, flip" in said[1] and "none, crop, flip" in (tmp_path / "a" / "model_card.md").read_text()
    rows = rows_of(tmp_path / "a" / "predictions.csv")
    assert [row["path"] for row in rows] == DATA.paths.tolist()
    assert summary.figures != train_run(as_cache(DATA), QUICK, tmp_path / "b", echo=said.append).figures


def test_a_baseline_is_the_same_with_and_without_views(tmp_path):
    knn = QUICK.model_copy(update={"baseline": "knn"})
    runs = [
        train_run(as_cache(data), knn, tmp_path / name, echo=lambda text: None)
        for name, data in (("a", DATA), ("b", with_views(DATA, "flip")))
    ]
    assert runs[0].figures == runs[1].figures


def test_every_model_is_asked_about_the_same_clips_in_the_same_folds():
    division = divide(DATA, folds=3)
    results = evaluate.compare(DATA, division, QUICK)
    assert len(results) == len(HEADS) + len(BASELINES)
    for result in results[1:]:
        np.testing.assert_array_equal(result.rows, results[0].rows)
        np.testing.assert_array_equal(result.folds, results[0].folds)


def test_unknown_groups_are_said_loudly(tmp_path):
    said = []
    cache = as_cache(DATA, group=np.full(len(DATA), ""))
    train_run(cache, QUICK.model_copy(update={"baseline": "knn"}), tmp_path, echo=said.append)
    assert any("WARNING" in line and "inflated" in line for line in said)
    assert "inflated" in (tmp_path / "model_card.md").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["split"]["groups_known"] is False


def test_six_labels_have_a_top5_and_no_positive_label(tmp_path):
    data = moving_sequences(clips=60, labels=tuple("abcdef"), groups=5)
    summary = train_run(as_cache(data), QUICK.model_copy(update={"baseline": "knn"}), tmp_path, echo=lambda text: None)
    assert summary.info.positive_label is None
    assert summary.figures["top5_accuracy"]["value"] >= summary.figures["accuracy"]["value"]


def test_a_positive_label_that_is_none(tmp_path):
    with pytest.raises(SettingsError, match="choose one of: fight, noFight"):
        train_run(as_cache(DATA), QUICK.model_copy(update={"positive_label": "fall"}), tmp_path, echo=lambda text: None)


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(features.cache, "read_cache", lambda path: as_cache(DATA))
    arguments = ["any.h5", "-o", str(tmp_path / "run"), "--baseline", "knn", "--folds", "3", "--seed", "1"]
    done = CliRunner().invoke(train_temporal, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "ROC AUC" in done.output
    assert open_model(tmp_path / "run").info.settings.seed == 1


def test_a_head_and_a_baseline_exclude_each_other(tmp_path):
    done = CliRunner().invoke(train_temporal, ["a.h5", "-o", str(tmp_path), "--head", "lstm", "--baseline", "knn"])
    assert done.exit_code == 2 and "not both" in done.output
