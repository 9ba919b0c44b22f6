"""Baselines: scikit-learn pipelines on pooled sequences, which a temporal head has to beat.

Every pipeline is columns → (PCA →) classifier, with scikit-learn's own parts only. `ColumnTransformer` scales the
pooled statistics. Its transformers are named after the statistics, so that a pipeline says which ones it needs.
`CalibratedClassifierCV` turns the classifier's scores into probabilities. Its one or two numbers are learnt here, from
parts of the training clips that are held out in turn and never split a group: scaling, PCA and classifier are fitted
without them. They never change a ranking: probabilities rise with scores.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from features.errors import SettingsError
from hazard.models.calibration import calibrate_classifier
from hazard.models.pooling import LINEAR_STATISTICS, STATISTICS, normalize_statistic_sizes, pool
from hazard.models.ridge_options import RidgeOptions, choose_ridge_options, sample_clips
from hazard.types import Sequences, StepFeatures

log = logging.getLogger(__name__)

CALIBRATION_PARTS = 5
"""Number of parts that are held out in turn, so that each clip's score is held out once."""

LARGE_DATASET_CLIPS = 2000
"""Above this number of clips, LARGE_DATASET_PARTS are used: one part is enough to learn a sigmoid."""
LARGE_DATASET_PARTS = 2

ScaleMode = Literal["column", "kind"]
"""`column`: each column of a pooled clip is divided by its own standard deviation; `kind`: all columns of one
statistic are divided by a common one."""

RowSplits = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True)
class Baseline:
    """How one baseline is made."""

    classifier: Callable[[int], ClassifierMixin]
    """Function from a seed to an unfitted classifier."""
    statistics: tuple[str, ...]
    """Names in STATISTICS of the columns that it takes by default."""
    components: int | None = None
    """Number of principal components that replace the columns, for classifiers that are slow on many columns; None:
    no PCA."""


def logistic_regression(seed: int) -> LogisticRegression:
    """Make a logistic regression with a strong penalty: over a thousand columns meet a few hundred clips."""
    return LogisticRegression(C=0.03, max_iter=2000, random_state=seed)


def linear_svm(seed: int) -> LinearSVC:
    """Make a linear SVM with squared hinge loss, one label against the rest."""
    return LinearSVC(C=1e-3, tol=1e-2, random_state=seed)


def rbf_svm(seed: int) -> SVC:
    """Make an SVM with a Gaussian kernel so wide that most clips are neighbours of most others."""
    return SVC(C=10, gamma=1e-4, random_state=seed)


def ridge(seed: int) -> RidgeClassifier:
    """Make a ridge classifier: least squares on labels of -1 and 1."""
    return RidgeClassifier(alpha=RidgeOptions().penalty, random_state=seed)


def knn(seed: int) -> KNeighborsClassifier:
    """Make a classifier by the 25 nearest neighbours, weighted by inverse distance."""
    return KNeighborsClassifier(25, weights="distance")


def random_forest(seed: int) -> RandomForestClassifier:
    """Make a random forest with leaves of five clips or more.

    The number of leaves is bounded, since each stores a share for every label.
    """
    return RandomForestClassifier(100, min_samples_leaf=5, max_features="log2", max_leaf_nodes=512, random_state=seed)


def hist_gradient_boosting(seed: int) -> HistGradientBoostingClassifier:
    """Make gradient-boosted trees, few and small ones per label."""
    return HistGradientBoostingClassifier(
        max_iter=30, max_leaf_nodes=7, min_samples_leaf=10, l2_regularization=1, early_stopping=False, random_state=seed
    )


def lda(seed: int) -> LinearDiscriminantAnalysis:
    """Make a linear discriminant analysis with one covariance for all labels, shrunk as in Ledoit and Wolf (2004)."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def mean_logistic(seed: int) -> LogisticRegression:
    """Make a logistic regression with scikit-learn's usual penalty, for the means alone, at their full size."""
    return LogisticRegression(max_iter=2000, random_state=seed)


BASELINES: dict[str, Baseline] = {
    "logistic_regression": Baseline(logistic_regression, LINEAR_STATISTICS),
    "linear_svm": Baseline(linear_svm, LINEAR_STATISTICS, components=256),
    "rbf_svm": Baseline(rbf_svm, LINEAR_STATISTICS, components=256),
    "ridge": Baseline(ridge, LINEAR_STATISTICS),
    "knn": Baseline(knn, LINEAR_STATISTICS),
    "random_forest": Baseline(random_forest, LINEAR_STATISTICS),
    "hist_gradient_boosting": Baseline(hist_gradient_boosting, LINEAR_STATISTICS, components=32),
    "lda": Baseline(lda, LINEAR_STATISTICS, components=128),
    "mean_logistic": Baseline(mean_logistic, ("mean",)),
}
"""Name → baseline. To add one, write a function that makes the classifier and add a line here; the tests pick it up."""


def fit_baseline(
    name: str,
    sequences: Sequences,
    *,
    seed: int,
    statistics: Sequence[str] | None = None,
    scale: ScaleMode = "column",
    jobs: int = 1,
) -> Pipeline:
    """Fit the named baseline on all of `sequences`, with its own statistics or the given ones.

    `jobs` threads share the work (-1: one per core) and change no prediction. Raises SettingsError for a single label,
    or for no more clips than labels.
    """
    labels = len(np.unique(sequences.y))
    if labels < 2:
        raise SettingsError(f"baseline {name} needs two or more labels among the training clips, got one")
    if len(sequences) <= labels:
        raise SettingsError(f"baseline {name} needs more training clips than the {labels} labels, got {len(sequences)}")
    statistics = tuple(statistics or BASELINES[name].statistics)
    pooled = pool(sequences.x, sequences.mask, statistics)  # (B, S D)
    parts = make_calibration_parts(sequences.y, sequences.groups, seed=seed)
    fewest = min(len(rest) for rest, _ in parts)
    unfitted = _build_pipeline(name, seed, statistics, (fewest, pooled.shape[1]))
    with threadpool_limits(1), joblib.parallel_config("threading", n_jobs=jobs):
        held_out = joblib.Parallel()(
            joblib.delayed(_score_held_out)(unfitted, scale, pooled, sequences.y, sequences.groups, rest, held)
            for rest, held in parts
        )
        model = _fit_pipeline(unfitted, scale, pooled, sequences.y, sequences.groups)
    order = np.argsort(np.concatenate([held for _, held in parts]))
    model.steps[-1] = (
        "classifier",
        calibrate_classifier(name, model[-1], np.concatenate(held_out)[order], sequences.y),
    )
    return model


def predict_baseline(model: Pipeline, x: StepFeatures, mask: NDArray[np.bool_], *, classes: int) -> NDArray[np.float64]:
    """Return probabilities (B, K); a class that was absent from training gets zero."""
    probs = np.zeros((len(x), classes))
    if len(x):
        probs[:, model.classes_] = model.predict_proba(pool(x, mask, get_statistics(model)))
    return probs


def get_statistics(model: Pipeline) -> tuple[str, ...]:
    """Return the pooled statistics that a pipeline takes, in order."""
    return tuple(name for name, _, _ in model[0].transformers)


def is_baseline(model: object, name: str) -> bool:
    """Return True if `model` consists of the same steps, in the same order, as the named baseline."""
    if not isinstance(model, Pipeline) or not isinstance(model[0], ColumnTransformer):
        return False
    expected = [type(step) for _, step in _build_pipeline(name, 0, (), (2, 0)).steps[:-1]]
    if [type(step) for _, step in model.steps] != [*expected, CalibratedClassifierCV]:
        return False
    if set(get_statistics(model)) - set(STATISTICS):
        return False
    return type(get_classifier(model)) is type(BASELINES[name].classifier(0))


def get_classifier(model: Pipeline) -> ClassifierMixin:
    """Return the fitted classifier inside the calibration."""
    return model[-1].calibrated_classifiers_[0].estimator


def count_parameters(model: Pipeline) -> int:
    """Count the fitted numbers of a linear baseline, nodes of trees, or numbers that neighbours and SVMs store."""
    last = get_classifier(model)
    if isinstance(last, RandomForestClassifier):
        return sum(tree.tree_.node_count for tree in last.estimators_)
    if isinstance(last, HistGradientBoostingClassifier):
        return sum(len(tree.nodes) for step in last._predictors for tree in step)
    if isinstance(last, KNeighborsClassifier):
        return int(last.n_samples_fit_ * last.n_features_in_)
    if isinstance(last, SVC):
        return int(last.support_vectors_.size + last.dual_coef_.size + last.intercept_.size)
    return int(last.coef_.size + last.intercept_.size)


def make_calibration_parts(y: NDArray[np.int64], groups: NDArray[np.str_], *, seed: int) -> RowSplits:
    """Return pairs of rows (the rest, held out) that hold out each of y (B,) once, with no group in both.

    Held-out clips similar to the rest would make the scores look too good. If no such parts leave every label among the
    rest, groups are split. If that fails too, nothing is held out.
    """
    max_parts = CALIBRATION_PARTS if len(y) <= LARGE_DATASET_CLIPS else LARGE_DATASET_PARTS
    rarest = int(np.bincount(y)[np.unique(y)].min())
    splitters = [
        StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        for count in range(min(max_parts, len(np.unique(groups))), 1, -1)
    ]
    if rarest >= 2:
        splitters.append(StratifiedKFold(min(max_parts, rarest), shuffle=True, random_state=seed))
    for splitter in splitters:
        if np.bincount(y).max() < splitter.get_n_splits():
            continue
        with warnings.catch_warnings():  # a label rarer than the number of parts cannot be in every part
            warnings.simplefilter("ignore", UserWarning)
            parts = list(splitter.split(y, y, groups))
        if all(_has_enough_labels(y, rest) for rest, _ in parts):
            return parts
    log.warning("too few training clips to hold any out; the probabilities of the baseline will be overconfident")
    return [(np.arange(len(y)), np.arange(len(y)))]


def _has_enough_labels(y: NDArray[np.int64], rest: NDArray[np.int64]) -> bool:
    """Return True if the rest holds every label, and some label twice, since discriminants need a variance."""
    labels = len(np.unique(y))
    return len(np.unique(y[rest])) == labels < len(rest)


def _build_pipeline(name: str, seed: int, statistics: Sequence[str], shape: tuple[int, int]) -> Pipeline:
    """Build the unfitted pipeline, without calibration, for pooled clips of `shape` (B, S D) or more of them.

    Fewer clips mean fewer neighbours and components.
    """
    baseline = BASELINES[name]
    classifier = baseline.classifier(seed)
    if isinstance(classifier, KNeighborsClassifier):
        classifier.set_params(n_neighbors=min(classifier.n_neighbors, shape[0]))
    steps: list[tuple[str, object]] = [("columns", _make_column_scaler(statistics, shape[1]))]
    if baseline.components is not None:
        steps.append(("components", PCA(min(baseline.components, *shape), random_state=seed)))
    return Pipeline([*steps, ("classifier", classifier)])


def _fit_pipeline(
    unfitted: Pipeline, scale: ScaleMode, pooled: NDArray[np.float32], y: NDArray[np.int64], groups: NDArray[np.str_]
) -> Pipeline:
    """Fit the pipeline; the size of the means, and the penalty of `ridge`, are chosen on these same clips."""
    model = clone(unfitted)
    columns, statistics = model[0], get_statistics(model)
    shared = _share_scales(columns, pooled) if scale == "kind" else dict.fromkeys(statistics, 1.0)
    sample = sample_clips(len(y))
    rows = columns.set_params(transformer_weights=shared).fit(pooled).transform(pooled[sample])
    options = choose_ridge_options(rows, statistics, y[sample], groups[sample])
    sizes = normalize_statistic_sizes(statistics, options.mean_size)
    columns.set_params(transformer_weights={name: size * shared[name] for name, size in sizes.items()})
    if isinstance(model[-1], RidgeClassifier):
        model[-1].set_params(alpha=options.penalty)
    return model.fit(pooled, y)


def _score_held_out(
    unfitted: Pipeline,
    scale: ScaleMode,
    pooled: NDArray[np.float32],
    y: NDArray[np.int64],
    groups: NDArray[np.str_],
    rest: NDArray[np.int64],
    held: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the scores of the held-out rows, (B,) for two labels or (B, K), after a fit on the rest."""
    model = _fit_pipeline(unfitted, scale, pooled[rest], y[rest], groups[rest])
    if hasattr(model, "decision_function"):
        return model.decision_function(pooled[held])
    probs = model.predict_proba(pooled[held])
    return probs[:, 1] if probs.shape[1] == 2 else probs


def _make_column_scaler(statistics: Sequence[str], columns: int) -> ColumnTransformer:
    width = columns // max(len(statistics), 1)  # D
    return ColumnTransformer(
        [(name, StandardScaler(), slice(i * width, (i + 1) * width)) for i, name in enumerate(statistics)],
        transformer_weights=normalize_statistic_sizes(statistics),
    )


def _share_scales(columns: ColumnTransformer, pooled: NDArray[np.float32]) -> dict[str, float]:
    """Return one size for all columns of each statistic, so that PCA components keep their order of importance."""
    shared = {}
    for name, scaler, rows in columns.transformers:
        scaler.set_params(with_std=False)
        spread = float(np.sqrt(pooled[:, rows].var(axis=0).mean()))
        shared[name] = 1 / spread if spread > 0 else 1.0
    return shared
