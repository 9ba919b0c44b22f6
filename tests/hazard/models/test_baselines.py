import dataclasses
import logging

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from features.errors import SettingsError
from hazard.models.baselines import (
    BASELINES,
    count_parameters,
    fit_baseline,
    get_classifier,
    get_statistics,
    is_baseline,
    make_calibration_parts,
    predict_baseline,
)
from hazard.models.pooling import STATISTICS, pool
from hazard.types import Sequences
from tests.helpers.data.sequences import WIDTH, make_moving_sequences

DATA = make_moving_sequences(clips=80)
TRAIN, TEST = DATA.take(np.arange(50)), DATA.take(np.arange(50, 80))


@pytest.fixture(params=BASELINES, scope="module")
def fitted(request):
    return request.param, fit_baseline(request.param, TRAIN, seed=3)


def predicted(model, classes=2):
    return predict_baseline(model, TEST.x, TEST.mask, classes=classes)


def test_a_baseline_finds_planted_motion(fitted):
    probs = predicted(fitted[1])
    np.testing.assert_allclose(probs.sum(1), 1)
    assert roc_auc_score(TEST.y, probs[:, 1]) > 0.75 or fitted[0] == "mean_logistic"  # means do not move


def test_the_seed_decides_and_the_number_of_threads_does_not(fitted):
    name, model = fitted
    np.testing.assert_array_equal(predicted(fit_baseline(name, TRAIN, seed=3)), predicted(model))
    np.testing.assert_allclose(predicted(fit_baseline(name, TRAIN, seed=3, jobs=3)), predicted(model), atol=1e-5)


def test_neither_padding_nor_order_nor_company_changes_a_prediction(fitted):
    _, model = fitted
    order = np.random.default_rng(0).permutation(len(TEST))
    x, mask = (np.concatenate([a, np.zeros_like(a)], axis=1)[order] for a in (TEST.x, TEST.mask))
    alone = np.concatenate([predict_baseline(model, x[i : i + 1], mask[i : i + 1], classes=2) for i in range(len(x))])
    np.testing.assert_allclose(predict_baseline(model, x, mask, classes=2), predicted(model)[order], atol=1e-5)
    np.testing.assert_allclose(alone, predicted(model)[order], atol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_a_label_that_training_never_met_gets_zero(name):
    data = dataclasses.replace(TRAIN, labels=("a", "b", "c"), y=TRAIN.y * 2)
    probs = predicted(fit_baseline(name, data, seed=0), classes=3)
    assert (probs[:, 1] == 0).all()
    assert probs.sum() == pytest.approx(len(TEST))


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("rows", [np.arange(4), np.array([0, 1, 2, 4]), np.array([0, 1, 2])], ids=str)
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:RuntimeWarning")
def test_few_clips_are_enough(name, rows):
    model = fit_baseline(name, TRAIN.take(rows), seed=0)
    assert count_parameters(model) >= 0
    assert predict_baseline(model, TEST.x[:0], TEST.mask[:0], classes=2).shape == (0, 2)
    np.testing.assert_allclose(predicted(model).sum(1), 1)


@pytest.mark.parametrize("name", BASELINES)
def test_one_label_is_refused(name):
    with pytest.raises(SettingsError, match="two or more labels"):
        fit_baseline(name, TRAIN.take(np.flatnonzero(TRAIN.y == 0)), seed=0)
    with pytest.raises(SettingsError, match="more training clips than the 2 labels, got 2"):
        fit_baseline(name, TRAIN.take(np.arange(2)), seed=0)


def test_a_pipeline_knows_its_statistics_and_its_name(fitted):
    name, model = fitted
    assert get_statistics(model) == BASELINES[name].statistics
    alike = {"logistic_regression", "mean_logistic"}  # the same steps
    assert {other for other in BASELINES if is_baseline(model, other)} == (alike if name in alike else {name})
    assert not is_baseline(get_classifier(model), name)


@pytest.mark.parametrize("scale", ["column", "kind"])
@pytest.mark.parametrize("statistics", [("absolute_difference",), tuple(STATISTICS)], ids=len)
def test_statistics_and_their_scale_are_the_user_s_choice(statistics, scale):
    model = fit_baseline("ridge", TRAIN, seed=0, statistics=statistics, scale=scale)
    assert get_statistics(model) == statistics
    assert get_classifier(model).n_features_in_ == len(statistics) * WIDTH
    assert roc_auc_score(TEST.y, predicted(model)[:, 1]) > 0.75


def test_a_common_scale_keeps_the_order_of_components():
    faint = dataclasses.replace(TRAIN, x=TRAIN.x * np.where(np.arange(WIDTH) < 4, 1, 1e-3).astype(np.float32))
    own, common = (
        fit_baseline("ridge", faint, seed=0, statistics=["mean"], scale=scale)[0].transform(
            faint.x[:, :1].reshape(len(faint), -1)
        )
        for scale in ("column", "kind")
    )
    assert own.std(0).min() > 0.5 and common.std(0)[4:].max() < 0.01 < common.std(0)[:4].min()


def test_calibration_holds_out_whole_groups():
    parts = make_calibration_parts(TRAIN.y, TRAIN.groups, seed=0)
    assert len(parts) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in parts])), np.arange(len(TRAIN)))
    for rest, held in parts:
        assert not set(TRAIN.groups[rest]) & set(TRAIN.groups[held])


def test_where_groups_cannot_be_kept_apart_clips_are_and_else_it_is_said(caplog):
    y, one = np.arange(10) % 2, np.full(10, "a")
    assert len(make_calibration_parts(y, one, seed=0)) == 5
    with caplog.at_level(logging.WARNING):
        parts = make_calibration_parts(np.array([0, 1]), np.array(["a", "b"]), seed=0)
    assert len(parts) == 1 and "overconfident" in caplog.text


def test_grouped_calibration_is_the_more_modest_one():
    """Ten near copies of each clip: holding out copies of known clips makes a model believe that it is always right."""
    rng = np.random.default_rng(0)
    few = make_moving_sequences(clips=30, groups=15).take(np.repeat(np.arange(30), 10))
    noise = rng.normal(scale=0.01, size=few.x.shape).astype(np.float32)
    copies = dataclasses.replace(few, x=few.x + noise, y=np.repeat(rng.permutation(np.arange(30) % 2), 10))
    apart = dataclasses.replace(copies, groups=np.repeat([f"video{i}" for i in range(30)], 10))
    split = dataclasses.replace(copies, groups=np.array([str(i) for i in range(300)]))
    sure = [predicted(fit_baseline("knn", data, seed=0)).max(1).mean() for data in (apart, split)]
    assert sure[0] < sure[1]


def make_ranked_sequences(kind: str, seed: int) -> Sequences:
    """Return 40 clips of four columns in groups of four, or 52 of them with one of the second label."""
    rng = np.random.default_rng(seed)
    clips = 102 if kind == "unequal" else 40
    y = np.arange(clips) % 51 // 50 if kind == "unequal" else rng.permutation(np.arange(clips) % 2)
    groups = np.arange(clips) // 4
    if kind == "one label a group":
        y = groups % 2
    gain = {"separable": 3.0, "weak": 0.2, "unequal": 1.0, "one label a group": 0.5}[kind]
    track = rng.normal(size=(clips, 1, 4)) + 0.3 * rng.normal(size=(clips, 3, 4)) + gain * y[:, None, None]
    if kind == "one label a group":
        track += rng.normal(size=(clips, 1, 4))[groups]
    return Sequences(
        x=track.astype(np.float32),
        mask=np.ones((clips, 3), bool),
        y=y.astype(np.int64),
        groups=np.array([f"video{number}" for number in groups]),
        paths=np.array([f"{number}.mp4" for number in range(clips)]),
        splits=np.full(clips, ""),
        labels=("calm", "fight"),
    )


def raw_scores(model, data):
    """Return what the classifier itself says of each clip: its decision function, or its probabilities."""
    rows = model[:-1].transform(pool(data.x, data.mask, get_statistics(model)))
    classifier = get_classifier(model)
    if hasattr(classifier, "decision_function"):
        return classifier.decision_function(rows)
    return classifier.predict_proba(rows)


SEEDS = {"random_forest": 1, "lda": 4, "mean_logistic": 4}  # of each kind; 2 for the others


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.filterwarnings("ignore:Only one sample available")
def test_calibration_never_changes_a_ranking(name):
    for kind in ("separable", "weak", "unequal", "one label a group"):
        for seed in range(SEEDS.get(name, 2)):
            data = make_ranked_sequences(kind, seed)
            test = dataclasses.replace(make_ranked_sequences(kind, seed + 1000), y=np.arange(len(data)) % 2)
            model = fit_baseline(name, data, seed=seed)
            raw = raw_scores(model, test)
            raw = raw if raw.ndim == 1 else raw[:, 1]
            probs = predict_baseline(model, test.x, test.mask, classes=2)[:, 1]
            assert roc_auc_score(test.y, probs) == pytest.approx(roc_auc_score(test.y, raw), abs=1e-12), (kind, seed)


@pytest.mark.parametrize("name", BASELINES)
def test_calibration_never_changes_the_order_of_the_labels_of_a_clip(name):
    data = make_moving_sequences(clips=60, labels=("a", "b", "c"), seed=1)
    model = fit_baseline(name, data, seed=0)
    probs = predict_baseline(model, data.x, data.mask, classes=3)
    raw = raw_scores(model, data)
    ranked = np.take_along_axis(probs, raw.argsort(axis=1), axis=1)
    assert (np.diff(ranked, axis=1) >= 0).all() and len(np.unique(probs)) > 3


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c", "d")], ids=len)
def test_where_nothing_can_be_learnt_it_is_said_and_nothing_is_claimed(labels, caplog):
    flat = make_moving_sequences(clips=48, labels=labels)
    flat = dataclasses.replace(flat, x=np.ones_like(flat.x), mask=np.ones_like(flat.mask))
    model = fit_baseline("ridge", flat, seed=0)
    assert "ridge ranks held-out training clips no better than chance" in caplog.text
    np.testing.assert_allclose(
        predict_baseline(model, flat.x, flat.mask, classes=len(labels)), 1 / len(labels), atol=0.02
    )


def test_perfect_ranking_of_few_clips_gives_no_certainty():
    data = make_moving_sequences(clips=60, labels=("a", "b", "c"))
    data = dataclasses.replace(data, x=data.x + 50 * np.eye(3, WIDTH, dtype=np.float32)[data.y][:, None])
    probs = predict_baseline(fit_baseline("lda", data, seed=0), data.x, data.mask, classes=3)
    assert (probs.argmax(1) == data.y).all() and 0.9 < probs.max(1).mean() < 0.999


def test_all_that_is_fitted_for_calibration_leaves_the_held_out_clips_out(monkeypatch):
    seen = []
    fit_scaler = StandardScaler.fit

    def watch(self, rows, *args, **kwargs):
        seen.append(len(rows))
        return fit_scaler(self, rows, *args, **kwargs)

    monkeypatch.setattr(StandardScaler, "fit", watch)
    fit_baseline("linear_svm", TRAIN, seed=0, statistics=["mean"])
    parts = make_calibration_parts(TRAIN.y, TRAIN.groups, seed=0)
    fits = [*(len(rest) for rest, _ in parts), len(TRAIN)]
    assert seen == [rows for fit in fits for rows in (fit, fit)]  # once to choose the size of the means


def test_the_mean_alone_counts_in_full():
    assert BASELINES["mean_logistic"].statistics == ("mean",)
    data = make_ranked_sequences("separable", 0)
    rows = fit_baseline("mean_logistic", data, seed=0)[0].transform(data.x.mean(1))
    np.testing.assert_allclose(rows.std(0), 1, atol=1e-3)
