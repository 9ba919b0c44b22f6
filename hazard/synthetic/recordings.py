"""Long drawn videos in which events of known times are planted: what a camera that never stops would record.

One scene and one camera throughout. The people of a stretch go about ordinary things before their event and after it:
they come walking to where they fight. About every STRETCH_SECONDS, never during an event, others take their place.
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
"""About how long the same people are to be seen where nothing happens."""
MAX_ONSET_SECONDS = 0.5
"""Who falls does so within half of this after the event begins."""


class PlantedEvent(NamedTuple):
    """An event to draw."""

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
    """Draws a video of so many seconds, and returns the `truth.csv` beside it (path, start, end, label).

    An event is called by `labels[action]`, by default by its action. Ten minutes at the default size take about 20 s of
    one core. The truth of other recordings in the same folder stays. Raises ValueError for events that overlap, are out
    of order or leave the video.
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
    """So many events, one somewhere in the middle of each equal part of the video, the actions taking turns."""
    rng, part = np.random.default_rng([seed, 7]), seconds / count
    planted = []
    for number, action in zip(range(count), cycle(actions), strict=False):
        length = rng.uniform(*duration_range)
        start = round(number * part + rng.uniform(0.25, 0.75) * (part - length), 1)
        planted.append(PlantedEvent(start, round(start + length, 1), action))
    return planted


def _check_events(planted: Sequence[PlantedEvent], seconds: float) -> None:
    until = 0.0
    for event in planted:
        if not until <= event.start < event.end <= seconds:
            raise ValueError(
                f"expected events one after the other within 0 to {seconds:g} s, got {event.start:g} to {event.end:g} s"
            )
        until = event.end


class _RecordingSegment(NamedTuple):
    """What the same people are seen doing."""

    start: float
    end: float
    ordinary_action: str
    event: PlantedEvent | None


def _make_segments(
    planted: Sequence[PlantedEvent], seconds: float, background: Sequence[str], seed: int
) -> Iterator[_RecordingSegment]:
    """What the video is made of, in order; each has an event or none."""
    rng, ordinary = np.random.default_rng([seed, 8]), cycle(background)
    edges = [0.0, *(time for event in planted for time in (event.start, event.end)), seconds]
    changes = [0.0]
    for number, (start, end) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
        between = 0 < number < len(planted)  # two events, which have people of their own
        count = max(round((end - start) / SEGMENT_SECONDS), int(between))
        places = np.arange(1, count + 1) / (count + 1) + rng.uniform(-0.2, 0.2, count) / (count + 1)
        changes += (start + (end - start) * places).tolist()
    for start, end in pairwise([*changes, seconds]):
        event = next((event for event in planted if start <= event.start < end), None)
        yield _RecordingSegment(start, end, next(ordinary), event)


def _cast_segment(segment: _RecordingSegment, scene: Scene, rng: np.random.Generator) -> list[Actor]:
    """Its people, moved by seconds of the video."""
    reach = compute_turn_distance(scene)
    if segment.event is None:
        people = cast_people(rng, segment.ordinary_action, turn_distance=reach, seconds=segment.end - segment.start)
        return [
            replace(person, pose_function=partial(_shift_time, person.pose_function, segment.start))
            for person in people
        ]
    action = ACTIONS[segment.event.action]
    people = cast_people(rng, segment.event.action, turn_distance=reach, seconds=MAX_ONSET_SECONDS)
    acting = partial(_make_event_pose, action, ACTIONS[segment.ordinary_action], segment.event)
    return [replace(person, pose_function=acting) if person.pose_function is action else person for person in people]


PoseFunction = Callable[[float, Actor], Pose]


def _shift_time(move: PoseFunction, start: float, time: float, actor: Actor) -> Pose:
    return move(time - start, actor)


def _make_event_pose(
    action: PoseFunction, ordinary: PoseFunction, event: PlantedEvent, time: float, actor: Actor
) -> Pose:
    """Ordinary ways that lead to the place of the event, and on from there."""
    if time < event.start:
        return ordinary(time - event.start, actor)
    return action(time - event.start, actor) if time < event.end else ordinary(time - event.end, actor)


def _render_frames(
    segments: Iterator[_RecordingSegment], scene: Scene, rate: Fraction, seconds: float, seed: int
) -> Iterator[Image]:
    count = round(seconds * rate)
    for number, stretch in enumerate(segments):
        rng = np.random.default_rng([seed, 9, number])
        times = [float(index / rate) for index in _frame_numbers(stretch, rate, count)]
        yield from render_people(_cast_segment(stretch, scene, rng), scene, times, rng)


def _frame_numbers(segment: _RecordingSegment, rate: Fraction, count: int) -> range:
    """The numbers of the frames that a stretch shows; each frame belongs to one."""
    first, end = (math.ceil(Fraction(time) * rate) for time in (segment.start, segment.end))
    return range(first, min(end, count))


def _write_truth(path: Path, planted: Sequence[PlantedEvent], labels: Mapping[str, str]) -> Path:
    truth = path.with_name("truth.csv")
    others = []
    if truth.exists():
        with truth.open(newline="", encoding="utf-8") as file:
            others = [row for row in list(csv.reader(file))[1:] if row[0] != path.name]
    own = [(path.name, f"{e.start:g}", f"{e.end:g}", labels.get(e.action, e.action)) for e in planted]
    with truth.open("w", newline="", encoding="utf-8") as file:
        rows = [("path", "start", "end", "label"), *others, *(own or [(path.name, "", "", "")])]
        csv.writer(file, lineterminator="\n").writerows(rows)
    return truth
