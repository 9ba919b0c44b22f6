"""Open-set detection: distances, thresholds from held-out clips, and the file that stores them."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from sklearn.metrics import roc_auc_score

from features.errors import ArtifactError
from hazard.data.splits import make_splits
from hazard.experiments.run import train_run
from hazard.models.model_folder import open_model, save_model
from hazard.models.open_set import OpenSetDetector, energy_score, fit_open_set_detector, max_probability_score
from hazard.models.settings import TrainSettings
from hazard.training import fit as fit_module
from hazard.types import Sequences
from tests.helpers.data.model_info import make_model_info
from tests.helpers.data.sequences import WIDTH, make_cache, make_moving_sequences

QUICK = TrainSettings(hidden_size=4, projection=4, members=1, epochs=1, device="cpu")
KINDS = {"head": "lstm", "baseline": "ridge", "ensemble": "lstm,ridge"}
DATA = make_moving_sequences(clips=240, groups=40)
Arrays = dict[str, np.ndarray]


def everything(sequences: Sequences) -> np.ndarray:
    return np.arange(len(sequences))


def fit_detector(sequences: Sequences) -> OpenSetDetector:
    detector = fit_open_set_detector(sequences, everything(sequences), seed=0)
    assert detector is not None
    return detector


DETECTOR = fit_detector(DATA)


def test_clips_of_a_class_that_training_never_saw_are_stranger() -> None:
    three = make_moving_sequences(clips=360, groups=40, labels=("a", "b", "c"))
    known, unknown = np.flatnonzero(three.y < 2), three.take(np.flatnonzero(three.y == 2))
    held_out = three.take(known[-40:])
    detector = fit_open_set_detector(three, known[:-40], seed=0)
    assert detector is not None
    scores = [detector.scores(clips.x, clips.mask) for clips in (held_out, unknown)]
    truth = np.repeat([0, 1], [len(each) for each in scores])
    assert roc_auc_score(truth, np.concatenate(scores)) > 0.9


def test_other_footage_is_called_unknown() -> None:
    elsewhere = DATA.x + 5 * np.sign(np.random.default_rng(0).normal(size=WIDTH)).astype(np.float32)
    threshold = DETECTOR.threshold(0.02)
    assert threshold is not None
    assert (DETECTOR.scores(elsewhere, DATA.mask) >= threshold).mean() > 0.95


def test_the_further_away_the_stranger_in_every_direction() -> None:
    ways = np.random.default_rng(0).normal(size=(200, len(DETECTOR.mean))).astype(np.float32)
    ways = np.concatenate([ways, DETECTOR.components, DETECTOR.centres @ DETECTOR.components])
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    near, far, further = (DETECTOR.distances(DETECTOR.mean + step * ways / DETECTOR.scale) for step in (30, 100, 300))
    assert (further > far).all() and (far > near).all() and (far > DETECTOR.threshold(0.001)).all()


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_about_the_asked_share_of_new_clips_of_the_same_kind_is_called_unknown(share: float) -> None:
    new = make_moving_sequences(clips=600, groups=600, seed=1)
    called = float((DETECTOR.scores(new.x, new.mask) >= (DETECTOR.threshold(share) or 0)).mean())
    assert share / 2.5 < called < share * 2.5


def test_thresholds_are_of_clips_that_were_held_out_not_of_those_learned_from() -> None:
    few = make_moving_sequences(clips=60, groups=20)
    detector = fit_detector(few)
    own = np.quantile(detector.scores(few.x, few.mask), 0.8)
    assert (detector.threshold(0.2) or 0) > own


def test_a_smaller_share_asks_for_stranger_clips() -> None:
    thresholds = [DETECTOR.threshold(share) for share in (0.5, 0.1, 0.02, 0.001)]
    assert thresholds == sorted(thresholds, key=lambda each: each or 0)
    assert DETECTOR.threshold(0) is None


def test_scores_depend_neither_on_padding_nor_on_company() -> None:
    scores = DETECTOR.scores(DATA.x, DATA.mask)
    padded = np.pad(DATA.x, ((0, 0), (0, 5), (0, 0)), constant_values=99), np.pad(DATA.mask, ((0, 0), (0, 5)))
    np.testing.assert_allclose(DETECTOR.scores(*padded), scores, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(DETECTOR.scores(DATA.x[7:8], DATA.mask[7:8]), scores[7:8], rtol=1e-3, atol=1e-3)
    assert DETECTOR.scores(DATA.x[:0], DATA.mask[:0]).shape == (0,)


def test_clips_that_are_all_alike_or_of_one_step_are_no_trouble() -> None:
    flat = replace(DATA, x=np.ones_like(DATA.x), mask=np.arange(DATA.x.shape[1]) == np.zeros((len(DATA), 1)))
    assert np.isfinite(fit_detector(flat).scores(DATA.x, DATA.mask)).all()


@pytest.mark.parametrize(("clips", "groups"), [(8, 8), (60, 1)])
def test_nothing_is_said_where_nothing_can_be_held_out(clips: int, groups: int) -> None:
    few = make_moving_sequences(clips=clips, groups=groups)
    assert fit_open_set_detector(few, everything(few), seed=0) is None


def test_what_a_model_says_of_itself() -> None:
    np.testing.assert_allclose(max_probability_score(np.array([[0.9, 0.1], [0.5, 0.5]])), [0.1, 0.5])
    logits = np.array([[8.0, 0.0], [0.1, 0.0]])
    assert energy_score(logits)[0] < energy_score(logits)[1]
    log_probs = logits - np.logaddexp(*logits.T)[:, None]
    np.testing.assert_allclose(
        energy_score(log_probs), 0, atol=1e-12
    )  # which is why probabilities alone have no energy


# ---- the model folder ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind: str = request.param
    settings = QUICK.for_model(kind, KINDS[kind])
    model, _ = fit_module.fit(DATA, make_splits(DATA, folds=3).folds[0], settings)
    about = make_model_info(kind, KINDS[kind], settings=settings, reduction_kind=None)
    path = tmp_path_factory.mktemp(kind)
    save_model(path, info=about, model=model, reduction=None, open_set_detector=DETECTOR)
    return path


def test_all_kinds_of_models_tell_alike(folder: Path) -> None:
    predictor = open_model(folder)
    scores = predictor.ood_scores(DATA.x, DATA.mask)
    assert scores is not None
    np.testing.assert_array_equal(scores, DETECTOR.scores(DATA.x, DATA.mask))
    assert predictor.find_ood_threshold(0.02) == DETECTOR.threshold(0.02)
    assert predictor.find_ood_threshold(0) is None
    with pytest.raises(ValueError, match="expected x"):
        predictor.ood_scores(DATA.x[..., 1:], DATA.mask)


def test_a_model_without_the_file_calls_nothing_unknown(folder: Path, tmp_path: Path) -> None:
    saved = open_model(folder)
    save_model(tmp_path, info=saved.info, model=saved.model, reduction=None, open_set_detector=DETECTOR)
    save_model(tmp_path, info=saved.info, model=saved.model, reduction=None)
    assert not (tmp_path / "unknown.safetensors").exists()
    old = open_model(tmp_path)
    assert old.ood_scores(DATA.x, DATA.mask) is None and old.find_ood_threshold(0.02) is None


def changed(**arrays: Any) -> Callable[[Arrays], Arrays]:
    return lambda held: held | arrays


MALFORMED: dict[str, Callable[[Arrays], Arrays]] = {
    "an array is missing": lambda held: {name: array for name, array in held.items() if name != "within"},
    "one is too many": changed(evil=np.ones(1, np.float32)),
    "not a number": lambda held: held | {"mean": np.full_like(held["mean"], np.nan)},
    "another type": lambda held: held | {"mean": held["mean"].astype(np.float64)},
    "another shape": lambda held: held | {"components": held["components"][:, :-1]},
    "no class": lambda held: held | {"centres": held["centres"][:0]},
    "shares out of order": lambda held: held | {"shares": held["shares"][::-1].copy()},
    "thresholds that rise": lambda held: held | {"thresholds": held["thresholds"][::-1].copy()},
    "no spread": changed(residual=np.zeros(1, np.float32)),
    "other features": lambda _: fit_detector(replace(DATA, x=DATA.x[..., :8])).to_arrays(),
}


@pytest.mark.parametrize("how", MALFORMED)
def test_a_malformed_file_is_refused(how: str, folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = safetensors.numpy.save(MALFORMED[how](DETECTOR.to_arrays()))
    (tmp_path / "unknown.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"unknown\.safetensors rejected: it is damaged"):
        open_model(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    about["digests"]["unknown.safetensors"] = hashlib.sha256(content).hexdigest()  # as an attacker would
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(ArtifactError, match=r"unknown\.safetensors rejected") as caught:
        open_model(tmp_path)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [{"folds": 3}, {"folds": 3, "keep": "folds"}, {}], ids=str)
def test_training_leaves_it_in_the_model_folder(given: dict[str, Any], tmp_path: Path) -> None:
    settings = QUICK.for_model("baseline", "ridge").model_copy(update=given)
    train_run(make_cache(DATA), settings, tmp_path, echo=lambda line: None)
    predictor = open_model(tmp_path)
    scores = predictor.ood_scores(DATA.x, DATA.mask)
    threshold = predictor.find_ood_threshold(0.05)
    assert scores is not None and threshold is not None and (scores >= threshold).mean() < 0.1
    assert (tmp_path / "unknown.safetensors").stat().st_size < 2**20
