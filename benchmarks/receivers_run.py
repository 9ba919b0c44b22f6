"""Watching beside one receiver of alerts or another, and the table of all of them."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import click
from live_run import totals
from sites import Site
from watching import Bucket, Extra, spread, watched
from webhook_receiver import receiver

from features.live.types import StatusChange
from hazard.monitor.events.event_processor import OUTBOX_FILE_NAME

WITHIN = 0.02
"""Of the frames a second beside a receiver that is fine."""


def one_a_second(names: Sequence[str]) -> Extra:
    """Each second another camera is said to be offline, and after all of them to be back."""
    turns = cycle([(name, kind) for kind in ("offline", "back") for name in names])
    last = -1e9

    def extra(at: float) -> list[StatusChange]:
        nonlocal last
        if at - last < 1:
            return []
        last = at
        name, kind = next(turns)
        return [StatusChange(name, kind, datetime.now(UTC), None, "said by the benchmark")]

    return extra


def beside(
    kind: str, site: Site, fps: float | None, seconds: float, folder: Path
) -> tuple[list[Bucket], dict[str, int]]:
    """One run, and how many alerts were delivered and wait."""
    folder.mkdir()
    with receiver(kind, folder) as alerts_file:
        buckets = watched(
            site,
            fps,
            folder / "watched",
            seconds=seconds,
            bucket_seconds=seconds,
            alerts_file=alerts_file,
            extra=one_a_second([camera.name for camera in site.cameras]),
        )
    with closing(sqlite3.connect(folder / "watched" / OUTBOX_FILE_NAME)) as outbox:
        sql = "select state, count(*), sum(attempts) from deliveries group by state"
        rows = {state: (count, attempts) for state, count, attempts in outbox.execute(sql)}
    done, waiting = rows.get("done", (0, 0)), rows.get("pending", (0, 0))
    return buckets, {"delivered": done[0], "waiting": waiting[0], "failures": done[1] + waiting[1]}


def print_table(found: dict[str, list[Bucket]], alerts: dict[str, list[dict[str, int]]], fps: float) -> None:
    """A line a receiver, all rounds together."""
    names = list(found["fine"][0].taken)
    rates = {kind: sum(b.fps * b.seconds for b in each) / sum(b.seconds for b in each) for kind, each in found.items()}
    click.echo(
        f"\n{len(names)} cameras, {fps:.2f} frames/s of each, {len(found['fine'])} rounds, {os.cpu_count()} cores\n"
        f"{'receiver':<10} {'frames/s':>9} {'against fine':>13} {'dropped':>8} {'latency ms':>11} {'95 %':>6} "
        f"{'delivered':>10} {'waiting':>8} {'failures':>9}"
    )
    for kind, buckets in found.items():
        _, dropped, _, latencies = totals(buckets, names)
        median, late = (1000 * value for value in spread(latencies))
        counts = "".join(
            f" {sum(one[name] for one in alerts[kind]):>{width}}"
            for name, width in (("delivered", 10), ("waiting", 8), ("failures", 9))
        )
        ratio = rates[kind] / rates["fine"]
        click.echo(f"{kind:<10} {rates[kind]:9.2f} {ratio:13.3f} {dropped:8d} {median:11.0f} {late:6.0f}{counts}")
    worst = max(abs(rate / rates["fine"] - 1) for rate in rates.values())
    click.echo(f"the largest difference is {worst:.1%}; {'within' if worst <= WITHIN else 'MORE THAN'} {WITHIN:.0%}")
