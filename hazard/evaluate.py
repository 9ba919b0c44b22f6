"""Folds: every model on the same divisions, predictions for clips that it never saw."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hazard import metrics
from hazard.baselines import BASELINES, fit_baseline, parameter_count
from hazard.checkpoint import Checkpoints
from hazard.config import TrainSettings
from hazard.heads import HEADS
from hazard.model import Model, predict_probs
from hazard.splits import Division, Fold, Index
from hazard.train import Committee, Epoch, fit_head
from hazard.types import Sequences

Progress = Callable[[str], None]
"""Called with one line for each epoch or fitted baseline."""

RANKED_BY = "roc_auc"


@dataclass(frozen=True)
class Evaluation:
    """What one model predicted for the clips of every test part, N of them in all."""

    name: str
    kind: str  # head | baseline
    rows: Index  # (N,) into the sequences
    folds: Index  # (N,) which fold's test part
    probs: NDArray[np.float64]  # (N, K)
    train_seconds: float
    parameters: int
    history: tuple[tuple[int, Epoch], ...]  # fold and epoch
    models: tuple[Model, ...]  # one a fold


def kind_and_name(settings: TrainSettings) -> tuple[Literal["head", "baseline"], str]:
    """`baseline` and its name where the settings ask for one, else `head` and its name."""
    return ("baseline", settings.baseline) if settings.baseline else ("head", settings.head)


def fit(
    sequences: Sequences,
    fold: Fold,
    settings: TrainSettings,
    *,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[Model, list[Epoch]]:
    """The model that `settings` name, fitted on train and val of `fold`, and its history (empty for a baseline)."""
    kind, name = kind_and_name(settings)
    if checkpoints:
        checkpoints.check_stop()
    if kind == "head":
        head, history = fit_head(
            sequences, fold, settings, progress=_epoch_line(name, progress), checkpoints=checkpoints
        )
        for _ in range(history[-1].epoch, settings.epochs if progress else 0):
            progress(f"{name} stopped early at epoch {history[-1].epoch}")  # type: ignore[misc]  # the bar counts on them
        return head, history
    rows = fold.train if fold.val_is_given else np.sort(np.concatenate([fold.train, fold.val]))
    model = fit_baseline(name, sequences.take(rows), seed=settings.seed)
    if progress:
        progress(name)
    return model, []


def evaluate(
    sequences: Sequences,
    division: Division,
    settings: TrainSettings,
    *,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> Evaluation:
    """A fresh model a fold, each asked only about the clips of its own test part."""
    kind, name = kind_and_name(settings)
    began = time.perf_counter()
    fitted = [fit(sequences, fold, settings, progress=progress, checkpoints=checkpoints) for fold in division.folds]
    seconds = time.perf_counter() - began
    probs = [
        predict_probs(model, sequences.x[fold.test], sequences.mask[fold.test], len(sequences.labels))
        for (model, _), fold in zip(fitted, division.folds, strict=True)
    ]
    return Evaluation(
        name=name,
        kind=kind,
        rows=np.concatenate([fold.test for fold in division.folds]),
        folds=np.concatenate([np.full(len(fold.test), number) for number, fold in enumerate(division.folds)]),
        probs=np.concatenate(probs),
        train_seconds=seconds,
        parameters=count_parameters(fitted[0][0]),
        history=tuple((number, epoch) for number, (_, epochs) in enumerate(fitted) for epoch in epochs),
        models=tuple(model for model, _ in fitted),
    )


def compare(
    sequences: Sequences,
    division: Division,
    settings: TrainSettings,
    *,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> list[Evaluation]:
    """Every head and every baseline on the same folds, best first."""
    contenders = [settings.model_copy(update={"head": head, "baseline": None}) for head in HEADS]
    contenders += [settings.model_copy(update={"baseline": name}) for name in BASELINES]
    results = [
        evaluate(sequences, division, contender, progress=progress, checkpoints=checkpoints) for contender in contenders
    ]
    return sorted(results, key=lambda result: _rank(sequences, result, settings), reverse=True)


def count_parameters(model: Model) -> int:
    """Trained numbers of a head, or what `hazard.baselines.parameter_count` says of a baseline."""
    if isinstance(model, Committee):
        return sum(parameter.numel() for parameter in model.parameters())
    return parameter_count(model)


def positive_label(labels: Sequence[str], settings: TrainSettings) -> str | None:
    """The label of two that an alarm is for, given or guessed; none with three labels or more."""
    return None if len(labels) != 2 else settings.positive_label or metrics.guess_positive(labels)


def figures(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> dict[str, Any]:
    """Headline figures with intervals over all test parts together, one entry a fold, and the folds' mean and std."""
    y, groups, labels = sequences.y[result.rows], sequences.groups[result.rows], sequences.labels
    positive = positive_label(labels, settings)
    pooled = metrics.summary(y, result.probs, groups, labels, positive=positive, seed=settings.seed)
    each = [_fold_figures(y, result, labels, fold, positive) for fold in np.unique(result.folds).tolist()]
    return pooled | {"folds": each} | _spread(each) if len(each) > 1 else pooled


def leaderboard(named: Iterable[tuple[Evaluation, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of leaderboard.csv: model, kind, each figure with _low and _high, train_seconds, parameters."""
    rows = []
    for result, values in named:
        row: dict[str, Any] = {"model": result.name, "kind": result.kind}
        for name in _headline_names(values):
            row |= {
                name: values[name]["value"],
                f"{name}_low": values[name]["low"],
                f"{name}_high": values[name]["high"],
            }
        rows.append(row | {"train_seconds": round(result.train_seconds, 3), "parameters": result.parameters})
    return rows


def leaderboard_table(rows: Sequence[dict[str, Any]]) -> str:
    """The leaderboard as text for a terminal."""
    lines = [
        f"{'model':<20} {'kind':<9} {'ROC AUC':>7} {'95 %':>13} {'PR AUC':>7} {'accuracy':>8} {'F1':>6} {'train s':>8}"
    ]
    for row in rows:
        interval = f"{row['roc_auc_low']:.3f}–{row['roc_auc_high']:.3f}"
        lines.append(
            f"{row['model']:<20} {row['kind']:<9} {row['roc_auc']:>7.3f} {interval:>13} {row['pr_auc']:>7.3f} "
            f"{row['accuracy']:>8.3f} {row['macro_f1']:>6.3f} {row['train_seconds']:>8.1f}"
        )
    return "\n".join(lines)


def _headline_names(values: dict[str, Any]) -> list[str]:
    return [name for name in (*metrics.HEADLINE, "top5_accuracy") if name in values]


def _rank(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> tuple[float, float]:
    """By ROC AUC, then accuracy; an undefined figure comes last."""
    y, labels = sequences.y[result.rows], sequences.labels
    values = metrics.headline(y, result.probs, positive=_number(labels, positive_label(labels, settings)))
    return tuple(-1.0 if math.isnan(values[name]) else values[name] for name in (RANKED_BY, "accuracy"))  # type: ignore[return-value]


def _fold_figures(
    y: NDArray[np.int64], result: Evaluation, labels: Sequence[str], fold: int, positive: str | None
) -> dict[str, Any]:
    rows = result.folds == fold
    values = metrics.headline(y[rows], result.probs[rows], positive=_number(labels, positive))
    return {"fold": fold, "clips": int(rows.sum())} | values


def _spread(each: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (n - 1) of each figure over the folds where it is defined."""
    spread: dict[str, dict[str, float]] = {"mean": {}, "std": {}}
    for name in [key for key in each[0] if key not in ("fold", "clips")]:
        known = np.array([values[name] for values in each if math.isfinite(values[name])])
        spread["mean"][name] = float(known.mean()) if len(known) else math.nan
        spread["std"][name] = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return spread


def _number(labels: Sequence[str], positive: str | None) -> int | None:
    return None if positive is None else list(labels).index(positive)


def _epoch_line(name: str, progress: Progress | None) -> Callable[[int, float], None] | None:
    if progress is None:
        return None
    return lambda epoch, loss: progress(f"{name} epoch {epoch} val loss {loss:.3f}")
