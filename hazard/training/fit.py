"""Fit one model of any kind (head, baseline or ensemble) as its settings say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hazard.data.splits import Fold
from hazard.models.auto_size import resolve_sizes
from hazard.models.baselines import fit_baseline
from hazard.models.calibration import fit_temperature
from hazard.models.ensemble import combine_models
from hazard.models.head_ensemble import HeadEnsemble
from hazard.models.predictor import Model, predict_probs
from hazard.models.settings import TrainSettings
from hazard.training.checkpoint import Checkpoints
from hazard.training.head_trainer import EpochMetrics
from hazard.training.trainer import fit_head, split_member_rows
from hazard.types import Sequences

ProgressCallback = Callable[[str], None]
"""Function that is called with one line of text for each epoch or fitted baseline."""

ChooseSettings = Callable[[Sequences, int | str, TrainSettings], TrainSettings]
"""Function from the training clips of a fold, its number and the given settings to the settings to use."""

EpochCallback = Callable[[str, int | str, EpochMetrics], None]
"""Function that is called with the model's name, the fold's number and the metrics of each member's epoch."""


@dataclass(frozen=True)
class FitCallbacks:
    """Functions that are called while models are fitted, and the checkpoints; all are optional."""

    on_progress: ProgressCallback | None = None
    on_epoch: EpochCallback | None = None
    choose_settings: ChooseSettings | None = None
    checkpoints: Checkpoints | None = None
    wait_for: Callable[[Fold, TrainSettings], None] | None = None
    """Function that returns when a head may be fitted: see `HeadFits`."""


NO_CALLBACKS = FitCallbacks()


def fit(
    sequences: Sequences,
    fold: Fold,
    settings: TrainSettings,
    *,
    callbacks: FitCallbacks = NO_CALLBACKS,
    fold_name: int | str = 0,
) -> tuple[Model, list[EpochMetrics]]:
    """Fit the model that `settings` name on train and val of `fold`; return it and its history.

    The history of a baseline is empty. `fold_name` is the name of the fold in callbacks.
    """
    if callbacks.checkpoints:
        callbacks.checkpoints.check_stop()
    kind, name = settings.kind_and_name
    if kind == "ensemble":
        return fit_ensemble(sequences, fold, settings.split_by_model(), callbacks=callbacks, fold_name=fold_name)
    if kind == "head":
        if callbacks.wait_for:
            callbacks.wait_for(fold, settings)
        progress = _make_progress_callback(name, callbacks.on_progress)
        on_epoch = partial(callbacks.on_epoch, name, fold_name) if callbacks.on_epoch else None
        head, history = fit_head(
            sequences, fold, settings, progress=progress, on_epoch=on_epoch, checkpoints=callbacks.checkpoints
        )
        limit = resolve_sizes(settings, clips=fold.training_clip_count, classes=len(sequences.labels)).epochs
        for _ in range(history[-1].epoch, limit if callbacks.on_progress else 0):  # so that the bar reaches its end
            callbacks.on_progress(f"{name} stopped early at epoch {history[-1].epoch}")  # type: ignore[misc]
        return head, history
    rows = fold.train if fold.val_is_given else training_rows(fold)
    model = fit_baseline(
        name,
        sequences.take(rows),
        seed=settings.seed,
        statistics=settings.pooled,
        scale=settings.pooled_scale,
        jobs=settings.jobs,
    )
    if callbacks.on_progress:
        callbacks.on_progress(name)
    return model, []


def fit_ensemble(
    sequences: Sequences,
    fold: Fold,
    weighted_settings: Sequence[tuple[TrainSettings, float]],
    *,
    callbacks: FitCallbacks = NO_CALLBACKS,
    fold_name: int | str = 0,
) -> tuple[Model, list[EpochMetrics]]:
    """Fit several weighted models as one ensemble; a single model is returned as it is.

    Members of all models are numbered consecutively in the history.
    """
    if len(weighted_settings) == 1:
        return fit(sequences, fold, weighted_settings[0][0], callbacks=callbacks, fold_name=fold_name)
    models: list[Model] = []
    history: list[EpochMetrics] = []
    for settings, _ in weighted_settings:
        model, epochs = fit(sequences, fold, settings, callbacks=callbacks, fold_name=fold_name)
        first = max((epoch.member for epoch in history), default=-1) + 1
        history += [replace(epoch, member=first + epoch.member) for epoch in epochs]
        models.append(model)
    return combine_models(models, *zip(*weighted_settings, strict=True)), history


def fit_inner_temperature(sequences: Sequences, fold: Fold, settings: TrainSettings, model: Model) -> float:
    """Return the temperature for the model of a single split, fitted on validation clips, never on test clips.

    Each member of a head predicts the clips that it was stopped early on. If the split itself names the validation
    clips, the whole model predicts them. A baseline or an ensemble was fitted on the validation clips too, so another
    one is fitted without them.
    """
    if fold.val_is_given or not len(fold.val):
        pairs = [(fold.val, _predict(model, sequences, fold.val))]
    elif isinstance(model, HeadEnsemble):
        rows = [split_member_rows(sequences, fold, member, settings.seed)[1] for member in range(len(model.heads))]
        pairs = list(zip(rows, model.validation_probs, strict=True))
    else:
        without = fit(sequences, replace(fold, val=fold.val[:0]), settings)[0]
        pairs = [(fold.val, _predict(without, sequences, fold.val))]
    rows_of_all, probs = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return fit_temperature(probs, sequences.y[rows_of_all])


def _predict(model: Model, sequences: Sequences, rows: np.ndarray) -> np.ndarray:
    return predict_probs(model, sequences.x[rows], sequences.mask[rows], len(sequences.labels))


def training_rows(fold: Fold) -> np.ndarray:
    """Return the sorted rows of train and val, from which training may learn."""
    return np.sort(np.concatenate([fold.train, fold.val]))


def _make_progress_callback(name: str, progress: ProgressCallback | None) -> Callable[[int, float], None] | None:
    if progress is None:
        return None
    return lambda epoch, loss: progress(f"{name} epoch {epoch} val loss {loss:.3f}")
