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

from features.utils.text import printable
from hazard.monitor.display.tile import TIMELINE_SECONDS, Sight
from hazard.rendering.overlay import Shown, Track, draw
from hazard.rendering.text import BANNER, INK, SOFT, Colour, blend, text_patch, text_pixels, text_width
from hazard.types import Event

GROUND: Colour = (8, 11, 15)
"""Behind the tiles."""
EMPTY: Colour = (24, 31, 39)
"""Of a tile without a picture."""
DIM = 0.35
"""The light that is left of a picture that is not of now."""
USUAL_ASPECT = 16 / 9
ROW_SHARE, LEAST_ROW_WIDTH = 1 / 6, 150
"""The row below a large camera is so high at most; what does not fit into it at this width is left out."""
FEW_LETTERS = 24
"""A tile that is narrower, in sizes of its letters, says no more than the camera's name and the label."""


class Box(NamedTuple):
    """A tile's place."""

    left: int
    top: int
    width: int
    height: int

    def holds(self, x: int, y: int) -> bool:
        """Whether a point lies in it."""
        return self.left <= x < self.left + self.width and self.top <= y < self.top + self.height


@dataclass
class Canvas:
    """The picture as it was drawn last; drawing again draws only the tiles that changed."""

    image: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))
    """(H, W, 3) RGB."""
    boxes: dict[int, Box] = field(default_factory=dict)
    """By number: the cameras that are shown."""
    drawn: dict[int, Sight] = field(default_factory=dict)

    def show(self, sights: Sequence[Sight], size: tuple[int, int], enlarged: int | None = None) -> bool:
        """Draws cameras at a width and height; says whether anything changed."""
        boxes = arranged(sights, size, enlarged)
        if boxes != self.boxes or self.image.shape[1::-1] != size:
            self.image = np.full((size[1], size[0], 3), GROUND, np.uint8)
            self.boxes, self.drawn = boxes, {}
        changed = [number for number in boxes if self.drawn.get(number) != sights[number]]
        for number in changed:
            left, top, width, height = boxes[number]
            place = f"{number + 1} · " if len(sights) > 1 else ""
            tile = self.image[top : top + height, left : left + width]  # (h, w, 3), drawn in place
            draw_tile(tile, sights[number], place)
            self.drawn[number] = sights[number]
        return bool(changed)

    def at(self, x: int, y: int) -> int | None:
        """The camera at a point of the picture."""
        return next((number for number, box in self.boxes.items() if box.holds(x, y)), None)


def compose(sights: Sequence[Sight], size: tuple[int, int], *, enlarged: int | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: cameras at a width and height; `enlarged` is the number of the one that is shown large, from 0."""
    canvas = Canvas()
    canvas.show(sights, size, enlarged)
    return canvas.image


# ---- where tiles lie ------------------------------------------------------------------------------------------------


def arranged(sights: Sequence[Sight], size: tuple[int, int], enlarged: int | None = None) -> dict[int, Box]:
    """By number, the place of each camera that is shown; below a large one events come before order."""
    if enlarged is None or len(sights) == 1:
        return dict(enumerate(grid(len(sights), size, _aspect(sights))))
    (width, height), gap = size, _gap(size)
    others = [number for number in range(len(sights)) if number != enlarged]
    tile = max(LEAST_ROW_WIDTH, (width + gap) // len(others) - gap)
    row = round(min(ROW_SHARE * height, tile / _aspect(sights)))
    tile = min(tile, round(row * _aspect(sights)))
    kept = sorted(sorted(others, key=lambda number: sights[number].since is None)[: (width + gap) // (tile + gap)])
    left = (width - len(kept) * (tile + gap) + gap) // 2
    places = [Box(left + i * (tile + gap), height - row, tile, row) for i in range(len(kept))]
    large = grid(1, (width, height - row - gap), _aspect([sights[enlarged]]))[0]
    return {enlarged: large, **dict(zip(kept, places, strict=True))}


def grid(count: int, size: tuple[int, int], aspect: float) -> list[Box]:
    """Tiles of one shape as large as they can be, row by row, in the middle of the picture."""
    gap = _gap(size)
    width, columns = max((_tile_width(count, columns, size, aspect), columns) for columns in range(1, count + 1))
    height, rows = max(1, int(width / aspect + 1e-6)), -(-count // columns)
    left = (size[0] - columns * (width + gap) + gap) // 2
    top = max(0, (size[1] - rows * (height + gap) + gap) // 2)
    places = [(i % columns, i // columns) for i in range(count)]
    return [Box(left + x * (width + gap), top + y * (height + gap), width, height) for x, y in places]


def _tile_width(count: int, columns: int, size: tuple[int, int], aspect: float) -> int:
    gap, rows = _gap(size), -(-count // columns)
    across, down = (size[0] + gap) / columns - gap, (size[1] + gap) / rows - gap
    return max(1, int(min(across, down * aspect)))


def _gap(size: tuple[int, int]) -> int:
    return max(2, round(min(size) / 180))


def _aspect(sights: Sequence[Sight]) -> float:
    """Width by height of most pictures."""
    return median(list(_aspects(sights)) or [USUAL_ASPECT])


def _aspects(sights: Sequence[Sight]) -> Iterator[float]:
    for sight in sights:
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


def draw_tile(tile: NDArray[np.uint8], sight: Sight, place: str = "") -> None:
    """Draws a camera on all of (H, W, 3) RGB, in place; `place` stands before its name."""
    tile[:] = GROUND if sight.jpeg else EMPTY
    has_picture = bool(sight.jpeg) and _put_picture(tile, sight.jpeg, is_dim=sight.lost is not None)
    height, width = tile.shape[:2]
    draw(tile, shown(sight, place, is_brief=width < FEW_LETTERS * text_pixels(width, height)))
    if sight.lost is not None:
        since = f"since {_moment(sight.lost.since, sight.lost.at)}" if sight.lost.since else ""
        _say(tile, sight.lost.what, since, sight.lost.reason)
    elif not has_picture:
        _say(tile, "", "", "waiting for pictures")
    elif sight.since is not None:
        _frame(tile)


def shown(sight: Sight, place: str = "", *, is_brief: bool = False) -> Shown:
    """What the overlay says of a camera; `is_brief` has its name come first."""
    name, is_alive = f"{place}{sight.name}", sight.lost is None and bool(sight.jpeg)
    label = sight.label if is_alive else sight.lost.what if sight.lost else ""
    since = f"since {_clock(sight.since)}" if sight.since else ""
    facts = (name, since, "" if sight.has_alerts else "no alerts now") if is_alive else (name,)
    said = Shown(
        sight.seconds,
        label=name if is_brief else label,
        note=label if is_brief else " · ".join(filter(None, facts)),
    )
    if not is_alive:
        return said
    return replace(
        said,
        clock=_clock(sight.at) if sight.at else "",
        probability=sight.probability,
        of="" if is_brief else sight.of,
        threshold=sight.threshold,
        is_event=sight.since is not None,
        track=_track(sight.curve, sight.events, sight.seconds, sight.threshold),
    )


@lru_cache(maxsize=64)
def _track(
    curve: tuple[tuple[float, float, float], ...], events: tuple[Event, ...], end: float, threshold: float | None
) -> Track:
    """The same object for the same facts: by it the overlay knows what it has drawn."""
    start = end - TIMELINE_SECONDS
    before = (start, max(start, curve[0][0]) if curve else end, 0.0)  # nothing was seen yet
    table = np.array((before, *curve), np.float64)  # (B, 3)
    return Track(start, end, table[:, :2], table[:, 2], events, threshold)


def _put_picture(tile: NDArray[np.uint8], jpeg: bytes, *, is_dim: bool) -> bool:
    """All of the picture in the middle of the tile; False where it is none."""
    size = _jpeg_size(jpeg)
    if size is None:
        return False
    scale = min(tile.shape[1] / size[0], tile.shape[0] / size[1])
    mode = cv2.IMREAD_REDUCED_COLOR_2 if scale <= 0.5 else cv2.IMREAD_COLOR
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), mode)  # (H, W, 3) BGR
    if decoded is None:
        return False
    image = np.asarray(decoded, np.uint8)
    width, height = (max(1, min(tile.shape[1 - i], round(scale * size[i]))) for i in (0, 1))
    if image.shape[1::-1] != (width, height):
        way = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)
    top, left = (tile.shape[0] - height) // 2, (tile.shape[1] - width) // 2
    tile[top : top + height, left : left + width] = _dimmed(image) if is_dim else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return True


def _dimmed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.convertScaleAbs(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), alpha=DIM)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def _say(tile: NDArray[np.uint8], what: str, since: str, why: str) -> None:
    """A few words in the middle of a tile; the first two on one line where it is wide enough."""
    height, width = tile.shape[:2]
    text = text_pixels(width, height)
    large, most = round(1.35 * text), max(1, width - 2 * text)
    both = f"{what} {since}".strip()
    is_wide = text_width(both, large, bold=True) <= most
    lines = [(both, large, INK, True)] if is_wide else [(what, large, INK, True), (since, text, INK, False)]
    patches = [
        text_patch(printable(words), size, colour=colour, bold=bold, most=most)
        for words, size, colour, bold in (*lines, (why, text, SOFT, False))
        if words
    ]
    top = (height - sum(len(patch.paint) for patch in patches)) // 2
    for patch in patches:
        blend(tile, patch, top, (width - patch.paint.shape[1]) // 2)
        top += len(patch.paint)


def _frame(tile: NDArray[np.uint8]) -> None:
    """An event is seen from afar."""
    line = max(2, round(min(tile.shape[:2]) / 120))
    tile[:line], tile[-line:], tile[:, :line], tile[:, -line:] = BANNER, BANNER, BANNER, BANNER


def _clock(moment: datetime) -> str:
    """By the clock on the wall, of this machine's time zone."""
    return f"{moment.astimezone():%H:%M:%S}"


def _moment(moment: datetime, told: datetime) -> str:
    """With its day where that is not the day it was told of."""
    there, then = moment.astimezone(), told.astimezone()
    return _clock(moment) if there.date() == then.date() else f"{there:%Y-%m-%d %H:%M}"
