"""Facts of a report besides its clips: the model, the decision rule, and counts over the clips."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from hazard.events.rule import EventRule
from hazard.types import ClipPrediction

CLIP_STATUSES = ("ok", "partial", "failed")


@dataclass(frozen=True)
class ReportInfo:
    """The source, the decision rule and the model of a report.

    `model` is shown and stored as it is. Known keys: `name`, `kind`, `fingerprint` and `groups_known` (bool: whether
    clips of one recording were kept on one side of the split). A mapping with `value` (and `low`, `high`) is a metric
    of the model's evaluation, at the top or one level down. Any other plain value is listed under its key.
    """

    labels: tuple[str, ...]  # K, the order of ClipPrediction.probs
    positive_label: str  # the label that raises alarms; "" = none
    threshold: float  # on the probability of the positive label
    model: Mapping[str, object]
    created: str  # ISO 8601 is formatted for people, any other text is shown unchanged
    source: str
    rules: tuple[EventRule, ...] = ()
    """The rules with which events were found."""
    unknown_from: float | None = None
    """Lowest score of an unknown clip; None if no clip is marked as unknown."""
    window_seconds: float | None = None
    """Length of the windows that longer videos are split into."""
    stride_seconds: float | None = None
    """Time from the start of one window to the start of the next."""
    has_videos: bool = False
    """Whether annotated videos exist beside the report, or will be written."""

    def __post_init__(self) -> None:
        if self.positive_label and self.positive_label not in self.labels:
            raise ValueError(f"expected a positive_label among {self.labels}, got {self.positive_label!r}")


@dataclass(frozen=True)
class ReportSummary:
    """Counts over a report's clips. `with_truth` to `false_alarms` count analysed clips whose true label is known."""

    clips: int = 0
    looked_at: int = 0
    flagged: int = 0
    partial: int = 0
    failed: int = 0
    events: int = 0
    with_events: int = 0
    """Clips with at least one event."""
    unknown: int = 0
    """Clips marked as unknown: unlike all training clips."""
    seconds: float = 0.0
    """Length of all analysed video."""
    with_truth: int = 0
    correct: int = 0
    missed: int = 0
    false_alarms: int = 0

    @property
    def accuracy(self) -> float | None:
        """Share of correct labels; None if no true label is known."""
        return self.correct / self.with_truth if self.with_truth else None


@dataclass
class SummaryCounter:
    """A counter of clips that makes the summary."""

    info: ReportInfo
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, clip: ClipPrediction) -> None:
        """Count one clip."""
        is_analysed, correct = clip.status != "failed", is_correct(clip, self.info)
        is_positive, is_wrong = clip.label == self.info.positive_label, correct is False
        for name, amount in {
            "clips": 1,
            "looked_at": is_analysed,
            "flagged": is_analysed and is_positive,
            "partial": clip.status == "partial",
            "failed": not is_analysed,
            "events": len(clip.events) if is_analysed else 0,
            "with_events": is_analysed and bool(clip.events),
            "unknown": is_analysed and clip.is_unknown,
            "seconds": clip.duration if is_analysed and math.isfinite(clip.duration) else 0.0,
            "with_truth": correct is not None,
            "correct": correct is True,
            "missed": is_wrong and clip.truth == self.info.positive_label,
            "false_alarms": is_wrong and is_positive,
        }.items():
            self.counts[name] = self.counts.get(name, 0) + amount

    @property
    def summary(self) -> ReportSummary:
        """The counts so far."""
        return ReportSummary(**self.counts)  # type: ignore[arg-type]


def summarize(clips: Iterable[ClipPrediction], info: ReportInfo) -> ReportSummary:
    """Return the counts over all clips."""
    counter = SummaryCounter(info)
    for clip in clips:
        counter.add(clip)
    return counter.summary


def is_correct(clip: ClipPrediction, info: ReportInfo) -> bool | None:
    """Return whether the label is correct; None if the clip failed or its true label is not one of the model's."""
    return clip.label == clip.truth if clip.status != "failed" and clip.truth in info.labels else None


def ranking_score(clip: ClipPrediction, info: ReportInfo) -> float:
    """Return the probability of the positive label or, without one, of the clip's own label: clips are ranked by it."""
    return clip.probs[info.labels.index(info.positive_label or clip.label)]


def validate_clip(clip: ClipPrediction, info: ReportInfo) -> ClipPrediction:
    """Return the clip in the form that all formats expect; a failed clip has only a reason.

    Raises ValueError, which names the clip, if a clip that did not fail does not fit the labels.
    """
    if clip.status not in CLIP_STATUSES:
        raise ValueError(f"{clip.path!r}: expected a status among {CLIP_STATUSES}, got {clip.status!r}")
    if clip.status == "failed":
        return ClipPrediction(clip.path, "failed", clip.reason or "no reason was recorded", truth=clip.truth)
    if clip.label not in info.labels:
        raise ValueError(f"{clip.path!r}: expected a label among {info.labels}, got {clip.label!r}")
    if len(clip.probs) != len(info.labels) or not all(0 <= p <= 1 for p in clip.probs):
        raise ValueError(f"{clip.path!r}: expected {len(info.labels)} probabilities within 0..1, got {clip.probs}")
    if len(clip.thumbnails) != len(clip.thumbnail_times):
        raise ValueError(f"{clip.path!r}: got {len(clip.thumbnails)} thumbnails and {len(clip.thumbnail_times)} times")
    if len(clip.attention) != len(clip.attention_times):
        raise ValueError(f"{clip.path!r}: got {len(clip.attention)} weights and {len(clip.attention_times)} times")
    _check_windows(clip, info)
    return replace(clip, probs=tuple(map(float, clip.probs)))


def _check_windows(clip: ClipPrediction, info: ReportInfo) -> None:
    if clip.windows is None:
        return
    spans, probs = clip.windows.spans, clip.windows.probs
    if probs.shape != (len(spans), len(info.labels)) or not (np.isfinite(spans).all() and _is_within_0_1(probs)):
        raise ValueError(
            f"{clip.path!r}: expected windows of {len(info.labels)} probabilities within 0..1, got {probs.shape}, "
            f"{np.nanmin(probs, initial=1):g} to {np.nanmax(probs, initial=0):g}"
        )


def _is_within_0_1(probs: np.ndarray) -> bool:
    return bool(((probs >= 0) & (probs <= 1)).all())
