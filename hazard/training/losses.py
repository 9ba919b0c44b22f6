"""What training minimises: cross entropy or focal loss, labels weighted by how rare they are. K classes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hazard.models.settings import LossOptions


def class_weights(y: Tensor, classes: int) -> Tensor:
    """(K,): inverse frequencies among the labels y (B,), scaled so that the mean over clips is one; absent labels 0."""
    counts = torch.bincount(y, minlength=classes).float()  # (K,)
    seen = counts > 0
    return torch.where(seen, len(y) / (seen.sum() * counts.clamp(min=1)), 0.0)


def training_loss(logits: Tensor, y: Tensor, options: LossOptions, weights: Tensor | None = None) -> Tensor:
    """Mean loss in nats of logits (B, K) against labels y (B,), or against shares of labels (B, K).

    The focal loss is that of Lin et al. 2017, with soft targets as a sum over classes.
    """
    logits = logits.float()
    if options.kind == "cross_entropy" and y.ndim == 1:  # F.cross_entropy would divide by the weights of the batch
        each = F.cross_entropy(logits, y, weights, label_smoothing=options.label_smoothing, reduction="none")
        return each.mean()
    log = logits.log_softmax(1)  # (B, K)
    each = -_smooth_labels(y, log, options.label_smoothing) * log
    if options.kind == "focal":
        each = each * (1 - log.exp()).clamp(min=0) ** options.gamma
    return (each if weights is None else each * weights).sum(1).mean()


def _smooth_labels(y: Tensor, like: Tensor, smoothing: float) -> Tensor:
    shares = F.one_hot(y, like.shape[1]).to(like.dtype) if y.ndim == 1 else y  # (B, K)
    return shares * (1 - smoothing) + smoothing / like.shape[1]
