"""The structure of most heads: inputs, projection, a body that looks along time, pooling, and the pooled ridge."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from hazard.models.heads.base import HeadOptions, Projection, start_at_zero
from hazard.models.heads.motion_inputs import MotionInputs
from hazard.models.heads.pooled_ridge import PooledRidge


class HeadBody(Protocol):
    """The temporal part: an `nn.Module` from (B, T, P) and mask (B, T) to (B, T, H); real steps ignore padding."""

    width: int
    """Output width H."""

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, T, H); the values at padded steps are never read."""


class Pooling(Protocol):
    """An `nn.Module` that gives one row per clip: (B, T, H) and mask (B, T) → (B, H)."""

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the weight of each step (B, T)."""

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the mean by those weights (B, H)."""


class TemporalHead(nn.Module):
    """x (B, T, D), mask (B, T) → logits (B, K), the sum of two paths.

    The temporal path is inputs, projection, body, pooling and a linear layer; the other is the pooled ridge. `body` is
    made from the projection's width, `pooling` from the body's.
    """

    body: HeadBody
    pooling: Pooling

    def __init__(
        self,
        width: int,
        classes: int,
        options: HeadOptions,
        *,
        body: Callable[[int], HeadBody],
        pooling: Callable[[int], Pooling],
    ) -> None:
        super().__init__()
        self.inputs = MotionInputs(width, options.inputs)
        self.project = Projection(self.inputs.width, options)
        self.body = body(self.project.width)
        self.pooling = pooling(self.body.width)
        self.classify = nn.Sequential(nn.Dropout(options.dropout), start_at_zero(nn.Linear(self.body.width, classes)))
        self.pooled = PooledRidge(width, classes)

    def fit_statistics(
        self, x: Tensor, mask: Tensor, y: Tensor, weights: Tensor | None = None, *, parts: Tensor | None = None
    ) -> None:
        """Fit the input scales and the pooled ridge on training clips."""
        self.inputs.fit(x, mask)
        self.pooled.fit(x, mask, y, weights, parts=parts)

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the weight of each step (B, T) in the pooling."""
        return self.pooling.weights(self._compute_hidden(x, mask), mask)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, K)."""
        summary = self.pooling(self._compute_hidden(x, mask), mask)  # (B, H)
        return self.classify(summary) + self.pooled(x, mask)  # (B, K)

    def _compute_hidden(self, x: Tensor, mask: Tensor) -> Tensor:
        steps = self.project(self.inputs(x, mask))  # (B, T, P)
        return self.body(steps, mask)  # (B, T, H)
