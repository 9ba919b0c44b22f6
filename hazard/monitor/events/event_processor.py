"""What happens in front of cameras: written down, then told, each event once, whatever is killed and begun again.

The line in the log comes first. Only the last line can be of an alert that was not put into the outbox any more; it is
put when watching begins again, and the outbox knows by its id whether it had been.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from features.errors import EnvironmentStopped
from features.live.types import Notice
from features.utils.files import sweep_temporary, write_atomically
from hazard.alerts.alert import Alert
from hazard.alerts.outbox import Outbox
from hazard.monitor.detector import Happening
from hazard.monitor.events.event_clips import CLIPS, SNAPSHOTS, EventClips
from hazard.monitor.events.event_log import Entry, EventLog, last_entries, open_log
from hazard.monitor.events.state import Standing, Told, dumped, loaded
from hazard.monitor.settings import MonitorSettings
from hazard.monitor.watcher import News
from hazard.types import Event
from hazard.utils.safe_names import output_name

STATE, OUTBOX = "state.json", "outbox.sqlite"

log = logging.getLogger(__name__)


@dataclass
class Desk:
    """Takes what happens: writes it down, and puts alerts into the outbox, each once, whenever it is begun again."""

    folder: Path
    outbox: Outbox | None
    log: EventLog
    standing: Standing
    clips: EventClips
    is_watched: Callable[[str, datetime], bool]
    """Whether a camera's schedule has it watched at a moment."""
    sent: dict[str, list[datetime]] = field(default_factory=dict)
    """By camera, the alerts of the last minute."""
    muted: Counter[str] = field(default_factory=Counter)
    """By camera, the events that were one too many in a minute to be told of."""
    waiting: dict[tuple[str, str], Happening] = field(default_factory=dict)
    """What began outside the hours of its camera and goes on."""

    def take(self, happening: Happening) -> Alert | None:
        """The alert that it is worth, if any. Raises EnvironmentStopped where the disk does not take it.

        What begins outside the hours of its camera is told of when they begin, if it still goes on.
        """
        key, begins = _key(happening)
        if begins and not self.is_watched(happening.camera, happening.wall):
            self.waiting[key] = happening
            return None
        if not begins and key in self.waiting:
            del self.waiting[key]
            return None
        return self._tell(key, happening)

    def turn(self, now: datetime) -> list[Alert]:
        """The alerts of what goes on while the hours of its camera begin."""
        due = [key for key in self.waiting if self.is_watched(key[0], now)]
        return [alert for key in due if (alert := self._tell(key, self.waiting.pop(key)))]

    def resume(self, entries: Sequence[Entry]) -> None:
        """Goes on from the end of the log: what was about to be told is told, what went on was lost sight of."""
        for entry in entries[-1:]:
            with suppress(KeyError, TypeError, ValueError):  # somebody else's line
                self._put(entry)
        for entry in entries:
            with suppress(KeyError, TypeError, ValueError):
                if entry["kind"] == "event" and entry["is_alerted"]:
                    self.sent.setdefault(entry["camera"], []).append(datetime.fromisoformat(entry["at"]))
        for (camera, label), told in list(self.standing.open.items()):
            if not told.is_cut:
                self._write(_event_entry(camera, label, told, at=told.until, over=True, is_cut=True))

    def mark(self, going_on: Iterable[tuple[str, str]], now: datetime) -> None:
        """Notes until when events of (camera, label) were seen."""
        held = [told for key in going_on if (told := self.standing.open.get(key)) and not told.is_cut]
        for told in held:
            told.until = now
        if held:
            self._save()

    def _tell(self, key: tuple[str, str], happening: Happening) -> Alert | None:
        if isinstance(happening.news, Notice):
            return self._notice(happening.news)
        if happening.news.is_over:
            self._over(key, happening, happening.news.event, is_cut=happening.news.is_cut)
            return None
        return self._begin(key, happening, happening.news)

    def _begin(self, key: tuple[str, str], happening: Happening, news: News) -> Alert | None:
        event = news.event
        start = happening.wall - timedelta(seconds=max(0.0, happening.seconds - event.start))
        held = self.standing.open.get(key)
        within = self.clips.settings.resume_seconds
        if held and news.is_from_start and held.is_resumed(start, within_seconds=within):
            self._note(happening, event, held, goes_on=True)
            return None
        told = Told(event_id(*key, start), start, happening.wall, self._files(happening, event, start))
        is_muted = self._is_too_many(happening.camera, happening.wall)
        self.muted[happening.camera] += is_muted
        return self._put(self._note(happening, event, told, is_muted=is_muted, is_alerted=not is_muted))

    def _over(self, key: tuple[str, str], happening: Happening, event: Event, *, is_cut: bool) -> None:
        if (held := self.standing.open.get(key)) is None:
            return  # nobody was told that it began
        self._note(happening, event, held, over=True, is_cut=is_cut)
        self.clips.end(held.id, happening.arrived - max(0.0, happening.seconds - event.end))

    def _notice(self, notice: Notice) -> Alert | None:
        if notice.kind == "ended":
            return None
        since = (notice.since or notice.at).isoformat()
        if notice.kind == "back":
            since = self.standing.offline.get(notice.camera, since)
        entry = {
            "kind": notice.kind,
            "id": f"{notice.camera}/{notice.kind}/{since}",
            "camera": notice.camera,
            "at": notice.at.isoformat(),
            "since": since,
            "reason": notice.reason,
            "is_alerted": True,
        }
        self._write(entry)
        return self._put(entry)

    def _note(self, happening: Happening, event: Event, told: Told, **facts: bool) -> Entry:
        """Writes down how an event stands."""
        entry = _event_entry(happening.camera, event.label, told, at=happening.wall, **facts) | {
            "seconds": [round(event.start, 3), round(event.end, 3)],
            "session": happening.session,
            "peak": event.peak,
            "mean": event.mean,
        }
        self._write(entry)
        return entry

    def _write(self, entry: Entry) -> None:
        self.log.append(entry)
        self.standing.follow(entry)
        self._save()

    def _put(self, entry: Entry) -> Alert | None:
        if not entry["is_alerted"]:
            return None
        alert = alert_of(entry)
        return alert if self.outbox is None or self.outbox.put(alert) else None

    def _is_too_many(self, camera: str, now: datetime) -> bool:
        recent = [moment for moment in self.sent.get(camera, []) if now - moment < timedelta(minutes=1)]
        is_too_many = len(recent) >= self.clips.settings.alerts_per_minute
        self.sent[camera] = recent if is_too_many else [*recent, now]
        return is_too_many

    def _save(self) -> None:
        write_atomically(self.folder / STATE, dumped(self.standing))

    def _files(self, happening: Happening, event: Event, start: datetime) -> dict[str, str | None]:
        """The snapshot, written, and the clip, asked for."""
        camera = str(output_name(f"{happening.camera}.mp4").with_suffix("")).replace("/", "-")
        name = f"{camera}-{start:%Y%m%dT%H%M%S}.{start.microsecond // 1000:03d}Z"
        snapshot, clip = self.folder / SNAPSHOTS / f"{name}.jpg", self.folder / CLIPS / f"{name}.mp4"
        if self.clips.is_on:
            began = happening.arrived - max(0.0, happening.seconds - event.start)
            self.clips.begin(event_id(happening.camera, event.label, start), happening.camera, clip, began)
        return {
            "snapshot": str(snapshot) if happening.jpeg and _is_written(snapshot, happening.jpeg) else None,
            "clip": str(clip) if self.clips.is_on else None,
        }


def event_id(camera: str, label: str, start: datetime) -> str:
    """What an event is called by, everywhere and for ever."""
    return f"{camera}/event/{label}/{start.isoformat(timespec='milliseconds')}"


def alert_of(entry: Entry) -> Alert:
    """The alert that an entry of the log is worth."""
    paths = {name: Path(entry[name]) if entry.get(name) else None for name in ("snapshot", "clip")}
    return Alert(
        id=entry["id"],
        kind=entry["kind"],
        camera=entry["camera"],
        label=entry.get("label", ""),
        started=datetime.fromisoformat(entry.get("started") or entry["at"]),
        ended=None,
        probability=entry.get("peak", 0.0),
        **paths,
    )


@contextmanager
def open_desk(
    folder: Path,
    outbox: Outbox | None,
    settings: MonitorSettings | None = None,
    *,
    is_watched: Callable[[str, datetime], bool] = lambda camera, moment: True,
) -> Iterator[Desk]:
    """What was told of before is known again, and what was about to be told is told now."""
    for part in (folder, folder / SNAPSHOTS, folder / CLIPS):
        part.mkdir(parents=True, exist_ok=True)
        sweep_temporary(part)
    with open_log(folder) as opened:
        entries = last_entries(folder)
        state = b""
        with suppress(OSError):
            state = (folder / STATE).read_bytes()
        clips = EventClips(settings or MonitorSettings())
        desk = Desk(folder, outbox, opened, loaded(state, entries), clips, is_watched)
        desk.resume(entries)
        yield desk


def _event_entry(camera: str, label: str, told: Told, *, at: datetime, **facts: bool) -> Entry:
    return {
        "kind": "event",
        "id": told.id,
        "camera": camera,
        "label": label,
        "at": at.isoformat(),
        "started": told.started.isoformat(),
        **{fact: facts.get(fact, False) for fact in ("over", "is_cut", "goes_on", "is_muted", "is_alerted")},
        **told.files,
    }


def _key(happening: Happening) -> tuple[tuple[str, str], bool]:
    """What it is about, and whether it begins."""
    if isinstance(happening.news, Notice):
        return (happening.camera, ""), happening.news.kind == "offline"
    return (happening.camera, happening.news.event.label), not happening.news.is_over


def _is_written(file: Path, content: bytes) -> bool:
    """A picture that cannot be written is no reason not to tell."""
    try:
        write_atomically(file, content)
    except EnvironmentStopped as error:
        log.warning("%s", error)
        return False
    return True
