"""All cameras in one picture: a grid of tiles, or one of them large and the others in a row below it. Pure functions.

A tile is the camera's newest picture with the overlay of annotated videos. Tiles have the shape of the pictures, so
that nothing is cut off and no bars stand in between.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.utils.text import make_printable
from hazard.monitor.display.tile import TIMELINE_SECONDS, Tile
from hazard.rendering.overlay import OverlayState, ScoreTimeline, draw_overlay
from hazard.rendering.text import (
    BANNER_COLOR,
    MUTED_TEXT_COLOR,
    TEXT_COLOR,
    Color,
    blend,
    font_size_pixels,
    measure_text_width,
    render_text,
)
from hazard.types import Event

BACKGROUND_COLOR: Color = (8, 11, 15)
"""Behind the tiles."""
EMPTY_TILE_COLOR: Color = (24, 31, 39)
"""Of a tile without a picture."""
DIM_FACTOR = 0.35
"""The light that is left of a picture that is not of now."""
DEFAULT_ASPECT = 16 / 9
MAX_ROW_SHARE, MIN_ROW_TILE_WIDTH = 1 / 6, 150
"""The row below a large camera is so high at most; what does not fit into it at this width is left out."""
BRIEF_TILE_LETTERS = 24
"""A tile that is narrower, in sizes of its letters, says no more than the camera's name and the label."""


class Box(NamedTuple):
    """A tile's place."""

    left: int
    top: int
    width: int
    height: int

    def contains(self, x: int, y: int) -> bool:
        """Whether a point lies in it."""
        return self.left <= x < self.left + self.width and self.top <= y < self.top + self.height


@dataclass
class Canvas:
    """The picture as it was drawn last; drawing again draws only the tiles that changed."""

    image: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))
    """(H, W, 3) RGB."""
    boxes: dict[int, Box] = field(default_factory=dict)
    """By number: the cameras that are shown."""
    drawn_tiles: dict[int, Tile] = field(default_factory=dict)

    def draw_tiles(self, tiles: Sequence[Tile], size: tuple[int, int], enlarged: int | None = None) -> bool:
        """Draws cameras at a width and height; says whether anything changed."""
        boxes = arrange_tiles(tiles, size, enlarged)
        if boxes != self.boxes or self.image.shape[1::-1] != size:
            self.image = np.full((size[1], size[0], 3), BACKGROUND_COLOR, np.uint8)
            self.boxes, self.drawn_tiles = boxes, {}
        changed = [number for number in boxes if self.drawn_tiles.get(number) != tiles[number]]
        for number in changed:
            left, top, width, height = boxes[number]
            place = f"{number + 1} · " if len(tiles) > 1 else ""
            tile = self.image[top : top + height, left : left + width]  # (h, w, 3), drawn in place
            draw_tile(tile, tiles[number], place)
            self.drawn_tiles[number] = tiles[number]
        return bool(changed)

    def find_tile(self, x: int, y: int) -> int | None:
        """The camera at a point of the picture."""
        return next((number for number, box in self.boxes.items() if box.contains(x, y)), None)


def compose(tiles: Sequence[Tile], size: tuple[int, int], *, enlarged: int | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: cameras at a width and height; `enlarged` is the number of the one that is shown large, from 0."""
    canvas = Canvas()
    canvas.draw_tiles(tiles, size, enlarged)
    return canvas.image


# ---- where tiles lie ------------------------------------------------------------------------------------------------


def arrange_tiles(tiles: Sequence[Tile], size: tuple[int, int], enlarged: int | None = None) -> dict[int, Box]:
    """By number, the place of each camera that is shown; below a large one events come before order."""
    if enlarged is None or len(tiles) == 1:
        return dict(enumerate(arrange_grid(len(tiles), size, _median_aspect(tiles))))
    (width, height), gap = size, _gap_pixels(size)
    others = [number for number in range(len(tiles)) if number != enlarged]
    tile = max(MIN_ROW_TILE_WIDTH, (width + gap) // len(others) - gap)
    row = round(min(MAX_ROW_SHARE * height, tile / _median_aspect(tiles)))
    tile = min(tile, round(row * _median_aspect(tiles)))
    kept = sorted(sorted(others, key=lambda number: tiles[number].event_since is None)[: (width + gap) // (tile + gap)])
    left = (width - len(kept) * (tile + gap) + gap) // 2
    places = [Box(left + i * (tile + gap), height - row, tile, row) for i in range(len(kept))]
    large = arrange_grid(1, (width, height - row - gap), _median_aspect([tiles[enlarged]]))[0]
    return {enlarged: large, **dict(zip(kept, places, strict=True))}


def arrange_grid(count: int, size: tuple[int, int], aspect: float) -> list[Box]:
    """Tiles of one shape as large as they can be, row by row, in the middle of the picture."""
    gap = _gap_pixels(size)
    width, columns = max((_tile_width(count, columns, size, aspect), columns) for columns in range(1, count + 1))
    height, rows = max(1, int(width / aspect + 1e-6)), -(-count // columns)
    left = (size[0] - columns * (width + gap) + gap) // 2
    top = max(0, (size[1] - rows * (height + gap) + gap) // 2)
    places = [(i % columns, i // columns) for i in range(count)]
    return [Box(left + x * (width + gap), top + y * (height + gap), width, height) for x, y in places]


def _tile_width(count: int, columns: int, size: tuple[int, int], aspect: float) -> int:
    gap, rows = _gap_pixels(size), -(-count // columns)
    across, down = (size[0] + gap) / columns - gap, (size[1] + gap) / rows - gap
    return max(1, int(min(across, down * aspect)))


def _gap_pixels(size: tuple[int, int]) -> int:
    return max(2, round(min(size) / 180))


def _median_aspect(tiles: Sequence[Tile]) -> float:
    """Width by height of most pictures."""
    return median(list(_iterate_aspects(tiles)) or [DEFAULT_ASPECT])


def _iterate_aspects(tiles: Sequence[Tile]) -> Iterator[float]:
    for sight in tiles:
        if sight.jpeg and (size := _jpeg_size(sight.jpeg)):
            yield size[0] / size[1]


@lru_cache(maxsize=64)
def _jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    try:
        with Image.open(BytesIO(jpeg)) as picture:
            return picture.size
    except (OSError, ValueError):
        return None


# ---- one tile -------------------------------------------------------------------------------------------------------


def draw_tile(pixels: NDArray[np.uint8], tile: Tile, prefix: str = "") -> None:
    """Draws a camera on all of (H, W, 3) RGB, in place; `place` stands before its name."""
    pixels[:] = BACKGROUND_COLOR if tile.jpeg else EMPTY_TILE_COLOR
    has_picture = bool(tile.jpeg) and _draw_picture(pixels, tile.jpeg, is_dim=tile.signal_loss is not None)
    height, width = pixels.shape[:2]
    draw_overlay(
        pixels, make_overlay(tile, prefix, is_brief=width < BRIEF_TILE_LETTERS * font_size_pixels(width, height))
    )
    if tile.signal_loss is not None:
        since = f"since {_format_moment(tile.signal_loss.since, tile.signal_loss.at)}" if tile.signal_loss.since else ""
        _draw_message(pixels, tile.signal_loss.kind, since, tile.signal_loss.reason)
    elif not has_picture:
        _draw_message(pixels, "", "", "waiting for pictures")
    elif tile.event_since is not None:
        _draw_event_border(pixels)


def make_overlay(tile: Tile, prefix: str = "", *, is_brief: bool = False) -> OverlayState:
    """What the overlay says of a camera; `is_brief` has its name come first."""
    name, is_alive = f"{prefix}{tile.name}", tile.signal_loss is None and bool(tile.jpeg)
    label = tile.label if is_alive else tile.signal_loss.kind if tile.signal_loss else ""
    since = f"since {_format_clock(tile.event_since)}" if tile.event_since else ""
    facts = (name, since, "" if tile.has_alerts else "no alerts now") if is_alive else (name,)
    said = OverlayState(
        tile.end_seconds,
        label=name if is_brief else label,
        note=label if is_brief else " · ".join(filter(None, facts)),
    )
    if not is_alive:
        return said
    return replace(
        said,
        clock=_format_clock(tile.captured_at) if tile.captured_at else "",
        probability=tile.probability,
        probability_label="" if is_brief else tile.probability_label,
        threshold=tile.threshold,
        is_event=tile.event_since is not None,
        timeline=_make_track(tile.curve, tile.events, tile.end_seconds, tile.threshold),
    )


@lru_cache(maxsize=64)
def _make_track(
    curve: tuple[tuple[float, float, float], ...], events: tuple[Event, ...], end: float, threshold: float | None
) -> ScoreTimeline:
    """The same object for the same facts: by it the overlay knows what it has drawn."""
    start = end - TIMELINE_SECONDS
    before = (start, max(start, curve[0][0]) if curve else end, 0.0)  # nothing was seen yet
    table = np.array((before, *curve), np.float64)  # (B, 3)
    return ScoreTimeline(start, end, table[:, :2], table[:, 2], events, threshold)


def _draw_picture(pixels: NDArray[np.uint8], jpeg: bytes, *, is_dim: bool) -> bool:
    """All of the picture in the middle of the tile; False where it is none."""
    size = _jpeg_size(jpeg)
    if size is None:
        return False
    scale = min(pixels.shape[1] / size[0], pixels.shape[0] / size[1])
    mode = cv2.IMREAD_REDUCED_COLOR_2 if scale <= 0.5 else cv2.IMREAD_COLOR
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), mode)  # (H, W, 3) BGR
    if decoded is None:
        return False
    image = np.asarray(decoded, np.uint8)
    width, height = (max(1, min(pixels.shape[1 - i], round(scale * size[i]))) for i in (0, 1))
    if image.shape[1::-1] != (width, height):
        way = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    pixels[top : top + height, left : left + width] = (
        _dim_image(image) if is_dim else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    )
    return True


def _dim_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.convertScaleAbs(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), alpha=DIM_FACTOR)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def _draw_message(pixels: NDArray[np.uint8], what: str, since: str, why: str) -> None:
    """A few words in the middle of a tile; the first two on one line where it is wide enough."""
    height, width = pixels.shape[:2]
    text = font_size_pixels(width, height)
    large, most = round(1.35 * text), max(1, width - 2 * text)
    both = f"{what} {since}".strip()
    is_wide = measure_text_width(both, large, bold=True) <= most
    lines = (
        [(both, large, TEXT_COLOR, True)]
        if is_wide
        else [(what, large, TEXT_COLOR, True), (since, text, TEXT_COLOR, False)]
    )
    patches = [
        render_text(make_printable(words), size, color=colour, bold=bold, max_pixels=most)
        for words, size, colour, bold in (*lines, (why, text, MUTED_TEXT_COLOR, False))
        if words
    ]
    top = (height - sum(len(patch.premultiplied_color) for patch in patches)) // 2
    for patch in patches:
        blend(pixels, patch, top, (width - patch.premultiplied_color.shape[1]) // 2)
        top += len(patch.premultiplied_color)


def _draw_event_border(pixels: NDArray[np.uint8]) -> None:
    """An event is seen from afar."""
    line = max(2, round(min(pixels.shape[:2]) / 120))
    pixels[:line], pixels[-line:], pixels[:, :line], pixels[:, -line:] = (
        BANNER_COLOR,
        BANNER_COLOR,
        BANNER_COLOR,
        BANNER_COLOR,
    )


def _format_clock(moment: datetime) -> str:
    """By the clock on the wall, of this machine's time zone."""
    return f"{moment.astimezone():%H:%M:%S}"


def _format_moment(moment: datetime, noticed: datetime) -> str:
    """With its day where that is not the day it was told of."""
    there, then = moment.astimezone(), noticed.astimezone()
    return _format_clock(moment) if there.date() == then.date() else f"{there:%Y-%m-%d %H:%M}"
