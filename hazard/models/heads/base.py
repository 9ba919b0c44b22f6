"""Building blocks of heads. Shapes: B batch, T steps, D feature width, K classes, H hidden width."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hazard.models.onnx.recurrent import run_onnx_recurrent

STEP_INPUTS = (
    "features",
    "differences",
    "absolute_differences",
    "second_differences",
    "absolute_second_differences",
)
"""Inputs that a head can take at each step."""

DEFAULT_INPUTS = ("features",)
"""Inputs that a head takes by default."""

SPREAD_FLOOR = 1e-3
"""Added to every spread: a channel that never moves in training must not blow up when it moves later."""


@dataclass(frozen=True)
class HeadOptions:
    """Options that decide the shape of a head; saved with the model."""

    hidden_size: int = 64
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.3
    inputs: tuple[str, ...] = DEFAULT_INPUTS
    projection: int = 64
    """Width of the projection; 0: none, the body takes the inputs directly."""
    pooling: str | None = None
    """Name in POOLINGS of how the states become one row per clip; None: the head's own way."""
    pooled_path: bool = True
    """Whether the logits of the pooled ridge are added."""


class Head(Protocol):
    """The contract of every member of HEADS: an `nn.Module` called with x (B, T, D) and mask (B, T) True = real."""

    def fit_statistics(self, x: Tensor, mask: Tensor, ridge: nn.Module | None) -> None:
        """Learn from training clips the scale of the inputs, and take over a fitted `PooledRidge` if there is one."""

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the weight of each step (B, T): rows sum to one, padding is zero."""

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, K), which do not depend on the padding."""


class Standardize(nn.Module):
    """(x - mean) / spread, with buffers that are learned once and saved with the head."""

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def fit(self, rows: Tensor) -> None:
        """Learn mean and spread from rows (R, D) of training clips."""
        self.mean.copy_(rows.mean(0))
        self.spread.copy_(rows.std(0, unbiased=False) + SPREAD_FLOOR)

    def fit_blocks(self, blocks: Iterable[Tensor]) -> None:
        """Learn mean and spread from blocks of rows (R, D); without any row, both stay as they are.

        Means and squared deviations of the blocks are put together as in Chan, Golub and LeVeque (1979).
        """
        count, mean, squares = 0, torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        for rows in blocks:
            if not len(rows):
                continue
            block_mean = rows.mean(0)
            change, total = block_mean - mean, count + len(rows)
            squares += ((rows - block_mean) ** 2).sum(0) + change**2 * (count * len(rows) / total)
            mean += change * (len(rows) / total)
            count = total
        if count:
            self.mean.copy_(mean)
            self.spread.copy_((squares / count).sqrt() + SPREAD_FLOOR)

    def forward(self, x: Tensor) -> Tensor:
        """Standardise x of any shape that ends in D."""
        return (x - self.mean) / self.spread


class ChannelDropout(nn.Module):
    """(B, T, W) or (B, W) → the same shape: hides the same channels at all steps of a clip (Gal and Ghahramani 2016).

    One draw a clip costs a T-th of one a step, which matters where rows are wide.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return x with hidden channels zero and the others scaled up; x itself outside training."""
        if not self.training or not self.share:
            return x
        clips = x.new_ones(len(x), *[1] * (x.ndim - 2), x.shape[-1])  # (B, 1, W)
        return x * nn.functional.dropout(clips, self.share)


class Projection(nn.Sequential):
    """(B, T, W) → (B, T, P): the learned reduction before the body; without one only dropout, and P = W."""

    def __init__(self, width: int, options: HeadOptions) -> None:
        drop, size = options.dropout, options.projection
        learned = [nn.Linear(width, size), nn.LayerNorm(size), nn.GELU(), nn.Dropout(drop)] if size else []
        super().__init__(ChannelDropout(drop), *learned)
        self.width = size or width


def make_last_layer(width: int, classes: int, options: HeadOptions) -> nn.Linear:
    """Make the layer from H to the logits; beside a pooled ridge it starts at zero, so that an untrained head is it."""
    layer = nn.Linear(width, classes)
    if options.pooled_path:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer


def run_recurrent(layer: nn.LSTM | nn.GRU, x: Tensor, mask: Tensor) -> Tensor:
    """Run a layer on x (B, T, P) over the real steps alone; return its states (B, T, H).

    The backward direction therefore starts at each clip's own end. The mask must be True first and False after, as
    `hazard.data.sequences.pad_tracks` makes it.
    """
    if torch.onnx.is_in_onnx_export():
        return run_onnx_recurrent(layer, x, mask)
    if mask.all():
        return layer(x)[0]
    lengths = mask.sum(1).clamp(min=1).cpu()  # packing rejects empty rows; their output is masked anyway
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    hidden, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=x.shape[1])
    return hidden
