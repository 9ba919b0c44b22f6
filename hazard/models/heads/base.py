"""The pieces that heads are made of. Shapes: B batch, T steps, D feature width, K classes, H hidden width."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hazard.models.onnx.recurrent import run_onnx_recurrent
from hazard.models.pooling import masked_mean

STEP_INPUTS = (
    "features",
    "differences",
    "absolute_differences",
    "second_differences",
    "absolute_second_differences",
)
"""What a head can be offered of each step."""

DEFAULT_INPUTS = ("features", "differences", "absolute_differences")
"""What it is offered unless something else is asked for."""

SPREAD_FLOOR = 1e-3
"""Added to every spread: a channel that never moves in training must not blow up when it moves later."""


@dataclass(frozen=True)
class HeadOptions:
    """What the shape of a head depends on; saved with the model."""

    hidden_size: int = 64
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.5
    inputs: tuple[str, ...] = DEFAULT_INPUTS
    projection: int = 64
    """0: none, the recurrent layer is fed what is offered."""


class Head(Protocol):
    """The contract of every member of HEADS, an `nn.Module` called with x (B, T, D) and mask (B, T) True = real."""

    def fit_statistics(self, x: Tensor, mask: Tensor, y: Tensor, weights: Tensor | None = None) -> None:
        """Learn from training clips, with labels y (B,), all that is not learned by gradient steps.

        `weights` (B,) say how much each clip counts, all alike by default.
        """

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """How much each step counts (B, T): rows sum to one, padding is zero."""

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, K), the same whatever the padding."""


class Standardize(nn.Module):
    """(x - mean) / spread with buffers that are learned once, and saved with the head."""

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def fit(self, rows: Tensor) -> None:
        """rows (R, D) of training clips."""
        self.mean.copy_(rows.mean(0))
        self.spread.copy_(rows.std(0, unbiased=False) + SPREAD_FLOOR)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends in D."""
        return (x - self.mean) / self.spread


class Projection(nn.Sequential):
    """(B, T, W) → (B, T, P): the learned reduction in front of a recurrent layer; without one dropout alone, P = W."""

    def __init__(self, width: int, options: HeadOptions) -> None:
        drop, size = options.dropout, options.projection
        learned = [nn.Linear(width, size), nn.LayerNorm(size), nn.GELU(), nn.Dropout(drop)] if size else []
        super().__init__(nn.Dropout(drop), *learned)
        self.width = size or width


def run_recurrent(layer: nn.LSTM | nn.GRU, x: Tensor, mask: Tensor) -> Tensor:
    """(B, T, P) → (B, T, H) over the real steps alone, so that the backward direction starts at each clip's own end.

    The mask must be True first and False after: that is how `hazard.sequences.pad` makes it.
    """
    if torch.onnx.is_in_onnx_export():
        return run_onnx_recurrent(layer, x, mask)
    if mask.all():
        return layer(x)[0]
    lengths = mask.sum(1).clamp(min=1).cpu()  # packing refuses empty rows; an empty row's output is masked anyway
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    hidden, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=x.shape[1])
    return hidden


class MeanPooling(nn.Module):
    """(B, T, H) → (B, H): the mean over the real steps, of any width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Every real step counts alike (B, T)."""
        return mask / mask.sum(1, keepdim=True).clamp(min=1)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, H)."""
        return masked_mean(hidden, mask)


class AttentionPooling(nn.Module):
    """(B, T, H) → (B, H): a weighted mean whose weights are learned (Bahdanau et al. 2015, additive scores)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T), rows sum to one over the real steps."""
        scores = self.score(hidden).squeeze(-1)  # (B, T)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=1) * mask

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, H)."""
        return (self.weights(hidden, mask).unsqueeze(-1) * hidden).sum(1)  # (B, H)
