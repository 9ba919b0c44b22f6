"""Random changes to batches of training clips: steps cropped or dropped, channels hidden, clips mixed.

All functions act on features (B, T, D) and their mask (B, T), in which True comes before False; they keep it that way.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hazard.models.settings import AugmentOptions


@dataclass(frozen=True)
class TrainingBatch:
    """Clips of one training step."""

    x: Tensor  # (B, T, D)
    mask: Tensor  # (B, T) True = real
    y: Tensor  # (B,), or soft labels (B, K)
    held_out: Tensor | None = None  # (B, K) logits of the pooled ridge


def augment(
    batch: TrainingBatch,
    options: AugmentOptions,
    random: torch.Generator,
    *,
    classes: int,
    fill_value: Tensor | float = 0.0,
) -> TrainingBatch:
    """Return the batch with the changes that `options` ask for, drawn from `random`.

    `fill_value`, a number or one value per channel (D,), replaces hidden channels.
    """
    x, mask, y = batch.x, batch.mask, batch.y
    if options.temporal_crop:
        x, mask = pack_steps(x, mask & _draw_crop(mask, options.temporal_crop, random))
    if options.frame_dropout:
        x, mask = pack_steps(x, mask & _draw_kept_steps(mask, options.frame_dropout, random))
    if options.feature_dropout:
        hidden = _draw_uniform(random, (len(x), 1, x.shape[2]), x) < options.feature_dropout
        x = torch.where(hidden & mask.unsqueeze(-1), fill_value, x)  # (B, T, D)
    if options.mixup:
        return apply_mixup(TrainingBatch(x, mask, y, batch.held_out), options.mixup, random, classes=classes)
    return TrainingBatch(x, mask, y, batch.held_out)


def pack_steps(x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` with the steps in `keep` (B, T) moved to the front in order, zeros after them, and the new mask."""
    order = (~keep).int().argsort(dim=1, stable=True)  # (B, T)
    mask = keep.gather(1, order)
    return x.gather(1, order.unsqueeze(-1).expand_as(x)) * mask.unsqueeze(-1), mask


def apply_mixup(batch: TrainingBatch, alpha: float, random: torch.Generator, *, classes: int) -> TrainingBatch:
    """Return the batch with each clip mixed with another one, features and labels alike (mixup, Zhang et al. 2018).

    After the end of the shorter clip, the longer one is used unmixed. The labels become soft labels (B, K).
    """
    # torch cannot draw Beta variates from a given generator, so it draws a seed for NumPy
    seed = int(torch.randint(2**62, (), generator=random))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    other = torch.randperm(len(batch.x), generator=random).to(batch.x.device)
    weights = torch.stack([share * batch.mask, (1 - share) * batch.mask[other]]).unsqueeze(-1)  # (2, B, T, 1)
    total = weights.sum(0).clamp(min=torch.finfo(batch.x.dtype).tiny)
    x = (batch.x * weights[0] + batch.x[other] * weights[1]) / total  # (B, T, D)
    labels = F.one_hot(batch.y, classes).to(batch.x.dtype)  # (B, K)
    soft = share * labels + (1 - share) * labels[other]
    held_out = batch.held_out
    if held_out is not None:
        held_out = share * held_out + (1 - share) * held_out[other]
    return TrainingBatch(x, batch.mask | batch.mask[other], soft, held_out)


def _draw_crop(mask: Tensor, largest_cut: float, random: torch.Generator) -> Tensor:
    """Return the steps (B, T) of a random contiguous part of each clip, of at least two steps if the clip has them."""
    lengths = mask.sum(1)  # (B,)
    share = 1 - largest_cut * _draw_uniform(random, (len(mask),), lengths)
    kept = torch.maximum((lengths * share).round().long(), lengths.clamp(max=2))
    start = (_draw_uniform(random, (len(mask),), lengths) * (lengths - kept + 1)).floor().long()
    steps = torch.arange(mask.shape[1], device=mask.device)  # (T,)
    return (steps >= start[:, None]) & (steps < (start + kept)[:, None])


def _draw_kept_steps(mask: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Return the steps (B, T) that are kept when a `share` is dropped at random; each clip keeps at least one."""
    draws = _draw_uniform(random, mask.shape, mask).masked_fill(~mask, -1.0)
    return (draws >= share) | (draws == draws.amax(1, keepdim=True))


def _draw_uniform(random: torch.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Draw uniform numbers in [0, 1) on the CPU, so that every device gets the same ones."""
    return torch.rand(shape, generator=random).to(like.device)
