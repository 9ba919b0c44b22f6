"""Pooling of a head's states: one row per clip from one row per step. B batch, T steps, H hidden width."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from hazard.models.pooling import masked_mean


class Pooling(Protocol):
    """An `nn.Module` that gives one row per clip: (B, T, H) and mask (B, T) → (B, H)."""

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return how much each step counts (B, T): rows sum to one, padding is zero."""

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the pooled states (B, H)."""


class MeanPooling(nn.Module):
    """(B, T, H) → (B, H): the mean over the real steps, for any H."""

    def __init__(self, width: int, backward: int = 0) -> None:
        super().__init__()
        self.width = width

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return equal weights (B, T) for the real steps."""
        return mask / mask.sum(1, keepdim=True).clamp(min=1)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the mean (B, H)."""
        return masked_mean(hidden, mask)


class LastPooling(nn.Module):
    """(B, T, H) → (B, H): the state after the last real step, as in the classic pipeline.

    The last `backward` of the H channels are those of a layer that reads the clip backwards: its final state is that of
    the first step.
    """

    def __init__(self, width: int, backward: int = 0) -> None:
        super().__init__()
        self.forward_width, self.backward_width = width - backward, backward

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the share (B, T) of the channels that come from each step."""
        last, first = _mark_last(mask), _mark_last(mask.flip(1)).flip(1)  # (B, T)
        return (last * self.forward_width + first * self.backward_width) / (self.forward_width + self.backward_width)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the last states (B, H); zero for a clip without a real step."""
        ahead, back = hidden.split([self.forward_width, self.backward_width], dim=-1)
        last = _mark_last(mask).unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
        real = mask[:, :1].to(hidden.dtype)  # (B, 1)
        return torch.cat([(ahead * last).sum(1), back[:, 0] * real], dim=-1)


class MaxPooling(nn.Module):
    """(B, T, H) → (B, H): the largest value of each channel over the real steps."""

    def __init__(self, width: int, backward: int = 0) -> None:
        super().__init__()

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the share (B, T) of the channels whose largest value is at each step."""
        largest = _hide_padding(hidden, mask).argmax(1)  # (B, H)
        steps = torch.arange(hidden.shape[1], device=hidden.device)[:, None]  # (T, 1)
        return (largest[:, None] == steps).to(hidden.dtype).mean(-1) * mask

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the largest values (B, H); zero for a clip without a real step."""
        return _hide_padding(hidden, mask).amax(1) * mask[:, :1].to(hidden.dtype)


class AttentionPooling(nn.Module):
    """(B, T, H) → (B, H): a weighted mean with learned weights (Bahdanau et al. 2015, additive scores)."""

    def __init__(self, width: int, backward: int = 0) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the weight of each step (B, T); rows sum to one over the real steps."""
        scores = self.score(hidden).squeeze(-1)  # (B, T)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=1) * mask

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the weighted mean (B, H)."""
        return (self.weights(hidden, mask).unsqueeze(-1) * hidden).sum(1)  # (B, H)


POOLINGS: dict[str, Callable[[int, int], Pooling]] = {
    "mean": MeanPooling,
    "last": LastPooling,
    "max": MaxPooling,
    "attention": AttentionPooling,
}
"""Name → function that makes a pooling from H and the number of channels that were read backwards."""


def _mark_last(mask: Tensor) -> Tensor:
    """Return True (B, T) at the last real step of each clip, for masks that are True first and False after."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask & ~following


def _hide_padding(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(~mask.unsqueeze(-1), torch.finfo(hidden.dtype).min)
