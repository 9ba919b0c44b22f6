"""The mosaic of all cameras: a grid of tiles, or one large tile and the others in a row below it.

A tile is the newest frame of a camera with the overlay of annotated videos. Tiles have the aspect ratio of the frames,
so that nothing is cropped and there are no bars between them.
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
"""Color behind the tiles."""
EMPTY_TILE_COLOR: Color = (24, 31, 39)
"""Color of a tile without a frame."""
DIM_FACTOR = 0.35
"""Brightness of the last frame of a lost camera."""
DEFAULT_ASPECT = 16 / 9
MAX_ROW_SHARE, MIN_ROW_TILE_WIDTH = 1 / 6, 150
"""Largest height of the row below a large tile, as a share of the whole, and smallest width of its tiles in pixels.
Tiles that do not fit are left out."""
BRIEF_TILE_LETTERS = 24
"""Width, in multiples of the font size, below which a tile shows only the camera's name and the label."""


class Box(NamedTuple):
    """Position and size of a tile, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def contains(self, x: int, y: int) -> bool:
        """Check whether a point lies in the box."""
        return self.left <= x < self.left + self.width and self.top <= y < self.top + self.height


@dataclass
class Canvas:
    """The image of all tiles. Drawing again draws only the tiles that have changed."""

    image: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))
    """(H, W, 3) RGB."""
    boxes: dict[int, Box] = field(default_factory=dict)
    """Boxes of the tiles that are shown, by tile number."""
    drawn_tiles: dict[int, Tile] = field(default_factory=dict)

    def draw_tiles(self, tiles: Sequence[Tile], size: tuple[int, int], enlarged: int | None = None) -> bool:
        """Draw the tiles at a width and height. Returns whether anything has changed."""
        boxes = arrange_tiles(tiles, size, enlarged)
        if boxes != self.boxes or self.image.shape[1::-1] != size:
            self.image = np.full((size[1], size[0], 3), BACKGROUND_COLOR, np.uint8)
            self.boxes, self.drawn_tiles = boxes, {}
        changed = [number for number in boxes if self.drawn_tiles.get(number) != tiles[number]]
        for number in changed:
            left, top, width, height = boxes[number]
            prefix = f"{number + 1} · " if len(tiles) > 1 else ""
            tile = self.image[top : top + height, left : left + width]  # (h, w, 3), drawn in place
            draw_tile(tile, tiles[number], prefix)
            self.drawn_tiles[number] = tiles[number]
        return bool(changed)

    def find_tile(self, x: int, y: int) -> int | None:
        """Return the number of the tile at a point of the image, or None."""
        return next((number for number, box in self.boxes.items() if box.contains(x, y)), None)


def compose(tiles: Sequence[Tile], size: tuple[int, int], *, enlarged: int | None = None) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) RGB of all tiles. `size` is (W, H); `enlarged` is the number of the large tile."""
    canvas = Canvas()
    canvas.draw_tiles(tiles, size, enlarged)
    return canvas.image


# ---- arrangement of tiles ------------------------------------------------------------------------------------------


def arrange_tiles(tiles: Sequence[Tile], size: tuple[int, int], enlarged: int | None = None) -> dict[int, Box]:
    """Return the boxes of the shown tiles, by number. Below a large tile, those with events come before the others."""
    if enlarged is None or len(tiles) == 1:
        return dict(enumerate(arrange_grid(len(tiles), size, _median_aspect(tiles))))
    (width, height), gap = size, _gap_pixels(size)
    others = [number for number in range(len(tiles)) if number != enlarged]
    tile_width = max(MIN_ROW_TILE_WIDTH, (width + gap) // len(others) - gap)
    row_height = round(min(MAX_ROW_SHARE * height, tile_width / _median_aspect(tiles)))
    tile_width = min(tile_width, round(row_height * _median_aspect(tiles)))
    by_priority = sorted(others, key=lambda number: tiles[number].event_since is None)
    shown = sorted(by_priority[: (width + gap) // (tile_width + gap)])
    left = (width - len(shown) * (tile_width + gap) + gap) // 2
    boxes = [Box(left + i * (tile_width + gap), height - row_height, tile_width, row_height) for i in range(len(shown))]
    large = arrange_grid(1, (width, height - row_height - gap), _median_aspect([tiles[enlarged]]))[0]
    return {enlarged: large, **dict(zip(shown, boxes, strict=True))}


def arrange_grid(count: int, size: tuple[int, int], aspect: float) -> list[Box]:
    """Return boxes of one aspect ratio, as large as possible, row by row and centred."""
    gap = _gap_pixels(size)
    width, columns = max((_tile_width(count, columns, size, aspect), columns) for columns in range(1, count + 1))
    height, rows = max(1, int(width / aspect + 1e-6)), -(-count // columns)
    left = (size[0] - columns * (width + gap) + gap) // 2
    top = max(0, (size[1] - rows * (height + gap) + gap) // 2)
    cells = [(i % columns, i // columns) for i in range(count)]
    return [Box(left + x * (width + gap), top + y * (height + gap), width, height) for x, y in cells]


def _tile_width(count: int, columns: int, size: tuple[int, int], aspect: float) -> int:
    gap, rows = _gap_pixels(size), -(-count // columns)
    across, down = (size[0] + gap) / columns - gap, (size[1] + gap) / rows - gap
    return max(1, int(min(across, down * aspect)))


def _gap_pixels(size: tuple[int, int]) -> int:
    return max(2, round(min(size) / 180))


def _median_aspect(tiles: Sequence[Tile]) -> float:
    """Return the median of width / height of the frames."""
    return median(list(_iterate_aspects(tiles)) or [DEFAULT_ASPECT])


def _iterate_aspects(tiles: Sequence[Tile]) -> Iterator[float]:
    for tile in tiles:
        if tile.jpeg and (size := _jpeg_size(tile.jpeg)):
            yield size[0] / size[1]


@lru_cache(maxsize=64)
def _jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    try:
        with Image.open(BytesIO(jpeg)) as image:
            return image.size
    except (OSError, ValueError):
        return None


# ---- one tile -------------------------------------------------------------------------------------------------------


def draw_tile(pixels: NDArray[np.uint8], tile: Tile, prefix: str = "") -> None:
    """Draw a tile on all of `pixels` (H, W, 3) RGB, in place. `prefix` comes before the camera's name."""
    pixels[:] = BACKGROUND_COLOR if tile.jpeg else EMPTY_TILE_COLOR
    has_frame = bool(tile.jpeg) and _draw_frame(pixels, tile.jpeg, is_dim=tile.signal_loss is not None)
    height, width = pixels.shape[:2]
    draw_overlay(
        pixels, make_overlay(tile, prefix, is_brief=width < BRIEF_TILE_LETTERS * font_size_pixels(width, height))
    )
    if tile.signal_loss is not None:
        since = f"since {_format_since(tile.signal_loss.since, tile.signal_loss.at)}" if tile.signal_loss.since else ""
        _draw_message(pixels, tile.signal_loss.kind, since, tile.signal_loss.reason)
    elif not has_frame:
        _draw_message(pixels, "", "", "waiting for video")
    elif tile.event_since is not None:
        _draw_event_border(pixels)


def make_overlay(tile: Tile, prefix: str = "", *, is_brief: bool = False) -> OverlayState:
    """Return the overlay of a tile. With `is_brief`, the camera's name is shown first."""
    name, is_live = f"{prefix}{tile.name}", tile.signal_loss is None and bool(tile.jpeg)
    label = tile.label if is_live else tile.signal_loss.kind if tile.signal_loss else ""
    since = f"since {_format_clock(tile.event_since)}" if tile.event_since else ""
    details = (name, since, "" if tile.has_alerts else "no alerts now") if is_live else (name,)
    overlay = OverlayState(
        tile.end_seconds,
        label=name if is_brief else label,
        note=label if is_brief else " · ".join(filter(None, details)),
    )
    if not is_live:
        return overlay
    return replace(
        overlay,
        clock=_format_clock(tile.captured_at) if tile.captured_at else "",
        probability=tile.probability,
        probability_label="" if is_brief else tile.probability_label,
        threshold=tile.threshold,
        is_event=tile.event_since is not None,
        timeline=_make_timeline(tile.curve, tile.events, tile.end_seconds, tile.threshold),
    )


@lru_cache(maxsize=64)
def _make_timeline(
    curve: tuple[tuple[float, float, float], ...], events: tuple[Event, ...], end: float, threshold: float | None
) -> ScoreTimeline:
    """Return the timeline. It is the same object for the same values, which the overlay's own cache relies on."""
    start = end - TIMELINE_SECONDS
    before = (start, max(start, curve[0][0]) if curve else end, 0.0)  # before the first window
    table = np.array((before, *curve), np.float64)  # (B, 3)
    return ScoreTimeline(start, end, table[:, :2], table[:, 2], events, threshold)


def _draw_frame(pixels: NDArray[np.uint8], jpeg: bytes, *, is_dim: bool) -> bool:
    """Draw the whole frame in the middle of the tile. Returns False if it is not a readable JPEG."""
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
        interpolation = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    pixels[top : top + height, left : left + width] = (
        _dim_image(image) if is_dim else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    )
    return True


def _dim_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gray = cv2.convertScaleAbs(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), alpha=DIM_FACTOR)
    return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), np.uint8)


def _draw_message(pixels: NDArray[np.uint8], status: str, since: str, reason: str) -> None:
    """Draw a status in the middle of a tile. Status and time share one line if the tile is wide enough."""
    height, width = pixels.shape[:2]
    text = font_size_pixels(width, height)
    large, max_width = round(1.35 * text), max(1, width - 2 * text)
    title = f"{status} {since}".strip()
    is_wide = measure_text_width(title, large, bold=True) <= max_width
    lines = (
        [(title, large, TEXT_COLOR, True)]
        if is_wide
        else [(status, large, TEXT_COLOR, True), (since, text, TEXT_COLOR, False)]
    )
    patches = [
        render_text(make_printable(line), size, color=color, bold=bold, max_pixels=max_width)
        for line, size, color, bold in (*lines, (reason, text, MUTED_TEXT_COLOR, False))
        if line
    ]
    top = (height - sum(len(patch.premultiplied_color) for patch in patches)) // 2
    for patch in patches:
        blend(pixels, patch, top, (width - patch.premultiplied_color.shape[1]) // 2)
        top += len(patch.premultiplied_color)


def _draw_event_border(pixels: NDArray[np.uint8]) -> None:
    """Draw a thick border, which makes an event visible from afar."""
    width = max(2, round(min(pixels.shape[:2]) / 120))
    for border in (pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:]):
        border[:] = BANNER_COLOR


def _format_clock(time: datetime) -> str:
    """Return the time of day in this machine's time zone."""
    return f"{time.astimezone():%H:%M:%S}"


def _format_since(since: datetime, detected_at: datetime) -> str:
    """Return the time of day, with the date if it differs from the date of the detection."""
    local = since.astimezone()
    return _format_clock(since) if local.date() == detected_at.astimezone().date() else f"{local:%Y-%m-%d %H:%M}"
