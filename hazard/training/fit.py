"""One model, fitted as its settings say, whatever kind it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hazard.data.splits import Fold
from hazard.models.baselines import fit_baseline
from hazard.models.calibration import fit_temperature
from hazard.models.ensemble import join
from hazard.models.head_ensemble import Committee
from hazard.models.predictor import Model, predict_probs
from hazard.models.settings import TrainSettings
from hazard.training.checkpoint import Checkpoints
from hazard.training.member import Epoch
from hazard.training.trainer import fit_head, member_rows
from hazard.types import Sequences

Progress = Callable[[str], None]
"""Called with one line for each epoch or fitted baseline."""

Choose = Callable[[Sequences, int | str, TrainSettings], TrainSettings]
"""From the training clips of a fold, its number and the settings as given to those that it is trained with."""

OnEpoch = Callable[[str, int | str, Epoch], None]
"""Called with the model's name, the fold's number and the epoch of each member."""


@dataclass(frozen=True)
class Watch:
    """Who looks on while models are fitted; any of it may be left out."""

    progress: Progress | None = None
    on_epoch: OnEpoch | None = None
    choose: Choose | None = None
    checkpoints: Checkpoints | None = None


ALONE = Watch()


def fit(
    sequences: Sequences, fold: Fold, settings: TrainSettings, *, watch: Watch = ALONE, part: int | str = 0
) -> tuple[Model, list[Epoch]]:
    """The model that `settings` name, fitted on train and val of `fold`, and its history (empty for a baseline).

    `part` is what `watch` is told that the fold is called.
    """
    if watch.checkpoints:
        watch.checkpoints.check_stop()
    kind, name = settings.kind_and_name
    if kind == "ensemble":
        return fit_all(sequences, fold, settings.singles(), watch=watch, part=part)
    if kind == "head":
        line = _epoch_line(name, watch.progress)
        on_epoch = partial(watch.on_epoch, name, part) if watch.on_epoch else None
        head, history = fit_head(
            sequences, fold, settings, progress=line, on_epoch=on_epoch, checkpoints=watch.checkpoints
        )
        for _ in range(history[-1].epoch, settings.epochs if watch.progress else 0):  # the bar counts on them
            watch.progress(f"{name} stopped early at epoch {history[-1].epoch}")  # type: ignore[misc]
        return head, history
    rows = fold.train if fold.val_is_given else seen(fold)
    model = fit_baseline(
        name,
        sequences.take(rows),
        seed=settings.seed,
        statistics=settings.pooled,
        scale=settings.pooled_scale,
        jobs=settings.jobs,
    )
    if watch.progress:
        watch.progress(name)
    return model, []


def fit_all(
    sequences: Sequences,
    fold: Fold,
    each: Sequence[tuple[TrainSettings, float]],
    *,
    watch: Watch = ALONE,
    part: int | str = 0,
) -> tuple[Model, list[Epoch]]:
    """Several models with their weights as one, or the only one; in the history members are numbered through."""
    if len(each) == 1:
        return fit(sequences, fold, each[0][0], watch=watch, part=part)
    models: list[Model] = []
    history: list[Epoch] = []
    for settings, _ in each:
        model, epochs = fit(sequences, fold, settings, watch=watch, part=part)
        first = max((epoch.member for epoch in history), default=-1) + 1
        history += [replace(epoch, member=first + epoch.member) for epoch in epochs]
        models.append(model)
    return join(models, *zip(*each, strict=True)), history


def inner_temperature(sequences: Sequences, fold: Fold, settings: TrainSettings, model: Model) -> float:
    """The temperature of the model of a single split, from its inner validation clips: the test part is never asked.

    A head's members are asked about the clips that each was stopped on; so is the whole where the split names them. A
    baseline or an ensemble has been fitted on those clips too, so that another one is, without them.
    """
    if fold.val_is_given or not len(fold.val):
        asked = [(model, fold.val)]
    elif isinstance(model, Committee):
        parts = [member_rows(sequences, fold, member, settings.seed)[1] for member in range(len(model.heads))]
        asked = [(Committee([head]), val) for head, val in zip(model.heads, parts, strict=True)]
    else:
        asked = [(fit(sequences, replace(fold, val=fold.val[:0]), settings)[0], fold.val)]
    rows = np.concatenate([val for _, val in asked])
    classes = len(sequences.labels)
    probs = [predict_probs(part, sequences.x[val], sequences.mask[val], classes) for part, val in asked]
    return fit_temperature(np.concatenate(probs), sequences.y[rows])


def seen(fold: Fold) -> np.ndarray:
    """The rows that training may learn from."""
    return np.sort(np.concatenate([fold.train, fold.val]))


def _epoch_line(name: str, progress: Progress | None) -> Callable[[int, float], None] | None:
    if progress is None:
        return None
    return lambda epoch, loss: progress(f"{name} epoch {epoch} val loss {loss:.3f}")
