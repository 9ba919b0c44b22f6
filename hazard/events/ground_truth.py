"""What events are worth: what really happens and when, against what was said. Reports and monitors use it alike.

A true event is found where an event of its label overlaps it. A false alarm is an event that overlaps no true one of
any label; an event that overlaps true ones of other labels alone is misnamed, and no false alarm. Hours are of
harmless video: what was watched less the true events. `tolerance_seconds` widens each true event on both sides, for
all of this.
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
"""How many mistakes of a kind are listed."""

GroundTruth = dict[str, list["TrueEvent"]]
"""A video's path, as predictions.csv has it, and its true events; none where nothing happens in it."""


@dataclass(frozen=True)
class TrueEvent:
    """A stretch of video in which something really happens."""

    label: str
    start: float  # seconds
    end: float
    """Infinity where it lasts until the video ends."""


@dataclass(frozen=True)
class EvaluatedVideo:
    """A video, what happens in it, and what was said of it."""

    path: str
    watched_seconds: float
    """How much of it was looked at."""
    truth: Sequence[TrueEvent]
    events: Sequence[Event]
    is_timed: bool = True
    """Whether the truth says when an event begins, so that a delay can be told."""


def read_truth(file: Path) -> GroundTruth:
    """The true events of a CSV file with the columns path, start, end and label, those of a manifest.

    Times are in seconds; an empty start or end is that of the video. A row of a path alone says that nothing happens in
    that video. Raises SettingsError that names row and column.
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
                f"{where}, column 'label': empty; say what happens then, or leave start and end empty too: nothing does"
            )
    return truth


def check_truth(file: Path, truth: GroundTruth, *, paths: Collection[str], labels: Sequence[str]) -> None:
    """Raises SettingsError where the file names a video that is not there, or what no event is found of."""
    for path, events in truth.items():
        if path not in paths:
            raise SettingsError(f"{file}: there is no clip '{path}'; {suggest_path(path, paths)}")
        for event in events:
            if event.label not in labels:
                raise SettingsError(
                    f"{file}: no events are looked for of label '{event.label}'; {suggest_name(event.label, labels)} "
                    "(setting 'event_labels')"
                )


def evaluate_events(videos: Iterable[EvaluatedVideo], *, tolerance_seconds: float = 0.0) -> dict[str, Any]:
    """Recall, precision, false alarms per hour and delay of events, None where one is undefined; see the module.

    The delay of a true event is the start of the first event that found it, less its own: below zero where the event
    began before. An alarm is raised later than an event begins, by up to a window and what the decision takes.
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
    """How much of a video of so many seconds lies in no true event."""
    harmful, until = 0.0, 0.0
    for start, end in sorted((t.start - tolerance_seconds, t.end + tolerance_seconds) for t in truth):
        start, end = max(start, until), min(end, seconds)
        harmful += max(end - start, 0.0)
        until = max(until, end)
    return seconds - harmful


def overlaps(true: TrueEvent, event: Event, tolerance_seconds: float) -> bool:
    """Whether both have a moment in common, the true one being widened."""
    return event.start < true.end + tolerance_seconds and event.end > true.start - tolerance_seconds


def find_matching_events(true: TrueEvent, events: Iterable[Event], tolerance_seconds: float) -> Iterator[Event]:
    """The events by which a true one is found: of its label, with a moment in common."""
    return (e for e in events if e.label == true.label and overlaps(true, e, tolerance_seconds))


def _classify_event(event: Event, truth: Sequence[TrueEvent], tolerance_seconds: float) -> str:
    met = {true.label for true in truth if overlaps(true, event, tolerance_seconds)}
    if event.label in met:
        return "right"
    return "misnamed" if met else "false_alarms"


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
