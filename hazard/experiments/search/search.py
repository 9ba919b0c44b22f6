"""Search for the best settings by trials on inner folds of the training clips.

This is nested cross-validation (Stone 1974; Varma and Simon 2006): `Tuner.choose_settings` gets only the training clips
of an outer fold, so that no test clip can influence the settings that are measured on it.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from hazard.data.splits import Fold, make_grouped_folds
from hazard.experiments.search.space import SEARCH_SPACE, Choice, Range, format_value
from hazard.metrics import classification as metrics
from hazard.models.predictor import predict_probs
from hazard.models.settings import TrainSettings
from hazard.training.trainer import fit_head
from hazard.types import Sequences

log = logging.getLogger(__name__)

INNER_FOLDS = 3
TRIAL_MEMBERS = 1
"""Heads that a trial trains per fold. Settings that suit one head suit an ensemble of five, at a fifth of the time."""
MIN_PROBABILITY = 1e-7
"""Lower limit of probabilities, so that one confident mistake does not outweigh all other clips."""

MIN_TRIALS_FOR_IMPORTANCE = 10
"""Fewest complete trials for meaningful importances."""
PRUNER_PERCENTILE = 67.0
"""Percentile below which a trial is ended after an inner fold; with few clips per fold the median is too strict."""

ScoreFunction = Callable[[NDArray[np.int64], NDArray[np.float64]], float]


@dataclass(frozen=True)
class Trial:
    """One row of trials.csv."""

    fold_name: int | str
    """Outer fold whose training clips were used, or `final`."""
    number: int
    parameters: Mapping[str, Any]
    value: float
    """Mean over the inner folds that were tried, greater is better; NaN if training diverged."""
    inner_folds: int
    state: Literal["complete", "pruned", "failed"]
    chosen: bool = False


@dataclass(frozen=True)
class SearchResult:
    """Trials of one search and the settings that it chose."""

    objective: str
    trials: tuple[Trial, ...]
    importance: Mapping[str, float]
    """Importance of each parameter as a share; empty with too few trials."""
    settings: TrainSettings


class Tuner:
    """Search for the settings of every fold, which keeps all trials.

    `on_trial` is called with a line of text after each trial. `save_trials` is called with all trials so far, so that
    none is lost if the program is stopped.
    """

    def __init__(
        self,
        *,
        on_trial: Callable[[str], None] | None = None,
        save_trials: Callable[[Sequence[Trial]], None] | None = None,
    ) -> None:
        self.searches: list[SearchResult] = []
        self._trials: list[Trial] = []
        self._on_trial, self._save_trials = on_trial, save_trials

    def choose_settings(self, sequences: Sequences, fold_name: int | str, settings: TrainSettings) -> TrainSettings:
        """Return the best settings found on `sequences`, which must be training clips only.

        Without `tune`, and for a baseline, return `settings` unchanged. Raises SettingsError if nothing can be
        searched.
        """
        if settings.tune is None or settings.kind_and_name[0] != "head":
            return settings
        try:
            result = run_search(sequences, settings, fold_name=fold_name, on_trial=self._record_trial)
        except KeyboardInterrupt:
            log.warning("\nstopped; the %d finished trials are in trials.csv", len(self._trials))
            raise
        self.searches.append(result)
        self._trials[-len(result.trials) :] = result.trials
        self._save_all_trials()
        return result.settings

    def _record_trial(self, trial: Trial) -> None:
        self._trials.append(trial)
        self._save_all_trials()
        if self._on_trial:
            self._on_trial(f"fold {trial.fold_name} trial {trial.number} {trial.state} {trial.value:.3f}")

    def _save_all_trials(self) -> None:
        if self._save_trials:
            self._save_trials(self._trials)


def check_search(settings: TrainSettings, *, compare: bool = False) -> None:
    """Check that a requested search can run; raises SettingsError without Optuna or if nothing is left to search."""
    if settings.tune is None:
        return
    if find_spec("optuna") is None:
        raise SettingsError("--tune needs Optuna: pip install optuna")
    if settings.baseline is not None and not compare:
        raise SettingsError(
            f"--tune searches settings of heads only; leave out --tune or the baseline {settings.baseline}"
        )
    if settings.ensemble is not None:
        raise SettingsError("--tune searches one head at a time; leave out --ensemble (you may use --compare instead)")
    make_search_space(settings)


def make_search_space(settings: TrainSettings) -> dict[str, Choice | Range]:
    """Return the settings that a search may change: all of SEARCH_SPACE that no flag, `--set` or file sets.

    Raises SettingsError if all of them are set.
    """
    fixed = settings.model_fields_set
    space = {name: draw.with_value(getattr(settings, name)) for name, draw in SEARCH_SPACE.items() if name not in fixed}
    if not space:
        raise SettingsError(
            f"--tune has nothing to search: you set all of {', '.join(SEARCH_SPACE)}; leave some of them out"
        )
    return space


def run_search(
    sequences: Sequences,
    settings: TrainSettings,
    *,
    fold_name: int | str = 0,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Run `settings.tune` trials on grouped inner folds of `sequences`; the first trial uses the settings as given.

    Values are drawn by Optuna's seeded TPE sampler (Bergstra et al. 2011). A trial whose mean is worse than most others
    after an inner fold is ended there. Greater values are better, see `choose_objective`.
    """
    optuna, trial_count = _import_optuna(), settings.tune or 1
    space, folds = make_search_space(settings), make_inner_folds(sequences, settings.seed)
    objective, score = choose_objective(sequences, folds)
    study = _make_study(optuna, space, settings, trial_count)
    trials: list[Trial] = []
    candidates: list[TrainSettings] = []
    for number in range(trial_count):
        optuna_trial = study.ask()
        drawn = {name: draw.draw(optuna_trial, name) for name, draw in space.items()}
        candidates.append(settings.model_copy(update=drawn))
        values = _score_inner_folds(sequences, folds, candidates[-1], score, optuna_trial)
        trial = Trial(fold_name, number, drawn, float(np.mean(values)), len(values), "complete")
        trials.append(_report_trial(optuna, study, optuna_trial, trial, folds))
        if on_trial:
            on_trial(trials[-1])
    complete = [trial for trial in trials if trial.state == "complete"]
    best = max(complete, key=lambda trial: trial.value).number if complete else 0
    marked = tuple(replace(trial, chosen=trial.number == best) for trial in trials)
    return SearchResult(objective, marked, _compute_importance(optuna, study), candidates[best])


def make_inner_folds(sequences: Sequences, seed: int) -> tuple[Fold, ...]:
    """Return three grouped folds, or two if there are only two groups. Raises SettingsError for fewer groups."""
    count = min(INNER_FOLDS, len(np.unique(sequences.groups)))
    if count < 2:
        raise SettingsError(
            "--tune needs training clips from at least two groups; "
            f"the {len(sequences)} clips of this fold come from one"
        )
    return make_grouped_folds(sequences, count, seed=seed)


def choose_objective(sequences: Sequences, folds: Sequence[Fold]) -> tuple[str, ScoreFunction]:
    """Return the name of the objective and the function that scores predictions by it.

    It is ROC AUC, which also ranks models, if there are two labels and both occur in every inner test part. Otherwise
    it is the mean log likelihood of the true label: with few clips per label a ranking is coarse, the likelihood uses
    all clips.
    """
    if len(sequences.labels) == 2 and all(len(np.unique(sequences.y[fold.test])) == 2 for fold in folds):
        return "mean inner ROC AUC", lambda y, probs: metrics.roc_auc(y, probs, positive=1)
    return "mean inner log likelihood (nats)", _log_likelihood


def _log_likelihood(y: NDArray[np.int64], probs: NDArray[np.float64]) -> float:
    return float(np.log(np.maximum(probs[np.arange(len(y)), y], MIN_PROBABILITY)).mean())


def _score_inner_folds(
    sequences: Sequences, folds: Sequence[Fold], settings: TrainSettings, score: ScoreFunction, optuna_trial: Any
) -> list[float]:
    """Return the score on each inner fold, up to the one after which the trial is pruned or has failed."""
    values: list[float] = []
    for number, fold in enumerate(folds):
        head, _ = fit_head(sequences, fold, settings.model_copy(update={"members": TRIAL_MEMBERS}))
        probs = predict_probs(head, sequences.x[fold.test], sequences.mask[fold.test], len(sequences.labels))
        values.append(score(sequences.y[fold.test], probs) if np.isfinite(probs).all() else math.nan)
        if math.isnan(values[-1]):
            break
        optuna_trial.report(float(np.mean(values)), number)
        if optuna_trial.should_prune():
            break
    return values


def _make_study(optuna: Any, space: Mapping[str, Choice | Range], settings: TrainSettings, trial_count: int) -> Any:
    """Return a study whose first trial uses the settings as given, if the search space contains them."""
    # these trials are drawn at random and not pruned
    startup_trials = min(10, max(1, trial_count // 3))
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=settings.seed, n_startup_trials=startup_trials),
        pruner=optuna.pruners.PercentilePruner(PRUNER_PERCENTILE, n_startup_trials=startup_trials),
    )
    given = {name: getattr(settings, name) for name in space}
    study.enqueue_trial({name: format_value(value) for name, value in given.items() if space[name].is_allowed(value)})
    return study


def _report_trial(optuna: Any, study: Any, optuna_trial: Any, trial: Trial, folds: Sequence[Fold]) -> Trial:
    """Report the trial's state to Optuna; return the trial with that state."""
    states = optuna.trial.TrialState
    if math.isnan(trial.value):
        study.tell(optuna_trial, state=states.FAIL)
        return replace(trial, state="failed")
    if trial.inner_folds < len(folds):
        study.tell(optuna_trial, state=states.PRUNED)
        return replace(trial, state="pruned")
    study.tell(optuna_trial, trial.value)
    return trial


def _compute_importance(optuna: Any, study: Any) -> dict[str, float]:
    """Return each parameter's importance: how the best trials differ from others (PED-ANOVA, Watanabe et al. 2023)."""
    complete = [trial.value for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len(set(complete)) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _import_optuna() -> Any:
    import optuna  # imported here because it is optional and takes half a second

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").propagate = False
    return optuna
