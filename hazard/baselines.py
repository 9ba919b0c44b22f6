"""Baselines: scikit-learn pipelines on pooled sequences. A temporal head has to beat them."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from features.errors import SettingsError
from hazard.heads import common
from hazard.types import Sequences

JOBS = -1
"""All cores, through joblib, where an estimator can use them."""


def pool(x: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """x (B, T, D), mask (B, T) → (B, 3 D): mean, standard deviation and mean absolute change over the real steps."""
    with torch.inference_mode():
        return common.pool(torch.from_numpy(x), torch.from_numpy(mask)).numpy()


def logistic_regression(seed: int) -> Pipeline:
    """Strongly penalised: a thousand and more columns meet a few hundred clips."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=common.POOLED_C, max_iter=2000, random_state=seed))


def linear_svm(seed: int) -> Pipeline:
    """Linear SVM with probabilities by Platt's sigmoid, fitted on held-out parts of the training rows."""
    parts = StratifiedKFold(5, shuffle=True, random_state=seed)
    svm = LinearSVC(C=1e-3, random_state=seed)
    return make_pipeline(StandardScaler(), CalibratedClassifierCV(svm, cv=parts, ensemble=False, n_jobs=1))


def random_forest(seed: int) -> Pipeline:
    """Leaves of two clips or more, so that its shares vote less surely."""
    return make_pipeline(RandomForestClassifier(300, min_samples_leaf=2, random_state=seed, n_jobs=JOBS))


def knn(seed: int) -> Pipeline:
    """Fifteen neighbours by cosine, weighted by nearness; angles bear many columns better than distances do."""
    return make_pipeline(StandardScaler(), KNeighborsClassifier(15, weights="distance", metric="cosine", n_jobs=JOBS))


BASELINES: dict[str, Callable[[int], Pipeline]] = {
    "logistic_regression": logistic_regression,
    "linear_svm": linear_svm,
    "random_forest": random_forest,
    "knn": knn,
}
"""Name → maker of an unfitted pipeline from a seed. To add one: a function and a line; the tests pick it up."""


def fit_baseline(name: str, sequences: Sequences, *, seed: int) -> Pipeline:
    """The named baseline fitted on all of `sequences`. Raises SettingsError where these are too few for it."""
    counts = np.bincount(sequences.y, minlength=len(sequences.labels))
    counts = counts[counts > 0]
    if len(counts) < 2:
        raise SettingsError(f"baseline {name} needs two or more labels among the training clips, got one")
    model = BASELINES[name](seed)
    _fit_to_size(model, int(counts.min()), len(sequences))
    model.fit(pool(sequences.x, sequences.mask), sequences.y)
    if (
        "n_jobs" in model[-1].get_params()
    ):  # threads would add a forest's shares in an order that changes the last digit
        model[-1].set_params(n_jobs=1)
    return model


def predict_baseline(
    model: BaseEstimator, x: NDArray[np.float32], mask: NDArray[np.bool_], *, classes: int
) -> NDArray[np.float64]:
    """Probabilities (B, K); a class that the baseline never met in training gets zero."""
    probs = np.zeros((len(x), classes))
    if len(x):
        probs[:, model.classes_] = model.predict_proba(pool(x, mask))
    return probs


def parameter_count(model: Pipeline) -> int:
    """Fitted numbers of a linear baseline; nodes of a forest; stored numbers of the neighbours."""
    last = model[-1]
    if isinstance(last, RandomForestClassifier):
        return sum(tree.tree_.node_count for tree in last.estimators_)
    if isinstance(last, KNeighborsClassifier):
        return int(last.n_samples_fit_ * last.n_features_in_)
    linear = last.calibrated_classifiers_[0].estimator if isinstance(last, CalibratedClassifierCV) else last
    return int(linear.coef_.size + linear.intercept_.size)


def _fit_to_size(model: Pipeline, rarest: int, clips: int) -> None:
    """Fewer neighbours and calibration parts where there are fewer clips than that."""
    last = model[-1]
    if isinstance(last, KNeighborsClassifier):
        last.set_params(n_neighbors=min(last.n_neighbors, clips))
    if isinstance(last, CalibratedClassifierCV):
        if rarest < 2:
            raise SettingsError("baseline linear_svm needs two or more training clips of each label, got one")
        last.set_params(cv=last.cv.__class__(min(5, rarest), shuffle=True, random_state=last.cv.random_state))
