"""Runs of the monitor with one kind of alert receiver, and the table of all runs."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import click
from live_run import sum_counters
from sites import Site
from watching import Bucket, ExtraChanges, measure_monitor, median_and_p95
from webhook_receiver import run_receiver

from features.live.types import StatusChange
from hazard.monitor.events.event_processor import OUTBOX_FILE_NAME

MAX_DIFFERENCE = 0.02
"""Largest accepted difference, as a share of the frames per second with a working receiver."""


def alternate_changes(names: Sequence[str]) -> ExtraChanges:
    """Return a source of one status change per second: each camera goes offline, then each comes back."""
    turns = cycle([(name, kind) for kind in ("offline", "back") for name in names])
    last = -1e9

    def extra(at: float) -> list[StatusChange]:
        nonlocal last
        if at - last < 1:
            return []
        last = at
        name, kind = next(turns)
        return [StatusChange(name, kind, datetime.now(UTC), None, "simulated by the benchmark")]

    return extra


def run_beside_receiver(
    kind: str, site: Site, fps: float | None, seconds: float, folder: Path
) -> tuple[list[Bucket], dict[str, int]]:
    """Run the monitor once; return its buckets and the numbers of delivered, waiting and failed alerts."""
    folder.mkdir()
    with run_receiver(kind, folder) as alerts_file:
        buckets = measure_monitor(
            site,
            fps,
            folder / "watched",
            seconds=seconds,
            bucket_seconds=seconds,
            alerts_file=alerts_file,
            extra=alternate_changes([camera.name for camera in site.cameras]),
        )
    with closing(sqlite3.connect(folder / "watched" / OUTBOX_FILE_NAME)) as outbox:
        sql = "select state, count(*), sum(attempts) from deliveries group by state"
        rows = {state: (count, attempts) for state, count, attempts in outbox.execute(sql)}
    done, waiting = rows.get("done", (0, 0)), rows.get("pending", (0, 0))
    return buckets, {"delivered": done[0], "waiting": waiting[0], "failures": done[1] + waiting[1]}


def print_table(found: dict[str, list[Bucket]], alerts: dict[str, list[dict[str, int]]], fps: float) -> None:
    """Print one line per receiver for all rounds together."""
    names = list(found["fine"][0].taken)
    rates = {kind: sum(b.fps * b.seconds for b in each) / sum(b.seconds for b in each) for kind, each in found.items()}
    click.echo(
        f"\n{len(names)} cameras, {fps:.2f} frames/s each, {len(found['fine'])} rounds, {os.cpu_count()} cores\n"
        f"{'receiver':<10} {'frames/s':>9} {'vs. fine':>13} {'dropped':>8} {'latency ms':>11} {'95 %':>6} "
        f"{'delivered':>10} {'waiting':>8} {'failures':>9}"
    )
    for kind, buckets in found.items():
        _, dropped, _, latencies = sum_counters(buckets, names)
        median, late = (1000 * value for value in median_and_p95(latencies))
        counts = "".join(
            f" {sum(one[name] for one in alerts[kind]):>{width}}"
            for name, width in (("delivered", 10), ("waiting", 8), ("failures", 9))
        )
        ratio = rates[kind] / rates["fine"]
        click.echo(f"{kind:<10} {rates[kind]:9.2f} {ratio:13.3f} {dropped:8d} {median:11.0f} {late:6.0f}{counts}")
    worst = max(abs(rate / rates["fine"] - 1) for rate in rates.values())
    verdict = "accepted" if worst <= MAX_DIFFERENCE else "TOO LARGE"
    click.echo(f"the largest difference is {worst:.1%}: {verdict} (limit {MAX_DIFFERENCE:.0%})")
