"""What is asked of what cameras saw: filters, pages of a long list, numbers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from threading import RLock
from typing import Literal, TypeVar
from zoneinfo import ZoneInfo

from hazard.web.cameras.events import Seen
from hazard.web.cameras.feedback import Mark, Marks, Word, model_labels, open_marks
from hazard.web.cameras.sites import Watch, open_watch
from hazard.web.cameras.statistics import Figures, day_start, figures, local_zone, zone_of
from hazard.web.settings import ServeSettings

Marked = Literal["", "none", "any", "right", "wrong"]
Place = tuple[float, str]
MOST_ANSWERS = 16
"""Kept of each kind while nothing changes."""
_YEAR_3000 = 32_503_680_000
_CURSOR = re.compile(r"(\d{1,12}\.\d{1,9})~([0-9a-f]{24})")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Wanted:
    """Which events somebody wants to see; what is empty is not asked for."""

    site: str = ""
    camera: str = ""
    label: str = ""
    since: float | None = None
    before: float | None = None
    marked: Marked = ""


@dataclass(frozen=True)
class Page:
    """A piece of a long list, newest first."""

    events: list[Seen]
    total: int
    """Of all pieces."""
    next: str
    """Where the next piece begins; empty after the last."""


@dataclass
class Sights:
    """All that pages and programs ask of cameras."""

    watch: Watch
    marks: dict[str, Marks]
    labels: Callable[[], list[tuple[str, ...]]]
    """What the models of the settings may call a clip."""
    zone: ZoneInfo
    """Where the server stands."""
    _lock: RLock = field(default_factory=RLock, repr=False)
    _kept: dict[tuple[object, ...], object] = field(default_factory=dict, repr=False)

    def found(self, wanted: Wanted) -> list[Seen]:
        """All events of a kind, newest first."""
        self.watch.look()
        return self._once(("found", wanted), lambda: self._filtered(wanted))

    def page(self, wanted: Wanted, *, cursor: str = "", limit: int) -> Page:
        """A piece of them. Raises ValueError for a cursor that is none."""
        events, place = self.found(wanted), parse_cursor(cursor)
        first = 0 if place is None else _first_before(events, place)
        piece = events[first : first + limit]
        is_last = first + limit >= len(events)
        return Page(piece, len(events), "" if is_last else cursor_of(piece[-1]))

    def figures(self, wanted: Wanted, zone: ZoneInfo) -> Figures:
        """Them in numbers."""
        events = self.found(wanted)
        return self._once(("figures", wanted, zone.key), lambda: figures(events, self.word, zone))

    def word(self, event: Seen) -> Word:
        """What somebody said of an event."""
        return self.marks[event.site].word(event.key)

    def mark(self, event: Seen) -> Mark | None:
        """All that was said of it."""
        return self.marks[event.site].get(event.key)

    def put_mark(self, event: Seen, word: Word, label: str = "") -> None:
        """On disk when this returns. Raises EnvironmentStopped."""
        if self.marks[event.site].put(event, word, label, self.watch.clock()):
            self.watch.touch()

    def marked_clips(self, site: str, *, with_removed: bool) -> list[Mark]:
        """The marks of a site; those whose clip is gone only where asked for."""
        marks = self.marks[site].all()
        return [mark for mark in marks if with_removed or self.watch.has_clip(site, mark.clip)]

    def _filtered(self, wanted: Wanted) -> list[Seen]:
        before = None if wanted.before is None else (wanted.before, "")
        return [
            event for event in self.watch.newest_first(wanted.site, before=before) if self._is_wanted(event, wanted)
        ]

    def _is_wanted(self, event: Seen, wanted: Wanted) -> bool:
        if (wanted.camera or event.camera) != event.camera or (wanted.label or event.label) != event.label:
            return False
        if wanted.since is not None and event.started < wanted.since:
            return False
        return not wanted.marked or self._is_said(event, wanted.marked)

    def _is_said(self, event: Seen, marked: Marked) -> bool:
        word = self.word(event)
        return bool(word) if marked == "any" else word == ("" if marked == "none" else marked)

    def _once(self, key: tuple[object, ...], make: Callable[[], Result]) -> Result:
        """The same answer as long as nothing changes."""
        with self._lock:
            full = (self.watch.tag, *key)
            if full not in self._kept:
                if len(self._kept) >= MOST_ANSWERS or any(one[0] != full[0] for one in self._kept):
                    self._kept.clear()
                self._kept[full] = make()
            return self._kept[full]  # type: ignore[return-value]


def open_sights(settings: ServeSettings) -> Sights:
    """What the monitors of the settings saw. Raises EnvironmentStopped where marks cannot be kept."""
    marks = open_marks(settings.data / "marks", settings.monitors)
    return Sights(open_watch(settings.monitors), marks, model_labels(settings.models), local_zone())


def cursor_of(event: Seen) -> str:
    """What the next piece is asked for by."""
    return f"{event.started:.6f}~{event.key}"


def parse_cursor(text: str) -> Place | None:
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
    if (zone := zone_of(name)) is None:
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


def _first_before(events: Sequence[Seen], place: Place) -> int:
    """How many of a list, newest first, are no older than a place."""
    low, high = 0, len(events)
    while low < high:
        middle = (low + high) // 2
        if (round(events[middle].started, 6), events[middle].key) >= place:
            low = middle + 1
        else:
            high = middle
    return low
