"""Folders of images: the right frames, or a clear reason for the failure."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from features.errors import ClipError
from features.spec import Sampling
from features.types import Clip, FrameBatch
from features.video.reader import read_clip
from features.video.sampling import make_row_sampler
from tests.helpers.data.image_folders import write_images
from tests.helpers.data.videos import numbered_frame, read_number


def read(folder: Path, start: float = 0.0, end: float | None = None, **sampling: object) -> FrameBatch:
    clip = Clip("a", folder, start_seconds=start, end_seconds=end)
    return read_clip(clip, make_row_sampler(Sampling(**sampling)), lambda image: image)  # type: ignore[arg-type]


def numbers(batch: FrameBatch) -> list[int]:
    return [read_number(image) for image in batch.data]


@pytest.mark.parametrize("suffix", ["jpg", "png", "JPEG"])
def test_images_come_in_natural_order_at_the_rate_that_is_given(tmp_path: Path, suffix: str) -> None:
    batch = read(write_images(tmp_path / "a", 100, suffix=suffix))
    assert numbers(batch) == [4, 12, 20, 29, 37, 45, 54, 62, 70, 79, 87, 95]
    assert (batch.duration, batch.decoded_share) == (4.0, 1.0)
    assert batch.times == pytest.approx(np.array(numbers(batch)) / 25)


@pytest.mark.parametrize("name", ["{}", "{:05d}", "v_Jump_g01_c01_{}", "img {}²", "größe {} x"])
def test_the_last_number_of_a_name_counts(tmp_path: Path, name: str) -> None:
    assert numbers(read(write_images(tmp_path / "a", 12, name=name, first=95), frames=None, kind="all")) == [*range(12)]


def test_a_part_of_a_folder(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 50)
    batch = read(folder, 1.0, 1.4, frames=5)
    assert numbers(batch) == [26, 28, 30, 32, 34]
    assert batch.times == pytest.approx([0.04, 0.12, 0.2, 0.28, 0.36])
    assert (batch.duration, batch.decoded_share) == (pytest.approx(0.4), 1.0)
    beyond = read(folder, 1.0, 2.25, frames=2)
    assert (beyond.duration, beyond.decoded_share) == (1.0, pytest.approx(0.8))
    with pytest.raises(ClipError, match="only 33% of the video could be decoded"):
        read(folder, 1.0, 4.0)
    with pytest.raises(ClipError, match=r"the clip starts at 9 s, but its 50 images last only 2\.0 s"):
        read(folder, 9.0)


def fault(folder: Path, kind: str) -> None:
    """Damage a folder of twelve images."""
    fifth = folder / "frame_5.jpg"
    match kind:
        case "gap":
            fifth.unlink()
        case "twice":
            cv2.imwrite(str(folder / "frame_5.png"), numbered_frame(5))
        case "kinds":
            fifth.rename(folder / "flow_x_5.jpg")
        case "nameless":
            fifth.rename(folder / "cover.jpg")
        case "mixed":
            cv2.imwrite(str(fifth), np.zeros((64, 64, 3), np.uint8))
        case "text":
            fifth.write_text("no image")
        case "empty":
            fifth.write_bytes(b"")
        case "cut":
            fifth.write_bytes(fifth.read_bytes()[:-20])
        case "cut png":
            data = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (32, 144, 3), np.uint8))[1].tobytes()
            fifth.write_bytes(data[: len(data) // 2])
        case "headless":
            fifth.write_bytes(fifth.read_bytes()[:40])
        case "huge":
            fifth.write_bytes(png_header(9000, 9000))
        case "enormous":
            fifth.write_bytes(png_header(40000, 40000))
        case "none":
            for file in folder.iterdir():
                file.unlink()


def png_header(width: int, height: int) -> bytes:
    """Return a small PNG file whose header declares a very large size."""
    data = bytearray(cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


FAULTS = {
    "gap": "open: gap in the images: 'frame_6.jpg' follows 'frame_4.jpg', the usual step is 1",
    "twice": "open: 'frame_5.jpg' and 'frame_5.png' have the same number",
    "kinds": "open: images of 2 kinds: flow_x_…, frame_…; keep only one kind",
    "nameless": "open: 'cover.jpg' has no number; expected names such as frame_0001.jpg",
    "mixed": "decode: images of mixed sizes: 'frame_1.jpg' is 144x32, 'frame_5.jpg' is 64x64",
    "text": "decode: 'frame_5.jpg' is not a JPEG or PNG image, or is damaged",
    "empty": "decode: 'frame_5.jpg' is not a JPEG or PNG image, or is damaged",
    "headless": "decode: 'frame_5.jpg' is not a JPEG or PNG image, or is damaged",
    "cut": "decode: 'frame_5.jpg' is truncated",
    "cut png": "decode: 'frame_5.jpg' is truncated",
    "huge": "decode: 'frame_5.jpg' is too large: 9000x9000",
    "enormous": "decode: 'frame_5.jpg' is too large",
    "none": "open: no images in this folder",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_a_clear_reason(tmp_path: Path, kind: str) -> None:
    fault(folder := write_images(tmp_path / "a", 12), kind)
    with pytest.raises(ClipError) as raised:
        read(folder)
    assert str(raised.value).startswith(FAULTS[kind])


def test_every_second_image_is_no_gap(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 12)
    for number in range(2, 13, 2):
        (folder / f"frame_{number}.jpg").unlink()
    assert numbers(read(folder, frames=None, kind="all")) == [0, 2, 4, 6, 8, 10]
