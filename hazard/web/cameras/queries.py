"""What is asked of what cameras saw: filters, pages of a long list, numbers."""

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
from hazard.web.cameras.statistics import EventStatistics, compute_statistics, day_start, find_zone, local_zone
from hazard.web.settings import ServeSettings

FeedbackFilter = Literal["", "none", "any", "right", "wrong"]
EventPosition = tuple[float, str]
MAX_CACHED_ANSWERS = 16
"""Kept of each kind while nothing changes."""
_YEAR_3000 = 32_503_680_000
_CURSOR = re.compile(r"(\d{1,12}\.\d{1,9})~([0-9a-f]{24})")
Result = TypeVar("Result")


@dataclass(frozen=True)
class EventFilter:
    """Which events somebody wants to see; what is empty is not asked for."""

    site: str = ""
    camera: str = ""
    label: str = ""
    since: float | None = None
    before: float | None = None
    marked: FeedbackFilter = ""


@dataclass(frozen=True)
class EventPage:
    """A piece of a long list, newest first."""

    events: list[RecordedEvent]
    total: int
    """Of all pieces."""
    next: str
    """Where the next piece begins; empty after the last."""


@dataclass
class CameraQueries:
    """All that pages and programs ask of cameras."""

    monitor_sites: MonitorSites
    feedback_stores: dict[str, FeedbackStore]
    read_model_labels: Callable[[], list[tuple[str, ...]]]
    """What the models of the settings may call a clip."""
    zone: ZoneInfo
    """Where the server stands."""
    _lock: RLock = field(default_factory=RLock, repr=False)
    _cache: dict[tuple[object, ...], object] = field(default_factory=dict, repr=False)

    def find_events(self, event_filter: EventFilter) -> list[RecordedEvent]:
        """All events of a kind, newest first."""
        self.monitor_sites.refresh()
        return self._compute_once(("found", event_filter), lambda: self._filter_events(event_filter))

    def find_page(self, event_filter: EventFilter, *, cursor: str = "", limit: int) -> EventPage:
        """A piece of them. Raises ValueError for a cursor that is none."""
        events, place = self.find_events(event_filter), parse_cursor(cursor)
        first = 0 if place is None else _count_not_before(events, place)
        piece = events[first : first + limit]
        is_last = first + limit >= len(events)
        return EventPage(piece, len(events), "" if is_last else make_cursor(piece[-1]))

    def compute_statistics(self, event_filter: EventFilter, zone: ZoneInfo) -> EventStatistics:
        """Them in numbers."""
        events = self.find_events(event_filter)
        return self._compute_once(
            ("figures", event_filter, zone.key), lambda: compute_statistics(events, self.verdict, zone)
        )

    def verdict(self, event: RecordedEvent) -> Verdict:
        """What somebody said of an event."""
        return self.feedback_stores[event.site].verdict(event.key)

    def feedback(self, event: RecordedEvent) -> Feedback | None:
        """All that was said of it."""
        return self.feedback_stores[event.site].get(event.key)

    def save_feedback(self, event: RecordedEvent, verdict: Verdict, label: str = "") -> None:
        """On disk when this returns. Raises EnvironmentStopped."""
        if self.feedback_stores[event.site].save(event, verdict, label, self.monitor_sites.clock()):
            self.monitor_sites.mark_changed()

    def list_feedback(self, site: str, *, with_removed: bool) -> list[Feedback]:
        """The marks of a site; those whose clip is gone only where asked for."""
        marks = self.feedback_stores[site].list_all()
        return [mark for mark in marks if with_removed or self.monitor_sites.has_clip(site, mark.clip)]

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
        return not event_filter.marked or self._matches_feedback(event, event_filter.marked)

    def _matches_feedback(self, event: RecordedEvent, feedback_filter: FeedbackFilter) -> bool:
        word = self.verdict(event)
        return (
            bool(word) if feedback_filter == "any" else word == ("" if feedback_filter == "none" else feedback_filter)
        )

    def _compute_once(self, key: tuple[object, ...], make: Callable[[], Result]) -> Result:
        """The same answer as long as nothing changes."""
        with self._lock:
            full = (self.monitor_sites.version_tag, *key)
            if full not in self._cache:
                if len(self._cache) >= MAX_CACHED_ANSWERS or any(one[0] != full[0] for one in self._cache):
                    self._cache.clear()
                self._cache[full] = make()
            return self._cache[full]  # type: ignore[return-value]


def open_camera_queries(settings: ServeSettings) -> CameraQueries:
    """What the monitors of the settings saw. Raises EnvironmentStopped where marks cannot be kept."""
    marks = open_feedback(settings.data / "marks", settings.monitors)
    return CameraQueries(
        open_monitor_sites(settings.monitors), marks, make_model_labels_reader(settings.models), local_zone()
    )


def make_cursor(event: RecordedEvent) -> str:
    """What the next piece is asked for by."""
    return f"{event.started:.6f}~{event.key}"


def parse_cursor(text: str) -> EventPosition | None:
    """The place that a cursor names. Raises ValueError."""
    if not text:
        return None
    if (found := _CURSOR.fullmatch(text)) is None:
        raise ValueError(f"cursor: expected what `next` of an answer says, got '{text[:40]}'")
    return float(found[1]), found[2]


def parse_zone(name: str, default: ZoneInfo) -> ZoneInfo:
    """A time zone, or the default where none is named. Raises ValueError."""
    if not name:
        return default
    if (zone := find_zone(name)) is None:
        raise ValueError(f"zone: expected a time zone such as Europe/Berlin, got '{name[:40]}'")
    return zone


def parse_moment(text: str, zone: ZoneInfo, *, name: str, days: int = 0) -> float | None:
    """A day, which begins at midnight there, or a moment; `days` later. Raises ValueError."""
    if not text:
        return None
    try:
        if len(text) == len("2026-01-02"):
            at = day_start(date.fromisoformat(text) + timedelta(days=days), zone)
        else:
            moment = datetime.fromisoformat(text)
            at = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
        if not 0 <= at < _YEAR_3000:
            raise ValueError("no time of ours")
        return at
    except (ValueError, OverflowError, OSError):
        said = "expected a day such as 2026-01-31 or a time such as 2026-01-31T08:00:00Z"
        raise ValueError(f"{name}: {said}, got '{text[:40]}'") from None


def _count_not_before(events: Sequence[RecordedEvent], position: EventPosition) -> int:
    """How many of a list, newest first, are no older than a place."""
    low, high = 0, len(events)
    while low < high:
        middle = (low + high) // 2
        if (round(events[middle].started, 6), events[middle].key) >= position:
            low = middle + 1
        else:
            high = middle
    return low
