"""Pure functions that turn raw predictions into labels, events and "unknown".

Probabilities are expensive to compute and are stored; thresholds are cheap to change. Nothing here reads a video, so a
report with another threshold is made from the stored probabilities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hazard.events.rule import EventRule, find_events
from hazard.types import ClipPrediction, Event, WindowPredictions


@dataclass(frozen=True)
class Decision:
    """Thresholds and rules that turn probabilities into labels and events."""

    labels: tuple[str, ...]  # K
    positive_label: str
    """Label that an alarm is for, if there are two labels; empty otherwise."""
    threshold: float
    """Lowest probability of the positive label that gives this label to a clip of one window."""
    rules: tuple[EventRule, ...]
    unknown_from: float | None = None
    """Lowest unknown score that makes a clip unknown; None if no clip is ever unknown."""

    def to_json(self) -> dict[str, Any]:
        """Return the decision as results.sqlite stores it."""
        return {**asdict(self), "rules": tuple(rule.to_json() for rule in self.rules)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Decision":
        """Return the decision that `to_json` stored."""
        rules = tuple(EventRule.from_json(rule) for rule in stored["rules"])
        return cls(**{**stored, "labels": tuple(stored["labels"]), "rules": rules})


def decide_clip(clip: ClipPrediction, decision: Decision) -> ClipPrediction:
    """Return the clip with its label, probabilities and events, marked as unknown if it is unlike the training clips.

    A clip of one window is decided by the threshold, as in evaluation. A video of several windows has the positive
    label if it has an event of that label, and the probabilities of its most alarming window. Without a positive label
    its probabilities are the mean of all windows.
    """
    if clip.windows is None or not len(clip.windows):
        return clip
    events = find_clip_events(clip.windows, decision.rules, clip.duration)
    probs = clip_probs(clip.windows, decision)
    has_score = clip.unknown_score is not None and decision.unknown_from is not None
    return replace(
        clip,
        label=_choose_label(probs, clip.windows, events, decision),
        probs=tuple(float(p) for p in probs),
        events=events,
        is_unknown=bool(has_score and clip.unknown_score >= decision.unknown_from),  # type: ignore[operator]
    )


def clip_probs(windows: WindowPredictions, decision: Decision) -> NDArray[np.float64]:
    """Return the probabilities (K,) of a whole clip.

    They are those of its most alarming window, or the mean of all windows if there is no positive label.
    """
    if not decision.positive_label:
        return windows.probs.mean(axis=0)
    return windows.probs[windows.probs[:, decision.labels.index(decision.positive_label)].argmax()]


def find_clip_events(windows: WindowPredictions, rules: Sequence[EventRule], duration: float) -> tuple[Event, ...]:
    """Return the events of all rules, in order of time."""
    cores = window_cores(windows.spans, duration)
    found = [event for rule in rules for event in find_events(rule, map(tuple, cores.tolist()), windows.probs)]
    return tuple(sorted(found, key=lambda event: (event.start, event.end, event.label)))


def alarm_columns(decision: Decision) -> tuple[int, ...]:
    """Return the columns of the labels that have events."""
    if decision.positive_label:
        return (decision.labels.index(decision.positive_label),)
    return tuple(sorted({rule.column for rule in decision.rules}))


def common_threshold(decision: Decision) -> float | None:
    """Return the probability at which an event begins, or None if it differs between labels."""
    thresholds = {rule.on_threshold for rule in decision.rules}
    return decision.threshold if decision.positive_label else thresholds.pop() if len(thresholds) == 1 else None


def label_without_event(probs: Sequence[float] | NDArray[np.float64], decision: Decision) -> str:
    """Return the label of a moment without an event, given its probabilities (K,)."""
    if decision.positive_label and len(decision.labels) == 2:
        return next(label for label in decision.labels if label != decision.positive_label)
    return decision.labels[int(np.argmax(probs))]


def window_cores(spans: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    """Return the cores (B, 2), in seconds: the part of each window (B, 2) that the window decides about.

    Together the cores cover once what the windows cover. A core lies between the midpoints to the neighbouring windows:
    an event that has just entered a window hardly changes its probability, one that fills half of it does. An event
    therefore begins about midway between the middles of two windows, not at the start of the first one.
    """
    middles = spans.mean(axis=1)
    midpoints = (middles[1:] + middles[:-1]) / 2
    start, end = min(0.0, float(spans[0, 0])), max(duration, float(spans[-1, 1]))
    cores = np.stack([np.append(start, midpoints), np.append(midpoints, end)], axis=1)
    return np.stack([np.maximum(cores[:, 0], spans[:, 0]), np.minimum(cores[:, 1], spans[:, 1])], axis=1)


def _choose_label(
    probs: NDArray[np.float64], windows: WindowPredictions, events: Sequence[Event], decision: Decision
) -> str:
    if not decision.positive_label:
        return decision.labels[int(probs.argmax())]
    positive = decision.labels.index(decision.positive_label)
    if len(windows) == 1:
        is_positive = bool(probs[positive] >= decision.threshold)
    else:
        is_positive = any(event.label == decision.positive_label for event in events)
    if is_positive or len(decision.labels) == 2:
        return decision.labels[positive if is_positive else 1 - positive]
    return decision.labels[int(probs.argmax())]
