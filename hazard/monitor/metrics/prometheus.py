"""What a tally holds, as Prometheus collects it: names, labels and meanings of all metrics of a monitor."""

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
"""The outbox, a database, is asked no more often."""
CAMERA_COUNTERS = {
    "hazard_frames_decoded": ("decoded", "Frames that came from the camera."),
    "hazard_frames_picked": ("picked", "Frames at the rate that the model looks at."),
    "hazard_frames_dropped": ("dropped", "Picked frames that nobody took in time."),
    "hazard_packets_skipped": ("skipped", "Packets passed over undecoded because the reader had fallen behind."),
    "hazard_camera_reconnects": ("reconnects", "Connections after the first."),
}
"""Counter → its field of CameraCounters, and what it means."""

log = logging.getLogger(__name__)


class MetricsCollector:
    """A collector of prometheus_client's; any thread may ask it, and none makes the one that watches wait."""

    def __init__(self, counters: MonitorCounters, count_outbox: Callable[[], Mapping[str, int]] | None = None) -> None:
        self._counters, self._count_outbox = counters, count_outbox
        self._lock = threading.Lock()
        self._cached_outbox_counts: Mapping[str, int] = {}
        self._last_outbox_query = -OUTBOX_INTERVAL_SECONDS

    def collect(self) -> Iterator["Metric"]:
        """All families, of one snapshot."""
        snapshot = self._counters.snapshot
        yield from _camera_families(snapshot, time.monotonic())
        yield _latency_family(snapshot)
        yield from _event_families(snapshot)
        yield from _outbox_families(self._read_outbox_counts())
        yield from _program_families(snapshot)

    def _read_outbox_counts(self) -> Mapping[str, int]:
        with self._lock:  # of scrapes among each other
            if self._count_outbox and time.monotonic() - self._last_outbox_query >= OUTBOX_INTERVAL_SECONDS:
                self._last_outbox_query = time.monotonic()
                try:
                    self._cached_outbox_counts = self._count_outbox()
                except UserFacingError as error:
                    self._cached_outbox_counts = {}  # no number rather than an old one
                    log.warning("metrics: %s", error)
            return self._cached_outbox_counts


def _camera_families(snapshot: CountersSnapshot, now: float) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for name, (field, meaning) in CAMERA_COUNTERS.items():
        counter = CounterMetricFamily(name, meaning, labels=["camera"])
        for camera, counters in snapshot.cameras.items():
            counter.add_metric([camera], getattr(counters, field))
        yield counter
    judged = CounterMetricFamily("hazard_frames_judged", "Frames that went through the model.", labels=["camera"])
    up = GaugeMetricFamily("hazard_camera_up", "1 while frames come, else 0.", labels=["camera"])
    about = "Seconds since the newest frame came; absent before the first."
    age = GaugeMetricFamily("hazard_camera_last_frame_age_seconds", about, labels=["camera"])
    for camera, counters in snapshot.cameras.items():
        judged.add_metric([camera], snapshot.count_judged_frames(camera))
        up.add_metric([camera], float(counters.state == "live"))
        if counters.last_frame_age is not None:
            age.add_metric([camera], counters.last_frame_age + now - snapshot.taken_at)
    yield from (judged, up, age)


def _latency_family(snapshot: CountersSnapshot) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.utils import floatToGoString

    about = "Seconds from the arrival of a frame until it was judged and what it meant was put down."
    family = HistogramMetricFamily("hazard_frame_latency_seconds", about, labels=["camera"])
    bounds = [floatToGoString(bound) for bound in (*LATENCY_BUCKETS_SECONDS, float("inf"))]
    for camera, counts in snapshot.latencies.items():
        buckets = [(bound, float(sum(counts[: i + 1]))) for i, bound in enumerate(bounds)]
        family.add_metric([camera], buckets, snapshot.latency_sums[camera])
    return family


def _event_families(snapshot: CountersSnapshot) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily

    events = CounterMetricFamily("hazard_events", "Events that began, told of or not.", labels=["camera", "label"])
    for (camera, label), count in snapshot.events.items():
        events.add_metric([camera, label], count)
    alerts = CounterMetricFamily("hazard_alerts", "Alerts, by what they are about.", labels=["camera", "kind"])
    for (camera, kind), count in snapshot.alerts.items():
        alerts.add_metric([camera, kind], count)
    about = "Events that were no alert because the camera had alerted too often in that minute."
    muted = CounterMetricFamily("hazard_alerts_muted", about, labels=["camera"])
    for camera, count in snapshot.muted.items():
        muted.add_metric([camera], count)
    yield from (events, alerts, muted)


def _outbox_families(counts: Mapping[str, int]) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    if counts:
        about = "Alerts on their way, each counted once a channel."
        yield GaugeMetricFamily("hazard_outbox_pending", about, value=counts["pending"])
        about = "Alerts that were given up and are kept, each counted once a channel."
        yield GaugeMetricFamily("hazard_outbox_dead", about, value=counts["dead"])


def _program_families(snapshot: CountersSnapshot) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    try:
        ours = version("hazard-video")
    except PackageNotFoundError:  # run from a checkout
        ours = "unknown"
    facts = {"version": ours, "python": sys.version.split()[0]}
    yield InfoMetricFamily("hazard_build", "What is running.", value=facts)
    if snapshot.last_poll:
        about = "When cameras were last looked at, in seconds since 1970; it stands still where watching does."
        yield GaugeMetricFamily("hazard_last_look_timestamp_seconds", about, value=snapshot.last_poll)
