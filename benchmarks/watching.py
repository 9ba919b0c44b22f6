"""The function of `hazard monitor`, run with counters between it and its cameras."""

import math
import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
from processes import Usage, find_descendants, machine_cpu_seconds, measure_usage
from sites import Site

from features.live.cameras import LiveCameras
from features.live.types import CameraCounters, LiveFrame, StatusChange
from hazard.alerts.settings import load_alert_settings
from hazard.monitor import run as monitor_run
from hazard.monitor.detector import CameraEvent, LiveDetector, Observer
from hazard.monitor.settings import MonitorSettings

WARM_UP_SECONDS = 5.0
"""Seconds after the last camera has sent its first frame."""
START_SECONDS = 120.0
"""Seconds that the first frames may take."""

ExtraChanges = Callable[[float], Sequence[StatusChange]]
"""A function of the seconds since the start that returns further status changes."""


@dataclass(frozen=True)
class Bucket:
    """The counters of some seconds of the monitor."""

    start: float  # seconds since the warm-up
    seconds: float
    taken: dict[str, int]
    dropped: dict[str, int]
    skipped: dict[str, int]
    latencies: dict[str, array]
    """Seconds from the arrival of each frame until its results are written, by camera."""
    monitor: Usage
    others: Usage
    """Readers, their fork server and the delivery of alerts."""
    elsewhere: float
    """CPU seconds of all other programs on this machine."""
    alerts: int

    @property
    def fps(self) -> float:
        """Processed frames per second of all cameras."""
        return sum(self.taken.values()) / self.seconds


@dataclass
class MeteredCameras:
    """Live cameras with counters. Everything that is not defined here is passed on to the cameras."""

    live: LiveCameras
    seconds: float
    bucket_seconds: float
    extra: ExtraChanges
    buckets: list[Bucket] = field(default_factory=list)
    alerts: int = 0
    latencies: dict[str, array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.created, self.began = time.monotonic(), math.inf
        self._unseen = set(self.live.counters())
        self._since: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.live, name)

    def poll(self, timeout_seconds: float) -> list[LiveFrame | StatusChange]:
        found = self.live.poll(timeout_seconds)
        now = time.monotonic()
        if self._unseen:
            self._unseen -= {item.camera for item in found if isinstance(item, LiveFrame)}
            self._wait_for_all(now)
        return [*found, *self.extra(now - self.began)] if now >= self.began else found

    def _wait_for_all(self, now: float) -> None:
        if not self._unseen:
            self.began = now + WARM_UP_SECONDS
        elif now - self.created > START_SECONDS:
            reasons = {self.live.counters()[name].reason or "no frames" for name in self._unseen}
            raise click.ClickException(f"{', '.join(sorted(self._unseen))}: {', '.join(sorted(reasons))}")

    @property
    def is_done(self) -> bool:
        return time.monotonic() >= self.began + self.seconds

    def count_processed(self, items: Sequence[LiveFrame | StatusChange]) -> None:
        """Count the items of one poll after all of them have been processed."""
        now = time.monotonic()
        if now < self.began:
            return
        if self._since is None:
            self._start(now)
        for frame in items:
            if isinstance(frame, LiveFrame):
                self.latencies[frame.camera].append(now - frame.arrived)
        if now - self._since >= self.bucket_seconds:
            self.end_bucket(now)

    def end_bucket(self, now: float) -> None:
        """Add the bucket so far to `buckets` and begin the next one."""
        if self._since is None or now - self._since < 1:
            return
        counts, used = self.live.counters(), _measure_usages()
        monitor, others, all_of_it = (
            replace(new, cpu_seconds=new.cpu_seconds - old.cpu_seconds)
            for new, old in zip(used, self._used, strict=True)
        )
        self.buckets.append(
            Bucket(
                self._since - self.began,
                now - self._since,
                {name: len(each) for name, each in self.latencies.items()},
                {name: count.dropped - self._counts[name].dropped for name, count in counts.items()},
                {name: count.skipped - self._counts[name].skipped for name, count in counts.items()},
                self.latencies,
                monitor,
                others,
                max(0.0, all_of_it.cpu_seconds - monitor.cpu_seconds - others.cpu_seconds),
                self.alerts,
            )
        )
        self._start(now)

    def _start(self, now: float) -> None:
        self._since, self._used, self.alerts = now, _measure_usages(), 0
        self._counts: dict[str, CameraCounters] = self.live.counters()
        self.latencies = {name: array("f") for name in self._counts}


def _measure_usages() -> tuple[Usage, Usage, Usage]:
    """Return the usage of this process, of its descendants and of the whole machine."""
    others = sum(map(measure_usage, find_descendants(os.getpid())), Usage())
    return measure_usage(os.getpid()), others, Usage(cpu_seconds=machine_cpu_seconds())


def measure_monitor(
    site: Site,
    fps: float | None,
    output: Path,
    *,
    seconds: float,
    bucket_seconds: float = 10.0,
    alerts_file: Path | None = None,
    extra: ExtraChanges = lambda at: (),
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[Bucket]:
    """Run the monitor for `seconds`, after a few seconds to warm up, and return its buckets.

    Raises UserFacingError if the monitor cannot start, and ClickException if a camera sends no frames.
    """
    meters: list[MeteredCameras] = []
    watch_cameras = monitor_run.watch_cameras

    def watch_metered(
        live: LiveCameras,
        detector: LiveDetector,
        *,
        is_stopped: Callable[[], bool],
        observers: Sequence[Observer],
        **more: Any,
    ) -> Iterator[CameraEvent]:
        meter = MeteredCameras(live, seconds, bucket_seconds, extra)
        meters.append(meter)

        def is_over() -> bool:
            return is_stopped() or meter.is_done

        yield from watch_cameras(
            meter, detector, is_stopped=is_over, observers=[*observers, meter.count_processed], **more
        )
        meter.end_bucket(time.monotonic())

    def count_alerts(text: str, **facts: object) -> None:
        if "kind" in facts:  # it is an alert
            meters[0].alerts += 1

    with mock.patch.object(monitor_run, "watch_cameras", watch_metered):
        monitor_run.run_monitor(
            site.cameras,
            site.model,
            output,
            site.settings(fps),
            MonitorSettings(),
            alerts=load_alert_settings(alerts_file) if alerts_file else None,
            is_stopped=is_stopped,
            echo=count_alerts,
        )
    return meters[0].buckets


def median_and_p95(latencies: Sequence[array]) -> tuple[float, float]:
    """Return the median and the 95th percentile in seconds, or NaN without latencies."""
    every = np.concatenate([np.asarray(each) for each in latencies]) if latencies else np.empty(0)
    return (float(np.median(every)), float(np.quantile(every, 0.95))) if len(every) else (float("nan"), float("nan"))
