"""The part of every head that is fitted at once: penalised logistic regression on pooled clips."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from hazard.heads.common import POOLED_C, Standardise, pool

UNSEEN_MARGIN = 3.0
"""How far, in logits, a class that no training clip shows starts below the rarest one that some do."""


class PooledPath(nn.Module):
    """(B, T, D) → (B, K): logistic regression on the pooled clip, fitted at once and then left as it is.

    The recurrent part is trained on top of it and adds what order in time is worth. On little data gradient steps
    alone did worse: Adam moves every weight alike, the penalty keeps those small that tell nothing.
    """

    weight: Tensor
    bias: Tensor
    given: Tensor | None = None
    """As in `MotionInputs`."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.scale = Standardise(3 * width)
        self.register_buffer("weight", torch.zeros(classes, 3 * width))
        self.register_buffer("bias", torch.zeros(classes))

    def fit(self, x: Tensor, mask: Tensor, y: Tensor) -> None:
        """On training clips x (B, T, D) with their labels y (B,); nothing where these are all of one label."""
        pooled = pool(x, mask)  # (B, 3 D)
        self.scale.fit(pooled)
        if len(y.unique()) < 2:
            return
        model = LogisticRegression(C=POOLED_C, max_iter=2000).fit(self.scale(pooled).cpu().numpy(), y.cpu().numpy())
        coefficients, offsets = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # one row says how much the second class is likelier: half for it, half against
            coefficients, offsets = (
                np.concatenate([-coefficients, coefficients]) / 2,
                np.concatenate([-offsets, offsets]) / 2,
            )
        self.bias.fill_(float(offsets.min()) - UNSEEN_MARGIN if len(model.classes_) < len(self.bias) else 0.0)
        self.weight[model.classes_] = torch.from_numpy(coefficients).to(self.weight)
        self.bias[model.classes_] = torch.from_numpy(offsets).to(self.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, K)."""
        if self.given is not None:
            return self.given
        return nn.functional.linear(self.scale(pool(x, mask)), self.weight, self.bias)  # (B, K)
