"""CLIP image encoders of open_clip as backbones: `clip:MODEL` or `clip:MODEL/PRETRAINED_TAG`."""

import difflib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from features.backbones.base import Backbone
from features.errors import SettingsError
from features.spec import Preprocessing
from features.utils.text import suggest_name

DEFAULT_WEIGHTS_FILE = "open_clip_model.safetensors"
MAX_LISTED_TAGS = 6
"""Tags that are listed in an error message."""


@cache
def clip_backbone(name: str) -> Backbone:
    """Return open_clip's MODEL with its tag as a backbone. Raises SettingsError if one of the three is missing."""
    if find_spec("open_clip") is None:
        raise SettingsError(f"backbone 'clip:{name}' needs open_clip; pip install open_clip_torch")
    import open_clip

    model, _, tag = name.partition("/")
    if model not in open_clip.list_models():  # also excludes names that open_clip would download, such as hf-hub:...
        close = difflib.get_close_matches(model, open_clip.list_models(), n=3, cutoff=0.2)
        raise SettingsError(
            f"unknown backbone 'clip:{name}'; the nearest names: {', '.join('clip:' + n for n in close)}"
        )
    config, tags = open_clip.get_model_config(model), open_clip.list_pretrained_tags_by_model(model)
    if tag and tag not in tags:
        hint = suggest_name(tag, tags) if tags else "it has none"
        raise SettingsError(f"unknown pretrained tag '{tag}' of backbone 'clip:{model}'; {hint}")
    weights = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    return Backbone(
        build=partial(
            _build_image_tower, config, quick_gelu=bool(weights.get("quick_gelu", config.get("quick_gelu", False)))
        ),
        width=config["embed_dim"],
        weights_url=partial(_weights_url, weights),
        licence=_licence(weights),
        preprocessing=_find_preprocessing(
            name, config, weights or open_clip.get_pretrained_cfg(model, (tags or [""])[0])
        ),
        is_pooled=True,
        accepts_any_size=False,
        calibration_side=config["vision_cfg"].get("image_size", 224),
        library=f"open_clip {version('open_clip_torch')}",
        no_weights_message=_explain_missing_weights(model, tags),
    )


def _explain_missing_weights(model: str, tags: Sequence[str]) -> str:
    if not tags:
        return f"open_clip has no pretrained weights of '{model}'"
    listed = ", ".join(tags[:MAX_LISTED_TAGS]) + (
        f" and {len(tags) - MAX_LISTED_TAGS} more" if len(tags) > MAX_LISTED_TAGS else ""
    )
    return (
        f"'clip:{model}' names no pretrained weights; add a tag after a slash, as in clip:{model}/{tags[0]} "
        f"(available: {listed})"
    )


def _build_image_tower(config: Mapping[str, Any], *, quick_gelu: bool) -> nn.Module:
    """Build only the image tower. The public functions of open_clip also build and load the text tower."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    vision = CLIPVisionCfg(**config["vision_cfg"] | {"timm_model_pretrained": False, "output_tokens": False})
    with torch.device("cpu"):
        return _build_vision_tower(config["embed_dim"], vision, quick_gelu)


def _find_preprocessing(name: str, config: Mapping[str, Any], weights: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing the weights were trained with; CLIP's usual mean and std if open_clip names none."""
    from open_clip.transform import PreprocessCfg

    size, default = config["vision_cfg"].get("image_size", 224), PreprocessCfg()
    if not isinstance(size, int):
        raise SettingsError(f"backbone 'clip:{name}' takes {size} pixels, not square frames; choose another")
    return Preprocessing(
        size=size,
        resize=size,
        fit="crop" if weights.get("resize_mode", "shortest") == "shortest" else "squash",
        mean=weights.get("mean", default.mean),
        std=weights.get("std", default.std),
    )


def _weights_url(weights: Mapping[str, Any]) -> str:
    """Return the URL of the Hugging Face file if there is one. OpenAI's own files are programs, not state dicts."""
    if hub := weights.get("hf_hub"):
        repository, _, file = hub.rpartition("/")
        return f"https://huggingface.co/{repository}/resolve/main/{file or DEFAULT_WEIGHTS_FILE}"
    return str(weights.get("url", ""))


def _licence(weights: Mapping[str, Any]) -> str:
    repository = weights.get("hf_hub", "").rpartition("/")[0]
    return f"MIT code; weights: see {'https://huggingface.co/' + repository if repository else 'their source'}"
