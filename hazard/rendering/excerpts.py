"""Excerpts of a video as separate MP4 files: letterboxed, at a constant frame rate, with a caption below."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av.error
import av.logging
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from features.errors import ClipError, RuntimeEnvironmentError
from features.utils.files import is_disk_full, make_write_error
from hazard.rendering.mp4_writer import Mp4Writer
from hazard.rendering.playback import EndOfPlayback, MediaItem, PlayedFrame, open_playback
from hazard.rendering.text import (
    BANNER_COLOR,
    MUTED_TEXT_COLOR,
    PANEL_COLOR,
    TEXT_COLOR,
    OverlayPatch,
    blend,
    elide_text,
    font_size_pixels,
    format_percent,
    format_timecode,
    load_font,
    measure_text_width,
    patch_from_image,
    render_cached_text,
    text_baseline,
)
from hazard.types import Event
from hazard.utils.prefetch import prefetch

FPS = 25
"""Frames per second of all excerpts, so that excerpts of different sources can be joined."""

MAX_FRAME_SIZE = (1280, 720)
"""Largest width and height of the frame above the caption."""


@dataclass(frozen=True)
class Excerpt:
    """A part of a clip with its events. Times are seconds of the clip; `clip_start` is a second of the file."""

    path: str
    file: str
    clip_start: float
    start: float
    end: float
    events: tuple[Event, ...]
    is_unknown: bool = False


@dataclass(frozen=True)
class ExcerptTask:
    """One of several excerpts. Without a frame area the worker only measures the frame size."""

    excerpt: Excerpt
    index: int
    total: int
    file: Path
    frame_area: tuple[int, int] | None = None
    """Width and height of the frame above the caption; both are even."""


@dataclass(frozen=True)
class ExcerptJob:
    """The task of a worker process: measure or write an excerpt.

    The result is the frame size (width, height), None when the file is written, or the reason of a failure.
    """

    folder_fps: float = 25.0
    threads: int = 1

    def start(
        self,
    ) -> Callable[[ExcerptTask, Callable[[], None]], tuple[int, int] | str | RuntimeEnvironmentError | None]:
        """Set up quiet, single-threaded libraries (there is one process per core); return the function to call."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return self._run

    def _run(
        self, task: ExcerptTask, report_alive: Callable[[], None]
    ) -> tuple[int, int] | str | RuntimeEnvironmentError | None:
        try:
            if task.frame_area is None:
                return self._read_frame_size(task)
            self._write_video(task, task.frame_area, report_alive)
            return None
        except ClipError as error:
            return f"{error.stage}: {error.reason}"
        except MemoryError:
            return "highlights: out of memory"
        except Exception as error:
            if isinstance(error, OSError) and is_disk_full(error):
                return make_write_error(error, task.file)
            return f"highlights: {type(error).__name__}: {error}".splitlines()[0]

    def _read_frame_size(self, task: ExcerptTask) -> tuple[int, int]:
        """Return the width and height of the first frame: upright, in square pixels, at most MAX_FRAME_SIZE."""
        with open_playback(
            _find_source_file(task), _fit_max_frame_size, span=_span_in_file(task), folder_fps=self.folder_fps
        ) as (_, items):
            first = next(item for item in items if isinstance(item, PlayedFrame))
        return first.image.shape[1], first.image.shape[0]

    def _write_video(self, task: ExcerptTask, frame_area: tuple[int, int], report_alive: Callable[[], None]) -> None:
        def fit(width: float, height: float) -> tuple[int, int]:
            scale = min(frame_area[0] / width, frame_area[1] / height)
            return max(1, round(width * scale)), max(1, round(height * scale))

        no_b_frames = {"bf": "0"}  # so that the files can be joined
        writer = Mp4Writer(task.file, threads=self.threads, frame_rate=FPS, options=no_b_frames)
        try:
            with (
                open_playback(_find_source_file(task), fit, span=_span_in_file(task), folder_fps=self.folder_fps) as (
                    _,
                    items,
                ),
                prefetch(items) as prefetched,
            ):
                seconds = 0.0
                for seconds, image in _resample_to_constant_rate(prefetched):
                    report_alive()
                    writer.write_frame(seconds, _compose_frame(image, task, frame_area, task.excerpt.start + seconds))
                writer.finish(seconds + 1 / FPS)
        finally:
            writer.abandon()


def _resample_to_constant_rate(items: Iterator[MediaItem]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield the frame on the screen at each tick of FPS, with the tick's second."""
    tick = 0
    image: NDArray[np.uint8] | None = None
    for item in items:
        if not isinstance(item, (PlayedFrame, EndOfPlayback)):
            continue
        while image is not None and (
            tick / FPS < item.seconds - 1e-6 or (tick == 0 and isinstance(item, EndOfPlayback))
        ):
            yield tick / FPS, image
            tick += 1
        image = item.image if isinstance(item, PlayedFrame) else image


def _find_source_file(task: ExcerptTask) -> Path:
    if not task.excerpt.file:
        raise ClipError("open", "the video is not on this machine")
    return Path(task.excerpt.file)


def _span_in_file(task: ExcerptTask) -> tuple[float, float]:
    return task.excerpt.clip_start + task.excerpt.start, task.excerpt.clip_start + task.excerpt.end


def _fit_max_frame_size(width: float, height: float) -> tuple[int, int]:
    scale = min(1.0, MAX_FRAME_SIZE[0] / width, MAX_FRAME_SIZE[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


# ---- the frame with its caption -------------------------------------------------------------------------------------


def _compose_frame(
    image: NDArray[np.uint8], task: ExcerptTask, frame_area: tuple[int, int], seconds: float
) -> NDArray[np.uint8]:
    """Return an image (H, W, 3): the frame centred in its area, with the caption for this second of the clip below."""
    font_size = font_size_pixels(*frame_area)
    caption_height = 2 * round(1.9 * font_size)
    canvas = np.zeros((frame_area[1] + caption_height, frame_area[0], 3), np.uint8)
    top, left = (frame_area[1] - image.shape[0]) // 2, (frame_area[0] - image.shape[1]) // 2
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    event, is_active = _find_event_at(task.excerpt.events, seconds)
    clock = format_timecode(task.excerpt.clip_start + seconds)
    title = f"{event.label} · peak {format_percent(event.peak)}" + (" · unknown" if task.excerpt.is_unknown else "")
    position = f"{task.index + 1} / {task.total}" if task.total > 1 else ""
    caption = _render_caption(
        frame_area[0],
        caption_height,
        font_size,
        title,
        _format_event_times(event, task.excerpt),
        position,
        task.excerpt.path,
        is_active,
        len(clock),
    )
    blend(canvas, caption, frame_area[1], 0)
    clock_text = render_cached_text(clock, font_size)
    gap = round(0.55 * font_size)
    line_height = caption_height // 2
    blend(
        canvas,
        clock_text,
        frame_area[1] + line_height + (line_height - len(clock_text.premultiplied_color)) // 2,
        frame_area[0] - gap - clock_text.premultiplied_color.shape[1],
    )
    return canvas


def _find_event_at(events: tuple[Event, ...], seconds: float) -> tuple[Event, bool]:
    """Return the active event, else the next one, else the last one; and whether it is active."""
    active = [event for event in events if event.start <= seconds < event.end]
    later = [event for event in events if event.start > seconds]
    return (active or later or list(events[-1:]))[0], bool(active)


def _format_event_times(event: Event, excerpt: Excerpt) -> str:
    """Return start and end of the event in its file, and a note if only its beginning is shown."""
    start, end = excerpt.clip_start + event.start, excerpt.clip_start + event.end
    note = " (beginning only)" if event.end > excerpt.end else ""
    return f"{format_timecode(start)}–{format_timecode(end)}{note}"


@lru_cache(maxsize=8)
def _render_caption(
    width: int,
    height: int,
    font_size: int,
    title: str,
    event_times: str,
    position: str,
    path: str,
    is_active: bool,
    clock_characters: int,
) -> OverlayPatch:
    """Draw two lines: label, times and position among the excerpts; then the path, with room left for the clock."""
    image = Image.new("RGBA", (width, height), (*(BANNER_COLOR if is_active else PANEL_COLOR), 255))
    draw = ImageDraw.Draw(image)
    bold, regular, gap = load_font(font_size, True), load_font(font_size, False), round(0.55 * font_size)
    first_baseline = text_baseline(height // 2, font_size)
    second_baseline = height // 2 + first_baseline
    muted = TEXT_COLOR if is_active else MUTED_TEXT_COLOR
    draw.text((width - gap, first_baseline), position, fill=muted, font=regular, anchor="rs")
    room = width - 3 * gap - measure_text_width(position, font_size)
    title = elide_text(title, bold, room)
    draw.text((gap, first_baseline), title, fill=TEXT_COLOR, font=bold, anchor="ls")
    used = measure_text_width(title, font_size, bold=True) + gap
    if room - used > measure_text_width(event_times, font_size):
        draw.text((gap + used, first_baseline), event_times, fill=muted, font=regular, anchor="ls")
    room = width - 3 * gap - measure_text_width("0" * clock_characters, font_size)
    short_path = _shorten_path(path, font_size, room)
    draw.text((gap, second_baseline), short_path, fill=muted, font=regular, anchor="ls")
    return patch_from_image(image)


def _shorten_path(path: str, font_size: int, max_pixels: int) -> str:
    """Return as much of the end of a path as fits."""
    parts = path.split("/")
    shorter = [path, *("…/" + "/".join(parts[i:]) for i in range(1, len(parts)))]
    return next(
        (name for name in shorter if measure_text_width(name, font_size) <= max_pixels),
        elide_text(parts[-1], load_font(font_size, False), max_pixels),
    )
