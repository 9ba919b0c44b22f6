"""One training run from a cache to a model folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from features.cache.hdf5 import Cache
from features.errors import SettingsError
from features.spec import ORIGINAL_VIEW
from features.utils.command_line import StopFlag
from features.utils.files import check_writable
from hazard.data.corrections import apply_corrections
from hazard.data.sequences import load_sequences
from hazard.data.splits import CrossValidationSplits, Fold, make_inner_split
from hazard.experiments import cross_validation, model_card, outputs, random_folds, trackers
from hazard.experiments import figures as measuring
from hazard.experiments.cross_validation import COMPARED_ENSEMBLES, Evaluation
from hazard.experiments.division import make_checked_splits
from hazard.experiments.figures import EvaluationMetrics
from hazard.experiments.leaderboard import evaluate_model_choice, format_leaderboard, make_leaderboard
from hazard.experiments.progress import TrainingBar
from hazard.experiments.search.outputs import write_search_plot, write_trials
from hazard.experiments.search.search import Tuner, check_search
from hazard.experiments.trackers import Tracker
from hazard.models.auto_size import resolve_sizes
from hazard.models.ensemble import Ensemble, combine_models
from hazard.models.head_ensemble import pick_device
from hazard.models.input_spec import TrainingWindow
from hazard.models.model_folder import save_model
from hazard.models.open_set import fit_open_set_detector
from hazard.models.predictor import Model, ModelInfo, library_versions
from hazard.models.settings import TrainSettings
from hazard.training.checkpoint import Checkpoints, save_last_weights
from hazard.training.fit import ChooseSettings, FitCallbacks, fit_ensemble, training_rows
from hazard.training.member import EpochMetrics
from hazard.types import Sequences


@dataclass(frozen=True)
class RunSummary:
    """What a run ended with."""

    folder: Path
    info: ModelInfo
    metrics: dict[str, Any]
    leaderboard: tuple[dict[str, Any], ...] = ()


def train_run(
    cache: Cache,
    settings: TrainSettings,
    folder: Path,
    *,
    compare: bool = False,
    resume: bool = False,
    stop: StopFlag | None = None,
    echo: Callable[[str], None] = print,
) -> RunSummary:
    """Evaluates, fits the model that is kept, and fills `folder`; with `compare` every head and baseline is evaluated.

    `resume` goes on with what an interrupted run left in `folder`, and ends with the very same files. Once `stop` says
    so, the epoch in work is finished and kept, and Stopped is raised.

    Raises SettingsError for a cache or a split that cannot be used and EnvironmentStopped where `folder` cannot be
    written, both before anything is trained.
    """
    pick_device(settings.device)
    check_search(settings, compare=compare)
    trackers.check_tracker_installed(settings.tracker)
    identity, corrected = cache.content_digest, None
    if settings.labels_file:
        cache, corrected = apply_corrections(cache, settings.labels_file)
        identity += f" {corrected.digest}"
    sequences = load_sequences(cache, max_steps=settings.max_steps, views=settings.views)
    settings = _set_positive_label(settings, sequences.labels).model_copy(update={"views": sequences.view_names})
    measuring.check_false_alarm_target(sequences, settings)
    sequences, division, leaks = make_checked_splits(sequences, settings, echo=echo)
    if corrected:
        division = replace(division, description=f"{division.description}; {corrected.description}")
    check_writable(folder / "model.json")
    checkpoints = Checkpoints.open(
        folder, cache_digest=identity, settings=settings, compare=compare, resume=resume, stop=stop
    )
    _print_data_summary(sequences, division, leaks, echo)
    with trackers.open_tracker(settings.tracker, folder, settings.model_dump(mode="json")) as tracker:
        run = _TrainingRun(cache, sequences, division, leaks, folder, compare, checkpoints, echo)
        summary = run.train(settings, tracker)
        tracker.log_results(summary.metrics, sorted(folder.glob("*.png")))
    checkpoints.remove()
    return summary


@dataclass(frozen=True)
class _TrainingRun:
    """What stays the same from the first fit to the last file."""

    cache: Cache
    sequences: Sequences
    splits: CrossValidationSplits
    leakage: dict[str, Any]
    folder: Path
    compare: bool
    checkpoints: Checkpoints
    echo: Callable[[str], None]

    def train(self, settings: TrainSettings, tracker: Tracker) -> RunSummary:
        """Everything from the first fold to the model folder."""
        sequences, folder = self.sequences, self.folder
        with TrainingBar(self.splits, settings, compare=self.compare) as bar:
            tuner = Tuner(on_trial=bar.advance_trial, save_trials=partial(write_trials, folder))
            settings, choose = self._resolve_sizes(settings, tuner)
            watch = FitCallbacks(bar.advance_epoch, tracker.log_epoch, choose, self.checkpoints)
            results = self._evaluate(settings, watch)
            best = results[0]
            if self.compare:
                settings = settings.for_model(best.kind, COMPARED_ENSEMBLES.get(best.name, best.name))
            bar.expect_refit(best, settings)
            settings, model, final = self._make_final_model(best, settings, watch)
            measured = [measuring.compute_metrics(sequences, result, settings) for result in results]
            figures = measured[0].metrics | {"leakage": self.leakage}
            if settings.random_folds:
                aside = FitCallbacks(
                    bar.advance_epoch, checkpoints=self.checkpoints
                )  # neither searched nor tracked: its folds are others
                figures["random_split"] = random_folds.evaluate_random_folds(
                    sequences, settings, figures, callbacks=aside
                )
        if self.compare:
            figures["chosen_elsewhere"] = evaluate_model_choice(sequences, results, settings)
        info = self._save_model(best, settings, model)
        history: outputs.History = [*best.history, *((outputs.FINAL_FOLD, epoch) for epoch in final)]
        outputs.write_outputs(
            folder,
            info=info,
            sequences=sequences,
            result=best,
            metric_values=figures,
            history=history,
            contenders=len(results),
        )
        write_search_plot(folder, tuner.searches)
        rows = self._write_leaderboard(results, measured)
        for line in (*model_card.format_remarks(figures), _format_closing_line(info, figures, folder)):
            self.echo(line)
        return RunSummary(folder, info, figures, tuple(rows))

    def _save_model(self, best: Evaluation, settings: TrainSettings, model: Model) -> ModelInfo:
        info = _make_model_info(self.cache, self.sequences, self.splits, settings, model).model_copy(
            update=measuring.decision_settings(self.sequences, best, settings)
        )
        known = training_rows(self.splits.folds[0]) if len(best.models) == 1 else np.unique(best.rows)
        familiar = fit_open_set_detector(self.sequences, known, seed=settings.seed)
        info = save_model(
            self.folder, info=info, model=model, reduction=self.cache.reduction, open_set_detector=familiar
        )
        save_last_weights(self.folder, model)
        return info

    def _write_leaderboard(self, results: list[Evaluation], measured: list[EvaluationMetrics]) -> list[dict[str, Any]]:
        """Its rows, written and shown; none where nothing was compared."""
        if not self.compare:
            return []
        rows = make_leaderboard(results, measured, self.splits)
        outputs.write_leaderboard(self.folder, rows)
        self.echo(format_leaderboard(rows))
        return rows

    def _resolve_sizes(self, settings: TrainSettings, tuner: Tuner) -> tuple[TrainSettings, ChooseSettings | None]:
        """Settings with no size left open; those of a search only once it has chosen, so that it may choose sizes."""
        clips = max(fold.training_clip_count for fold in self.splits.folds)
        fixed = partial(resolve_sizes, clips=clips, classes=len(self.sequences.labels))
        if settings.tune is None:
            return fixed(settings), None
        return settings, lambda sequences, part, given: fixed(tuner.choose_settings(sequences, part, given))

    def _evaluate(self, settings: TrainSettings, callbacks: FitCallbacks) -> list[Evaluation]:
        if self.compare:
            results = cross_validation.compare_models(self.sequences, self.splits, settings, callbacks=callbacks)
            return measuring.rank_evaluations(self.sequences, results, settings)
        return [cross_validation.cross_validate(self.sequences, self.splits, settings, callbacks=callbacks)]

    def _make_final_model(
        self, best: Evaluation, settings: TrainSettings, callbacks: FitCallbacks
    ) -> tuple[TrainSettings, Model, list[EpochMetrics]]:
        """The very model that was measured where there was one split; after folds, a fresh one fitted on all clips, or
        the folds' models together."""
        if len(best.models) == 1:
            return best.settings[0] if best.settings else settings, best.models[0], []
        if settings.keep == "folds":
            count = len(best.models)
            return settings, combine_models(best.models, best.settings or [settings] * count, [1.0] * count), []
        each = [
            (
                callbacks.choose_settings(self.sequences, outputs.FINAL_FOLD, one)
                if callbacks.choose_settings
                else one,
                weight,
            )
            for one, weight in settings.split_by_model()
        ]
        everything = np.arange(len(self.sequences))
        fold = Fold(*make_inner_split(self.sequences, everything, seed=settings.seed), test=everything[:0])
        model, history = fit_ensemble(self.sequences, fold, each, callbacks=callbacks, fold_name=outputs.FINAL_FOLD)
        return each[0][0] if len(each) == 1 else settings, model, history


def _set_positive_label(settings: TrainSettings, labels: tuple[str, ...]) -> TrainSettings:
    wanted = settings.positive_label
    if wanted is not None and wanted not in labels:
        raise SettingsError(
            f"positive_label '{wanted}' is not a label of the cache; choose one of: {', '.join(labels)}"
        )
    return settings.model_copy(update={"positive_label": measuring.find_positive_label(labels, settings)})


def _print_data_summary(
    sequences: Sequences, splits: CrossValidationSplits, leakage: dict[str, Any], echo: Callable[[str], None]
) -> None:
    counts = np.bincount(sequences.y, minlength=len(sequences.labels))
    clips = ", ".join(f"{label} {count}" for label, count in zip(sequences.labels, counts, strict=True))
    echo(f"{len(sequences)} clips ({clips}) from {len(np.unique(sequences.groups))} groups; {splits.description}")
    if sequences.views:
        echo(f"heads are trained on views {', '.join(sequences.view_names)}; everything is measured on the plain one")
    for warning in model_card.make_leakage_warnings(sequences, leakage):
        echo(f"WARNING: {warning}")


def _make_model_info(
    cache: Cache, sequences: Sequences, splits: CrossValidationSplits, settings: TrainSettings, model: Model
) -> ModelInfo:
    used = (cache.clips.view == ORIGINAL_VIEW) & (cache.clips.label != "") & (cache.clips.length > 0)
    window = TrainingWindow(
        duration_seconds=float(np.median(cache.clips.duration[used])),
        steps=int(np.median(sequences.mask.sum(axis=1))),
        longest_seconds=float(np.max(cache.clips.duration[used])),
    )
    kind, name = settings.kind_and_name
    if isinstance(model, Ensemble) and kind != "ensemble":
        kind, name = "ensemble", f"{name}, {len(model.members)} folds"
    spec = cache.spec.without_augmentation()  # views are of training alone: inference computes none
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
        split=splits.description,
        groups_known=sequences.groups_known,
        libraries=library_versions(),
    )


def _format_closing_line(info: ModelInfo, metrics: dict[str, Any], folder: Path) -> str:
    def show(name: str) -> str:
        return f"{metrics[name]['value']:.3f} ({metrics[name]['low']:.3f}–{metrics[name]['high']:.3f})"

    return f"{info.kind} {info.name}: accuracy {show('accuracy')}, ROC AUC {show('roc_auc')}; saved to {folder}"
