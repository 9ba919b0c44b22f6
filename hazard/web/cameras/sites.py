"""The cameras and events of all sites, read from the folders of their monitors. Nothing is written there."""

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
"""The time after an event's end in which its clip may still be written."""
_REFRESH_SECONDS = 0.2
"""The shortest time between two reads of the disk. Requests in between share one read."""
_CAMERA_STATES: dict[str, CameraState] = {
    "live": "up",
    "connecting": "connecting",
    "offline": "offline",
    "ended": "ended",
}


@dataclass(frozen=True)
class CameraStatus:
    """The state of a camera."""

    site: str
    name: str
    state: CameraState
    since: float | None
    """The time since when the camera is offline or not watched, if known."""
    reason: str
    newest_event: RecordedEvent | None
    newest_with_snapshot: RecordedEvent | None
    """The newest event that has a snapshot."""


@dataclass
class MonitorSite:
    """The folder of one monitor."""

    name: str
    folder: Path
    index: EventIndex
    log_tail: LogTail
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    is_monitor_running: bool | None = None
    """Whether the monitor ran at the last refresh; None before the first."""

    def refresh(self, now: float) -> bool:
        """Read what is new. Return whether anything changed."""
        changes = sum([self.index.add_entry(entry) for entry in self.log_tail.read_new_entries()])  # adds every entry
        heartbeat = _read_heartbeat(self.folder)
        is_running = heartbeat.is_fresh(now)
        is_changed = (heartbeat.cameras, is_running) != (self.heartbeat.cameras, self.is_monitor_running)
        self.heartbeat, self.is_monitor_running = heartbeat, is_running
        return bool(changes) or is_changed

    def list_cameras(self) -> list[CameraStatus]:
        """Return all cameras that the log or the heartbeat names, sorted by name."""
        return [self._camera_status(name) for name in sorted({*self.index.newest_by_camera, *self.heartbeat.cameras})]

    def event_state(self, event: RecordedEvent) -> RecordedEventState:
        """Return the state of an event. An unfinished event counts as interrupted if the monitor does not run."""
        if event.is_over:
            return "cut" if event.is_cut else "over"
        return "going on" if self.is_monitor_running else "cut"

    def _camera_status(self, name: str) -> CameraStatus:
        newest_event = self.index.newest_by_camera.get(name)
        with_snapshot = self.index.newest_snapshot_by_camera.get(name)
        health = self.heartbeat.cameras.get(name) if self.is_monitor_running else None
        if health is None:
            since = self.heartbeat.written_at or None
            return CameraStatus(self.name, name, "not watching", since, "", newest_event, with_snapshot)
        state = _CAMERA_STATES.get(health, "connecting")
        since, reason = (None, "") if state == "up" else self.index.offline_by_camera.get(name, (None, ""))
        return CameraStatus(self.name, name, state, since, reason, newest_event, with_snapshot)


@dataclass
class MonitorSites:
    """All sites. Any thread may call it; the disk is read only on calls of `refresh`."""

    sites: dict[str, MonitorSite]
    clock: Callable[[], float] = time.time
    version: int = 0
    """A number that grows with every change."""
    start_id: str = field(default_factory=lambda: token_hex(4))
    """A random text per start of the server, so that versions of two starts never look the same."""
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _refreshed_at: float = -1e9

    def refresh(self) -> None:
        """Read what is new at all sites."""
        with self._lock:
            if time.monotonic() - self._refreshed_at < _REFRESH_SECONDS:
                return
            now = self.clock()
            for site in self.sites.values():
                self.version += site.refresh(now)
            self._refreshed_at = time.monotonic()

    def mark_changed(self) -> None:
        """Count a change that is not in the monitors' folders, such as new feedback."""
        with self._lock:
            self.version += 1

    @property
    def version_tag(self) -> str:
        """A tag of the current state, for caches."""
        return f"{self.start_id}-{self.version}"

    def find_event(self, key: str) -> RecordedEvent | None:
        """Return the event of a key, or None."""
        with self._lock:
            return next((event for site in self.sites.values() if (event := site.index.events.get(key))), None)

    def event_state(self, event: RecordedEvent) -> RecordedEventState:
        """Return the state of an event."""
        return self.sites[event.site].event_state(event)

    def list_cameras(self, site: str = "") -> list[CameraStatus]:
        """Return the cameras of a site, or of all sites."""
        with self._lock:
            return [camera for selected in self._select_sites(site) for camera in selected.list_cameras()]

    def list_labels(self) -> list[str]:
        """Return the labels of all events, sorted."""
        with self._lock:
            return sorted({label for site in self.sites.values() for label in site.index.labels})

    def list_newest_first(
        self, site: str = "", *, before_position: tuple[float, str] | None = None
    ) -> list[RecordedEvent]:
        """Return the events of a site, or of all sites, before a position, newest first."""
        with self._lock:
            indexes = [selected.index for selected in self._select_sites(site)]
            lists = [(index, index.positions[: index.count_before(before_position)]) for index in indexes]
            if len(lists) == 1:
                index, positions = lists[0]
                return [index.events[key] for _, key in reversed(positions)]
            newest_first = merge(*(reversed(positions) for _, positions in lists), reverse=True)
            events_by_key = {key: index.events for index, positions in lists for _, key in positions}
            return [events_by_key[key][key] for _, key in newest_first]

    def file_state(self, event: RecordedEvent, kind: Literal["snapshot", "clip"]) -> FileState:
        """Return whether a file of an event exists, will be written, was removed, or was never made."""
        name = event.snapshot if kind == "snapshot" else event.clip
        if not name:
            return "none"
        if (descriptor := self.open_file(event, kind)) is not None:
            os.close(descriptor)
            return "there"
        is_recent = self.clock() - event.until < CLIP_GRACE_SECONDS
        return "coming" if kind == "clip" and (is_recent or self.event_state(event) == "going on") else "removed"

    def open_file(self, event: RecordedEvent, kind: Literal["snapshot", "clip"]) -> int | None:
        """Open the snapshot or clip of an event and return its descriptor, or None if it does not exist."""
        if kind == "snapshot":
            return _open_in_folder(self.sites[event.site].folder / SNAPSHOTS_FOLDER, event.snapshot)
        return _open_in_folder(self.sites[event.site].folder / CLIPS_FOLDER, event.clip)

    def has_clip(self, site: str, name: str) -> bool:
        """Return whether a site's folder has a clip of that name."""
        descriptor = _open_in_folder(self.sites[site].folder / CLIPS_FOLDER, name)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None

    def close(self) -> None:
        """Close the logs."""
        for site in self.sites.values():
            site.log_tail.close()

    def _select_sites(self, site: str) -> Iterator[MonitorSite]:
        return (selected for name, selected in self.sites.items() if site in ("", name))


def open_monitor_sites(monitors: Mapping[str, Path], *, clock: Callable[[], float] = time.time) -> MonitorSites:
    """Open the sites of the settings. A thread reads the logs first, so that the server starts at once."""
    sites = {name: MonitorSite(name, folder, EventIndex(name), LogTail(folder)) for name, folder in monitors.items()}
    monitor_sites = MonitorSites(sites, clock)
    threading.Thread(target=monitor_sites.refresh, name="watch", daemon=True).start()
    return monitor_sites


def _open_in_folder(folder: Path, name: str) -> int | None:
    """Open a file in a folder and return its descriptor, or None. Neither may be a link."""
    if not name or "/" in name:
        return None
    try:
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return open_regular_file(name, folder_fd=folder_fd)
    finally:
        os.close(folder_fd)


def _read_heartbeat(folder: Path) -> Heartbeat:
    if (descriptor := open_regular_file(folder / HEARTBEAT_FILE_NAME)) is None:
        return Heartbeat()
    with open(descriptor, "rb") as file:
        return parse_heartbeat(file.read(1 << 20), os.fstat(descriptor).st_mtime)
