"""Encoder in PyTorch: normalisation, backbone and pooling on a CPU or GPU."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from features.backbones.loading import load_backbone
from features.encoders.base import BatchTooLargeError, FrameEncoder, count_frames_per_row
from features.spec import FeatureSpec, Preprocessing


def normalize(frames: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Normalise uint8 (B, S, S, 3) on any device to float (B, 3, S, S): scaled to [0, 1], minus the mean, over the std.

    Snippets (B, L, S, S, 3) become (B, 3, L, S, S).
    """
    mean = torch.tensor(preprocessing.mean, device=frames.device) * 255
    std = torch.tensor(preprocessing.std, device=frames.device) * 255
    return ((frames.float() - mean) / std).movedim(-1, 1)  # (B, 3, ..., S, S), channels last in memory


CPU_BATCH_FRAMES = {"fp32": 1, "bf16": 12}
"""Frames per forward pass on a CPU, the fastest measured: larger batches do not fit the processor's cache."""

MPS_BATCH_FRAMES = 64
"""Frames per forward pass on Apple's GPU, which shares the memory of the machine. Not measured."""

MAX_GPU_BATCH_FRAMES = 1024
"""Largest number of frames per forward pass on a GPU; fewer if its free memory is small."""

GPU_BYTES_PER_FRAME = 48 * 2**20
"""Generous estimate of the memory for a frame of 224 pixels. A batch that is still too large is halved."""


class FeatureNetwork(nn.Module):
    """Normalisation, backbone and pooling as one network: uint8 (B, S, S, 3) or (B, L, S, S, 3) to float32 (B, D)."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, pooling: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.preprocessing, self.pooling, self.dtype = network, preprocessing, pooling, dtype

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the pooled features (B, D) of frames (B, S, S, 3) or snippets (B, L, S, S, 3)."""
        maps = self.network(
            normalize(frames, self.preprocessing).to(self.dtype)
        )  # (B, D, h, w), (B, D, t, h, w), (B, D)
        return pool_maps(maps.float(), self.pooling)


def make_torch_encoder(
    network: nn.Module,
    *,
    preprocessing: Preprocessing,
    pooling: str,
    precision: str = "fp32",
    device: str = "cpu",
    batch_size: int | None = None,
    frames_per_row: int = 1,
) -> FrameEncoder:
    """Return an encoder that runs in PyTorch, with folded batch norms and channels last in memory."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    is_3d = any(isinstance(module, nn.Conv3d) for module in network.modules())
    memory = torch.channels_last_3d if is_3d else torch.channels_last
    folded = fold_batch_norms(network.eval()).to(device, dtype).to(memory_format=memory)
    features = FeatureNetwork(folded, preprocessing, pooling, dtype)

    @torch.inference_mode()
    def forward(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch = torch.from_numpy(frames)
        try:
            if device.startswith("cuda"):  # pinned memory lets the copy overlap with the previous batch
                batch = batch.pin_memory().to(device, non_blocking=True)
            return features(batch.to(device)).cpu().numpy()
        except RuntimeError as error:  # Apple's GPU has no error type of its own
            if not isinstance(error, torch.OutOfMemoryError) and "MPS backend out of memory" not in str(error):
                raise
        # Outside the except block, because the error holds references to the tensors.
        (torch.mps if device == "mps" else torch.cuda).empty_cache()
        raise BatchTooLargeError

    return FrameEncoder(
        forward, batch_size=batch_size or _choose_batch_size(device, precision, frames_per_row, preprocessing.size)
    )


def pool_maps(maps: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool (B, D, h, w), (B, D, t, h, w), (B, D, tokens) or (B, D) to (B, D), or to (B, 2D) for `avg+max`."""
    dims = tuple(range(2, maps.ndim))
    if not dims:  # the network pools its own features
        return maps
    pooled = {"avg": lambda: maps.mean(dim=dims), "max": lambda: maps.amax(dim=dims)}
    return torch.cat([pooled[name]() for name in pooling.split("+")], dim=1)


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Merge each batch norm into the convolution right before it in a Sequential: same function, fewer passes."""
    for name, child in module.named_children():
        setattr(module, name, fold_batch_norms(child))
    if isinstance(module, nn.Sequential):
        layers = list(module)
        for i, (first, second) in enumerate(pairwise(layers)):
            if _overrides_forward(first) or _overrides_forward(second):
                continue
            if isinstance(first, nn.Conv2d | nn.Conv3d) and isinstance(second, nn.BatchNorm2d | nn.BatchNorm3d):
                module[i], module[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return module


def _overrides_forward(module: nn.Module) -> bool:
    """Return whether a layer is a subclass with its own `forward`, for example with an activation at its end."""
    standard = {nn.Conv2d.forward, nn.Conv3d.forward, nn.BatchNorm2d.forward, nn.BatchNorm3d.forward}
    return type(module).forward not in standard


def build_encoder(
    spec: FeatureSpec, weights: Path | None, *, device: str = "cpu", batch_size: int | None = None
) -> FrameEncoder:
    """Return the encoder of a spec. The caller has checked that the weights match the digest of the spec."""
    return make_torch_encoder(
        load_backbone(spec.backbone, weights),
        preprocessing=spec.preprocessing,
        pooling=spec.pooling,
        precision=spec.precision,
        device=device,
        batch_size=batch_size,
        frames_per_row=count_frames_per_row(spec),
    )


def _choose_batch_size(device: str, precision: str, frames_per_row: int, side: int) -> int:
    if device == "cpu":
        return max(1, CPU_BATCH_FRAMES[precision] // frames_per_row)
    if device == "mps":
        return max(1, MPS_BATCH_FRAMES // frames_per_row)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    frame_bytes = GPU_BYTES_PER_FRAME * max(1.0, (side / 224) ** 2)
    return int(max(1, min(MAX_GPU_BATCH_FRAMES, free_bytes // frame_bytes) // frames_per_row))
