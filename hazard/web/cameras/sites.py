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

from hazard.monitor.events.event_clips import CLIPS_FOLDER, SNAPSHOTS_FOLDER
from hazard.monitor.housekeeping.heartbeat import HEARTBEAT_FILE_NAME, Heartbeat, parse_heartbeat
from hazard.web.cameras.events import EventIndex, RecordedEvent
from hazard.web.cameras.log_tail import LogTail, open_regular_file

CameraState = Literal["up", "connecting", "offline", "ended", "not watching"]
RecordedEventState = Literal["going on", "over", "cut"]
FileState = Literal["there", "coming", "removed", "none"]
CLIP_GRACE_SECONDS = 120.0
"""A clip that is not there so long after its event was last heard of does not come any more."""
_REFRESH_SECONDS = 0.2
"""Requests that come together are answered from one look at the disk."""
_CAMERA_STATES: dict[str, CameraState] = {
    "live": "up",
    "connecting": "connecting",
    "offline": "offline",
    "ended": "ended",
}


@dataclass(frozen=True)
class CameraStatus:
    """How a camera stands."""

    site: str
    name: str
    state: CameraState
    since: float | None
    """Of a camera that is offline or not watched, where known."""
    reason: str
    newest_event: RecordedEvent | None
    newest_with_snapshot: RecordedEvent | None
    """The newest event that has a snapshot."""


@dataclass
class MonitorSite:
    """One monitor's folder."""

    name: str
    folder: Path
    index: EventIndex
    log_tail: LogTail
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    was_watched: bool | None = None
    """At the last look."""

    def refresh(self, now: float) -> bool:
        """Reads what is new; whether anything is."""
        changes = sum([self.index.add_entry(entry) for entry in self.log_tail.read_new_entries()])  # all of them
        pulse = _read_heartbeat(self.folder)
        is_watched = pulse.is_fresh(now)
        said = (pulse.cameras, is_watched) != (self.heartbeat.cameras, self.was_watched)
        self.heartbeat, self.was_watched = pulse, is_watched
        return bool(changes) or said

    def cameras(self) -> list[CameraStatus]:
        """All that the log or the monitor names, by name."""
        return [self._camera_status(name) for name in sorted({*self.index.newest_by_camera, *self.heartbeat.cameras})]

    def state_of(self, event: RecordedEvent) -> RecordedEventState:
        """Whether an event goes on: nobody knows that where nobody watches."""
        if event.is_over:
            return "cut" if event.is_cut else "over"
        return "going on" if self.was_watched else "cut"

    def _camera_status(self, name: str) -> CameraStatus:
        newest = self.index.newest_by_camera.get(name)
        pictured = self.index.newest_snapshot_by_camera.get(name)
        said = self.heartbeat.cameras.get(name) if self.was_watched else None
        if said is None:
            return CameraStatus(
                self.name, name, "not watching", self.heartbeat.written_at or None, "", newest, pictured
            )
        since, reason = self.index.offline_by_camera.get(name, (None, ""))
        state = _CAMERA_STATES.get(said, "connecting")
        is_off = state != "up"
        return CameraStatus(
            self.name, name, state, since if is_off else None, reason if is_off else "", newest, pictured
        )


@dataclass
class MonitorSites:
    """All sites. Any thread may ask; the disk is looked at when somebody asks, and not otherwise."""

    sites: dict[str, MonitorSite]
    clock: Callable[[], float] = time.time
    version: int = 0
    """Grows with every change."""
    start_id: str = field(default_factory=lambda: token_hex(4))
    """Another one after each start: versions of two starts are never taken for the same."""
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _refreshed_at: float = -1e9

    def refresh(self) -> None:
        """What came since the last look is known when this returns."""
        with self._lock:
            if time.monotonic() - self._refreshed_at < _REFRESH_SECONDS:
                return
            now = self.clock()
            for site in self.sites.values():
                self.version += site.refresh(now)
            self._refreshed_at = time.monotonic()

    def mark_changed(self) -> None:
        """Something else changed that people are shown: a mark."""
        with self._lock:
            self.version += 1

    @property
    def version_tag(self) -> str:
        """Names what there is to see now."""
        return f"{self.start_id}-{self.version}"

    def find_event(self, key: str) -> RecordedEvent | None:
        """The event of a key."""
        with self._lock:
            return next((seen for site in self.sites.values() if (seen := site.index.events.get(key))), None)

    def state_of(self, event: RecordedEvent) -> RecordedEventState:
        """How an event stands."""
        return self.sites[event.site].state_of(event)

    def cameras(self, site: str = "") -> list[CameraStatus]:
        """The cameras of a site, or of all."""
        with self._lock:
            return [view for one in self._select_sites(site) for view in one.cameras()]

    def labels(self) -> list[str]:
        """What events are called."""
        with self._lock:
            return sorted({label for site in self.sites.values() for label in site.index.labels})

    def list_newest_first(
        self, site: str = "", *, before_position: tuple[float, str] | None = None
    ) -> list[RecordedEvent]:
        """The events of a site, or of all, that come before a place in time."""
        with self._lock:
            parts = [one.index for one in self._select_sites(site)]
            orders = [(part, part.positions[: part.count_before(before_position)]) for part in parts]
            if len(orders) == 1:
                part, order = orders[0]
                return [part.events[key] for _, key in reversed(order)]
            by_place = merge(*(reversed(order) for _, order in orders), reverse=True)
            events = {key: part.events for part, order in orders for _, key in order}
            return [events[key][key] for _, key in by_place]

    def file_state(self, event: RecordedEvent, kind: Literal["snapshot", "clip"]) -> FileState:
        """Whether a file of an event is there, comes, or was removed."""
        name = event.snapshot if kind == "snapshot" else event.clip
        if not name:
            return "none"
        if (opened := self.open_file(event, kind)) is not None:
            os.close(opened)
            return "there"
        is_young = self.clock() - event.until < CLIP_GRACE_SECONDS
        return "coming" if kind == "clip" and (is_young or self.state_of(event) == "going on") else "removed"

    def open_file(self, event: RecordedEvent, kind: Literal["snapshot", "clip"]) -> int | None:
        """A descriptor of the snapshot or clip of an event."""
        if kind == "snapshot":
            return _open_in_folder(self.sites[event.site].folder / SNAPSHOTS_FOLDER, event.snapshot)
        return _open_in_folder(self.sites[event.site].folder / CLIPS_FOLDER, event.clip)

    def has_clip(self, site: str, name: str) -> bool:
        """Whether a site's folder has a clip of that name."""
        opened = _open_in_folder(self.sites[site].folder / CLIPS_FOLDER, name)
        if opened is not None:
            os.close(opened)
        return opened is not None

    def close(self) -> None:
        """Nothing more is read."""
        for site in self.sites.values():
            site.log_tail.close()

    def _select_sites(self, site: str) -> Iterator[MonitorSite]:
        return (one for name, one in self.sites.items() if site in ("", name))


def open_monitor_sites(monitors: Mapping[str, Path], *, clock: Callable[[], float] = time.time) -> MonitorSites:
    """The sites of the settings. Long logs are read beside, so that the server is there at once."""
    sites = {name: MonitorSite(name, folder, EventIndex(name), LogTail(folder)) for name, folder in monitors.items()}
    watch = MonitorSites(sites, clock)
    threading.Thread(target=watch.refresh, name="watch", daemon=True).start()
    return watch


def _open_in_folder(folder: Path, name: str) -> int | None:
    """A file right in a folder; no link is followed, be it the folder or the file."""
    if not name or "/" in name:
        return None
    try:
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return open_regular_file(name, folder_fd=inside)
    finally:
        os.close(inside)


def _read_heartbeat(folder: Path) -> Heartbeat:
    if (opened := open_regular_file(folder / HEARTBEAT_FILE_NAME)) is None:
        return Heartbeat()
    with open(opened, "rb") as file:
        return parse_heartbeat(file.read(1 << 20), os.fstat(opened).st_mtime)
