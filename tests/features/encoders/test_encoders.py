from pathlib import Path

import numpy as np
import pytest
import torch

from features.backbones.loading import load_backbone
from features.backbones.registry import BACKBONES, pooled_width
from features.encoders import devices
from features.encoders.base import BatchTooLargeError, FrameEncoder
from features.encoders.devices import pick_devices
from features.encoders.openvino_convert import convert_network
from features.encoders.openvino_encoder import make_openvino_encoder
from features.encoders.torch_encoder import fold_batch_norms, make_torch_encoder, pool_maps
from features.errors import ClipError, RuntimeEnvironmentError, SettingsError
from features.spec import FeatureSpec, Preprocessing, Sampling

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 224, 224, 3), dtype=np.uint8)


def encoder(**options: object) -> FrameEncoder:
    network = load_backbone("mobilenet_v2", None)
    return make_torch_encoder(network, preprocessing=BACKBONES["mobilenet_v2"].preprocessing, pooling="avg", **options)


def test_a_feature_does_not_depend_on_the_batch_it_is_in() -> None:
    alone = encoder(batch_size=1).encode(FRAMES)
    for size in (2, 5, 64):
        assert np.abs(encoder(batch_size=size).encode(FRAMES).astype(np.float32) - alone).max() < 2e-3


def test_folding_changes_nothing() -> None:
    network = load_backbone("mobilenet_v2", None)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = network(x)
        after = fold_batch_norms(network)(x)
    assert torch.allclose(before, after, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())


def test_a_norm_that_does_more_is_not_folded() -> None:
    class Rectified(torch.nn.BatchNorm2d):  # as timm's BatchNormAct2d
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).relu()

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), Rectified(4)).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = network(x)
        assert torch.equal(fold_batch_norms(network)(x), expected)


@pytest.mark.parametrize("pooling", ["avg", "max", "avg+max"])
def test_pooling(pooling: str) -> None:
    maps = torch.rand(3, 1280, 7, 7)
    pooled = pool_maps(maps, pooling)
    assert pooled.shape == (3, pooled_width("mobilenet_v2", pooling))
    assert pooled[:, :1280].allclose(maps.amax((2, 3)) if pooling == "max" else maps.mean((2, 3)))


def test_bf16_is_close_to_fp32() -> None:
    a, b = encoder().encode(FRAMES).astype(np.float32), encoder(precision="bf16").encode(FRAMES).astype(np.float32)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.98


def test_a_feature_that_is_not_finite_is_a_failure() -> None:
    broken = torch.nn.Conv2d(3, 4, 1)
    torch.nn.init.constant_(broken.weight, float("inf"))
    with pytest.raises(ClipError, match="NaN or infinity"):
        make_torch_encoder(broken, preprocessing=Preprocessing(), pooling="avg").encode(FRAMES[:1])


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "mps:1"])
def test_device_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="device"):
        pick_devices(name)


def test_the_gpu_of_a_mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A virtual Mac may list a GPU that has no memory: it is not used."""
    monkeypatch.setattr(devices, "METAL", tmp_path)
    monkeypatch.setattr(devices, "CUDA_DRIVERS", ())
    monkeypatch.setattr(devices, "AMD_DEVICE", tmp_path / "absent")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *size, device: None)
    assert [pick_devices(name) for name in ("auto", "mps", "cpu")] == [["mps"], ["mps"], ["cpu"]]

    def fail(*size: int, device: str) -> None:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 0 bytes)")

    monkeypatch.setattr(torch, "zeros", fail)
    assert pick_devices("auto") == ["cpu"]
    with pytest.raises(SettingsError, match="no Apple GPU found"):
        pick_devices("mps")


def test_a_batch_too_large_for_the_gpu_of_a_mac_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)")

    emptied: list[bool] = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *_, **__: module)
    monkeypatch.setattr(torch.Tensor, "to", fail)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append(True))
    mps = make_torch_encoder(torch.nn.Conv2d(3, 4, 1), preprocessing=Preprocessing(), pooling="avg", device="mps")
    with pytest.raises(RuntimeEnvironmentError, match="memory"):
        mps.encode(FRAMES[:2])
    assert len(emptied) > 1


def test_frames_as_decoded_are_taken_from_any_memory_layout(tmp_path: Path) -> None:
    strided = np.ascontiguousarray(FRAMES[::-1])[::-1]
    assert (encoder().encode(np.ascontiguousarray(strided)) == encoder().encode(FRAMES)).all()


def test_a_batch_that_does_not_fit_is_halved_for_good() -> None:
    sizes: list[int] = []

    def forward(frames: np.ndarray) -> np.ndarray:
        sizes.append(len(frames))
        if len(frames) > 2:
            raise BatchTooLargeError
        return frames.reshape(len(frames), -1)[:, :4].astype(np.float32)

    encoder = FrameEncoder(forward, batch_size=8)
    frames = np.arange(9 * 12, dtype=np.uint8).reshape(9, 2, 2, 3)
    assert (encoder.encode(frames) == frames.reshape(9, -1)[:, :4]).all()
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert encoder.batch_size == 2


def test_not_even_one_frame_fits() -> None:
    def forward(frames: np.ndarray) -> np.ndarray:
        raise BatchTooLargeError

    with pytest.raises(RuntimeEnvironmentError, match="too small for a single frame"):
        FrameEncoder(forward, batch_size=2).encode(FRAMES)


def test_torch_says_that_memory_is_short() -> None:
    class Large(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError
            return x

    small = make_torch_encoder(Large(), preprocessing=Preprocessing(), pooling="avg", batch_size=4)
    alone = make_torch_encoder(Large(), preprocessing=Preprocessing(), pooling="avg", batch_size=1)
    assert (small.encode(FRAMES) == alone.encode(FRAMES)).all()
    assert small.batch_size == 2


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("bf16", 0.1)])
def test_openvino_gives_what_torch_gives(tmp_path: Path, precision: str, tolerance: float) -> None:
    pytest.importorskip("openvino")
    spec = FeatureSpec(
        sampling=Sampling(),
        preprocessing=BACKBONES["mobilenet_v2"].preprocessing,
        backbone="mobilenet_v2",
        weights="random",
        weights_digest="",
        pooling="avg+max",
        precision=precision,
    )
    found = make_openvino_encoder(convert_network(spec, None, tmp_path), spec).encode(FRAMES).astype(np.float32)
    expected = make_torch_encoder(
        load_backbone("mobilenet_v2", None), preprocessing=spec.preprocessing, pooling="avg+max"
    ).encode(FRAMES)
    assert found.shape == (5, 2560)
    assert np.abs(found - expected).mean() < tolerance
