"""State dicts of anybody's making: read without running code, matched to a network, refused where they do not fit."""

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
"""Where training programs keep the state dict of a checkpoint."""


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """A state dict from a safetensors or torch file, read without running code from it."""
    if _is_torchscript(file):
        raise ArtifactError(
            f"weights {file} refused: a TorchScript archive, which is a program and not a plain state dict (OpenAI "
            "publishes CLIP so); take the safetensors file of the same weights from open_clip, such as "
            "https://huggingface.co/timm/vit_base_patch32_clip_224.openai/resolve/main/open_clip_model.safetensors"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a forged file can make a reader raise anything; all of it means refusal
        said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ArtifactError(
            f"weights {file} refused: not a plain state dict ({said}); "
            "save one with torch.save(model.state_dict(), path) or as safetensors"
        ) from None
    for key in CHECKPOINT_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise ArtifactError(
            f"weights {file} refused: expected a state dict of named tensors, got {type(state).__name__}"
        )
    return dict(state)


def load_into_network(network: nn.Module, state: StateDict, *, backbone: Backbone, name: str, file: Path) -> None:
    """Copies a state dict's tensors into a network, whatever their names begin with; the classifier is left out.

    Raises ArtefactRefused where a tensor is absent, of another shape or not finite, where a block is there that the
    network has not, and where two networks of the kind are in the file.
    """
    expected = {key: tensor for key, tensor in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    part = _select_network_tensors(state, expected, name, file)
    if backbone.convert and not _has_all_tensors(part, expected, ""):
        part = _convert_state_dict(state, network, backbone, name, file)
    for key, tensor in expected.items():
        _check_tensor(key, part.get(key), tensor, f"weights {file} refused: ", name, part or state)
    if extra := _find_foreign_tensor(part, expected):
        raise ArtifactError(f"weights {file} refused: '{extra}' is no part of {name}; is it a larger architecture?")
    network.load_state_dict({key: part[key] for key in expected}, strict=False)


def _is_torchscript(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/code/" in name for name in archive.namelist())
    except Exception:  # no archive, or a forged one: whoever reads it next says what it is
        return False


def _select_network_tensors(state: StateDict, expected: StateDict, name: str, file: Path) -> StateDict:
    """The network's own tensors, by its own names: `module.`, `backbone.` and the like are cut off."""
    counts: Counter[str] = Counter()
    for key in state:
        for at in [0, *(i + 1 for i, letter in enumerate(key) if letter == ".")]:
            if key[at:] in expected:
                counts[key[:at]] += 1
    whole = [prefix for prefix in counts if _has_all_tensors(state, expected, prefix)]
    if len(whole) > 1:
        raise ArtifactError(
            f"weights {file} refused: it holds {len(whole)} networks that fit {name}, whose tensors begin with "
            f"{', '.join(repr(prefix) for prefix in sorted(whole))}; save the state dict of one"
        )
    best = whole[0] if whole else max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")
    return {key.removeprefix(best): value for key, value in state.items() if key.startswith(best)}


def _has_all_tensors(state: StateDict, expected: StateDict, prefix: str) -> bool:
    return all((found := state.get(prefix + key)) is not None and found.shape == t.shape for key, t in expected.items())


def _convert_state_dict(state: StateDict, network: nn.Module, backbone: Backbone, name: str, file: Path) -> StateDict:
    assert backbone.convert is not None
    try:
        return backbone.convert(state, network)
    except Exception:  # it was written for one kind of state dict, and this is another
        raise ArtifactError(f"weights {file} refused: they are not of {name}; is it another architecture?") from None


def _check_tensor(
    key: str, found: torch.Tensor | None, wanted: torch.Tensor, message_start: str, name: str, state: StateDict
) -> None:
    if found is None:
        first = f", which begins with '{next(iter(state))}'" if state else ", which is empty"
        raise ArtifactError(
            f"{message_start}no tensor '{key}', which {name} needs, is in it{first}; is it another architecture?"
        )
    if found.shape != wanted.shape:
        raise ArtifactError(
            f"{message_start}'{key}' has shape {tuple(found.shape)}, {name} needs {tuple(wanted.shape)}; "
            "is it another architecture?"
        )
    if not torch.isfinite(found).all():
        raise ArtifactError(f"{message_start}'{key}' holds NaN or infinity")


def _find_foreign_tensor(state: StateDict, expected: StateDict) -> str:
    """A tensor of a numbered block that the network has not, next to blocks that it has: a deeper network's."""
    own = {tuple(key.split(".")[: i + 1]) for key in expected for i in range(key.count("."))}
    numbered = {path[:-1] for path in own if path[-1].isdigit()}
    for key in state:
        parts = tuple(key.split("."))
        for i, part in enumerate(parts[:-1]):
            if part.isdigit() and parts[:i] in numbered and parts[: i + 1] not in own:
                return key
    return ""
