"""Clips of events: what a camera showed shortly before, during and shortly after, asked for once all of it has come."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from hazard.monitor.settings import MonitorSettings

SNAPSHOTS_FOLDER, CLIPS_FOLDER = "snapshots", "clips"
"""Folders in a monitor's folder."""
_SLACK_SECONDS = 10.0


RecordClip = Callable[..., None]
"""`LiveCameras.record(camera, file, since=…, until=…)`: writes what came between two moments."""


@dataclass(frozen=True)
class _PendingClip:
    camera: str
    file: Path
    since: float
    until: float


@dataclass
class EventClips:
    """The clips that are still to be asked for; all times by the monotonic clock."""

    settings: MonitorSettings
    clock: Callable[[], float] = time.monotonic
    pending: dict[str, _PendingClip] = field(default_factory=dict)

    @property
    def is_enabled(self) -> bool:
        """Whether there are clips at all."""
        return self.settings.longest_clip_seconds > 0

    def begin(self, event: str, camera: str, file: Path, start: float) -> None:
        """An event that began then; as long as it goes on its clip grows, up to the longest."""
        start = max(start, self.clock() - self.settings.longest_clip_seconds)  # it may have been known for long
        since = start - self.settings.before_seconds
        self.pending[event] = _PendingClip(camera, file, since, since + self.settings.longest_clip_seconds)

    def end(self, event: str, end: float) -> None:
        """It ended then."""
        if (one := self.pending.get(event)) is not None:
            self.pending[event] = replace(one, until=min(one.until, end + self.settings.after_seconds))

    def record_due(self, record: RecordClip) -> None:
        """Asks for the clips of which all has come."""
        now = self.clock()
        for event in [event for event, one in self.pending.items() if one.until <= now]:
            self._record_clip(record, self.pending.pop(event), now)

    def record_all(self, record: RecordClip, *, cameras: Collection[str] | None = None) -> None:
        """Asks for all clips, or those of some cameras, as far as they have come: no more will come."""
        now = self.clock()
        for event in [event for event, one in self.pending.items() if cameras is None or one.camera in cameras]:
            self._record_clip(record, self.pending.pop(event), now)

    def _record_clip(self, record: RecordClip, clip: _PendingClip, now: float) -> None:
        record(clip.camera, clip.file, since=clip.since, until=min(clip.until, now))


def buffer_seconds(settings: MonitorSettings, max_delay_seconds: float) -> float:
    """How much of the past cameras must have at hand where an event is known `max_delay_seconds` after its end at most."""
    return settings.longest_clip_seconds + max_delay_seconds + _SLACK_SECONDS if settings.longest_clip_seconds else 0.0
