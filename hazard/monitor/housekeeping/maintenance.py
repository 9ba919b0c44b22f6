"""What is done beside watching, now and then: marks, clips, hours that begin, room on the disk."""

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
"""How often it is noted that an event goes on, and that somebody watches."""
CLEANUP_SECONDS = 60.0


@dataclass
class Maintenance:
    """An onlooker that looks after the desk."""

    processor: EventProcessor
    detector: LiveDetector
    live: LiveCameras
    report_alert: Callable[[Alert], None]
    """Is told of alerts that come with the hours of a camera."""
    clock: Callable[[], float]
    heartbeat_file: HeartbeatFile
    """Tells others that somebody watches."""
    last_heartbeat: float = -1e9
    last_cleanup: float = -1e9
    cleanup_thread: Thread | None = field(default=None, repr=False)

    def __call__(self, items: Sequence[LiveFrame | StatusChange]) -> None:
        """One look."""
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
        """Others are told that nobody watches any more."""
        self.heartbeat_file.write(self._camera_states(), is_over=True)

    def _camera_states(self) -> dict[str, str]:
        return {name: counters.state for name, counters in self.live.counters().items()}

    def _record_clips(self) -> None:
        clips = self.processor.clips
        clips.record_due(self.live.record)
        if clips.pending:  # before a new connection makes cameras forget what came over the last
            gone = {name for name, counters in self.live.counters().items() if counters.state != "live"}
            clips.record_all(self.live.record, cameras=gone)

    def _update_events(self) -> None:
        going_on = [
            (name, label) for name, watcher in self.detector.watchers.items() for label in watcher.list_active_labels()
        ]
        self.processor.update_last_seen(going_on, datetime.now(UTC))
        for alert in self.processor.process_waiting(datetime.now(UTC)):
            self.report_alert(alert)

    def _clean_up(self) -> None:
        """Files are removed by a thread: with a hundred thousand of them it takes a second."""
        self.processor.log.rotate()
        if self.cleanup_thread and self.cleanup_thread.is_alive():
            return
        settings, folders = (
            self.processor.clips.settings,
            [self.processor.folder / part for part in (SNAPSHOTS_FOLDER, CLIPS_FOLDER)],
        )
        limits = {"most_bytes": settings.keep_gigabytes * 1e9, "most_days": settings.keep_days}
        self.cleanup_thread = Thread(target=remove_old_files, args=(folders,), kwargs=limits, daemon=True)
        self.cleanup_thread.start()
