"""What was seen, drawn on a frame: label, probability, events, a timeline with a moving cursor. Pure functions.

`draw` changes a picture in place and knows nothing of files, so that recordings, live views and windows look alike. All
measures follow the picture. What stays as it is from frame to frame is drawn once and kept; a frame costs three blends.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from features.utils.text import make_printable
from hazard.rendering.text import (  # fmt: skip
    ALARM_COLOR,
    BANNER_COLOR,
    CALM_COLOR,
    METER_COLOR,
    MUTED_TEXT_COLOR,
    PANEL_COLOR,
    TEXT_COLOR,
    Color,
    OverlayPatch,
    blend,
    elide_text,
    font_size_pixels,
    format_percent,
    load_font,
    make_patch,
    measure_text_width,
    patch_from_image,
    render_cached_text,
    text_baseline,
)
from hazard.types import Event

PANEL_ALPHA = 0.76
EVENT_ALPHA = 0.9
BAND_ALPHA = 0.42


@dataclass(frozen=True, eq=False)
class ScoreTimeline:
    """The curve along the bottom edge: what is known of the seconds from `start` to `end`. Told apart by identity."""

    start: float
    end: float
    spans: NDArray[np.float64]  # (B, 2) seconds, ascending: what each value speaks for
    values: NDArray[np.float64]  # (B,) in 0 … 1
    events: tuple[Event, ...] = ()
    threshold: float | None = None


@dataclass(frozen=True)
class OverlayState:
    """What is to be seen at one moment. Empty text and None leave their place free."""

    seconds: float
    """Where the cursor stands on the track."""
    clock: str = ""
    label: str = ""
    note: str = ""
    """A few words beside the label, in a softer colour."""
    probability: float | None = None
    probability_label: str = ""
    """The label that the probability is of, where it is another."""
    threshold: float | None = None
    is_event: bool = False
    """Whether an event is on: the strip at the top becomes a banner."""
    timeline: ScoreTimeline | None = None


def draw_overlay(image: NDArray[np.uint8], state: OverlayState) -> None:
    """Draws on a picture (H, W, 3) RGB, in place. What does not fit a tiny one is cut off."""
    height, width = image.shape[:2]
    text = font_size_pixels(width, height)
    blend(image, _render_header(width, text, _make_header_content(state)), 0, 0)
    if not state.clock and state.timeline is None:
        return
    foot = round(2.3 * text)
    top, left = height - foot, _measure_clock_width(state.clock, text)
    blend(image, _render_footer(width, foot, left, text, state.timeline), top, 0)
    if state.clock:
        blend(
            image,
            render_cached_text(make_printable(state.clock), text),
            top + (foot - round(1.6 * text)) // 2,
            round(0.55 * text),
        )
    if state.timeline is not None:
        _draw_cursor(image, state.timeline, state.seconds, top, left, text)


# ---- the strip at the top -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _HeaderContent:
    label: str
    note: str
    probability_text: str
    probability_label: str
    meter_share: float  # of the meter; below 0: none
    threshold: float
    is_event: bool


def _make_header_content(state: OverlayState) -> _HeaderContent:
    known = state.probability is not None
    return _HeaderContent(
        label=make_printable(state.label),
        note=make_printable(state.note),
        probability_text=format_percent(float(state.probability or 0)) if known else "",
        probability_label=make_printable(state.probability_label)
        if known and state.probability_label != state.label
        else "",
        meter_share=float(state.probability or 0) if known else -1.0,
        threshold=-1.0 if state.threshold is None else float(state.threshold),
        is_event=state.is_event,
    )


@lru_cache(maxsize=16)
def _render_header(width: int, text: int, heading: _HeaderContent) -> OverlayPatch:
    """The label to the left; name, meter and number of its probability to the right."""
    height, gap = round(1.9 * text), round(0.55 * text)
    background, alpha = (BANNER_COLOR, EVENT_ALPHA) if heading.is_event else (PANEL_COLOR, PANEL_ALPHA)
    picture = Image.new("RGBA", (width, height), (*background, round(255 * alpha)))
    pen = ImageDraw.Draw(picture)
    base, bold, plain = text_baseline(height, text), load_font(text, True), load_font(text, False)
    right = width - gap
    if heading.probability_text:
        right -= measure_text_width("100 %", text)
        pen.text((width - gap, base), heading.probability_text, fill=TEXT_COLOR, font=plain, anchor="rs")
    wanted = round(bold.getlength(heading.label)) + 2 * gap
    whole = wanted + round(plain.getlength(heading.note)) + gap
    wanted = whole if heading.note and whole < right else min(wanted, width // 2)  # a meter rather than half a note
    meter = min(6 * text, right - wanted - gap)
    if heading.meter_share >= 0 and meter >= 2 * text:
        right -= gap + meter
        _draw_meter(pen, heading, (right, height), (meter, text))
    name = measure_text_width(heading.probability_label, text)
    if heading.probability_label and right - name - gap > wanted:
        right -= gap + name
        pen.text(
            (right, base),
            heading.probability_label,
            fill=TEXT_COLOR if heading.is_event else MUTED_TEXT_COLOR,
            font=plain,
            anchor="ls",
        )
    room = right - 2 * gap
    label = elide_text(heading.label, bold, room)
    pen.text((gap, base), label, fill=TEXT_COLOR, font=bold, anchor="ls")
    used = round(bold.getlength(label)) + gap if label else 0
    if heading.note and room - used > 3 * text:
        note = elide_text(heading.note, plain, room - used)
        pen.text(
            (gap + used, base), note, fill=TEXT_COLOR if heading.is_event else MUTED_TEXT_COLOR, font=plain, anchor="ls"
        )
    return patch_from_image(picture)


def _draw_meter(
    pen: ImageDraw.ImageDraw, heading: _HeaderContent, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    left, (length, text) = corner[0], size
    thick = max(3, round(0.5 * text))
    top, line = (corner[1] - thick) // 2, max(1, round(text / 12))
    pen.rectangle(
        (left, top, left + length - 1, top + thick - 1), fill=(120, 40, 0) if heading.is_event else METER_COLOR
    )
    filled = round(heading.meter_share * length)
    is_over = heading.is_event or (heading.threshold >= 0 and heading.meter_share >= heading.threshold)
    if filled:
        colour = TEXT_COLOR if heading.is_event else (ALARM_COLOR if is_over else CALM_COLOR)
        pen.rectangle((left, top, left + filled - 1, top + thick - 1), fill=colour)
    if 0 <= heading.threshold <= 1:
        x = left + min(length - line, round(heading.threshold * length))
        edge = max(2, round(0.2 * text))
        pen.rectangle((x - line, top - edge, x + 2 * line - 1, top + thick + edge - 1), fill=(*PANEL_COLOR, 170))
        pen.rectangle((x, top - edge, x + line - 1, top + thick + edge - 1), fill=TEXT_COLOR)


# ---- the timeline at the bottom -------------------------------------------------------------------------------------


def _measure_clock_width(clock: str, text: int) -> int:
    return measure_text_width("0" * len(clock), text) + round(1.1 * text) if clock else round(0.55 * text)


def _find_timeline_columns(width: int, left: int, text: int) -> tuple[int, int]:
    """The first column of the timeline, and how many there are."""
    return left, max(1, width - left - round(0.55 * text))


@lru_cache(maxsize=8)
def _render_footer(width: int, height: int, left: int, text: int, timeline: ScoreTimeline | None) -> OverlayPatch:
    colour = np.full((height, width, 3), _to_float_color(PANEL_COLOR))
    alpha = np.full((height, width, 1), PANEL_ALPHA, np.float32)
    if timeline is not None:
        first, columns = _find_timeline_columns(width, left, text)
        top, bottom = round(0.35 * text), height - round(0.35 * text)
        area = slice(top, bottom), slice(first, first + columns)
        _draw_timeline(colour[area], alpha[area], timeline, max(1, round(text / 12)))
    return make_patch(colour * alpha, alpha)


def _draw_timeline(color: NDArray[np.float32], alpha: NDArray[np.float32], timeline: ScoreTimeline, line: int) -> None:
    """Event bands, the curve as an area of steps, a dashed line at the threshold."""
    height, columns = color.shape[:2]
    edges = np.linspace(timeline.start, timeline.end, columns + 1)
    in_event = np.zeros(columns, np.bool_)
    for event in timeline.events:
        in_event |= (edges[1:] > event.start) & (edges[:-1] < event.end)
    color[:, in_event] = BAND_ALPHA * _to_float_color(ALARM_COLOR) + (1 - BAND_ALPHA) * _to_float_color(PANEL_COLOR)
    alpha[:, in_event] = EVENT_ALPHA
    levels = np.round(max_value_per_column(timeline, edges) * (height - line)).astype(int) + line  # (columns,)
    below = np.arange(height)[:, None] >= height - levels  # (H, columns)
    color[below & in_event], color[below & ~in_event] = _to_float_color(ALARM_COLOR), _to_float_color(CALM_COLOR)
    alpha[below] = 0.95
    if timeline.threshold is not None:
        y = min(height - line, height - line - round(timeline.threshold * (height - line)))
        dashes = (np.arange(columns) // (4 * line)) % 2 == 0
        color[y : y + line, dashes], alpha[y : y + line, dashes] = _to_float_color(TEXT_COLOR), 0.8


def max_value_per_column(timeline: ScoreTimeline, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C,): the highest value between each two of the edges (C + 1,), so that a short peak shows on a long timeline."""
    if not len(timeline.values):
        return np.zeros(len(edges) - 1)
    first = np.searchsorted(timeline.spans[:, 0], edges[:-1], side="right") - 1
    last = np.searchsorted(timeline.spans[:, 0], edges[1:], side="left")
    return np.array([timeline.values[max(0, a) : max(a + 1, b, 1)].max() for a, b in zip(first, last, strict=True)])


def _draw_cursor(
    image: NDArray[np.uint8], timeline: ScoreTimeline, seconds: float, top: int, left: int, text: int
) -> None:
    first, columns = _find_timeline_columns(image.shape[1], left, text)
    line = max(1, round(text / 9))
    share = (seconds - timeline.start) / max(timeline.end - timeline.start, 1e-9)
    x = first + round(min(max(share, 0.0), 1.0) * (columns - line))
    image[max(0, top) :, max(0, x - line) : x + 2 * line] //= 3
    image[max(0, top) :, x : x + line] = TEXT_COLOR


def _to_float_color(color: Color) -> NDArray[np.float32]:
    return np.array(color, np.float32)
