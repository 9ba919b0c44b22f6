"""Which pictures of a clip a page shows."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hazard.report.facts import ReportInfo, ReportSummary, SummaryCounter, is_correct, ranking_score
from hazard.types import ClipPrediction

THUMBNAIL_COUNTS = (24, 12, 6, 3, 1)
"""Pictures that a clip may have, at most."""


def select_thumbnails(clip: ClipPrediction, count: int) -> list[int]:
    """`count` pictures, in order of time: spread over the clip, the one nearest to its strongest event among them."""
    total = len(clip.thumbnails)
    if total <= count:
        return list(range(total))
    if count == 0:
        return []
    chosen = np.linspace(0, total - 1, count).round().astype(int) if count > 1 else np.array([total // 2])
    if clip.events:
        top = find_event_thumbnail(clip)
        chosen[np.abs(chosen - top).argmin()] = top
    return sorted(set(chosen.tolist()))


def find_event_thumbnail(clip: ClipPrediction) -> int:
    """The picture that is nearest to the middle of the strongest event."""
    event = max(clip.events, key=lambda event: event.peak)
    return int(np.abs(np.asarray(clip.thumbnail_times) - (event.start + event.end) / 2).argmin())


def count_thumbnail_bytes(clip: ClipPrediction, count: int) -> int:
    """What so many pictures take in base64, with a separator each."""
    return sum(4 * ((len(clip.thumbnails[i]) + 2) // 3) + 1 for i in select_thumbnails(clip, count))


MAX_PAGE_CLIPS = 20_000
"""The page lists no more; the tables hold all."""

MAX_PAGE_FAILURES = 5_000

MAX_THUMBNAIL_BYTES = 24 * 2**20
"""Of all pictures of the page together, as they stand in it."""

IMPORTANT_BYTES_SHARE = 0.75
"""Clips with events, unknown or wrong ones may take so much of that."""

MAX_PAGE_CURVE_POINTS = 600_000
"""Of all curves of the page together."""

MAX_CURVE_POINTS, MIN_CURVE_POINTS = 480, 48

HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class PagePlan:
    """What a page shows. Clips are known by their number in order of path, failed ones counted."""

    summary: ReportSummary
    thumbnail_counts: Mapping[int, int]
    """How many pictures of each listed clip."""
    max_curve_points: int
    """The longest curve of a clip."""
    failures: Sequence[tuple[str, str]]
    """Path and reason, of the first so many."""
    labels: tuple[str, ...]
    """Those that some clip has."""
    histogram: Sequence[tuple[int, int]]
    """Clips by score, over equal bins of 0..1: (flagged, others) in each."""
    has_fewer_thumbnails: bool
    """Whether some clip has more pictures than the page shows."""

    @property
    def listed_clips(self) -> int:
        """How many clips the page lists."""
        return len(self.thumbnail_counts)

    @property
    def clips_without_thumbnail(self) -> int:
        """Listed clips of which the page has no picture."""
        return sum(count == 0 for count in self.thumbnail_counts.values())


@dataclass(order=True)
class _Candidate:
    """A clip that the page might list; the greatest are."""

    is_important: bool
    score: float
    number: int  # negative: of equals the first is listed
    strip_sizes_bytes: tuple[int, ...] = field(compare=False)  # bytes of each of STRIPS
    has_curve: bool = field(compare=False)


@dataclass
class PagePlanner:
    """A plan in the making, of bounded size: `add` each clip, then take the `plan`."""

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
        """Takes note of the next clip in order of path."""
        self.summary_counter.add(clip)
        number, self.clip_count = self.clip_count, self.clip_count + 1
        if clip.status == "failed":
            if len(self.failures) < MAX_PAGE_FAILURES:
                self.failures.append((clip.path, clip.reason))
            return
        value = ranking_score(clip, self.info)
        self.label_counts[clip.label] += 1
        self.bin_counts[
            min(int(value * HISTOGRAM_BINS), HISTOGRAM_BINS - 1), clip.label == self.info.positive_label
        ] += 1
        important = bool(clip.events) or clip.is_unknown or is_correct(clip, self.info) is False
        sizes = tuple(count_thumbnail_bytes(clip, count) for count in THUMBNAIL_COUNTS)
        has_curve = clip.windows is not None and len(clip.windows) > 1
        keep = heapq.heappush if len(self.candidates) < MAX_PAGE_CLIPS else heapq.heappushpop
        keep(self.candidates, _Candidate(important, value, -number, sizes, has_curve))

    @property
    def plan(self) -> PagePlan:
        """What the page is to show of what was seen."""
        listed = sorted(self.candidates, reverse=True)
        pictures = _allot_thumbnails(listed)
        curves = sum(candidate.has_curve for candidate in listed)
        return PagePlan(
            summary=self.summary_counter.summary,
            thumbnail_counts=dict(sorted(pictures.items())),
            max_curve_points=max(MIN_CURVE_POINTS, min(MAX_CURVE_POINTS, MAX_PAGE_CURVE_POINTS // max(curves, 1))),
            failures=self.failures,
            labels=tuple(label for label in self.info.labels if self.label_counts[label]),
            histogram=[(self.bin_counts[i, True], self.bin_counts[i, False]) for i in range(HISTOGRAM_BINS)],
            has_fewer_thumbnails=any(c.strip_sizes_bytes[0] > _thumbnail_bytes(c, pictures[-c.number]) for c in listed),
        )


def _allot_thumbnails(listed: Sequence[_Candidate]) -> dict[int, int]:
    """Pictures of each clip: all of a kind get equally many, the important ones first."""
    important = [candidate for candidate in listed if candidate.is_important]
    others = [candidate for candidate in listed if not candidate.is_important]
    share = int(MAX_THUMBNAIL_BYTES * (IMPORTANT_BYTES_SHARE if others else 1))
    pictures, spent = _choose_thumbnail_counts(important, share)
    return pictures | _choose_thumbnail_counts(others, MAX_THUMBNAIL_BYTES - spent)[0]


def _choose_thumbnail_counts(candidates: Sequence[_Candidate], limit: int) -> tuple[dict[int, int], int]:
    """The longest strip that all can have, or a single picture of the first so many; and the bytes that it takes."""
    for place, count in enumerate(THUMBNAIL_COUNTS):
        total = sum(candidate.strip_sizes_bytes[place] for candidate in candidates)
        if total <= limit:
            return {-candidate.number: count for candidate in candidates}, total
    pictures, spent = {}, 0
    for candidate in candidates:
        fits = spent + candidate.strip_sizes_bytes[-1] <= limit
        pictures[-candidate.number] = THUMBNAIL_COUNTS[-1] if fits else 0
        spent += candidate.strip_sizes_bytes[-1] if fits else 0
    return pictures, spent


def _thumbnail_bytes(candidate: _Candidate, count: int) -> int:
    return candidate.strip_sizes_bytes[THUMBNAIL_COUNTS.index(count)] if count else 0
