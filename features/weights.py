"""A backbone's weights: found or downloaded, loaded, named by a digest of their values."""

import hashlib
import logging
import os
import re
from pathlib import Path

import torch
from torch import nn

from features.backbones import get_backbone
from features.errors import EnvironmentStopped, SettingsError
from features.network import Backbone
from features.state_dicts import fill, read_state_dict

WEIGHTS_VARIABLE = "FEATURES_WEIGHTS"
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
RANDOM_SEED = 0
HUGGING_FACE = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/main/(.+)")
OTHER_FILES = {"model.safetensors": "pytorch_model.bin", "open_clip_model.safetensors": "open_clip_pytorch_model.bin"}
"""What a file is called in repositories that do not have it as safetensors."""


def find_weights(name: str, weights: str) -> Path | None:
    """The file that `auto`, `random` or a path stands for; None for random weights.

    `auto` looks at $FEATURES_WEIGHTS (a file or a folder), then the hub's cache, then downloads. Raises SettingsError
    where a named file is absent or nothing is published, EnvironmentStopped where the download fails.
    """
    get_backbone(name)
    if weights == "random":
        return None
    if weights != "auto":
        return _existing(Path(weights), name, source=f"--weights {weights}")
    if variable := os.environ.get(WEIGHTS_VARIABLE):
        return _existing(Path(variable), name, source=f"${WEIGHTS_VARIABLE}={variable}")
    return published_weights(name, how=_how_to_get(name))


def published_weights(name: str, *, how: str) -> Path:
    """The file in the hub's cache, or downloaded. Raises as `find_weights` does, and says `how` to get it else."""
    url = get_backbone(name).weights_url()
    if not url:
        raise SettingsError(f"no weights for {name}: {how}")
    return _cached(url) or _download(name, url, how)


def load_backbone(name: str, file: Path | None) -> nn.Module:
    """The frozen network in eval mode, with a file's weights, or seeded random ones where `file` is None.

    Raises ArtefactRefused where the file is damaged, runs code, or belongs to another architecture.
    """
    backbone = get_backbone(name)
    network = _random_network(backbone) if file is None else backbone.wrap(_loaded_network(name, file))
    return network.eval().requires_grad_(False)


def weights_digest(name: str, file: Path | None) -> str:
    """sha256 over the names, shapes and float32 values of the network's tensors, whatever file they came from.

    Random weights are named by their recipe instead. Raises as `load_backbone` does.
    """
    if file is None:
        libraries = [f"torch {torch.__version__.split('+')[0]}", get_backbone(name).library]
        return ", ".join([f"random, seed {RANDOM_SEED}", *filter(None, libraries)])
    digest = hashlib.sha256()
    for key, tensor in sorted(_loaded_network(name, file).state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _loaded_network(name: str, file: Path) -> nn.Module:
    backbone = get_backbone(name)
    network = backbone.build()
    fill(network, read_state_dict(file), backbone=backbone, name=name, file=file)
    return network


def _existing(path: Path, name: str, *, source: str) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and _is_named(file.stem, name))
        if len(found) == 1:
            return found[0]
        if found:
            raise SettingsError(
                f"{source} holds several weights of {name} ({', '.join(f.name for f in found)}); name one file"
            )
    raise SettingsError(f"{source}: no weights of {name} there. {_how_to_get(name)}")


def _file_stem(name: str) -> str:
    """What a file of these weights begins with: `timm-resnet10t` for timm:resnet10t."""
    return re.sub(r"[:/]", "-", name)


def _is_named(stem: str, name: str) -> bool:
    """resnet18-f37072fd is of resnet18, resnet18d is not."""
    own = _file_stem(name)
    return stem.startswith(own) and not stem[len(own) :][:1].isalnum()


def _how_to_get(name: str) -> str:
    backbone = get_backbone(name)
    url = backbone.weights_url()
    get = f"Download {url} and pass it" if url else f"{backbone.no_weights}; or pass a state dict"
    cache = f"put it into {torch.hub.get_dir()}/checkpoints/, or " if url and not HUGGING_FACE.match(url) else ""
    return (
        f"{get} with --weights PATH, or {cache}let ${WEIGHTS_VARIABLE} name the file or its folder (as "
        f"{_file_stem(name)}.safetensors or .pth there); --weights random goes on without pretrained weights"
    )


def _cached(url: str) -> Path | None:
    if match := HUGGING_FACE.match(url):
        from huggingface_hub import try_to_load_from_cache

        repository, file = match.groups()
        found = [try_to_load_from_cache(repository, name) for name in (file, OTHER_FILES.get(file, file))]
        return next((Path(path) for path in found if isinstance(path, str)), None)
    file = _hub_file(url)
    return file if file.is_file() else None


def _hub_file(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _download(name: str, url: str, how: str) -> Path:
    try:
        if match := HUGGING_FACE.match(url):
            return _download_from_hugging_face(*match.groups())
        target = _hub_file(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})$", target.stem)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=digest.group(1) if digest else None)
        return target
    except Exception as error:  # each library has its own errors for a network that is not there
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise EnvironmentStopped(f"no weights for {name}: the download failed ({reason}). {how}") from None


def _download_from_hugging_face(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each of its many attempts
    try:
        return Path(hf_hub_download(repository, file))
    except LocalEntryNotFoundError:  # there is no network, which says nothing of the repository
        raise
    except EntryNotFoundError:
        return Path(hf_hub_download(repository, OTHER_FILES.get(file, file)))


def _random_network(backbone: Backbone) -> nn.Module:
    """Seeded random weights, tamed so that features tell something: batch norms are calibrated on noise.

    A plainly random deep network amplifies noise more than motion: its features are at chance on drawn clips. Smoothing
    depthwise filters, batch norms that keep ReLU6 in its linear part and quiet residual branches mend that.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        network = backbone.wrap(backbone.build())
        noise = _noise(backbone)
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


def _noise(backbone: Backbone) -> torch.Tensor:
    """Smooth noise (8, 3, S, S), drifting sideways in four frames (8, 3, 4, S, S) for a 3D network."""
    side = backbone.calibration_side
    noise = nn.functional.interpolate(torch.randn(8, 3, 8, 8), size=(side, side), mode="bilinear")
    noise += 0.2 * torch.randn(8, 3, side, side)
    return torch.stack([noise.roll(2 * i, dims=3) for i in range(4)], dim=2) if backbone.snippet else noise


_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
