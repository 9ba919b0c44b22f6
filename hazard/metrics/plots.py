"""Plots of metrics, in the colours of Okabe and Ito, which colour-blind readers can tell apart, and without pyplot."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from hazard.metrics import classification as metrics

BLUE, ORANGE, GREEN, VERMILION, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
MODEL_STYLES = {
    "head": (BLUE, "o", "temporal head"),
    "baseline": (ORANGE, "s", "baseline"),
    "ensemble": (GREEN, "D", "ensemble"),
}
"""Colour, marker and name of each kind of model."""
MAX_NAMED_CLASSES = 25
"""Largest number of classes whose names fit beside a matrix."""
MAX_PRINTED_CLASSES = 12
"""Largest number of classes whose counts fit into the cells."""
MAX_DISTINCT_RUNS = 6
"""Largest number of training runs that can be told apart as single lines."""
LOSS_LINES = ((1, BLUE, "training, with label smoothing"), (2, ORANGE, "inner validation"))
"""Column of a run, colour and name of each line."""


def render_png(figure: Figure) -> bytes:
    """Render the figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def plot_confusion(counts: NDArray[np.int64], labels: Sequence[str], *, repeats: int = 1) -> Figure:
    """Plot counts (K, K), rows the truth.

    A cell shows its count and is coloured by its share of the row.
    """
    clips = f"{counts.sum()} clips" if repeats == 1 else f"{counts.sum()} predictions, {repeats} repeats"
    side = min(4.5 + 0.28 * len(labels), 13.0)
    figure, axes = _make_figure(side + 0.8, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= MAX_PRINTED_CLASSES:
        _print_cells(axes, counts, shares)
    ticks = range(len(labels)) if len(labels) <= MAX_NAMED_CLASSES else []
    axes.set_xticks(ticks, [_truncate_label(labels[k]) for k in ticks], rotation=40 if len(labels) > 2 else 0)
    axes.set_yticks(ticks, [_truncate_label(labels[k]) for k in ticks])
    for tick in axes.get_xticklabels():
        tick.set_horizontalalignment("right" if len(labels) > 2 else "center")
    axes.set(xlabel="predicted label", ylabel="true label", title=f"Confusion matrix of {clips}")
    figure.colorbar(image, ax=axes, label="share of the true label's clips", shrink=0.82)
    return figure


def plot_roc_and_pr_curves(
    y: NDArray[np.int64], probs: NDArray[np.float64], labels: Sequence[str], *, positive: str | None
) -> Figure:
    """Plot ROC and precision-recall of the positive label.

    With three labels or more the curves are micro-averaged one-vs-rest.
    """
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    truth, score, description = _binarize(y, probs, labels, positive)
    if 0 < truth.sum() < len(truth):
        false_share, true_share, _ = roc_curve(truth, score)
        precision, recall, _ = precision_recall_curve(truth, score)
        left.plot(
            false_share,
            true_share,
            color=BLUE,
            lw=2,
            label=f"area {metrics.roc_auc(truth, _binary_probs(score), positive=1):.3f}",
        )
        area = metrics.pr_auc(truth, _binary_probs(score), positive=1)
        right.step(recall, precision, where="post", color=BLUE, lw=2, label=f"average precision {area:.3f}")
        right.axhline(truth.mean(), color=GRAY, ls="--", lw=1, label=f"chance {truth.mean():.3f}")
    else:
        for axes in (left, right):
            _write_note(axes, "undefined: all clips are of one class")
    left.plot([0, 1], [0, 1], color=GRAY, ls="--", lw=1, label="chance 0.500")
    left.set(xlabel="false positive rate", ylabel="true positive rate (recall)", title=f"ROC, {description}")
    right.set(xlabel="recall", ylabel="precision", title=f"Precision and recall, {description}")
    for axes, corner in ((left, "lower right"), (right, "lower left")):
        _format_unit_axes(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc=corner, frameon=False)
    return figure


def plot_history(runs: Sequence[Sequence[tuple[int, float, float, bool]]]) -> Figure:
    """Plot the losses of each trained head: a run is (epoch, training loss, validation loss, best) per epoch.

    With many runs each line is faint. A thick line then shows the median, for as long as half of the runs lasted.
    """
    figure, axes = _make_figure(7.5, 4.6)
    many = len(runs) > MAX_DISTINCT_RUNS
    for number, run in enumerate(runs):
        faint = 0.2 if many else 0.45 if len(runs) > 1 else 1.0
        for column, color, name in LOSS_LINES:
            label = name if number == 0 and not many else None
            points = [row for row in run if not math.isnan(row[column])]
            if points:
                axes.plot(*_get_points(points, column), color=color, lw=0.9 if many else 1.3, alpha=faint, label=label)
        best = [row for row in run if row[3] and not math.isnan(row[2])]
        label = "kept epoch" if number == 0 else None
        axes.plot(
            *_get_points(best, 2), "o", color=VERMILION, ms=4 if many else 5, alpha=0.5 if many else 1, label=label
        )
    if many:
        _plot_median_lines(axes, runs)
    if runs:
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    else:
        _write_note(axes, "no epochs: a baseline is fitted in one step")
    axes.set(
        xlabel="epoch",
        ylabel="cross entropy (nats)",
        title=f"Training of {len(runs)} heads, one line per head" if len(runs) > 1 else "Training",
    )
    return figure


def _plot_median_lines(axes: Axes, runs: Sequence[Sequence[tuple[int, float, float, bool]]]) -> None:
    last = sorted((len(run) for run in runs), reverse=True)[len(runs) // 2]  # a median of few runs would jump
    epochs = range(1, last + 1)
    for column, color, name in LOSS_LINES:
        each = [[row[column] for run in runs for row in run if row[0] == epoch] for epoch in epochs]
        values = [float(np.nanmedian(losses)) if np.isfinite(losses).any() else math.nan for losses in each]
        axes.plot(epochs, values, color="white", lw=4.5)
        axes.plot(epochs, values, color=color, lw=2.5, label=f"{name}, median")


def _get_points(rows: Sequence[tuple[int, float, float, bool]], column: int) -> tuple[list[int], list[float]]:
    return [row[0] for row in rows], [row[column] for row in rows]


def plot_reliability(
    y: NDArray[np.int64], probs: NDArray[np.float64], *, before: NDArray[np.float64] | None = None, bins: int = 10
) -> Figure:
    """Plot the share of correct predictions, and the number of predictions, by confidence.

    `before` holds the probabilities before temperature scaling.
    """
    figure = Figure(figsize=(5.6, 6.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    confidence, right, number = metrics.reliability_curve(y, probs, bins=bins)
    used, centres = number > 0, (np.arange(bins) + 0.5) / bins
    top.plot([0, 1], [0, 1], color=GRAY, ls="--", lw=1, label="perfectly calibrated")
    if before is not None:
        _plot_uncalibrated(top, y, before, bins)
    top.plot(confidence[used], right[used], "o-", color=BLUE, lw=1.5, label="this model")
    top.set(
        ylabel="share of correct predictions",
        title=f"Reliability, expected calibration error {metrics.ece(y, probs):.3f}",
    )
    bottom.bar(centres, number, width=0.92 / bins, color=BLUE)
    bottom.set(xlabel="confidence (probability of the predicted label)", ylabel="clips")
    _format_unit_axes(top, square=False)
    bottom.set_xlim(0, 1)
    top.legend(loc="upper left", frameon=False)
    return figure


def _plot_uncalibrated(axes: Axes, y: NDArray[np.int64], probs: NDArray[np.float64], bins: int) -> None:
    confidence, right, number = metrics.reliability_curve(y, probs, bins=bins)
    used, name = number > 0, f"before temperature scaling, error {metrics.ece(y, probs):.3f}"
    axes.plot(confidence[used], right[used], "s:", color=VERMILION, lw=1.2, ms=5, mfc="none", label=name)


def plot_leaderboard(rows: Sequence[dict[str, Any]], *, metric: str = "roc_auc") -> Figure:
    """Plot each model's metric with its interval, the best on top."""
    figure, axes = _make_figure(7.5, 1.4 + 0.45 * len(rows))
    for place, row in enumerate(rows):
        value, low, high = (row[metric + suffix] for suffix in ("", "_low", "_high"))
        color, marker, _ = MODEL_STYLES[row["kind"]]
        axes.plot([low, high], [place, place], color=color, lw=2.2, alpha=0.6)
        is_within_noise = row.get("within_noise", 1) != 0  # filled: it may be as good as the best
        axes.plot(value, place, marker, color=color, ms=8, markerfacecolor=color if is_within_noise else "white")
        if math.isfinite(value):
            axes.annotate(f"{value:.3f}", (value, place), (0, 8), textcoords="offset points", ha="center", fontsize=9)
    for color, marker, name in [
        MODEL_STYLES[kind] for kind in MODEL_STYLES if any(row["kind"] == kind for row in rows)
    ]:
        axes.plot([], [], marker, color=color, ms=8, label=name)
    if any(row.get("within_noise") == 0 for row in rows):
        axes.plot(
            [],
            [],
            "o",
            color=GRAY,
            ms=8,
            markerfacecolor="white",
            label="hollow: worse than the best by more than noise",
        )
    axes.set_yticks(range(len(rows)), [row["model"].replace("_", " ") for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    name = {"roc_auc": "ROC AUC"}.get(metric, metric.replace("_", " "))
    axes.set(xlabel=f"{name}, with 95 % interval over groups", title="Leaderboard, the same folds for all models")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -(0.6 + 0.1) / (0.45 * len(rows))), ncols=2, frameon=False)
    return figure


def _make_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _binarize(
    y: NDArray[np.int64], probs: NDArray[np.float64], labels: Sequence[str], positive: str | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], str]:
    if positive is not None:
        number = list(labels).index(positive)
        return (y == number).astype(np.int64), probs[:, number], f"positive: {_truncate_label(positive)}"
    return np.eye(len(labels), dtype=np.int64)[y].ravel(), probs.ravel(), f"micro-average of {len(labels)} labels"


def _binary_probs(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([1 - score, score], axis=1)


def _print_cells(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.55 else "black"
        text = f"{count}\n{shares[row, column]:.0%}" if len(counts) <= 6 else f"{count}"
        axes.text(column, row, text, ha="center", va="center", color=color)


def _format_unit_axes(axes: Axes, *, square: bool = True) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    if square:
        axes.set_aspect("equal")


def _write_note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GRAY)


def _truncate_label(label: str, *, max_length: int = 18) -> str:
    return label if len(label) <= max_length else label[: max_length - 1] + "…"
