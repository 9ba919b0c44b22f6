"""One training run from a cache to a model folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.cache import Cache
from features.commands import Stop
from features.errors import SettingsError
from features.files import check_writable
from features.progress import progress_bar
from features.spec import PLAIN
from hazard import evaluate, outputs
from hazard.baselines import BASELINES
from hazard.checkpoint import Checkpoints, save_last
from hazard.config import TrainSettings
from hazard.evaluate import Evaluation, Progress
from hazard.heads import HEADS
from hazard.model import Model, ModelInfo, TrainedWindow, library_versions, save_model
from hazard.sequences import load_sequences
from hazard.splits import Division, Fold, divide, inner_split
from hazard.train import Epoch, pick_device
from hazard.types import Sequences


@dataclass(frozen=True)
class RunSummary:
    """What a run ended with."""

    folder: Path
    info: ModelInfo
    figures: dict[str, Any]
    leaderboard: tuple[dict[str, Any], ...] = ()


def train_run(
    cache: Cache,
    settings: TrainSettings,
    folder: Path,
    *,
    compare: bool = False,
    resume: bool = False,
    stop: Stop | None = None,
    echo: Callable[[str], None] = print,
) -> RunSummary:
    """Evaluates, fits the model that is kept, and fills `folder`; with `compare` every head and baseline is evaluated.

    `resume` goes on with what an interrupted run left in `folder`, and ends with the very same files. Once `stop` says
    so, the epoch in work is finished and kept, and Stopped is raised.

    Raises SettingsError for a cache or a split that cannot be used and EnvironmentStopped where `folder` cannot be
    written, both before anything is trained.
    """
    pick_device(settings.device)
    sequences = load_sequences(cache, max_steps=settings.max_steps, views=settings.views)
    settings = _with_positive_label(settings, sequences.labels).model_copy(update={"views": sequences.view_names})
    division = divide(sequences, folds=settings.folds, split=settings.split, seed=settings.seed)
    check_writable(folder / "model.json")
    checkpoints = Checkpoints.open(
        folder, cache_digest=cache.content_digest, settings=settings, compare=compare, resume=resume, stop=stop
    )
    _announce(sequences, division, echo)
    with _Bar(sequences, division, settings, compare=compare) as bar:
        results = _evaluate(sequences, division, settings, compare=compare, progress=bar.tick, checkpoints=checkpoints)
        best = results[0]
        settings = settings.model_copy(
            update={best.kind: best.name} | ({"baseline": None} if best.kind == "head" else {})
        )
        bar.expect_refit(best, settings)
        model, final = _kept_model(sequences, best, settings, bar.tick, checkpoints)
    figures = [evaluate.figures(sequences, result, settings) for result in results]
    info = save_model(folder, info=_info(cache, sequences, division, settings), model=model, reduction=cache.reduction)
    save_last(folder, model)
    history: outputs.History = [*best.history, *((outputs.FINAL, epoch) for epoch in final)]
    outputs.write_outputs(
        folder,
        info=info,
        sequences=sequences,
        result=best,
        figures=figures[0],
        history=history,
        contenders=len(results),
    )
    rows = evaluate.leaderboard(zip(results, figures, strict=True)) if compare else []
    if compare:
        outputs.write_leaderboard(folder, rows)
        echo(evaluate.leaderboard_table(rows))
    checkpoints.remove()
    echo(_closing(info, figures[0], folder))
    return RunSummary(folder, info, figures[0], tuple(rows))


def _evaluate(
    sequences: Sequences,
    division: Division,
    settings: TrainSettings,
    *,
    compare: bool,
    progress: Progress,
    checkpoints: Checkpoints,
) -> list[Evaluation]:
    if compare:
        return evaluate.compare(sequences, division, settings, progress=progress, checkpoints=checkpoints)
    return [evaluate.evaluate(sequences, division, settings, progress=progress, checkpoints=checkpoints)]


def _kept_model(
    sequences: Sequences, best: Evaluation, settings: TrainSettings, progress: Progress, checkpoints: Checkpoints
) -> tuple[Model, list[Epoch]]:
    """The very model that was measured where there was one split; after folds, a fresh one fitted on all clips."""
    if len(best.models) == 1:
        return best.models[0], []
    everything = np.arange(len(sequences))
    fold = Fold(*inner_split(sequences, everything, seed=settings.seed), test=everything[:0])
    return evaluate.fit(sequences, fold, settings, progress=progress, checkpoints=checkpoints)


def _with_positive_label(settings: TrainSettings, labels: tuple[str, ...]) -> TrainSettings:
    wanted = settings.positive_label
    if wanted is not None and wanted not in labels:
        raise SettingsError(
            f"positive_label '{wanted}' is not a label of the cache; choose one of: {', '.join(labels)}"
        )
    return settings.model_copy(update={"positive_label": evaluate.positive_label(labels, settings)})


def _announce(sequences: Sequences, division: Division, echo: Callable[[str], None]) -> None:
    counts = np.bincount(sequences.y, minlength=len(sequences.labels))
    clips = ", ".join(f"{label} {count}" for label, count in zip(sequences.labels, counts, strict=True))
    echo(f"{len(sequences)} clips ({clips}) from {len(np.unique(sequences.groups))} groups; {division.how}")
    if sequences.views:
        echo(f"heads are trained on views {', '.join(sequences.view_names)}; everything is measured on the plain one")
    warning = outputs.leak_warning(sequences)
    if warning:
        echo(f"WARNING: {warning}")


def _info(cache: Cache, sequences: Sequences, division: Division, settings: TrainSettings) -> ModelInfo:
    used = (cache.clips.view == PLAIN) & (cache.clips.label != "") & (cache.clips.length > 0)
    window = TrainedWindow(
        duration_seconds=float(np.median(cache.clips.duration[used])), steps=int(np.median(sequences.mask.sum(axis=1)))
    )
    kind, name = evaluate.kind_and_name(settings)
    spec = cache.spec.plain()  # views are of training alone: inference computes none
    return ModelInfo(
        kind=kind,
        name=name,
        settings=settings,
        labels=sequences.labels,
        positive_label=settings.positive_label,
        width=sequences.x.shape[2],
        feature_spec=spec.model_dump(mode="json"),
        fingerprint=spec.fingerprint,
        reduction_kind=cache.reduction.kind if cache.reduction else None,
        weights_file=cache.weights_file,
        window=window,
        cache_digest=cache.content_digest,
        split=division.how,
        groups_known=sequences.groups_known,
        libraries=library_versions(),
    )


def _closing(info: ModelInfo, figures: dict[str, Any], folder: Path) -> str:
    def show(name: str) -> str:
        return f"{figures[name]['value']:.3f} ({figures[name]['low']:.3f}–{figures[name]['high']:.3f})"

    return f"{info.kind} {info.name}: accuracy {show('accuracy')}, ROC AUC {show('roc_auc')}; saved to {folder}"


class _Bar:
    """A progress bar over heads' epochs and baselines; epochs that early stopping spares count as done."""

    def __init__(self, sequences: Sequences, division: Division, settings: TrainSettings, *, compare: bool) -> None:
        fits = len(division.folds)
        heads = len(HEADS) if compare else int(settings.baseline is None)
        baselines = len(BASELINES) if compare else 1 - heads
        self._bar = progress_bar(fits * (heads * settings.epochs + baselines), what="training", unit="epoch")

    def expect_refit(self, best: Evaluation, settings: TrainSettings) -> None:
        """After folds, one more fit is to come."""
        if len(best.models) > 1:
            self._bar.total = (self._bar.total or 0) + (settings.epochs if best.kind == "head" else 1)

    def tick(self, line: str) -> None:
        self._bar.set_postfix_str(line, refresh=False)
        self._bar.update()

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
