"""The rate that a machine bears, and what a long run took, in figures."""

import csv
import os
import tempfile
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from processes import Usage
from sites import Site
from watching import Bucket, spread, watched

from features.live.cameras import RING_FRAMES

TRIAL_SECONDS = 12.0
CLOSE_ENOUGH = 1.1
"""The rate is found once a rate that is too high is no further above it."""
LEAST_SHARE = 0.98
"""Of the frames asked for must be judged."""
COLUMNS = (
    *("second", "camera", "fps", "dropped", "skipped", "median_ms", "p95_ms"),
    *("monitor_mb", "others_mb", "monitor_cores", "others_cores", "elsewhere_cores", "alerts"),
)


def bearable_fps(site: Site, folder: Path, is_stopped: Callable[[], bool]) -> float:
    """The most frames a second of each camera that the machine bears: doubled until it does not, then narrowed down.

    A rate that is too much is tried once more: something else may have run just then.
    """
    low, high = 0.0, 0.0
    fps = 4.0
    while not is_stopped() and (not high or high / max(low, 0.1) > CLOSE_ENOUGH):
        is_borne = trial(site, fps, folder, is_stopped) or trial(site, fps, folder, is_stopped)
        low, high = (fps, high) if is_borne else (low, fps)
        fps = (low * high) ** 0.5 if low and high else 2 * fps if low else fps / 2
    if not low:
        raise click.ClickException("this machine does not bear so many cameras; give fewer")
    return low


def trial(site: Site, fps: float, folder: Path, is_stopped: Callable[[], bool]) -> bool:
    """Whether a rate is borne for some seconds."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        buckets = watched(
            site, fps, Path(output), seconds=TRIAL_SECONDS, bucket_seconds=TRIAL_SECONDS, is_stopped=is_stopped
        )
    is_borne, said = judge(buckets, fps, len(site.cameras))
    click.echo(f"  {fps:5.2f} frames/s of each: {said}")
    return is_borne


def judge(buckets: Sequence[Bucket], fps: float, cameras: int) -> tuple[bool, str]:
    """Whether a rate is borne, and why not."""
    if not buckets:
        return False, "nothing was seen"
    taken, dropped = sum(b.fps * b.seconds for b in buckets), sum(sum(b.dropped.values()) for b in buckets)
    share = taken / sum(b.seconds for b in buckets) / fps / cameras
    late = spread([each for b in buckets for each in b.latencies.values()])[1]
    is_borne = not dropped and share >= LEAST_SHARE and late < RING_FRAMES / 2 / fps
    elsewhere = sum(b.elsewhere for b in buckets) / sum(b.seconds for b in buckets)
    said = (
        f"{share:.0%} judged, {dropped} dropped, 95 % within {1000 * late:.0f} ms, {elsewhere:.2f} cores busy elsewhere"
    )
    return is_borne, said + ("" if is_borne else ": too much")


def print_table(buckets: Sequence[Bucket], fps: float) -> None:
    """All cameras together and each alone, over the whole run."""
    seconds = sum(b.seconds for b in buckets)
    names = list(buckets[0].taken)
    click.echo(
        f"\n{len(names)} cameras, {fps:.2f} frames/s of each, {seconds / 60:.1f} minutes, {os.cpu_count()} cores\n"
        f"{'':<12} {'frames/s':>9} {'dropped':>8} {'skipped':>8} {'latency ms':>11} {'95 %':>6}"
    )
    for title, chosen in [("all", names), *((name, [name]) for name in names)]:
        taken, dropped, skipped, latencies = totals(buckets, chosen)
        median, late = spread(latencies)
        click.echo(
            f"{title:<12} {taken / seconds:9.2f} {dropped:8d} {skipped:8d} {1000 * median:11.0f} {1000 * late:6.0f}"
        )
    click.echo(f"\n{'':<24} {'cores busy':>10} {'MB at first':>12} {'at most':>8} {'at last':>8} {'libraries MB':>13}")
    for title, used in (
        ("the monitor", [b.monitor for b in buckets]),
        ("readers and all others", [b.others for b in buckets]),
    ):
        click.echo(usage_line(title, used, seconds))
    elsewhere = [b.elsewhere / b.seconds for b in buckets]
    click.echo(
        f"{'other work':<24} {sum(b.elsewhere for b in buckets) / seconds:10.2f}   (at most {max(elsewhere):.2f})"
    )
    click.echo(f"{sum(b.alerts for b in buckets)} alerts")


def usage_line(title: str, used: Sequence[Usage], seconds: float) -> str:
    """Cores and memory of some processes."""
    own = [each.own_bytes / 1e6 for each in used]
    busy = sum(each.cpu_seconds for each in used) / seconds
    libraries = used[-1].library_bytes / 1e6
    return f"{title:<24} {busy:10.2f} {own[0]:12.0f} {max(own):8.0f} {own[-1]:8.0f} {libraries:13.0f}"


def totals(buckets: Sequence[Bucket], names: Sequence[str]) -> tuple[int, int, int, list[array]]:
    """Frames taken, dropped, packets skipped, and latencies, of some cameras."""
    taken, dropped, skipped = (
        sum(getattr(bucket, field)[name] for bucket in buckets for name in names)
        for field in ("taken", "dropped", "skipped")
    )
    return taken, dropped, skipped, [bucket.latencies[name] for bucket in buckets for name in names]


def write_csv(file: Path, buckets: Sequence[Bucket]) -> None:
    """A row a bucket and camera; memory and cores in the row of all of them."""
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for b in buckets:
            for name in ("all", *b.taken):
                taken, dropped, skipped, latencies = totals([b], list(b.taken) if name == "all" else [name])
                used = [u.own_bytes / 1e6 for u in (b.monitor, b.others)]
                used += [u.cpu_seconds / b.seconds for u in (b.monitor, b.others)] + [b.elsewhere / b.seconds]
                shared = [*(f"{value:.2f}" for value in used), b.alerts] if name == "all" else [""] * 6
                figures = [f"{1000 * value:.1f}" for value in spread(latencies)]
                writer.writerow(
                    [f"{b.start:.1f}", name, f"{taken / b.seconds:.3f}", dropped, skipped, *figures, *shared]
                )
