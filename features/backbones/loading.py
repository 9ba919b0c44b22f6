"""A frozen network with its weights in place, or with seeded random ones."""

import hashlib
from pathlib import Path

import torch
from torch import nn

from features.backbones.base import RANDOM_SEED, Backbone
from features.backbones.registry import get_backbone
from features.backbones.state_dict import load_into_network, read_state_dict


def load_backbone(name: str, file: Path | None) -> nn.Module:
    """The frozen network in eval mode, with a file's weights, or seeded random ones where `file` is None.

    Raises ArtefactRefused where the file is damaged, runs code, or belongs to another architecture.
    """
    backbone = get_backbone(name)
    network = _build_random_network(backbone) if file is None else backbone.wrap(_load_network(name, file))
    return network.eval().requires_grad_(False)


def tensors_digest(name: str, file: Path) -> str:
    """sha256 over the names, shapes and float32 values of the network's tensors, whatever file they came from.

    Raises as `load_backbone` does.
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
    """Seeded random weights, tamed so that features tell something: batch norms are calibrated on noise.

    A plainly random deep network amplifies noise more than motion: its features are at chance on drawn clips. Smoothing
    depthwise filters, batch norms that keep ReLU6 in its linear part and quiet residual branches mend that.
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
            last = [norm for norm in module.modules() if isinstance(norm, _BATCH_NORMS)][-1]
            nn.init.constant_(last.weight, 0.2)
    norms = [module for module in network.eval().modules() if isinstance(module, _BATCH_NORMS)]
    for norm in norms:  # and nothing else: dropped paths would make each process another network
        norm.train()
    if norms:
        with torch.inference_mode():
            network(noise)
    return network


def _make_noise(backbone: Backbone) -> torch.Tensor:
    """Smooth noise (8, 3, S, S), drifting sideways in four frames (8, 3, 4, S, S) for a 3D network."""
    side = backbone.calibration_side
    noise = nn.functional.interpolate(torch.randn(8, 3, 8, 8), size=(side, side), mode="bilinear")
    noise += 0.2 * torch.randn(8, 3, side, side)
    return torch.stack([noise.roll(2 * i, dims=3) for i in range(4)], dim=2) if backbone.snippet else noise


_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
