"""One training run from a cache to a model folder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from features.cache import Cache
from features.errors import SettingsError
from features.files import check_writable
from features.progress import progress_bar
from features.spec import PLAIN
from hazard import evaluate, outputs, tracking
from hazard.baselines import BASELINES
from hazard.config import TrainSettings
from hazard.evaluate import Choose, Evaluation, OnEpoch, Progress
from hazard.heads import HEADS
from hazard.model import Model, ModelInfo, TrainedWindow, library_versions, save_model
from hazard.search import Tuner, check_tune
from hazard.search_outputs import write_picture, write_trials
from hazard.sequences import load_sequences
from hazard.splits import Division, Fold, divide, inner_split
from hazard.tracking import Tracker
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
    cache: Cache, settings: TrainSettings, folder: Path, *, compare: bool = False, echo: Callable[[str], None] = print
) -> RunSummary:
    """Evaluates, fits the model that is kept, and fills `folder`; with `compare` every head and baseline is evaluated.

    Raises SettingsError for a cache or a split that cannot be used and EnvironmentStopped where `folder` cannot be
    written, both before anything is trained.
    """
    pick_device(settings.device)
    check_tune(settings, compare=compare)
    tracking.check_installed(settings.tracker)
    sequences = load_sequences(cache, max_steps=settings.max_steps, views=settings.views)
    settings = _with_positive_label(settings, sequences.labels).model_copy(update={"views": sequences.view_names})
    division = divide(sequences, folds=settings.folds, split=settings.split, seed=settings.seed)
    check_writable(folder / "model.json")
    _announce(sequences, division, echo)
    with tracking.track(settings.tracker, folder, settings.model_dump(mode="json")) as tracker:
        summary = _train(cache, sequences, division, settings, folder, compare=compare, echo=echo, tracker=tracker)
        tracker.results(summary.figures, sorted(folder.glob("*.png")))
    return summary


def _train(
    cache: Cache,
    sequences: Sequences,
    division: Division,
    settings: TrainSettings,
    folder: Path,
    *,
    compare: bool,
    echo: Callable[[str], None],
    tracker: Tracker,
) -> RunSummary:
    with _Bar(sequences, division, settings, compare=compare) as bar:
        tuner = Tuner(on_trial=bar.trial, keep=partial(write_trials, folder))
        watch: dict[str, Any] = {"progress": bar.tick, "on_epoch": tracker.epoch}
        watch["choose"] = None if settings.tune is None else tuner.choose
        results = _evaluate(sequences, division, settings, compare=compare, **watch)
        best = results[0]
        if compare:
            settings = settings.model_copy(
                update={best.kind: best.name} | ({"baseline": None} if best.kind == "head" else {})
            )
        settings, model, final = _kept_model(sequences, best, settings, **watch)
    figures = [evaluate.figures(sequences, result, settings) for result in results]
    info = save_model(folder, info=_info(cache, sequences, division, settings), model=model, reduction=cache.reduction)
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
    if tuner.searches:
        write_picture(folder, tuner.searches)
    rows = evaluate.leaderboard(zip(results, figures, strict=True)) if compare else []
    if compare:
        outputs.write_leaderboard(folder, rows)
        echo(evaluate.leaderboard_table(rows))
    echo(_closing(info, figures[0], folder))
    return RunSummary(folder, info, figures[0], tuple(rows))


def _evaluate(
    sequences: Sequences, division: Division, settings: TrainSettings, *, compare: bool, **watch: Any
) -> list[Evaluation]:
    if compare:
        return evaluate.compare(sequences, division, settings, **watch)
    return [evaluate.evaluate(sequences, division, settings, **watch)]


def _kept_model(
    sequences: Sequences,
    best: Evaluation,
    settings: TrainSettings,
    *,
    progress: Progress,
    choose: Choose | None,
    on_epoch: OnEpoch,
) -> tuple[TrainSettings, Model, list[Epoch]]:
    """The very model that was measured where there was one split; after folds, a fresh one fitted on all clips."""
    if len(best.models) == 1:
        return best.settings[0], best.models[0], []
    if choose:
        settings = choose(sequences, outputs.FINAL, settings)
    everything = np.arange(len(sequences))
    fold = Fold(*inner_split(sequences, everything, seed=settings.seed), test=everything[:0])
    watch = partial(on_epoch, evaluate.kind_and_name(settings)[1], outputs.FINAL)
    return settings, *evaluate.fit(sequences, fold, settings, progress=progress, on_epoch=watch)


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
    """A progress bar over heads' epochs and baselines; it ends early where training stops early."""

    def __init__(self, sequences: Sequences, division: Division, settings: TrainSettings, *, compare: bool) -> None:
        fits = len(division.folds)
        heads = len(HEADS) if compare else int(settings.baseline is None)
        baselines = len(BASELINES) if compare else 1 - heads
        self._trials = settings.tune is not None
        if settings.tune is not None:
            searches = fits * heads + (fits > 1)
            self._bar = progress_bar(searches * settings.tune, what="search", unit="trial")
        else:
            self._bar = progress_bar(fits * (heads * settings.epochs + baselines), what="training", unit="epoch")

    def tick(self, line: str) -> None:
        self._bar.set_postfix_str(line, refresh=False)
        self._bar.update(0 if self._trials else 1)

    def trial(self, line: str) -> None:
        self._bar.set_postfix_str(line, refresh=False)
        self._bar.update()

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
