"""What is done beside watching, now and then: marks, clips, hours that begin, room on the disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Thread

from features.live.cameras import LiveSet
from features.live.types import LiveFrame, Notice
from hazard.alerts.alert import Alert
from hazard.monitor.detector import Brain
from hazard.monitor.events.event_clips import CLIPS, SNAPSHOTS
from hazard.monitor.events.event_processor import Desk
from hazard.monitor.housekeeping.heartbeat import PulseFile
from hazard.monitor.housekeeping.retention import tidy

MARK_SECONDS = 5.0
"""How often it is noted that an event goes on, and that somebody watches."""
TIDY_SECONDS = 60.0


@dataclass
class Upkeep:
    """An onlooker that looks after the desk."""

    desk: Desk
    brain: Brain
    live: LiveSet
    tell: Callable[[Alert], None]
    """Is told of alerts that come with the hours of a camera."""
    clock: Callable[[], float]
    pulse: PulseFile
    """Tells others that somebody watches."""
    marked: float = -1e9
    tidied: float = -1e9
    tidying: Thread | None = field(default=None, repr=False)

    def __call__(self, items: Sequence[LiveFrame | Notice]) -> None:
        """One look."""
        self._clips()
        now = self.clock()
        if now - self.marked >= MARK_SECONDS:
            self.marked = now
            self._mark()
            self.pulse.say(self._states())
        if now - self.tidied >= TIDY_SECONDS:
            self.tidied = now
            self._tidy()

    def end(self) -> None:
        """Others are told that nobody watches any more."""
        self.pulse.say(self._states(), is_over=True)

    def _states(self) -> dict[str, str]:
        return {name: counters.state for name, counters in self.live.counters().items()}

    def _clips(self) -> None:
        clips = self.desk.clips
        clips.ask(self.live.record)
        if clips.wanted:  # before a new connection makes cameras forget what came over the last
            gone = {name for name, counters in self.live.counters().items() if counters.state != "live"}
            clips.flush(self.live.record, cameras=gone)

    def _mark(self) -> None:
        going_on = [(name, label) for name, watcher in self.brain.watchers.items() for label in watcher.going_on()]
        self.desk.mark(going_on, datetime.now(UTC))
        for alert in self.desk.turn(datetime.now(UTC)):
            self.tell(alert)

    def _tidy(self) -> None:
        """Files are removed by a thread: with a hundred thousand of them it takes a second."""
        self.desk.log.rotate()
        if self.tidying and self.tidying.is_alive():
            return
        settings, folders = self.desk.clips.settings, [self.desk.folder / part for part in (SNAPSHOTS, CLIPS)]
        limits = {"most_bytes": settings.keep_gigabytes * 1e9, "most_days": settings.keep_days}
        self.tidying = Thread(target=tidy, args=(folders,), kwargs=limits, daemon=True)
        self.tidying.start()
