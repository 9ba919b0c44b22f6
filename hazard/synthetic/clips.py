"""Small labelled clips of drawn people, for the demo and the tests. Only motion tells the classes apart.

A clip is a `Scene` (background, camera, size, frame rate; the group of a split) with several `Actor`s, each moved by
one pose function of `ACTIONS`. Bystanders hold still in poses that the other classes pass through, so that neither a
single frame nor the number of people reveals the class.
"""

from __future__ import annotations

import csv
import difflib
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from features.utils.progress import make_progress_bar
from hazard.synthetic.people import ACTIONS, Actor, DrawnBody, cast_people, draw_body, draw_shadow, place_body
from hazard.synthetic.scenes import FloatArray, Image, Scene, exact_frame_rate, make_scene, paint_background


def render_clip(action: str, scene: Scene, times: Sequence[float], *, seed: int) -> Iterator[Image]:
    """Yield the RGB frames of one clip at the given times in seconds. Raises ValueError for an unknown action."""
    _check_action(action)
    rng = np.random.default_rng([seed, zlib.crc32(action.encode())])
    actors = cast_people(rng, action, turn_distance=compute_turn_distance(scene), seconds=times[-1])
    return render_people(actors, scene, times, rng)


def compute_turn_distance(scene: Scene) -> float:
    """Return how far from the middle of the picture people go, in statures."""
    return max(scene.size[0] / 2 / scene.stature_pixels - 0.25, 0.45)


def render_people(
    actors: Sequence[Actor], scene: Scene, times: Sequence[float], rng: np.random.Generator
) -> Iterator[Image]:
    """Yield the RGB frames of these people at the given times in seconds; camera shake and noise come from `rng`."""
    width, height = scene.size
    grain = np.clip(rng.normal(128, scene.noise, (height + 32, width + 32, 3)), 0, 255).astype(np.uint8)
    shake, tremor = rng.uniform(0, 2 * math.pi, (3, 3)), np.outer((2.1, 5.3, 11.0), (1, 1.1, 0.9))
    background = paint_background(scene)
    for time in times:
        image = _draw_people(background, [place_body(actor, time, scene) for actor in actors])
        yield _add_camera_effects(image, scene, grain, rng, np.sin(shake + tremor * time).mean(axis=0))


def _check_action(action: str) -> None:
    if action not in ACTIONS:
        nearest = difflib.get_close_matches(action, ACTIONS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"unknown action {action!r}, expected one of {', '.join(ACTIONS)}{hint}")


def _draw_people(background: Image, bodies: Sequence[DrawnBody]) -> Image:
    mask = np.zeros_like(background)
    for body in bodies:
        draw_shadow(mask, body)
    softness = 1 + 2 * (len(background) // 80)
    image = cv2.subtract(background, cv2.blur(mask, (softness, softness))).astype(np.uint8)
    for body in bodies:
        draw_body(image, body)
    return image


def _add_camera_effects(image: Image, scene: Scene, grain: Image, rng: np.random.Generator, shake: FloatArray) -> Image:
    """Return the image with camera shake, light and sensor noise.

    `shake` is three numbers in -1 … 1: right, down, roll.
    """
    width, height = scene.size
    if scene.jitter_pixels:
        move = cv2.getRotationMatrix2D((width / 2, height / 2), 0.15 * scene.jitter_pixels * shake[2], 1.0)
        move[:, 2] = move[:, 2] + 2 * scene.jitter_pixels * shake[:2]
        image = cv2.warpAffine(image, move, scene.size, borderMode=cv2.BORDER_REFLECT_101).astype(np.uint8)
    u, v = rng.integers(0, 32, 2)
    gain = scene.gain * (1 + scene.flicker * rng.normal())
    return cv2.addWeighted(image, gain, grain[v : v + height, u : u + width], 1.0, -128.0).astype(np.uint8)


def draw_clip(
    path: Path,
    action: str,
    *,
    seed: int,
    size: tuple[int, int] | None = None,
    frame_rate: float | Fraction | None = None,
    seconds: float | None = None,
    scene: Scene | None = None,
    codec: str = "libx264",
) -> None:
    """Write one clip of an action.

    Options that are not given are drawn from the seed; the same seed always gives the same frames. Raises ValueError
    for an unknown action or a size that yuv420p does not support.
    """
    scene = scene or make_scene(seed, size=size, frame_rate=frame_rate)
    seconds = seconds or np.random.default_rng([seed, 3]).uniform(2.0, 3.0)
    times = [index / float(scene.frame_rate) for index in range(max(2, round(seconds * scene.frame_rate)))]
    write_video(path, render_clip(action, scene, times, seed=seed), frame_rate=scene.frame_rate, codec=codec)


def draw_dataset(
    folder: Path,
    *,
    classes: Mapping[str, Sequence[str]],
    clips_per_class: int,
    scenes: int | Sequence[Scene],
    seed: int = 0,
    seconds: float | None = None,
    progress: bool = False,
) -> Path:
    """Write `folder/<class>/<clip>.mp4` and a manifest (path, label, group) beside them; return the manifest's path.

    `classes` maps each class to its actions. `scenes` is how many random scenes are made, or the scenes themselves.
    Clip number i of every class is drawn in scene i modulo their number, and the actions of a class take turns within
    each scene, so that the group does not reveal the label. `seconds` is the length of each clip, random by default.
    """
    for action in chain.from_iterable(classes.values()):
        _check_action(action)
    places = [make_scene(seed * 10_007 + number) for number in range(scenes)] if isinstance(scenes, int) else scenes
    jobs = [(label, index) for label in classes for index in range(clips_per_class)]
    rows = []
    bar = make_progress_bar(len(jobs), description="draw", unit="clip") if progress else None
    for number, (label, index) in enumerate(jobs):
        turn, place = divmod(index, len(places))
        action = classes[label][(turn + place) % len(classes[label])]
        name = f"{label}/{action}_g{place + 1:02d}_c{turn + 1:02d}.mp4"
        draw_clip(folder / name, action, seed=seed * 1_000_003 + number, scene=places[place], seconds=seconds)
        rows.append((name, label, f"scene{place + 1:02d}"))
        if bar:
            bar.update()
    if bar:
        bar.close()
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "group"), *rows])
    return manifest


# ---- files --------------------------------------------------------------------------------------------------------


def write_video(
    path: Path,
    frames: Iterable[Image],
    *,
    frame_rate: float | Fraction | None = None,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    time_base: Fraction | None = None,
) -> None:
    """Encode RGB frames (H, W, 3) to a video file; the suffix of `path` chooses the container.

    Give either `frame_rate`, in frames per second, or `times`, the increasing seconds at which the frames are shown;
    otherwise ValueError is raised. `options` are those of the encoder, by default a fast preset for libx264.
    `time_base` is in seconds per tick, by default 1 / rate, or 1 / 90 000 with `times`.
    """
    if (frame_rate is None) == (times is None):
        raise ValueError("give either frame_rate or times, not both")
    rate = exact_frame_rate(frame_rate) if frame_rate is not None else Fraction(30)
    tick = time_base or (1 / rate if times is None else Fraction(1, 90_000))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        fast = {"preset": "ultrafast", "crf": "23"} if codec == "libx264" else {}
        stream: Any = container.add_stream(codec, rate=rate, options=dict(fast if options is None else options))
        stream.pix_fmt, stream.codec_context.time_base, stream.codec_context.thread_count = pix_fmt, tick, 1
        for index, image in enumerate(frames):
            if index == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            second = index / rate if times is None else Fraction(times[index])
            frame.pts, frame.time_base = round(second / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
