import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from features.backbones import BACKBONES
from features.errors import ArtefactRefused, SettingsError
from features.weights import find_weights, load_backbone, weights_digest


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return load_backbone("mobilenet_v2", None)


def published(network: nn.Module) -> dict[str, torch.Tensor]:
    return {f"features.{k}": v for k, v in network.state_dict().items()} | {"classifier.1.bias": torch.zeros(7)}


@pytest.mark.parametrize("name", BACKBONES)
def test_each_backbone_gives_maps_of_its_width_with_random_weights(name: str) -> None:
    backbone = BACKBONES[name]
    network = load_backbone(name, None)
    side = backbone.preprocessing.size
    with torch.inference_mode():
        maps = network(torch.randn(2, 3, *([4] if backbone.snippet else []), side, side))
    assert maps.shape[:2] == (2, backbone.width)
    assert maps.ndim == (5 if backbone.snippet else 2 if backbone.is_pooled else 4)
    assert torch.isfinite(maps).all()
    assert maps.std() > 0.01
    assert backbone.licence
    assert "random" in weights_digest(name, None)
    assert not any(p.requires_grad for p in network.parameters())


def test_random_weights_are_the_same_every_time(network: nn.Module) -> None:
    again = load_backbone("mobilenet_v2", None)
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_digest_depends_on_the_tensors_not_on_the_file(network: nn.Module, tmp_path: Path) -> None:
    torch.save(published(network), tmp_path / "a.pth")
    torch.save({"state_dict": published(network)}, tmp_path / "b.pth")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "c.safetensors")
    digests = {weights_digest("mobilenet_v2", tmp_path / name) for name in ("a.pth", "b.pth", "c.safetensors")}
    assert len(digests) == 1
    other = published(network)
    other["features.0.0.weight"] = other["features.0.0.weight"] + 1e-3
    torch.save(other, tmp_path / "d.pth")
    assert weights_digest("mobilenet_v2", tmp_path / "d.pth") not in digests


class Canary:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize(
    "kind", ["malicious", "noise", "empty", "no dict", "other network", "wrong shape", "nan", "safetensors"]
)
def test_weights_that_do_not_fit_are_refused(network: nn.Module, tmp_path: Path, kind: str) -> None:
    state, file = published(network), tmp_path / "w.pth"
    if kind == "malicious":
        file.write_bytes(pickle.dumps({"features.0.0.weight": Canary(tmp_path / "canary")}))
    elif kind == "noise":
        file.write_bytes(bytes(range(256)) * 10)
    elif kind == "empty":
        file.touch()
    elif kind == "no dict":
        torch.save([1, 2, 3], file)
    elif kind == "other network":
        torch.save({"conv1.weight": torch.zeros(3)}, file)
    elif kind == "wrong shape":
        torch.save(state | {"features.0.0.weight": torch.zeros(16, 3, 3, 3)}, file)
    elif kind == "nan":
        torch.save(state | {"features.0.0.weight": state["features.0.0.weight"] * float("nan")}, file)
    else:
        file = tmp_path / "w.safetensors"
        file.write_bytes(b"\xff" * 100)
    with pytest.raises(ArtefactRefused, match="refused") as raised:
        load_backbone("mobilenet_v2", file)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "canary").exists()


def test_weights_are_found_in_a_file_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mobilenet_v2_mine.pth"
    file.touch()
    assert find_weights("mobilenet_v2", str(file)) == file
    monkeypatch.setenv("FEATURES_WEIGHTS", str(tmp_path))
    assert find_weights("mobilenet_v2", "auto") == file
    assert find_weights("mobilenet_v2", "random") is None
    (tmp_path / "mobilenet_v2_other.pth").touch()
    with pytest.raises(SettingsError, match="several"):
        find_weights("mobilenet_v2", "auto")


def test_absent_weights_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no weights of mobilenet_v2 there. Download http.*--weights PATH"):
        find_weights("mobilenet_v2", str(tmp_path))


def test_unknown_backbone_lists_the_choices() -> None:
    with pytest.raises(SettingsError, match="did you mean 'mobilenet_v2'"):
        load_backbone("mobilenetv2", None)
