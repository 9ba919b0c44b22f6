"""The part of every head that is fitted in one step: penalised least squares on pooled clips."""

import numpy as np
import torch
from scipy.special import softmax  # type: ignore[import-untyped]
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from hazard.models.calibration import fit_temperature
from hazard.models.heads.base import Standardize
from hazard.models.pooling import LINEAR_STATISTICS, STATISTICS, normalize_statistic_weights

RIDGE_PENALTY = 300.0
"""Penalty on the squared weights: two thousand columns meet a few hundred clips.

It need not follow the number of clips. It is weighed against the sum of the clips' errors, so that its share per clip
falls as clips are added.
"""

MAX_LOGIT_SCALE = 10.0
"""Factor from scores between -1 and 1 to logits, before division by a temperature that held-out scores choose."""

UNSEEN_CLASS_MARGIN = 3.0
"""How far, in logits, a class without training clips starts below the others."""


class PooledRidge(nn.Module):
    """(B, T, D) → (B, K): a ridge classifier on S statistics of the clip, fitted once and then frozen.

    The temporal part is trained on top of its held-out logits and adds what order in time is worth. On little data,
    gradient steps alone did worse: Adam moves all weights alike, while the penalty keeps uninformative weights small.
    Squared errors did better than logistic ones where columns outnumber clips.
    """

    weight: Tensor
    bias: Tensor
    cached_output: Tensor | None = None
    """Output to return without computing it, as in `MotionInputs`."""
    held_out: Tensor | None = None
    """Logits (B, K) of the training clips, each by a ridge that saw no clip of its group; the temporal part learns on
    top of these. The logits of the ridge itself fit its training clips so well that no gradient is left."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        columns = len(LINEAR_STATISTICS) * width  # S D
        self.scale = Standardize(columns)
        self.register_buffer("weight", torch.zeros(classes, columns))
        self.register_buffer("bias", torch.zeros(classes))

    def fit(
        self, x: Tensor, mask: Tensor, y: Tensor, weights: Tensor | None = None, *, parts: Tensor | None = None
    ) -> None:
        """Fit on training clips x (B, T, D) with labels y (B,); only the scale if all have one label.

        With `parts` (B,), numbers of parts that never split a group, `held_out` is computed too: one more fit a part.
        """
        pooled = self._pool(x, mask)  # (B, S D)
        self._fit_pooled(pooled, y, weights, width=x.shape[2])
        if parts is not None:
            self.held_out = self._hold_out(pooled, y, weights, parts, width=x.shape[2])

    def _hold_out(self, pooled: Tensor, y: Tensor, weights: Tensor | None, parts: Tensor, *, width: int) -> Tensor:
        held_out = torch.zeros(len(pooled), len(self.bias), device=pooled.device)
        for part in parts.unique().tolist():
            inside = parts == part
            if inside.all():  # a single group: nothing is known about clips outside it
                continue
            other = PooledRidge(width, len(self.bias)).to(pooled.device)
            other._fit_pooled(pooled[~inside], y[~inside], None if weights is None else weights[~inside], width=width)
            held_out[inside] = other._score(pooled[inside])
        return held_out

    def _fit_pooled(self, pooled: Tensor, y: Tensor, weights: Tensor | None, *, width: int) -> None:
        self.scale.fit(pooled)
        sizes = torch.tensor(list(normalize_statistic_weights(LINEAR_STATISTICS).values())).repeat_interleave(width)
        self.scale.spread /= sizes.to(self.scale.spread)
        present, numbers = np.unique(y.cpu().numpy(), return_inverse=True)
        if len(present) < 2:
            return
        targets = 2.0 * np.eye(len(present))[numbers] - 1  # (B, K')
        ridge = RidgeCV([RIDGE_PENALTY], scoring="neg_mean_squared_error", store_cv_results=True)
        counts = None if weights is None else weights.cpu().double().numpy()
        ridge.fit(self.scale(pooled).cpu().double().numpy(), targets, sample_weight=counts)
        held_out = ridge.cv_results_[:, :, 0]  # (B, K') each clip scored by the fit on the other clips
        steepness = MAX_LOGIT_SCALE / fit_temperature(softmax(MAX_LOGIT_SCALE * held_out, axis=1), numbers)
        offsets = steepness * ridge.intercept_
        self.bias.fill_(float(offsets.min()) - UNSEEN_CLASS_MARGIN if len(present) < len(self.bias) else 0.0)
        self.weight[present] = torch.from_numpy(steepness * ridge.coef_).to(self.weight)
        self.bias[present] = torch.from_numpy(offsets).to(self.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, K)."""
        if self.cached_output is not None:
            return self.cached_output
        return self._score(self._pool(x, mask))  # (B, K)

    def _score(self, pooled: Tensor) -> Tensor:
        return nn.functional.linear(self.scale(pooled), self.weight, self.bias)  # (B, K)

    def _pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([STATISTICS[name](x, mask) for name in LINEAR_STATISTICS], dim=-1)  # (B, S D)
