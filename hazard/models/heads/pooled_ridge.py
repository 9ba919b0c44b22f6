"""The part of every head that is fitted in one step: penalised least squares on pooled clips."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from hazard.data.splits import number_grouped_parts
from hazard.models.calibration import fit_score_factor
from hazard.models.heads.base import Standardize
from hazard.models.pooling import LINEAR_STATISTICS, STATISTICS, normalize_statistic_sizes
from hazard.models.ridge_options import choose_ridge_options

Array = NDArray

LEAST_STEEPNESS, LARGEST_STEEPNESS = 0.5, 20.0
"""Bounds of the factor from scores, which are near -1 and 1, to logits."""

UNSEEN_CLASS_MARGIN = 3.0
"""How far, in logits, a class without training clips starts below the others."""


class PooledRidge(nn.Module):
    """(B, T, D) → (B, K): a ridge classifier on S statistics of the clip, fitted once and then frozen.

    The temporal part is trained on top of its held-out logits and adds what order in time is worth. The logits of the
    ridge itself fit its training clips so well that no gradient would be left. On little data, gradient steps alone did
    worse: Adam moves all weights alike, while the penalty keeps uninformative weights small. Squared errors did better
    than logistic ones where columns outnumber clips.
    """

    weight: Tensor
    bias: Tensor
    cached_output: Tensor | None = None
    """Output to return without computing it, as in `MotionInputs`."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        columns = len(LINEAR_STATISTICS) * width  # S D
        self.scale = Standardize(columns)
        self.register_buffer("weight", torch.zeros(classes, columns))
        self.register_buffer("bias", torch.zeros(classes))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, K)."""
        if self.cached_output is not None:
            return self.cached_output
        return nn.functional.linear(self.scale(pool_for_ridge(x, mask)), self.weight, self.bias)  # (B, K)


def pool_for_ridge(x: Tensor, mask: Tensor) -> Tensor:
    """Return the statistics (B, S D) of clips x (B, T, D), mask (B, T) that the ridge takes, not yet scaled."""
    return torch.cat([STATISTICS[name](x, mask) for name in LINEAR_STATISTICS], dim=-1)


def fit_pooled_ridge(
    pooled: Tensor, y: Tensor, classes: int, weights: Tensor | None = None, *, groups: Tensor | None = None
) -> tuple[PooledRidge, Tensor]:
    """Fit on pooled training clips (B, S D) with labels y (B,); return the ridge and held-out logits (B, K).

    `weights` (B,) say how much each clip counts. The logits of a clip are those of a ridge that was fitted without its
    group, of `groups` (B,); without groups, or with a single one, each clip is its own. If all clips have one label,
    only the scale is fitted.
    """
    ridge = PooledRidge(pooled.shape[1] // len(LINEAR_STATISTICS), classes).to(pooled.device)
    ridge.scale.fit(pooled)
    rows, labels = ridge.scale(pooled).cpu().numpy(), y.cpu().numpy()
    numbers = np.arange(len(labels)) if groups is None or groups.unique().numel() < 2 else groups.cpu().numpy()
    counts = None if weights is None else weights.cpu().double().numpy()
    options = choose_ridge_options(rows, LINEAR_STATISTICS, labels, numbers, counts)
    scales = list(normalize_statistic_sizes(LINEAR_STATISTICS, options.mean_size).values())
    sizes = np.repeat(np.array(scales, rows.dtype), rows.shape[1] // len(scales))  # (S D,)
    ridge.scale.spread /= torch.from_numpy(sizes).to(pooled.device)
    rows *= sizes
    held_out = torch.zeros(len(labels), classes, device=pooled.device)
    present, targets_of = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        return ridge, held_out
    targets = 2.0 * np.eye(len(present))[targets_of] - 1  # (B, K')
    scores = np.empty_like(targets)  # of each clip by a fit on other parts
    parts = number_grouped_parts(labels, numbers, seed=0)
    for part in np.unique(parts):
        inside = parts == part
        rest_counts = None if counts is None else counts[~inside]
        coef, intercept = _solve(rows[~inside], targets[~inside], rest_counts, options.penalty)
        scores[inside] = rows[inside] @ coef.T + intercept
    coef, intercept = _solve(rows, targets, counts, options.penalty)
    steepness, _ = fit_score_factor(scores, targets_of, least=LEAST_STEEPNESS, largest=LARGEST_STEEPNESS)
    lowest = float(steepness * intercept.min()) - UNSEEN_CLASS_MARGIN
    ridge.bias.fill_(lowest)
    held_out.fill_(lowest)
    ridge.weight[present] = torch.from_numpy(steepness * coef).to(ridge.weight)
    ridge.bias[present] = torch.from_numpy(steepness * intercept).to(ridge.bias)
    held_out[:, present] = torch.from_numpy(steepness * scores).to(held_out)
    return ridge, held_out


def _solve(rows: Array, targets: Array, counts: Array | None, penalty: float) -> tuple[Array, Array]:
    """Return coefficients (K', C) and intercepts (K',) of ridge regression, in float64."""
    ridge = Ridge(penalty, solver="cholesky", copy_X=False).fit(rows.astype(np.float64), targets, sample_weight=counts)
    return ridge.coef_, ridge.intercept_
