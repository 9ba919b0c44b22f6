"""BACKBONES: name to frozen network, with the preprocessing and the width that belong to it."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from features.config import nearest
from features.errors import ArtefactRefused, EnvironmentStopped, SettingsError
from features.spec import Preprocessing

WEIGHTS_VARIABLE = "FEATURES_WEIGHTS"
SUFFIXES = (".pth", ".pt", ".safetensors")
RANDOM_SEED = 0


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier: normalised (B, 3, S, S) to a feature map (B, `width`, h, w).

    A 3D one takes snippets (B, 3, L, S, S) to (B, `width`, t, h, w); one that pools by itself gives (B, `width`).
    """

    build: Callable[[], nn.Module]
    width: int
    weights_url: Callable[[], str]
    licence: str
    prefix: str = ""
    """What the names of the network's tensors begin with in a published state dict; the rest is left out."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    snippet: tuple[int, float] | None = None
    """Of a 3D network: frames a snippet and frames a second, as it was trained."""
    is_pooled: bool = False


IMAGENET = "BSD-3-Clause code; weights trained on ImageNet-1k (research terms)"
KINETICS = "BSD-3-Clause code; weights trained on Kinetics-400 (CC BY 4.0 annotations, videos of YouTube's users)"
RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
RESNET_3D = ("stem", "layer1", "layer2", "layer3", "layer4")
VIDEO_RESNET = Preprocessing(size=112, resize=128, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989))


def _torchvision(name: str, weights: str, width: int, *, trunk: tuple[str, ...] = ("features",)) -> Backbone:
    """A network of torchvision without its head, the names of its tensors unchanged."""
    is_video = trunk == RESNET_3D

    def build() -> nn.Module:
        import torchvision

        network = torchvision.models.get_model(name, weights=None)
        if trunk == ("features",):
            return network.features
        return nn.Sequential(OrderedDict((child, getattr(network, child)) for child in trunk))

    def url() -> str:
        import torchvision

        return torchvision.models.get_weight(weights).url

    return Backbone(
        build,
        width,
        url,
        licence=KINETICS if is_video else IMAGENET,
        prefix="features." if trunk == ("features",) else "",
        preprocessing=VIDEO_RESNET if is_video else Preprocessing(),
        snippet=(16, 15.0) if is_video else None,
    )


BACKBONES: dict[str, Backbone] = {
    "mobilenet_v2": _torchvision("mobilenet_v2", "MobileNet_V2_Weights.IMAGENET1K_V1", 1280),
    "mobilenet_v3": _torchvision("mobilenet_v3_large", "MobileNet_V3_Large_Weights.IMAGENET1K_V1", 960),
    "resnet18": _torchvision("resnet18", "ResNet18_Weights.IMAGENET1K_V1", 512, trunk=RESNET),
    "resnet50": _torchvision("resnet50", "ResNet50_Weights.IMAGENET1K_V1", 2048, trunk=RESNET),
    "efficientnet_b0": _torchvision("efficientnet_b0", "EfficientNet_B0_Weights.IMAGENET1K_V1", 1280),
    "r3d_18": _torchvision("r3d_18", "R3D_18_Weights.KINETICS400_V1", 512, trunk=RESNET_3D),
    "mc3_18": _torchvision("mc3_18", "MC3_18_Weights.KINETICS400_V1", 512, trunk=RESNET_3D),
    "r2plus1d_18": _torchvision("r2plus1d_18", "R2Plus1D_18_Weights.KINETICS400_V1", 512, trunk=RESNET_3D),
}


def get_backbone(name: str) -> Backbone:
    """The entry of BACKBONES. Raises SettingsError naming the choices."""
    if name not in BACKBONES:
        raise SettingsError(f"unknown backbone '{name}'; {nearest(name, BACKBONES)}")
    return BACKBONES[name]


def find_weights(name: str, weights: str) -> Path | None:
    """The file that `auto`, `random` or a path stands for; None for random weights.

    `auto` looks at $FEATURES_WEIGHTS (a file or a folder), then torch's hub cache, then downloads. Raises SettingsError
    where a named file is absent, EnvironmentStopped where the download fails.
    """
    backbone = get_backbone(name)
    if weights == "random":
        return None
    if weights != "auto":
        return _existing(Path(weights), name, source=f"--weights {weights}")
    if variable := os.environ.get(WEIGHTS_VARIABLE):
        return _existing(Path(variable), name, source=f"${WEIGHTS_VARIABLE}={variable}")
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(backbone.weights_url()).name
    return cached if cached.is_file() else _download(backbone.weights_url(), cached)


def load_backbone(name: str, file: Path | None) -> nn.Module:
    """The frozen network in eval mode, with a file's weights, or seeded random ones where `file` is None.

    Raises ArtefactRefused where the file is damaged, runs code, or belongs to another architecture.
    """
    backbone = get_backbone(name)
    network = _random_network(backbone) if file is None else _loaded_network(name, file)
    return network.eval().requires_grad_(False)


def weights_digest(name: str, file: Path | None) -> str:
    """sha256 over the names, shapes and float32 values of the network's tensors, whatever file they came from.

    Random weights are named by their recipe instead. Raises as `load_backbone` does.
    """
    if file is None:
        return f"random, seed {RANDOM_SEED}, torch {torch.__version__.split('+')[0]}"
    digest = hashlib.sha256()
    for key, tensor in sorted(_loaded_network(name, file).state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _loaded_network(name: str, file: Path) -> nn.Module:
    network = get_backbone(name).build()
    _load(network, _network_part(read_state_dict(file), get_backbone(name)), name, file)
    return network


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """A state dict from a safetensors or torch file, read without running code from it."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a forged file can make a reader raise anything; all of it means refusal
        said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ArtefactRefused(
            f"weights {file} refused: not a plain state dict ({said}); "
            "save one with torch.save(model.state_dict(), path) or as safetensors"
        ) from None
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ArtefactRefused(f"weights {file} refused: expected a state dict of tensors, got {type(state).__name__}")
    return dict(state)


def _existing(path: Path, name: str, *, source: str) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.startswith(name) and file.suffix in SUFFIXES)
        if len(found) == 1:
            return found[0]
        if found:
            raise SettingsError(
                f"{source} holds several weights of {name} ({', '.join(f.name for f in found)}); name one file"
            )
    raise SettingsError(f"{source}: no weights of {name} there. {_how_to_get(name)}")


def _how_to_get(name: str) -> str:
    url = get_backbone(name).weights_url()
    return (
        f"Download {url} and pass it with --weights PATH, or put it into {torch.hub.get_dir()}/checkpoints/, or let "
        f"${WEIGHTS_VARIABLE} name the file or its folder; --weights random goes on without pretrained weights"
    )


def _download(url: str, target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=target.stem.rpartition("-")[2])
    except (OSError, RuntimeError) as error:
        name = target.name.partition("-")[0]
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EnvironmentStopped(
            f"no weights for {name}: the download failed ({reason}). {_how_to_get(name)}"
        ) from None
    return target


def _network_part(state: dict[str, torch.Tensor], backbone: Backbone) -> dict[str, torch.Tensor]:
    """The tensors of the network alone, whether the file is of the whole classifier or of a fine-tuned one."""
    part = {key.removeprefix(backbone.prefix): value for key, value in state.items() if key.startswith(backbone.prefix)}
    return part or state


def _load(network: nn.Module, state: dict[str, torch.Tensor], name: str, file: Path) -> None:
    expected = {key: tensor for key, tensor in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    for key, tensor in expected.items():
        if key not in state:
            raise ArtefactRefused(
                f"weights {file} refused: no tensor '{key}', which {name} needs; is it another architecture?"
            )
        if state[key].shape != tensor.shape:
            raise ArtefactRefused(
                f"weights {file} refused: '{key}' has shape {tuple(state[key].shape)}, "
                f"{name} needs {tuple(tensor.shape)}"
            )
        if not torch.isfinite(state[key]).all():
            raise ArtefactRefused(f"weights {file} refused: '{key}' holds NaN or infinity")
    network.load_state_dict({key: state[key] for key in expected}, strict=False)


def _random_network(backbone: Backbone) -> nn.Module:
    """Seeded random weights, tamed so that features tell something: batch norms are calibrated on noise.

    A plainly random deep network amplifies noise more than motion: its features are at chance on drawn clips. Smoothing
    depthwise filters, batch norms that keep ReLU6 in its linear part and quiet residual branches mend that.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        network = backbone.build()
        coarse = torch.randn(8, 3, 8, 8)
        noise = nn.functional.interpolate(coarse, scale_factor=12.0, mode="bilinear") + 0.2 * torch.randn(8, 3, 96, 96)
    if backbone.snippet:
        noise = torch.stack([noise.roll(2 * step, dims=3) for step in range(4)], dim=2)  # (8, 3, 4, 96, 96), moving
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.weight.data.abs_()
        if isinstance(module, _BATCH_NORMS):
            nn.init.ones_(module.bias)
            module.momentum = None  # a plain average over the calibration batch
        if getattr(module, "use_res_connect", False):
            last = [norm for norm in module.modules() if isinstance(norm, _BATCH_NORMS)][-1]
            nn.init.constant_(last.weight, 0.2)
    if any(isinstance(module, _BATCH_NORMS) for module in network.modules()):
        with torch.inference_mode():
            network.train()(noise)
    return network


_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
