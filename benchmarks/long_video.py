"""Long videos: a few frames of a ten-minute file, and sliding windows, compared with OpenCV seeking to each frame.

python benchmarks/long_video.py
"""

import os
import tempfile
from fractions import Fraction
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import av
import click
import cv2
import numpy as np
from contenders import FRAMES, opencv_frames, opencv_windows
from measure import measure_interleaved, print_times

from features.spec import Sampling
from features.types import Clip
from features.video.decoder import Image, read_frames
from features.video.sampling import make_row_sampler

SEEK, WINDOWS = "OpenCV, a seek a frame", Sampling(kind="windows", frames=FRAMES, window_seconds=2, stride_seconds=0.5)


def resize_frame(image: Image) -> Image:
    """Resize a frame to 224 × 224, as both programs do."""
    return cv2.resize(image, (224, 224))


def write_long_video(folder: Path, *, turns: int = 30, seconds: int = 20) -> Path:
    """Write a 1080p file that repeats a synthetic scene of `seconds` seconds `turns` times."""
    path, rate = folder / f"{turns}.mp4", 30
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (34, 60, 3), dtype=np.uint8)
    ground = cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 1920, 1080, "yuv420p", 250
        packets = []
        for i in range(seconds * rate):
            image = ground.copy()
            cv2.circle(image, (200 + 2 * i, int(540 + 300 * np.sin(i / 20))), 90, (255, 200, 60), -1)
            cv2.rectangle(image, (1500 - 2 * i, 300), (1620 - 2 * i, 700), (40, 90, 220), -1)
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
        packets += stream.encode(None)
        base = [(packet.pts, packet.dts, bytes(packet), packet.is_keyframe, packet.time_base) for packet in packets]
        for turn in range(turns):
            shift = round(Fraction(turn * seconds) / base[0][4])
            for pts, dts, data, is_key, time_base in base:
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.time_base, packet.is_keyframe = (
                    pts + shift,
                    dts + shift,
                    time_base,
                    is_key,
                )
                packet.stream = stream
                container.mux(packet)
    return path


def bench_few_frames(folder: Path, rounds: int) -> None:
    """Print the time to read twelve frames of ten minutes."""
    file = write_long_video(folder)
    sampling = Sampling(frames=FRAMES)
    contenders = {
        SEEK: lambda clip: [resize_frame(image) for image in opencv_frames(clip.file, FRAMES)],
        "this project": lambda clip: read_frames(clip.file, make_row_sampler(sampling), resize_frame),
    }
    times = measure_interleaved(contenders, [Clip("long.mp4", file)], rounds)
    print_times(f"ten minutes of 1080p ({file.stat().st_size / 1e6:.0f} MB), {FRAMES} frames", times, SEEK)
    quick, sure = (
        read_frames(file, make_row_sampler(sampling), resize_frame, try_fast=quick) for quick in (True, False)
    )
    click.echo(f"  the same pixels as sequential decoding: {bool((quick.data == sure.data).all())}")


def bench_windows(folder: Path, rounds: int) -> None:
    """Print the time to read overlapping windows, whose frames need decoding only once."""
    seconds = 15
    file = write_long_video(folder, turns=1, seconds=seconds)
    contenders = {
        SEEK: lambda clip: opencv_windows(clip.file, WINDOWS),
        "this project, each frame once": lambda clip: read_frames(clip.file, make_row_sampler(WINDOWS), resize_frame),
    }
    times = measure_interleaved(contenders, [Clip("short.mp4", file)], rounds)
    print_times(f"sliding windows, 2 s every 0.5 s, {seconds} s of 1080p", times, SEEK)
    quick, sure = (
        read_frames(file, make_row_sampler(WINDOWS), resize_frame, try_fast=quick) for quick in (True, False)
    )
    click.echo(f"  the same pixels as sequential decoding: {bool((quick.data == sure.data).all())}")


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--only", type=click.Choice(["few", "windows"]))
def main(rounds: int, only: str | None) -> None:
    """Print the time to read long videos, compared with OpenCV seeking."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if only != "windows":
            bench_few_frames(Path(folder), rounds)
        if only != "few":
            bench_windows(Path(folder), max(1, rounds // 3))


if __name__ == "__main__":
    main()
