"""Videos whose frames show their own number, so that a test knows which frame it got."""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 9
_CELL = 16
SIZE = (BITS * _CELL, 2 * _CELL)  # width, height


def numbered_frame(number: int) -> np.ndarray:
    """Return an image whose black and white cells spell the number, lowest bit left. The lower half is inverted."""
    bits = np.array([(number >> bit) & 1 for bit in range(BITS)], np.uint8) * 255
    row = np.repeat(bits, _CELL)
    upper = np.broadcast_to(row[None, :, None], (_CELL, SIZE[0], 3))
    return np.ascontiguousarray(np.concatenate([upper, 255 - upper]))


def read_number(image: np.ndarray) -> int:
    """Return the number that an upright frame of any size shows."""
    height, width = image.shape[:2]
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    return int(sum((image[height // 4, x, 1] > 127) << bit for bit, x in enumerate(centres)))


@contextmanager
def restore_priority() -> Iterator[None]:
    """Restore the normal priority after the block, because SVT-AV1 may give its caller real-time priority.

    That would be above all other processes, and child processes would inherit it.
    """
    yield
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def write_numbered(
    path: Path,
    count: int,
    *,
    rate: int | Fraction = 25,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 2,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Write a video of numbered frames. `times` gives the second of each frame, for a variable rate."""
    with restore_priority(), av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.codec_context.thread_count = 1  # the same file on every machine
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.gop_size, stream.max_b_frames = gop, b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def write_audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def truncate(path: Path, share: float) -> Path:
    """Cut a file to its first `share` of bytes, 0 to 1."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def make_fifo(path: Path) -> Path:
    os.mkfifo(path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    return path


def write_textured(
    path: Path,
    count: int,
    *,
    size: tuple[int, int] = (160, 120),
    cell: int = 4,
    seed: int = 0,
    quarter_turns: int = 0,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a video of moving coarse noise, large enough that damaged bytes hit frames.

    `quarter_turns` rotates the pixels; `rotation` is stored in the metadata.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    coarse = rng.integers(0, 256, (height // cell, width // cell + count, 3), np.uint8)
    with av.open(str(path), "w", options=container_options or {}) as file:
        stream = file.add_stream("libx264", rate=25, options=options or {"preset": "ultrafast", "crf": "20"})
        stream.codec_context.thread_count = 1
        stream.width, stream.height = size if quarter_turns % 2 == 0 else size[::-1]
        stream.pix_fmt, stream.gop_size = "yuv420p", 25
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(count):
            image = coarse[:, number : number + width // cell].repeat(cell, axis=0).repeat(cell, axis=1)
            image = np.ascontiguousarray(np.rot90(image, quarter_turns))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode(None))
    return path


def write_no_frames(path: Path) -> Path:
    """Write a video stream without a single packet."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.codec_context.thread_count = 1
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        file.start_encoding()
    return path


def write_enormous(path: Path, size: tuple[int, int] = (15360, 8640)) -> Path:
    """Write one motion JPEG frame of an absurd size."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
        frame = av.VideoFrame(*size, "yuvj420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def overwrite(path: Path, start: float, end: float, seed: int = 0) -> Path:
    """Replace the bytes between two shares of a file, 0 to 1, by noise."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * end)
    data[first:last] = np.random.default_rng(seed).bytes(last - first)
    path.write_bytes(data)
    return path


def flip_bits(path: Path, count: int, seed: int = 0, start: float = 0.02, end: float = 0.9) -> Path:
    """Flip `count` random bits between two shares of a file, 0 to 1."""
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for at in rng.integers(int(len(data) * start), int(len(data) * end), count):
        data[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path


def write_scene(path: Path, seed: int, *, count: int = 12, start: int = 0, rate: int = 25) -> Path:
    """Write a still scene, drawn from `seed`, with a block that moves through it from column `start` on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = np.random.default_rng(seed).integers(0, 256, (8, 10, 1), np.uint8)
    still = scene.repeat(12, axis=0).repeat(12, axis=1).repeat(3, axis=2)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.codec_context.thread_count = 1
        stream.width, stream.height, stream.pix_fmt = still.shape[1], still.shape[0], "yuv420p"
        for number in range(count):
            image = still.copy()
            image[40:64, (start + 3 * number) % 100 :][:, :16] = 255
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode(None))
    return path


def decode_video(path: Path) -> tuple[np.ndarray, list[float]]:
    """Return the RGB frames (N, H, W, 3) of a video and their times in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), [
        float(frame.time or 0) for frame in frames
    ]
