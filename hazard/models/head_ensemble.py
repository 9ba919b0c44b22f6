"""The model that training makes: heads of one shape that are averaged, and the device that computes them."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.encoders.devices import check_mps
from features.errors import SettingsError
from hazard.models.auto_size import resolve_sizes
from hazard.models.heads import HEADS
from hazard.models.pooling import limit_batch
from hazard.models.settings import TrainSettings
from hazard.types import StepFeatures


class HeadEnsemble(nn.Module):
    """Heads of one shape whose probabilities are averaged; each was stopped early on other clips."""

    last_epoch_weights: dict[str, Tensor]
    """Weights after the last epoch of training, while `state_dict()` has the best; empty in an opened model."""
    validation_probs: list[NDArray[np.float64]]
    """Probabilities (M, K) by each head of the clips that it was stopped early on, its ridge fitted without them.

    Empty in an opened model."""

    def __init__(self, heads: list[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.last_epoch_weights = {}
        self.validation_probs = []

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the log of the mean probabilities (B, K), which are also logits, of x (B, T, D), mask (B, T)."""
        logs = torch.stack([head(x, mask).log_softmax(-1) for head in self.heads])  # (members, B, K)
        return logs.logsumexp(0) - math.log(len(self.heads))

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the heads' mean weight of each step (B, T)."""
        return torch.stack([head.attention(x, mask) for head in self.heads]).mean(0)  # type: ignore[operator]


def build_head_ensemble(width: int, classes: int, settings: TrainSettings) -> HeadEnsemble:
    """Build an untrained ensemble as `settings` describe it; open sizes are those for few clips."""
    settings = resolve_sizes(settings, clips=0, classes=classes)
    return HeadEnsemble([HEADS[settings.head](width, classes, settings.head_options) for _ in range(settings.members)])


def predict_head(
    head: nn.Module, x: StepFeatures, mask: NDArray[np.bool_], *, batch_size: int = 256
) -> NDArray[np.float64]:
    """Return probabilities (B, K) of x (B, T, D), computed batch by batch."""
    device = next(head.parameters()).device
    parts = []
    with torch.inference_mode():
        size = limit_batch(x, batch_size)
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            logits = head(torch.from_numpy(x[rows]).to(device).float(), torch.from_numpy(mask[rows]).to(device))
            parts.append(logits.cpu().double().softmax(-1).numpy())  # Apple's GPU has no float64
    return np.concatenate(parts)


def pick_device(name: str) -> torch.device:
    """Return the named device; `auto` is CUDA if there is any, else the CPU.

    `auto` is never `mps`: recurrent networks over clips of unequal length can crash or give NaN there (PyTorch issues
    102911 and 94691), and heads train in seconds on a CPU. Raises SettingsError for a device that does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "mps":
        check_mps()
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device {name} does not exist; this machine has {torch.cuda.device_count()} CUDA devices")
    return device
