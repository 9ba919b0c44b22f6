import cv2
import numpy as np
import pytest
import torch

from features.backbones.registry import BACKBONES
from features.encoders.torch_encoder import normalize
from features.spec import Preprocessing
from features.video.preprocess import make_thumbnail, preprocess_frame


@pytest.mark.parametrize("shape", [(360, 640), (1080, 1920), (64, 48), (224, 224), (32, 900)])
@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_any_frame_becomes_the_backbones_square(shape: tuple[int, int], fit: str) -> None:
    image = np.full((*shape, 3), (10, 200, 90), np.uint8)
    result = preprocess_frame(image, Preprocessing(fit=fit))
    assert result.shape == (224, 224, 3)
    assert result.dtype == np.uint8
    assert (result == (10, 200, 90)).all()


def test_squash_shows_the_whole_frame_and_crop_its_middle() -> None:
    image = np.zeros((240, 480, 3), np.uint8)
    image[:, :60] = 255
    assert preprocess_frame(image, Preprocessing(fit="squash"))[:, :20].min() > 200
    assert preprocess_frame(image, Preprocessing(fit="crop")).max() == 0


def test_large_frames_are_not_aliased() -> None:
    checker = np.indices((896, 896)).sum(axis=0) % 2 * 255
    image = np.repeat(checker[..., None], 3, axis=2).astype(np.uint8)
    assert np.abs(preprocess_frame(image, Preprocessing(fit="squash")).astype(int) - 128).max() <= 1


def test_crop_is_the_published_recipe() -> None:
    """Short side to 256, middle 224: what torchvision's weights were made for."""
    from torchvision.transforms import v2

    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8), (0, 0), 8)
    recipe = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)])
    expected = recipe(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.abs(preprocess_frame(image, Preprocessing(fit="crop")).astype(int) - expected).mean() < 1


@pytest.mark.parametrize("name", BACKBONES)
def test_normalise_follows_the_backbones_statistics(name: str) -> None:
    preprocessing = BACKBONES[name].preprocessing
    frames = torch.full((2, 8, 8, 3), 255, dtype=torch.uint8)
    expected = [(1 - m) / s for m, s in zip(preprocessing.mean, preprocessing.std, strict=True)]
    result = normalize(frames, preprocessing)
    assert result.shape == (2, 3, 8, 8)
    assert result[1, :, 3, 3].tolist() == pytest.approx(expected, abs=1e-5)


def test_thumbnail_has_the_clips_aspect_ratio() -> None:
    for size in ((1280, 720), (720, 1280), (10, 4000)):
        jpeg = make_thumbnail(np.zeros((size[1], size[0], 3), np.uint8))
        height, width = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert height <= 320
        assert size[1] > 3000 or width / height == pytest.approx(size[0] / size[1], rel=0.05)
