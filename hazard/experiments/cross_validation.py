"""Cross-validation: every model on the same folds, with predictions for clips that it was not trained on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hazard.data.splits import CrossValidationSplits, Fold, RowIndices
from hazard.models.baselines import BASELINES, count_parameters
from hazard.models.calibration import CalibratedPredictions, calibrate, calibrate_at_temperature
from hazard.models.ensemble import Ensemble, combine_models
from hazard.models.ensemble_spec import parse_ensemble_spec
from hazard.models.head_ensemble import HeadEnsemble
from hazard.models.heads import HEADS
from hazard.models.predictor import Model, predict_probs
from hazard.models.settings import TrainSettings
from hazard.training.fit import NO_CALLBACKS, FitCallbacks, fit, fit_inner_temperature, training_rows
from hazard.training.head_trainer import EpochMetrics
from hazard.types import Sequences

COMPARED_ENSEMBLES = {"mean_of_heads": "heads", "mean_of_all": "heads,baselines"}
"""Name → specification of the ensembles that every comparison includes."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions of one model for the clips of all test parts, N in total.

    With repeats a clip is predicted once in each repeat. Folds are numbered through all repeats.
    """

    name: str
    kind: str  # head | baseline | ensemble
    rows: RowIndices  # (N,) into the sequences
    folds: RowIndices  # (N,) number of the fold whose test part it is
    repeats: RowIndices  # (N,) number of the repeat that the fold belongs to
    probs: NDArray[np.float64]  # (N, K) at the temperature that is saved
    calibrated: CalibratedPredictions
    train_seconds: float
    parameters: int
    history: tuple[tuple[int, EpochMetrics], ...]  # (fold, epoch)
    models: tuple[Model, ...]  # one per fold
    settings: tuple[TrainSettings, ...] = ()  # one per fold


def cross_validate(
    sequences: Sequences,
    splits: CrossValidationSplits,
    settings: TrainSettings,
    *,
    callbacks: FitCallbacks = NO_CALLBACKS,
) -> Evaluation:
    """Fit a new model for each fold and let it predict the clips of the fold's test part.

    `callbacks.choose_settings` may choose other settings for each fold; it gets only the clips of train and val.
    """
    began = time.perf_counter()
    chosen, fitted = [], []
    for number, fold in enumerate(splits.folds):
        fold_settings = (
            callbacks.choose_settings(sequences.take(training_rows(fold)), number, settings)
            if callbacks.choose_settings
            else settings
        )
        chosen.append(fold_settings)
        fitted.append(fit(sequences, fold, fold_settings, callbacks=callbacks, fold_name=number))
    seconds = time.perf_counter() - began
    probs = [
        predict_probs(model, sequences.x[fold.test], sequences.mask[fold.test], len(sequences.labels))
        for (model, _), fold in zip(fitted, splits.folds, strict=True)
    ]
    rows = np.concatenate([fold.test for fold in splits.folds])
    folds = np.concatenate([np.full(len(fold.test), number) for number, fold in enumerate(splits.folds)])
    if len(splits.folds) > 1:
        calibrated = calibrate(np.concatenate(probs), sequences.y[rows], folds, sequences.groups[rows])
    else:
        calibrated = calibrate_at_temperature(
            probs[0], fit_inner_temperature(sequences, splits.folds[0], chosen[0], fitted[0][0])
        )
    return Evaluation(
        name=" or ".join(dict.fromkeys(each.kind_and_name[1] for each in chosen)),
        kind=settings.kind_and_name[0],
        rows=rows,
        folds=folds,
        repeats=np.concatenate([np.full(len(fold.test), fold.repeat) for fold in splits.folds]),
        probs=calibrated.probs,
        calibrated=calibrated,
        train_seconds=seconds,
        parameters=count_model_parameters(fitted[0][0]),
        history=tuple((number, epoch) for number, (_, epochs) in enumerate(fitted) for epoch in epochs),
        models=tuple(model for model, _ in fitted),
        settings=tuple(chosen),
    )


def compare_models(
    sequences: Sequences,
    splits: CrossValidationSplits,
    settings: TrainSettings,
    *,
    callbacks: FitCallbacks = NO_CALLBACKS,
) -> list[Evaluation]:
    """Evaluate every head, every baseline, their ensembles and the ensemble in `settings` on the same folds.

    The members of the ensembles are fixed beforehand, so nothing about them is chosen on the test parts.
    """
    contenders = _list_contenders(settings)
    results = [cross_validate(sequences, splits, contender, callbacks=callbacks) for contender in contenders]
    singles = [result for result in results if result.kind != "ensemble"]
    for name, spec in COMPARED_ENSEMBLES.items():
        kinds = {entry.kind for entry in parse_ensemble_spec(spec, selected_model=settings.head)}
        results.append(average_evaluations(name, [result for result in singles if result.kind in kinds], sequences))
    return results


def _list_contenders(settings: TrainSettings) -> list[TrainSettings]:
    contenders = [settings.for_model("head", head) for head in HEADS]
    contenders += [settings.for_model("baseline", name) for name in BASELINES]
    return contenders + ([settings] if settings.ensemble else [])


def list_head_fits(
    splits: CrossValidationSplits, settings: TrainSettings, *, compare: bool
) -> list[tuple[Fold, TrainSettings]]:
    """Return the fold and the settings of every head that an evaluation fits, in its order."""
    contenders = _list_contenders(settings) if compare else [settings]
    models = [model for contender in contenders for model, _ in contender.split_by_model()]
    return [(fold, model) for model in models if model.baseline is None for fold in splits.folds]


def average_evaluations(name: str, results: Sequence[Evaluation], sequences: Sequences) -> Evaluation:
    """Return the evaluation of an ensemble: the mean probabilities of models evaluated on the same folds.

    With several folds its temperature is fitted like that of any other model. With one split it is 1: the members' mean
    is used as it is.
    """
    models = zip(*(result.models for result in results), strict=True)
    settings = zip(*(result.settings for result in results), strict=True)
    first = results[0]
    mean = np.mean([result.calibrated.raw for result in results], axis=0)
    has_folds = len(first.models) > 1
    y, groups = sequences.y[first.rows], sequences.groups[first.rows]
    calibrated = calibrate(mean, y, first.folds, groups) if has_folds else calibrate_at_temperature(mean, 1.0)
    return replace(
        first,
        name=name,
        kind="ensemble",
        probs=calibrated.probs,
        calibrated=calibrated,
        train_seconds=sum(result.train_seconds for result in results),
        parameters=sum(result.parameters for result in results),
        history=(),
        models=tuple(
            combine_models(each, given, [1.0] * len(each)) for each, given in zip(models, settings, strict=True)
        ),
        settings=(),
    )


def count_model_parameters(model: Model) -> int:
    """Return the number of parameters of a head, a baseline or all members of an ensemble.

    For a baseline it is what `hazard.models.baselines.count_parameters` returns.
    """
    if isinstance(model, Ensemble):
        return sum(count_model_parameters(member.model) for member in model.members)
    if isinstance(model, HeadEnsemble):
        return sum(parameter.numel() for parameter in model.parameters())
    return count_parameters(model)
