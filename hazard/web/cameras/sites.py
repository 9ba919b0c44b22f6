"""What the cameras of all sites saw, read from the folders of their monitors, which are never written into."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path
from secrets import token_hex
from typing import Literal

from hazard.monitor.events.event_clips import CLIPS, SNAPSHOTS
from hazard.monitor.housekeeping.heartbeat import PULSE, Pulse, read_pulse
from hazard.web.cameras.events import Folded, Seen
from hazard.web.cameras.log_tail import LogTail, open_plain

CameraState = Literal["up", "connecting", "offline", "ended", "not watching"]
EventState = Literal["going on", "over", "cut"]
FileState = Literal["there", "coming", "removed", "none"]
COMING_SECONDS = 120.0
"""A clip that is not there so long after its event was last heard of does not come any more."""
_LOOK_SECONDS = 0.2
"""Requests that come together are answered from one look at the disk."""
_STATES: dict[str, CameraState] = {"live": "up", "connecting": "connecting", "offline": "offline", "ended": "ended"}


@dataclass(frozen=True)
class CameraView:
    """How a camera stands."""

    site: str
    name: str
    state: CameraState
    since: float | None
    """Of a camera that is offline or not watched, where known."""
    reason: str
    newest: Seen | None
    pictured: Seen | None
    """The newest event that has a snapshot."""


@dataclass
class Site:
    """One monitor's folder."""

    name: str
    folder: Path
    folded: Folded
    tail: LogTail
    pulse: Pulse = field(default_factory=Pulse)
    was_watched: bool | None = None
    """At the last look."""

    def look(self, now: float) -> bool:
        """Reads what is new; whether anything is."""
        changes = sum([self.folded.follow(entry) for entry in self.tail.news()])  # all of them
        pulse = _pulse(self.folder)
        is_watched = pulse.is_fresh(now)
        said = (pulse.cameras, is_watched) != (self.pulse.cameras, self.was_watched)
        self.pulse, self.was_watched = pulse, is_watched
        return bool(changes) or said

    def cameras(self) -> list[CameraView]:
        """All that the log or the monitor names, by name."""
        return [self._camera(name) for name in sorted({*self.folded.cameras, *self.pulse.cameras})]

    def state_of(self, event: Seen) -> EventState:
        """Whether an event goes on: nobody knows that where nobody watches."""
        if event.is_over:
            return "cut" if event.is_cut else "over"
        return "going on" if self.was_watched else "cut"

    def _camera(self, name: str) -> CameraView:
        newest = self.folded.cameras.get(name)
        pictured = self.folded.pictured.get(name)
        said = self.pulse.cameras.get(name) if self.was_watched else None
        if said is None:
            return CameraView(self.name, name, "not watching", self.pulse.at or None, "", newest, pictured)
        since, reason = self.folded.offline.get(name, (None, ""))
        state = _STATES.get(said, "connecting")
        is_off = state != "up"
        return CameraView(self.name, name, state, since if is_off else None, reason if is_off else "", newest, pictured)


@dataclass
class Watch:
    """All sites. Any thread may ask; the disk is looked at when somebody asks, and not otherwise."""

    sites: dict[str, Site]
    clock: Callable[[], float] = time.time
    version: int = 0
    """Grows with every change."""
    life: str = field(default_factory=lambda: token_hex(4))
    """Another one after each start: versions of two starts are never taken for the same."""
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _looked: float = -1e9

    def look(self) -> None:
        """What came since the last look is known when this returns."""
        with self._lock:
            if time.monotonic() - self._looked < _LOOK_SECONDS:
                return
            now = self.clock()
            for site in self.sites.values():
                self.version += site.look(now)
            self._looked = time.monotonic()

    def touch(self) -> None:
        """Something else changed that people are shown: a mark."""
        with self._lock:
            self.version += 1

    @property
    def tag(self) -> str:
        """Names what there is to see now."""
        return f"{self.life}-{self.version}"

    def event(self, key: str) -> Seen | None:
        """The event of a key."""
        with self._lock:
            return next((seen for site in self.sites.values() if (seen := site.folded.events.get(key))), None)

    def state_of(self, event: Seen) -> EventState:
        """How an event stands."""
        return self.sites[event.site].state_of(event)

    def cameras(self, site: str = "") -> list[CameraView]:
        """The cameras of a site, or of all."""
        with self._lock:
            return [view for one in self._of(site) for view in one.cameras()]

    def labels(self) -> list[str]:
        """What events are called."""
        with self._lock:
            return sorted({label for site in self.sites.values() for label in site.folded.labels})

    def newest_first(self, site: str = "", *, before: tuple[float, str] | None = None) -> list[Seen]:
        """The events of a site, or of all, that come before a place in time."""
        with self._lock:
            parts = [one.folded for one in self._of(site)]
            orders = [(part, part.order[: part.before(before)]) for part in parts]
            if len(orders) == 1:
                part, order = orders[0]
                return [part.events[key] for _, key in reversed(order)]
            by_place = merge(*(reversed(order) for _, order in orders), reverse=True)
            events = {key: part.events for part, order in orders for _, key in order}
            return [events[key][key] for _, key in by_place]

    def file_state(self, event: Seen, kind: Literal["snapshot", "clip"]) -> FileState:
        """Whether a file of an event is there, comes, or was removed."""
        name = event.snapshot if kind == "snapshot" else event.clip
        if not name:
            return "none"
        if (opened := self.open_file(event, kind)) is not None:
            os.close(opened)
            return "there"
        is_young = self.clock() - event.until < COMING_SECONDS
        return "coming" if kind == "clip" and (is_young or self.state_of(event) == "going on") else "removed"

    def open_file(self, event: Seen, kind: Literal["snapshot", "clip"]) -> int | None:
        """A descriptor of the snapshot or clip of an event."""
        if kind == "snapshot":
            return _open_inside(self.sites[event.site].folder / SNAPSHOTS, event.snapshot)
        return _open_inside(self.sites[event.site].folder / CLIPS, event.clip)

    def has_clip(self, site: str, name: str) -> bool:
        """Whether a site's folder has a clip of that name."""
        opened = _open_inside(self.sites[site].folder / CLIPS, name)
        if opened is not None:
            os.close(opened)
        return opened is not None

    def close(self) -> None:
        """Nothing more is read."""
        for site in self.sites.values():
            site.tail.close()

    def _of(self, site: str) -> Iterator[Site]:
        return (one for name, one in self.sites.items() if site in ("", name))


def open_watch(monitors: Mapping[str, Path], *, clock: Callable[[], float] = time.time) -> Watch:
    """The sites of the settings. Long logs are read beside, so that the server is there at once."""
    sites = {name: Site(name, folder, Folded(name), LogTail(folder)) for name, folder in monitors.items()}
    watch = Watch(sites, clock)
    threading.Thread(target=watch.look, name="watch", daemon=True).start()
    return watch


def _open_inside(folder: Path, name: str) -> int | None:
    """A file right in a folder; no link is followed, be it the folder or the file."""
    if not name or "/" in name:
        return None
    try:
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return open_plain(name, folder=inside)
    finally:
        os.close(inside)


def _pulse(folder: Path) -> Pulse:
    if (opened := open_plain(folder / PULSE)) is None:
        return Pulse()
    with open(opened, "rb") as file:
        return read_pulse(file.read(1 << 20), os.fstat(opened).st_mtime)
