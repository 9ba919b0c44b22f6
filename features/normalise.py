"""The rest of the preprocessing, on the backbone's device: squares of bytes become normalised numbers."""

import torch

from features.spec import Preprocessing


def normalise(frames: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 (B, S, S, 3) on any device to float (B, 3, S, S), scaled to [0, 1], less the mean, over the deviation.

    Snippets (B, L, S, S, 3) become (B, 3, L, S, S).
    """
    mean = torch.tensor(preprocessing.mean, device=frames.device) * 255
    std = torch.tensor(preprocessing.std, device=frames.device) * 255
    return ((frames.float() - mean) / std).movedim(-1, 1)  # (B, 3, ..., S, S), channels last in memory
