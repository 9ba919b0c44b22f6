"""One training run, from a feature cache to a model folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from features.cache.hdf5 import Cache
from features.spec import ORIGINAL_VIEW
from features.utils.command_line import StopFlag
from features.utils.files import check_writable
from hazard.data.corrections import apply_corrections
from hazard.data.sequences import load_sequences
from hazard.data.splits import CrossValidationSplits, Fold, make_inner_split
from hazard.experiments import cross_validation, evaluation_metrics, model_card, outputs, random_folds, trackers
from hazard.experiments.checked_splits import make_checked_splits
from hazard.experiments.cross_validation import COMPARED_ENSEMBLES, Evaluation, list_head_fits
from hazard.experiments.evaluation_metrics import EvaluationMetrics, PositiveChoice
from hazard.experiments.label_coverage import check_training_labels, make_label_warnings
from hazard.experiments.leaderboard import evaluate_model_choice, format_leaderboard, make_leaderboard
from hazard.experiments.progress import TrainingBar
from hazard.experiments.search.outputs import write_search_plot, write_trials
from hazard.experiments.search.search import Tuner, check_search
from hazard.experiments.trackers import Tracker
from hazard.metrics.intervals import format_interval
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
from hazard.training.head_fits import HeadFits, is_suited
from hazard.training.head_trainer import EpochMetrics
from hazard.types import Sequences


@dataclass(frozen=True)
class RunSummary:
    """Result of a training run."""

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
    """Evaluate the model, fit the one that is saved, and write all files to `folder`.

    With `compare` every head and baseline is evaluated and the best one is saved. With `resume` an interrupted run in
    `folder` continues and ends with the same files. Once `stop` is set, the current epoch is finished and saved, and
    TrainingStopped is raised.

    Raises SettingsError if the cache or the split cannot be used and RuntimeEnvironmentError if `folder` cannot be
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
    positive = evaluation_metrics.choose_positive_label(sequences.labels, settings)
    evaluation_metrics.warn_if_guessed(positive, sequences.labels)
    settings = settings.model_copy(update={"positive_label": positive.label, "views": sequences.view_names})
    sequences, splits, leakage = make_checked_splits(sequences, settings, echo=echo)
    check_training_labels(sequences, splits)
    label_warnings = make_label_warnings(sequences, splits)
    evaluation_metrics.check_false_alarm_target(sequences, splits, settings)
    if corrected:
        splits = replace(splits, description=f"{splits.description}; {corrected.description}")
    check_writable(folder / "model.json")
    checkpoints = Checkpoints.open(
        folder, cache_digest=identity, settings=settings, compare=compare, resume=resume, stop=stop
    )
    _print_data_summary(
        sequences, splits, [*label_warnings, *model_card.make_leakage_warnings(sequences, leakage)], echo
    )
    with trackers.open_tracker(settings.tracker, folder, settings.model_dump(mode="json")) as tracker:
        run = _TrainingRun(
            cache, sequences, splits, positive, leakage, label_warnings, folder, compare, checkpoints, echo
        )
        summary = run.train(settings, tracker)
        tracker.log_results(summary.metrics, sorted(folder.glob("*.png")))
    checkpoints.remove()
    return summary


@dataclass(frozen=True)
class _TrainingRun:
    """Data and services that stay the same during a training run."""

    cache: Cache
    sequences: Sequences
    splits: CrossValidationSplits
    positive: PositiveChoice
    leakage: dict[str, Any]
    label_warnings: list[str]
    folder: Path
    compare: bool
    checkpoints: Checkpoints
    echo: Callable[[str], None]

    def train(self, settings: TrainSettings, tracker: Tracker) -> RunSummary:
        """Evaluate on all folds, fit the final model, and write the model folder."""
        sequences, folder = self.sequences, self.folder
        with TrainingBar(self.splits, settings, compare=self.compare) as bar:
            tuner = Tuner(on_trial=bar.advance_trial, save_trials=partial(write_trials, folder))
            settings, choose_settings = self._resolve_sizes(settings, tuner)
            callbacks = FitCallbacks(bar.advance_epoch, tracker.log_epoch, choose_settings, self.checkpoints)
            fits = list_head_fits(self.splits, settings, compare=self.compare) if is_suited(settings) else []
            with HeadFits(sequences, fits, self.checkpoints, jobs=settings.jobs) as head_fits:
                results = self._evaluate(settings, replace(callbacks, wait_for=head_fits.wait_for))
            best = results[0]
            if self.compare:
                settings = settings.for_model(best.kind, COMPARED_ENSEMBLES.get(best.name, best.name))
            bar.expect_refit(best, settings)
            settings, model, final_epochs = self._make_final_model(best, settings, callbacks)
            measured = [evaluation_metrics.compute_metrics(sequences, result, settings) for result in results]
            metrics = measured[0].metrics | {
                "leakage": self.leakage,
                "label_warnings": self.label_warnings,
                "positive_label_source": self.positive.source,
            }
            if settings.random_folds:
                # without search and tracker, because these are other folds
                random_callbacks = FitCallbacks(bar.advance_epoch, checkpoints=self.checkpoints)
                metrics["random_split"] = random_folds.evaluate_random_folds(
                    sequences, settings, metrics, callbacks=random_callbacks
                )
        if self.compare:
            metrics["chosen_elsewhere"] = evaluate_model_choice(sequences, results, settings)
        info = self._save_model(best, settings, model)
        history: outputs.History = [*best.history, *((outputs.FINAL_FOLD, epoch) for epoch in final_epochs)]
        outputs.write_outputs(
            folder,
            info=info,
            sequences=sequences,
            result=best,
            metric_values=metrics,
            history=history,
            contenders=len(results),
        )
        write_search_plot(folder, tuner.searches)
        rows = self._write_leaderboard(results, measured)
        for line in (*model_card.format_remarks(metrics), _format_closing_line(info, metrics, folder)):
            self.echo(line)
        return RunSummary(folder, info, metrics, tuple(rows))

    def _save_model(self, best: Evaluation, settings: TrainSettings, model: Model) -> ModelInfo:
        info = _make_model_info(self.cache, self.sequences, self.splits, settings, model).model_copy(
            update=evaluation_metrics.make_decision_settings(self.sequences, best, settings)
        )
        known_rows = training_rows(self.splits.folds[0]) if len(best.models) == 1 else np.unique(best.rows)
        detector = fit_open_set_detector(self.sequences, known_rows, seed=settings.seed)
        info = save_model(
            self.folder, info=info, model=model, reduction=self.cache.reduction, open_set_detector=detector
        )
        save_last_weights(self.folder, model)
        return info

    def _write_leaderboard(self, results: list[Evaluation], measured: list[EvaluationMetrics]) -> list[dict[str, Any]]:
        """Write and print the leaderboard; return its rows, none if no models were compared."""
        if not self.compare:
            return []
        rows = make_leaderboard(results, measured, self.splits)
        ranking = evaluation_metrics.ranking_metric(len(self.sequences.labels))
        outputs.write_leaderboard(self.folder, rows, ranking=ranking)
        self.echo(format_leaderboard(rows, ranking=ranking))
        return rows

    def _resolve_sizes(self, settings: TrainSettings, tuner: Tuner) -> tuple[TrainSettings, ChooseSettings | None]:
        """Return settings with all sizes resolved, and the function that chooses a fold's settings.

        With a search the sizes are resolved after each choice, so that the search may choose sizes.
        """
        clips = max(fold.training_clip_count for fold in self.splits.folds)
        resolve = partial(resolve_sizes, clips=clips, classes=len(self.sequences.labels))
        if settings.tune is None:
            return resolve(settings), None
        return settings, lambda sequences, fold_name, given: resolve(tuner.choose_settings(sequences, fold_name, given))

    def _evaluate(self, settings: TrainSettings, callbacks: FitCallbacks) -> list[Evaluation]:
        if self.compare:
            results = cross_validation.compare_models(self.sequences, self.splits, settings, callbacks=callbacks)
            return evaluation_metrics.rank_evaluations(self.sequences, results, settings)
        return [cross_validation.cross_validate(self.sequences, self.splits, settings, callbacks=callbacks)]

    def _make_final_model(
        self, best: Evaluation, settings: TrainSettings, callbacks: FitCallbacks
    ) -> tuple[TrainSettings, Model, list[EpochMetrics]]:
        """Return the settings, the model to save and its history.

        With one split it is the model that was measured. With folds it is a new model fitted on all clips, or, with
        `keep=folds`, the ensemble of the folds' models.
        """
        if len(best.models) == 1:
            return best.settings[0] if best.settings else settings, best.models[0], []
        if settings.keep == "folds":
            count = len(best.models)
            return settings, combine_models(best.models, best.settings or [settings] * count, [1.0] * count), []
        weighted_settings = [
            (
                callbacks.choose_settings(self.sequences, outputs.FINAL_FOLD, member)
                if callbacks.choose_settings
                else member,
                weight,
            )
            for member, weight in settings.split_by_model()
        ]
        all_rows = np.arange(len(self.sequences))
        fold = Fold(*make_inner_split(self.sequences, all_rows, seed=settings.seed), test=all_rows[:0])
        model, history = fit_ensemble(
            self.sequences, fold, weighted_settings, callbacks=callbacks, fold_name=outputs.FINAL_FOLD
        )
        return weighted_settings[0][0] if len(weighted_settings) == 1 else settings, model, history


def _print_data_summary(
    sequences: Sequences, splits: CrossValidationSplits, warnings: list[str], echo: Callable[[str], None]
) -> None:
    counts = np.bincount(sequences.y, minlength=len(sequences.labels))
    clips = ", ".join(f"{label} {count}" for label, count in zip(sequences.labels, counts, strict=True))
    echo(f"{len(sequences)} clips ({clips}) from {len(np.unique(sequences.groups))} groups; {splits.description}")
    if sequences.views:
        echo(f"heads are trained on views {', '.join(sequences.view_names)}; metrics use the original view only")
    for warning in warnings:
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
    spec = cache.spec.without_augmentation()  # views are for training only; inference computes none
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
    names = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "roc_auc": "ROC AUC"}
    if info.positive_label:
        names["recall"] = f"recall of {info.positive_label}"
    scores = [f"{name} {metrics[key]['value']:.3f} ({format_interval(metrics[key])})" for key, name in names.items()]
    return f"{info.kind} {info.name}: {', '.join(scores)}; saved to {folder}"
