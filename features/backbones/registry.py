"""BACKBONES: frozen networks by name, with their preprocessing and feature width."""

from collections import OrderedDict
from collections.abc import Callable

from features.backbones.base import Backbone, Module
from features.errors import SettingsError
from features.spec import Preprocessing
from features.utils.text import suggest_name

IMAGENET_LICENCE = "BSD-3-Clause code; weights trained on ImageNet-1k (research terms)"
KINETICS_LICENCE = (
    "BSD-3-Clause code; weights trained on Kinetics-400 (CC BY 4.0 annotations, videos of YouTube's users)"
)
RESNET_LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
RESNET_3D_LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4")
VIDEO_RESNET_PREPROCESSING = Preprocessing(
    size=112, resize=128, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989)
)


def _make_torchvision_backbone(
    name: str, weights: str, width: int, *, trunk: tuple[str, ...] = ("features",)
) -> Backbone:
    """Describe a torchvision network without its head. The names of its tensors stay unchanged."""
    is_video = trunk == RESNET_3D_LAYERS

    def build() -> Module:
        import torchvision
        from torch import nn

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
        licence=KINETICS_LICENCE if is_video else IMAGENET_LICENCE,
        preprocessing=VIDEO_RESNET_PREPROCESSING if is_video else Preprocessing(),
        snippet=(16, 15.0) if is_video else None,
    )


BACKBONES: dict[str, Backbone] = {
    "mobilenet_v2": _make_torchvision_backbone("mobilenet_v2", "MobileNet_V2_Weights.IMAGENET1K_V1", 1280),
    "mobilenet_v3": _make_torchvision_backbone("mobilenet_v3_large", "MobileNet_V3_Large_Weights.IMAGENET1K_V1", 960),
    "resnet18": _make_torchvision_backbone("resnet18", "ResNet18_Weights.IMAGENET1K_V1", 512, trunk=RESNET_LAYERS),
    "resnet50": _make_torchvision_backbone("resnet50", "ResNet50_Weights.IMAGENET1K_V1", 2048, trunk=RESNET_LAYERS),
    "efficientnet_b0": _make_torchvision_backbone("efficientnet_b0", "EfficientNet_B0_Weights.IMAGENET1K_V1", 1280),
    "r3d_18": _make_torchvision_backbone("r3d_18", "R3D_18_Weights.KINETICS400_V1", 512, trunk=RESNET_3D_LAYERS),
    "mc3_18": _make_torchvision_backbone("mc3_18", "MC3_18_Weights.KINETICS400_V1", 512, trunk=RESNET_3D_LAYERS),
    "r2plus1d_18": _make_torchvision_backbone(
        "r2plus1d_18", "R2Plus1D_18_Weights.KINETICS400_V1", 512, trunk=RESNET_3D_LAYERS
    ),
}


def _make_timm_backbone(name: str) -> Backbone:
    from features.backbones.timm_models import timm_backbone

    return timm_backbone(name)


def _make_clip_backbone(name: str) -> Backbone:
    from features.backbones.open_clip_models import clip_backbone

    return clip_backbone(name)


FAMILIES: dict[str, Callable[[str], Backbone]] = {"timm": _make_timm_backbone, "clip": _make_clip_backbone}
"""Libraries of networks: `timm:NAME` is the backbone that the function of `timm` returns for NAME."""


def get_backbone(name: str) -> Backbone:
    """Return an entry of BACKBONES or a network of a family. Raises SettingsError, with the choices, for others."""
    family, colon, member = name.partition(":")
    if colon and family in FAMILIES:
        return FAMILIES[family](member)
    if name not in BACKBONES:
        choices = [*BACKBONES, *(f"{family}:NAME" for family in FAMILIES)]
        suggestion = suggest_name(name, BACKBONES)
        hint = f"{suggestion} Choices: " if suggestion.startswith("did") else "choose one of: "
        raise SettingsError(f"unknown backbone '{name}'; {hint}{', '.join(choices)}")
    return BACKBONES[name]


def pooled_width(backbone: str, pooling: str) -> int:
    """Return the numbers in a row before any reduction.

    Raises SettingsError if the backbone pools its own features and cannot use `pooling`.
    """
    entry = get_backbone(backbone)
    if entry.is_pooled and pooling != "avg":
        raise SettingsError(
            f"backbone '{backbone}' pools its own features, so pooling '{pooling}' has no effect; leave it out"
        )
    return entry.width * len(pooling.split("+"))
