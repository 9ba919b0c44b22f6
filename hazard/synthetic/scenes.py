"""Scenes of drawn clips: background, light, camera, size and frame rate. A scene is a group of a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3) RGB
FloatArray = NDArray[np.float64]

FRAME_SIZES = ((160, 120), (240, 180), (320, 240), (384, 216), (480, 360), (640, 360), (180, 240), (216, 384))
FRAME_RATES = (Fraction(12), Fraction(15), Fraction(24), Fraction(30_000, 1001), Fraction(30))


@dataclass(frozen=True)
class Scene:
    """Place, light and camera, which all clips of one group share."""

    background: str
    size: tuple[int, int]  # width, height in pixels, both even
    frame_rate: Fraction
    stature_pixels: float
    ground: float  # top of the ground that people walk on, as a share of the height
    jitter_pixels: float
    noise: float  # standard deviation, grey levels
    gain: float
    flicker: float
    seed: int


def make_scene(seed: int, *, size: tuple[int, int] | None = None, frame_rate: float | Fraction | None = None) -> Scene:
    """Return a random scene; `size` (width, height) and `frame_rate` are drawn from the seed unless given.

    Raises ValueError if the size is odd or below 32 pixels.
    """
    rng = np.random.default_rng([seed, 1])
    drawn_size, drawn_rate = FRAME_SIZES[rng.integers(len(FRAME_SIZES))], FRAME_RATES[rng.integers(len(FRAME_RATES))]
    width, height = size or drawn_size
    if min(width, height) < 32 or width % 2 or height % 2:
        raise ValueError(f"size must be even and at least 32 x 32 pixels, got {width} x {height}")
    return Scene(
        background=list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))],
        size=(width, height),
        frame_rate=exact_frame_rate(frame_rate or drawn_rate),
        stature_pixels=min(0.66 * height, 0.78 * width) * rng.uniform(0.85, 1.15),
        ground=rng.uniform(0.74, 0.80),
        jitter_pixels=height * rng.choice((0.0, 0.001, 0.002)),
        noise=rng.choice((1.0, 2.0, 4.0)),
        gain=rng.uniform(0.7, 1.1),
        flicker=rng.choice((0.0, 0.006)),
        seed=seed,
    )


def _make_gradient(size: tuple[int, int], top: FloatArray, bottom: FloatArray) -> FloatArray:
    width, height = size
    return np.repeat(np.linspace(top, bottom, height)[:, None], width, axis=1)


def _make_texture(rng: np.random.Generator, size: tuple[int, int], cells: int, strength: float) -> FloatArray:
    """Return smooth random blotches (H, W, 1)."""
    grid = rng.normal(0, strength, (max(2, cells * size[1] // size[0] + 1), cells))
    return np.asarray(cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC), np.float64)[..., None]


def _draw_random_color(rng: np.random.Generator, low: float, high: float) -> FloatArray:
    return rng.uniform(low, high) + rng.uniform(-22, 22, 3)


def _draw_box(image: Image, color: FloatArray, *, x: float, y: float, width: float, height: float) -> None:
    full_width, full_height = image.shape[1], image.shape[0]
    corners = [(int(u * full_width), int(v * full_height)) for u, v in ((x, y), (x + width, y + height))]
    cv2.rectangle(image, corners[0], corners[1], np.clip(color, 0, 255).tolist(), -1, cv2.LINE_AA)


def _join_at_horizon(top: FloatArray, ground: FloatArray, horizon: float) -> Image:
    height = len(top)
    image = top.copy()
    image[int(horizon * height) :] = ground[: height - int(horizon * height)]
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_plain_background(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> Image:
    """Draw a wall and a floor."""
    wall, floor = _draw_random_color(rng, 90, 210), _draw_random_color(rng, 70, 190)
    return _join_at_horizon(
        _make_gradient(size, wall * 1.1, wall * 0.8), _make_gradient(size, floor * 0.8, floor * 1.4), horizon
    )


def draw_room(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> Image:
    """Draw a room with wallpaper, window, door and floor boards."""
    wall, floor = _draw_random_color(rng, 120, 215), _draw_random_color(rng, 80, 150) + np.array([25, 5, -20])
    papered = _make_gradient(size, wall * 1.05, wall * 0.88) + _make_texture(rng, size, 24, 5)
    papered += 9 * rng.integers(2) * (np.arange(size[0]) * rng.integers(12, 30) // size[0] % 2)[None, :, None]
    image = _join_at_horizon(
        papered, _make_gradient(size, floor * 0.85, floor * 1.35) + _make_texture(rng, size, 60, 6), horizon
    )
    width, height = size
    for target in np.linspace(-1.5, 2.5, 17):  # floor boards
        start, end = (int(width * (0.5 + (target - 0.5) * 0.4)), int(horizon * height)), (int(width * target), height)
        cv2.line(image, start, end, (floor * 0.72).tolist(), 1, cv2.LINE_AA)
    _draw_box(image, wall * 0.7, x=0, y=horizon - 0.02, width=1, height=0.02)
    left = rng.uniform(0.05, 0.7)
    _draw_box(image, wall * 0.6, x=left, y=0.14, width=0.2, height=0.3)
    _draw_box(image, _draw_random_color(rng, 150, 240), x=left + 0.015, y=0.16, width=0.17, height=0.26)
    _draw_box(
        image, _draw_random_color(rng, 60, 130), x=(left + 0.45) % 0.85, y=horizon - 0.42, width=0.14, height=0.42
    )
    return image


def draw_outdoors(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> Image:
    """Draw sky, houses, trees and grass."""
    sky, ground = (
        np.array([120, 165, 215]) * rng.uniform(0.7, 1.1),
        _draw_random_color(rng, 95, 140) + np.array([-15, 14, -28]),
    )
    air = _make_gradient(size, sky, sky * 0.5 + 115) + np.maximum(_make_texture(rng, size, 6, 24), 0)
    image = _join_at_horizon(
        air, _make_gradient(size, ground * 0.85, ground * 1.25) + _make_texture(rng, size, 90, 8), horizon
    )
    for left in np.arange(0, 1, 0.14):
        draw = _draw_house if rng.uniform() < 0.5 else _draw_tree
        draw(image, rng, left, horizon)
    return image


def _draw_house(image: Image, rng: np.random.Generator, left: float, horizon: float) -> None:
    tall, wall = rng.uniform(0.12, 0.32), _draw_random_color(rng, 80, 160)
    _draw_box(image, wall, x=left, y=horizon - tall, width=rng.uniform(0.09, 0.15), height=tall)
    for column, row in np.ndindex(3, int(tall / 0.06)):
        x, y = left + 0.012 + 0.027 * column, horizon - tall + 0.02 + 0.06 * row
        _draw_box(image, wall * 0.6, x=x, y=y, width=0.012, height=0.026)


def _draw_tree(image: Image, rng: np.random.Generator, left: float, horizon: float) -> None:
    height, width = image.shape[:2]
    top, foot = (int((left + 0.05) * width), int((horizon - 0.14) * height)), int(horizon * height)
    leaves = _draw_random_color(rng, 80, 160) * (0.5, 0.85, 0.4)
    cv2.line(image, top, (top[0], foot), (84, 62, 44), max(1, width // 80), cv2.LINE_AA)
    cv2.circle(image, top, int(height * rng.uniform(0.06, 0.11)), leaves.tolist(), -1, cv2.LINE_AA)


BACKGROUNDS: dict[str, Callable[[np.random.Generator, tuple[int, int], float], Image]] = {
    "plain": draw_plain_background,
    "room": draw_room,
    "outdoor": draw_outdoors,
}


def paint_background(scene: Scene) -> Image:
    """Paint the background of a scene."""
    rng = np.random.default_rng([scene.seed, 2])
    image = BACKGROUNDS[scene.background](rng, scene.size, scene.ground - rng.uniform(0.02, 0.12))
    return cv2.GaussianBlur(image, (3, 3), 0.6).astype(np.uint8)


def exact_frame_rate(rate: float | Fraction) -> Fraction:
    """Return the exact frame rate: 29.97 and similar values mean n * 1000 / 1001 (SMPTE ST 12-1)."""
    if float(rate).is_integer():
        return Fraction(int(rate))
    ntsc = Fraction(round(rate) * 1000, 1001)
    return ntsc if abs(float(rate) - float(ntsc)) < 0.005 else Fraction(rate).limit_denominator(1001)
