"""Reductions of the feature width: fitted in one pass over the training rows, applied to tracks, stored as arrays."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.errors import ArtifactError, SettingsError
from features.utils.text import suggest_name

RANDOM_SEED = 0

BLOCK_ROWS = 1024
"""Rows whose products are summed at once."""

MIN_VARIANCE_SHARE = 1e-6
"""Smallest variance, as a share of the largest: smaller ones are raised to it (a thousandth in standard deviation)."""


@dataclass(frozen=True)
class Reduction:
    """A fitted map from D to K numbers: `(x - mean) @ components.T`, or a choice of the columns `channels`."""

    kind: str
    mean: NDArray[np.float32] | None = None  # (D,)
    components: NDArray[np.float32] | None = None  # (K, D)
    explained_variance: NDArray[np.float32] | None = None  # (K,) along each component, before any whitening
    channels: NDArray[np.int64] | None = None  # (K,) ascending

    @property
    def width(self) -> int:
        """Number of output features, K."""
        kept = self.channels if self.components is None else self.components
        return 0 if kept is None else len(kept)

    @property
    def digest(self) -> str:
        """sha256 of the kind and the arrays."""
        digest = hashlib.sha256(self.kind.encode())
        for name, array in sorted(self.to_arrays().items()):
            digest.update(f"{name} {array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def apply(self, features: NDArray[np.float16]) -> NDArray[np.float16]:
        """Reduce features (N, D) to (N, K)."""
        if self.channels is not None:
            return np.ascontiguousarray(features[:, self.channels])
        assert self.components is not None and self.mean is not None
        return ((features.astype(np.float32) - self.mean) @ self.components.T).astype(np.float16)

    def to_arrays(self) -> dict[str, NDArray]:
        """Return the arrays that are set, by name."""
        names = ("mean", "components", "explained_variance", "channels")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @classmethod
    def from_arrays(cls, kind: str, arrays: Mapping[str, NDArray]) -> "Reduction":
        """Build a reduction from the result of `to_arrays`. Raises ArtifactError if the arrays do not form one."""
        try:
            reduction = cls(kind, **arrays)
        except TypeError:
            raise ArtifactError(f"reduction '{kind}' rejected: unexpected arrays {sorted(arrays)}") from None
        if (reduction.channels is None) == (reduction.components is None or reduction.mean is None):
            raise ArtifactError(f"reduction '{kind}' rejected: it needs `channels`, or `mean` and `components`")
        return reduction


def parse_reduction(text: str, *, width: int) -> tuple[str, int]:
    """Parse `select:512` to ("select", 512), and `none` to ("none", width).

    Raises SettingsError if the kind is unknown or the number is not between 1 and `width`.
    """
    kind, _, number = text.partition(":")
    if kind == "none" and not number:
        return "none", width
    if kind not in FITTERS:
        raise SettingsError(
            f"unknown reduction '{text}'; {suggest_name(kind, [*FITTERS, 'none'])} (for example select:512)"
        )
    if not number.isdecimal() or not 1 <= int(number) <= width:
        raise SettingsError(
            f"reduction '{text}' must end in a number from 1 to {width}, the width of these features, for "
            f"example {kind}:{min(512, width)}; use none to keep all"
        )
    return kind, int(number)


def fit(text: str, tracks: Iterable[NDArray[np.float16]], *, width: int) -> Reduction | None:
    """Fit a reduction in one pass over tracks (N, D), each of one clip in time order. Return None for `none`."""
    kind, count = parse_reduction(text, width=width)
    return None if kind == "none" else FITTERS[kind](text, tracks, count, width)


def _fit_select(text: str, tracks: Iterable[NDArray[np.float16]], count: int, width: int) -> Reduction:
    """Keep the channels with the largest mean absolute difference between neighbouring frames: they carry motion."""
    movement, steps = np.zeros(width), 0
    for track in tracks:
        movement += np.abs(np.diff(track.astype(np.float32), axis=0)).sum(axis=0)
        steps += max(0, len(track) - 1)
    order = np.argsort(-movement, kind="stable") if steps else np.arange(width)
    return Reduction(text, channels=np.sort(order[:count]).astype(np.int64))


def _fit_pca(text: str, tracks: Iterable[NDArray[np.float16]], count: int, width: int) -> Reduction:
    """Fit principal components: the directions along which frames differ most."""
    mean, covariance = _mean_and_covariance(text, tracks, count, width)
    components, variance = _principal_components(covariance, count)
    return _make_projection(text, mean, components, variance)


def _fit_pca_scaled(text: str, tracks: Iterable[NDArray[np.float16]], count: int, width: int) -> Reduction:
    """Fit principal components of standardised channels, so that channels of large variance do not dominate."""
    mean, covariance = _mean_and_covariance(text, tracks, count, width)
    deviation = _floored_deviation(np.diag(covariance))  # (D,)
    covariance /= deviation[:, None]
    covariance /= deviation
    components, variance = _principal_components(covariance, count)
    return _make_projection(text, mean, components / deviation, variance)


def _fit_pca_whitened(text: str, tracks: Iterable[NDArray[np.float16]], count: int, width: int) -> Reduction:
    """Fit principal components, each divided by its standard deviation over the training rows."""
    mean, covariance = _mean_and_covariance(text, tracks, count, width)
    components, variance = _principal_components(covariance, count)
    return _make_projection(text, mean, components / _floored_deviation(variance)[:, None], variance)


def _mean_and_covariance(
    text: str, tracks: Iterable[NDArray[np.float16]], count: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean (D,) and covariance (D, D) from float64 sums in one pass: D is small, the number of rows is not.

    Raises SettingsError if there are too few rows for `count` components.
    """
    total, products, rows = np.zeros(width), np.zeros((width, width)), 0
    for block in _regroup_rows(tracks):
        x = block.astype(np.float64)
        total += x.sum(axis=0)
        products += x.T @ x
        rows += len(x)
    if rows <= count:
        raise SettingsError(
            f"{text} needs more than {count} frames to fit, got {rows}; use fewer components or select:{count}"
        )
    mean = total / rows
    products /= rows
    products -= np.outer(mean, mean)
    return mean, products


def _regroup_rows(tracks: Iterable[NDArray[np.float16]]) -> Iterator[NDArray[np.float16]]:
    """Join short tracks and split long ones into blocks of about `BLOCK_ROWS` rows.

    Adding products (D, D) clip by clip would take ten times as long as computing them. A long video converted to
    float64 at once would need too much memory.
    """
    waiting: list[NDArray[np.float16]] = []
    for track in tracks:
        for start in range(0, len(track), BLOCK_ROWS):
            waiting.append(track[start : start + BLOCK_ROWS])
            if sum(map(len, waiting)) >= BLOCK_ROWS:
                yield np.concatenate(waiting)
                waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _principal_components(
    covariance: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the first components (K, D), rows of length one, and the variance (K,) along each, largest first."""
    values, vectors = np.linalg.eigh(covariance)
    variance, components = np.maximum(values[::-1][:count], 0), vectors.T[::-1][:count]
    components *= np.sign(components[np.arange(count), np.abs(components).argmax(axis=1)])[
        :, None
    ]  # the same on all machines
    return components, variance


def _floored_deviation(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard deviations to divide by, with a floor.

    A channel that never moved in training must not produce huge values if it moves later.
    """
    floored = np.sqrt(np.maximum(variance, MIN_VARIANCE_SHARE * variance.max()))
    return np.where(floored > 0, floored, 1.0)


def _make_projection(
    text: str, mean: NDArray[np.float64], components: NDArray[np.float64], variance: NDArray[np.float64]
) -> Reduction:
    return Reduction(
        text, mean.astype(np.float32), np.ascontiguousarray(components, np.float32), variance.astype(np.float32)
    )


def _fit_random(text: str, tracks: Iterable[NDArray[np.float16]], count: int, width: int) -> Reduction:
    """Draw a Gaussian random projection, which keeps distances on average (Johnson and Lindenstrauss 1984)."""
    components = np.random.default_rng(RANDOM_SEED).standard_normal((count, width)) / np.sqrt(count)
    return Reduction(text, np.zeros(width, np.float32), components.astype(np.float32))


FITTERS = {
    "select": _fit_select,
    "pca": _fit_pca,
    "pca-scaled": _fit_pca_scaled,
    "pca-whitened": _fit_pca_whitened,
    "random": _fit_random,
}
"""Kind → function that fits it from the setting, the tracks, K and D, in one pass."""
