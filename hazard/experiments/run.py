"""One training run from a cache to a model folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from features.cache.hdf5 import Cache
from features.errors import SettingsError
from features.spec import PLAIN
from features.utils.command_line import Stop
from features.utils.files import check_writable
from hazard.data.corrections import correct_cache
from hazard.data.sequences import load_sequences
from hazard.data.splits import Division, Fold, inner_split
from hazard.experiments import cross_validation, model_card, outputs, random_folds, trackers
from hazard.experiments import figures as measuring
from hazard.experiments.cross_validation import ENSEMBLES, Evaluation
from hazard.experiments.division import divide_honestly
from hazard.experiments.figures import Measured
from hazard.experiments.leaderboard import chosen_elsewhere, leaderboard, leaderboard_table
from hazard.experiments.progress import TrainingBar
from hazard.experiments.search.outputs import write_picture, write_trials
from hazard.experiments.search.search import Tuner, check_tune
from hazard.experiments.trackers import Tracker
from hazard.models.auto_size import sized
from hazard.models.ensemble import Ensemble, join
from hazard.models.head_ensemble import pick_device
from hazard.models.input_spec import TrainedWindow
from hazard.models.model_folder import save_model
from hazard.models.open_set import fit_familiar
from hazard.models.predictor import Model, ModelInfo, library_versions
from hazard.models.settings import TrainSettings
from hazard.training.checkpoint import Checkpoints, save_last
from hazard.training.fit import Choose, Watch, fit_all, seen
from hazard.training.member import Epoch
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
    check_tune(settings, compare=compare)
    trackers.check_installed(settings.tracker)
    identity, corrected = cache.content_digest, None
    if settings.labels_file:
        cache, corrected = correct_cache(cache, settings.labels_file)
        identity += f" {corrected.digest}"
    sequences = load_sequences(cache, max_steps=settings.max_steps, views=settings.views)
    settings = _with_positive_label(settings, sequences.labels).model_copy(update={"views": sequences.view_names})
    measuring.check_false_alarms(sequences, settings)
    sequences, division, leaks = divide_honestly(sequences, settings, echo=echo)
    if corrected:
        division = replace(division, how=f"{division.how}; {corrected.words}")
    check_writable(folder / "model.json")
    checkpoints = Checkpoints.open(
        folder, cache_digest=identity, settings=settings, compare=compare, resume=resume, stop=stop
    )
    _announce(sequences, division, leaks, echo)
    with trackers.track(settings.tracker, folder, settings.model_dump(mode="json")) as tracker:
        run = _Run(cache, sequences, division, leaks, folder, compare, checkpoints, echo)
        summary = run.train(settings, tracker)
        tracker.results(summary.figures, sorted(folder.glob("*.png")))
    checkpoints.remove()
    return summary


@dataclass(frozen=True)
class _Run:
    """What stays the same from the first fit to the last file."""

    cache: Cache
    sequences: Sequences
    division: Division
    leaks: dict[str, Any]
    folder: Path
    compare: bool
    checkpoints: Checkpoints
    echo: Callable[[str], None]

    def train(self, settings: TrainSettings, tracker: Tracker) -> RunSummary:
        """Everything from the first fold to the model folder."""
        sequences, folder = self.sequences, self.folder
        with TrainingBar(self.division, settings, compare=self.compare) as bar:
            tuner = Tuner(on_trial=bar.trial, keep=partial(write_trials, folder))
            settings, choose = self._sizes(settings, tuner)
            watch = Watch(bar.tick, tracker.epoch, choose, self.checkpoints)
            results = self._evaluate(settings, watch)
            best = results[0]
            if self.compare:
                settings = settings.of(best.kind, ENSEMBLES.get(best.name, best.name))
            bar.expect_refit(best, settings)
            settings, model, final = self._kept(best, settings, watch)
            measured = [measuring.measure(sequences, result, settings) for result in results]
            figures = measured[0].figures | {"leakage": self.leaks}
            if settings.random_folds:
                aside = Watch(
                    bar.tick, checkpoints=self.checkpoints
                )  # neither searched nor tracked: its folds are others
                figures["random_split"] = random_folds.random_split(sequences, settings, figures, watch=aside)
        if self.compare:
            figures["chosen_elsewhere"] = chosen_elsewhere(sequences, results, settings)
        info = self._save(best, settings, model)
        history: outputs.History = [*best.history, *((outputs.FINAL, epoch) for epoch in final)]
        outputs.write_outputs(
            folder,
            info=info,
            sequences=sequences,
            result=best,
            figures=figures,
            history=history,
            contenders=len(results),
        )
        write_picture(folder, tuner.searches)
        rows = self._leaderboard(results, measured)
        for line in (*model_card.remarks(figures), _closing(info, figures, folder)):
            self.echo(line)
        return RunSummary(folder, info, figures, tuple(rows))

    def _save(self, best: Evaluation, settings: TrainSettings, model: Model) -> ModelInfo:
        info = _info(self.cache, self.sequences, self.division, settings, model).model_copy(
            update=measuring.decisions(self.sequences, best, settings)
        )
        known = seen(self.division.folds[0]) if len(best.models) == 1 else np.unique(best.rows)
        familiar = fit_familiar(self.sequences, known, seed=settings.seed)
        info = save_model(self.folder, info=info, model=model, reduction=self.cache.reduction, familiar=familiar)
        save_last(self.folder, model)
        return info

    def _leaderboard(self, results: list[Evaluation], measured: list[Measured]) -> list[dict[str, Any]]:
        """Its rows, written and shown; none where nothing was compared."""
        if not self.compare:
            return []
        rows = leaderboard(results, measured, self.division)
        outputs.write_leaderboard(self.folder, rows)
        self.echo(leaderboard_table(rows))
        return rows

    def _sizes(self, settings: TrainSettings, tuner: Tuner) -> tuple[TrainSettings, Choose | None]:
        """Settings with no size left open; those of a search only once it has chosen, so that it may choose sizes."""
        clips = max(fold.training_clips for fold in self.division.folds)
        fixed = partial(sized, clips=clips, classes=len(self.sequences.labels))
        if settings.tune is None:
            return fixed(settings), None
        return settings, lambda sequences, part, given: fixed(tuner.choose(sequences, part, given))

    def _evaluate(self, settings: TrainSettings, watch: Watch) -> list[Evaluation]:
        if self.compare:
            results = cross_validation.compare(self.sequences, self.division, settings, watch=watch)
            return measuring.best_first(self.sequences, results, settings)
        return [cross_validation.evaluate(self.sequences, self.division, settings, watch=watch)]

    def _kept(
        self, best: Evaluation, settings: TrainSettings, watch: Watch
    ) -> tuple[TrainSettings, Model, list[Epoch]]:
        """The very model that was measured where there was one split; after folds, a fresh one fitted on all clips, or
        the folds' models together."""
        if len(best.models) == 1:
            return best.settings[0] if best.settings else settings, best.models[0], []
        if settings.keep == "folds":
            count = len(best.models)
            return settings, join(best.models, best.settings or [settings] * count, [1.0] * count), []
        each = [
            (watch.choose(self.sequences, outputs.FINAL, one) if watch.choose else one, weight)
            for one, weight in settings.singles()
        ]
        everything = np.arange(len(self.sequences))
        fold = Fold(*inner_split(self.sequences, everything, seed=settings.seed), test=everything[:0])
        model, history = fit_all(self.sequences, fold, each, watch=watch, part=outputs.FINAL)
        return each[0][0] if len(each) == 1 else settings, model, history


def _with_positive_label(settings: TrainSettings, labels: tuple[str, ...]) -> TrainSettings:
    wanted = settings.positive_label
    if wanted is not None and wanted not in labels:
        raise SettingsError(
            f"positive_label '{wanted}' is not a label of the cache; choose one of: {', '.join(labels)}"
        )
    return settings.model_copy(update={"positive_label": measuring.positive_label(labels, settings)})


def _announce(sequences: Sequences, division: Division, leaks: dict[str, Any], echo: Callable[[str], None]) -> None:
    counts = np.bincount(sequences.y, minlength=len(sequences.labels))
    clips = ", ".join(f"{label} {count}" for label, count in zip(sequences.labels, counts, strict=True))
    echo(f"{len(sequences)} clips ({clips}) from {len(np.unique(sequences.groups))} groups; {division.how}")
    if sequences.views:
        echo(f"heads are trained on views {', '.join(sequences.view_names)}; everything is measured on the plain one")
    for warning in model_card.leak_warnings(sequences, leaks):
        echo(f"WARNING: {warning}")


def _info(cache: Cache, sequences: Sequences, division: Division, settings: TrainSettings, model: Model) -> ModelInfo:
    used = (cache.clips.view == PLAIN) & (cache.clips.label != "") & (cache.clips.length > 0)
    window = TrainedWindow(
        duration_seconds=float(np.median(cache.clips.duration[used])),
        steps=int(np.median(sequences.mask.sum(axis=1))),
        longest_seconds=float(np.max(cache.clips.duration[used])),
    )
    kind, name = settings.kind_and_name
    if isinstance(model, Ensemble) and kind != "ensemble":
        kind, name = "ensemble", f"{name}, {len(model.members)} folds"
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
