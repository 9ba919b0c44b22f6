"""Stage one compared with the alternatives: decoding alone, encoding alone, and the whole job.

    python benchmarks/extract.py                       on synthetic clips, random weights
    python benchmarks/extract.py --videos FOLDER       on real clips; uses $FEATURES_WEIGHTS if it is set
    python benchmarks/extract.py --wall                also wall time with all cores; needs an idle machine

The programs take turns, clip by clip and round by round. The results are medians over the rounds of one thread's CPU
time (`--wall`: of clips per second), and ratios. The floor is the least work possible: decoding without conversion,
plus the network's multiplications as one large matrix product. `benchmarks/long_video.py` measures long videos.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import click
import cv2
import torch
from contenders import (
    FRAMES,
    decode_only,
    main_spec,
    make_encode_only,
    make_naive,
    make_video_features,
    make_whole_job,
    opencv_all,
    opencv_frames,
    opencv_grab,
)
from measure import Work, measure_interleaved, print_times

from features.backbones.weights import find_weights
from features.config import RunSettings
from features.encoders.openvino_encoder import pick_runtime
from features.errors import UserFacingError
from features.extraction.jobs import DecodeJob
from features.extraction.local_engine import extract_clips
from features.sources.discover import find_clips
from features.types import Clip
from hazard.synthetic.clips import draw_dataset

GFLOP_A_FRAME = 0.6  # MobileNetV2 at 224 px: 0.3 G multiply-adds
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
NAIVE, PEER = "naive: seek, transform, one at a time", "video_features, timm mobilenetv2"
SEEK = "OpenCV, a seek a frame"


def bench_decoding(clips: Sequence[Clip], rounds: int) -> None:
    decode = DecodeJob(main_spec("fp32", None)).start()
    times = measure_interleaved(
        {
            SEEK: lambda clip: opencv_frames(clip.file, FRAMES),
            "OpenCV, every frame": opencv_all,
            "OpenCV, grab all, retrieve the wanted": opencv_grab,
            "this project, decoded and prepared": lambda clip: decode(clip, lambda: None),
            "floor: decoded, not converted": decode_only,
        },
        clips,
        rounds,
    )
    print_times(f"decoding {FRAMES} frames", times, SEEK)


def bench_encoding(clips: Sequence[Clip], rounds: int, weights: Path | None, runtime: str, folder: Path) -> None:
    encoders = {
        f"{name} {precision}": make_encode_only(precision, weights, name, folder)
        for name in dict.fromkeys(("torch", runtime))
        for precision in PRECISIONS
    }
    print_times(f"encoding {FRAMES} frames", measure_interleaved(encoders, clips[:10], rounds), "torch fp32")


def bench_whole(clips: Sequence[Clip], rounds: int, others: dict[str, Work], ours: dict[str, Work]) -> None:
    """Print the cost of the whole job. The floors take turns too, because the clock rate of a shared machine varies."""
    floors = {f"floor, {name}: decode_only and GEMM": make_floor(dtype) for name, dtype in PRECISIONS.items()}
    times = measure_interleaved({**others, **ours, **floors}, clips, rounds)
    print_times("the whole job", times, NAIVE)
    for name, least in zip(ours, floors, strict=True):
        click.echo(f"  {name}: {times[name] / times[least]:.2f} times the floor")


def make_floor(dtype: torch.dtype) -> Work:
    """Return the least work possible: decoding the wanted frames, and the multiplications as one matrix product."""
    rows = round(1e9 * FRAMES * GFLOP_A_FRAME / (2 * 1024 * 1024))
    a, b = torch.randn(rows, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
    return lambda clip: (decode_only(clip), a @ b)


def bench_wall(clips: Sequence[Clip], rounds: int, others: dict[str, Work], weights: Path | None) -> None:
    """Print clips per second when each program may use all cores. Needs an otherwise idle machine."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    cv2.setNumThreads(cores)
    contenders: dict[str, Callable[[], float]] = {
        name: lambda work=work: measure_rate_alone(work, clips)  # type: ignore[misc]
        for name, work in others.items()
    }
    for precision in PRECISIONS:
        for workers in (1, cores):
            contenders[f"this project, {precision}, workers: {workers}"] = (
                lambda precision=precision, workers=workers: measure_worker_rate(clips, weights, precision, workers)  # type: ignore[misc]
            )
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            rates[name].append(measure())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    click.echo(f"\nwall time, {cores} cores for each program            clips/second       vs. naive   rounds")
    for name, rate in medians.items():
        each = " ".join(f"{value:.1f}" for value in rates[name])
        click.echo(f"  {name:<46} {rate:10.2f}   {rate / medians[NAIVE]:13.2f}   {each}")
    for precision in PRECISIONS:
        one, all_cores = (rates[f"this project, {precision}, workers: {n}"] for n in (1, cores))
        share = statistics.median(b / a / cores for a, b in zip(one, all_cores, strict=True))
        click.echo(f"  {precision}: {cores} workers reach {share:.0%} of {cores} times one")


def measure_rate_alone(work: Work, clips: Sequence[Clip]) -> float:
    """Return the clips per second of one program in this process."""
    work(clips[0])
    began = time.monotonic()
    for clip in clips:
        work(clip)
    return len(clips) / (time.monotonic() - began)


def measure_worker_rate(
    clips: Sequence[Clip], weights: Path | None, precision: str, workers: int, turns: int = 3
) -> float:
    """Return clips per second of all workers together, from when each has finished a clip to the last clip."""
    settings, ends = RunSettings(device="cpu", workers=workers), []
    for _ in extract_clips([*clips] * turns, main_spec(precision, weights), weights, settings):
        ends.append(time.monotonic())
    return (len(ends) - workers) / (ends[-1] - ends[workers - 1])


@click.command()
@click.option("--videos", type=click.Path(path_type=Path), help="Folder or manifest. Default: synthetic clips.")
@click.option("--clips", "count", default=30, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option(
    "--video-features",
    "peer",
    type=click.Path(path_type=Path),
    help="Checkout of video_features. Needs timm and ffmpeg.",
)
@click.option("--wall", "with_wall", is_flag=True, help="Measure wall time too. Needs an idle machine.")
@click.option("--wall-only", is_flag=True, help="Measure only wall time.")
def main(videos: Path | None, count: int, rounds: int, peer: Path | None, with_wall: bool, wall_only: bool) -> None:
    """Print the speed of stage one and of the alternatives."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    weights, runtime = find_pretrained_weights(), pick_runtime("auto", on_cpu=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = choose_clips(videos, count, folder)
        kind = "pretrained" if weights else "random"
        click.echo(f"{len(clips)} clips of {videos or 'the synthetic set'}, {rounds} rounds, {runtime}, {kind} weights")
        others = {PEER: make_video_features(peer, folder)} if peer else {}
        others[NAIVE] = make_naive(weights)
        if not wall_only:
            bench_decoding(clips, rounds)
            bench_encoding(clips, rounds, weights, runtime, folder)
            ours = {f"this project, {name}": make_whole_job(name, weights, runtime, folder) for name in PRECISIONS}
            bench_whole(clips, rounds, others, ours)
        if with_wall or wall_only:
            bench_wall(clips, rounds, others, weights)


def find_pretrained_weights() -> Path | None:
    """Return the weights file in $FEATURES_WEIGHTS, or None for random weights, which are as fast."""
    try:
        return find_weights("mobilenet_v2", "auto") if os.environ.get("FEATURES_WEIGHTS") else None
    except UserFacingError:
        return None


def choose_clips(videos: Path | None, count: int, folder: Path) -> list[Clip]:
    """Return about `count` clips, spread evenly over the source."""
    drawn = {"normal": ["walk"], "hazardous": ["fall"]}
    found = find_clips([videos or draw_dataset(folder, classes=drawn, clips_per_class=count // 2, scenes=5)])
    return found[:: max(1, len(found) // count)][:count]


if __name__ == "__main__":
    main()
