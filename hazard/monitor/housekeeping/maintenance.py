"""The regular tasks of a running monitor: heartbeat, clips, deferred events, log rotation, deletion of old files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Thread

from features.live.cameras import LiveCameras
from features.live.types import LiveFrame, StatusChange
from hazard.alerts.alert import Alert
from hazard.monitor.detector import LiveDetector
from hazard.monitor.events.event_clips import CLIPS_FOLDER, SNAPSHOTS_FOLDER
from hazard.monitor.events.event_processor import EventProcessor
from hazard.monitor.housekeeping.heartbeat import HeartbeatFile
from hazard.monitor.housekeeping.retention import remove_old_files

HEARTBEAT_SECONDS = 5.0
"""Seconds between two heartbeats. Each also records which events are in progress."""
CLEANUP_SECONDS = 60.0
"""Seconds between two deletions of old files."""


@dataclass
class Maintenance:
    """An observer that runs the regular tasks after each poll of the cameras."""

    processor: EventProcessor
    detector: LiveDetector
    live: LiveCameras
    report_alert: Callable[[Alert], None]
    """Called with each alert of a deferred event."""
    clock: Callable[[], float]
    heartbeat_file: HeartbeatFile
    last_heartbeat: float = -1e9
    last_cleanup: float = -1e9
    cleanup_thread: Thread | None = field(default=None, repr=False)

    def __call__(self, items: Sequence[LiveFrame | StatusChange]) -> None:
        """Run the tasks that are due. The items are not used."""
        self._record_clips()
        now = self.clock()
        if now - self.last_heartbeat >= HEARTBEAT_SECONDS:
            self.last_heartbeat = now
            self._update_events()
            self.heartbeat_file.write(self._camera_states())
        if now - self.last_cleanup >= CLEANUP_SECONDS:
            self.last_cleanup = now
            self._clean_up()

    def end(self) -> None:
        """Write a last heartbeat, which says that the monitor has stopped."""
        self.heartbeat_file.write(self._camera_states(), is_over=True)

    def _camera_states(self) -> dict[str, str]:
        return {name: counters.state for name, counters in self.live.counters().items()}

    def _record_clips(self) -> None:
        clips = self.processor.event_clips
        clips.record_due(self.live.record)
        if clips.pending:  # a new connection discards the frames of the one before
            lost = {name for name, counters in self.live.counters().items() if counters.state != "live"}
            clips.record_all(self.live.record, cameras=lost)

    def _update_events(self) -> None:
        active_events = [
            (name, label) for name, watcher in self.detector.watchers.items() for label in watcher.list_active_labels()
        ]
        self.processor.update_last_seen(active_events, datetime.now(UTC))
        for alert in self.processor.process_deferred(datetime.now(UTC)):
            self.report_alert(alert)

    def _clean_up(self) -> None:
        """Rotate the log, and remove old files in a thread: with 100,000 files this takes a second."""
        self.processor.event_log.rotate()
        if self.cleanup_thread and self.cleanup_thread.is_alive():
            return
        settings = self.processor.event_clips.settings
        folders = [self.processor.folder / name for name in (SNAPSHOTS_FOLDER, CLIPS_FOLDER)]
        limits = {"max_bytes": settings.keep_gigabytes * 1e9, "max_days": settings.keep_days}
        self.cleanup_thread = Thread(target=remove_old_files, args=(folders,), kwargs=limits, daemon=True)
        self.cleanup_thread.start()
