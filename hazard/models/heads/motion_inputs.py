"""What a head is offered of each step: features, their changes, or several of them side by side."""

import torch
from torch import Tensor, nn

from hazard.models.heads.base import Standardize
from hazard.models.pooling import STATISTIC_WEIGHTS, step_differences

INPUT_SCALES = {"features": STATISTIC_WEIGHTS["mean"]}
"""Appearance is offered smaller than motion, for the reason that pooled clips have."""


class MotionInputs(nn.Module):
    """(B, T, D) → (B, T, n D): features and their changes side by side, standardised, zero where undefined."""

    cached_output: Tensor | None = None
    """Handed out instead of computing: gradient steps change nothing here, so that training computes it once a clip."""

    def __init__(self, width: int, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.inputs = inputs
        self.width = width * len(inputs)
        self.scales = nn.ModuleDict({name: Standardize(width) for name in inputs})

    def fit(self, x: Tensor, mask: Tensor) -> None:
        """Statistics over the real steps of training clips."""
        for name, (values, real) in self._compute_inputs(x, mask).items():
            scale = self.scales[name]
            assert isinstance(scale, Standardize)
            if real.any():  # clips of a single step have no differences
                scale.fit(values[real])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, n D)."""
        if self.cached_output is not None:
            return self.cached_output
        parts = [
            self.scales[name](values) * INPUT_SCALES.get(name, 1.0) * real.unsqueeze(-1)
            for name, (values, real) in self._compute_inputs(x, mask).items()
        ]
        return torch.cat(parts, dim=-1)  # (B, T, n D)

    def _compute_inputs(self, x: Tensor, mask: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        step, real = step_differences(x, mask)
        bend, has_both = step_differences(step, real)
        offered = {
            "features": (x, mask),
            "differences": (step, real),
            "absolute_differences": (step.abs(), real),
            "second_differences": (bend, has_both),
            "absolute_second_differences": (bend.abs(), has_both),
        }
        return {name: offered[name] for name in self.inputs}
