"""A tiny CLIP model with random weights, and labels for it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TINY_BACKBONE = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1},
}
"""The architecture of the backbone `clip:tiny`."""
LABELS: dict[str, Any] = {
    "model": "tiny-zero-shot",
    "pretrained": "tiny.safetensors",
    "prompts": ["a photo of {}", "{}"],
    "labels": {"fire": ["a fire", "thick smoke"], "nothing": "an empty room", "people": "some people"},
}


def register_tiny_clip(folder: Path) -> None:
    """Register `clip:tiny` with open_clip, if it is installed."""
    try:
        import open_clip
    except ImportError:
        return
    (folder / "tiny.json").write_text(json.dumps(TINY_BACKBONE))
    open_clip.add_model_config(folder / "tiny.json")


def write_tiny_clip(folder: Path) -> dict[str, Tensor]:
    """Register the model with open_clip and write its architecture and weights; return the weights.

    The files are `tiny-zero-shot.json` and `tiny.safetensors`.
    """
    import open_clip

    (folder / "tiny-zero-shot.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-zero-shot.json")
    torch.manual_seed(0)
    state = open_clip.create_model("tiny-zero-shot", load_weights=False).state_dict()
    save_file(state, folder / "tiny.safetensors")
    return state
