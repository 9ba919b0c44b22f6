"""Folds: every model on the same divisions, predictions for clips that it never saw."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hazard.data.splits import Division, Index
from hazard.models.baselines import BASELINES, parameter_count
from hazard.models.calibration import Calibrated, calibrate, calibrate_by
from hazard.models.ensemble import Ensemble, join
from hazard.models.ensemble_spec import parse_lineup
from hazard.models.head_ensemble import Committee
from hazard.models.heads import HEADS
from hazard.models.predictor import Model, predict_probs
from hazard.models.settings import TrainSettings
from hazard.training.fit import ALONE, Watch, fit, inner_temperature, seen
from hazard.training.member import Epoch
from hazard.types import Sequences

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
    probs: NDArray[np.float64]  # (N, K) at the temperature that is saved
    calibrated: Calibrated
    train_seconds: float
    parameters: int
    history: tuple[tuple[int, Epoch], ...]  # fold and epoch
    models: tuple[Model, ...]  # one a fold
    settings: tuple[TrainSettings, ...] = ()  # one a fold


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
    rows = np.concatenate([fold.test for fold in division.folds])
    folds = np.concatenate([np.full(len(fold.test), number) for number, fold in enumerate(division.folds)])
    if len(division.folds) > 1:
        calibrated = calibrate(np.concatenate(probs), sequences.y[rows], folds, sequences.groups[rows])
    else:
        calibrated = calibrate_by(probs[0], inner_temperature(sequences, division.folds[0], chosen[0], fitted[0][0]))
    return Evaluation(
        name=" or ".join(dict.fromkeys(each.kind_and_name[1] for each in chosen)),
        kind=settings.kind_and_name[0],
        rows=rows,
        folds=folds,
        repeats=np.concatenate([np.full(len(fold.test), fold.repeat) for fold in division.folds]),
        probs=calibrated.probs,
        calibrated=calibrated,
        train_seconds=seconds,
        parameters=count_parameters(fitted[0][0]),
        history=tuple((number, epoch) for number, (_, epochs) in enumerate(fitted) for epoch in epochs),
        models=tuple(model for model, _ in fitted),
        settings=tuple(chosen),
    )


def compare(
    sequences: Sequences, division: Division, settings: TrainSettings, *, watch: Watch = ALONE
) -> list[Evaluation]:
    """Every head, every baseline, their ensembles, and the ensemble that is set, on the same folds.

    What the ensembles average is fixed beforehand, so that nothing about them is chosen on the test parts.
    """
    contenders = [settings.of("head", head) for head in HEADS]
    contenders += [settings.of("baseline", name) for name in BASELINES]
    contenders += [settings] if settings.ensemble else []
    results = [evaluate(sequences, division, contender, watch=watch) for contender in contenders]
    singles = [result for result in results if result.kind != "ensemble"]
    for name, lineup in ENSEMBLES.items():
        kinds = {place.kind for place in parse_lineup(lineup, chosen=settings.head)}
        results.append(average(name, [result for result in singles if result.kind in kinds], sequences))
    return results


def average(name: str, results: Sequence[Evaluation], sequences: Sequences) -> Evaluation:
    """The ensemble of models evaluated on the same folds: the mean of their probabilities.

    Its temperature is fitted as any other's after folds; with one split it is 1, that of its members' mean as it is.
    """
    models = zip(*(result.models for result in results), strict=True)
    settings = zip(*(result.settings for result in results), strict=True)
    first = results[0]
    mean = np.mean([result.calibrated.raw for result in results], axis=0)
    many = len(first.models) > 1
    y, groups = sequences.y[first.rows], sequences.groups[first.rows]
    calibrated = calibrate(mean, y, first.folds, groups) if many else calibrate_by(mean, 1.0)
    return replace(
        first,
        name=name,
        kind="ensemble",
        probs=calibrated.probs,
        calibrated=calibrated,
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
