"""How things are timed: in turns, as CPU time, medians of rounds."""

import resource
import statistics
import time
from collections.abc import Callable, Sequence

import click

from features.types import Clip

Work = Callable[[Clip], object]


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


def cpu_seconds() -> float:
    """Of this process and of the programs that it ran."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def table(title: str, times: dict[str, float], against: str, unit: str = "CPU ms a clip") -> None:
    """Prints times, and how many times as fast as one of them each is."""
    click.echo(f"\n{title:<44} {unit:>14}   times as fast as '{against}'")
    for name, value in times.items():
        click.echo(f"  {name:<42} {value:14.1f}   {times[against] / value:.2f}")
