"""Watching in numbers: counted by the thread that watches, read by others without making it wait.

Twice a second the thread that watches puts down all numbers of one moment as a `CountersSnapshot` that nobody changes any more.
Whoever reads takes the last one, so that no lock is ever between the two.
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
"""Upper bounds of the counted latencies, in seconds; longer ones are counted too."""
COUNTED_ALERT_KINDS = ("event", "offline", "back")


@dataclass(frozen=True)
class CountersSnapshot:
    """All numbers of one moment, counted since watching began; pairs are (camera, label) and (camera, alert's kind)."""

    cameras: Mapping[str, CameraCounters] = field(default_factory=dict)
    latencies: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By camera, judged frames by their latency: one number for each of LATENCIES, and one of longer ones."""
    latency_sums: Mapping[str, float] = field(default_factory=dict)
    """Seconds."""
    events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    alerts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    muted: Mapping[str, int] = field(default_factory=dict)
    taken_at: float = 0.0
    """By the monotonic clock."""
    last_poll: float = 0.0
    """When cameras were last looked at, seconds since 1970."""

    def count_judged_frames(self, camera: str) -> int:
        """Frames of a camera that went through the model."""
        return sum(self.latencies[camera])


class MonitorCounters:
    """Counts; of the thread that watches alone, but for `snapshot`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.snapshot = CountersSnapshot()
        """The last numbers, for any thread."""
        self._clock = clock
        self._latencies: dict[str, list[int]] = {}
        self._latency_sums: dict[str, float] = {}
        self._events: Counter[tuple[str, str]] = Counter()
        self._alerts: Counter[tuple[str, str]] = Counter()
        self._muted: Mapping[str, int] = {}

    def make_observer(
        self, live: LiveCameras, labels: Mapping[str, Iterable[str]], muted: Mapping[str, int]
    ) -> Callable[[Sequence[LiveFrame | StatusChange]], None]:
        """The onlooker that counts; `labels` are those that events of each camera may have: they begin at zero.

        `muted` is counted elsewhere: by camera, events that were not told of.
        """
        self._muted = muted
        for camera, names in labels.items():
            self._latencies[camera], self._latency_sums[camera] = [0] * (len(LATENCY_BUCKETS_SECONDS) + 1), 0.0
            self._events.update({(camera, label): 0 for label in names})
            self._alerts.update({(camera, kind): 0 for kind in COUNTED_ALERT_KINDS})
        self._publish(live)

        def look(items: Sequence[LiveFrame | StatusChange]) -> None:
            now = self._clock()
            for item in items:
                if isinstance(item, LiveFrame):
                    self._latencies[item.camera][bisect_left(LATENCY_BUCKETS_SECONDS, now - item.arrived)] += 1
                    self._latency_sums[item.camera] += now - item.arrived
            if now - self.snapshot.taken_at >= PUBLISH_INTERVAL_SECONDS:
                self._publish(live)

        return look

    def count_event(self, camera_event: CameraEvent) -> None:
        """Counts an event that begins, told of or not."""
        if not isinstance(camera_event.change, StatusChange) and not camera_event.change.is_over:
            self._events[camera_event.camera, camera_event.change.event.label] += 1

    def count_alert(self, alert: Alert) -> None:
        """Counts an alert."""
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
