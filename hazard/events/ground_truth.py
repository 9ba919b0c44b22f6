"""Comparison of reported events with the true ones, for reports and for monitors.

A true event is found if an event of its label overlaps it. An event that overlaps no true event of any label is a false
alarm. An event that overlaps only true events of other labels is misnamed; it is not a false alarm. Hours count
harmless video only: the watched time minus the true events. `tolerance_seconds` widens each true event on both sides,
for all of these definitions.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import SettingsError
from features.sources.manifests import MANIFEST_COLUMNS, parse_span, read_manifest_rows
from features.utils.text import suggest_name, suggest_path
from hazard.types import Event

MAX_LISTED_MISTAKES = 12
"""Largest number of mistakes of one kind that is listed."""

GroundTruth = dict[str, list["TrueEvent"]]
"""Path of a video, as in predictions.csv → its true events; an empty list if nothing happens in the video."""


@dataclass(frozen=True)
class TrueEvent:
    """Part of a video in which something really happens."""

    label: str
    start: float  # seconds
    end: float
    """Seconds; infinity if the event lasts until the video ends."""


@dataclass(frozen=True)
class EvaluatedVideo:
    """A video with its true events and the events that were reported."""

    path: str
    watched_seconds: float
    """Length of the part that was analysed."""
    truth: Sequence[TrueEvent]
    events: Sequence[Event]
    is_timed: bool = True
    """Whether the truth says when events begin, so that delays can be computed."""


def read_truth(file: Path) -> GroundTruth:
    """Read the true events from a CSV file with a manifest's columns path, start, end and label.

    Times are in seconds; an empty start or end means that of the video. A row with only a path says that nothing
    happens in that video. Raises SettingsError, naming row and column, if a row is wrong.
    """
    truth: GroundTruth = {}
    for number, row in enumerate(read_manifest_rows(file), start=2):
        where = f"{file}, row {number}"
        if None in row or None in row.values():
            raise SettingsError(f"{where}: expected {sum(key is not None for key in row)} columns, as in row 1")
        cells = {name: (row.get(name) or "").strip() for name in MANIFEST_COLUMNS}
        if not cells["path"]:
            raise SettingsError(f"{where}, column 'path': empty")
        start, end = parse_span(where, cells["start"], cells["end"])
        events = truth.setdefault(cells["path"], [])
        if cells["label"]:
            events.append(TrueEvent(cells["label"], start, math.inf if end is None else end))
        elif cells["start"] or cells["end"]:
            raise SettingsError(
                f"{where}, column 'label': empty; give the label of the event, or clear start and end too if "
                "nothing happens in this video"
            )
    return truth


def check_truth(file: Path, truth: GroundTruth, *, paths: Collection[str], labels: Sequence[str]) -> None:
    """Check the paths and labels of a truth file.

    Raises SettingsError if the file names a video that is not among `paths`, or a label that has no events.
    """
    for path, events in truth.items():
        if path not in paths:
            raise SettingsError(f"{file}: clip '{path}' does not exist; {suggest_path(path, paths)}")
        for event in events:
            if event.label not in labels:
                raise SettingsError(
                    f"{file}: label '{event.label}' has no events; {suggest_name(event.label, labels)} "
                    "(setting 'event_labels')"
                )


def evaluate_events(videos: Iterable[EvaluatedVideo], *, tolerance_seconds: float = 0.0) -> dict[str, Any]:
    """Return recall, precision, false alarms per hour and delay of events, defined as above; None if undefined.

    The delay of a true event is the start of the first event that found it minus its own start, in seconds. It is
    negative if the event began earlier. An alarm is raised later than an event begins, by up to one window and the time
    that the decision takes.
    """
    count: Counter[str] = Counter()
    of_label: dict[str, Counter[str]] = {}
    delays: list[float] = []
    missed: list[dict[str, Any]] = []
    false: list[dict[str, Any]] = []
    seconds = 0.0
    for video in videos:
        count["videos"] += 1
        seconds += harmless_seconds(video.truth, video.watched_seconds, tolerance_seconds)
        for true in video.truth:
            first = min((e.start for e in find_matching_events(true, video.events, tolerance_seconds)), default=None)
            _add_counts(count, of_label, true.label, "truth", *(["found"] if first is not None else []))
            if first is None:
                missed.append(_make_mistake_entry(video.path, true))
            elif video.is_timed:
                delays.append(first - true.start)
        for event in video.events:
            verdict = _classify_event(event, video.truth, tolerance_seconds)
            _add_counts(count, of_label, event.label, "predicted", verdict)
            if verdict == "false_alarms":
                false.append(_make_mistake_entry(video.path, event) | {"peak": event.peak})
        missed, false = _select_longest(missed), _select_most_confident(false)
    labels = {label: _compute_rates(counts) for label, counts in sorted(of_label.items())}
    return {
        "videos": count["videos"],
        **_compute_rates(count),
        "hours": seconds / 3600,
        "false_alarms_per_hour": _divide(count["false_alarms"] * 3600, seconds),
        "delay_seconds": _summarize_delays(delays),
        "tolerance_seconds": tolerance_seconds,
        "per_label": labels,
        "missed": missed,
        "false": false,
    }


def harmless_seconds(truth: Sequence[TrueEvent], seconds: float, tolerance_seconds: float = 0.0) -> float:
    """Return how many of the video's `seconds` lie outside all true events."""
    harmful, until = 0.0, 0.0
    for start, end in sorted((t.start - tolerance_seconds, t.end + tolerance_seconds) for t in truth):
        start, end = max(start, until), min(end, seconds)
        harmful += max(end - start, 0.0)
        until = max(until, end)
    return seconds - harmful


def overlaps(true: TrueEvent, event: Event, tolerance_seconds: float) -> bool:
    """Return whether the event overlaps the true one, widened by the tolerance on both sides."""
    return event.start < true.end + tolerance_seconds and event.end > true.start - tolerance_seconds


def find_matching_events(true: TrueEvent, events: Iterable[Event], tolerance_seconds: float) -> Iterator[Event]:
    """Return the events that find a true one: those of its label that overlap it."""
    return (e for e in events if e.label == true.label and overlaps(true, e, tolerance_seconds))


def _classify_event(event: Event, truth: Sequence[TrueEvent], tolerance_seconds: float) -> str:
    labels = {true.label for true in truth if overlaps(true, event, tolerance_seconds)}
    if event.label in labels:
        return "right"
    return "misnamed" if labels else "false_alarms"


def _add_counts(total: Counter[str], of_label: dict[str, Counter[str]], label: str, *names: str) -> None:
    total.update(names)
    of_label.setdefault(label, Counter()).update(names)


def _compute_rates(count: Mapping[str, int]) -> dict[str, Any]:
    counts = {name: count[name] for name in ("truth", "found", "predicted", "right", "misnamed", "false_alarms")}
    return counts | {
        "recall": _divide(count["found"], count["truth"]),
        "precision": _divide(count["right"], count["predicted"]),
    }


def _divide(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _summarize_delays(delays: Sequence[float]) -> dict[str, float | None]:
    if not delays:
        return {"median": None, "p90": None}
    return {"median": float(np.median(delays)), "p90": float(np.quantile(delays, 0.9))}


def _make_mistake_entry(path: str, event: TrueEvent | Event) -> dict[str, Any]:
    end = event.end if math.isfinite(event.end) else None
    return {"path": path, "label": event.label, "start": event.start, "end": end}


def _select_longest(missed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(missed, key=lambda m: m["start"] - (math.inf if m["end"] is None else m["end"]))[:MAX_LISTED_MISTAKES]


def _select_most_confident(false: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(false, key=lambda f: -f["peak"])[:MAX_LISTED_MISTAKES]
