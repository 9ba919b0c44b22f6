"""An excerpt of a video as a film of its own: letterboxed to a given size, at a constant rate, a caption below."""

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
"""Of films that are joined: sources of many rates end up in one."""

MAX_FRAME_SIZE = (1280, 720)
"""Of the picture above the caption."""


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a clip, and the events in it. Times are seconds of the clip, which begins at `begin` of its file."""

    path: str
    file: str
    clip_start: float
    start: float
    end: float
    events: tuple[Event, ...]
    is_unknown: bool = False


@dataclass(frozen=True)
class ExcerptTask:
    """One of several excerpts. Without an area it is only asked how large its picture is."""

    excerpt: Excerpt
    index: int
    total: int
    file: Path
    frame_area: tuple[int, int] | None = None
    """Width and height of the picture above the caption, even."""


@dataclass(frozen=True)
class ExcerptJob:
    """What a worker does: gives the size (width, height), None once the film is written, or why there is none."""

    folder_fps: float = 25.0
    threads: int = 1

    def start(
        self,
    ) -> Callable[[ExcerptTask, Callable[[], None]], tuple[int, int] | str | RuntimeEnvironmentError | None]:
        """Quiet libraries of one thread: parallelism is one process a core."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return self._run

    def _run(
        self, task: ExcerptTask, alive: Callable[[], None]
    ) -> tuple[int, int] | str | RuntimeEnvironmentError | None:
        try:
            if task.frame_area is None:
                return self._read_frame_size(task)
            self._write_film(task, task.frame_area, alive)
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
        """Of its picture, upright, in square pixels, as far as it is of use."""
        with open_playback(
            _find_source_file(task), _fit_max_frame_size, span=_span_in_file(task), folder_fps=self.folder_fps
        ) as (_, pieces):
            first = next(piece for piece in pieces if isinstance(piece, PlayedFrame))
        return first.image.shape[1], first.image.shape[0]

    def _write_film(self, task: ExcerptTask, frame_area: tuple[int, int], alive: Callable[[], None]) -> None:
        def fit(width: float, height: float) -> tuple[int, int]:
            scale = min(frame_area[0] / width, frame_area[1] / height)
            return max(1, round(width * scale)), max(1, round(height * scale))

        film = Mp4Writer(
            task.file, threads=self.threads, frame_rate=FPS, options={"bf": "0"}
        )  # so that films can be joined
        try:
            with (
                open_playback(_find_source_file(task), fit, span=_span_in_file(task), folder_fps=self.folder_fps) as (
                    _,
                    pieces,
                ),
                prefetch(pieces) as coming,
            ):
                seconds = 0.0
                for seconds, image in _resample_to_constant_rate(coming):
                    alive()
                    film.write_frame(seconds, _compose_frame(image, task, frame_area, task.excerpt.start + seconds))
                film.finish(seconds + 1 / FPS)
        finally:
            film.abandon()


def _resample_to_constant_rate(pieces: Iterator[MediaItem]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """What is on the screen at each tick of FPS."""
    tick = 0
    image: NDArray[np.uint8] | None = None
    for piece in pieces:
        if not isinstance(piece, (PlayedFrame, EndOfPlayback)):
            continue
        while image is not None and (
            tick / FPS < piece.seconds - 1e-6 or (tick == 0 and isinstance(piece, EndOfPlayback))
        ):
            yield tick / FPS, image
            tick += 1
        image = piece.image if isinstance(piece, PlayedFrame) else image


def _find_source_file(task: ExcerptTask) -> Path:
    if not task.excerpt.file:
        raise ClipError("open", "its video is not on this machine")
    return Path(task.excerpt.file)


def _span_in_file(task: ExcerptTask) -> tuple[float, float]:
    return task.excerpt.clip_start + task.excerpt.start, task.excerpt.clip_start + task.excerpt.end


def _fit_max_frame_size(width: float, height: float) -> tuple[int, int]:
    scale = min(1.0, MAX_FRAME_SIZE[0] / width, MAX_FRAME_SIZE[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


# ---- the picture ----------------------------------------------------------------------------------------------------


def _compose_frame(
    image: NDArray[np.uint8], task: ExcerptTask, frame_area: tuple[int, int], seconds: float
) -> NDArray[np.uint8]:
    """(H, W, 3): the picture in the middle of its area, and the caption of this second of the clip below."""
    text = font_size_pixels(*frame_area)
    bar = 2 * round(1.9 * text)
    canvas = np.zeros((frame_area[1] + bar, frame_area[0], 3), np.uint8)
    top, left = (frame_area[1] - image.shape[0]) // 2, (frame_area[0] - image.shape[1]) // 2
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    event, is_on = _find_event_at(task.excerpt.events, seconds)
    clock = format_timecode(task.excerpt.clip_start + seconds)
    title = f"{event.label} · peak {format_percent(event.peak)}" + (" · unknown" if task.excerpt.is_unknown else "")
    place = f"{task.index + 1} / {task.total}" if task.total > 1 else ""
    caption = _render_caption(
        frame_area[0],
        bar,
        text,
        title,
        _format_event_times(event, task.excerpt),
        place,
        task.excerpt.path,
        is_on,
        len(clock),
    )
    blend(canvas, caption, frame_area[1], 0)
    words = render_cached_text(clock, text)
    gap = round(0.55 * text)
    line = bar // 2
    blend(
        canvas,
        words,
        frame_area[1] + line + (line - len(words.premultiplied_color)) // 2,
        frame_area[0] - gap - words.premultiplied_color.shape[1],
    )
    return canvas


def _find_event_at(events: tuple[Event, ...], seconds: float) -> tuple[Event, bool]:
    """The event that is on, else the next one, else the last; and whether it is on."""
    on = [event for event in events if event.start <= seconds < event.end]
    later = [event for event in events if event.start > seconds]
    return (on or later or list(events[-1:]))[0], bool(on)


def _format_event_times(event: Event, excerpt: Excerpt) -> str:
    """Where in its file the event lies, and whether only its beginning is shown."""
    start, end = excerpt.clip_start + event.start, excerpt.clip_start + event.end
    cut = " (its beginning)" if event.end > excerpt.end else ""
    return f"{format_timecode(start)}–{format_timecode(end)}{cut}"


@lru_cache(maxsize=8)
def _render_caption(
    width: int, height: int, text: int, title: str, when: str, place: str, path: str, is_on: bool, clock: int
) -> OverlayPatch:
    """Two lines: what, when, which of how many; the file, and room for the clock."""
    picture = Image.new("RGBA", (width, height), (*(BANNER_COLOR if is_on else PANEL_COLOR), 255))
    pen = ImageDraw.Draw(picture)
    bold, plain, gap = load_font(text, True), load_font(text, False), round(0.55 * text)
    first = text_baseline(height // 2, text)
    second = height // 2 + first
    soft = TEXT_COLOR if is_on else MUTED_TEXT_COLOR
    pen.text((width - gap, first), place, fill=soft, font=plain, anchor="rs")
    room = width - 3 * gap - measure_text_width(place, text)
    kept = elide_text(title, bold, room)
    pen.text((gap, first), kept, fill=TEXT_COLOR, font=bold, anchor="ls")
    used = measure_text_width(kept, text, bold=True) + gap
    if room - used > measure_text_width(when, text):
        pen.text((gap + used, first), when, fill=soft, font=plain, anchor="ls")
    room = width - 3 * gap - measure_text_width("0" * clock, text)
    pen.text((gap, second), _shorten_path(path, text, room), fill=soft, font=plain, anchor="ls")
    return patch_from_image(picture)


def _shorten_path(path: str, text: int, room: int) -> str:
    """As much of the end of a path as fits."""
    parts = path.split("/")
    shorter = [path, *("…/" + "/".join(parts[i:]) for i in range(1, len(parts)))]
    return next(
        (name for name in shorter if measure_text_width(name, text) <= room),
        elide_text(parts[-1], load_font(text, False), room),
    )
