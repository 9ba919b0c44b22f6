"""The head `transformer`: a small encoder (Vaswani et al. 2017; normalised first, Xiong et al. 2020), pooled by
attention."""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hazard.models.heads.base import HeadOptions
from hazard.models.heads.temporal_head import TemporalHead

MAX_ATTENTION_HEADS = 4
MAX_WAVELENGTH_STEPS = 10_000.0
"""Steps in one period of the slowest sine (Vaswani et al. 2017)."""


def positional_encoding(steps: int, width: int, like: Tensor) -> Tensor:
    """Return sines and cosines (T, H) that encode the position of a step.

    They are defined for any number of steps, so that a clip may be longer than those of training.
    """
    position = torch.arange(steps, device=like.device, dtype=torch.float32).unsqueeze(1)  # (T, 1)
    pair = torch.arange((width + 1) // 2, device=like.device, dtype=torch.float32)
    angle = position * torch.exp(pair * (-2 * math.log(MAX_WAVELENGTH_STEPS) / width))  # (T, H / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width].to(like.dtype)


class TransformerBlock(nn.Module):
    """Self-attention over the real steps and an MLP per step, each with a skip connection."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.heads = math.gcd(width, MAX_ATTENTION_HEADS)
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.gather = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, T, H) of x (B, T, H)."""
        x = x + self.drop(self._attend(self.before_attention(x), mask))
        return x + self.drop(self.mlp(self.before_mlp(x)))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, steps, width = x.shape
        parts = self.query_key_value(x).view(batch, steps, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, T, H / heads)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        return self.gather(attended.transpose(1, 2).reshape(batch, steps, width))  # (B, T, H)


class TransformerBody(nn.Module):
    """(B, T, P) → (B, T, H): positions added, one block per layer, normalised at the end."""

    backward_width = 0

    def __init__(self, width: int, options: HeadOptions) -> None:
        super().__init__()
        self.width = options.hidden_size
        self.enter = nn.Linear(width, self.width)
        self.blocks = nn.ModuleList(
            TransformerBlock(self.width, dropout=options.dropout) for _ in range(options.layers)
        )
        self.finish = nn.LayerNorm(self.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, T, H)."""
        x = self.enter(x)  # (B, T, H)
        x = x + positional_encoding(x.shape[1], self.width, x)
        for block in self.blocks:
            x = block(x, mask)
        return self.finish(x)


def transformer(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Make a transformer head; `options.bidirectional` has no effect, since every step sees all others."""
    return TemporalHead(width, classes, options, body=partial(TransformerBody, options=options), pooling="attention")
