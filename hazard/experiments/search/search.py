"""Settings found by trials on inner folds of the training clips.

Nested cross-validation (Stone 1974; Varma and Simon 2006): `Tuner.choose` is handed the training clips of an outer fold
and nothing else, so that no clip which the chosen settings are measured on can have a say in them.
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
"""A trial trains one head a fold: settings that suit one suit a committee, and cost a fifth."""
MIN_PROBABILITY = 1e-7
"""So that one clip that a head was wrongly sure of does not outweigh all others."""

MIN_TRIALS_FOR_IMPORTANCE = 10
"""Complete trials from which importances mean anything."""
PRUNER_PERCENTILE = 67.0
"""After each inner fold the trials below this share of the others are ended; few clips a fold make half too strict."""

ScoreFunction = Callable[[NDArray[np.int64], NDArray[np.float64]], float]


@dataclass(frozen=True)
class Trial:
    """One row of trials.csv."""

    fold_name: int | str
    """The outer fold whose training clips it was for, or `final`."""
    number: int
    parameters: Mapping[str, Any]
    value: float
    """Mean over the inner folds that were tried, greater is better; NaN where training diverged."""
    inner_folds: int
    state: Literal["complete", "pruned", "failed"]
    chosen: bool = False


@dataclass(frozen=True)
class SearchResult:
    """What was tried for one part, and what came out."""

    objective: str
    trials: tuple[Trial, ...]
    importance: Mapping[str, float]
    """Share of each parameter in how good a trial was; empty where the trials are too few to tell."""
    settings: TrainSettings


class Tuner:
    """Chooses the settings of every fold, and remembers what it tried.

    `on_trial` is called with a line after each trial, `keep` with all trials so far, so that none is lost if the
    program is stopped.
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
        """The best settings found on `sequences`, which are training clips alone; `settings` where `tune` is not set.

        A baseline is left as it is. Raises SettingsError where nothing can be searched.
        """
        if settings.tune is None or settings.kind_and_name[0] != "head":
            return settings
        try:
            found = run_search(sequences, settings, fold_name=fold_name, on_trial=self._record_trial)
        except KeyboardInterrupt:
            log.warning("\nstopped on request: the %d trials that were finished are in trials.csv", len(self._trials))
            raise
        self.searches.append(found)
        self._trials[-len(found.trials) :] = found.trials
        self._save_all_trials()
        return found.settings

    def _record_trial(self, trial: Trial) -> None:
        self._trials.append(trial)
        self._save_all_trials()
        if self._on_trial:
            self._on_trial(f"part {trial.fold_name} trial {trial.number} {trial.state} {trial.value:.3f}")

    def _save_all_trials(self) -> None:
        if self._save_trials:
            self._save_trials(self._trials)


def check_search(settings: TrainSettings, *, compare: bool = False) -> None:
    """Raises SettingsError where a search was asked for and cannot be made: no Optuna, or nothing left to search."""
    if settings.tune is None:
        return
    if find_spec("optuna") is None:
        raise SettingsError("--tune needs Optuna: pip install 'hazard-video[tune]'")
    if settings.baseline is not None and not compare:
        raise SettingsError(
            f"--tune searches heads; baseline {settings.baseline} has its settings fixed: leave one out"
        )
    if settings.ensemble is not None:
        raise SettingsError("--tune searches one head at a time: leave out --ensemble, or add --compare without it")
    make_search_space(settings)


def make_search_space(settings: TrainSettings) -> dict[str, Choice | Range]:
    """What a search may change: all of SPACE but what a flag, `--set` or a file names.

    Raises SettingsError where these name everything.
    """
    named = settings.model_fields_set
    space = {name: draw.with_value(getattr(settings, name)) for name, draw in SEARCH_SPACE.items() if name not in named}
    if not space:
        raise SettingsError(
            f"--tune has nothing to search: the settings name all of {', '.join(SEARCH_SPACE)}; leave some out"
        )
    return space


def run_search(
    sequences: Sequences,
    settings: TrainSettings,
    *,
    fold_name: int | str = 0,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """The best of `settings.tune` trials on grouped inner folds of `sequences`; the first is the settings as given.

    Optuna's TPE sampler (Bergstra et al. 2011), seeded; a trial whose mean falls behind most others after an inner fold
    is ended there. Greater is better: see `objective`.
    """
    optuna, wanted = _import_optuna(), settings.tune or 1
    space, folds = make_search_space(settings), make_inner_folds(sequences, settings.seed)
    goal, score = choose_objective(sequences, folds)
    study = _make_study(optuna, space, settings, wanted)
    trials: list[Trial] = []
    candidates: list[TrainSettings] = []
    for number in range(wanted):
        asked = study.ask()
        drawn = {name: draw.draw(asked, name) for name, draw in space.items()}
        candidates.append(settings.model_copy(update=drawn))
        values = _score_inner_folds(sequences, folds, candidates[-1], score, asked)
        row = Trial(fold_name, number, drawn, float(np.mean(values)), len(values), "complete")
        trials.append(_report_trial(optuna, study, asked, row, folds))
        if on_trial:
            on_trial(trials[-1])
    complete = [trial for trial in trials if trial.state == "complete"]
    best = max(complete, key=lambda trial: trial.value).number if complete else 0
    marked = tuple(replace(trial, chosen=trial.number == best) for trial in trials)
    return SearchResult(goal, marked, _compute_importance(optuna, study), candidates[best])


def make_inner_folds(sequences: Sequences, seed: int) -> tuple[Fold, ...]:
    """Three grouped folds, two where there are but two groups. Raises SettingsError below that."""
    count = min(INNER_FOLDS, len(np.unique(sequences.groups)))
    if count < 2:
        raise SettingsError(
            f"--tune needs training clips of two groups or more, the {len(sequences)} of this part come from one"
        )
    return make_grouped_folds(sequences, count, seed=seed)


def choose_objective(sequences: Sequences, folds: Sequence[Fold]) -> tuple[str, ScoreFunction]:
    """What trials are judged by, and its name.

    ROC AUC, which models are ranked by, for two labels that both occur in every inner test part. Else the mean log
    likelihood of the true label: with many labels few clips a label make each ranking coarse, this uses all of them.
    """
    if len(sequences.labels) == 2 and all(len(np.unique(sequences.y[fold.test])) == 2 for fold in folds):
        return "mean inner ROC AUC", lambda y, probs: metrics.roc_auc(y, probs, positive=1)
    return "mean inner log likelihood (nats)", _log_likelihood


def _log_likelihood(y: NDArray[np.int64], probs: NDArray[np.float64]) -> float:
    return float(np.log(np.maximum(probs[np.arange(len(y)), y], MIN_PROBABILITY)).mean())


def _score_inner_folds(
    sequences: Sequences, folds: Sequence[Fold], settings: TrainSettings, score: ScoreFunction, optuna_trial: Any
) -> list[float]:
    """The score on each inner fold, up to the one after which the trial was not worth going on with."""
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
    """A study whose first trial takes the settings as given, as far as the space holds them."""
    startup = min(
        10, max(1, trial_count // 3)
    )  # drawn at random, and run to their end, before any is judged by the others
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=settings.seed, n_startup_trials=startup),
        pruner=optuna.pruners.PercentilePruner(PRUNER_PERCENTILE, n_startup_trials=startup),
    )
    given = {name: getattr(settings, name) for name in space}
    study.enqueue_trial({name: format_value(value) for name, value in given.items() if space[name].is_allowed(value)})
    return study


def _report_trial(optuna: Any, study: Any, optuna_trial: Any, trial: Trial, folds: Sequence[Fold]) -> Trial:
    """The trial with its state, which Optuna is told too."""
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
    """By PED-ANOVA (Watanabe et al. 2023): what sets the best trials apart from the rest."""
    complete = [trial.value for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len(set(complete)) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _import_optuna() -> Any:
    import optuna  # imported here: it is an extra, and costs half a second

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").propagate = False
    return optuna
