"""A CLIP that is built in a moment, with random weights and labels of its own."""

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
LABELS: dict[str, Any] = {
    "model": "tiny-zero-shot",
    "pretrained": "tiny.safetensors",
    "prompts": ["a photo of {}", "{}"],
    "labels": {"fire": ["a fire", "thick smoke"], "nothing": "an empty room", "people": "some people"},
}


def write_tiny_clip(folder: Path) -> dict[str, Tensor]:
    """Makes open_clip know it and writes its architecture, `tiny-zero-shot.json`, and weights, `tiny.safetensors`."""
    import open_clip

    (folder / "tiny-zero-shot.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-zero-shot.json")
    torch.manual_seed(0)
    state = open_clip.create_model("tiny-zero-shot", load_weights=False).state_dict()
    save_file(state, folder / "tiny.safetensors")
    return state
