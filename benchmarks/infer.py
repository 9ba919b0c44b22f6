"""Both stages chained: the time to the first decoded frame, and the cost of inference compared with stage one.

    python benchmarks/infer.py                         on synthetic clips, random weights, a new small model
    python benchmarks/infer.py --videos FOLDER --model runs/NAME       on real ones

Start-up is measured on the real command in its own process: wall time since its start, and the CPU time of all its
processes. It needs an otherwise idle machine, and is measured with an empty and with a filled cache. Everything else is
CPU time of one thread in this process. The programs take turns, clip by clip and round by round.
"""

import ctypes
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import click
import cv2
import torch
from extract import choose_clips, find_pretrained_weights
from long_video import write_long_video
from measure import Work, measure_interleaved, print_times

from features.cli.extract import extract_features
from features.config import RunSettings
from features.encoders.openvino_cache import get_openvino_network
from features.encoders.openvino_encoder import pick_runtime
from features.extraction.jobs import DecodeJob, ExtractJob
from features.spec import FeatureSpec, Sampling
from features.types import Clip, ExtractedClip
from features.video.windows import Windowing
from hazard.cli.train import train_temporal
from hazard.inference.predict import predict_outcomes
from hazard.inference.result_store import FileStat, ResultStore, open_result_store
from hazard.inference.settings import InferSettings
from hazard.inference.windowing import choose_windows
from hazard.models.input_spec import find_model_weights
from hazard.models.model_folder import open_model
from hazard.models.predictor import Predictor

ROOT = Path(__file__).resolve().parent.parent
FIRST, READY, NETWORK = "decoded its first frame", "a worker is ready", "the network for OpenVINO"
COMMAND = """
import logging
logging.basicConfig(format="%(created)f %(message)s")
logging.getLogger("features").setLevel(logging.DEBUG)
from hazard.cli.infer import main
logging.getLogger("features").debug("the command line is read")
main()
"""
TOGETHER = 16
"""Clips that go through the model at once: about what two cores extract in one or two seconds."""
ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER: workers are grandchildren, and their time counts too


@dataclass(frozen=True)
class StartTimes:
    """Seconds since the start of a command, and the CPU time of all its processes."""

    command: float
    network: float
    ready: float
    first: float
    report: float
    cpu: float


def start_once(clip: Path, model: Path, options: Sequence[str], cache_dir: Path) -> StartTimes:
    """Run the command on one clip and return its times."""
    before, began = _cpu_of_children(), time.time()
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-c", COMMAND, str(clip), "--model", str(model), "-o", output, *options]
        run = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"HAZARD_CACHE_DIR": str(cache_dir)}, capture_output=True, text=True
        )
        seconds = time.time() - began
    if run.returncode:
        raise click.ClickException(run.stderr)
    _reap_all()

    def when(message: str) -> float:
        lines = [line for line in run.stderr.splitlines() if message in line]
        return float(lines[0].split()[0]) - began if lines else float("nan")

    at = [when(message) for message in ("the command line is read", NETWORK, READY, FIRST)]
    return StartTimes(*at, seconds, _cpu_of_children() - before)


def _reap_all() -> None:
    """Wait for the processes that the command left behind. They end by themselves."""
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bench_start(clip: Path, model: Path, rounds: int, folder: Path) -> None:
    """Print the start-up times of the command: with a filled cache, with an empty one, and with PyTorch."""
    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1)
    filled_cache, empty_cache = folder / "filled", folder / "empty"
    ways: dict[str, Callable[[], StartTimes]] = {
        "PyTorch": lambda: start_once(clip, model, ["--runtime", "torch"], filled_cache)
    }
    if pick_runtime("auto", on_cpu=True) == "openvino":

        def first_run() -> StartTimes:
            shutil.rmtree(empty_cache, ignore_errors=True)
            return start_once(clip, model, [], empty_cache)

        ways = {
            "OpenVINO": lambda: start_once(clip, model, [], filled_cache),
            "OpenVINO, empty cache": first_run,
            **ways,
        }
    runs: dict[str, list[StartTimes]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            found = way()
            if turn:  # the first one warms the disk's cache
                runs[name].append(found)
    click.echo(
        f"\nstart-up, seconds since the start                command  network   worker    first     report    total\n"
        f"  (medians of {rounds}; load {os.getloadavg()[0]:.1f})                         read    there    ready    "
        "frame  is written      CPU"
    )
    for name, found in runs.items():
        fields = [[getattr(run, field) for run in found] for field in StartTimes.__dataclass_fields__]
        click.echo(f"  {name:<46}" + "".join(f"{statistics.median(values):9.2f}" for values in fields))


@dataclass(frozen=True)
class Chain:
    """Both stages, run in this process on one thread."""

    spec: FeatureSpec
    weights: Path | None
    converted: Path | None
    predictor: Predictor
    results: ResultStore

    def extract(self, spec: FeatureSpec, *, pictures: bool = False, windows: Windowing | None = None) -> Work:
        """Return a function that extracts the features of a clip."""
        work = ExtractJob(DecodeJob(spec, pictures, windows), self.weights, self.converted).start()
        return lambda clip: _require_extracted(work(clip, lambda: None))

    def infer(self, clips: Sequence[Clip], windows: Windowing) -> Work:
        """Return stage one with thumbnails, then the model and the result store, in batches as in a real run."""
        extract = self.extract(self.spec, pictures=True, windows=windows)
        waiting: list[ExtractedClip] = []

        def extract_and_predict(clip: Clip) -> None:
            waiting.append(_require_extracted(extract(clip)))
            if len(waiting) >= TOGETHER or clip is clips[-1]:
                for outcome, found in zip(waiting, predict_outcomes(waiting, self.predictor), strict=True):
                    self.results.add(found, FileStat(outcome.clip.size_bytes, outcome.clip.mtime_ns))
                waiting.clear()

        return extract_and_predict

    def head(self, clips: Sequence[Clip], windows: Windowing) -> Work:
        """Return only the prediction, for clips that are extracted before. The first clip of a batch does all of it."""
        extract = self.extract(self.spec, pictures=True, windows=windows)
        known = [_require_extracted(extract(clip)) for clip in clips]
        batches = {clips[at].path: known[at : at + TOGETHER] for at in range(0, len(clips), TOGETHER)}
        return lambda clip: predict_outcomes(batches.get(clip.path, []), self.predictor)


def _require_extracted(outcome: object) -> ExtractedClip:
    if not isinstance(outcome, ExtractedClip):
        raise click.ClickException(f"a clip cannot be used: {outcome}")
    return outcome


def bench_batch(chain: Chain, clips: Sequence[Clip], rounds: int) -> None:
    """Print the cost of inference compared with extraction, and the part of it that is the head."""
    windows = choose_windows(chain.predictor.info, InferSettings())
    names = "stage one, as extract-features runs it", "inference", "the model's part of it"
    works = (chain.extract(chain.spec), chain.infer(clips, windows), chain.head(clips, windows))
    times = measure_interleaved(dict(zip(names, works, strict=True)), clips, rounds)
    print_times(f"{len(clips)} clips", times, names[0])
    stage_one, whole, head = (times[name] for name in names)
    click.echo(f"  inference costs {whole / stage_one:.3f} times stage one; the model is {head / whole:.2%} of it")


def bench_long(chain: Chain, folder: Path, rounds: int, seconds: int) -> None:
    """Print the cost of sliding windows over a long file compared with reading as many frames once."""
    clip = Clip("long.mp4", write_long_video(folder, turns=max(1, seconds // 20)))
    windows = choose_windows(chain.predictor.info, InferSettings())
    outcome = _require_extracted(chain.extract(chain.spec, pictures=True, windows=windows)(clip))
    if outcome.windows is None or chain.spec.sampling.kind == "snippets":
        click.echo("\nwindows: left out, because the model reads snippets or its window is as long as the file")
        return
    rows = len(outcome.windows.features)
    once = Sampling(kind="rate", frames=None, fps=rows / outcome.windows.duration)
    names = "one pass of stage one", "the model, on all windows", "inference in sliding windows"
    works = (
        chain.extract(chain.spec.model_copy(update={"sampling": once})),
        chain.head([clip], windows),
        chain.infer([clip], windows),
    )
    times = measure_interleaved(dict(zip(names, works, strict=True)), [clip], rounds)
    shape = f"{windows.window_seconds:g} s every {windows.stride_seconds:g} s"
    print_times(f"{outcome.windows.duration:.0f} s of 1080p, {shape}", times, names[0])
    one, head, whole = (times[name] for name in names)
    click.echo(
        f"  {len(outcome.windows.rows)} windows, {sum(map(len, outcome.windows.rows))} frames in them, {rows} of "
        f"them different; {whole / (one + head):.3f} times one pass and the model"
    )


def train_small_model(clips: Sequence[Clip], folder: Path, weights: Path | None) -> Path:
    """Train a small model on these clips and return its folder. Its predictions do not matter here."""
    sources = [str(clip.file) for clip in clips]
    manifest = folder / "model.csv"
    lines = [f"{source},{'ab'[i % 2]},{i}" for i, source in enumerate(sources)]
    manifest.write_text("\n".join(["path,label,group", *lines]) + "\n")
    common = ["-o", str(folder / "model.h5"), "--weights", str(weights or "random")]
    extract_features.main([str(manifest), *common], standalone_mode=False)
    quick = ["--epochs", "2", "--set", "members=1", "--set", "duplicates=ignore"]
    train_temporal.main([str(folder / "model.h5"), "-o", str(folder / "model"), *quick], standalone_mode=False)
    return folder / "model"


@click.command()
@click.option("--videos", type=click.Path(path_type=Path), help="Folder or manifest. Default: synthetic clips.")
@click.option("--model", type=click.Path(path_type=Path), help="Model folder. Default: a small new model.")
@click.option("--clips", "count", default=30, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--long-seconds", default=120, show_default=True, help="Length of the long file.")
@click.option("--only", type=click.Choice(["start", "batch", "long"]))
def main(videos: Path | None, model: Path | None, count: int, rounds: int, long_seconds: int, only: str | None) -> None:
    """Print the start-up time of inference and its cost compared with stage one."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = choose_clips(videos, count, folder)
        model = (model or train_small_model(clips, folder, find_pretrained_weights())).resolve()
        if only in (None, "start"):
            bench_start(clips[0].file.resolve(), model, rounds, folder)
        if only == "start":
            return
        predictor = open_model(model)
        spec = predictor.info.spec
        weights = find_model_weights(spec, "auto", hint=predictor.info.weights_file)
        runtime = pick_runtime(RunSettings().runtime, on_cpu=True)
        converted = get_openvino_network(spec, weights, folder) if runtime == "openvino" else None
        with open_result_store(folder / "report") as results:
            chain = Chain(spec, weights, converted, predictor, results)
            if only in (None, "batch"):
                bench_batch(chain, clips, rounds)
            if only in (None, "long"):
                bench_long(chain, folder, rounds, long_seconds)


if __name__ == "__main__":
    main()
