"""Timing of programs in turns, as medians of CPU time over rounds."""

import resource
import statistics
import time
from collections.abc import Callable, Sequence

import click

from features.types import Clip

Work = Callable[[Clip], object]


def measure_interleaved(contenders: dict[str, Work], clips: Sequence[Clip], rounds: int) -> dict[str, float]:
    """Return the median over rounds of the mean CPU milliseconds per clip, for each program."""
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


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the programs that it ran."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def print_times(title: str, times: dict[str, float], against: str, unit: str = "CPU ms per clip") -> None:
    """Print times, and how many times as fast as `against` each is."""
    click.echo(f"\n{title:<44} {unit:>14}   times as fast as '{against}'")
    for name, value in times.items():
        click.echo(f"  {name:<42} {value:14.1f}   {times[against] / value:.2f}")
