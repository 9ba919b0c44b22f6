"""Event counts by hour, weekday, camera, label and day, and the share that users confirmed."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from hazard.web.cameras.events import RecordedEvent
from hazard.web.cameras.feedback import Verdict

MAX_TREND_DAYS = 366
"""The longest list of days. Earlier days are left out."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
Key = TypeVar("Key", str, tuple[str, str])


@dataclass(frozen=True)
class FeedbackCounts:
    """The number of events, and how many of them users marked right or wrong."""

    count: int = 0
    right: int = 0
    wrong: int = 0

    @property
    def share_confirmed(self) -> float | None:
        """The share of right events among the marked ones; None if none is marked."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None


@dataclass(frozen=True)
class EventStatistics:
    """Event counts, in the hours and days of one time zone."""

    total: FeedbackCounts
    by_hour: list[int]  # 24, from midnight
    by_weekday: list[int]  # 7, from Monday
    by_camera: list[tuple[tuple[str, str], FeedbackCounts]]
    """Counts by (site, camera), largest first."""
    by_label: list[tuple[str, FeedbackCounts]]
    by_day: list[tuple[date, FeedbackCounts]]
    """Counts from the first day to the last, including days without events."""


def compute_statistics(
    events: Sequence[RecordedEvent], find_verdict: Callable[[RecordedEvent], Verdict], zone: tzinfo
) -> EventStatistics:
    """Count events by their start."""
    verdicts = [find_verdict(event) for event in events]
    hours: Counter[tuple[date, int]] = Counter()
    by_day: dict[date, Counter[Verdict]] = {}
    by_camera: dict[tuple[str, str], Counter[Verdict]] = {}
    by_label: dict[str, Counter[Verdict]] = {}
    for event, verdict in zip(events, verdicts, strict=True):
        start = datetime.fromtimestamp(event.started, zone)
        day = start.date()
        hours[day, start.hour] += 1
        by_day.setdefault(day, Counter())[verdict] += 1
        by_camera.setdefault((event.site, event.camera), Counter())[verdict] += 1
        by_label.setdefault(event.label, Counter())[verdict] += 1
    return EventStatistics(
        total=_count_feedback(Counter(verdicts)),
        by_hour=_sum_by_index([(hour, count) for (_, hour), count in hours.items()], 24),
        by_weekday=_sum_by_index([(day.weekday(), count) for (day, _), count in hours.items()], 7),
        by_camera=_sort_largest_first(by_camera),
        by_label=_sort_largest_first(by_label),
        by_day=_fill_days(by_day),
    )


def find_local_zone() -> ZoneInfo:
    """Return the time zone of this machine, or UTC if it is not known."""
    from_environment = os.environ.get("TZ", "").lstrip(":")
    from_system = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    for name in (from_environment, from_system):
        if name and (zone := find_zone(name)):
            return zone
    return ZoneInfo("UTC")


def find_zone(name: str) -> ZoneInfo | None:
    """Return a time zone by its name, such as `Europe/Berlin`, or None."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return None


def day_start(day: date, zone: tzinfo) -> float:
    """Return midnight of a day in a time zone, in seconds since 1970."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).timestamp()


def _count_feedback(verdicts: "Counter[Verdict]") -> FeedbackCounts:
    return FeedbackCounts(verdicts.total(), verdicts["right"], verdicts["wrong"])


def _sum_by_index(counts: Sequence[tuple[int, int]], size: int) -> list[int]:
    totals = [0] * size
    for index, count in counts:
        totals[index] += count
    return totals


def _sort_largest_first(verdicts_by_key: "dict[Key, Counter[Verdict]]") -> "list[tuple[Key, FeedbackCounts]]":
    counts = [(key, _count_feedback(verdicts)) for key, verdicts in verdicts_by_key.items()]
    return sorted(counts, key=lambda pair: (-pair[1].count, pair[0]))


def _fill_days(by_day: "dict[date, Counter[Verdict]]") -> list[tuple[date, FeedbackCounts]]:
    if not by_day:
        return []
    last = max(by_day)
    first = max(min(by_day), last - timedelta(days=MAX_TREND_DAYS - 1))
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [(day, _count_feedback(by_day.get(day, Counter()))) for day in days]
