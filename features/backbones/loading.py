"""Loading of a frozen network, with weights from a file or with seeded random weights."""

import hashlib
from pathlib import Path

import torch
from torch import nn

from features.backbones.base import RANDOM_SEED, Backbone
from features.backbones.registry import get_backbone
from features.backbones.state_dict import load_into_network, read_state_dict


def load_backbone(name: str, file: Path | None) -> nn.Module:
    """Return the frozen network in eval mode, with a file's weights or, if `file` is None, seeded random ones.

    Raises ArtifactError if the file is damaged, contains code, or belongs to another architecture.
    """
    backbone = get_backbone(name)
    network = _build_random_network(backbone) if file is None else backbone.wrap(_load_network(name, file))
    return network.eval().requires_grad_(False)


def tensors_digest(name: str, file: Path) -> str:
    """Return the sha256 over the names, shapes and float32 values of the network's tensors.

    It does not depend on the format of the file. Raises ArtifactError like `load_backbone`.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(_load_network(name, file).state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load_network(name: str, file: Path) -> nn.Module:
    backbone = get_backbone(name)
    network = backbone.build()
    load_into_network(network, read_state_dict(file), backbone=backbone, name=name, file=file)
    return network


def _build_random_network(backbone: Backbone) -> nn.Module:
    """Build the network with seeded random weights whose features carry information.

    With plain random weights a deep network amplifies noise more than motion, and its features are at chance level on
    synthetic clips. Three changes help: depthwise filters are made non-negative so that they smooth, batch norms are
    calibrated on noise so that ReLU6 stays in its linear range, and residual branches are scaled down.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        network = backbone.wrap(backbone.build())
        noise = _make_noise(backbone)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.weight.data.abs_()
        if isinstance(module, _BATCH_NORMS):
            nn.init.ones_(module.bias)
            module.momentum = None  # a plain average over the calibration batch
        if getattr(module, "use_res_connect", False):
            last_norm = [norm for norm in module.modules() if isinstance(norm, _BATCH_NORMS)][-1]
            nn.init.constant_(last_norm.weight, 0.2)
    norms = [module for module in network.eval().modules() if isinstance(module, _BATCH_NORMS)]
    for norm in norms:  # only these: stochastic depth would give each process another network
        norm.train()
    if norms:
        with torch.inference_mode():
            network(noise)
    return network


def _make_noise(backbone: Backbone) -> torch.Tensor:
    """Return smooth noise (8, 3, S, S), or (8, 3, 4, S, S) that drifts sideways for a 3D network."""
    side = backbone.calibration_side
    noise = nn.functional.interpolate(torch.randn(8, 3, 8, 8), size=(side, side), mode="bilinear")
    noise += 0.2 * torch.randn(8, 3, side, side)
    return torch.stack([noise.roll(2 * i, dims=3) for i in range(4)], dim=2) if backbone.snippet else noise


_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
