"""Folds: every model on the same divisions, predictions for clips that it never saw."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hazard import metrics, resampling
from hazard.baselines import BASELINES, parameter_count
from hazard.config import TrainSettings
from hazard.ensemble import Ensemble, join
from hazard.fitting import ALONE, Watch, fit, seen
from hazard.heads import HEADS
from hazard.lineup import parse_lineup
from hazard.model import Model, predict_probs
from hazard.resampling import Draws
from hazard.splits import Division, Index
from hazard.train import Committee, Epoch
from hazard.types import Sequences

RANKED_BY = "roc_auc"

ENSEMBLES = {"mean_of_heads": "heads", "mean_of_all": "heads,baselines"}
"""Name → the lineup of the ensembles that a comparison has besides."""


@dataclass(frozen=True)
class Evaluation:
    """What one model predicted for the clips of every test part, N of them in all.

    With repeats a clip is predicted once in each. Folds are counted through all repeats.
    """

    name: str
    kind: str  # head | baseline | ensemble
    rows: Index  # (N,) into the sequences
    folds: Index  # (N,) which fold's test part
    repeats: Index  # (N,) which repeat that fold belongs to
    probs: NDArray[np.float64]  # (N, K)
    train_seconds: float
    parameters: int
    history: tuple[tuple[int, Epoch], ...]  # fold and epoch
    models: tuple[Model, ...]  # one a fold
    settings: tuple[TrainSettings, ...] = ()  # one a fold


@dataclass(frozen=True)
class Measured:
    """An evaluation's part of metrics.json, and its headline figures in draws of groups, the same for all models."""

    figures: dict[str, Any]
    draws: Draws  # name → (R,)


def evaluate(sequences: Sequences, division: Division, settings: TrainSettings, *, watch: Watch = ALONE) -> Evaluation:
    """A fresh model a fold, each asked only about the clips of its own test part.

    `watch.choose` may give each fold settings of its own; it is shown the clips of train and val alone.
    """
    began = time.perf_counter()
    chosen, fitted = [], []
    for number, fold in enumerate(division.folds):
        mine = watch.choose(sequences.take(seen(fold)), number, settings) if watch.choose else settings
        chosen.append(mine)
        fitted.append(fit(sequences, fold, mine, watch=watch, part=number))
    seconds = time.perf_counter() - began
    probs = [
        predict_probs(model, sequences.x[fold.test], sequences.mask[fold.test], len(sequences.labels))
        for (model, _), fold in zip(fitted, division.folds, strict=True)
    ]
    return Evaluation(
        name=" or ".join(dict.fromkeys(each.kind_and_name[1] for each in chosen)),
        kind=settings.kind_and_name[0],
        rows=np.concatenate([fold.test for fold in division.folds]),
        folds=np.concatenate([np.full(len(fold.test), number) for number, fold in enumerate(division.folds)]),
        repeats=np.concatenate([np.full(len(fold.test), fold.repeat) for fold in division.folds]),
        probs=np.concatenate(probs),
        train_seconds=seconds,
        parameters=count_parameters(fitted[0][0]),
        history=tuple((number, epoch) for number, (_, epochs) in enumerate(fitted) for epoch in epochs),
        models=tuple(model for model, _ in fitted),
        settings=tuple(chosen),
    )


def compare(
    sequences: Sequences, division: Division, settings: TrainSettings, *, watch: Watch = ALONE
) -> list[Evaluation]:
    """Every head, every baseline, their ensembles, and the ensemble that is set, on the same folds, best first.

    What the ensembles average is fixed beforehand, so that nothing about them is chosen on the test parts.
    """
    contenders = [settings.of("head", head) for head in HEADS]
    contenders += [settings.of("baseline", name) for name in BASELINES]
    contenders += [settings] if settings.ensemble else []
    results = [evaluate(sequences, division, contender, watch=watch) for contender in contenders]
    singles = [result for result in results if result.kind != "ensemble"]
    for name, lineup in ENSEMBLES.items():
        kinds = {place.kind for place in parse_lineup(lineup, chosen=settings.head)}
        results.append(average(name, [result for result in singles if result.kind in kinds]))
    return sorted(results, key=lambda result: _rank(sequences, result, settings), reverse=True)


def average(name: str, results: Sequence[Evaluation]) -> Evaluation:
    """The ensemble of models evaluated on the same folds: the mean of their probabilities."""
    models = zip(*(result.models for result in results), strict=True)
    settings = zip(*(result.settings for result in results), strict=True)
    return replace(
        results[0],
        name=name,
        kind="ensemble",
        probs=np.mean([result.probs for result in results], axis=0),
        train_seconds=sum(result.train_seconds for result in results),
        parameters=sum(result.parameters for result in results),
        history=(),
        models=tuple(join(each, given, [1.0] * len(each)) for each, given in zip(models, settings, strict=True)),
        settings=(),
    )


def count_parameters(model: Model) -> int:
    """Trained numbers of a head, or what `hazard.baselines.parameter_count` says of a baseline; of an ensemble all."""
    if isinstance(model, Ensemble):
        return sum(count_parameters(member.model) for member in model.members)
    if isinstance(model, Committee):
        return sum(parameter.numel() for parameter in model.parameters())
    return parameter_count(model)


def positive_label(labels: Sequence[str], settings: TrainSettings) -> str | None:
    """The label of two that an alarm is for, given or guessed; none with three labels or more."""
    return None if len(labels) != 2 else settings.positive_label or metrics.guess_positive(labels)


def measure(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> Measured:
    """Headline figures with intervals over groups, one entry a fold and a repeat, and the folds' mean and std.

    A figure is that of all test parts of a repeat together, averaged over the repeats.
    """
    y, groups, labels = sequences.y[result.rows], sequences.groups[result.rows], sequences.labels
    positive = _number(labels, positive_label(labels, settings))
    weights = resampling.group_draws(groups, seed=settings.seed)
    draws = resampling.repeated(y, result.probs, result.repeats, weights, positive=positive)
    whole = resampling.everything(len(y))
    values = resampling.plain(resampling.repeated(y, result.probs, result.repeats, whole, positive=positive))
    predicted = metrics.decide(result.probs, positive=positive)
    tree: dict[str, Any] = resampling.with_intervals(values, draws) | {
        "per_class": metrics.per_class(y, predicted, labels),
        "confusion": {"labels": list(labels), "counts": metrics.confusion(y, predicted, len(labels)).tolist()},
    }
    each = _figures_of(y, result, result.folds, "fold", positive)
    for entry in each:
        entry["repeat"] = int(result.repeats[result.folds == entry["fold"]][0])
    repeats = _figures_of(y, result, result.repeats, "repeat", positive)
    tree |= ({"folds": each} | _spread(each)) if len(each) > 1 else {}
    return Measured(tree | ({"repeats": repeats} if len(repeats) > 1 else {}), draws)


def _rank(sequences: Sequences, result: Evaluation, settings: TrainSettings) -> tuple[float, float]:
    """By ROC AUC, then accuracy, each averaged over the repeats; an undefined figure comes last."""
    labels = sequences.labels
    y, whole = sequences.y[result.rows], resampling.everything(len(result.rows))
    positive = _number(labels, positive_label(labels, settings))
    values = resampling.plain(resampling.repeated(y, result.probs, result.repeats, whole, positive=positive))
    return tuple(-1.0 if math.isnan(values[name]) else values[name] for name in (RANKED_BY, "accuracy"))  # type: ignore[return-value]


def _figures_of(
    y: NDArray[np.int64], result: Evaluation, which: Index, word: str, positive: int | None
) -> list[dict[str, Any]]:
    """An entry for each number in `which`, called `word`: its clips and headline figures."""
    draws = resampling.headline(y, result.probs, resampling.parts(which), positive=positive)
    numbers, clips = np.unique(which, return_counts=True)
    return [
        {word: int(number), "clips": int(clips[place]), **resampling.plain(draws, place)}
        for place, number in enumerate(numbers)
    ]


def _spread(each: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (n - 1) of each figure over the folds where it is defined."""
    spread: dict[str, dict[str, float]] = {"mean": {}, "std": {}}
    for name in [key for key in each[0] if key not in ("fold", "repeat", "clips")]:
        known = np.array([values[name] for values in each if math.isfinite(values[name])])
        spread["mean"][name] = float(known.mean()) if len(known) else math.nan
        spread["std"][name] = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return spread


def _number(labels: Sequence[str], positive: str | None) -> int | None:
    return None if positive is None else list(labels).index(positive)
