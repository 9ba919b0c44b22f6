from pathlib import Path

import numpy as np
import pytest
import torch

from features.backbones import BACKBONES, load_backbone
from features.encoder import Encoder, fold_batch_norms, pick_device, pool, pooled_width
from features.errors import ClipError, SettingsError
from features.spec import Preprocessing

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 224, 224, 3), dtype=np.uint8)


def encoder(**options: object) -> Encoder:
    network = load_backbone("mobilenet_v2", None)
    return Encoder(network, preprocessing=BACKBONES["mobilenet_v2"].preprocessing, pooling="avg", **options)


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


@pytest.mark.parametrize("pooling", ["avg", "max", "avg+max"])
def test_pooling(pooling: str) -> None:
    maps = torch.rand(3, 1280, 7, 7)
    pooled = pool(maps, pooling)
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
        Encoder(broken, preprocessing=Preprocessing(), pooling="avg").encode(FRAMES[:1])


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_device_that_is_not_there(name: str) -> None:
    with pytest.raises(SettingsError, match="device"):
        pick_device(name)


def test_frames_as_decoded_are_taken_from_any_memory_layout(tmp_path: Path) -> None:
    strided = np.ascontiguousarray(FRAMES[::-1])[::-1]
    assert (encoder().encode(np.ascontiguousarray(strided)) == encoder().encode(FRAMES)).all()
