import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from features.backbones.loading import load_backbone
from features.backbones.registry import BACKBONES, get_backbone
from features.backbones.weights import find_weights, weights_digest
from features.errors import ArtifactError, SettingsError
from tests.helpers.data.tiny_clip import register_tiny_clip


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return load_backbone("mobilenet_v2", None)


def published(network: nn.Module) -> dict[str, torch.Tensor]:
    return {f"features.{k}": v for k, v in network.state_dict().items()} | {"classifier.1.bias": torch.zeros(7)}


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0"])  # efficientnet_b0 has stochastic depth
def test_random_weights_are_the_same_every_time(name: str) -> None:
    first, again = (load_backbone(name, None).state_dict().values() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


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
    "kind", ["malicious", "noise", "empty", "no dict", "no names", "other network", "wrong shape", "nan", "safetensors"]
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
    elif kind == "no names":
        torch.save({1: torch.zeros(3)}, file)
    elif kind == "other network":
        torch.save({"conv1.weight": torch.zeros(3)}, file)
    elif kind == "wrong shape":
        torch.save(state | {"features.0.0.weight": torch.zeros(16, 3, 3, 3)}, file)
    elif kind == "nan":
        torch.save(state | {"features.0.0.weight": state["features.0.0.weight"] * float("nan")}, file)
    else:
        file = tmp_path / "w.safetensors"
        file.write_bytes(b"\xff" * 100)
    with pytest.raises(ArtifactError, match="rejected") as raised:
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
    with pytest.raises(SettingsError, match=r"no weights of mobilenet_v2 found. Download http.*--weights PATH"):
        find_weights("mobilenet_v2", str(tmp_path))


WRAPPERS = ("", "module.", "model.backbone.", "_orig_mod.module.net.")


def classifier(name: str, network: nn.Module, wrapper: str) -> dict[str, torch.Tensor]:
    """Return the state dict of a network that was fine-tuned inside a wrapper, with a classifier of seven classes."""
    inner = "features." if name in ("mobilenet_v2", "mobilenet_v3", "efficientnet_b0") else ""
    state = network.state_dict()
    head = {f"{wrapper}fc.weight": torch.zeros(7, 5), f"{wrapper}classifier.1.bias": torch.zeros(7)}
    return {f"{wrapper}{inner}{key}": value for key, value in state.items()} | head


@pytest.mark.parametrize("number", range(len(BACKBONES)))
def test_a_fine_tuned_network_is_taken_out_of_whatever_it_was_in(number: int, tmp_path: Path) -> None:
    name, other = [*BACKBONES, *BACKBONES][number : number + 2]
    wrapper, network = WRAPPERS[number % len(WRAPPERS)], get_backbone(name).build()
    torch.save({"model_state_dict": classifier(name, network, wrapper), "epoch": 3}, tmp_path / "mine.pt")
    torch.save(network.state_dict(), tmp_path / "plain.pt")
    assert weights_digest(name, tmp_path / "mine.pt") == weights_digest(name, tmp_path / "plain.pt")
    with pytest.raises(ArtifactError, match="is it another architecture") as raised:
        weights_digest(other, tmp_path / "mine.pt")
    assert "\n" not in str(raised.value)


def test_a_deeper_network_of_the_same_kind_is_refused(tmp_path: Path) -> None:
    import torchvision

    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(ArtifactError, match=r"'layer1\.2\..*' is not part of resnet18; is it a larger"):
        load_backbone("resnet18", tmp_path / "resnet34.pth")


def test_two_networks_in_one_file_are_refused(tmp_path: Path) -> None:
    network = get_backbone("resnet18").build()
    both = classifier("resnet18", network, "student.") | classifier("resnet18", network, "teacher.")
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(ArtifactError, match=r"2 networks that fit resnet18.*'student\.', 'teacher\.'"):
        load_backbone("resnet18", tmp_path / "both.pth")


def test_a_torchscript_archive_is_refused_by_name(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "ViT-B-32.pt")
    with pytest.raises(ArtifactError, match=r"rejected: a TorchScript archive.*open_clip_model\.safetensors"):
        load_backbone("mobilenet_v2", tmp_path / "ViT-B-32.pt")


def test_weights_of_timm_are_converted_as_timm_does(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    state = get_backbone("timm:test_vit").build().state_dict()
    torch.save(state, tmp_path / "now.pth")
    torch.save(state | {"patch_embed.proj.weight": state["patch_embed.proj.weight"].flatten(1)}, tmp_path / "old.pth")
    digests = {weights_digest("timm:test_vit", tmp_path / name) for name in ("now.pth", "old.pth")}
    assert len(digests) == 1
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ArtifactError, match="rejected"):
        load_backbone("timm:test_vit", tmp_path / "other.pth")


def test_the_image_tower_is_taken_out_of_a_whole_clip(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    register_tiny_clip(tmp_path)
    whole = open_clip.create_model("tiny")
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    save_file(whole.visual.state_dict(), tmp_path / "visual.safetensors")
    digests = {weights_digest("clip:tiny", tmp_path / f"{name}.safetensors") for name in ("whole", "visual")}
    assert len(digests) == 1
    with torch.inference_mode():
        found = load_backbone("clip:tiny", tmp_path / "whole.safetensors")(torch.ones(1, 3, 32, 32))
        assert found.allclose(whole.eval().encode_image(torch.ones(1, 3, 32, 32)), atol=1e-5)


def test_families_have_files_and_addresses_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    for name in ("timm-resnet10t.safetensors", "timm-resnet10tx.safetensors", "resnet10t.pth"):
        (tmp_path / name).touch()
    monkeypatch.setenv("FEATURES_WEIGHTS", str(tmp_path))
    assert find_weights("timm:resnet10t", "auto") == tmp_path / "timm-resnet10t.safetensors"
    with pytest.raises(SettingsError, match=r"Download https://huggingface\.co/timm/resnet18\..*timm-resnet18\.safe"):
        find_weights("timm:resnet18", "auto")
    monkeypatch.delenv("FEATURES_WEIGHTS")
    with pytest.raises(SettingsError, match="no pretrained weights of 'test_coatnet'"):
        find_weights("timm:test_coatnet", "auto")
    pytest.importorskip("open_clip")
    with pytest.raises(
        SettingsError, match=r"add a tag after a slash, as in clip:ViT-B-32/openai \(available: openai, .* more"
    ):
        find_weights("clip:ViT-B-32", "auto")
