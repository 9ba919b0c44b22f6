"""Long drawn videos, like recordings of a fixed camera, with events at known times.

Scene and camera stay the same. People do ordinary things before and after their event: they walk to the place where
they fight. About every SEGMENT_SECONDS, but never during an event, other people replace them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hazard.synthetic.clips import compute_turn_distance, render_people, write_video
from hazard.synthetic.people import ACTIONS, Actor, Pose, cast_people
from hazard.synthetic.scenes import Image, Scene, exact_frame_rate, make_scene

FRAME_SIZE = (160, 120)
FRAME_RATE = 10
SEGMENT_SECONDS = 25.0
"""Approximate time that the same people are visible while nothing happens."""
MAX_ONSET_SECONDS = 0.5
"""Twice the longest time from the start of an event to the fall in it."""


class PlantedEvent(NamedTuple):
    """Event to draw into a recording."""

    start: float  # seconds
    end: float
    action: str


def draw_recording(
    path: Path,
    *,
    events: Sequence[PlantedEvent | tuple[float, float, str]],
    seconds: float,
    background: Sequence[str] = ("walk", "run"),
    labels: Mapping[str, str] | None = None,
    seed: int = 0,
    scene: Scene | None = None,
    frame_rate: float | Fraction = FRAME_RATE,
) -> Path:
    """Write a video of `seconds` and its events to `truth.csv` (path, start, end, label) beside it; return that file.

    The label of an event is `labels[action]`, by default its action. Ten minutes at the default size take about 20 s on
    one core. `truth.csv` keeps the events of other recordings in the folder. Raises ValueError if events overlap, are
    out of order or lie outside the video.
    """
    planted = [PlantedEvent(*event) for event in events]
    _check_events(planted, seconds)
    scene = scene or make_scene(seed, size=FRAME_SIZE)
    rate = exact_frame_rate(frame_rate)
    frames = _render_frames(_make_segments(planted, seconds, background, seed), scene, rate, seconds, seed)
    write_video(path, frames, frame_rate=rate)
    return _write_truth(path, planted, labels or {})


def plant_evenly(
    count: int,
    *,
    seconds: float,
    actions: Sequence[str],
    duration_range: tuple[float, float] = (5.0, 9.0),
    seed: int = 0,
) -> list[PlantedEvent]:
    """Return `count` events, one near the middle of each equal part of the video; the actions take turns."""
    rng, part_seconds = np.random.default_rng([seed, 7]), seconds / count
    planted = []
    for number, action in zip(range(count), cycle(actions), strict=False):
        length = rng.uniform(*duration_range)
        start = round(number * part_seconds + rng.uniform(0.25, 0.75) * (part_seconds - length), 1)
        planted.append(PlantedEvent(start, round(start + length, 1), action))
    return planted


def _check_events(planted: Sequence[PlantedEvent], seconds: float) -> None:
    last_end = 0.0
    for event in planted:
        if not last_end <= event.start < event.end <= seconds:
            raise ValueError(
                f"expected events one after the other within 0 to {seconds:g} s, got {event.start:g} to {event.end:g} s"
            )
        last_end = event.end


class _RecordingSegment(NamedTuple):
    """Part of a recording that shows the same people."""

    start: float
    end: float
    ordinary_action: str
    event: PlantedEvent | None


def _make_segments(
    planted: Sequence[PlantedEvent], seconds: float, background: Sequence[str], seed: int
) -> Iterator[_RecordingSegment]:
    """Yield the segments of a recording in order; each has one event or none."""
    rng, ordinary_actions = np.random.default_rng([seed, 8]), cycle(background)
    edges = [0.0, *(time for event in planted for time in (event.start, event.end)), seconds]
    starts = [0.0]
    for number, (start, end) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
        is_between_events = 0 < number < len(planted)  # these have different people
        count = max(round((end - start) / SEGMENT_SECONDS), int(is_between_events))
        places = np.arange(1, count + 1) / (count + 1) + rng.uniform(-0.2, 0.2, count) / (count + 1)
        starts += (start + (end - start) * places).tolist()
    for start, end in pairwise([*starts, seconds]):
        event = next((event for event in planted if start <= event.start < end), None)
        yield _RecordingSegment(start, end, next(ordinary_actions), event)


def _cast_segment(segment: _RecordingSegment, scene: Scene, rng: np.random.Generator) -> list[Actor]:
    """Return the people of a segment; their pose functions take the time in the video in seconds."""
    turn_distance = compute_turn_distance(scene)
    if segment.event is None:
        people = cast_people(
            rng, segment.ordinary_action, turn_distance=turn_distance, seconds=segment.end - segment.start
        )
        return [
            replace(person, pose_function=partial(_shift_time, person.pose_function, segment.start))
            for person in people
        ]
    action = ACTIONS[segment.event.action]
    people = cast_people(rng, segment.event.action, turn_distance=turn_distance, seconds=MAX_ONSET_SECONDS)
    event_pose = partial(_make_event_pose, action, ACTIONS[segment.ordinary_action], segment.event)
    return [
        replace(person, pose_function=event_pose) if person.pose_function is action else person for person in people
    ]


PoseFunction = Callable[[float, Actor], Pose]


def _shift_time(pose_function: PoseFunction, start: float, time: float, actor: Actor) -> Pose:
    return pose_function(time - start, actor)


def _make_event_pose(
    action: PoseFunction, ordinary: PoseFunction, event: PlantedEvent, time: float, actor: Actor
) -> Pose:
    """Return the pose of an ordinary action before and after the event, and of the event's action during it."""
    if time < event.start:
        return ordinary(time - event.start, actor)
    return action(time - event.start, actor) if time < event.end else ordinary(time - event.end, actor)


def _render_frames(
    segments: Iterator[_RecordingSegment], scene: Scene, rate: Fraction, seconds: float, seed: int
) -> Iterator[Image]:
    count = round(seconds * rate)
    for number, segment in enumerate(segments):
        rng = np.random.default_rng([seed, 9, number])
        times = [float(index / rate) for index in _frame_numbers(segment, rate, count)]
        yield from render_people(_cast_segment(segment, scene, rng), scene, times, rng)


def _frame_numbers(segment: _RecordingSegment, rate: Fraction, count: int) -> range:
    """Return the numbers of the frames of a segment; each frame belongs to exactly one segment."""
    first, end = (math.ceil(Fraction(time) * rate) for time in (segment.start, segment.end))
    return range(first, min(end, count))


def _write_truth(path: Path, planted: Sequence[PlantedEvent], labels: Mapping[str, str]) -> Path:
    truth = path.with_name("truth.csv")
    other_rows = []
    if truth.exists():
        with truth.open(newline="", encoding="utf-8") as file:
            other_rows = [row for row in list(csv.reader(file))[1:] if row[0] != path.name]
    own_rows = [(path.name, f"{e.start:g}", f"{e.end:g}", labels.get(e.action, e.action)) for e in planted]
    with truth.open("w", newline="", encoding="utf-8") as file:
        rows = [("path", "start", "end", "label"), *other_rows, *(own_rows or [(path.name, "", "", "")])]
        csv.writer(file, lineterminator="\n").writerows(rows)
    return truth
