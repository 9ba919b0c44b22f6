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

from hazard.synthetic.clips import reach_of, render_people, write_video
from hazard.synthetic.people import ACTIONS, Actor, Pose, cast_people
from hazard.synthetic.scenes import Image, Scene, exact_rate, make_scene

SIZE = (160, 120)
FRAME_RATE = 10
STRETCH_SECONDS = 25.0
"""About how long the same people are to be seen where nothing happens."""
ONSET_SECONDS = 0.5
"""Who falls does so within half of this after the event begins."""


class Planted(NamedTuple):
    """An event to draw."""

    start: float  # seconds
    end: float
    action: str


def draw_recording(
    path: Path,
    *,
    events: Sequence[Planted | tuple[float, float, str]],
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
    planted = [Planted(*event) for event in events]
    _check(planted, seconds)
    scene = scene or make_scene(seed, size=SIZE)
    rate = exact_rate(frame_rate)
    frames = _frames(_stretches(planted, seconds, background, seed), scene, rate, seconds, seed)
    write_video(path, frames, frame_rate=rate)
    return _write_truth(path, planted, labels or {})


def plant_evenly(
    count: int, *, seconds: float, actions: Sequence[str], lasting: tuple[float, float] = (5.0, 9.0), seed: int = 0
) -> list[Planted]:
    """So many events, one somewhere in the middle of each equal part of the video, the actions taking turns."""
    rng, part = np.random.default_rng([seed, 7]), seconds / count
    planted = []
    for number, action in zip(range(count), cycle(actions), strict=False):
        length = rng.uniform(*lasting)
        start = round(number * part + rng.uniform(0.25, 0.75) * (part - length), 1)
        planted.append(Planted(start, round(start + length, 1), action))
    return planted


def _check(planted: Sequence[Planted], seconds: float) -> None:
    until = 0.0
    for event in planted:
        if not until <= event.start < event.end <= seconds:
            raise ValueError(
                f"expected events one after the other within 0 to {seconds:g} s, got {event.start:g} to {event.end:g} s"
            )
        until = event.end


class _Stretch(NamedTuple):
    """What the same people are seen doing."""

    start: float
    end: float
    ordinary: str
    event: Planted | None


def _stretches(planted: Sequence[Planted], seconds: float, background: Sequence[str], seed: int) -> Iterator[_Stretch]:
    """What the video is made of, in order; each has an event or none."""
    rng, ordinary = np.random.default_rng([seed, 8]), cycle(background)
    edges = [0.0, *(time for event in planted for time in (event.start, event.end)), seconds]
    changes = [0.0]
    for number, (start, end) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
        between = 0 < number < len(planted)  # two events, which have people of their own
        count = max(round((end - start) / STRETCH_SECONDS), int(between))
        places = np.arange(1, count + 1) / (count + 1) + rng.uniform(-0.2, 0.2, count) / (count + 1)
        changes += (start + (end - start) * places).tolist()
    for start, end in pairwise([*changes, seconds]):
        event = next((event for event in planted if start <= event.start < end), None)
        yield _Stretch(start, end, next(ordinary), event)


def _cast(stretch: _Stretch, scene: Scene, rng: np.random.Generator) -> list[Actor]:
    """Its people, moved by seconds of the video."""
    reach = reach_of(scene)
    if stretch.event is None:
        people = cast_people(rng, stretch.ordinary, reach=reach, seconds=stretch.end - stretch.start)
        return [replace(person, pose=partial(_later, person.pose, stretch.start)) for person in people]
    action = ACTIONS[stretch.event.action]
    people = cast_people(rng, stretch.event.action, reach=reach, seconds=ONSET_SECONDS)
    acting = partial(_acting, action, ACTIONS[stretch.ordinary], stretch.event)
    return [replace(person, pose=acting) if person.pose is action else person for person in people]


Move = Callable[[float, Actor], Pose]


def _later(move: Move, start: float, time: float, actor: Actor) -> Pose:
    return move(time - start, actor)


def _acting(action: Move, ordinary: Move, event: Planted, time: float, actor: Actor) -> Pose:
    """Ordinary ways that lead to the place of the event, and on from there."""
    if time < event.start:
        return ordinary(time - event.start, actor)
    return action(time - event.start, actor) if time < event.end else ordinary(time - event.end, actor)


def _frames(stretches: Iterator[_Stretch], scene: Scene, rate: Fraction, seconds: float, seed: int) -> Iterator[Image]:
    count = round(seconds * rate)
    for number, stretch in enumerate(stretches):
        rng = np.random.default_rng([seed, 9, number])
        times = [float(index / rate) for index in _frames_within(stretch, rate, count)]
        yield from render_people(_cast(stretch, scene, rng), scene, times, rng)


def _frames_within(stretch: _Stretch, rate: Fraction, count: int) -> range:
    """The numbers of the frames that a stretch shows; each frame belongs to one."""
    first, end = (math.ceil(Fraction(time) * rate) for time in (stretch.start, stretch.end))
    return range(first, min(end, count))


def _write_truth(path: Path, planted: Sequence[Planted], labels: Mapping[str, str]) -> Path:
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
