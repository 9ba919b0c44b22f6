"""Counters of a monitor, written by the main thread and read by any thread without a lock.

Twice a second the main thread publishes all numbers of one moment as a `CountersSnapshot`, which is never changed
afterwards. Readers take the latest snapshot, so neither side ever waits for the other.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from features.live.cameras import LiveCameras
from features.live.types import CameraCounters, LiveFrame, StatusChange
from hazard.alerts.alert import Alert
from hazard.monitor.detector import CameraEvent

PUBLISH_INTERVAL_SECONDS = 0.5
LATENCY_BUCKETS_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histogram. Longer latencies go into one further bucket."""
COUNTED_ALERT_KINDS = ("event", "offline", "back")


@dataclass(frozen=True)
class CountersSnapshot:
    """All numbers of one moment, counted since the monitor started."""

    cameras: Mapping[str, CameraCounters] = field(default_factory=dict)
    latencies: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By camera, the processed frames in each bucket of LATENCY_BUCKETS_SECONDS, and in one for longer latencies."""
    latency_sums: Mapping[str, float] = field(default_factory=dict)
    """Sum of the latencies in seconds, by camera."""
    events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Events that began, by camera and label."""
    alerts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Alerts, by camera and kind."""
    muted: Mapping[str, int] = field(default_factory=dict)
    """Events without an alert because of the rate limit, by camera."""
    taken_at: float = 0.0
    """Time of the snapshot, by the monotonic clock."""
    last_poll: float = 0.0
    """Time of the last poll of the cameras, in seconds since 1970."""

    def count_judged_frames(self, camera: str) -> int:
        """Return the number of a camera's frames that the model has processed."""
        return sum(self.latencies[camera])


class MonitorCounters:
    """The counters. Only the main thread may use them; any thread may read `snapshot`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.snapshot = CountersSnapshot()
        """Latest published numbers."""
        self._clock = clock
        self._latencies: dict[str, list[int]] = {}
        self._latency_sums: dict[str, float] = {}
        self._events: Counter[tuple[str, str]] = Counter()
        self._alerts: Counter[tuple[str, str]] = Counter()
        self._muted: Mapping[str, int] = {}

    def make_observer(
        self, live: LiveCameras, labels: Mapping[str, Iterable[str]], muted: Mapping[str, int]
    ) -> Callable[[Sequence[LiveFrame | StatusChange]], None]:
        """Return an observer that counts frames and publishes snapshots.

        `labels` holds the labels that events may have, by camera; their counts start at 0. `muted` holds the events
        without an alert by camera, which the event processor counts.
        """
        self._muted = muted
        for camera, names in labels.items():
            self._latencies[camera], self._latency_sums[camera] = [0] * (len(LATENCY_BUCKETS_SECONDS) + 1), 0.0
            self._events.update({(camera, label): 0 for label in names})
            self._alerts.update({(camera, kind): 0 for kind in COUNTED_ALERT_KINDS})
        self._publish(live)

        def observe(items: Sequence[LiveFrame | StatusChange]) -> None:
            now = self._clock()
            for item in items:
                if isinstance(item, LiveFrame):
                    self._latencies[item.camera][bisect_left(LATENCY_BUCKETS_SECONDS, now - item.arrived)] += 1
                    self._latency_sums[item.camera] += now - item.arrived
            if now - self.snapshot.taken_at >= PUBLISH_INTERVAL_SECONDS:
                self._publish(live)

        return observe

    def count_event(self, camera_event: CameraEvent) -> None:
        """Count an event that begins, with or without an alert."""
        if not isinstance(camera_event.change, StatusChange) and not camera_event.change.is_over:
            self._events[camera_event.camera, camera_event.change.event.label] += 1

    def count_alert(self, alert: Alert) -> None:
        """Count an alert."""
        self._alerts[alert.camera, alert.kind] += 1

    def _publish(self, live: LiveCameras) -> None:
        self.snapshot = CountersSnapshot(
            cameras=live.counters(),
            latencies={camera: tuple(counts) for camera, counts in self._latencies.items()},
            latency_sums=dict(self._latency_sums),
            events=dict(self._events),
            alerts=dict(self._alerts),
            muted={camera: self._muted.get(camera, 0) for camera in self._latencies},
            taken_at=self._clock(),
            last_poll=time.time(),
        )
