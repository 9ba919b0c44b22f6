"""The highest sustainable frame rate of a machine, and tables of a long run."""

import csv
import os
import tempfile
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from processes import Usage
from sites import Site
from watching import Bucket, measure_monitor, median_and_p95

from features.live.cameras import RING_FRAMES

TRIAL_SECONDS = 12.0
MAX_RATIO = 1.1
"""The search stops once the lowest rate that is too high is at most this factor above the highest good one."""
MIN_PROCESSED_SHARE = 0.98
"""Smallest share of the requested frames that must be processed."""
COLUMNS = (
    *("second", "camera", "fps", "dropped", "skipped", "median_ms", "p95_ms"),
    *("monitor_mb", "others_mb", "monitor_cores", "others_cores", "elsewhere_cores", "alerts"),
)


def find_max_fps(site: Site, folder: Path, is_stopped: Callable[[], bool]) -> float:
    """Return the highest sustainable frames per second of each camera: double the rate, then narrow it down.

    A rate that fails is tried once more, because another program may have run at that moment. Raises ClickException if
    no rate is sustainable.
    """
    low, high = 0.0, 0.0
    fps = 4.0
    while not is_stopped() and (not high or high / max(low, 0.1) > MAX_RATIO):
        is_sustained = try_fps(site, fps, folder, is_stopped) or try_fps(site, fps, folder, is_stopped)
        low, high = (fps, high) if is_sustained else (low, fps)
        fps = (low * high) ** 0.5 if low and high else 2 * fps if low else fps / 2
    if not low:
        raise click.ClickException("this machine is too slow for so many cameras; use fewer with --cameras")
    return low


def try_fps(site: Site, fps: float, folder: Path, is_stopped: Callable[[], bool]) -> bool:
    """Run the monitor for some seconds at this rate and return whether it keeps up."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        buckets = measure_monitor(
            site, fps, Path(output), seconds=TRIAL_SECONDS, bucket_seconds=TRIAL_SECONDS, is_stopped=is_stopped
        )
    is_sustained, text = check_buckets(buckets, fps, len(site.cameras))
    click.echo(f"  {fps:5.2f} frames/s each: {text}")
    return is_sustained


def check_buckets(buckets: Sequence[Bucket], fps: float, cameras: int) -> tuple[bool, str]:
    """Return whether the monitor kept up with a rate, and a text with the numbers."""
    if not buckets:
        return False, "no frames were processed"
    taken, dropped = sum(b.fps * b.seconds for b in buckets), sum(sum(b.dropped.values()) for b in buckets)
    share = taken / sum(b.seconds for b in buckets) / fps / cameras
    late = median_and_p95([each for b in buckets for each in b.latencies.values()])[1]
    is_sustained = not dropped and share >= MIN_PROCESSED_SHARE and late < RING_FRAMES / 2 / fps
    elsewhere = sum(b.elsewhere for b in buckets) / sum(b.seconds for b in buckets)
    text = f"{share:.0%} processed, {dropped} dropped, 95 % within {1000 * late:.0f} ms"
    text += f", {elsewhere:.2f} cores busy elsewhere"
    return is_sustained, text + ("" if is_sustained else ": too fast")


def print_table(buckets: Sequence[Bucket], fps: float) -> None:
    """Print the results of the whole run, for all cameras together and for each."""
    seconds = sum(b.seconds for b in buckets)
    names = list(buckets[0].taken)
    click.echo(
        f"\n{len(names)} cameras, {fps:.2f} frames/s each, {seconds / 60:.1f} minutes, {os.cpu_count()} cores\n"
        f"{'':<12} {'frames/s':>9} {'dropped':>8} {'skipped':>8} {'latency ms':>11} {'95 %':>6}"
    )
    for title, chosen in [("all", names), *((name, [name]) for name in names)]:
        taken, dropped, skipped, latencies = sum_counters(buckets, chosen)
        median, late = median_and_p95(latencies)
        click.echo(
            f"{title:<12} {taken / seconds:9.2f} {dropped:8d} {skipped:8d} {1000 * median:11.0f} {1000 * late:6.0f}"
        )
    click.echo(f"\n{'':<24} {'cores busy':>10} {'MB at start':>12} {'peak':>8} {'at end':>8} {'libraries MB':>13}")
    for title, used in (
        ("the monitor", [b.monitor for b in buckets]),
        ("readers and others", [b.others for b in buckets]),
    ):
        click.echo(format_usage(title, used, seconds))
    elsewhere = [b.elsewhere / b.seconds for b in buckets]
    click.echo(
        f"{'other programs':<24} {sum(b.elsewhere for b in buckets) / seconds:10.2f}   (peak {max(elsewhere):.2f})"
    )
    click.echo(f"{sum(b.alerts for b in buckets)} alerts")


def format_usage(title: str, used: Sequence[Usage], seconds: float) -> str:
    """Return a table line with the cores and memory of some processes."""
    own = [each.own_bytes / 1e6 for each in used]
    busy = sum(each.cpu_seconds for each in used) / seconds
    libraries = used[-1].library_bytes / 1e6
    return f"{title:<24} {busy:10.2f} {own[0]:12.0f} {max(own):8.0f} {own[-1]:8.0f} {libraries:13.0f}"


def sum_counters(buckets: Sequence[Bucket], names: Sequence[str]) -> tuple[int, int, int, list[array]]:
    """Return the processed and dropped frames, the skipped packets and the latencies of some cameras."""
    taken, dropped, skipped = (
        sum(getattr(bucket, field)[name] for bucket in buckets for name in names)
        for field in ("taken", "dropped", "skipped")
    )
    return taken, dropped, skipped, [bucket.latencies[name] for bucket in buckets for name in names]


def write_csv(file: Path, buckets: Sequence[Bucket]) -> None:
    """Write one row per bucket and camera. Memory and cores are in the row for all cameras."""
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for b in buckets:
            for name in ("all", *b.taken):
                taken, dropped, skipped, latencies = sum_counters([b], list(b.taken) if name == "all" else [name])
                used = [u.own_bytes / 1e6 for u in (b.monitor, b.others)]
                used += [u.cpu_seconds / b.seconds for u in (b.monitor, b.others)] + [b.elsewhere / b.seconds]
                shared = [*(f"{value:.2f}" for value in used), b.alerts] if name == "all" else [""] * 6
                figures = [f"{1000 * value:.1f}" for value in median_and_p95(latencies)]
                writer.writerow(
                    [f"{b.start:.1f}", name, f"{taken / b.seconds:.3f}", dropped, skipped, *figures, *shared]
                )
