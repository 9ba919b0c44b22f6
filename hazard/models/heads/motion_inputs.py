"""What a head is offered of each step: features, their changes, or several of them side by side."""

import torch
from torch import Tensor, nn

from hazard.models.heads.base import Standardise
from hazard.models.pooling import WEIGHTS, differences

SIZES = {"features": WEIGHTS["mean"]}
"""Appearance is offered smaller than motion, for the reason that pooled clips have."""


class MotionInputs(nn.Module):
    """(B, T, D) → (B, T, n D): features and their changes side by side, standardised, zero where undefined."""

    given: Tensor | None = None
    """Handed out instead of computing: gradient steps change nothing here, so that training computes it once a clip."""

    def __init__(self, width: int, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.inputs = inputs
        self.width = width * len(inputs)
        self.scales = nn.ModuleDict({name: Standardise(width) for name in inputs})

    def fit(self, x: Tensor, mask: Tensor) -> None:
        """Statistics over the real steps of training clips."""
        for name, (values, real) in self._offered(x, mask).items():
            scale = self.scales[name]
            assert isinstance(scale, Standardise)
            if real.any():  # clips of a single step have no differences
                scale.fit(values[real])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, n D)."""
        if self.given is not None:
            return self.given
        parts = [
            self.scales[name](values) * SIZES.get(name, 1.0) * real.unsqueeze(-1)
            for name, (values, real) in self._offered(x, mask).items()
        ]
        return torch.cat(parts, dim=-1)  # (B, T, n D)

    def _offered(self, x: Tensor, mask: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        step, real = differences(x, mask)
        bend, has_both = differences(step, real)
        offered = {
            "features": (x, mask),
            "differences": (step, real),
            "absolute_differences": (step.abs(), real),
            "second_differences": (bend, has_both),
            "absolute_second_differences": (bend.abs(), has_both),
        }
        return {name: offered[name] for name in self.inputs}
