"""Inputs of a head at each step: features, their changes, or several of these side by side."""

import torch
from torch import Tensor, nn

from hazard.models.heads.base import Standardize
from hazard.models.pooling import MEAN_SIZE, limit_batch, step_differences

INPUT_SCALES = {"features": MEAN_SIZE}
"""Size of a standardised input, 1 if not listed. Appearance is made smaller than motion, as in MEAN_SIZE."""

FITTED_CLIPS = 256
"""Number of clips that scales are fitted on at once."""


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
        """Fit the scales on the real steps of training clips x (B, T, D), mask (B, T), a few clips at a time."""
        size = limit_batch(x, FITTED_CLIPS)
        for name, scale in self.scales.items():
            assert isinstance(scale, Standardize)
            rows = (
                values[real]
                for block, real_steps in zip(x.split(size), mask.split(size), strict=True)
                for values, real in [self._compute_input(name, block.float(), real_steps)]
            )
            scale.fit_blocks(rows)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the inputs (B, T, n D)."""
        if self.cached_output is not None:
            return self.cached_output
        parts = []
        for name, scale in self.scales.items():
            values, real = self._compute_input(name, x, mask)
            parts.append(scale(values) * INPUT_SCALES.get(name, 1.0) * real.unsqueeze(-1))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]  # (B, T, n D)

    @staticmethod
    def _compute_input(name: str, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the named input (B, T, D) before it is standardised, and the steps (B, T) at which it is defined."""
        if name == "features":
            return x, mask
        values, real = step_differences(x, mask)
        if "second" in name:
            values, real = step_differences(values, real)
        return (values.abs() if "absolute" in name else values), real
