"""How unlike all training clips a clip is: open-set scores, higher is stranger. P numbers a pooled clip, K classes.

Three kinds are compared in docs/unknown.md; models are saved with the distance, which won there, and which is the same
whatever model decides. The other two need nothing but what a model says of a clip.
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
from hazard.types import Sequences

Floats = NDArray[np.float64]

POOLED_SCALES = {"mean": 0.5, "deviation": 1.0, "absolute_difference": 1.0}
"""What is looked at of a clip, and how large it is made. Saved models hold numbers of just these names in this order:
others would be another file format. Held-out classes and footage are told as well without the mean, but pictures that
hold still in a place of another kind only by it."""

MAX_COMPONENTS, CLIPS_PER_COMPONENT = 128, 8
"""So many principal components are kept, fewer where there are few clips."""

BACKGROUND_WEIGHT = 0.9
"""So much of the distance to all clips is taken off that to the nearest class. Below 1, so that what is far is far."""

RESIDUAL_WEIGHT = 0.05
"""What is outside the components counts so much of what is inside."""

MAX_FITTED_CLIPS = 5000
"""Of more clips a draw is learned from."""

MIN_FITTED_CLIPS = 16
HELD_OUT_PARTS = 5
EPSILON = 1e-6
THRESHOLD_SHARES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


def max_probability_score(probs: Floats) -> Floats:
    """(B,) of probabilities (B, K): how unsure the model is of its likeliest label (Hendrycks and Gimpel 2017)."""
    return 1 - probs.max(axis=1)


def energy_score(logits: Floats) -> Floats:
    """(B,) of raw logits (B, K): -log sum exp (Liu et al. 2020).

    They must not be normalised: of log probabilities it is 0 for every clip. Models that give nothing but
    probabilities, as baselines do, have no energy.
    """
    return -logsumexp(logits, axis=1)


@dataclass(frozen=True)
class OpenSetDetector:
    """What training clips look like, as numbers to measure distances from.

    The distance is a relative Mahalanobis distance (Ren et al. 2021) within R principal components of the pooled
    features: the squared distance to the nearest class, less most of that to all clips together, so that it counts
    most along what tells classes apart. One covariance, shrunk (Ledoit and Wolf 2004), serves all classes; that of all
    clips is the same and the spread of the classes. What lies outside the components is added, by how much of it
    training clips have.
    """

    mean: NDArray[np.float32]  # (P,)
    scale: NDArray[np.float32]  # (P,)
    components: NDArray[np.float32]  # (R, P)
    centres: NDArray[np.float32]  # (K, R)
    within: NDArray[np.float32]  # (R, R) inverse covariance of clips around their class
    overall: NDArray[np.float32]  # (R, R) inverse covariance of all clips
    residual: NDArray[np.float32]  # (1,) what training clips have outside the components
    shares: NDArray[np.float32]  # (Q,) ascending
    thresholds: NDArray[np.float32]  # (Q,) held-out clips of this share are at least so far away

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
        """D of the features that it measures."""
        return len(self.mean) // len(POOLED_SCALES)

    def scores(self, x: NDArray[np.float32], mask: NDArray[np.bool_]) -> Floats:
        """(B,) of x (B, T, D) and mask (B, T): how far each clip is from all that training saw."""
        return self.distances(pool(x.astype(np.float32, copy=False), mask, tuple(POOLED_SCALES)))

    def distances(self, pooled: NDArray[np.float32]) -> Floats:
        """(B,) of pooled clips (B, P)."""
        rows = (pooled - self.mean) * self.scale  # (B, P)
        inside = rows @ self.components.T  # (B, R)
        outside = (np.square(rows).sum(axis=1) - np.square(inside).sum(axis=1)).clip(0) / self.residual[0]  # (B,)
        nearest = np.min([_squared_mahalanobis(inside - centre, self.within) for centre in self.centres], axis=0)
        relative = nearest - BACKGROUND_WEIGHT * _squared_mahalanobis(inside, self.overall)
        return np.asarray(relative + RESIDUAL_WEIGHT * len(self.components) * outside, np.float64)

    def threshold(self, share: float) -> float | None:
        """The distance from which a clip is unknown, where about so many of clips like those of training may be."""
        return float(np.interp(share, self.shares, self.thresholds)) if share > 0 else None

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """What a file holds."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> "OpenSetDetector":
        """The inverse of `to_arrays`. Raises ValueError for arrays that measure nothing."""
        names = [field.name for field in fields(cls)]
        if set(arrays) != set(names):
            raise ValueError(f"expected arrays {', '.join(names)}, got {', '.join(sorted(arrays))}")
        return cls(**arrays)


def fit_open_set_detector(sequences: Sequences, rows: RowIndices, *, seed: int) -> OpenSetDetector | None:
    """Learned from the clips `rows`, with thresholds out of distances of clips that were held out, group by group.

    A clip is nearer to what was learned from it than any other clip of its kind, so that thresholds are taken from
    clips that were scored without their group. None where there are too few clips or groups to hold any out.
    """
    rows = _sample_rows(np.sort(rows), seed)
    y, groups = sequences.y[rows], sequences.groups[rows]
    parts = min(HELD_OUT_PARTS, len(np.unique(groups)))
    if parts < 2 or len(rows) < MIN_FITTED_CLIPS:
        return None
    pooled = pool(sequences.x, sequences.mask, tuple(POOLED_SCALES))[rows]  # (B, P)
    count = max(1, min(MAX_COMPONENTS, len(rows) // CLIPS_PER_COMPONENT, pooled.shape[1] - 1))
    held_out = np.empty(len(rows))
    for fold in make_grouped_folds(_drop_features(sequences).take(rows), parts, seed=seed):
        known = np.concatenate([fold.train, fold.val])
        held_out[fold.test] = _fit_detector(pooled[known], y[known], count).distances(pooled[fold.test])
    return _fit_detector(pooled, y, count, held_out=held_out)


def _fit_detector(
    pooled: NDArray[np.float32], y: NDArray[np.int64], count: int, *, held_out: Floats | None = None
) -> OpenSetDetector:
    """From pooled clips (B, P) and labels (B,), with so many components; thresholds by the distances `held_out`."""
    mean, scale = pooled.mean(axis=0), _compute_scale(pooled)
    rows = (pooled - mean) * scale  # (B, P)
    _, _, components = randomized_svd(rows, count, random_state=0)  # (R, P)
    inside = rows @ components.T  # (B, R)
    classes, places = np.unique(y, return_inverse=True)
    centres = np.stack([inside[places == k].mean(axis=0) for k in range(len(classes))])  # (K, R)
    outside = np.square(rows).sum(axis=1) - np.square(inside).sum(axis=1)  # (B,)
    within = _covariance(inside - centres[places])
    far = np.zeros(1) if held_out is None else held_out
    arrays = {
        "mean": mean,
        "scale": scale,
        "components": components,
        "centres": centres,
        "within": np.linalg.inv(within),
        "overall": np.linalg.inv(within + np.cov(centres[places], rowvar=False, bias=True)),
        "residual": np.maximum(outside.mean(keepdims=True), EPSILON),
        "shares": np.array(THRESHOLD_SHARES),
        "thresholds": np.quantile(far, 1 - np.array(THRESHOLD_SHARES)),
    }
    return OpenSetDetector.from_arrays({name: np.asarray(array, np.float32) for name, array in arrays.items()})


def _drop_features(sequences: Sequences) -> Sequences:
    """The same clips, light enough to be taken apart."""
    return replace(sequences, x=sequences.x[:, :1, :1], mask=sequences.mask[:, :1], views=())


def _sample_rows(rows: RowIndices, seed: int) -> RowIndices:
    if len(rows) <= MAX_FITTED_CLIPS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MAX_FITTED_CLIPS, replace=False))


def _compute_scale(pooled: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P,): each statistic has a spread of its own taken out, the same for all its channels, and the size of POOLED."""
    spreads = [float(block.std()) for block in np.split(pooled - pooled.mean(axis=0), len(POOLED_SCALES), axis=1)]
    scales = [size / max(spread, EPSILON) for size, spread in zip(POOLED_SCALES.values(), spreads, strict=True)]
    return np.repeat(np.array(scales, np.float32), pooled.shape[1] // len(POOLED_SCALES))


def _covariance(rows: NDArray[np.float32]) -> Floats:
    """(R, R) of centred rows (B, R)."""
    covariance, _ = ledoit_wolf(rows.astype(np.float64), assume_centered=True)
    return np.asarray(covariance + EPSILON * max(float(np.trace(covariance)), 1.0) * np.eye(len(covariance)))


def _squared_mahalanobis(rows: NDArray[np.floating], precision: NDArray[np.floating]) -> NDArray[np.floating]:
    """(B,): squared lengths of rows (B, R) by an inverse covariance."""
    return np.einsum("ij,ij->i", rows @ precision, rows)
