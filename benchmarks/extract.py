"""Stage one against the alternatives, side by side: decoding alone, encoding alone, the whole job.

    python benchmarks/extract.py                       on drawn clips, random weights
    python benchmarks/extract.py --videos FOLDER       on real ones; $FEATURES_WEIGHTS is used where it is set
    python benchmarks/extract.py --wall                wall time too, every core for everyone: on an idle machine only

Contenders take turns, clip by clip and round by round; figures are medians over the rounds, of one thread's CPU time
(`--wall`: of clips a second), and ratios. The floor is what must be done: decoding without any conversion, plus the
network's multiplications as one large matrix product. `benchmarks/long_video.py` measures long videos.
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
    encode_only,
    main_spec,
    naive,
    opencv_all,
    opencv_frames,
    opencv_grab,
    video_features,
    whole_job,
)
from measure import Work, interleaved, table

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
    times = interleaved(
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
    table(f"decoding {FRAMES} frames", times, SEEK)


def bench_encoding(clips: Sequence[Clip], rounds: int, weights: Path | None, runtime: str, folder: Path) -> None:
    encoders = {
        f"{name} {precision}": encode_only(precision, weights, name, folder)
        for name in dict.fromkeys(("torch", runtime))
        for precision in PRECISIONS
    }
    table(f"encoding {FRAMES} frames", interleaved(encoders, clips[:10], rounds), "torch fp32")


def bench_whole(clips: Sequence[Clip], rounds: int, others: dict[str, Work], ours: dict[str, Work]) -> None:
    """The floor takes its turn like everyone else: a shared machine's clock goes up and down."""
    floors = {f"floor, {name}: decode_only and GEMM": floor(dtype) for name, dtype in PRECISIONS.items()}
    times = interleaved({**others, **ours, **floors}, clips, rounds)
    table("the whole job", times, NAIVE)
    for name, least in zip(ours, floors, strict=True):
        click.echo(f"  {name}: {times[name] / times[least]:.2f} times the floor")


def floor(dtype: torch.dtype) -> Work:
    """What nobody can save: decoding what is wanted, and the network's multiplications in one large product."""
    rows = round(1e9 * FRAMES * GFLOP_A_FRAME / (2 * 1024 * 1024))
    a, b = torch.randn(rows, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
    return lambda clip: (decode_only(clip), a @ b)


def bench_wall(clips: Sequence[Clip], rounds: int, others: dict[str, Work], weights: Path | None) -> None:
    """Clips a second with every core for everyone; means something on an otherwise idle machine only."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    cv2.setNumThreads(cores)
    contenders: dict[str, Callable[[], float]] = {
        name: lambda work=work: rate_alone(work, clips)  # type: ignore[misc]
        for name, work in others.items()
    }
    for precision in PRECISIONS:
        for workers in (1, cores):
            contenders[f"this project, {precision}, workers: {workers}"] = (
                lambda precision=precision, workers=workers: rate_of_workers(clips, weights, precision, workers)  # type: ignore[misc]
            )
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            rates[name].append(measure())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    click.echo(f"\nwall time, {cores} cores for everyone                clips a second   against naive   rounds")
    for name, rate in medians.items():
        each = " ".join(f"{value:.1f}" for value in rates[name])
        click.echo(f"  {name:<46} {rate:10.2f}   {rate / medians[NAIVE]:13.2f}   {each}")
    for precision in PRECISIONS:
        one, all_cores = (rates[f"this project, {precision}, workers: {n}"] for n in (1, cores))
        share = statistics.median(b / a / cores for a, b in zip(one, all_cores, strict=True))
        click.echo(f"  {precision}: {cores} workers reach {share:.0%} of {cores} times one")


def rate_alone(work: Work, clips: Sequence[Clip]) -> float:
    """Clips a second of a contender in this process."""
    work(clips[0])
    began = time.monotonic()
    for clip in clips:
        work(clip)
    return len(clips) / (time.monotonic() - began)


def rate_of_workers(clips: Sequence[Clip], weights: Path | None, precision: str, workers: int, turns: int = 3) -> float:
    """Clips a second from the moment when each worker has begun to the last clip, which all of them share."""
    settings, ends = RunSettings(device="cpu", workers=workers), []
    for _ in extract_clips([*clips] * turns, main_spec(precision, weights), weights, settings):
        ends.append(time.monotonic())
    return (len(ends) - workers) / (ends[-1] - ends[workers - 1])


@click.command()
@click.option("--videos", type=click.Path(path_type=Path), help="A folder or manifest; drawn clips by default.")
@click.option("--clips", "count", default=30, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--video-features", "peer", type=click.Path(path_type=Path), help="A checkout; needs timm and ffmpeg.")
@click.option("--wall", "with_wall", is_flag=True, help="Wall time too, on an otherwise idle machine.")
@click.option("--wall-only", is_flag=True, help="Nothing but wall time.")
def main(videos: Path | None, count: int, rounds: int, peer: Path | None, with_wall: bool, wall_only: bool) -> None:
    """Print stage one's speed beside the alternatives'."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    weights, runtime = pretrained_or_random(), pick_runtime("auto", on_cpu=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = some_clips(videos, count, folder)
        kind = "pretrained" if weights else "random"
        click.echo(f"{len(clips)} clips of {videos or 'drawn ones'}, {rounds} rounds, {runtime}, {kind} weights")
        others = {PEER: video_features(peer, folder)} if peer else {}
        others[NAIVE] = naive(weights)
        if not wall_only:
            bench_decoding(clips, rounds)
            bench_encoding(clips, rounds, weights, runtime, folder)
            ours = {f"this project, {name}": whole_job(name, weights, runtime, folder) for name in PRECISIONS}
            bench_whole(clips, rounds, others, ours)
        if with_wall or wall_only:
            bench_wall(clips, rounds, others, weights)


def pretrained_or_random() -> Path | None:
    """Weights of $FEATURES_WEIGHTS; random ones are as fast."""
    try:
        return find_weights("mobilenet_v2", "auto") if os.environ.get("FEATURES_WEIGHTS") else None
    except UserFacingError:
        return None


def some_clips(videos: Path | None, count: int, folder: Path) -> list[Clip]:
    """`count` clips from all over the source."""
    drawn = {"normal": ["walk"], "hazardous": ["fall"]}
    found = find_clips([videos or draw_dataset(folder, classes=drawn, clips_per_class=count // 2, scenes=5)])
    return found[:: max(1, len(found) // count)][:count]


if __name__ == "__main__":
    main()
