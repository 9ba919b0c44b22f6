"""The queries on cameras and events: filters, pages of a long list, statistics."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from threading import RLock
from typing import Literal, TypeVar
from zoneinfo import ZoneInfo

from hazard.web.cameras.events import RecordedEvent
from hazard.web.cameras.feedback import Feedback, FeedbackStore, Verdict, make_model_labels_reader, open_feedback
from hazard.web.cameras.sites import MonitorSites, open_monitor_sites
from hazard.web.cameras.statistics import EventStatistics, compute_statistics, day_start, find_local_zone, find_zone
from hazard.web.settings import ServeSettings

FeedbackFilter = Literal["", "none", "any", "right", "wrong"]
EventPosition = tuple[float, str]
MAX_CACHED_ANSWERS = 16
"""The most cached answers. The cache is emptied at each change."""
_YEAR_3000 = 32_503_680_000
_CURSOR = re.compile(r"(\d{1,12}\.\d{1,9})~([0-9a-f]{24})")
Result = TypeVar("Result")


@dataclass(frozen=True)
class EventFilter:
    """A filter of events. Empty fields do not filter."""

    site: str = ""
    camera: str = ""
    label: str = ""
    since: float | None = None
    before: float | None = None
    feedback: FeedbackFilter = ""


@dataclass(frozen=True)
class EventPage:
    """A page of a long list, newest first."""

    events: list[RecordedEvent]
    total: int
    """The number of events on all pages."""
    next: str
    """The cursor of the next page; empty on the last."""


@dataclass
class CameraQueries:
    """The queries of the page and the API."""

    monitor_sites: MonitorSites
    feedback_stores: dict[str, FeedbackStore]
    read_model_labels: Callable[[], list[tuple[str, ...]]]
    """The function that returns the labels of each model of the settings."""
    zone: ZoneInfo
    """The time zone of the server."""
    _lock: RLock = field(default_factory=RLock, repr=False)
    _cache: dict[tuple[object, ...], object] = field(default_factory=dict, repr=False)

    def find_events(self, event_filter: EventFilter) -> list[RecordedEvent]:
        """Return all events that match a filter, newest first."""
        self.monitor_sites.refresh()
        return self._get_or_compute(("events", event_filter), lambda: self._filter_events(event_filter))

    def find_page(self, event_filter: EventFilter, *, cursor: str = "", limit: int) -> EventPage:
        """Return a page of the events that match a filter. Raises ValueError for a malformed cursor."""
        events, position = self.find_events(event_filter), parse_cursor(cursor)
        first = 0 if position is None else _count_not_before(events, position)
        page = events[first : first + limit]
        is_last = first + limit >= len(events)
        return EventPage(page, len(events), "" if is_last else make_cursor(page[-1]))

    def compute_statistics(self, event_filter: EventFilter, zone: ZoneInfo) -> EventStatistics:
        """Return statistics of the events that match a filter."""
        events = self.find_events(event_filter)
        return self._get_or_compute(
            ("statistics", event_filter, zone.key), lambda: compute_statistics(events, self.get_verdict, zone)
        )

    def get_verdict(self, event: RecordedEvent) -> Verdict:
        """Return the verdict on an event; empty if there is none."""
        return self.feedback_stores[event.site].get_verdict(event.key)

    def get_feedback(self, event: RecordedEvent) -> Feedback | None:
        """Return the feedback on an event, or None."""
        return self.feedback_stores[event.site].get(event.key)

    def save_feedback(self, event: RecordedEvent, verdict: Verdict, label: str = "") -> None:
        """Store feedback on an event on disk. Raises RuntimeEnvironmentError."""
        if self.feedback_stores[event.site].save(event, verdict, label, self.monitor_sites.clock()):
            self.monitor_sites.mark_changed()

    def list_feedback(self, site: str, *, with_removed: bool) -> list[Feedback]:
        """Return the feedback of a site; on events whose clip was removed only `with_removed`."""
        stored = self.feedback_stores[site].list_all()
        return [item for item in stored if with_removed or self.monitor_sites.has_clip(site, item.clip)]

    def _filter_events(self, event_filter: EventFilter) -> list[RecordedEvent]:
        before = None if event_filter.before is None else (event_filter.before, "")
        return [
            event
            for event in self.monitor_sites.list_newest_first(event_filter.site, before_position=before)
            if self._matches(event, event_filter)
        ]

    def _matches(self, event: RecordedEvent, event_filter: EventFilter) -> bool:
        if (event_filter.camera or event.camera) != event.camera or (event_filter.label or event.label) != event.label:
            return False
        if event_filter.since is not None and event.started < event_filter.since:
            return False
        return not event_filter.feedback or self._matches_feedback(event, event_filter.feedback)

    def _matches_feedback(self, event: RecordedEvent, feedback_filter: FeedbackFilter) -> bool:
        verdict = self.get_verdict(event)
        return (
            bool(verdict)
            if feedback_filter == "any"
            else verdict == ("" if feedback_filter == "none" else feedback_filter)
        )

    def _get_or_compute(self, key: tuple[object, ...], make: Callable[[], Result]) -> Result:
        """Return a cached answer, or compute it if it is not cached or anything changed."""
        with self._lock:
            tagged_key = (self.monitor_sites.version_tag, *key)
            if tagged_key not in self._cache:
                if len(self._cache) >= MAX_CACHED_ANSWERS or any(other[0] != tagged_key[0] for other in self._cache):
                    self._cache.clear()
                self._cache[tagged_key] = make()
            return self._cache[tagged_key]  # type: ignore[return-value]


def open_camera_queries(settings: ServeSettings) -> CameraQueries:
    """Open the monitors and the feedback. Raises RuntimeEnvironmentError if the feedback's folder cannot be used."""
    feedback_stores = open_feedback(settings.data / "marks", settings.monitors)
    return CameraQueries(
        open_monitor_sites(settings.monitors),
        feedback_stores,
        make_model_labels_reader(settings.models),
        find_local_zone(),
    )


def make_cursor(event: RecordedEvent) -> str:
    """Return the cursor of the page after an event."""
    return f"{event.started:.6f}~{event.key}"


def parse_cursor(text: str) -> EventPosition | None:
    """Return the position that a cursor names, or None if it is empty. Raises ValueError."""
    if not text:
        return None
    if (match := _CURSOR.fullmatch(text)) is None:
        raise ValueError(f"cursor: expected the value of `next` in an earlier answer, got '{text[:40]}'")
    return float(match[1]), match[2]


def parse_zone(name: str, default: ZoneInfo) -> ZoneInfo:
    """Return a time zone by name, or the default for an empty name. Raises ValueError."""
    if not name:
        return default
    if (zone := find_zone(name)) is None:
        raise ValueError(f"zone: expected a time zone such as Europe/Berlin, got '{name[:40]}'")
    return zone


def parse_moment(text: str, zone: ZoneInfo, *, name: str, days: int = 0) -> float | None:
    """Return a time, or midnight of a day plus `days`, as seconds since 1970; None if empty. Raises ValueError."""
    if not text:
        return None
    try:
        if len(text) == len("2026-01-02"):
            seconds = day_start(date.fromisoformat(text) + timedelta(days=days), zone)
        else:
            moment = datetime.fromisoformat(text)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
        if not 0 <= seconds < _YEAR_3000:
            raise ValueError("not a plausible time")
        return seconds
    except (ValueError, OverflowError, OSError):
        expected = "expected a day such as 2026-01-31 or a time such as 2026-01-31T08:00:00Z"
        raise ValueError(f"{name}: {expected}, got '{text[:40]}'") from None


def _count_not_before(events: Sequence[RecordedEvent], position: EventPosition) -> int:
    """Return how many events of a list, newest first, are not older than a position."""
    low, high = 0, len(events)
    while low < high:
        middle = (low + high) // 2
        if (round(events[middle].started, 6), events[middle].key) >= position:
            low = middle + 1
        else:
            high = middle
    return low
