"""Files that a training run writes beside its model: metrics as JSON and CSV, a model card, plots."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from features.utils.files import write_atomically
from hazard.experiments.cross_validation import Evaluation
from hazard.experiments.model_card import format_model_card
from hazard.metrics import classification as metrics
from hazard.metrics import plots
from hazard.models.predictor import ModelInfo
from hazard.training.head_trainer import EpochMetrics
from hazard.types import Sequences

HISTORY_COLUMNS = ("fold", "member", "epoch", "train_loss", "val_loss", "val_accuracy", "best")

FINAL_FOLD = "final"
"""Name, in history.csv, of the saved model's fold if it was fitted after the folds."""

History = Sequence[tuple[int | str, EpochMetrics]]


def write_outputs(
    folder: Path,
    *,
    info: ModelInfo,
    sequences: Sequences,
    result: Evaluation,
    metric_values: dict[str, Any],
    history: History,
    contenders: int = 1,
) -> None:
    """Write metrics.json, predictions.csv, history.csv, model_card.md and the plots.

    `contenders` is the number of models that were compared to choose this one. Raises RuntimeEnvironmentError if the
    folder cannot be written.
    """
    texts = {
        "metrics.json": json.dumps(
            metrics.replace_nan_by_none(make_metrics_json(info, sequences, result, metric_values)), indent=2
        )
        + "\n",
        "predictions.csv": _format_csv(_prediction_rows(info, sequences, result)),
        "history.csv": _format_csv(_history_rows(history)),
        "model_card.md": format_model_card(info, sequences, result, metric_values, contenders),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    y = sequences.y[result.rows]
    curves: dict[tuple[int | str, int], list[tuple[int, float, float, bool]]] = {}
    for fold, epoch in history:
        curves.setdefault((fold, epoch.member), []).append((epoch.epoch, epoch.train_loss, epoch.val_loss, epoch.best))
    figures = {
        "confusion.png": plots.plot_confusion(
            np.array(metric_values["confusion"]["counts"]), info.labels, repeats=len(np.unique(result.repeats))
        ),
        "curves.png": plots.plot_roc_and_pr_curves(y, result.probs, info.labels, positive=info.positive_label),
        "history.png": plots.plot_history(list(curves.values())),
        "reliability.png": plot_reliability(y, result),
    }
    for name, figure in figures.items():
        write_atomically(folder / name, plots.render_png(figure))


def plot_reliability(y: NDArray[np.int64], result: Evaluation) -> Figure:
    """Plot the reliability of held-out clips, each at a temperature fitted on other groups, and before calibration."""
    return plots.plot_reliability(y, result.calibrated.held_out, before=result.calibrated.raw)


def write_leaderboard(folder: Path, rows: Sequence[dict[str, Any]], *, ranking: str) -> None:
    """Write leaderboard.csv and leaderboard.png in the order of the rows, which were ranked by the metric `ranking`."""
    cells = [[_format_cell(value) for value in row.values()] for row in rows]
    write_atomically(folder / "leaderboard.csv", _format_csv([list(rows[0]), *cells]).encode())
    write_atomically(folder / "leaderboard.png", plots.render_png(plots.plot_leaderboard(rows, metric=ranking)))


def make_metrics_json(
    info: ModelInfo, sequences: Sequences, result: Evaluation, metric_values: dict[str, Any]
) -> dict[str, Any]:
    """Return the content of metrics.json, with NaN for undefined metrics."""
    split = {
        "how": info.split,
        "groups_known": info.groups_known,
        "clips_without_group": sequences.clips_without_group,
        "folds": len(np.unique(result.folds)),
        "repeats": len(np.unique(result.repeats)),
    }
    model = {
        "model": result.name,
        "kind": result.kind,
        "labels": list(info.labels),
        "positive_label": info.positive_label,
    }
    counts = {
        "clips": len(np.unique(result.rows)),
        "train_seconds": result.train_seconds,
        "parameters": result.parameters,
    }
    return model | {"threshold": info.threshold} | counts | {"split": split} | metric_values


def _prediction_rows(info: ModelInfo, sequences: Sequences, result: Evaluation) -> Iterable[Sequence[object]]:
    positive = None if info.positive_label is None else info.labels.index(info.positive_label)
    predicted = metrics.predict_labels(result.probs, positive=positive, threshold=info.threshold)
    repeated = len(np.unique(result.repeats)) > 1
    yield ("path", "label", "predicted", "fold", *(["repeat"] if repeated else []), *info.labels)
    for i in np.lexsort((result.repeats, result.rows)).tolist():
        row, repeat = result.rows[i], [result.repeats[i]] if repeated else []
        names = (info.labels[sequences.y[row]], info.labels[predicted[i]])
        yield (sequences.paths[row], *names, result.folds[i], *repeat, *(f"{p:.6f}" for p in result.probs[i]))


def _history_rows(history: History) -> Iterable[Sequence[object]]:
    yield HISTORY_COLUMNS
    for fold, epoch in history:
        losses = (_format_cell(epoch.train_loss), _format_cell(epoch.val_loss), _format_cell(epoch.val_accuracy))
        yield (fold, epoch.member, epoch.epoch, *losses, int(epoch.best))


def _format_cell(value: object) -> object:
    """Format floats with six digits and NaN as an empty cell; other values stay as they are."""
    if not isinstance(value, float):
        return value
    return f"{value:.6f}" if np.isfinite(value) else ""


def _format_csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
