"""Long drawn videos in which events of known times are planted: what a camera that never stops would record.

One scene and one camera throughout. Between the events people do ordinary things, a stretch each of `STRETCH_SECONDS`,
and after each stretch other people take their place.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain, cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hazard.scenes import Image, Scene, exact_rate, make_scene
from hazard.synthetic import render_clip, write_video

SIZE = (160, 120)
FRAME_RATE = 10
STRETCH_SECONDS = (12.0, 40.0)
"""Shortest and longest time that the same people go about the same thing."""
ONSET_SECONDS = 0.5
"""A fall begins within half of this after its event does."""


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


def _stretches(
    planted: Sequence[Planted], seconds: float, background: Sequence[str], seed: int
) -> Iterator[tuple[Planted, bool]]:
    """What the video is made of, in order, and whether it is an event."""
    rng = np.random.default_rng([seed, 8])
    ordinary, at = cycle(background), 0.0
    for event in [*planted, None]:
        until = event.start if event else seconds
        while at < until:
            end = min(at + rng.uniform(*STRETCH_SECONDS), until)
            yield Planted(at, end, next(ordinary)), False
            at = end
        if event:
            yield event, True
            at = event.end


def _frames(
    stretches: Iterator[tuple[Planted, bool]], scene: Scene, rate: Fraction, seconds: float, seed: int
) -> Iterator[Image]:
    count = round(seconds * rate)
    numbered = enumerate(stretches)
    return chain.from_iterable(
        render_clip(
            stretch.action,
            scene,
            [float(index / rate - Fraction(stretch.start)) for index in _frames_within(stretch, rate, count)],
            seed=seed * 100_003 + number,
            acting_seconds=ONSET_SECONDS if is_event else None,
        )
        for number, (stretch, is_event) in numbered
        if len(_frames_within(stretch, rate, count))
    )


def _frames_within(stretch: Planted, rate: Fraction, count: int) -> range:
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
