"""Any network of the timm library as a backbone: `timm:NAME`, a pretrained tag after a dot if need be."""

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
    """A timm network up to its head: (B, 3, S, S) to (B, D, h, w), (B, D, tokens) or (B, D), whatever its layout."""

    def __init__(self, network: Any, layout: FeatureLayout) -> None:
        super().__init__()
        self.network, self.layout = network, layout
        self.prefix_tokens = getattr(network, "num_prefix_tokens", 0)  # class and register tokens: no places

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) to (B, D, ...)."""
        features = self.network.forward_features(x)
        if self.layout == "tokens":  # (B, T, D)
            return features[:, self.prefix_tokens :].transpose(1, 2)
        return features.permute(0, 3, 1, 2) if self.layout == "maps, channels last" else features


@cache
def timm_backbone(name: str) -> Backbone:
    """What timm knows of NAME. Raises SettingsError where timm is absent, or the name, or maps that can be used."""
    if find_spec("timm") is None:
        raise SettingsError(f"backbone 'timm:{name}' needs timm; pip install 'hazard-video[timm]'")
    config = _find_config(name)
    channels, height, width = config.input_size
    if channels != 3 or height != width:
        raise SettingsError(f"backbone 'timm:{name}' takes {config.input_size}, not square RGB frames; choose another")
    features, layout = _probe_features(name, height)
    return Backbone(
        build=partial(_build_network, name),
        width=features,
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
        no_weights_message=f"timm knows of no pretrained weights of '{name}'",
    )


def _find_config(name: str) -> Any:
    """timm's own description of a network with its pretrained tag."""
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):  # nor anything that timm would fetch a description of, such as hf-hub:...
        near = difflib.get_close_matches(base, timm.list_models(), n=3, cutoff=0.3)
        raise SettingsError(f"unknown backbone 'timm:{name}'; the nearest: {', '.join('timm:' + n for n in near)}")
    tags = timm.models.get_arch_pretrained_cfgs(base)
    if tag and not any(known in (tag, name) for known in tags):
        known = ", ".join(sorted(key.removeprefix(f"{base}.") for key in tags)) or "none"
        raise SettingsError(f"unknown pretrained tag '{tag}' of backbone 'timm:{base}'; there are: {known}")
    return timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def _build_network(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=0)


def _probe_features(name: str, side: int) -> tuple[int, FeatureLayout]:
    """The width and the layout of the features, found without computing any where the network allows that."""
    try:
        try:
            shape, width = _compute_feature_shape(name, side, "meta")
        except (NotImplementedError, RuntimeError):  # it looks at values while it is built
            shape, width = _compute_feature_shape(name, side, "cpu")
    except Exception as error:  # whatever a network of hundreds does not like
        said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise SettingsError(f"backbone 'timm:{name}' gives no feature map ({said}); choose another") from None
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
        raise ValueError(f"its features have shape {tuple(features.shape)}, {width} wide by timm's word")
    return tuple(features.shape), width


def _weights_url(config: Any) -> str:
    if config.hf_hub_id:
        return f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    return str(config.url or "")


def _convert_state_dict(state: StateDict, network: nn.Module) -> StateDict:
    """Each file of timm names what turns its authors' state dicts into its own `checkpoint_filter_fn`."""
    filter_state = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    return filter_state(dict(state), network) if filter_state else state
