"""Clips of events: each is requested from its camera once all of its frames have arrived."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from hazard.monitor.settings import MonitorSettings

SNAPSHOTS_FOLDER, CLIPS_FOLDER = "snapshots", "clips"
"""Names of the folders in a monitor's folder."""
_SLACK_SECONDS = 10.0
"""Seconds of video that cameras buffer beyond the longest clip."""


RecordClip = Callable[..., None]
"""`LiveCameras.record(camera, file, since=…, until=…)`: writes the frames that arrived between two times."""


@dataclass(frozen=True)
class _PendingClip:
    camera: str
    file: Path
    since: float
    until: float


@dataclass
class EventClips:
    """The clips that are still to be requested. All times are those of the monotonic clock."""

    settings: MonitorSettings
    clock: Callable[[], float] = time.monotonic
    pending: dict[str, _PendingClip] = field(default_factory=dict)

    @property
    def is_enabled(self) -> bool:
        """Whether the settings ask for clips."""
        return self.settings.longest_clip_seconds > 0

    def begin(self, event: str, camera: str, file: Path, start: float) -> None:
        """Plan the clip of an event that began at `start`. Until the event ends, it has the longest allowed length."""
        start = max(start, self.clock() - self.settings.longest_clip_seconds)  # the event may have begun long ago
        since = start - self.settings.before_seconds
        self.pending[event] = _PendingClip(camera, file, since, since + self.settings.longest_clip_seconds)

    def end(self, event: str, end: float) -> None:
        """Set the end of a planned clip, since its event ended at `end`."""
        if (clip := self.pending.get(event)) is not None:
            self.pending[event] = replace(clip, until=min(clip.until, end + self.settings.after_seconds))

    def record_due(self, record: RecordClip) -> None:
        """Request the clips whose last frame has arrived."""
        now = self.clock()
        for event in [event for event, clip in self.pending.items() if clip.until <= now]:
            self._record_clip(record, self.pending.pop(event), now)

    def record_all(self, record: RecordClip, *, cameras: Collection[str] | None = None) -> None:
        """Request all planned clips, or those of some cameras, up to now, because no more frames will arrive."""
        now = self.clock()
        for event in [event for event, clip in self.pending.items() if cameras is None or clip.camera in cameras]:
            self._record_clip(record, self.pending.pop(event), now)

    def _record_clip(self, record: RecordClip, clip: _PendingClip, now: float) -> None:
        record(clip.camera, clip.file, since=clip.since, until=min(clip.until, now))


def buffer_seconds(settings: MonitorSettings, max_delay_seconds: float) -> float:
    """Return the seconds of video that cameras must buffer for clips, 0 without clips.

    `max_delay_seconds` is the longest time from the end of an event until the end is detected.
    """
    return settings.longest_clip_seconds + max_delay_seconds + _SLACK_SECONDS if settings.longest_clip_seconds else 0.0
