"""State dicts from untrusted files: read without running code, matched to a network, rejected if they do not fit."""

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from features.backbones.base import Backbone, StateDict
from features.errors import ArtifactError

CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs store the state dict of a checkpoint."""


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a safetensors or torch file without running code. Raises ArtifactError for other files."""
    if _is_torchscript(file):
        raise ArtifactError(
            f"weights {file} rejected: a TorchScript archive, which is a program and not a plain state dict (OpenAI "
            "publishes CLIP in this form); download the safetensors file of the same weights from open_clip, such as "
            "https://huggingface.co/timm/vit_base_patch32_clip_224.openai/resolve/main/open_clip_model.safetensors"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a forged file can make a reader raise any error
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ArtifactError(
            f"weights {file} rejected: not a plain state dict ({reason}); "
            "save one with torch.save(model.state_dict(), path) or as safetensors"
        ) from None
    for key in CHECKPOINT_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise ArtifactError(
            f"weights {file} rejected: expected a state dict of named tensors, got {type(state).__name__}"
        )
    return dict(state)


def load_into_network(network: nn.Module, state: StateDict, *, backbone: Backbone, name: str, file: Path) -> None:
    """Copy a state dict's tensors into a network. A common prefix of their names and the classifier are ignored.

    Raises ArtifactError if a tensor is missing, has another shape or is not finite, if the file has a block that the
    network does not have, and if it contains two such networks.
    """
    expected = {key: tensor for key, tensor in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    part = _select_network_tensors(state, expected, name, file)
    if backbone.convert and not _has_all_tensors(part, expected, ""):
        part = _convert_state_dict(state, network, backbone, name, file)
    for key, tensor in expected.items():
        _check_tensor(key, part.get(key), tensor, f"weights {file} rejected: ", name, part or state)
    if extra := _find_foreign_tensor(part, expected):
        raise ArtifactError(f"weights {file} rejected: '{extra}' is not part of {name}; is it a larger architecture?")
    network.load_state_dict({key: part[key] for key in expected}, strict=False)


def _is_torchscript(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/code/" in name for name in archive.namelist())
    except Exception:  # not an archive, or a forged one: the next reader reports it
        return False


def _select_network_tensors(state: StateDict, expected: StateDict, name: str, file: Path) -> StateDict:
    """Return the tensors of the network under its own names, without prefixes such as `module.` or `backbone.`."""
    counts: Counter[str] = Counter()
    for key in state:
        for start in [0, *(i + 1 for i, letter in enumerate(key) if letter == ".")]:
            if key[start:] in expected:
                counts[key[:start]] += 1
    complete = [prefix for prefix in counts if _has_all_tensors(state, expected, prefix)]
    if len(complete) > 1:
        raise ArtifactError(
            f"weights {file} rejected: the file contains {len(complete)} networks that fit {name}, with the prefixes "
            f"{', '.join(repr(prefix) for prefix in sorted(complete))}; save the state dict of only one"
        )
    best = complete[0] if complete else max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")
    return {key.removeprefix(best): value for key, value in state.items() if key.startswith(best)}


def _has_all_tensors(state: StateDict, expected: StateDict, prefix: str) -> bool:
    return all((found := state.get(prefix + key)) is not None and found.shape == t.shape for key, t in expected.items())


def _convert_state_dict(state: StateDict, network: nn.Module, backbone: Backbone, name: str, file: Path) -> StateDict:
    assert backbone.convert is not None
    try:
        return backbone.convert(state, network)
    except Exception:  # the conversion expects one kind of state dict, and this is another
        raise ArtifactError(f"weights {file} rejected: they do not fit {name}; is it another architecture?") from None


def _check_tensor(
    key: str, found: torch.Tensor | None, wanted: torch.Tensor, message_start: str, name: str, state: StateDict
) -> None:
    if found is None:
        content = f"the file begins with '{next(iter(state))}'" if state else "the file is empty"
        raise ArtifactError(
            f"{message_start}{name} needs the tensor '{key}', which is missing; {content}; is it another architecture?"
        )
    if found.shape != wanted.shape:
        raise ArtifactError(
            f"{message_start}'{key}' has shape {tuple(found.shape)}, {name} needs {tuple(wanted.shape)}; "
            "is it another architecture?"
        )
    if not torch.isfinite(found).all():
        raise ArtifactError(f"{message_start}'{key}' holds NaN or infinity")


def _find_foreign_tensor(state: StateDict, expected: StateDict) -> str:
    """Return a tensor of a numbered block that the network does not have, next to blocks that it has.

    Such a tensor belongs to a deeper network. Returns an empty text if there is none.
    """
    own = {tuple(key.split(".")[: i + 1]) for key in expected for i in range(key.count("."))}
    numbered = {path[:-1] for path in own if path[-1].isdigit()}
    for key in state:
        parts = tuple(key.split("."))
        for i, part in enumerate(parts[:-1]):
            if part.isdigit() and parts[:i] in numbered and parts[: i + 1] not in own:
                return key
    return ""
