"""Which pictures of a clip a page shows."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hazard.report.facts import Counts, ReportInfo, Summary, is_correct, score
from hazard.types import ClipPrediction

STRIPS = (24, 12, 6, 3, 1)
"""Pictures that a clip may have, at most."""


def strip(clip: ClipPrediction, count: int) -> list[int]:
    """`count` pictures, in order of time: spread over the clip, the one nearest to its strongest event among them."""
    total = len(clip.thumbnails)
    if total <= count:
        return list(range(total))
    if count == 0:
        return []
    chosen = np.linspace(0, total - 1, count).round().astype(int) if count > 1 else np.array([total // 2])
    if clip.events:
        top = nearest_picture(clip)
        chosen[np.abs(chosen - top).argmin()] = top
    return sorted(set(chosen.tolist()))


def nearest_picture(clip: ClipPrediction) -> int:
    """The picture that is nearest to the middle of the strongest event."""
    event = max(clip.events, key=lambda event: event.peak)
    return int(np.abs(np.asarray(clip.thumbnail_times) - (event.start + event.end) / 2).argmin())


def strip_bytes(clip: ClipPrediction, count: int) -> int:
    """What so many pictures take in base64, with a separator each."""
    return sum(4 * ((len(clip.thumbnails[i]) + 2) // 3) + 1 for i in strip(clip, count))


PAGE_CLIPS = 20_000
"""The page lists no more; the tables hold all."""

PAGE_FAILURES = 5_000

PICTURE_BYTES = 24 * 2**20
"""Of all pictures of the page together, as they stand in it."""

IMPORTANT_SHARE = 0.75
"""Clips with events, unknown or wrong ones may take so much of that."""

CURVE_POINTS = 600_000
"""Of all curves of the page together."""

MOST_POINTS, LEAST_POINTS = 480, 48

HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class PagePlan:
    """What a page shows. Clips are known by their number in order of path, failed ones counted."""

    summary: Summary
    pictures: Mapping[int, int]
    """How many pictures of each listed clip."""
    curve_points: int
    """The longest curve of a clip."""
    failures: Sequence[tuple[str, str]]
    """Path and reason, of the first so many."""
    labels: tuple[str, ...]
    """Those that some clip has."""
    histogram: Sequence[tuple[int, int]]
    """Clips by score, over equal bins of 0..1: (flagged, others) in each."""
    fewer_pictures: bool
    """Whether some clip has more pictures than the page shows."""

    @property
    def listed(self) -> int:
        """How many clips the page lists."""
        return len(self.pictures)

    @property
    def without_picture(self) -> int:
        """Listed clips of which the page has no picture."""
        return sum(count == 0 for count in self.pictures.values())


@dataclass(order=True)
class _Candidate:
    """A clip that the page might list; the greatest are."""

    important: bool
    score: float
    number: int  # negative: of equals the first is listed
    sizes: tuple[int, ...] = field(compare=False)  # bytes of each of STRIPS
    has_curve: bool = field(compare=False)


@dataclass
class Planner:
    """A plan in the making, of bounded size: `add` each clip, then take the `plan`."""

    info: ReportInfo
    counts: Counts = field(init=False)
    labels: Counter[str] = field(default_factory=Counter)
    bins: Counter[tuple[int, bool]] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    best: list[_Candidate] = field(default_factory=list)  # a heap
    seen: int = 0

    def __post_init__(self) -> None:
        self.counts = Counts(self.info)

    def add(self, clip: ClipPrediction) -> None:
        """Takes note of the next clip in order of path."""
        self.counts.add(clip)
        number, self.seen = self.seen, self.seen + 1
        if clip.status == "failed":
            if len(self.failures) < PAGE_FAILURES:
                self.failures.append((clip.path, clip.reason))
            return
        value = score(clip, self.info)
        self.labels[clip.label] += 1
        self.bins[min(int(value * HISTOGRAM_BINS), HISTOGRAM_BINS - 1), clip.label == self.info.positive_label] += 1
        important = bool(clip.events) or clip.is_unknown or is_correct(clip, self.info) is False
        sizes = tuple(strip_bytes(clip, count) for count in STRIPS)
        has_curve = clip.windows is not None and len(clip.windows) > 1
        keep = heapq.heappush if len(self.best) < PAGE_CLIPS else heapq.heappushpop
        keep(self.best, _Candidate(important, value, -number, sizes, has_curve))

    @property
    def plan(self) -> PagePlan:
        """What the page is to show of what was seen."""
        listed = sorted(self.best, reverse=True)
        pictures = _share_out(listed)
        curves = sum(candidate.has_curve for candidate in listed)
        return PagePlan(
            summary=self.counts.summary,
            pictures=dict(sorted(pictures.items())),
            curve_points=max(LEAST_POINTS, min(MOST_POINTS, CURVE_POINTS // max(curves, 1))),
            failures=self.failures,
            labels=tuple(label for label in self.info.labels if self.labels[label]),
            histogram=[(self.bins[i, True], self.bins[i, False]) for i in range(HISTOGRAM_BINS)],
            fewer_pictures=any(c.sizes[0] > _bytes_of(c, pictures[-c.number]) for c in listed),
        )


def _share_out(listed: Sequence[_Candidate]) -> dict[int, int]:
    """Pictures of each clip: all of a kind get equally many, the important ones first."""
    important = [candidate for candidate in listed if candidate.important]
    others = [candidate for candidate in listed if not candidate.important]
    share = int(PICTURE_BYTES * (IMPORTANT_SHARE if others else 1))
    pictures, spent = _strips(important, share)
    return pictures | _strips(others, PICTURE_BYTES - spent)[0]


def _strips(candidates: Sequence[_Candidate], limit: int) -> tuple[dict[int, int], int]:
    """The longest strip that all can have, or a single picture of the first so many; and the bytes that it takes."""
    for place, count in enumerate(STRIPS):
        total = sum(candidate.sizes[place] for candidate in candidates)
        if total <= limit:
            return {-candidate.number: count for candidate in candidates}, total
    pictures, spent = {}, 0
    for candidate in candidates:
        fits = spent + candidate.sizes[-1] <= limit
        pictures[-candidate.number] = STRIPS[-1] if fits else 0
        spent += candidate.sizes[-1] if fits else 0
    return pictures, spent


def _bytes_of(candidate: _Candidate, count: int) -> int:
    return candidate.sizes[STRIPS.index(count)] if count else 0
