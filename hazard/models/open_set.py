"""Open-set scores: how unlike all training clips a clip is; higher is less familiar.

docs/unknown.md compares three kinds of score. Models are saved with the distance, which did best there and is the same
for every kind of model. The other two need only the output of a model.

P numbers per pooled clip, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp  # type: ignore[import-untyped]
from sklearn.covariance import ledoit_wolf
from sklearn.utils.extmath import randomized_svd

from hazard.data.splits import RowIndices, make_grouped_folds
from hazard.models.pooling import pool
from hazard.types import Sequences, StepFeatures

Floats = NDArray[np.float64]

POOLED_SCALES = {"mean": 0.5, "deviation": 1.0, "absolute_difference": 1.0}
"""Statistics that describe a clip, with their scale. Saved models hold numbers for exactly these names in this
order; other names would be another file format. Held-out classes and foreign footage are detected as well without
the mean, but still footage of another kind of place only with it."""

MAX_COMPONENTS, CLIPS_PER_COMPONENT = 128, 8
"""Largest number of principal components, and clips needed for each."""

BACKGROUND_WEIGHT = 0.9
"""Share of the distance to all clips that is subtracted from that to the nearest class. It is below 1, so that a
clip far from everything keeps a large distance."""

RESIDUAL_WEIGHT = 0.05
"""Weight of the part outside the components, relative to the part inside."""

MAX_FITTED_CLIPS = 5000
"""Largest number of clips to learn from; of more, a random sample is taken."""

MIN_FITTED_CLIPS = 16
HELD_OUT_PARTS = 5
EPSILON = 1e-6
THRESHOLD_SHARES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


def max_probability_score(probs: Floats) -> Floats:
    """Return 1 - the largest probability (B,) of probs (B, K) (Hendrycks and Gimpel 2017)."""
    return 1 - probs.max(axis=1)


def energy_score(logits: Floats) -> Floats:
    """Return -log sum exp (B,) of raw logits (B, K) (Liu et al. 2020).

    The logits must not be normalised: the score of log probabilities is 0 for every clip. Models that give only
    probabilities, such as baselines, have no energy.
    """
    return -logsumexp(logits, axis=1)


@dataclass(frozen=True)
class OpenSetDetector:
    """The distribution of the training clips, as numbers to measure distances from.

    The distance is a relative Mahalanobis distance (Ren et al. 2021) within R principal components of the pooled
    features: the squared distance to the nearest class, minus most of that to all clips together. It therefore counts
    most along directions that separate classes. One covariance, shrunk (Ledoit and Wolf 2004), serves all classes; that
    of all clips is the same plus the spread of the classes. The part outside the components is added, relative to what
    training clips have there.
    """

    mean: NDArray[np.float32]  # (P,)
    scale: NDArray[np.float32]  # (P,)
    components: NDArray[np.float32]  # (R, P)
    centres: NDArray[np.float32]  # (K, R)
    within: NDArray[np.float32]  # (R, R) inverse covariance of clips around their class
    overall: NDArray[np.float32]  # (R, R) inverse covariance of all clips
    residual: NDArray[np.float32]  # (1,) mean squared length of training clips outside the components
    shares: NDArray[np.float32]  # (Q,) ascending
    thresholds: NDArray[np.float32]  # (Q,) distance that this share of held-out clips reaches

    def __post_init__(self) -> None:
        width, count = self.components.shape[-1], len(self.components)
        expected = {
            "mean": (width,),
            "scale": (width,),
            "components": (count, width),
            "centres": (len(self.centres), count),
            "within": (count, count),
            "overall": (count, count),
            "residual": (1,),
            "shares": self.shares.shape[:1],
            "thresholds": self.shares.shape[:1],
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32 or not array.size or not np.isfinite(array).all():
                raise ValueError(f"expected {name} finite float32 {shape}, got {array.dtype} {array.shape}")
        if (np.diff(self.shares) <= 0).any() or (np.diff(self.thresholds) > 0).any() or self.residual[0] <= 0:
            raise ValueError("expected ascending shares, descending thresholds and a positive residual")

    @property
    def width(self) -> int:
        """Feature width D that it takes."""
        return len(self.mean) // len(POOLED_SCALES)

    def scores(self, x: StepFeatures, mask: NDArray[np.bool_]) -> Floats:
        """Return the distance (B,) of each clip of x (B, T, D), mask (B, T) from the training clips."""
        return self.distances(pool(x.astype(np.float32, copy=False), mask, tuple(POOLED_SCALES)))

    def distances(self, pooled: NDArray[np.float32]) -> Floats:
        """Return the distance (B,) of each pooled clip (B, P)."""
        rows = (pooled - self.mean) * self.scale  # (B, P)
        inside = rows @ self.components.T  # (B, R)
        outside = (np.square(rows).sum(axis=1) - np.square(inside).sum(axis=1)).clip(0) / self.residual[0]  # (B,)
        nearest = np.min([_squared_mahalanobis(inside - centre, self.within) for centre in self.centres], axis=0)
        relative = nearest - BACKGROUND_WEIGHT * _squared_mahalanobis(inside, self.overall)
        return np.asarray(relative + RESIDUAL_WEIGHT * len(self.components) * outside, np.float64)

    def threshold(self, share: float) -> float | None:
        """Return the distance from which a clip is unknown, reached by about `share` of clips like those of training.

        Returns None for a share of 0.
        """
        return float(np.interp(share, self.shares, self.thresholds)) if share > 0 else None

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the arrays to save."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> "OpenSetDetector":
        """Return the detector of saved arrays; the inverse of `to_arrays`.

        Raises ValueError for arrays that do not form a detector.
        """
        names = [field.name for field in fields(cls)]
        if set(arrays) != set(names):
            raise ValueError(f"expected arrays {', '.join(names)}, got {', '.join(sorted(arrays))}")
        return cls(**arrays)


def fit_open_set_detector(sequences: Sequences, rows: RowIndices, *, seed: int) -> OpenSetDetector | None:
    """Fit a detector on the clips `rows`, with thresholds from the distances of clips that were held out by group.

    A clip is nearer to a detector fitted on it than a new clip of the same kind is. The thresholds therefore come from
    clips scored without their group. Returns None if there are too few clips or groups to hold any out.
    """
    rows = _sample_rows(np.sort(rows), seed)
    y, groups = sequences.y[rows], sequences.groups[rows]
    parts = min(HELD_OUT_PARTS, len(np.unique(groups)))
    if parts < 2 or len(rows) < MIN_FITTED_CLIPS:
        return None
    pooled = pool(sequences.x[rows], sequences.mask[rows], tuple(POOLED_SCALES))  # (B, P)
    count = max(1, min(MAX_COMPONENTS, len(rows) // CLIPS_PER_COMPONENT, pooled.shape[1] - 1))
    held_out = np.empty(len(rows))
    for fold in make_grouped_folds(_drop_features(sequences).take(rows), parts, seed=seed):
        training = np.concatenate([fold.train, fold.val])
        held_out[fold.test] = _fit_detector(pooled[training], y[training], count).distances(pooled[fold.test])
    return _fit_detector(pooled, y, count, held_out=held_out)


def _fit_detector(
    pooled: NDArray[np.float32], y: NDArray[np.int64], count: int, *, held_out: Floats | None = None
) -> OpenSetDetector:
    """Fit on pooled clips (B, P), labels (B,) and `count` components; the distances `held_out` give the thresholds."""
    mean, scale = pooled.mean(axis=0), _compute_scale(pooled)
    rows = (pooled - mean) * scale  # (B, P)
    _, _, components = randomized_svd(rows, count, random_state=0)  # (R, P)
    inside = rows @ components.T  # (B, R)
    classes, class_of_row = np.unique(y, return_inverse=True)
    centres = np.stack([inside[class_of_row == k].mean(axis=0) for k in range(len(classes))])  # (K, R)
    outside = np.square(rows).sum(axis=1) - np.square(inside).sum(axis=1)  # (B,)
    within = _covariance(inside - centres[class_of_row])
    distances = np.zeros(1) if held_out is None else held_out
    arrays = {
        "mean": mean,
        "scale": scale,
        "components": components,
        "centres": centres,
        "within": np.linalg.inv(within),
        "overall": np.linalg.inv(within + np.cov(centres[class_of_row], rowvar=False, bias=True)),
        "residual": np.maximum(outside.mean(keepdims=True), EPSILON),
        "shares": np.array(THRESHOLD_SHARES),
        "thresholds": np.quantile(distances, 1 - np.array(THRESHOLD_SHARES)),
    }
    return OpenSetDetector.from_arrays({name: np.asarray(array, np.float32) for name, array in arrays.items()})


def _drop_features(sequences: Sequences) -> Sequences:
    """Return the same clips with a single feature of a single step, so that splitting them is cheap."""
    return replace(sequences, x=sequences.x[:, :1, :1], mask=sequences.mask[:, :1], views=())


def _sample_rows(rows: RowIndices, seed: int) -> RowIndices:
    if len(rows) <= MAX_FITTED_CLIPS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MAX_FITTED_CLIPS, replace=False))


def _compute_scale(pooled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scale (P,): one standard deviation for all channels of a statistic, and its size in POOLED_SCALES."""
    spreads = [float(block.std()) for block in np.split(pooled - pooled.mean(axis=0), len(POOLED_SCALES), axis=1)]
    scales = [size / max(spread, EPSILON) for size, spread in zip(POOLED_SCALES.values(), spreads, strict=True)]
    return np.repeat(np.array(scales, np.float32), pooled.shape[1] // len(POOLED_SCALES))


def _covariance(rows: NDArray[np.float32]) -> Floats:
    """Return the shrunk covariance (R, R) of centred rows (B, R)."""
    covariance, _ = ledoit_wolf(rows.astype(np.float64), assume_centered=True)
    return np.asarray(covariance + EPSILON * max(float(np.trace(covariance)), 1.0) * np.eye(len(covariance)))


def _squared_mahalanobis(rows: NDArray[np.floating], precision: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the squared lengths (B,) of rows (B, R) under an inverse covariance."""
    return np.einsum("ij,ij->i", rows @ precision, rows)
