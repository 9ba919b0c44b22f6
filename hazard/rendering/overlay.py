"""The overlay of a frame: label, probability, events and a timeline with a moving cursor.

`draw_overlay` changes an image in place and does not touch files, so annotated videos, live views and windows look the
same. All sizes depend on the size of the image. Parts that do not change from frame to frame are drawn once and cached;
a frame costs three blends.
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
    """The curve at the bottom edge, for the seconds from `start` to `end`. Compared by identity, as a key of caches."""

    start: float
    end: float
    spans: NDArray[np.float64]  # (B, 2) seconds, ascending: the time that each value covers
    values: NDArray[np.float64]  # (B,) in 0 … 1
    events: tuple[Event, ...] = ()
    threshold: float | None = None


@dataclass(frozen=True)
class OverlayState:
    """The content of the overlay at one time. Empty text and None leave their place free."""

    seconds: float
    """Position of the cursor on the timeline."""
    clock: str = ""
    label: str = ""
    note: str = ""
    """A few words beside the label, in a muted color."""
    probability: float | None = None
    probability_label: str = ""
    """The label that the probability belongs to; it is shown if it differs from `label`."""
    threshold: float | None = None
    is_event: bool = False
    """Whether an event is active; the strip at the top then becomes a banner."""
    timeline: ScoreTimeline | None = None


def draw_overlay(image: NDArray[np.uint8], state: OverlayState) -> None:
    """Draw on an image (H, W, 3), RGB, in place. Parts that do not fit into a tiny image are cut off."""
    height, width = image.shape[:2]
    font_size = font_size_pixels(width, height)
    blend(image, _render_header(width, font_size, _make_header_content(state)), 0, 0)
    if not state.clock and state.timeline is None:
        return
    footer_height = round(2.3 * font_size)
    top, left = height - footer_height, _measure_clock_width(state.clock, font_size)
    blend(image, _render_footer(width, footer_height, left, font_size, state.timeline), top, 0)
    if state.clock:
        blend(
            image,
            render_cached_text(make_printable(state.clock), font_size),
            top + (footer_height - round(1.6 * font_size)) // 2,
            round(0.55 * font_size),
        )
    if state.timeline is not None:
        _draw_cursor(image, state.timeline, state.seconds, top, left, font_size)


# ---- the strip at the top -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _HeaderContent:
    label: str
    note: str
    probability_text: str
    probability_label: str
    meter_share: float  # filled part, 0 … 1; below 0 there is no meter
    threshold: float
    is_event: bool


def _make_header_content(state: OverlayState) -> _HeaderContent:
    has_probability = state.probability is not None
    return _HeaderContent(
        label=make_printable(state.label),
        note=make_printable(state.note),
        probability_text=format_percent(float(state.probability or 0)) if has_probability else "",
        probability_label=make_printable(state.probability_label)
        if has_probability and state.probability_label != state.label
        else "",
        meter_share=float(state.probability or 0) if has_probability else -1.0,
        threshold=-1.0 if state.threshold is None else float(state.threshold),
        is_event=state.is_event,
    )


@lru_cache(maxsize=16)
def _render_header(width: int, font_size: int, content: _HeaderContent) -> OverlayPatch:
    """Draw the strip at the top: the label to the left; name, meter and number of the probability to the right."""
    height, gap = round(1.9 * font_size), round(0.55 * font_size)
    background, alpha = (BANNER_COLOR, EVENT_ALPHA) if content.is_event else (PANEL_COLOR, PANEL_ALPHA)
    image = Image.new("RGBA", (width, height), (*background, round(255 * alpha)))
    draw = ImageDraw.Draw(image)
    baseline, bold, regular = text_baseline(height, font_size), load_font(font_size, True), load_font(font_size, False)
    right = width - gap
    if content.probability_text:
        right -= measure_text_width("100 %", font_size)
        draw.text((width - gap, baseline), content.probability_text, fill=TEXT_COLOR, font=regular, anchor="rs")
    label_width = round(bold.getlength(content.label)) + 2 * gap
    with_note = label_width + round(regular.getlength(content.note)) + gap
    # A meter is more useful than half a note, so a note that does not fit reserves no room.
    reserved = with_note if content.note and with_note < right else min(label_width, width // 2)
    meter_width = min(6 * font_size, right - reserved - gap)
    if content.meter_share >= 0 and meter_width >= 2 * font_size:
        right -= gap + meter_width
        _draw_meter(draw, content, (right, height), (meter_width, font_size))
    name_width = measure_text_width(content.probability_label, font_size)
    if content.probability_label and right - name_width - gap > reserved:
        right -= gap + name_width
        draw.text(
            (right, baseline),
            content.probability_label,
            fill=TEXT_COLOR if content.is_event else MUTED_TEXT_COLOR,
            font=regular,
            anchor="ls",
        )
    room = right - 2 * gap
    label = elide_text(content.label, bold, room)
    draw.text((gap, baseline), label, fill=TEXT_COLOR, font=bold, anchor="ls")
    used = round(bold.getlength(label)) + gap if label else 0
    if content.note and room - used > 3 * font_size:
        note = elide_text(content.note, regular, room - used)
        draw.text(
            (gap + used, baseline),
            note,
            fill=TEXT_COLOR if content.is_event else MUTED_TEXT_COLOR,
            font=regular,
            anchor="ls",
        )
    return patch_from_image(image)


def _draw_meter(
    draw: ImageDraw.ImageDraw, content: _HeaderContent, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    left, (length, font_size) = corner[0], size
    thickness = max(3, round(0.5 * font_size))
    top, line = (corner[1] - thickness) // 2, max(1, round(font_size / 12))
    draw.rectangle(
        (left, top, left + length - 1, top + thickness - 1), fill=(120, 40, 0) if content.is_event else METER_COLOR
    )
    filled = round(content.meter_share * length)
    is_over = content.is_event or (content.threshold >= 0 and content.meter_share >= content.threshold)
    if filled:
        color = TEXT_COLOR if content.is_event else (ALARM_COLOR if is_over else CALM_COLOR)
        draw.rectangle((left, top, left + filled - 1, top + thickness - 1), fill=color)
    if 0 <= content.threshold <= 1:
        x = left + min(length - line, round(content.threshold * length))
        edge = max(2, round(0.2 * font_size))
        draw.rectangle((x - line, top - edge, x + 2 * line - 1, top + thickness + edge - 1), fill=(*PANEL_COLOR, 170))
        draw.rectangle((x, top - edge, x + line - 1, top + thickness + edge - 1), fill=TEXT_COLOR)


# ---- the timeline at the bottom -------------------------------------------------------------------------------------


def _measure_clock_width(clock: str, font_size: int) -> int:
    return (
        measure_text_width("0" * len(clock), font_size) + round(1.1 * font_size) if clock else round(0.55 * font_size)
    )


def _find_timeline_columns(width: int, left: int, font_size: int) -> tuple[int, int]:
    """Return the first column of the timeline and the number of columns."""
    return left, max(1, width - left - round(0.55 * font_size))


@lru_cache(maxsize=8)
def _render_footer(width: int, height: int, left: int, font_size: int, timeline: ScoreTimeline | None) -> OverlayPatch:
    color = np.full((height, width, 3), _to_float_color(PANEL_COLOR))
    alpha = np.full((height, width, 1), PANEL_ALPHA, np.float32)
    if timeline is not None:
        first, columns = _find_timeline_columns(width, left, font_size)
        top, bottom = round(0.35 * font_size), height - round(0.35 * font_size)
        area = slice(top, bottom), slice(first, first + columns)
        _draw_timeline(color[area], alpha[area], timeline, max(1, round(font_size / 12)))
    return make_patch(color * alpha, alpha)


def _draw_timeline(color: NDArray[np.float32], alpha: NDArray[np.float32], timeline: ScoreTimeline, line: int) -> None:
    """Draw bands for events, the curve as a stepped area, and a dashed line at the threshold."""
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
    """Return the highest value (C,) between each two of the edges (C + 1,): a short peak shows on a long timeline."""
    if not len(timeline.values):
        return np.zeros(len(edges) - 1)
    first = np.searchsorted(timeline.spans[:, 0], edges[:-1], side="right") - 1
    last = np.searchsorted(timeline.spans[:, 0], edges[1:], side="left")
    return np.array([timeline.values[max(0, a) : max(a + 1, b, 1)].max() for a, b in zip(first, last, strict=True)])


def _draw_cursor(
    image: NDArray[np.uint8], timeline: ScoreTimeline, seconds: float, top: int, left: int, font_size: int
) -> None:
    first, columns = _find_timeline_columns(image.shape[1], left, font_size)
    line = max(1, round(font_size / 9))
    share = (seconds - timeline.start) / max(timeline.end - timeline.start, 1e-9)
    x = first + round(min(max(share, 0.0), 1.0) * (columns - line))
    image[max(0, top) :, max(0, x - line) : x + 2 * line] //= 3
    image[max(0, top) :, x : x + line] = TEXT_COLOR


def _to_float_color(color: Color) -> NDArray[np.float32]:
    return np.array(color, np.float32)
