"""Inputs of a head at each step: features, their changes, or several of these side by side."""

import torch
from torch import Tensor, nn

from hazard.models.heads.base import Standardize
from hazard.models.pooling import MEAN_SIZE, step_differences

INPUT_SCALES = {"features": MEAN_SIZE}
"""Size of a standardised input, 1 if not listed. Appearance is made smaller than motion, as in MEAN_SIZE."""


class MotionInputs(nn.Module):
    """(B, T, D) → (B, T, n D): features and their changes side by side, standardised, zero where undefined."""

    cached_output: Tensor | None = None
    """Output to return without computing it. Gradient steps change nothing here, so training computes it once per
    clip."""

    def __init__(self, width: int, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.inputs = inputs
        self.width = width * len(inputs)
        self.scales = nn.ModuleDict({name: Standardize(width) for name in inputs})

    def fit(self, x: Tensor, mask: Tensor) -> None:
        """Fit the scales on the real steps of training clips."""
        for name, (values, real) in self._compute_inputs(x, mask).items():
            scale = self.scales[name]
            assert isinstance(scale, Standardize)
            if real.any():  # clips of a single step have no differences
                scale.fit(values[real])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the inputs (B, T, n D)."""
        if self.cached_output is not None:
            return self.cached_output
        parts = [
            self.scales[name](values) * INPUT_SCALES.get(name, 1.0) * real.unsqueeze(-1)
            for name, (values, real) in self._compute_inputs(x, mask).items()
        ]
        return torch.cat(parts, dim=-1)  # (B, T, n D)

    def _compute_inputs(self, x: Tensor, mask: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        step, real = step_differences(x, mask)
        second, has_second = step_differences(step, real)
        available = {
            "features": (x, mask),
            "differences": (step, real),
            "absolute_differences": (step.abs(), real),
            "second_differences": (second, has_second),
            "absolute_second_differences": (second.abs(), has_second),
        }
        return {name: available[name] for name in self.inputs}
