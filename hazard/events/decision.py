"""Raw predictions → what a report says of a clip: its label, its events, whether it is unknown. Pure functions.

Probabilities are costly and stay; thresholds are cheap and change. Nothing here looks at a video, so that a report with
another threshold is made of what is known already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hazard.events.rule import EventRule, find_events
from hazard.types import ClipPrediction, Event, WindowPredictions


@dataclass(frozen=True)
class Decision:
    """By what probabilities become labels and events."""

    labels: tuple[str, ...]  # K
    positive_label: str
    """The label of two that an alarm is for; empty where there is none."""
    threshold: float
    """Least probability of the positive label that names a clip of one window so."""
    rules: tuple[EventRule, ...]
    unknown_from: float | None = None
    """A clip at least so strange is unknown; None never calls one so."""


def parse_decision(stored: Mapping[str, Any]) -> Decision:
    """A decision as `asdict` noted it."""
    rules = tuple(EventRule(**rule) for rule in stored["rules"])
    return Decision(**{**stored, "labels": tuple(stored["labels"]), "rules": rules})


def decide_clip(clip: ClipPrediction, decision: Decision) -> ClipPrediction:
    """The clip with its label, probabilities, events and whether it is unknown.

    One window is decided as in evaluation: by the threshold. A video of several has the positive label where it has
    such an event, and the probabilities of its most alarming window; without a positive label, the mean of all windows.
    """
    if clip.windows is None or not len(clip.windows):
        return clip
    events = find_clip_events(clip.windows, decision.rules, clip.duration)
    probs = clip_probs(clip.windows, decision)
    strange = clip.unknown_score is not None and decision.unknown_from is not None
    return replace(
        clip,
        label=_choose_label(probs, clip.windows, events, decision),
        probs=tuple(float(p) for p in probs),
        events=events,
        is_unknown=bool(strange and clip.unknown_score >= decision.unknown_from),  # type: ignore[operator]
    )


def clip_probs(windows: WindowPredictions, decision: Decision) -> NDArray[np.float64]:
    """(K,) of a whole clip: those of its most alarming window, or the mean of all where no label is alarming."""
    if not decision.positive_label:
        return windows.probs.mean(axis=0)
    return windows.probs[windows.probs[:, decision.labels.index(decision.positive_label)].argmax()]


def find_clip_events(windows: WindowPredictions, rules: Sequence[EventRule], duration: float) -> tuple[Event, ...]:
    """The events of all rules, in order of time."""
    cores = window_cores(windows.spans, duration)
    found = [event for rule in rules for event in find_events(rule, map(tuple, cores.tolist()), windows.probs)]
    return tuple(sorted(found, key=lambda event: (event.start, event.end, event.label)))


def alarm_columns(decision: Decision) -> tuple[int, ...]:
    """The columns of the labels that events are found of."""
    if decision.positive_label:
        return (decision.labels.index(decision.positive_label),)
    return tuple(sorted({rule.column for rule in decision.rules}))


def common_threshold(decision: Decision) -> float | None:
    """The probability from which there is an event, where it is the same for all labels."""
    enters = {rule.enter for rule in decision.rules}
    return decision.threshold if decision.positive_label else enters.pop() if len(enters) == 1 else None


def label_without_event(probs: Sequence[float] | NDArray[np.float64], decision: Decision) -> str:
    """What a moment without an event is called, of probabilities (K,)."""
    if decision.positive_label and len(decision.labels) == 2:
        return next(label for label in decision.labels if label != decision.positive_label)
    return decision.labels[int(np.argmax(probs))]


def window_cores(spans: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    """(B, 2): the stretch that each of the windows (B, 2) speaks for; together they cover once what was seen.

    A window that an event has just begun to enter says little, one that it half fills says a lot: an event begins about
    midway between the middles of two windows, not where the first of them does.
    """
    middles = spans.mean(axis=1)
    between = (middles[1:] + middles[:-1]) / 2
    start, end = min(0.0, float(spans[0, 0])), max(duration, float(spans[-1, 1]))
    cores = np.stack([np.append(start, between), np.append(between, end)], axis=1)
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
