"""What a safety officer asks for: events by hour, weekday, camera, label and day, and how many of them were right."""

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
"""Of the trend; earlier days are not in it."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
Key = TypeVar("Key", str, tuple[str, str])


@dataclass(frozen=True)
class FeedbackCounts:
    """How many events, and what people said of them."""

    count: int = 0
    right: int = 0
    wrong: int = 0

    @property
    def share_confirmed(self) -> float | None:
        """Of those that somebody looked at, how many were right."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None


@dataclass(frozen=True)
class EventStatistics:
    """Events counted in all ways, in the hours and days of one time zone."""

    total: FeedbackCounts
    by_hour: list[int]  # 24, from midnight
    by_weekday: list[int]  # 7, from Monday
    by_camera: list[tuple[tuple[str, str], FeedbackCounts]]
    """By (site, camera), most first."""
    by_label: list[tuple[str, FeedbackCounts]]
    by_day: list[tuple[date, FeedbackCounts]]
    """From the first day to the last, quiet ones too."""


def compute_statistics(
    events: Sequence[RecordedEvent], find_verdict: Callable[[RecordedEvent], Verdict], zone: tzinfo
) -> EventStatistics:
    """Counts events by when they began."""
    words = [find_verdict(event) for event in events]
    hours: Counter[tuple[date, int]] = Counter()
    by_day: dict[date, Counter[Verdict]] = {}
    by_camera: dict[tuple[str, str], Counter[Verdict]] = {}
    by_label: dict[str, Counter[Verdict]] = {}
    for event, said in zip(events, words, strict=True):
        moment = datetime.fromtimestamp(event.started, zone)
        day = moment.date()
        hours[day, moment.hour] += 1
        by_day.setdefault(day, Counter())[said] += 1
        by_camera.setdefault((event.site, event.camera), Counter())[said] += 1
        by_label.setdefault(event.label, Counter())[said] += 1
    return EventStatistics(
        total=_count_feedback(Counter(words)),
        by_hour=_sum_by_index([(hour, count) for (_, hour), count in hours.items()], 24),
        by_weekday=_sum_by_index([(day.weekday(), count) for (day, _), count in hours.items()], 7),
        by_camera=_sort_most_first(by_camera),
        by_label=_sort_most_first(by_label),
        by_day=_fill_days(by_day),
    )


def local_zone() -> ZoneInfo:
    """Where this machine stands, as far as it knows; otherwise UTC."""
    named = os.environ.get("TZ", "").lstrip(":")
    place = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    for name in (named, place):
        if name and (zone := find_zone(name)):
            return zone
    return ZoneInfo("UTC")


def find_zone(name: str) -> ZoneInfo | None:
    """A time zone by its name, such as `Europe/Berlin`."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return None


def day_start(day: date, zone: tzinfo) -> float:
    """When a day begins there, in seconds since 1970."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).timestamp()


def _count_feedback(verdicts: "Counter[Verdict]") -> FeedbackCounts:
    return FeedbackCounts(verdicts.total(), verdicts["right"], verdicts["wrong"])


def _sum_by_index(counts: Sequence[tuple[int, int]], size: int) -> list[int]:
    total = [0] * size
    for place, count in counts:
        total[place] += count
    return total


def _sort_most_first(counted: "dict[Key, Counter[Verdict]]") -> "list[tuple[Key, FeedbackCounts]]":
    return sorted(
        ((key, _count_feedback(words)) for key, words in counted.items()), key=lambda pair: (-pair[1].count, pair[0])
    )


def _fill_days(by_day: "dict[date, Counter[Verdict]]") -> list[tuple[date, FeedbackCounts]]:
    if not by_day:
        return []
    last = max(by_day)
    first = max(min(by_day), last - timedelta(days=MAX_TREND_DAYS - 1))
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [(day, _count_feedback(by_day.get(day, Counter()))) for day in days]
