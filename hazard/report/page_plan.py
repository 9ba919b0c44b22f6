"""The plan of a page: which clips it lists and how many thumbnails of each it shows."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hazard.report.facts import ReportInfo, ReportSummary, SummaryCounter, is_correct, ranking_score
from hazard.types import ClipPrediction

THUMBNAIL_COUNTS = (24, 12, 6, 3, 1)
"""Possible limits of thumbnails per clip; the page uses the largest that fits."""


def select_thumbnails(clip: ClipPrediction, count: int) -> list[int]:
    """Return the indices of `count` thumbnails spread over the clip, with the one nearest to its strongest event."""
    total = len(clip.thumbnails)
    if total <= count:
        return list(range(total))
    if count == 0:
        return []
    chosen = np.linspace(0, total - 1, count).round().astype(int) if count > 1 else np.array([total // 2])
    if clip.events:
        nearest = find_event_thumbnail(clip)
        chosen[np.abs(chosen - nearest).argmin()] = nearest
    return sorted(set(chosen.tolist()))


def find_event_thumbnail(clip: ClipPrediction) -> int:
    """Return the index of the thumbnail nearest to the middle of the strongest event."""
    event = max(clip.events, key=lambda event: event.peak)
    return int(np.abs(np.asarray(clip.thumbnail_times) - (event.start + event.end) / 2).argmin())


def count_thumbnail_bytes(clip: ClipPrediction, count: int) -> int:
    """Return the size in the page of `count` thumbnails: base64, with one separator each."""
    return sum(4 * ((len(clip.thumbnails[i]) + 2) // 3) + 1 for i in select_thumbnails(clip, count))


MAX_PAGE_CLIPS = 20_000
"""Clips that the page lists, at most; the tables have all."""

MAX_PAGE_FAILURES = 5_000

MAX_THUMBNAIL_BYTES = 24 * 2**20
"""Size of all thumbnails in the page together, in base64."""

IMPORTANT_BYTES_SHARE = 0.75
"""Share of these bytes for clips that have events, are unknown or have a wrong label."""

MAX_PAGE_CURVE_POINTS = 600_000
"""Points of all curves in the page together, about."""

MAX_CURVE_POINTS, MIN_CURVE_POINTS = 480, 48

HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class PagePlan:
    """The content of a page. A clip is identified by its number in order of path; failed clips count too."""

    summary: ReportSummary
    thumbnail_counts: Mapping[int, int]
    """Number of each listed clip → how many thumbnails the page shows of it."""
    max_curve_points: int
    """Points of the curves of one clip, at most."""
    failures: Sequence[tuple[str, str]]
    """Path and reason of the first MAX_PAGE_FAILURES failed clips."""
    labels: tuple[str, ...]
    """The labels that at least one clip has."""
    histogram: Sequence[tuple[int, int]]
    """Counts of clips (flagged, others) by score, in equal bins over 0 … 1."""
    has_fewer_thumbnails: bool
    """Whether some clip has more thumbnails than the page shows."""

    @property
    def listed_clips(self) -> int:
        """Number of clips that the page lists."""
        return len(self.thumbnail_counts)

    @property
    def clips_without_thumbnail(self) -> int:
        """Number of listed clips without a thumbnail on the page."""
        return sum(count == 0 for count in self.thumbnail_counts.values())


@dataclass(order=True)
class _Candidate:
    """A clip that the page may list; it lists the greatest ones."""

    is_important: bool
    score: float
    number: int  # negative, so that of equal clips the first is listed
    strip_sizes_bytes: tuple[int, ...] = field(compare=False)  # one for each of THUMBNAIL_COUNTS
    has_curve: bool = field(compare=False)


@dataclass
class PagePlanner:
    """A planner of bounded size: `add` each clip, then take the `plan`."""

    info: ReportInfo
    summary_counter: SummaryCounter = field(init=False)
    label_counts: Counter[str] = field(default_factory=Counter)
    bin_counts: Counter[tuple[int, bool]] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    candidates: list[_Candidate] = field(default_factory=list)  # a heap
    clip_count: int = 0

    def __post_init__(self) -> None:
        self.summary_counter = SummaryCounter(self.info)

    def add(self, clip: ClipPrediction) -> None:
        """Count the next clip in order of path."""
        self.summary_counter.add(clip)
        number, self.clip_count = self.clip_count, self.clip_count + 1
        if clip.status == "failed":
            if len(self.failures) < MAX_PAGE_FAILURES:
                self.failures.append((clip.path, clip.reason))
            return
        score = ranking_score(clip, self.info)
        self.label_counts[clip.label] += 1
        self.bin_counts[
            min(int(score * HISTOGRAM_BINS), HISTOGRAM_BINS - 1), clip.label == self.info.positive_label
        ] += 1
        is_important = bool(clip.events) or clip.is_unknown or is_correct(clip, self.info) is False
        sizes = tuple(count_thumbnail_bytes(clip, count) for count in THUMBNAIL_COUNTS)
        has_curve = clip.windows is not None and len(clip.windows) > 1
        push = heapq.heappush if len(self.candidates) < MAX_PAGE_CLIPS else heapq.heappushpop
        push(self.candidates, _Candidate(is_important, score, -number, sizes, has_curve))

    @property
    def plan(self) -> PagePlan:
        """The plan for all clips added so far."""
        listed = sorted(self.candidates, reverse=True)
        thumbnail_counts = _allot_thumbnails(listed)
        curves = sum(candidate.has_curve for candidate in listed)
        return PagePlan(
            summary=self.summary_counter.summary,
            thumbnail_counts=dict(sorted(thumbnail_counts.items())),
            max_curve_points=max(MIN_CURVE_POINTS, min(MAX_CURVE_POINTS, MAX_PAGE_CURVE_POINTS // max(curves, 1))),
            failures=self.failures,
            labels=tuple(label for label in self.info.labels if self.label_counts[label]),
            histogram=[(self.bin_counts[i, True], self.bin_counts[i, False]) for i in range(HISTOGRAM_BINS)],
            has_fewer_thumbnails=any(
                c.strip_sizes_bytes[0] > _thumbnail_bytes(c, thumbnail_counts[-c.number]) for c in listed
            ),
        )


def _allot_thumbnails(listed: Sequence[_Candidate]) -> dict[int, int]:
    """Return the thumbnails of each clip. Important clips come first; all clips of one kind get equally many."""
    important = [candidate for candidate in listed if candidate.is_important]
    others = [candidate for candidate in listed if not candidate.is_important]
    share = int(MAX_THUMBNAIL_BYTES * (IMPORTANT_BYTES_SHARE if others else 1))
    counts, spent = _choose_thumbnail_counts(important, share)
    return counts | _choose_thumbnail_counts(others, MAX_THUMBNAIL_BYTES - spent)[0]


def _choose_thumbnail_counts(candidates: Sequence[_Candidate], max_bytes: int) -> tuple[dict[int, int], int]:
    """Return the largest count that fits for all, or one thumbnail for the first clips that fit; and the bytes used."""
    for i, count in enumerate(THUMBNAIL_COUNTS):
        total = sum(candidate.strip_sizes_bytes[i] for candidate in candidates)
        if total <= max_bytes:
            return {-candidate.number: count for candidate in candidates}, total
    counts, spent = {}, 0
    for candidate in candidates:
        fits = spent + candidate.strip_sizes_bytes[-1] <= max_bytes
        counts[-candidate.number] = THUMBNAIL_COUNTS[-1] if fits else 0
        spent += candidate.strip_sizes_bytes[-1] if fits else 0
    return counts, spent


def _thumbnail_bytes(candidate: _Candidate, count: int) -> int:
    return candidate.strip_sizes_bytes[THUMBNAIL_COUNTS.index(count)] if count else 0
