"""Stage one against the alternatives, side by side: decoding alone, encoding alone, the whole job.

    python benchmarks/extract.py                       on drawn clips, random weights
    python benchmarks/extract.py --videos FOLDER       on real ones; $FEATURES_WEIGHTS is used where it is set
    python benchmarks/extract.py --long                a ten-minute 1080p file as well

Contenders take turns, clip by clip and round by round; figures are medians of one thread's CPU time, and ratios. The
floor is what must be done: decoding without any conversion, plus the network's multiplications at the GEMM peak.
"""

import contextlib
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import av
import click
import cv2
import numpy as np
import torch
from torchvision.transforms import v2

from features.backbones import find_weights, load_backbone, weights_digest
from features.clips import find_clips
from features.config import RunSettings
from features.errors import UserFacingError
from features.jobs import DecodeJob, ExtractJob
from features.openvino_runtime import convert, pick_runtime
from features.sampling import select, window_starts
from features.spec import FeatureSpec, Preprocessing, Sampling
from features.stream import extract_clips
from features.types import Clip
from features.video import read_frames
from hazard.synthetic import draw_dataset

FRAMES = 12
GFLOP_A_FRAME = 0.6  # MobileNetV2 at 224 px: 0.3 G multiply-adds
Work = Callable[[Clip], object]


def main_spec(precision: str, weights: Path | None) -> FeatureSpec:
    return FeatureSpec(
        sampling=Sampling(frames=FRAMES),
        preprocessing=Preprocessing(),
        backbone="mobilenet_v2",
        weights="pretrained" if weights else "random",
        weights_digest=weights_digest("mobilenet_v2", weights),
        pooling="avg",
        precision=precision,
    )


def opencv_frames(file: Path, count: int) -> list[np.ndarray]:
    """The usual loop: a seek a frame."""
    capture = cv2.VideoCapture(str(file))
    total, images = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), []
    for i in range(count):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int((i + 0.5) * total / count))
        found, image = capture.read()
        if found:
            images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return images


def opencv_windows(file: Path, sampling: Sampling) -> None:
    """The usual loop over windows: a seek for each frame of each."""
    capture = cv2.VideoCapture(str(file))
    rate = capture.get(cv2.CAP_PROP_FPS)
    seconds = capture.get(cv2.CAP_PROP_FRAME_COUNT) / rate
    for start in window_starts(0, seconds, sampling):
        for i in range(FRAMES):
            instant = start + (i + 0.5) * (sampling.window_seconds or 1) / FRAMES
            capture.set(cv2.CAP_PROP_POS_FRAMES, int(instant * rate))
            found, image = capture.read()
            if found:
                cv2.resize(image, (224, 224))


def opencv_all(clip: Clip) -> None:
    capture = cv2.VideoCapture(str(clip.file))
    while capture.read()[0]:
        pass


def opencv_grab(clip: Clip) -> None:
    capture = cv2.VideoCapture(str(clip.file))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = {int((i + 0.5) * total / FRAMES) for i in range(FRAMES)}
    for i in range(total):
        capture.grab()
        if i in wanted:
            capture.retrieve()


def decode_only(clip: Clip) -> None:
    """No conversion, no unneeded frame: what any decoder must do at least, on one thread."""
    with av.open(str(clip.file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        packets = [packet for packet in container.demux(stream) if packet.size]
        ticks = np.array(sorted(packet.pts for packet in packets))
        wanted = set(ticks[select(ticks.astype(float), float(ticks[-1] + 1), Sampling(frames=FRAMES))].tolist())
        last = max(wanted)
        for packet in packets:
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            if any(frame.pts >= last for frame in stream.decode(packet)):
                return
        stream.decode(None)


def naive(weights: Path | None) -> Work:
    """OpenCV seeking, torchvision transforms, one frame at a time through the network."""
    network = load_backbone("mobilenet_v2", weights)
    prepare = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(256, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    @torch.inference_mode()
    def work(clip: Clip) -> list[np.ndarray]:
        return [network(prepare(image)[None]).mean((2, 3)).numpy() for image in opencv_frames(clip.file, FRAMES)]

    return work


def video_features(checkout: Path, folder: Path) -> Work:
    """github.com/v-iashin/video_features, its timm extractor as it comes: a re-encoded file, one frame at a time."""
    sys.path.insert(0, str(checkout))
    import timm
    from models.timm.extract_timm import ExtractTIMM
    from omegaconf import OmegaConf

    create = timm.create_model
    timm.create_model = lambda name, pretrained: create(name, pretrained=False)  # its weights need a download
    settings = {
        "feature_type": "timm",
        "model_name": "mobilenetv2_100",
        "batch_size": 1,
        "extraction_fps": None,
        "extraction_total": FRAMES,
        "device": "cpu",
        "on_extraction": "save_numpy",
        "output_path": str(folder / "vf"),
        "tmp_path": str(folder / "vf_tmp"),
        "keep_tmp_files": False,
        "show_pred": False,
    }
    with contextlib.redirect_stdout(None):
        extractor = ExtractTIMM(OmegaConf.create(settings))

    def work(clip: Clip) -> None:
        with contextlib.redirect_stdout(None):
            extractor.extract(str(clip.file))

    return work


def job(precision: str, weights: Path | None, runtime: str, folder: Path) -> Work:
    spec = main_spec(precision, weights)
    (folder / precision).mkdir(exist_ok=True)
    converted = convert(spec, weights, folder / precision) if runtime == "openvino" else None
    work = ExtractJob(DecodeJob(spec), weights, converted).start()
    return lambda clip: work(clip, lambda: None)


def encode_only(precision: str, weights: Path | None, runtime: str, folder: Path) -> Work:
    spec = main_spec(precision, weights)
    (folder / precision).mkdir(exist_ok=True)
    converted = convert(spec, weights, folder / precision) if runtime == "openvino" else None
    encoder = ExtractJob(DecodeJob(spec), weights, converted)._encoder()
    frames = np.random.default_rng(0).integers(0, 255, (FRAMES, 224, 224, 3), dtype=np.uint8)
    return lambda clip: encoder.encode(frames)


def gemm_gflops(dtype: torch.dtype) -> float:
    """Multiplications and additions a second of one core, in thousands of millions."""
    a, b = torch.randn(1024, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
    rates = []
    for _ in range(20):
        began = time.process_time()
        for _ in range(5):
            a @ b
        rates.append(5 * 2 * 1024**3 / (time.process_time() - began) / 1e9)
    return max(rates)


def cpu_seconds() -> float:
    """Of this process and of the programs that it ran."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def interleaved(contenders: dict[str, Work], clips: Sequence[Clip], rounds: int) -> dict[str, float]:
    """Median over rounds of the mean CPU milliseconds a clip."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for work in contenders.values():  # warm up
        work(clips[0])
    for _ in range(rounds):
        spent = dict.fromkeys(contenders, 0.0)
        for clip in clips:
            for name, work in contenders.items():
                began = cpu_seconds()
                work(clip)
                spent[name] += cpu_seconds() - began
        for name, seconds in spent.items():
            times[name].append(1000 * seconds / len(clips))
    return {name: statistics.median(values) for name, values in times.items()}


def table(title: str, times: dict[str, float], against: str, unit: str = "CPU ms a clip") -> None:
    click.echo(f"\n{title:<44} {unit:>14}   times as fast as '{against}'")
    for name, value in times.items():
        click.echo(f"  {name:<42} {value:14.1f}   {times[against] / value:.2f}")


def wall(clips: Sequence[Clip], weights: Path | None, precision: str, workers: int) -> float:
    """Clips a second between the first and the last, the workers started."""
    ends = []
    for _ in extract_clips(clips, main_spec(precision, weights), weights, RunSettings(device="cpu", workers=workers)):
        ends.append(time.monotonic())
    return (len(ends) - workers) / (ends[-1] - ends[workers - 1])


def wall_alone(work: Work, clips: Sequence[Clip]) -> float:
    """Clips a second of a contender in this process, free to use every core."""
    work(clips[0])
    began = time.monotonic()
    for clip in clips:
        work(clip)
    return len(clips) / (time.monotonic() - began)


def long_file(folder: Path, turns: int = 30) -> Path:
    """A 1080p file made of twenty seconds of a drawn scene over and over."""
    path, rate, seconds = folder / "long.mp4", 30, 20
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


def bench_wall(clips: Sequence[Clip], weights: Path | None, peer: Path | None, folder: Path) -> None:
    """Meaningful on an otherwise idle machine only."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    cv2.setNumThreads(cores)
    rates = {"naive: seek, transform, one at a time": wall_alone(naive(weights), clips)}
    if peer:
        rates["video_features, timm mobilenetv2"] = wall_alone(video_features(peer, folder), clips)
    for precision in ("fp32", "bf16"):
        one, all_cores = (wall(clips, weights, precision, workers) for workers in (1, cores))
        rates[f"this project, {precision}, 1 worker"] = one
        rates[f"this project, {precision}, {cores} workers"] = all_cores
        click.echo(f"\n  {precision}: {cores} workers reach {all_cores / one / cores:.0%} of {cores} times one")
    base = rates["naive: seek, transform, one at a time"]
    click.echo(f"\nwall time, {cores} cores for everyone                clips a second   against naive")
    for name, rate in rates.items():
        click.echo(f"  {name:<46} {rate:10.2f}   {rate / base:.2f}")


def bench_long(folder: Path) -> None:
    file = long_file(folder)
    spec = Sampling(frames=FRAMES)
    small = lambda image: cv2.resize(image, (224, 224))  # noqa: E731
    clip = Clip("long.mp4", file)
    times = interleaved(
        {
            "OpenCV, a seek a frame": lambda clip: opencv_frames(clip.file, FRAMES),
            "this project": lambda clip: read_frames(clip.file, spec, small),
        },
        [clip],
        3,
    )
    quick, sure = read_frames(file, spec, small), read_frames(file, spec, small, quick=False)
    table(f"ten minutes of 1080p ({file.stat().st_size / 1e6:.0f} MB), 12 frames", times, "OpenCV, a seek a frame")
    click.echo(f"  the same pixels as sequential decoding: {bool((quick.data == sure.data).all())}")
    short = long_file(folder, turns=1)
    windows = Sampling(kind="windows", frames=FRAMES, window_seconds=2, stride_seconds=0.5)
    times = interleaved(
        {
            "OpenCV, a seek a window and frame": lambda clip: opencv_windows(clip.file, windows),
            "this project, each frame once": lambda clip: read_frames(clip.file, windows, small),
        },
        [Clip("short.mp4", short)],
        1,
    )
    table("sliding windows, 2 s every 0.5 s, 20 s of 1080p", times, "OpenCV, a seek a window and frame")


@click.command()
@click.option("--videos", type=click.Path(path_type=Path), help="A folder or manifest; drawn clips by default.")
@click.option("--clips", "count", default=30, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--video-features", "peer", type=click.Path(path_type=Path), help="A checkout; needs timm and ffmpeg.")
@click.option("--long", "with_long", is_flag=True, help="A ten-minute 1080p file as well.")
def main(videos: Path | None, count: int, rounds: int, peer: Path | None, with_long: bool) -> None:
    """Print stage one's speed beside the alternatives'."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        weights = find_weights("mobilenet_v2", "auto") if os.environ.get("FEATURES_WEIGHTS") else None
    except UserFacingError:
        weights = None
    runtime = pick_runtime("auto", on_cpu=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = videos or draw_dataset(
            folder / "videos", classes={"normal": ["walk"], "hazardous": ["fall"]}, clips_per_class=count // 2, scenes=5
        )
        found = find_clips([source])
        clips = found[:: max(1, len(found) // count)][:count]
        click.echo(f"{len(clips)} clips of {source}, {rounds} rounds, runtime {runtime}, "
                   f"{'pretrained' if weights else 'random'} weights")  # fmt: skip
        decoding = interleaved(
            {
                "OpenCV, a seek a frame": lambda clip: opencv_frames(clip.file, FRAMES),
                "OpenCV, every frame": opencv_all,
                "OpenCV, grab all, retrieve the wanted": opencv_grab,
                "this project, decoded and prepared": (lambda work: lambda clip: work(clip, lambda: None))(
                    DecodeJob(main_spec("fp32", weights)).start()
                ),
                "floor: decoded, not converted": decode_only,
            },
            clips,
            rounds,
        )
        table("decoding 12 frames", decoding, "OpenCV, a seek a frame")
        encoding = interleaved(
            {
                f"{name} {precision}": encode_only(precision, weights, name, folder)
                for name in dict.fromkeys(("torch", runtime))
                for precision in ("fp32", "bf16")
            },
            clips[:10],
            rounds,
        )
        table("encoding 12 frames", encoding, "torch fp32")
        peers = {"video_features, timm mobilenetv2": video_features(peer, folder)} if peer else {}
        whole = interleaved(
            {
                **peers,
                "naive: seek, transform, one at a time": naive(weights),
                "this project, fp32": job("fp32", weights, runtime, folder),
                "this project, bf16": job("bf16", weights, runtime, folder),
            },
            clips,
            rounds,
        )
        table("the whole job", whole, "naive: seek, transform, one at a time")
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            peak = gemm_gflops(dtype)
            floor = decoding["floor: decoded, not converted"] + 1000 * FRAMES * GFLOP_A_FRAME / peak
            ratio = whole[f"this project, {precision}"] / floor
            click.echo(f"  {precision}: {ratio:.2f} times the floor of {floor:.0f} ms (GEMM peak {peak:.0f} GFLOP/s)")
        bench_wall(clips, weights, peer, folder)
        if with_long:
            bench_long(folder)


if __name__ == "__main__":
    main()
