import csv
import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import features.cache.hdf5
from features.errors import SettingsError
from hazard.cli.train import train_temporal
from hazard.data.splits import CrossValidationSplits, make_splits
from hazard.experiments import cross_validation, evaluation_metrics
from hazard.experiments.cross_validation import COMPARED_ENSEMBLES
from hazard.experiments.leaderboard import WITHIN_NOISE_MARK
from hazard.experiments.run import train_run
from hazard.metrics import classification as metrics
from hazard.metrics.classification import DECISION_METRICS
from hazard.models.baselines import BASELINES
from hazard.models.heads import HEADS
from hazard.models.model_folder import open_model
from hazard.models.settings import TrainSettings
from tests.helpers.data.sequences import add_noisy_views, make_cache, make_moving_sequences

DATA = make_moving_sequences(clips=40, groups=10)
QUICK = TrainSettings(hidden_size=4, projection=4, members=1, epochs=2, folds=3, device="cpu")
FILES = {"metrics.json", "predictions.csv", "history.csv", "model_card.md", "model.json", "unknown.safetensors"}
PICTURES = {"confusion.png", "curves.png", "history.png", "reliability.png"}


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("run"), []
    summary = train_run(make_cache(DATA), QUICK, folder, compare=True, echo=said.append)
    return folder, "\n".join(said), summary


def test_a_comparison_ranks_every_head_and_baseline(compared):
    folder, said, summary = compared
    rows = rows_of(folder / "leaderboard.csv")
    assert {row["model"] for row in rows} == {*HEADS, *BASELINES, *COMPARED_ENSEMBLES}
    values = [float(row["roc_auc"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert all(float(row["roc_auc_low"]) <= float(row["roc_auc"]) <= float(row["roc_auc_high"]) for row in rows)
    assert {"kind", "accuracy", "accuracy_low", "pr_auc_high", "ece", "train_seconds", "parameters"} <= set(rows[0])
    assert all(row["model"] in said for row in rows)
    saved = next(row["model"] for row in rows if row["kind"] != "ensemble")
    assert open_model(folder).info.name == saved == summary.info.name
    assert (folder / "leaderboard.png").is_file()


def test_every_model_is_compared_with_the_best_on_the_same_draws(compared):
    folder, said, _ = compared
    rows = rows_of(folder / "leaderboard.csv")
    for row in rows:
        behind = float(row["roc_auc_behind"])
        assert behind == pytest.approx(float(rows[0]["roc_auc"]) - float(row["roc_auc"]), abs=1e-5) and behind >= 0
        assert float(row["accuracy_behind_low"]) <= float(row["accuracy_behind_high"])
        assert 0 < float(row["roc_auc_behind_p"]) <= 1 and 0 <= float(row["accuracy_behind_t_p"]) <= 1
        assert row["within_noise"] == str(int(float(row["roc_auc_behind_low"]) <= 0))
    marked = {
        line.split()[0]
        for line in said.splitlines()
        if f" {WITHIN_NOISE_MARK} " in line and line[0] != WITHIN_NOISE_MARK
    }
    assert marked == {row["model"] for row in rows if row["within_noise"] == "1"}


def test_an_ensemble_that_wins_is_said_and_the_best_single_model_saved(compared):
    folder, said, summary = compared
    rows = rows_of(folder / "leaderboard.csv")
    assert {row["model"] for row in rows if row["kind"] == "ensemble"} == set(COMPARED_ENSEMBLES)
    assert (rows[0]["kind"] == "ensemble") == (f"saved is {summary.info.name}, the best that is one model" in said)


def test_what_choosing_is_worth_is_said(compared):
    folder, said, summary = compared
    chosen = json.loads((folder / "metrics.json").read_text())["chosen_elsewhere"]
    assert len(chosen["models"]) == 3 and set(chosen["models"]) <= {row["model"] for row in summary.leaderboard}
    assert f"model on the other folds: accuracy {chosen['accuracy']['value']:.3f}" in said


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
    assert "3 folds that never split a group" in card and "no group is on both sides" in card


@pytest.mark.parametrize(
    ("changes", "weights"),
    [({"head": "lstm"}, {"model.safetensors", "last.safetensors"}), ({"baseline": "knn"}, {"model.skops"})],
)
def test_one_model_of_either_kind(tmp_path, changes, weights):
    train_run(make_cache(DATA), QUICK.model_copy(update=changes | {"folds": None}), tmp_path, echo=lambda text: None)
    assert {file.name for file in tmp_path.iterdir()} == FILES | PICTURES | weights
    tree = json.loads((tmp_path / "metrics.json").read_text())
    assert "folds" not in tree and tree["split"]["how"].startswith("hold-out")
    assert open_model(tmp_path).predict(DATA.x, DATA.mask).shape == (len(DATA), 2)


def test_repeats_draw_other_folds_and_predict_every_clip_once_in_each(tmp_path):
    settings = QUICK.model_copy(update={"baseline": "knn", "repeats": 2})
    train_run(make_cache(DATA), settings, tmp_path, echo=lambda text: None)
    rows, tree = rows_of(tmp_path / "predictions.csv"), json.loads((tmp_path / "metrics.json").read_text())
    assert [(row["path"], row["repeat"]) for row in rows] == [(path, n) for path in DATA.paths for n in "01"]
    assert {row["fold"] for row in rows if row["repeat"] == "1"} == {"3", "4", "5"}
    together = {n: {row["path"] for row in rows if row["fold"] == n} for n in "012345"}
    assert not any(together[a] == together[b] for a in "012" for b in "345")
    assert [(fold["fold"], fold["repeat"]) for fold in tree["folds"]] == [(n, n // 3) for n in range(6)]
    assert tree["roc_auc"]["value"] == pytest.approx(np.mean([repeat["roc_auc"] for repeat in tree["repeats"]]))
    assert tree["mean"]["accuracy"] == pytest.approx(np.mean([fold["accuracy"] for fold in tree["folds"]]))
    assert tree["clips"] == len(DATA) and tree["split"]["repeats"] == 2


def test_the_first_repeat_is_what_one_alone_would_be():
    settings = QUICK.model_copy(update={"baseline": "knn"})
    one, two = (cross_validation.cross_validate(DATA, make_splits(DATA, folds=3, repeats=n), settings) for n in (1, 2))
    np.testing.assert_array_equal(one.calibrated.raw, two.calibrated.raw[two.repeats == 0])


def test_random_folds_are_shown_beside_the_honest_ones(tmp_path):
    """Clips of a group share label and appearance: only a model that was trained on the group can tell its label."""
    rng = np.random.default_rng(0)
    group = np.arange(60) // 5
    x = (rng.normal(size=(12, 1, 12))[group] + 0.1 * rng.normal(size=(60, 8, 12))).astype(np.float32)
    names = {"groups": np.array([f"v{g}" for g in group]), "paths": np.array([f"{i}.mp4" for i in range(60)])}
    data = dataclasses.replace(
        make_moving_sequences(clips=60), x=x, mask=np.ones((60, 8), bool), y=np.int64(group % 2), **names
    )
    said = []
    settings = QUICK.model_copy(update={"baseline": "knn", "random_folds": True, "pooled": ("mean",)})
    train_run(make_cache(data), settings, tmp_path, echo=said.append)
    tree = json.loads((tmp_path / "metrics.json").read_text())
    honest, random = tree["accuracy"]["value"], tree["random_split"]["accuracy"]["value"]
    assert random > 0.9 and random > honest + 0.05
    assert tree["random_split"]["leakage"]["accuracy"] == pytest.approx(random - honest)
    assert "inflated" in tree["random_split"]["how"]
    assert (
        sum("random folds" in line and f"accuracy {random:.3f} instead of {honest:.3f}" in line for line in said) == 1
    )
    assert "random folds" in (tmp_path / "model_card.md").read_text()


def test_views_are_for_training_alone(tmp_path):
    """The network learns from views; the pooled ridge never does."""
    viewed, said = add_noisy_views(DATA, "crop", "flip"), []
    quick = QUICK.model_copy(update={"pooled_path": False})
    summary = train_run(make_cache(viewed), quick, tmp_path / "a", echo=said.append)
    assert summary.info.feature_spec["views"] == ["none"]
    assert summary.info.fingerprint == make_cache(DATA).spec.fingerprint != make_cache(viewed).spec.fingerprint
    assert summary.info.settings.views == ("none", "crop", "flip")
    assert "views none, crop, flip" in said[1] and "none, crop, flip" in (tmp_path / "a" / "model_card.md").read_text()
    rows = rows_of(tmp_path / "a" / "predictions.csv")
    assert [row["path"] for row in rows] == DATA.paths.tolist()
    assert summary.metrics != train_run(make_cache(DATA), quick, tmp_path / "b", echo=said.append).metrics


def test_a_baseline_is_the_same_with_and_without_views(tmp_path):
    knn = QUICK.model_copy(update={"baseline": "knn"})
    runs = [
        train_run(make_cache(data), knn, tmp_path / name, echo=lambda text: None)
        for name, data in (("a", DATA), ("b", add_noisy_views(DATA, "flip")))
    ]
    assert runs[0].metrics == runs[1].metrics


def test_every_model_is_asked_about_the_same_clips_in_the_same_folds():
    division = make_splits(DATA, folds=3)
    results = cross_validation.compare_models(DATA, division, QUICK)
    assert len(results) == len(HEADS) + len(BASELINES) + len(COMPARED_ENSEMBLES)
    for result in results[1:]:
        np.testing.assert_array_equal(result.rows, results[0].rows)
        np.testing.assert_array_equal(result.folds, results[0].folds)


def test_unknown_groups_are_said_loudly(tmp_path):
    said = []
    cache = make_cache(DATA, group=np.full(len(DATA), ""))
    train_run(cache, QUICK.model_copy(update={"baseline": "knn"}), tmp_path, echo=said.append)
    assert any("WARNING" in line and "inflated" in line for line in said)
    assert "inflated" in (tmp_path / "model_card.md").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["split"]["groups_known"] is False


def test_six_labels_have_a_top5_and_no_positive_label(tmp_path):
    data = make_moving_sequences(clips=60, labels=tuple("abcdef"), groups=5)
    summary = train_run(
        make_cache(data), QUICK.model_copy(update={"baseline": "knn"}), tmp_path, echo=lambda text: None
    )
    assert summary.info.positive_label is None
    assert summary.metrics["top5_accuracy"]["value"] >= summary.metrics["accuracy"]["value"]


def test_a_guessed_positive_label_is_said_aloud(tmp_path, caplog):
    cache = make_cache(make_moving_sequences(clips=18, labels=("run", "walk"), groups=6))
    train_run(cache, RIDGE, tmp_path, echo=lambda text: None)
    assert caplog.text.count("'walk' is a guess; set it with --set positive_label=NAME") == 1
    tree = json.loads((tmp_path / "metrics.json").read_text())
    assert (tree["positive_label"], tree["positive_label_source"]) == ("walk", "guess")
    assert "**walk** is a guess" in (tmp_path / "model_card.md").read_text()


def test_a_positive_label_that_is_none(tmp_path):
    with pytest.raises(SettingsError, match="choose one of: fight, noFight"):
        train_run(
            make_cache(DATA), QUICK.model_copy(update={"positive_label": "fall"}), tmp_path, echo=lambda text: None
        )


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(features.cache.hdf5, "read_cache", lambda path: make_cache(DATA))
    arguments = ["any.h5", "-o", str(tmp_path / "run"), "--baseline", "knn", "--folds", "3", "--seed", "1"]
    done = CliRunner().invoke(train_temporal, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "ROC AUC" in done.output
    assert open_model(tmp_path / "run").info.settings.seed == 1


def test_a_head_and_a_baseline_exclude_each_other(tmp_path):
    done = CliRunner().invoke(train_temporal, ["a.h5", "-o", str(tmp_path), "--head", "lstm", "--baseline", "knn"])
    assert done.exit_code == 2 and "not both" in done.output


RIDGE = QUICK.model_copy(update={"baseline": "ridge"})


@pytest.mark.parametrize("folds", [3, None])
@pytest.mark.parametrize("baseline", ["ridge", None])
def test_the_saved_temperature_is_that_of_metrics_json_and_predictions(tmp_path, folds, baseline):
    settings = QUICK.model_copy(update={"baseline": baseline, "folds": folds})
    summary = train_run(make_cache(DATA), settings, tmp_path, echo=lambda text: None)
    tree = json.loads((tmp_path / "metrics.json").read_text())
    assert tree["temperature"] == summary.info.temperature == open_model(tmp_path).info.temperature
    assert tree["ece_uncalibrated"] >= 0 and set(tree["ece"]) == set(tree["nll"]) >= {"value", "low", "high"}
    assert f"temperature {summary.info.temperature:.2f}" in (tmp_path / "model_card.md").read_text()


def test_a_temperature_changes_no_binary_ranking_over_all_folds():
    division = make_splits(DATA, folds=3)
    result = cross_validation.cross_validate(DATA, division, RIDGE)
    y, raw = DATA.y[result.rows], result.calibrated.raw
    assert result.calibrated.temperature != 1
    for name in ("roc_auc", "accuracy"):
        before, after = (metrics.headline_metrics(y, probs, positive=0)[name] for probs in (raw, result.probs))
        assert after == pytest.approx(before)


def test_the_temperature_of_a_single_split_never_asks_the_test_part():
    fold = make_splits(DATA).folds[0]
    turned = DATA.y.copy()
    turned[fold.test] = 1 - turned[fold.test]
    for settings in (RIDGE, QUICK):
        one, other = (
            cross_validation.cross_validate(
                data, CrossValidationSplits((fold,), "once"), settings
            ).calibrated.temperature
            for data in (DATA, replace(DATA, y=turned))
        )
        assert one == other != 1


def test_a_threshold_for_false_alarms_per_hour(tmp_path, monkeypatch):
    monkeypatch.setattr(features.cache.hdf5, "read_cache", lambda path: make_cache(DATA))
    arguments = ["any.h5", "-o", str(tmp_path), "--baseline", "ridge", "--folds", "3", "--repeats", "2"]
    CliRunner().invoke(train_temporal, [*arguments, "--false-alarms-per-hour", "900"], catch_exceptions=False)
    tree = json.loads((tmp_path / "metrics.json").read_text())
    points = {point["target"]: point for point in tree["false_alarms_per_hour"]}
    assert open_model(tmp_path).threshold == tree["threshold"] == points[900]["threshold"] != 0.5
    assert tree["recall"]["value"] == pytest.approx(points[900]["recall"])  # other clips ask for the same threshold
    assert set(tree["at_half"]) == set(DECISION_METRICS)
    false = (
        sum(r["label"] == "noFight" and r["predicted"] == "fight" for r in rows_of(tmp_path / "predictions.csv")) / 2
    )
    assert false == pytest.approx(points[900]["false_alarms"])
    assert false / (20 * 2 / 3600) == pytest.approx(points[900]["achieved"])
    assert points[900]["achieved"] < points[900]["upper_bound"] <= 900
    assert {target: point["supported"] for target, point in points.items()} == {
        1: False,
        10: False,
        60: False,
        900: True,
    }
    card = (tmp_path / "model_card.md").read_text()
    assert "chosen in the same way on clips of other groups" in card and "\n| 900 |" in card and "\n| 1 |" not in card
    assert (
        "0 false alarms in 40 s of harmless video" in card
        and "too little to measure a rate of 1 per hour (takes 3 h), 10 per" in card
    )


def test_a_rate_that_the_hours_cannot_support_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(features.cache.hdf5, "read_cache", lambda path: make_cache(DATA))
    arguments = ["any.h5", "-o", str(tmp_path), "--folds", "3", "--repeats", "3", "--false-alarms-per-hour", "90"]
    done = CliRunner().invoke(train_temporal, arguments)
    assert isinstance(done.exception, SettingsError) and done.exception.exit_code == 2
    assert "at least 2 min of harmless video, but the test clips have 40 s" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_false_alarms_without_durations_are_null_and_cannot_be_asked_for(tmp_path):
    cache = make_cache(DATA, duration=np.full(len(DATA), np.nan))
    with pytest.raises(SettingsError, match="needs the duration of every clip"):
        train_run(cache, RIDGE.model_copy(update={"false_alarms_per_hour": 1.0}), tmp_path, echo=lambda text: None)
    assert not list(tmp_path.iterdir())
    sequences = replace(DATA, durations=np.full(len(DATA), np.nan))
    result = cross_validation.cross_validate(sequences, make_splits(sequences, folds=3), RIDGE)
    assert evaluation_metrics.compute_metrics(sequences, result, RIDGE).metrics["false_alarms_per_hour"] is None


def test_false_alarms_are_of_two_labels(tmp_path):
    data = make_moving_sequences(clips=30, labels=tuple("abc"), groups=5)
    with pytest.raises(SettingsError, match="needs exactly two labels"):
        train_run(make_cache(data), RIDGE.model_copy(update={"false_alarms_per_hour": 1.0}), tmp_path)


@pytest.mark.parametrize("setting", ["pooled=[mean,movement]", "pooled=[]", "pooled_scale=none", "jobs=0"])
def test_settings_of_baselines_are_checked(tmp_path, setting):
    done = CliRunner().invoke(train_temporal, ["a.h5", "-o", str(tmp_path), "--set", setting])
    assert done.exit_code != 0 and setting.partition("=")[0] in str(done.exception) + done.output
