"""Encoder: frames to features through one frozen backbone on one device."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from features.backbones import get_backbone, load_backbone
from features.errors import ClipError, SettingsError
from features.spec import FeatureSpec, Preprocessing
from features.transform import normalise

CPU_BATCH = {"fp32": 1, "bf16": 12}
"""Frames a forward pass on a CPU, the fastest measured: larger batches fall out of the processor's cache."""
GPU_BATCH = 256


class Encoder:
    """`encode` turns preprocessed frames into pooled, unreduced features; always the same for the same frames."""

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocessing: Preprocessing,
        pooling: str,
        precision: str = "fp32",
        device: torch.device | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.batch_size = batch_size or (CPU_BATCH[precision] if self.device.type == "cpu" else GPU_BATCH)
        self._preprocessing = preprocessing
        self._pooling = pooling
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        network = fold_batch_norms(network.eval()).to(self.device, self._dtype)
        self._network = network.to(memory_format=torch.channels_last)

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
        """uint8 (N, S, S, 3) to float16 (N, D). Raises ClipError where a feature is not finite."""
        batches = [self._forward(frames[i : i + self.batch_size]) for i in range(0, len(frames), self.batch_size)]
        features = np.concatenate(batches).astype(np.float16)  # (N, D)
        if not np.isfinite(features).all():
            raise ClipError("encode", "the features hold NaN or infinity")
        return features

    @torch.inference_mode()
    def _forward(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch = torch.from_numpy(frames).to(self.device, non_blocking=True)  # (B, S, S, 3)
        maps = self._network(normalise(batch, self._preprocessing).to(self._dtype))  # (B, D, h, w)
        return pool(maps.float(), self._pooling).cpu().numpy()


def pool(maps: torch.Tensor, pooling: str) -> torch.Tensor:
    """(B, D, h, w) to (B, D), or (B, 2D) for `avg+max`."""
    pooled = {"avg": lambda: maps.mean(dim=(2, 3)), "max": lambda: maps.amax(dim=(2, 3))}
    return torch.cat([pooled[name]() for name in pooling.split("+")], dim=1)


def pooled_width(backbone: str, pooling: str) -> int:
    """How many numbers a frame has before any reduction."""
    return get_backbone(backbone).width * len(pooling.split("+"))


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Merges each batch norm into the convolution right before it in a Sequential: same function, fewer passes."""
    for name, child in module.named_children():
        setattr(module, name, fold_batch_norms(child))
    if isinstance(module, nn.Sequential):
        layers = list(module)
        for i, (first, second) in enumerate(pairwise(layers)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[i], module[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return module


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N`. Raises SettingsError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"unknown device '{name}'; choose auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device '{name}' is not there: {torch.cuda.device_count()} CUDA devices found; use cpu or auto"
        )
    return device


def build_encoder(
    spec: FeatureSpec, weights: Path | None, *, device: torch.device | None = None, batch_size: int | None = None
) -> Encoder:
    """The encoder of a spec. Whoever made the spec has checked that the weights are those whose digest it names."""
    return Encoder(
        load_backbone(spec.backbone, weights),
        preprocessing=spec.preprocessing,
        pooling=spec.pooling,
        precision=spec.precision,
        device=device,
        batch_size=batch_size,
    )
