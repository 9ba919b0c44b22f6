"""Training losses: cross entropy or focal loss, optionally weighted by how rare each of the K labels is."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hazard.models.settings import LossOptions


def class_weights(y: Tensor, classes: int) -> Tensor:
    """Return the inverse frequencies (K,) of the labels y (B,), scaled to a mean of one over clips; 0 if absent."""
    counts = torch.bincount(y, minlength=classes).float()  # (K,)
    seen = counts > 0
    return torch.where(seen, len(y) / (seen.sum() * counts.clamp(min=1)), 0.0)


def training_loss(logits: Tensor, y: Tensor, options: LossOptions, weights: Tensor | None = None) -> Tensor:
    """Return the mean loss in nats of logits (B, K) against labels y (B,) or soft labels y (B, K).

    The focal loss is that of Lin et al. 2017; with soft labels it is summed over classes.
    """
    logits = logits.float()
    if options.kind == "cross_entropy" and y.ndim == 1:  # "mean" would divide by the weights of the batch
        losses = F.cross_entropy(logits, y, weights, label_smoothing=options.label_smoothing, reduction="none")
        return losses.mean()
    log_probs = logits.log_softmax(1)  # (B, K)
    losses = -_smooth_labels(y, log_probs, options.label_smoothing) * log_probs
    if options.kind == "focal":
        losses = losses * (1 - log_probs.exp()).clamp(min=0) ** options.gamma
    return (losses if weights is None else losses * weights).sum(1).mean()


def _smooth_labels(y: Tensor, like: Tensor, smoothing: float) -> Tensor:
    soft_labels = F.one_hot(y, like.shape[1]).to(like.dtype) if y.ndim == 1 else y  # (B, K)
    return soft_labels * (1 - smoothing) + smoothing / like.shape[1]
