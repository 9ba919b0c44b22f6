"""Watching in numbers: counted by the thread that watches, read by others without making it wait.

Twice a second the thread that watches puts down all numbers of one moment as a `Snapshot` that nobody changes any more.
Whoever reads takes the last one, so that no lock is ever between the two.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from features.live.cameras import LiveSet
from features.live.types import CameraCounters, LiveFrame, Notice
from hazard.alerts.alert import Alert
from hazard.monitor.detector import Happening

PUBLISH_SECONDS = 0.5
LATENCIES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Upper bounds of the counted latencies, in seconds; longer ones are counted too."""
ALERT_KINDS = ("event", "offline", "back")


@dataclass(frozen=True)
class Snapshot:
    """All numbers of one moment, counted since watching began; pairs are (camera, label) and (camera, alert's kind)."""

    cameras: Mapping[str, CameraCounters] = field(default_factory=dict)
    latencies: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By camera, judged frames by their latency: one number for each of LATENCIES, and one of longer ones."""
    latency_sums: Mapping[str, float] = field(default_factory=dict)
    """Seconds."""
    events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    alerts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    muted: Mapping[str, int] = field(default_factory=dict)
    at: float = 0.0
    """By the monotonic clock."""
    looked: float = 0.0
    """When cameras were last looked at, seconds since 1970."""

    def judged(self, camera: str) -> int:
        """Frames of a camera that went through the model."""
        return sum(self.latencies[camera])


class Tally:
    """Counts; of the thread that watches alone, but for `snapshot`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.snapshot = Snapshot()
        """The last numbers, for any thread."""
        self._clock = clock
        self._latencies: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._events: Counter[tuple[str, str]] = Counter()
        self._alerts: Counter[tuple[str, str]] = Counter()
        self._muted: Mapping[str, int] = {}

    def looking_at(
        self, live: LiveSet, labels: Mapping[str, Iterable[str]], muted: Mapping[str, int]
    ) -> Callable[[Sequence[LiveFrame | Notice]], None]:
        """The onlooker that counts; `labels` are those that events of each camera may have: they begin at zero.

        `muted` is counted elsewhere: by camera, events that were not told of.
        """
        self._muted = muted
        for camera, names in labels.items():
            self._latencies[camera], self._sums[camera] = [0] * (len(LATENCIES) + 1), 0.0
            self._events.update({(camera, label): 0 for label in names})
            self._alerts.update({(camera, kind): 0 for kind in ALERT_KINDS})
        self._publish(live)

        def look(items: Sequence[LiveFrame | Notice]) -> None:
            now = self._clock()
            for item in items:
                if isinstance(item, LiveFrame):
                    self._latencies[item.camera][bisect_left(LATENCIES, now - item.arrived)] += 1
                    self._sums[item.camera] += now - item.arrived
            if now - self.snapshot.at >= PUBLISH_SECONDS:
                self._publish(live)

        return look

    def happened(self, happening: Happening) -> None:
        """Counts an event that begins, told of or not."""
        if not isinstance(happening.news, Notice) and not happening.news.is_over:
            self._events[happening.camera, happening.news.event.label] += 1

    def alerted(self, alert: Alert) -> None:
        """Counts an alert."""
        self._alerts[alert.camera, alert.kind] += 1

    def _publish(self, live: LiveSet) -> None:
        self.snapshot = Snapshot(
            cameras=live.counters(),
            latencies={camera: tuple(counts) for camera, counts in self._latencies.items()},
            latency_sums=dict(self._sums),
            events=dict(self._events),
            alerts=dict(self._alerts),
            muted={camera: self._muted.get(camera, 0) for camera in self._latencies},
            at=self._clock(),
            looked=time.time(),
        )
