"""The Prometheus metrics of a monitor: their names, labels and help texts."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from features.errors import UserFacingError
from hazard.monitor.metrics.counters import LATENCY_BUCKETS_SECONDS, CountersSnapshot, MonitorCounters

if TYPE_CHECKING:
    from prometheus_client.core import Metric

OUTBOX_INTERVAL_SECONDS = 5.0
"""Shortest time between two queries of the outbox, which is a database."""
CAMERA_COUNTERS = {
    "hazard_frames_decoded": ("decoded", "Frames received from the camera."),
    "hazard_frames_picked": ("picked", "Frames picked at the frame rate of the model."),
    "hazard_frames_dropped": ("dropped", "Picked frames that were not processed in time."),
    "hazard_packets_skipped": ("skipped", "Packets skipped without decoding because the reader was behind."),
    "hazard_camera_reconnects": ("reconnects", "Connections after the first."),
}
"""Metric name → field of CameraCounters, and help text."""

log = logging.getLogger(__name__)


class MetricsCollector:
    """A collector for prometheus_client. It is safe to use from any thread, and never makes the main thread wait."""

    def __init__(self, counters: MonitorCounters, count_outbox: Callable[[], Mapping[str, int]] | None = None) -> None:
        self._counters, self._count_outbox = counters, count_outbox
        self._lock = threading.Lock()
        self._cached_outbox_counts: Mapping[str, int] = {}
        self._last_outbox_query = -OUTBOX_INTERVAL_SECONDS

    def collect(self) -> Iterator["Metric"]:
        """Yield all metric families, taken from one snapshot."""
        snapshot = self._counters.snapshot
        yield from _camera_families(snapshot, time.monotonic())
        yield _latency_family(snapshot)
        yield from _event_families(snapshot)
        yield from _outbox_families(self._read_outbox_counts())
        yield from _program_families(snapshot)

    def _read_outbox_counts(self) -> Mapping[str, int]:
        with self._lock:  # against other scrapes
            if self._count_outbox and time.monotonic() - self._last_outbox_query >= OUTBOX_INTERVAL_SECONDS:
                self._last_outbox_query = time.monotonic()
                try:
                    self._cached_outbox_counts = self._count_outbox()
                except UserFacingError as error:
                    self._cached_outbox_counts = {}  # no number is better than an old one
                    log.warning("metrics: the outbox could not be counted: %s", error)
            return self._cached_outbox_counts


def _camera_families(snapshot: CountersSnapshot, now: float) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for name, (field, help_text) in CAMERA_COUNTERS.items():
        counter = CounterMetricFamily(name, help_text, labels=["camera"])
        for camera, counters in snapshot.cameras.items():
            counter.add_metric([camera], getattr(counters, field))
        yield counter
    processed = CounterMetricFamily("hazard_frames_judged", "Frames that the model has processed.", labels=["camera"])
    up = GaugeMetricFamily("hazard_camera_up", "1 while frames arrive, else 0.", labels=["camera"])
    help_text = "Seconds since the newest frame arrived; absent before the first."
    age = GaugeMetricFamily("hazard_camera_last_frame_age_seconds", help_text, labels=["camera"])
    for camera, counters in snapshot.cameras.items():
        processed.add_metric([camera], snapshot.count_judged_frames(camera))
        up.add_metric([camera], float(counters.state == "live"))
        if counters.last_frame_age is not None:
            age.add_metric([camera], counters.last_frame_age + now - snapshot.taken_at)
    yield from (processed, up, age)


def _latency_family(snapshot: CountersSnapshot) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.utils import floatToGoString

    help_text = "Seconds from the arrival of a frame until it was processed and its events were logged."
    family = HistogramMetricFamily("hazard_frame_latency_seconds", help_text, labels=["camera"])
    bounds = [floatToGoString(bound) for bound in (*LATENCY_BUCKETS_SECONDS, float("inf"))]
    for camera, counts in snapshot.latencies.items():
        buckets = [(bound, float(sum(counts[: i + 1]))) for i, bound in enumerate(bounds)]
        family.add_metric([camera], buckets, snapshot.latency_sums[camera])
    return family


def _event_families(snapshot: CountersSnapshot) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily

    events = CounterMetricFamily(
        "hazard_events", "Events that began, with or without an alert.", labels=["camera", "label"]
    )
    for (camera, label), count in snapshot.events.items():
        events.add_metric([camera, label], count)
    alerts = CounterMetricFamily("hazard_alerts", "Alerts by kind: event, offline or back.", labels=["camera", "kind"])
    for (camera, kind), count in snapshot.alerts.items():
        alerts.add_metric([camera, kind], count)
    help_text = "Events without an alert because the camera had reached its alerts per minute."
    muted = CounterMetricFamily("hazard_alerts_muted", help_text, labels=["camera"])
    for camera, count in snapshot.muted.items():
        muted.add_metric([camera], count)
    yield from (events, alerts, muted)


def _outbox_families(counts: Mapping[str, int]) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    if counts:
        help_text = "Alerts waiting for delivery, counted once per channel."
        yield GaugeMetricFamily("hazard_outbox_pending", help_text, value=counts["pending"])
        help_text = "Alerts that could not be delivered (dead letters), counted once per channel."
        yield GaugeMetricFamily("hazard_outbox_dead", help_text, value=counts["dead"])


def _program_families(snapshot: CountersSnapshot) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    try:
        package_version = version("hazard-video")
    except PackageNotFoundError:  # run from a checkout
        package_version = "unknown"
    values = {"version": package_version, "python": sys.version.split()[0]}
    yield InfoMetricFamily("hazard_build", "Version of the running monitor.", value=values)
    if snapshot.last_poll:
        help_text = "Time of the last poll of the cameras, in seconds since 1970; it stops if the monitor hangs."
        yield GaugeMetricFamily("hazard_last_look_timestamp_seconds", help_text, value=snapshot.last_poll)
