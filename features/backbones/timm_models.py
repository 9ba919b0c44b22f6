"""Networks of the timm library as backbones: `timm:NAME` or `timm:NAME.PRETRAINED_TAG`."""

import difflib
import sys
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from features.backbones.base import Backbone, StateDict
from features.errors import SettingsError
from features.spec import Preprocessing

FeatureLayout = Literal["maps", "maps, channels last", "tokens", "pooled"]


class TimmFeatureMaps(nn.Module):
    """A timm network without its head: (B, 3, S, S) to (B, D, h, w), (B, D, tokens) or (B, D)."""

    def __init__(self, network: Any, layout: FeatureLayout) -> None:
        super().__init__()
        self.network, self.layout = network, layout
        self.prefix_tokens = getattr(network, "num_prefix_tokens", 0)  # class and register tokens, not positions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (B, D, ...) of frames (B, 3, S, S)."""
        features = self.network.forward_features(x)
        if self.layout == "tokens":  # (B, T, D)
            return features[:, self.prefix_tokens :].transpose(1, 2)
        return features.permute(0, 3, 1, 2) if self.layout == "maps, channels last" else features


@cache
def timm_backbone(name: str) -> Backbone:
    """Return timm's NAME as a backbone. Raises SettingsError without timm, the name, or usable feature maps."""
    if find_spec("timm") is None:
        raise SettingsError(f"backbone 'timm:{name}' needs timm; pip install timm")
    config = _find_config(name)
    channels, height, input_width = config.input_size
    if channels != 3 or height != input_width:
        raise SettingsError(f"backbone 'timm:{name}' takes {config.input_size}, not square RGB frames; choose another")
    width, layout = _probe_features(name, height)
    return Backbone(
        build=partial(_build_network, name),
        width=width,
        weights_url=partial(_weights_url, config),
        licence=f"Apache-2.0 code; weights: {config.license or 'licence not named by timm'}",
        preprocessing=Preprocessing(
            size=height,
            resize=round(height / config.crop_pct),
            fit="squash" if config.crop_mode == "squash" else "crop",
            mean=config.mean,
            std=config.std,
        ),
        is_pooled=layout == "pooled",
        accepts_any_size=layout == "maps" and not config.fixed_input_size,
        wrap=partial(TimmFeatureMaps, layout=layout),
        convert=_convert_state_dict,
        calibration_side=height,
        library=f"timm {version('timm')}",
        no_weights_message=f"timm has no pretrained weights of '{name}'",
    )


def _find_config(name: str) -> Any:
    """Return timm's description of a network with its pretrained tag. Raises SettingsError for an unknown name."""
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):  # also excludes names that timm would download, such as hf-hub:...
        close = difflib.get_close_matches(base, timm.list_models(), n=3, cutoff=0.3)
        raise SettingsError(
            f"unknown backbone 'timm:{name}'; the nearest names: {', '.join('timm:' + n for n in close)}"
        )
    tags = timm.models.get_arch_pretrained_cfgs(base)
    if tag and not any(known in (tag, name) for known in tags):
        known = ", ".join(sorted(key.removeprefix(f"{base}.") for key in tags)) or "none"
        raise SettingsError(f"unknown pretrained tag '{tag}' of backbone 'timm:{base}'; available: {known}")
    return timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def _build_network(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=0)


def _probe_features(name: str, side: int) -> tuple[int, FeatureLayout]:
    """Return the width and layout of the features, without computing any if the network allows that."""
    try:
        try:
            shape, width = _compute_feature_shape(name, side, "meta")
        except (NotImplementedError, RuntimeError):  # it reads tensor values while it is built
            shape, width = _compute_feature_shape(name, side, "cpu")
    except Exception as error:  # a network may raise any error
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise SettingsError(f"backbone 'timm:{name}' gives no feature map ({reason}); choose another") from None
    if len(shape) == 4:
        return width, "maps" if shape[1] == width else "maps, channels last"
    return width, "pooled" if len(shape) == 2 else "tokens"


def _compute_feature_shape(name: str, side: int, device: str) -> tuple[tuple[int, ...], int]:
    with torch.device(device), torch.inference_mode():
        network: Any = _build_network(name).eval()
        features = network.forward_features(torch.zeros(1, 3, side, side))
    if not isinstance(features, torch.Tensor):
        raise TypeError(f"its features are a {type(features).__name__}, not one tensor")
    width = int(network.num_features)
    if features.ndim not in (2, 3, 4) or width not in (features.shape[1], features.shape[-1]):
        raise ValueError(f"its features have shape {tuple(features.shape)}, but timm declares a width of {width}")
    return tuple(features.shape), width


def _weights_url(config: Any) -> str:
    if config.hf_hub_id:
        return f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    return str(config.url or "")


def _convert_state_dict(state: StateDict, network: nn.Module) -> StateDict:
    """Convert a published state dict with the `checkpoint_filter_fn` of the network's module in timm, if it has one."""
    filter_state = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    return filter_state(dict(state), network) if filter_state else state
