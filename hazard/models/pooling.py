"""Pooled statistics: a padded sequence of any length as one row of numbers. B batch, T steps, D width."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hazard.types import StepFeatures

POOLED_CLIPS = 512
"""Number of clips that are pooled at once."""
BATCH_BYTES = 2**25
"""Size of the float32 features of clips that are computed with at once; there are several arrays of this size."""


def limit_batch(x: NDArray | Tensor, clips: int) -> int:
    """Return how many clips of x (B, T, D) to take at once: `clips`, or fewer if their rows are very wide."""
    return max(1, min(clips, BATCH_BYTES // (4 * x.shape[1] * x.shape[2])))


def step_differences(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return x[t] - x[t-1] (B, T, D), zero at the first step, and the mask (B, T) of steps that have a difference."""
    step = torch.zeros_like(x)
    step[:, 1:] = x[:, 1:] - x[:, :-1]  # (B, T, D)
    real = torch.zeros_like(mask)
    real[:, 1:] = mask[:, 1:] & mask[:, :-1]  # (B, T)
    return step * real.unsqueeze(-1), real


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (B, D) of x (B, T, D) over the steps of mask (B, T); zero if no step is real."""
    weight = mask.unsqueeze(-1).to(x.dtype)  # (B, T, 1)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the real steps."""
    return masked_mean(x, mask)


def deviation(x: Tensor, mask: Tensor) -> Tensor:
    """Return the standard deviation over the real steps."""
    return masked_mean((x - masked_mean(x, mask).unsqueeze(1)) ** 2, mask).sqrt()


def difference(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean change per step, (last - first) / (steps - 1); zero for a single step."""
    return masked_mean(*step_differences(x, mask))


def absolute_difference(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute change per step; zero for a single step."""
    step, real = step_differences(x, mask)
    return masked_mean(step.abs(), real)


def second_difference(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute change of the change per step, which ignores steady drift; zero below three steps."""
    step, real = step_differences(x, mask)
    second, has_second = step_differences(step, real)
    return masked_mean(second.abs(), has_second)


def minimum(x: Tensor, mask: Tensor) -> Tensor:
    """Return the minimum over the real steps."""
    return x.masked_fill(~mask.unsqueeze(-1), torch.inf).amin(1)


def maximum(x: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum over the real steps."""
    return x.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)


def largest_difference(x: Tensor, mask: Tensor) -> Tensor:
    """Return the largest absolute change from one step to the next; zero for a single step."""
    step, _ = step_differences(x, mask)
    return step.abs().amax(1)


STATISTICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean,
    "deviation": deviation,
    "difference": difference,
    "absolute_difference": absolute_difference,
    "second_difference": second_difference,
    "minimum": minimum,
    "maximum": maximum,
    "largest_difference": largest_difference,
}
"""Name → function of x (B, T, D) and mask (B, T) that gives (B, D). To add one, write a function and add a line
here; the tests pick it up."""


LINEAR_STATISTICS = ("mean", "deviation", "absolute_difference", "second_difference")
"""Statistics of a clip that linear models take."""

MEAN_SIZE = 0.25
"""Size of standardised means beside other statistics of size 1, unless training clips clearly say otherwise. The
appearance of a clip reveals its place more readily than what happens there. At a quarter of the size it is penalised
sixteen times as much, and counts only where many clips agree."""


def normalize_statistic_sizes(statistics: Sequence[str], mean_size: float = MEAN_SIZE) -> dict[str, float]:
    """Return the sizes of the given statistics, scaled so that the largest is 1."""
    sizes = {name: mean_size if name == "mean" else 1.0 for name in statistics}
    return {name: size / max(sizes.values()) for name, size in sizes.items()}


def pool(x: StepFeatures, mask: NDArray[np.bool_], statistics: Sequence[str]) -> NDArray[np.float32]:
    """Return the named statistics of each clip of x (B, T, D), mask (B, T) side by side: (B, S D)."""
    result = np.empty((len(x), len(statistics) * x.shape[2]), np.float32)
    size = limit_batch(x, POOLED_CLIPS)
    with torch.inference_mode():
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            batch = torch.from_numpy(x[rows]).float(), torch.from_numpy(mask[rows])
            result[rows] = torch.cat([STATISTICS[name](*batch) for name in statistics], dim=-1).numpy()
    return result
