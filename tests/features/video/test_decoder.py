"""The right frames from every container, or a clear reason for the failure."""

import shutil
from pathlib import Path

import av
import av.logging
import cv2
import numpy as np
import pytest

from features.errors import ClipError
from features.spec import Sampling
from features.types import FrameBatch
from features.video.decoder import read_frames
from features.video.sampling import make_row_sampler, select_rows
from tests.helpers.data.videos import (
    SIZE,
    make_fifo,
    numbered_frame,
    read_number,
    truncate,
    write_audio_only,
    write_numbered,
)

WEBM = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
KINDS = {
    "mp4": {},
    "mkv": {},
    "mov": {},
    "ts": {},
    "flv": {},
    "avi": {},  # H.264 with B-frames in AVI: the packets' timestamps are in the wrong order
    "mpg": {"codec": "mpeg2video"},
    "wmv": {"codec": "wmv2", "b_frames": 0},
    "webm": WEBM,
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    av.logging.set_level(None)


def numbers(batch: FrameBatch) -> list[int]:
    return [read_number(image) for image in batch.data]


def read(path: Path, frames: int = 12) -> FrameBatch:
    return read_frames(path, make_row_sampler(Sampling(frames=frames)), lambda image: image)


@pytest.mark.parametrize("suffix", KINDS)
def test_evenly_spaced_frames_are_exact_in_every_container(tmp_path: Path, suffix: str) -> None:
    batch = read(write_numbered(tmp_path / f"clip.{suffix}", 100, **KINDS[suffix]))
    assert numbers(batch) == [4, 12, 20, 29, 37, 45, 54, 62, 70, 79, 87, 95]
    assert batch.duration == pytest.approx(4.0, abs=0.05)
    assert batch.times == pytest.approx(np.array(numbers(batch)) / 25, abs=0.02)
    assert batch.size == SIZE
    assert batch.decoded_share == 1.0


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate_is_sampled_by_time(tmp_path: Path, suffix: str) -> None:
    times = [i * 0.04 if i < 50 else 2.0 + (i - 50) * 0.2 for i in range(100)]
    batch = read(write_numbered(tmp_path / f"clip.{suffix}", 100, times=times), frames=6)
    expected = select_rows(np.array(times), 0, batch.duration, Sampling(frames=6))[:, 0]
    assert numbers(batch) == expected.tolist()
    assert batch.times == pytest.approx(np.array(times)[expected], abs=0.002)


STREAMS: dict[str, dict] = {
    "h264.mp4": {},
    "h264 one gop.mp4": {"gop": 500},
    "h264 pyramid.mp4": {"b_frames": 5, "options": {"x264-params": "b-pyramid=normal:ref=4"}},
    "h264 open gop.mp4": {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "h264 open gop.mkv": {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "h264 open gop.ts": {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "h264 intra refresh.mkv": {"b_frames": 0, "options": {"x264-params": "intra-refresh=1"}},
    "h264 intra refresh.mp4": {"b_frames": 0, "options": {"x264-params": "intra-refresh=1"}},
    "h264.ts": {},
    "h264.avi": {},
    "hevc.mp4": {"codec": "libx265", "b_frames": 4, "options": {"x265-params": "log-level=none:open-gop=1"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "vp9.webm": WEBM,
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "av1.mp4": {"codec": "libsvtav1", "b_frames": 0, "options": {"preset": "12", "svtav1-params": "lp=1"}},
    "variable.mp4": {"times": [i * 0.04 + (i // 30) * 0.7 for i in range(150)]},
    "variable.mkv": {"times": [i * 0.04 + (i // 30) * 0.7 for i in range(150)]},
}


@pytest.mark.parametrize("held", [True, False], ids=["held", "streamed"])
@pytest.mark.parametrize("name", STREAMS)
def test_seeking_and_skipping_change_no_pixel(
    tmp_path: Path, name: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare the fast path with plain sequential decoding."""
    path = write_numbered(tmp_path / name, 150, **STREAMS[name])
    if not held:
        monkeypatch.setattr("features.video.decoder.MAX_CACHED_PACKET_BYTES", 0)
    for frames in (3, 7, 40):
        quick = read(path, frames)
        sure = read_frames(path, make_row_sampler(Sampling(frames=frames)), lambda image: image, try_fast=False)
        assert numbers(quick) == numbers(sure)
        assert (quick.data == sure.data).all()
        assert quick.times == pytest.approx(sure.times)
        assert quick.duration == pytest.approx(sure.duration)


def test_rotation_by_metadata_is_undone(tmp_path: Path) -> None:
    for degrees in (90, 180, 270):
        path = write_numbered(tmp_path / f"{degrees}.mp4", 5, rotation=degrees)
        upright = cv2.cvtColor(cv2.VideoCapture(str(path)).read()[1], cv2.COLOR_BGR2RGB)
        image = read(path).data[0]
        assert image.shape == upright.shape
        assert np.abs(image.astype(int) - upright).mean() < 12


def test_edit_list_hides_frames(tmp_path: Path) -> None:
    """Frames that an edit list hides can be decoded but are not part of the clip."""
    whole = write_numbered(tmp_path / "whole.mp4", 50, b_frames=0, gop=50)
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts -= 10 * packet.duration  # the muxer writes an edit list for the negative start
                packet.dts -= 10 * packet.duration
                packet.stream = stream
                target.mux(packet)
    assert numbers(read(cut, frames=4)) == [15, 25, 35, 45]


def test_fewer_frames_than_wanted_gives_each_once(tmp_path: Path) -> None:
    assert numbers(read(write_numbered(tmp_path / "five.mp4", 5))) == [0, 1, 2, 3, 4]
    assert numbers(read(write_numbered(tmp_path / "one.mp4", 1))) == [0]


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_truncated_video_keeps_what_decodes(tmp_path: Path, suffix: str) -> None:
    batch = read(truncate(write_numbered(tmp_path / f"clip.{suffix}", 100), 0.75))
    assert 0.5 < batch.decoded_share < 0.85
    assert max(numbers(batch)) < 85
    assert numbers(batch) == sorted(numbers(batch))


@pytest.mark.parametrize(("suffix", "share"), [("mkv", 0.4), ("avi", 0.55)])
def test_under_half_decoded_is_a_failure(tmp_path: Path, suffix: str, share: float) -> None:
    with pytest.raises(ClipError, match="could be decoded"):
        read(truncate(write_numbered(tmp_path / f"clip.{suffix}", 100), share))


def not_videos(folder: Path) -> dict[str, tuple[Path, str]]:
    good = write_numbered(folder / "good.mp4", 10)
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "playlist.mp4").write_text(f"ffconcat version 1.0\nfile '{good.name}'\n")
    cv2.imwrite(str(folder / "image.png"), numbered_frame(1))
    (folder / "image.png").rename(folder / "image.mp4")
    shutil.copy(write_numbered(folder / "cut.mp4", 50), folder / "headless.mp4")
    truncate(folder / "headless.mp4", 0.5)
    (folder / "folder.mp4").mkdir()
    return {
        "zero": (folder / "zero.mp4", "empty file"),
        "text": (folder / "text.mp4", "not a video"),
        "noise": (folder / "noise.mp4", "not a video"),
        "playlist": (folder / "playlist.mp4", "not a video"),
        "image": (folder / "image.mp4", "not a video"),
        "no index": (folder / "headless.mp4", "not a video, or damaged"),
        "audio only": (write_audio_only(folder / "audio.mp4"), "no video stream"),
        "folder": (folder / "folder.mp4", "not a regular file"),
        "pipe": (make_fifo(folder / "pipe.mp4"), "not a regular file"),
        "absent": (folder / "absent.mp4", "No such file"),
    }


NOT_VIDEOS = ("zero", "text", "noise", "playlist", "image", "no index", "audio only", "folder", "pipe", "absent")


@pytest.mark.parametrize("name", NOT_VIDEOS)
def test_what_is_no_video_says_why(tmp_path: Path, name: str) -> None:
    path, reason = not_videos(tmp_path)[name]
    with pytest.raises(ClipError, match=reason):
        read(path)


def test_enormous_frames_are_refused_by_the_header(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "clip.mp4", 3)
    with pytest.raises(ClipError, match=r"frame too large: 144x32"):
        read_frames(path, make_row_sampler(Sampling()), lambda image: image, max_pixels=1000)
