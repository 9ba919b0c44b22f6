import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from hazard.metrics import classification as metrics

RNG = np.random.default_rng(0)


def example(clips=200, classes=3):
    y = RNG.integers(classes, size=clips)
    logits = RNG.normal(size=(clips, classes)) + 1.2 * np.eye(classes)[y]
    probs = np.exp(logits)
    return y, probs / probs.sum(1, keepdims=True)


def test_multi_class_figures_are_scikit_learn_s():
    y, probs = example()
    predicted, got = probs.argmax(1), metrics.headline_metrics(y, probs)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, predicted))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(y, predicted, average="macro"))
    assert got["precision"] == pytest.approx(sk.precision_score(y, predicted, average="macro"))
    assert got["recall"] == pytest.approx(sk.recall_score(y, predicted, average="macro"))
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y, probs, multi_class="ovr"))
    per_class = [sk.average_precision_score(y == k, probs[:, k]) for k in range(3)]
    assert got["pr_auc"] == pytest.approx(np.mean(per_class))
    assert "top5_accuracy" not in got


@pytest.mark.parametrize("positive", [0, 1])
def test_binary_figures_are_those_of_the_positive_label(positive):
    y, probs = example(classes=2)
    predicted, got = probs.argmax(1), metrics.headline_metrics(y, probs, positive=positive)
    assert got["precision"] == pytest.approx(sk.precision_score(y, predicted, pos_label=positive))
    assert got["recall"] == pytest.approx(sk.recall_score(y, predicted, pos_label=positive))
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y == positive, probs[:, positive]))
    assert got["pr_auc"] == pytest.approx(sk.average_precision_score(y == positive, probs[:, positive]))


def test_top5():
    y, probs = example(classes=8)
    assert metrics.headline_metrics(y, probs)["top5_accuracy"] == pytest.approx(sk.top_k_accuracy_score(y, probs, k=5))


def test_ece_by_hand():
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.65, 0.35]])
    assert metrics.ece(np.array([0, 0, 0, 1]), probs) == pytest.approx((2 * 0.05 + 2 * 0.15) / 4)


def test_threshold_is_on_the_positive_label():
    probs = np.array([[0.3, 0.7], [0.8, 0.2]])
    assert metrics.predict_labels(probs, positive=0, threshold=0.25).tolist() == [0, 0]
    assert metrics.predict_labels(probs, positive=1, threshold=0.75).tolist() == [0, 0]


def test_confusion_and_per_class():
    y, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    assert metrics.confusion_matrix(y, predicted, 2).tolist() == [[1, 1], [1, 2]]
    table = metrics.per_class_metrics(y, predicted, ["a", "b"])
    assert table["b"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "clips": 3})


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("y", [[], [0], [1, 1, 1]])
def test_one_class_or_no_clips_are_null_in_json_and_never_a_crash(classes, y):
    y = np.array(y, dtype=np.int64)
    figures = metrics.headline_metrics(y, np.full((len(y), classes), 1 / classes))
    if not len(y):
        assert all(math.isnan(value) for value in figures.values())
    tree = metrics.replace_nan_by_none(figures)
    assert tree["roc_auc"] is None
    json.dumps(tree, allow_nan=False)


def test_equal_scores_are_treated_as_scikit_learn_does():
    y, probs = example(classes=2)
    coarse = probs.round(1)
    assert metrics.roc_auc(y, coarse, positive=1) == pytest.approx(sk.roc_auc_score(y, coarse[:, 1]))
    assert metrics.pr_auc(y, coarse, positive=1) == pytest.approx(sk.average_precision_score(y, coarse[:, 1]))
