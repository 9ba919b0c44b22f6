"""Pooled statistics: a padded sequence → one row of numbers, whatever its length. B batch, T steps, D width."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK_CLIPS = 512
"""Clips that are pooled at once: several arrays as large as their sequences are held meanwhile."""


def step_differences(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """x[t] - x[t-1] (B, T, D), zero at the first step, and the mask (B, T) of the steps that have one."""
    step = torch.zeros_like(x)
    step[:, 1:] = x[:, 1:] - x[:, :-1]  # (B, T, D)
    real = torch.zeros_like(mask)
    real[:, 1:] = mask[:, 1:] & mask[:, :-1]  # (B, T)
    return step * real.unsqueeze(-1), real


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """(B, T, D) and (B, T) → (B, D); zero where nothing is real."""
    weight = mask.unsqueeze(-1).to(x.dtype)  # (B, T, 1)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def mean(x: Tensor, mask: Tensor) -> Tensor:
    """Over the real steps."""
    return masked_mean(x, mask)


def deviation(x: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation over the real steps."""
    return masked_mean((x - masked_mean(x, mask).unsqueeze(1)) ** 2, mask).sqrt()


def difference(x: Tensor, mask: Tensor) -> Tensor:
    """Mean change from step to step: the last step less the first, shared among the steps; zero for a single step."""
    return masked_mean(*step_differences(x, mask))


def absolute_difference(x: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute change from step to step; zero for a single step."""
    step, real = step_differences(x, mask)
    return masked_mean(step.abs(), real)


def second_difference(x: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute change of the change from step to step: blind to steady drift; zero below three steps."""
    step, real = step_differences(x, mask)
    bend, has_both = step_differences(step, real)
    return masked_mean(bend.abs(), has_both)


def minimum(x: Tensor, mask: Tensor) -> Tensor:
    """Over the real steps."""
    return x.masked_fill(~mask.unsqueeze(-1), torch.inf).amin(1)


def maximum(x: Tensor, mask: Tensor) -> Tensor:
    """Over the real steps."""
    return x.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)


def largest_difference(x: Tensor, mask: Tensor) -> Tensor:
    """Largest absolute change from one step to the next; zero for a single step."""
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
"""Name → x (B, T, D) and mask (B, T) → (B, D). To add one: a function and a line; the tests pick it up."""


LINEAR_STATISTICS = ("mean", "deviation", "absolute_difference", "second_difference")
"""What linear models are offered of a clip."""

STATISTIC_WEIGHTS = {"mean": 0.25}
"""How large a standardised statistic is made, 1 where nothing is said. How a clip looks tells its place before it tells
what happens there: at a quarter of the size it bears sixteen times the penalty, and counts where many clips agree."""


def normalize_statistic_weights(statistics: Sequence[str]) -> dict[str, float]:
    """The sizes of some statistics beside each other, the largest of them 1."""
    sizes = {name: STATISTIC_WEIGHTS.get(name, 1.0) for name in statistics}
    return {name: size / max(sizes.values()) for name, size in sizes.items()}


def pool(x: NDArray[np.float32], mask: NDArray[np.bool_], statistics: Sequence[str]) -> NDArray[np.float32]:
    """x (B, T, D), mask (B, T) → (B, S D): the named statistics of each clip side by side."""
    result = np.empty((len(x), len(statistics) * x.shape[2]), np.float32)
    with torch.inference_mode():
        for start in range(0, len(x), CHUNK_CLIPS):
            rows = slice(start, start + CHUNK_CLIPS)
            shown = torch.from_numpy(x[rows]), torch.from_numpy(mask[rows])
            result[rows] = torch.cat([STATISTICS[name](*shown) for name in statistics], dim=-1).numpy()
    return result
