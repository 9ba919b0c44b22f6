"""Ensembles: their specification, their predictions, and how they are trained, saved and opened."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.errors import ArtifactError
from hazard.data.splits import make_splits
from hazard.experiments import cross_validation
from hazard.experiments.run import RunSummary, train_run
from hazard.models.baselines import BASELINES
from hazard.models.calibration import apply_temperature
from hazard.models.ensemble import Ensemble, EnsembleMember, combine_models
from hazard.models.ensemble_spec import parse_ensemble_spec
from hazard.models.heads import HEADS
from hazard.models.model_folder import open_model
from hazard.models.predictor import predict_probs
from hazard.models.settings import TrainSettings
from hazard.training import fit as fit_module
from tests.helpers.data.sequences import make_cache, make_moving_sequences

DATA = make_moving_sequences(clips=40, groups=10)
QUICK = TrainSettings(hidden_size=4, projection=4, members=1, epochs=2, folds=3, device="cpu")
MIXED = "lstm:2,logistic_regression=3"


def trained(folder: Path, **changes: Any) -> RunSummary:
    return train_run(make_cache(DATA), QUICK.model_copy(update=changes), folder, echo=lambda line: None)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("mixed"), ensemble=MIXED, pooled_path=False).folder


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("seeds:5", "lstm:5"),
        ("heads", ",".join(HEADS)),
        ("baselines", ",".join(BASELINES)),
        ("lstm, knn", "lstm,knn"),
        (MIXED, MIXED),
    ],
)
def test_what_an_ensemble_is_called_names_it_again(text: str, canonical: str) -> None:
    settings = TrainSettings(ensemble=text)
    assert settings.kind_and_name == ("ensemble", canonical)
    assert TrainSettings(head="bilstm_attention").for_model("ensemble", canonical).kind_and_name == (
        "ensemble",
        canonical,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lstn,knn", "did you mean 'lstm'"),
        ("", "unknown model"),
        ("lstm", "two models or more"),
        ("lstm,lstm", "named twice"),
        ("lstm:0,knn", "1 to 100"),
        ("lstm:x", "1 to 100"),
        ("lstm=0,knn", "weight above 0"),
        ("lstm=nan,knn", "weight above 0"),
        ("folds", "--keep folds"),
    ],
)
def test_wrong_lineups_are_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_ensemble_spec(text, selected_model="lstm")


def test_seeds_of_one_name_share_its_weight() -> None:
    singles = TrainSettings(ensemble=MIXED, seed=7).split_by_model()
    assert [(one.kind_and_name, one.seed, weight) for one, weight in singles] == [
        (("head", "lstm"), 7, 0.5),
        (("head", "lstm"), 8, 0.5),
        (("baseline", "logistic_regression"), 7, 3.0),
    ]


def test_probabilities_are_the_weighted_mean_of_the_members(mixed: Path) -> None:
    predictor = open_model(mixed)
    assert isinstance(predictor.model, Ensemble)
    each = [predict_probs(member.model, DATA.x, DATA.mask, 2) for member in predictor.model.members]
    expected = (0.5 * each[0] + 0.5 * each[1] + 3 * each[2]) / 4
    expected = apply_temperature(expected, predictor.info.temperature)
    np.testing.assert_allclose(predictor.predict(DATA.x, DATA.mask), expected, atol=1e-7)
    assert np.abs(each[0] - each[1]).max() > 1e-4  # two seeds, two models


def test_an_ensemble_is_evaluated_on_the_same_folds_as_any_other() -> None:
    division = make_splits(DATA, folds=3, split=None, seed=0)
    result = cross_validation.cross_validate(DATA, division, QUICK.model_copy(update={"ensemble": MIXED}))
    alone = cross_validation.cross_validate(DATA, division, QUICK.for_model("baseline", "logistic_regression"))
    assert (result.kind, result.name) == ("ensemble", MIXED)
    np.testing.assert_array_equal(result.rows, alone.rows)
    assert result.parameters > alone.parameters
    assert {epoch.member for _, epoch in result.history} == {0, 1}


def test_the_folder_names_each_member_and_its_digest(mixed: Path) -> None:
    tree = json.loads((mixed / "model.json").read_text())
    assert tree["kind"] == "ensemble" and tree["name"] == MIXED
    files = ["member-00.safetensors", "member-01.safetensors", "member-02.skops"]
    assert [member["file"] for member in tree["members"]] == files
    assert sorted(tree["digests"]) == [*files, "unknown.safetensors"]
    assert [member["settings"]["seed"] for member in tree["members"]] == [0, 1, 0]
    assert all((mixed / name).is_file() for name in files)


def test_each_damaged_or_missing_member_is_refused_by_name(mixed: Path, tmp_path: Path) -> None:
    for name in ("member-00.safetensors", "member-02.skops"):
        folder = tmp_path / name
        shutil.copytree(mixed, folder)
        (folder / name).write_bytes(b"x" + (folder / name).read_bytes()[1:])
        with pytest.raises(ArtifactError, match=f"{name} rejected"):
            open_model(folder)
        (folder / name).unlink()
        with pytest.raises(ArtifactError, match=f"{name} rejected"):
            open_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../member-00.safetensors"},
        {"name": "knn"},
        {"weight": 0},
        {"weight": float("nan")},
        {"kind": "oracle"},
    ],
    ids=str,
)
def test_a_changed_member_is_refused(mixed: Path, tmp_path: Path, change: dict[str, object]) -> None:
    shutil.copytree(mixed, tmp_path / "run")
    file = tmp_path / "run" / "model.json"
    tree = json.loads(file.read_text())
    tree["members"][0] |= change
    file.write_text(json.dumps(tree))
    with pytest.raises(ArtifactError, match=r"model\.json rejected: members\.0"):
        open_model(tmp_path / "run")


def test_the_models_of_all_folds_are_kept_as_one(tmp_path: Path) -> None:
    folds = trained(tmp_path, keep="folds")
    assert (folds.info.kind, folds.info.name, len(folds.info.members)) == ("ensemble", "lstm, 3 folds", 3)
    probs = open_model(tmp_path).predict(DATA.x, DATA.mask)
    np.testing.assert_allclose(probs.sum(1), 1)
    with open(tmp_path / "history.csv", newline="") as file:
        assert {row["fold"] for row in csv.DictReader(file)} == {"0", "1", "2"}  # no final refit
    assert "averages the models of all folds" in (tmp_path / "model_card.md").read_text()


def test_a_single_model_takes_the_place_of_an_ensemble(mixed: Path, tmp_path: Path) -> None:
    shutil.copytree(mixed, tmp_path / "run")
    trained(tmp_path / "run", baseline="logistic_regression")
    assert open_model(tmp_path / "run").info.kind == "baseline"
    assert not list((tmp_path / "run").glob("member-*"))


def test_ensembles_of_ensembles_are_flat() -> None:
    one = EnsembleMember(QUICK, fit_module.fit(DATA, make_splits(DATA, folds=3, split=None, seed=0).folds[0], QUICK)[0])  # type: ignore[arg-type]
    inner = Ensemble((one, one))
    joined = combine_models([inner, one.model], [QUICK, QUICK], [1, 1])
    np.testing.assert_allclose(joined.normalized_weights, [0.25, 0.25, 0.5])
