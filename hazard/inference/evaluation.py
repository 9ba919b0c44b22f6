"""Accuracy of predictions on clips with a known true label and on videos with known true events."""

import heapq
import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from hazard.events.decision import Decision
from hazard.events.ground_truth import MAX_LISTED_MISTAKES, EvaluatedVideo, GroundTruth, TrueEvent, evaluate_events
from hazard.metrics import bootstrap
from hazard.metrics import classification as metrics
from hazard.metrics.intervals import MIN_GROUPS, Interval, add_intervals, measure_sample
from hazard.types import ClipPrediction

MAX_RESAMPLED_VIDEOS = 10_000
"""Above this number of videos no confidence intervals are computed: sampling error is then the smaller part."""
REPORTED_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "precision",
    "recall",
    "roc_auc",
    "pr_auc",
    "top5_accuracy",
)


def evaluate_predictions(
    clips: Iterable[ClipPrediction],
    decision: Decision,
    *,
    truth: GroundTruth | None = None,
    tolerance_seconds: float = 0.0,
) -> dict[str, Any]:
    """Compute the report's evaluation of decided clips in one pass that keeps a few numbers per clip.

    With labelled clips the result has `accuracy` and the other REPORTED_METRICS, each {value, low, high}, with a
    `reason` if there is no interval, and `confusion`, `per_class` and `worst`. It has `events` if the true events of
    some clip are known: from `truth`, or from the clip's label. The result is empty if no truth is known. Undefined
    values are None.
    """
    labelled = _LabeledClips(decision)
    events = evaluate_events(
        _make_evaluated_videos(clips, decision, truth or {}, labelled), tolerance_seconds=tolerance_seconds
    )
    tree = labelled.compute_metrics() if labelled.truths or labelled.failed or labelled.other_labels else {}
    if events["videos"]:
        tree["events"] = events
    return dict(metrics.replace_nan_by_none(tree))


def find_true_events(clip: ClipPrediction, decision: Decision, truth: GroundTruth) -> list[TrueEvent] | None:
    """Return the true events of a clip, or None if they are not known.

    A clip that `truth` does not list has one event as long as the clip if its true label has an event rule, else none.
    """
    if clip.path in truth:
        return truth[clip.path]
    if clip.truth not in decision.labels:
        return None
    return [TrueEvent(clip.truth, 0.0, clip.duration)] if clip.truth in {r.label for r in decision.rules} else []


def _make_evaluated_videos(
    clips: Iterable[ClipPrediction], decision: Decision, truth: GroundTruth, labelled: "_LabeledClips"
) -> Iterator[EvaluatedVideo]:
    """Yield the analysed clips whose true events are known; pass every clip to `labelled.add` on the way."""
    for clip in clips:
        labelled.add(clip)
        true_events = find_true_events(clip, decision, truth)
        if clip.status != "failed" and true_events is not None:
            is_timed = clip.path in truth or (clip.windows is not None and len(clip.windows) > 1)
            yield EvaluatedVideo(clip.path, clip.duration, true_events, clip.events, is_timed=is_timed)


@dataclass
class _LabeledClips:
    """The true and the predicted label of each clip, in a few bytes per clip."""

    decision: Decision
    truths: array = field(default_factory=lambda: array("h"))  # (B,)
    predicted: array = field(default_factory=lambda: array("h"))  # (B,)
    probs: array = field(default_factory=lambda: array("f"))  # (B * K,)
    videos: array = field(default_factory=lambda: array("q"))  # (B,) hash of the video that each clip belongs to
    worst: list[tuple[float, str, str, str]] = field(default_factory=list)
    failed: int = 0
    other_labels: int = 0
    unknown: int = 0

    def add(self, clip: ClipPrediction) -> None:
        """Count a clip, if it has a true label."""
        labels = self.decision.labels
        if not clip.truth:
            return
        if clip.truth not in labels:
            self.other_labels += 1
        elif clip.status == "failed":
            self.failed += 1
        else:
            self.truths.append(labels.index(clip.truth))
            self.predicted.append(labels.index(clip.label))
            self.probs.extend(clip.probs)
            self.unknown += clip.is_unknown
            self.videos.append(_hash_path(clip.path.partition("#t=")[0]))
            if clip.label != clip.truth:
                mistake = (clip.probs[labels.index(clip.label)], clip.path, clip.truth, clip.label)
                push = heapq.heappush if len(self.worst) < MAX_LISTED_MISTAKES else heapq.heappushpop
                push(self.worst, mistake)

    def compute_metrics(self) -> dict[str, Any]:
        """Return the part of the evaluation that is about labels."""
        labels = self.decision.labels
        y, predicted = np.array(self.truths, np.int64), np.array(self.predicted, np.int64)
        counts = {"clips": len(y), "failed": self.failed, "other_labels": self.other_labels}
        counts["unknown"] = self.unknown
        if not len(y):
            return counts
        return {
            **counts,
            **self._compute_headline_metrics(y, predicted),
            "confusion": {
                "labels": list(labels),
                "counts": metrics.confusion_matrix(y, predicted, len(labels)).tolist(),
            },
            "per_class": metrics.per_class_metrics(y, predicted, labels),
            "worst": [
                {"path": path, "truth": truth, "label": label, "probability": probability}
                for probability, path, truth, label in sorted(self.worst, key=lambda mistake: (-mistake[0], mistake[1]))
            ],
        }

    def _compute_headline_metrics(self, y: metrics.Labels, predicted: metrics.Labels) -> dict[str, Interval]:
        probs = np.array(self.probs, np.float64).reshape(len(y), -1)  # (B, K)
        videos = np.array(self.videos, np.int64)
        positive = self.decision.labels.index(self.decision.positive_label) if self.decision.positive_label else None
        options: dict[str, Any] = {"positive": positive, "predicted": predicted}
        unit_weights = bootstrap.make_unit_weights(len(y))
        values = bootstrap.select_draw(bootstrap.headline_metrics(y, probs, unit_weights, **options))
        names = [name for name in REPORTED_METRICS if name in values]
        sample = measure_sample(y, videos, classes=len(self.decision.labels), positive=positive, unit="video")
        if sample.groups > MAX_RESAMPLED_VIDEOS:
            reason = f"more than {MAX_RESAMPLED_VIDEOS:,} videos"
            missing: Interval = {"low": math.nan, "high": math.nan, "reason": reason}
            return {name: {"value": values[name], **missing} for name in names}
        draws = {}
        if sample.groups >= MIN_GROUPS:
            draws = bootstrap.headline_metrics(y, probs, bootstrap.draw_groups(videos), **options)
        return add_intervals({name: values[name] for name in names}, draws, sample)


def _hash_path(path: str) -> int:
    """Return the same number for the same path on every machine: bootstrap draws depend on the order of these."""
    return int.from_bytes(blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True)
