"""How strongly ridge regression on pooled clips is penalised, chosen by grouped parts of the training clips.

Two numbers decide: the penalty, and how much the means of a clip count beside its statistics of movement. The defaults
were chosen on surveillance clips of 32 places, where the mean mostly shows the place. Where labels differ by what is
seen, other values do far better, and held-out clips say so clearly. The dual form of ridge regression tries all values
in the time of a few fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve  # type: ignore[import-untyped]

from hazard.data.splits import number_grouped_parts
from hazard.models.pooling import MEAN_SIZE, normalize_statistic_sizes

PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0)
MEAN_SIZES = (MEAN_SIZE, 1.0, 4.0)
"""Candidates. Every pair of them is tried."""
LARGEST_SAMPLE = 1_000
"""Clips, at most, on which the candidates are tried."""
FEWEST_GROUPS = 6
"""Groups from which on held-out errors can tell candidates apart."""
CLEAR_GAIN = 2.0
"""Standard errors by which a candidate must be better than the default. Below that the choice is mostly chance, and
cost up to .01 ROC AUC on the surveillance clips."""
BLOCK_COLUMNS = 2048

Rows = NDArray[np.float32]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class RidgeOptions:
    """Penalty on the squared weights, and size of standardised means beside other statistics of size 1.

    The penalty need not follow the number of clips. It is weighed against the sum of their errors, so that its share
    falls as clips are added.
    """

    penalty: float = 300.0
    mean_size: float = MEAN_SIZE


def choose_ridge_options(
    rows: Rows,
    statistics: Sequence[str],
    y: NDArray[np.int64],
    groups: NDArray[np.int64] | NDArray[np.str_],
    counts: Numbers | None = None,
    *,
    seed: int = 0,
) -> RidgeOptions:
    """Return the options with the least squared error on held-out parts, or the default if none is clearly better.

    `rows` (B, S D) are standardised `statistics` of the clips with labels y (B,), and `counts` (B,) say how much each
    clip counts. Parts never split one of `groups` (B,).
    """
    if len(y) > LARGEST_SAMPLE:
        chosen = sample_clips(len(y), seed=seed)
        rows, y, groups = rows[chosen], y[chosen], groups[chosen]
        counts = None if counts is None else counts[chosen]
    names, group_numbers = np.unique(groups, return_inverse=True)
    labels, label_numbers = np.unique(y, return_inverse=True)
    if len(names) < FEWEST_GROUPS or len(labels) < 2:
        return RidgeOptions()
    targets = 2.0 * np.eye(len(labels))[label_numbers] - 1  # (B, K')
    parts = number_grouped_parts(y, groups, seed=seed)
    counts = np.ones(len(y)) if counts is None else counts
    products_by_statistic = {
        name: _multiply_rows(columns)
        for name, columns in zip(statistics, np.split(rows, len(statistics), axis=1), strict=True)
    }
    sizes = MEAN_SIZES if "mean" in statistics and len(statistics) > 1 else (MEAN_SIZE,)
    errors: dict[RidgeOptions, Numbers] = {}  # of each clip (B,)
    for size in sizes:
        scales = normalize_statistic_sizes(statistics, size)
        products = np.sum([scales[name] ** 2 * each for name, each in products_by_statistic.items()], axis=0)
        errors |= {RidgeOptions(penalty, size): np.empty(len(y)) for penalty in PENALTIES}
        for part in np.unique(parts):
            held_out = parts == part
            scores = _score_held_out(products, targets, counts, held_out)
            for penalty, part_scores in scores.items():
                errors[RidgeOptions(penalty, size)][held_out] = ((part_scores - targets[held_out]) ** 2).mean(1)
    best = min(errors, key=lambda options: float(errors[options] @ counts))
    gain = (errors[RidgeOptions()] - errors[best]) * counts  # (B,)
    deviations = np.bincount(group_numbers, gain - gain.mean())  # sums over groups
    return best if gain.sum() > CLEAR_GAIN * float(np.sqrt((deviations**2).sum())) else RidgeOptions()


def sample_clips(count: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Return the sorted numbers of the clips, of `count`, that candidates are tried on: all, or LARGEST_SAMPLE."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:LARGEST_SAMPLE])


def _multiply_rows(rows: Rows) -> Numbers:
    """Return the products (B, B) of all pairs of rows (B, D), summed in float64."""
    products = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], BLOCK_COLUMNS):
        block = rows[:, start : start + BLOCK_COLUMNS].astype(np.float64)
        products += block @ block.T
    return products


def _score_held_out(
    products: Numbers, targets: Numbers, counts: Numbers, held_out: NDArray[np.bool_]
) -> dict[float, Numbers]:
    """Return for each penalty the scores (H, K') of the held-out clips by a ridge that was fitted on the others."""
    others = ~held_out
    shares = counts[others] / counts[others].sum()  # (O,)
    roots = np.sqrt(counts[others])  # (O,)
    inside, across = products[np.ix_(others, others)], products[np.ix_(held_out, others)]
    row_means = inside @ shares  # (O,)
    overall = shares @ row_means
    centred = inside - row_means - row_means[:, None] + overall
    across = across - (across @ shares)[:, None] - row_means + overall  # (H, O)
    mean_target = shares @ targets[others]  # (K',)
    weighted = roots[:, None] * (targets[others] - mean_target)
    scores = {}
    for penalty in PENALTIES:
        system = roots[:, None] * centred * roots
        system.flat[:: len(system) + 1] += penalty
        solution = cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), weighted, check_finite=False)
        scores[penalty] = across @ (roots[:, None] * solution) + mean_target
    return scores
