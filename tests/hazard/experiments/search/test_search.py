import csv
import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from click.testing import CliRunner

import features.cache.hdf5
from features.errors import SettingsError
from hazard.cli.train import train_temporal
from hazard.data.splits import make_splits
from hazard.experiments.cross_validation import cross_validate
from hazard.experiments.run import train_run
from hazard.experiments.search import search as search_module
from hazard.experiments.search.outputs import plot_searches
from hazard.experiments.search.search import SearchResult, Trial, Tuner, choose_objective, make_search_space, run_search
from hazard.experiments.search.space import SEARCH_SPACE, Choice, Range
from hazard.models.model_folder import open_model
from hazard.models.settings import TrainSettings
from hazard.training.fit import FitCallbacks
from tests.helpers.data.sequences import add_noisy_views, make_cache, make_moving_sequences

DATA = make_moving_sequences(clips=48, groups=12)
QUICK = TrainSettings(
    hidden_size=4, projection=4, layers=1, bidirectional=False, members=2, epochs=2, patience=2, tune=3, device="cpu"
)
FREE = {"head", "inputs", "dropout", "lr", "weight_decay", "label_smoothing"}
needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_searched_setting_is_one_and_every_value_is_valid():
    for name, draw in SEARCH_SPACE.items():
        for value in draw.values if isinstance(draw, Choice) else (draw.low, draw.high):
            assert getattr(TrainSettings(**{name: value}), name) == value


def test_what_is_given_is_kept_and_everything_else_is_free():
    assert set(make_search_space(TrainSettings(tune=3))) == set(SEARCH_SPACE)
    assert set(make_search_space(QUICK)) >= FREE and "hidden_size" not in make_search_space(QUICK)
    with pytest.raises(SettingsError, match="nothing to search"):
        make_search_space(TrainSettings(**{name: getattr(TrainSettings(), name) for name in SEARCH_SPACE}))


def test_the_values_that_are_given_take_part():
    assert Choice((1, 2)).with_value(3).values == (3, 1, 2)
    assert Range(1e-3, 1, log=True).with_value(1e-5) == Range(1e-5, 1, log=True)
    assert Range(1e-3, 1, log=True).with_value(0) == Range(1e-3, 1, log=True)
    assert not Range(0, 1).is_allowed(None)


@needs_optuna
@pytest.mark.parametrize("views", [(), ("flip",)])
def test_the_test_part_has_no_say(views):
    """Changing features, labels and lengths of the test parts must not change any trial or choice."""
    data = add_noisy_views(DATA, *views) if views else DATA
    division = make_splits(data, folds=3)
    test = division.folds[0].test
    x, y, mask = data.x.copy(), data.y.copy(), data.mask.copy()
    x[test], y[test], mask[test, 3:] = 100.0, 1 - y[test], False
    other = dataclasses.replace(
        data,
        x=x,
        y=y,
        mask=mask,
        views=tuple(
            dataclasses.replace(view, x=np.where(np.isin(np.arange(len(x)), test)[:, None, None], 9, view.x))
            for view in data.views
        ),
    )
    found = []
    for sequences in (data, other):
        tuner = Tuner()
        one = dataclasses.replace(division, folds=division.folds[:1])
        result = cross_validate(sequences, one, QUICK, callbacks=FitCallbacks(choose_settings=tuner.choose_settings))
        found.append((tuner.searches[0].trials, result.settings))
    assert found[0] == found[1]


@needs_optuna
def test_a_search_sees_train_and_val_alone():
    seen = []
    division = make_splits(DATA, folds=3)

    def choose(clips, part, given):
        seen.append((part, set(clips.paths)))
        return given

    cross_validate(DATA, division, QUICK, callbacks=FitCallbacks(choose_settings=choose))
    assert [part for part, _ in seen] == [0, 1, 2]
    for (_, paths), fold in zip(seen, division.folds, strict=True):
        assert paths == set(DATA.paths) - set(DATA.paths[fold.test])


@needs_optuna
def test_the_seed_decides_every_trial_and_the_first_is_as_given():
    first, again, other = (run_search(DATA, QUICK.model_copy(update={"seed": seed})) for seed in (1, 1, 2))
    assert first.trials == again.trials != other.trials
    assert first.settings == again.settings
    given = {name: getattr(QUICK, name) for name in first.trials[0].parameters}
    assert first.trials[0].parameters == given


@needs_optuna
def test_the_best_trial_is_chosen_and_keeps_all_that_was_given():
    found = run_search(DATA, QUICK.model_copy(update={"tune": 5}))
    complete = [trial for trial in found.trials if trial.state == "complete"]
    best = max(complete, key=lambda trial: trial.value)
    assert [trial for trial in found.trials if trial.chosen] == [best]
    assert found.settings == QUICK.model_copy(update={"tune": 5, **best.parameters})
    assert found.settings.members == 2 and found.settings.hidden_size == 4


@needs_optuna
def test_a_search_closes_in_on_what_is_best(monkeypatch):
    """Replace training by a score that is highest at one learning rate, far from the given one."""
    monkeypatch.setattr(search_module, "SEARCH_SPACE", {"lr": SEARCH_SPACE["lr"]})
    monkeypatch.setattr(search_module, "fit_head", lambda clips, fold, settings: (settings.lr, []))
    monkeypatch.setattr(search_module, "predict_probs", lambda lr, *arguments: np.array([[lr]]))
    score = "nearness", lambda y, probs: -abs(float(np.log10(probs[0, 0])) + 2.2)
    monkeypatch.setattr(search_module, "choose_objective", lambda clips, folds: score)
    found = run_search(DATA, QUICK.model_copy(update={"tune": 30}))
    assert np.log10(found.settings.lr) == pytest.approx(-2.2, abs=0.1)
    assert found.importance == {"lr": 1.0}


@needs_optuna
def test_many_labels_are_judged_by_their_likelihood():
    data = make_moving_sequences(clips=60, labels=("a", "b", "c"), groups=5)
    found = run_search(data, QUICK)
    assert "log likelihood" in found.objective
    assert all(trial.value < 0 for trial in found.trials)
    probs = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    score = choose_objective(data, ())[1]
    assert score(np.array([0, 1]), probs) == pytest.approx(np.log(0.5) / 2)


@needs_optuna
def test_a_diverged_trial_is_failed_and_never_chosen(monkeypatch):
    calls = []
    real = search_module.predict_probs

    def diverged(*arguments):
        calls.append(1)
        return real(*arguments) * (np.nan if len(calls) == 1 else 1.0)

    monkeypatch.setattr(search_module, "predict_probs", diverged)
    found = run_search(DATA, QUICK)
    assert found.trials[0].state == "failed" and not found.trials[0].chosen
    assert sum(trial.chosen for trial in found.trials) == 1


@needs_optuna
def test_one_group_cannot_be_searched_on():
    one = dataclasses.replace(DATA, groups=np.full(len(DATA), "one"))
    with pytest.raises(SettingsError, match="at least two groups"):
        run_search(one, QUICK)


@needs_optuna
@pytest.mark.parametrize(("flags", "parts"), [(["--folds", "2"], ["0", "1", "final"]), ([], ["0"])])
def test_the_command(tmp_path, monkeypatch, flags, parts):
    monkeypatch.setattr(features.cache.hdf5, "read_cache", lambda path: make_cache(DATA))
    sizes = [f"{name}={getattr(QUICK, name)}" for name in ("hidden_size", "projection", "members", "epochs")]
    arguments = ["any.h5", "-o", str(tmp_path), "--head", "lstm", "--tune", "2", *flags]
    arguments += [word for size in sizes for word in ("--set", size)]
    done = CliRunner().invoke(train_temporal, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    rows = rows_of(tmp_path / "trials.csv")
    assert [(row["part"], row["trial"]) for row in rows] == [(part, trial) for part in parts for trial in "01"]
    assert {"inputs", "dropout", "lr", "value", "inner_folds", "state", "chosen"} <= set(rows[0])
    assert "head" not in rows[0] and (tmp_path / "trials.png").is_file()
    saved = open_model(tmp_path).info.settings
    chosen = next(row for row in rows if row["part"] == parts[-1] and row["chosen"] == "1")
    assert "+".join(saved.inputs) == chosen["inputs"] and saved.lr == pytest.approx(float(chosen["lr"]), rel=1e-4)
    assert saved.head == "lstm" and saved.members == 2


@needs_optuna
def test_the_saved_model_is_searched_on_all_clips_and_named_after_its_head(tmp_path):
    summary = train_run(
        make_cache(DATA), QUICK.model_copy(update={"folds": 2, "tune": 2}), tmp_path, echo=lambda line: None
    )
    rows = rows_of(tmp_path / "trials.csv")
    heads = {row["part"]: row["head"] for row in rows if row["chosen"] == "1"}
    assert summary.info.name == summary.info.settings.head == heads["final"]
    tree = json.loads((tmp_path / "metrics.json").read_text())
    assert tree["model"].split(" or ") == list(dict.fromkeys([heads["0"], heads["1"]]))
    assert "best of 2 trials" in (tmp_path / "model_card.md").read_text()


@needs_optuna
def test_random_folds_beside_a_search_are_not_searched(tmp_path):
    settings = QUICK.model_copy(update={"folds": 2, "tune": 1, "random_folds": True})
    train_run(make_cache(DATA), settings, tmp_path, echo=lambda line: None)
    assert [row["part"] for row in rows_of(tmp_path / "trials.csv")] == ["0", "1", "final"]
    assert "random_split" in json.loads((tmp_path / "metrics.json").read_text())


@needs_optuna
def test_ctrl_c_keeps_the_trials_so_far(tmp_path, monkeypatch, caplog):
    real, fits = search_module.fit_head, []

    def stopping(*arguments):
        fits.append(1)
        if len(fits) > 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(search_module, "fit_head", stopping)
    monkeypatch.setattr(features.cache.hdf5, "read_cache", lambda path: make_cache(DATA))
    arguments = ["any.h5", "-o", str(tmp_path), "--tune", "3", "--set", "epochs=1", "--set", "members=1"]
    with caplog.at_level("WARNING"):
        done = CliRunner().invoke(train_temporal, arguments)
    assert done.exit_code != 0 and "the 1 finished trials" in caplog.text
    assert len(rows_of(tmp_path / "trials.csv")) == 1


def test_without_optuna_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(search_module, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install optuna"):
        train_run(make_cache(DATA), QUICK, tmp_path / "run", echo=lambda line: None)
    assert not (tmp_path / "run").exists()


@needs_optuna
def test_a_baseline_is_not_searched(tmp_path):
    with pytest.raises(SettingsError, match="searches settings of heads only"):
        train_run(make_cache(DATA), QUICK.model_copy(update={"baseline": "knn"}), tmp_path, echo=lambda line: None)


@pytest.mark.parametrize("searches", [1, 3])
@pytest.mark.parametrize("importance", [{}, {"lr": 0.7, "head": 0.3}])
def test_the_picture_of_few_and_many(searches, importance):
    states = ("complete", "pruned", "complete", "failed")
    trials = tuple(Trial(0, n, {"lr": 0.1}, 0.5 + n / 10, 3, state) for n, state in enumerate(states))
    figure = plot_searches([SearchResult("mean inner ROC AUC", trials, importance, QUICK)] * searches)
    assert all(axes.get_xlabel() and axes.get_title() for axes in figure.axes)
    assert figure.axes[0].get_ylabel() == "mean inner ROC AUC"
