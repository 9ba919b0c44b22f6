import re
import sys
from pathlib import Path

import pytest
import torch

from features.backbones.loading import load_backbone
from features.backbones.registry import BACKBONES, get_backbone, pooled_width
from features.backbones.weights import weights_digest
from features.cache.hdf5 import read_cache
from features.errors import SettingsError
from tests.conftest import Run
from tests.helpers.data.tiny_clip import register_tiny_clip
from tests.helpers.data.videos import write_textured

MEMBERS = [*BACKBONES, "timm:test_resnet", "timm:test_vit.r160_in1k", "clip:tiny"]
"""One backbone of each kind: timm's smallest networks with maps and with tokens, and a tiny CLIP made for the tests."""


@pytest.fixture(scope="module", autouse=True)
def _tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_tiny_clip(tmp_path_factory.mktemp("clip"))


def needs(name: str) -> None:
    """Skip the test if the library of a family is not installed."""
    library = {"timm": "timm", "clip": "open_clip"}.get(name.partition(":")[0])
    if library:
        pytest.importorskip(library)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for i in range(3):
        write_textured(folder / f"{i}.mp4", 8 + i, seed=i)
    return folder


@pytest.mark.parametrize("name", MEMBERS)
def test_each_backbone_gives_maps_of_its_width_with_random_weights(name: str) -> None:
    needs(name)
    backbone = get_backbone(name)
    network = load_backbone(name, None)
    side = backbone.preprocessing.size
    with torch.inference_mode():
        maps = network(torch.randn(2, 3, *([4] if backbone.snippet else []), side, side))
    assert maps.shape[:2] == (2, backbone.width)
    assert maps.ndim == (5 if backbone.snippet else 2 if backbone.is_pooled else 3 if "vit" in name else 4)
    assert torch.isfinite(maps).all()
    assert maps.std() > 0.01
    assert backbone.licence
    assert "random" in weights_digest(name, None)
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", [*MEMBERS[:-1], "clip:ViT-S-32-alt"])  # workers do not know the CLIP of the tests
def test_each_backbone_extracts_clips(name: str, clips: Path, tmp_path: Path, extract: Run) -> None:
    needs(name)
    snippets = get_backbone(name).snippet
    frames = ("--frames", 4, "--set", "stride_seconds=0.1") if snippets else ("--frames", 2)
    ran = extract(clips, "-o", tmp_path / "c.h5", "--backbone", name, "--reduce", "none", *frames)
    assert ran.code == 0, ran.err
    cache = read_cache(tmp_path / "c.h5")
    assert cache.features.shape[1] == get_backbone(name).width
    assert cache.clips.length.tolist() == ([2, 2, 2] if not snippets else [2, 2, 3])
    assert cache.features.std(axis=0).max() > 0


def test_the_preprocessing_is_the_networks_own() -> None:
    pytest.importorskip("timm")
    vit = get_backbone("timm:test_vit").preprocessing
    assert (vit.size, vit.resize, vit.mean) == (160, 168, (0.5, 0.5, 0.5))
    pytest.importorskip("open_clip")
    clip = get_backbone("clip:ViT-B-32/openai").preprocessing
    assert (clip.size, clip.resize, clip.fit, round(clip.mean[0], 4)) == (224, 224, "crop", 0.4815)
    assert get_backbone("clip:ViT-B-16-SigLIP/webli").preprocessing.fit == "squash"


def test_maps_with_the_channels_last_are_turned() -> None:
    pytest.importorskip("timm")
    with torch.inference_mode():
        maps = load_backbone("timm:swin_tiny_patch4_window7_224", None)(torch.randn(1, 3, 224, 224))
    assert maps.shape == (1, 768, 7, 7)


def test_a_network_that_pools_takes_no_other_pooling() -> None:
    pytest.importorskip("open_clip")
    assert pooled_width("clip:tiny", "avg") == 48
    with pytest.raises(SettingsError, match="pools its own features"):
        pooled_width("clip:tiny", "max")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mobilenetv2", r"did you mean 'mobilenet_v2'\? Choices: .*r3d_18.*timm:NAME, clip:NAME"),
        ("zzz", "choose one of: mobilenet_v2, .*timm:NAME, clip:NAME"),
        ("timm:resnet10", "nearest names: .*timm:resnet10t"),
        ("timm:resnet18.nothing", "unknown pretrained tag 'nothing' .*available: a1_in1k"),
        ("timm:hf-hub:somebody/model", "unknown backbone"),
        ("timm:crossvit_9_240", "gives no feature map.*list"),
        ("clip:ViT-B32", "nearest names: .*clip:ViT-B-32"),
        ("clip:ViT-B-32/opnai", "did you mean 'openai'"),
        ("clip:hf-hub:somebody/model", "unknown backbone"),
    ],
)
def test_a_backbone_that_is_not_there_is_one_line_with_the_choices(name: str, said: str) -> None:
    needs(name)
    with pytest.raises(SettingsError, match=said) as raised:
        get_backbone(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "module"), [("timm:a", "timm"), ("clip:a", "open_clip")])
def test_a_library_that_is_not_installed(
    name: str, module: str, clips: Path, tmp_path: Path, extract: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    ran = extract(clips, "-o", tmp_path / "c.h5", "--backbone", name)
    assert ran.code == 2
    assert re.search(rf"needs {module}; pip install {module}(_torch)?$", ran.err.strip())
