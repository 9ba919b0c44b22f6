"""The pieces that heads are made of. Shapes: B batch, T steps, D feature width, K classes, H hidden width."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

INPUTS = ("features", "differences", "absolute_differences")
"""What a head can be offered of each step."""

SPREAD_FLOOR = 1e-3
"""Added to every spread: a channel that never moves in training must not blow up when it moves later."""

POOLED_C = 0.01
"""Inverse penalty of logistic regression on pooled clips: a thousand and more columns meet a few hundred clips."""

UNSEEN_MARGIN = 3.0
"""How far, in logits, a class that no training clip shows starts below the rarest one that some do."""


@dataclass(frozen=True)
class HeadOptions:
    """What the shape of a head depends on; saved with the model."""

    hidden_size: int = 64
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.5
    inputs: tuple[str, ...] = INPUTS
    projection: int = 64
    """0: none, the recurrent layer is fed what is offered."""


class Head(Protocol):
    """The contract of every member of HEADS, an `nn.Module` called with x (B, T, D) and mask (B, T) True = real."""

    def fit_statistics(self, x: Tensor, mask: Tensor, y: Tensor) -> None:
        """Learn from training clips, with labels y (B,), all that is not learned by gradient steps."""

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """How much each step counts (B, T): rows sum to one, padding is zero."""

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, K), the same whatever the padding."""


def differences(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
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


def pool(x: Tensor, mask: Tensor) -> Tensor:
    """(B, T, D) → (B, 3 D): mean and standard deviation over time, mean absolute difference of neighbouring steps."""
    mean = masked_mean(x, mask)  # (B, D)
    spread = masked_mean((x - mean.unsqueeze(1)) ** 2, mask).sqrt()  # (B, D)
    step, real = differences(x, mask)
    return torch.cat([mean, spread, masked_mean(step.abs(), real)], dim=-1)  # (B, 3 D)


class Standardise(nn.Module):
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
            self.scales[name](values) * real.unsqueeze(-1) for name, (values, real) in self._offered(x, mask).items()
        ]
        return torch.cat(parts, dim=-1)  # (B, T, n D)

    def _offered(self, x: Tensor, mask: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        step, real = differences(x, mask)
        offered = {"features": (x, mask), "differences": (step, real), "absolute_differences": (step.abs(), real)}
        return {name: offered[name] for name in self.inputs}


class PooledPath(nn.Module):
    """(B, T, D) → (B, K): logistic regression on the pooled clip, fitted at once and then left as it is.

    The recurrent part is trained on top of it and adds what order in time is worth. On little data gradient steps
    alone did worse: Adam moves every weight alike, the penalty keeps those small that tell nothing.
    """

    weight: Tensor
    bias: Tensor
    given: Tensor | None = None
    """As in `MotionInputs`."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.scale = Standardise(3 * width)
        self.register_buffer("weight", torch.zeros(classes, 3 * width))
        self.register_buffer("bias", torch.zeros(classes))

    def fit(self, x: Tensor, mask: Tensor, y: Tensor) -> None:
        """On training clips x (B, T, D) with their labels y (B,); nothing where these are all of one label."""
        pooled = pool(x, mask)  # (B, 3 D)
        self.scale.fit(pooled)
        if len(y.unique()) < 2:
            return
        model = LogisticRegression(C=POOLED_C, max_iter=2000).fit(self.scale(pooled).cpu().numpy(), y.cpu().numpy())
        coefficients, offsets = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # one row says how much the second class is likelier: half for it, half against
            coefficients, offsets = (
                np.concatenate([-coefficients, coefficients]) / 2,
                np.concatenate([-offsets, offsets]) / 2,
            )
        self.bias.fill_(float(offsets.min()) - UNSEEN_MARGIN if len(model.classes_) < len(self.bias) else 0.0)
        self.weight[model.classes_] = torch.from_numpy(coefficients).to(self.weight)
        self.bias[model.classes_] = torch.from_numpy(offsets).to(self.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, K)."""
        if self.given is not None:
            return self.given
        return nn.functional.linear(self.scale(pool(x, mask)), self.weight, self.bias)  # (B, K)


FIXED = (MotionInputs, PooledPath)
"""Parts that gradient steps leave as `fit_statistics` made them."""


class Projection(nn.Sequential):
    """(B, T, W) → (B, T, P): the learned reduction in front of a recurrent layer; without one dropout alone, P = W."""

    def __init__(self, width: int, options: HeadOptions) -> None:
        drop, size = options.dropout, options.projection
        learned = [nn.Linear(width, size), nn.LayerNorm(size), nn.GELU(), nn.Dropout(drop)] if size else []
        super().__init__(nn.Dropout(drop), *learned)
        self.width = size or width


def run_recurrent(layer: nn.LSTM, x: Tensor, mask: Tensor) -> Tensor:
    """(B, T, P) → (B, T, H) over the real steps alone, so that the backward direction starts at each clip's own end.

    The mask must be True first and False after: that is how `hazard.sequences.pad` makes it.
    """
    if mask.all():
        return layer(x)[0]
    lengths = mask.sum(1).clamp(min=1).cpu()  # packing refuses empty rows; an empty row's output is masked anyway
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    hidden, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=x.shape[1])
    return hidden


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
