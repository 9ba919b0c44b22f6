"""The progress bar of a training run. It counts epochs of heads and baselines, or the trials of a search."""

from features.utils.progress import make_progress_bar
from hazard.data.splits import HOLD_OUT_PARTS, CrossValidationSplits
from hazard.experiments.cross_validation import Evaluation
from hazard.models.auto_size import resolve_sizes
from hazard.models.baselines import BASELINES
from hazard.models.heads import HEADS
from hazard.models.settings import TrainSettings


class TrainingBar:
    """Progress bar of a training run; epochs that early stopping skips count as done."""

    def __init__(self, splits: CrossValidationSplits, settings: TrainSettings, *, compare: bool) -> None:
        fits = len(splits.folds)
        models = [model for model, _ in settings.split_by_model()] if settings.ensemble or not compare else []
        heads = sum(model.baseline is None for model in models) + (len(HEADS) if compare else 0)
        baselines = sum(model.baseline is not None for model in models) + (len(BASELINES) if compare else 0)
        self._counts_trials = settings.tune is not None
        self._epochs = resolve_sizes(settings, clips=splits.folds[0].training_clip_count, classes=1).epochs
        if settings.tune is not None:
            searches = fits * heads + (fits > 1)
            self._bar = make_progress_bar(searches * settings.tune, description="search", unit="trial")
            return
        random_fits = (settings.folds or HOLD_OUT_PARTS) * settings.repeats if settings.random_folds else 0
        epochs = fits * (heads * self._epochs + baselines) + random_fits * (self._epochs if heads else 1)
        self._bar = make_progress_bar(epochs, description="training", unit="epoch")

    def expect_refit(self, best: Evaluation, settings: TrainSettings) -> None:
        """Add the final fit on all clips to the total, if there is one after the folds."""
        if len(best.models) > 1 and settings.keep == "refit" and not self._counts_trials:
            epochs = sum(self._epochs if model.baseline is None else 1 for model, _ in settings.split_by_model())
            self._bar.total = (self._bar.total or 0) + epochs

    def advance_epoch(self, line: str) -> None:
        """Count one more epoch or baseline and show its line."""
        self._bar.set_postfix_str(line, refresh=False)
        self._bar.update(0 if self._counts_trials else 1)

    def advance_trial(self, line: str) -> None:
        """Count one more trial of a search and show its line."""
        self._bar.set_postfix_str(line, refresh=False)
        self._bar.update()

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
