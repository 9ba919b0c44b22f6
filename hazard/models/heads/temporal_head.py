"""The structure of most heads: inputs, projection, a body that looks along time, pooling, and the pooled ridge."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from hazard.models.heads.base import HeadOptions, Projection, make_last_layer
from hazard.models.heads.motion_inputs import MotionInputs
from hazard.models.heads.pooled_ridge import PooledRidge
from hazard.models.heads.step_pooling import POOLINGS, Pooling


class HeadBody(Protocol):
    """The temporal part: an `nn.Module` from (B, T, P) and mask (B, T) to (B, T, H); real steps ignore padding."""

    width: int
    """Output width H."""
    backward_width: int
    """Number of the last of the H channels that a layer reading backwards gives; 0 without one."""

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, T, H); the values at padded steps are never read."""


class TemporalHead(nn.Module):
    """x (B, T, D), mask (B, T) → logits (B, K), the sum of two paths.

    The temporal path is inputs, projection, body, pooling and a linear layer; the other is the pooled ridge, unless
    `options.pooled_path` is off. `body` is made from the projection's width. `pooling` is the name in POOLINGS of the
    head's own pooling, used unless `options.pooling` names another.
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
        pooling: str,
    ) -> None:
        super().__init__()
        self.inputs = MotionInputs(width, options.inputs)
        self.project = Projection(self.inputs.width, options)
        self.body = body(self.project.width)
        self.pooling = POOLINGS[options.pooling or pooling](self.body.width, self.body.backward_width)
        last = make_last_layer(self.body.width, classes, options)
        self.classify = nn.Sequential(nn.Dropout(options.dropout), last)
        self.pooled = PooledRidge(width, classes) if options.pooled_path else None

    def fit_statistics(self, x: Tensor, mask: Tensor, ridge: nn.Module | None) -> None:
        """Fit the input scales on training clips, and take over a fitted pooled ridge."""
        self.inputs.fit(x, mask)
        if self.pooled is not None and ridge is not None:
            self.pooled.load_state_dict(ridge.state_dict())

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the weight of each step (B, T) in the pooling."""
        return self.pooling.weights(self._compute_hidden(x, mask), mask)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, K)."""
        summary = self.pooling(self._compute_hidden(x, mask), mask)  # (B, H)
        logits = self.classify(summary)  # (B, K)
        return logits if self.pooled is None else logits + self.pooled(x, mask)

    def _compute_hidden(self, x: Tensor, mask: Tensor) -> Tensor:
        steps = self.project(self.inputs(x, mask))  # (B, T, P)
        return self.body(steps, mask)  # (B, T, H)
