import argparse
import copy
import functools
import json

import numpy as np
import pytest
import safetensors.numpy
import skops.io
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline

from features.cache.reduction import Reduction
from features.errors import ArtifactError, SettingsError
from hazard.models.baselines import BASELINES, fit_baseline, get_statistics, predict_baseline
from hazard.models.calibration import apply_temperature
from hazard.models.head_ensemble import build_head_ensemble
from hazard.models.heads import HEADS
from hazard.models.input_spec import ModelInputSpec, read_input_spec
from hazard.models.model_folder import TRUSTED_TYPES, open_model, save_model
from hazard.models.onnx.modules import FeaturesToProbabilities
from hazard.models.pooling import pool
from tests.helpers.data.model_info import DATA, SPEC, make_model_info
from tests.helpers.data.sequences import WIDTH, make_moving_sequences

ALL = [("head", name) for name in HEADS] + [("baseline", name) for name in BASELINES]


@functools.cache
def fitted(name):
    return fit_baseline(name, DATA, seed=0)


def saved(folder, kind, name):
    torch.manual_seed(0)
    about = make_model_info(kind, name)
    if kind == "head":
        model = build_head_ensemble(WIDTH, 2, about.settings.model_copy(update={"head": name})).eval()
    else:
        model = copy.deepcopy(fitted(name))
    reduction = Reduction("select:12", channels=np.arange(WIDTH, dtype=np.int64))
    save_model(folder, info=about, model=model, reduction=reduction)
    return model


@pytest.fixture(params=ALL, ids=lambda pair: pair[1])
def folder(request, tmp_path):
    saved(tmp_path / "run", *request.param)
    return tmp_path / "run"


def test_a_model_is_opened_by_its_folder_alone(folder):
    first, second = open_model(folder), open_model(folder)
    probs = first.predict(DATA.x, DATA.mask)
    assert probs.shape == (len(DATA), 2)
    np.testing.assert_allclose(probs.sum(1), 1)
    np.testing.assert_array_equal(second.predict(DATA.x, DATA.mask), probs)
    assert (first.labels, first.positive_label, first.threshold) == (DATA.labels, "fight", 0.5)
    assert first.feature_spec["backbone"] == "toy" and first.fingerprint == SPEC.fingerprint
    assert first.reduction.channels.tolist() == list(range(WIDTH))


def test_probabilities_do_not_depend_on_the_batch_size(folder):
    predictor = open_model(folder)
    whole = predictor.predict(DATA.x, DATA.mask)
    np.testing.assert_allclose(predictor.predict(DATA.x, DATA.mask, batch_size=7), whole, atol=1e-6)
    assert predictor.predict(DATA.x[:0], DATA.mask[:0]).shape == (0, 2)


def test_opening_gives_the_very_model_that_was_saved(tmp_path):
    model = saved(tmp_path, "head", "lstm")
    with torch.inference_mode():
        expected = model(torch.from_numpy(DATA.x), torch.from_numpy(DATA.mask)).softmax(-1).numpy()
    np.testing.assert_allclose(open_model(tmp_path).predict(DATA.x, DATA.mask), expected, atol=1e-6)


def test_labels_follow_the_threshold(folder):
    probs = np.array([[0.6, 0.4], [0.4, 0.6]])
    predictor = open_model(folder)
    assert (
        predictor.predict_labels(probs) == predictor.with_threshold(None).predict_labels(probs) == ["fight", "noFight"]
    )
    assert predictor.with_threshold(0.3).predict_labels(probs) == ["fight", "fight"]


def test_foreign_shapes_are_a_programming_error(folder):
    predictor = open_model(folder)
    with pytest.raises(ValueError, match=rf"\(B, T, {WIDTH}\)"):
        predictor.predict(DATA.x[..., :5], DATA.mask)
    with pytest.raises(ValueError, match="no real step"):
        predictor.predict(DATA.x, np.zeros_like(DATA.mask))


@pytest.mark.parametrize("missing", ["nowhere", "."])
def test_no_model_there(tmp_path, missing):
    with pytest.raises(SettingsError, match="no model at"):
        open_model(tmp_path / missing)


def test_any_damaged_file_is_refused_by_name(folder):
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for broken in (b"", whole[: len(whole) // 2], bytes([whole[0] ^ 255]) + whole[1:]):
            file.write_bytes(broken)
            with pytest.raises(ArtifactError, match=file.name):
                open_model(folder)
        file.unlink()
        with pytest.raises((ArtifactError, SettingsError)):
            open_model(folder)
        file.write_bytes(whole)
    open_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 99},
        {"name": "gru9"},
        {"kind": "oracle"},
        {"labels": ["a"]},
        {"labels": ["a", "a"]},
        {"positive_label": "walk"},
        {"threshold": 2},
        {"temperature": 0},
        {"width": 7},
        {"settings": {"head": "lstm", "hidden_size": 5}},
        {"settings": {"nonsense": 1}},
        {"unknown": 1},
        {"digests": {}},
    ],
    ids=str,
)
def test_a_changed_model_json_is_refused_in_one_line(tmp_path, change):
    saved(tmp_path, "head", "lstm")
    file = tmp_path / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ArtifactError) as caught:
        open_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_a_model_must_be_fed_is_read_without_opening_it(tmp_path):
    saved(tmp_path, "head", "lstm")
    opened, source = open_model(tmp_path).info, read_input_spec(tmp_path)
    assert source == ModelInputSpec(**{name: getattr(opened, name) for name in ModelInputSpec.model_fields})
    assert source.spec.model_dump() == opened.spec.model_dump()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": "0" * 16}, "feature_spec was changed"),
        ({"feature_spec": {"nonsense": 1}}, "differing in: .*nonsense"),
        ({"window": {"steps": 0, "duration_seconds": 1}}, "window.steps"),
    ],
)
def test_neither_reads_a_model_that_must_be_fed_otherwise(tmp_path, change, said):
    saved(tmp_path, "head", "lstm")
    file = tmp_path / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    for read in (read_input_spec, open_model):
        with pytest.raises(ArtifactError, match=said):
            read(tmp_path)


def forge(folder, name, content):
    """Replace a file and its digest, as an attacker would."""
    import hashlib

    (folder / name).write_bytes(content)
    file = folder / "model.json"
    tree = json.loads(file.read_text())
    tree["digests"][name] = hashlib.sha256(content).hexdigest()
    file.write_text(json.dumps(tree))


def test_types_outside_our_list_are_never_loaded(tmp_path):
    saved(tmp_path, "baseline", "knn")
    forge(tmp_path, "model.skops", skops.io.dumps({"evil": json.JSONDecoder}))
    with pytest.raises(ArtifactError, match=r"model\.skops"):
        open_model(tmp_path)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_predicts_as_before_it_was_saved(tmp_path, name):
    model = saved(tmp_path, "baseline", name)
    expected = predict_baseline(model, DATA.x, DATA.mask, classes=2)
    np.testing.assert_array_equal(open_model(tmp_path).predict(DATA.x, DATA.mask), expected)


@pytest.mark.parametrize("count", [2, 3])
def test_a_baseline_of_an_earlier_version_predicts_as_it_did(tmp_path, count):
    """Earlier versions calibrated with a sigmoid per label, which could also fall."""
    data = make_moving_sequences(clips=40, labels=("a", "b", "c")[:count])
    model = fit_baseline("ridge", data, seed=0)
    pooled = pool(data.x, data.mask, get_statistics(model))
    earlier = CalibratedClassifierCV(BASELINES["ridge"].classifier(0), cv=3, ensemble=False)
    model = Pipeline([model.steps[0], ("classifier", earlier.fit(model[:-1].transform(pooled), data.y))])
    about = {"labels": data.labels, "positive_label": None if count == 3 else "a", "reduction_kind": None}
    save_model(tmp_path, info=make_model_info("baseline", "ridge", **about), model=model, reduction=None)
    opened = open_model(tmp_path)
    np.testing.assert_array_equal(opened.predict(data.x, data.mask), model.predict_proba(pooled))
    with torch.inference_mode():
        exported = FeaturesToProbabilities(opened)(torch.from_numpy(data.x), torch.from_numpy(data.mask))
    np.testing.assert_allclose(exported.numpy(), model.predict_proba(pooled), atol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_the_types_that_may_be_opened_are_those_that_are_saved(tmp_path, name):
    saved(tmp_path, "baseline", name)
    assert set(skops.io.get_untrusted_types(file=tmp_path / "model.skops")) <= set(TRUSTED_TYPES)


def test_no_type_is_trusted_in_vain():
    models = [*map(fitted, BASELINES), fit_baseline("ridge", make_moving_sequences(labels=("a", "b", "c")), seed=0)]
    saved_types = [skops.io.get_untrusted_types(data=skops.io.dumps(model)) for model in models]
    assert set().union(*saved_types) == set(TRUSTED_TYPES)


def test_a_foreign_type_is_named(tmp_path):
    model = saved(tmp_path, "baseline", "knn")
    model.steps[-1][1].estimator = argparse.Namespace(a=1)
    forge(tmp_path, "model.skops", skops.io.dumps(model))
    with pytest.raises(ArtifactError, match=r"argparse\.Namespace") as caught:
        open_model(tmp_path)
    assert caught.value.exit_code == 4


def test_statistics_that_nobody_knows_are_refused(tmp_path):
    model = saved(tmp_path, "baseline", "knn")
    model[0].transformers = [(f"x{name}", *rest) for name, *rest in model[0].transformers]
    forge(tmp_path, "model.skops", skops.io.dumps(model))
    with pytest.raises(ArtifactError, match="does not contain a knn"):
        open_model(tmp_path)


def test_probabilities_are_scaled_by_the_temperature(tmp_path):
    model = saved(tmp_path, "baseline", "ridge")
    file = tmp_path / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 2.0}))
    raw = predict_baseline(model, DATA.x, DATA.mask, classes=2)
    np.testing.assert_allclose(open_model(tmp_path).predict(DATA.x, DATA.mask), apply_temperature(raw, 2.0))


def test_another_estimator_is_refused(tmp_path):
    saved(tmp_path, "baseline", "knn")
    other = DummyClassifier().fit(np.zeros((2, 3 * WIDTH)), [0, 1])
    forge(tmp_path, "model.skops", skops.io.dumps(other))
    with pytest.raises(ArtifactError, match="does not contain a knn"):
        open_model(tmp_path)


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    saved(tmp_path, "head", "lstm")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    name = next(iter(tensors))
    forge(tmp_path, "model.safetensors", safetensors.numpy.save(tensors | {name: np.full_like(tensors[name], np.nan)}))
    with pytest.raises(ArtifactError, match="NaN"):
        open_model(tmp_path)


def test_a_reduction_of_another_width_is_refused(tmp_path):
    saved(tmp_path, "head", "lstm")
    forge(tmp_path, "reduction.safetensors", safetensors.numpy.save({"channels": np.arange(3)}))
    with pytest.raises(ArtifactError, match="gives 3 features"):
        open_model(tmp_path)


def test_another_kind_of_model_takes_the_place_of_the_first(tmp_path):
    saved(tmp_path, "head", "lstm")
    saved(tmp_path, "baseline", "knn")
    assert open_model(tmp_path).info.name == "knn"
    assert not (tmp_path / "model.safetensors").exists()
