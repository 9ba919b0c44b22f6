import numpy as np
import pytest

from hazard.metrics import plots

RNG = np.random.default_rng(0)
PNG = b"\x89PNG\r\n"


def example(classes, clips=60):
    y = RNG.integers(classes, size=clips)
    probs = RNG.dirichlet(np.ones(classes), size=clips) + np.eye(classes)[y]
    return y, probs / probs.sum(1, keepdims=True), [f"class {k}" for k in range(classes)]


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_pictures_of_any_number_of_classes(classes):
    y, probs, labels = example(classes)
    counts = np.eye(classes, dtype=np.int64)
    positive = labels[1] if classes == 2 else None
    for figure in (
        plots.plot_confusion(counts, labels),
        plots.plot_roc_and_pr_curves(y, probs, labels, positive=positive),
        plots.plot_reliability(y, probs),
    ):
        assert plots.render_png(figure).startswith(PNG)


def test_axes_are_labelled():
    y, probs, labels = example(2)
    figures = [
        plots.plot_roc_and_pr_curves(y, probs, labels, positive=labels[0]),
        plots.plot_history([[(1, 0.7, 0.7, True)]]),
    ]
    for axes in (axes for figure in figures for axes in figure.axes):
        assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()


def test_curves_of_one_class_say_that_they_are_undefined():
    figure = plots.plot_roc_and_pr_curves(np.zeros(3, np.int64), np.full((3, 2), 0.5), ["a", "b"], positive="b")
    assert all("undefined" in axes.texts[0].get_text() for axes in figure.axes)


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [[(1, 0.7, float("nan"), True)]],
        [[(1, 0.7, 0.8, False), (2, 0.6, 0.7, True)]] * 5,
        [[(1, 0.7, 0.8, True)]] * 9,
    ],
)
def test_history_of_none_one_and_many(runs):
    assert plots.render_png(plots.plot_history(runs)).startswith(PNG)


def test_the_leaderboard_shows_every_model_even_without_a_figure():
    rows = [
        {"model": "lstm", "kind": "head", "roc_auc": 0.8, "roc_auc_low": 0.7, "roc_auc_high": 0.9},
        {
            "model": "knn",
            "kind": "baseline",
            "roc_auc": float("nan"),
            "roc_auc_low": float("nan"),
            "roc_auc_high": float("nan"),
        },
    ]
    figure = plots.plot_leaderboard(rows)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["lstm", "knn"]
    assert plots.render_png(figure).startswith(PNG)


def test_the_leaderboard_names_the_kinds_that_are_there_and_marks_what_is_worse():
    row = {"model": "mean_of_all", "kind": "ensemble", "roc_auc": 0.8, "roc_auc_low": 0.7, "roc_auc_high": 0.9}
    worse = row | {"model": "knn", "kind": "baseline", "within_noise": 0}
    words = [text.get_text() for text in plots.plot_leaderboard([row, worse]).axes[0].get_legend().get_texts()]
    assert words[:2] == ["baseline", "ensemble"] and "worse than the best" in words[2]
