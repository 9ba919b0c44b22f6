"""What was seen, drawn on a frame: label, probability, events, a timeline with a moving cursor. Pure functions.

`draw` changes a picture in place and knows nothing of files, so that recordings, live views and windows look alike. All
measures follow the picture. What stays as it is from frame to frame is drawn once and kept; a frame costs three blends.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from features.utils.text import printable
from hazard.rendering.text import (  # fmt: skip
    BANNER,
    COOL,
    HOT,
    INK,
    PANEL,
    RAIL,
    SOFT,
    Colour,
    Patch,
    baseline,
    blend,
    elided,
    font_of,
    from_picture,
    line_of,
    patch_of,
    percent_text,
    text_pixels,
    text_width,
)
from hazard.types import Event

PANEL_ALPHA = 0.76
EVENT_ALPHA = 0.9
BAND_ALPHA = 0.42


@dataclass(frozen=True, eq=False)
class Track:
    """The curve along the bottom edge: what is known of the seconds from `start` to `end`. Told apart by identity."""

    start: float
    end: float
    spans: NDArray[np.float64]  # (B, 2) seconds, ascending: what each value speaks for
    values: NDArray[np.float64]  # (B,) in 0 … 1
    events: tuple[Event, ...] = ()
    threshold: float | None = None


@dataclass(frozen=True)
class Shown:
    """What is to be seen at one moment. Empty text and None leave their place free."""

    seconds: float
    """Where the cursor stands on the track."""
    clock: str = ""
    label: str = ""
    note: str = ""
    """A few words beside the label, in a softer colour."""
    probability: float | None = None
    of: str = ""
    """The label that the probability is of, where it is another."""
    threshold: float | None = None
    is_event: bool = False
    """Whether an event is on: the strip at the top becomes a banner."""
    track: Track | None = None


def draw(image: NDArray[np.uint8], shown: Shown) -> None:
    """Draws on a picture (H, W, 3) RGB, in place. What does not fit a tiny one is cut off."""
    height, width = image.shape[:2]
    text = text_pixels(width, height)
    blend(image, _header(width, text, _heading(shown)), 0, 0)
    if not shown.clock and shown.track is None:
        return
    foot = round(2.3 * text)
    top, left = height - foot, _clock_width(shown.clock, text)
    blend(image, _footer(width, foot, left, text, shown.track), top, 0)
    if shown.clock:
        blend(image, line_of(printable(shown.clock), text), top + (foot - round(1.6 * text)) // 2, round(0.55 * text))
    if shown.track is not None:
        _draw_cursor(image, shown.track, shown.seconds, top, left, text)


# ---- the strip at the top -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Heading:
    label: str
    note: str
    number: str
    of: str
    filled: float  # of the meter; below 0: none
    tick: float
    is_event: bool


def _heading(shown: Shown) -> _Heading:
    known = shown.probability is not None
    return _Heading(
        label=printable(shown.label),
        note=printable(shown.note),
        number=percent_text(float(shown.probability or 0)) if known else "",
        of=printable(shown.of) if known and shown.of != shown.label else "",
        filled=float(shown.probability or 0) if known else -1.0,
        tick=-1.0 if shown.threshold is None else float(shown.threshold),
        is_event=shown.is_event,
    )


@lru_cache(maxsize=16)
def _header(width: int, text: int, heading: _Heading) -> Patch:
    """The label to the left; name, meter and number of its probability to the right."""
    height, gap = round(1.9 * text), round(0.55 * text)
    background, alpha = (BANNER, EVENT_ALPHA) if heading.is_event else (PANEL, PANEL_ALPHA)
    picture = Image.new("RGBA", (width, height), (*background, round(255 * alpha)))
    pen = ImageDraw.Draw(picture)
    base, bold, plain = baseline(height, text), font_of(text, True), font_of(text, False)
    right = width - gap
    if heading.number:
        right -= text_width("100 %", text)
        pen.text((width - gap, base), heading.number, fill=INK, font=plain, anchor="rs")
    wanted = round(bold.getlength(heading.label)) + 2 * gap
    whole = wanted + round(plain.getlength(heading.note)) + gap
    wanted = whole if heading.note and whole < right else min(wanted, width // 2)  # a meter rather than half a note
    meter = min(6 * text, right - wanted - gap)
    if heading.filled >= 0 and meter >= 2 * text:
        right -= gap + meter
        _draw_meter(pen, heading, (right, height), (meter, text))
    name = text_width(heading.of, text)
    if heading.of and right - name - gap > wanted:
        right -= gap + name
        pen.text((right, base), heading.of, fill=INK if heading.is_event else SOFT, font=plain, anchor="ls")
    room = right - 2 * gap
    label = elided(heading.label, bold, room)
    pen.text((gap, base), label, fill=INK, font=bold, anchor="ls")
    used = round(bold.getlength(label)) + gap if label else 0
    if heading.note and room - used > 3 * text:
        note = elided(heading.note, plain, room - used)
        pen.text((gap + used, base), note, fill=INK if heading.is_event else SOFT, font=plain, anchor="ls")
    return from_picture(picture)


def _draw_meter(pen: ImageDraw.ImageDraw, heading: _Heading, corner: tuple[int, int], size: tuple[int, int]) -> None:
    left, (length, text) = corner[0], size
    thick = max(3, round(0.5 * text))
    top, line = (corner[1] - thick) // 2, max(1, round(text / 12))
    pen.rectangle((left, top, left + length - 1, top + thick - 1), fill=(120, 40, 0) if heading.is_event else RAIL)
    filled = round(heading.filled * length)
    is_over = heading.is_event or (heading.tick >= 0 and heading.filled >= heading.tick)
    if filled:
        colour = INK if heading.is_event else (HOT if is_over else COOL)
        pen.rectangle((left, top, left + filled - 1, top + thick - 1), fill=colour)
    if 0 <= heading.tick <= 1:
        x = left + min(length - line, round(heading.tick * length))
        edge = max(2, round(0.2 * text))
        pen.rectangle((x - line, top - edge, x + 2 * line - 1, top + thick + edge - 1), fill=(*PANEL, 170))
        pen.rectangle((x, top - edge, x + line - 1, top + thick + edge - 1), fill=INK)


# ---- the timeline at the bottom -------------------------------------------------------------------------------------


def _clock_width(clock: str, text: int) -> int:
    return text_width("0" * len(clock), text) + round(1.1 * text) if clock else round(0.55 * text)


def _rail(width: int, left: int, text: int) -> tuple[int, int]:
    """The first column of the timeline, and how many there are."""
    return left, max(1, width - left - round(0.55 * text))


@lru_cache(maxsize=8)
def _footer(width: int, height: int, left: int, text: int, track: Track | None) -> Patch:
    colour = np.full((height, width, 3), _paint(PANEL))
    alpha = np.full((height, width, 1), PANEL_ALPHA, np.float32)
    if track is not None:
        first, columns = _rail(width, left, text)
        top, bottom = round(0.35 * text), height - round(0.35 * text)
        area = slice(top, bottom), slice(first, first + columns)
        _draw_track(colour[area], alpha[area], track, max(1, round(text / 12)))
    return patch_of(colour * alpha, alpha)


def _draw_track(colour: NDArray[np.float32], alpha: NDArray[np.float32], track: Track, line: int) -> None:
    """Event bands, the curve as an area of steps, a dashed line at the threshold."""
    height, columns = colour.shape[:2]
    edges = np.linspace(track.start, track.end, columns + 1)
    in_event = np.zeros(columns, np.bool_)
    for event in track.events:
        in_event |= (edges[1:] > event.start) & (edges[:-1] < event.end)
    colour[:, in_event] = BAND_ALPHA * _paint(HOT) + (1 - BAND_ALPHA) * _paint(PANEL)
    alpha[:, in_event] = EVENT_ALPHA
    levels = np.round(column_values(track, edges) * (height - line)).astype(int) + line  # (columns,)
    below = np.arange(height)[:, None] >= height - levels  # (H, columns)
    colour[below & in_event], colour[below & ~in_event] = _paint(HOT), _paint(COOL)
    alpha[below] = 0.95
    if track.threshold is not None:
        y = min(height - line, height - line - round(track.threshold * (height - line)))
        dashes = (np.arange(columns) // (4 * line)) % 2 == 0
        colour[y : y + line, dashes], alpha[y : y + line, dashes] = _paint(INK), 0.8


def column_values(track: Track, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C,): the highest value between each two of the edges (C + 1,), so that a short peak shows on a long timeline."""
    if not len(track.values):
        return np.zeros(len(edges) - 1)
    first = np.searchsorted(track.spans[:, 0], edges[:-1], side="right") - 1
    last = np.searchsorted(track.spans[:, 0], edges[1:], side="left")
    return np.array([track.values[max(0, a) : max(a + 1, b, 1)].max() for a, b in zip(first, last, strict=True)])


def _draw_cursor(image: NDArray[np.uint8], track: Track, seconds: float, top: int, left: int, text: int) -> None:
    first, columns = _rail(image.shape[1], left, text)
    line = max(1, round(text / 9))
    share = (seconds - track.start) / max(track.end - track.start, 1e-9)
    x = first + round(min(max(share, 0.0), 1.0) * (columns - line))
    image[max(0, top) :, max(0, x - line) : x + 2 * line] //= 3
    image[max(0, top) :, x : x + line] = INK


def _paint(colour: Colour) -> NDArray[np.float32]:
    return np.array(colour, np.float32)
