"""The cost of Ray: the same clips with the engines `local` and `ray` in turns, and the driver's CPU time per clip.

    python benchmarks/engines.py --videos FOLDER|MANIFEST [--clips 64] [--rounds 3] [--workers 2]

The time until each worker has finished one clip is the start. After it, the benchmark counts clips per second, which
need an idle machine, and CPU time per clip of this process and all its descendants.
"""

import os
import pickle
import statistics
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import click
from contenders import main_spec
from extract import find_pretrained_weights

from features.config import RunSettings
from features.extraction.engines import ENGINES, run_engine
from features.extraction.ray_actor_pool import ActorPool
from features.extraction.ray_engine import connect_ray
from features.extraction.ray_scheduler import Scheduler
from features.sources.discover import find_clips
from features.types import Clip, Failure

ROW_BYTES = 12 * 1280 * 2
"""Bytes of the result of one clip: twelve rows of MobileNetV2."""


class IdleWorker:
    """A worker that does nothing, so that only the cost of sending tasks and results remains."""

    def set_up(self, samples: list[str]) -> int:
        return 0

    def work(self, task: bytes) -> tuple[int, bytes]:
        return 0, pickle.dumps(Failure(pickle.loads(task), "none", "x" * ROW_BYTES))  # noqa: S301


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and all its descendants, alive or reaped."""
    children: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
        spent[int(folder.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    waiting, total = [os.getpid()], 0.0
    while waiting:
        process = waiting.pop()
        total += spent.get(process, 0.0)
        waiting += children.get(process, [])
    return total


def measure_engine(clips: list[Clip], weights: Path | None, engine: str, workers: int) -> tuple[float, float, float]:
    """Return the seconds to start, then clips per second and milliseconds of CPU time per clip."""
    settings = RunSettings(device="cpu", workers=workers, engine=engine)  # type: ignore[arg-type]
    began, ends, cpu = time.monotonic(), [], [0.0, 0.0]
    for _ in run_engine(clips, main_spec("fp32", weights), weights, settings):
        ends.append(time.monotonic())
        if len(ends) in (workers, len(clips)):
            cpu[len(ends) == len(clips)] = cpu_seconds()
    counted = len(ends) - workers
    return ends[workers - 1] - began, counted / (ends[-1] - ends[workers - 1]), 1000 * (cpu[1] - cpu[0]) / counted


def driver_milliseconds(workers: int, count: int = 2000) -> float:
    """Return the CPU time of the driver for one clip and its features, in milliseconds."""
    import ray

    with connect_ray(RunSettings(device="cpu", workers=workers)):
        make = ray.remote(IdleWorker).options(num_cpus=1).remote
        clips = [Clip(str(i), Path(f"{i}.mp4")) for i in range(count)]
        began = 0.0
        for i, _ in enumerate(
            Scheduler(clips, ActorPool(make, lambda: workers, sample_files=[], tasks_per_actor=2), None).run(bool)
        ):
            if i == count // 4:
                began = time.process_time()
        return 1000 * (time.process_time() - began) / (count - count // 4)


@click.command()
@click.option("--videos", type=click.Path(path_type=Path), required=True, help="Folder or manifest with the clips.")
@click.option("--clips", "count", default=64, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(videos: Path, count: int, rounds: int, workers: int) -> None:
    """Print the start-up time and the speed of each engine, and the driver's cost per clip."""
    weights, clips = find_pretrained_weights(), find_clips([videos])[:count]
    click.echo(f"driver: {driver_milliseconds(workers):.2f} ms of CPU time per clip")
    figures: dict[str, list[tuple[float, float, float]]] = {engine: [] for engine in ENGINES}
    for i in range(rounds):
        for engine in list(ENGINES)[:: 1 if i % 2 else -1]:
            figures[engine].append(measure_engine(clips, weights, engine, workers))
            text = "start {:.1f} s, then {:.2f} clips/s, {:.0f} ms of CPU time per clip".format(*figures[engine][-1])
            click.echo(f"  round {i + 1}, {engine}: {text}")
    for name, at in (("clips/s", 1), ("CPU time per clip", 2)):
        ratios = [ray[at] / plain[at] for ray, plain in zip(figures["ray"], figures["local"], strict=True)]
        click.echo(f"{name}, ray / local: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
