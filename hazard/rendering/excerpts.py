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

from features.errors import ClipError, EnvironmentStopped
from features.utils.files import is_full, stopped
from hazard.rendering.mp4_writer import Mp4
from hazard.rendering.playback import End, Piece, Shot, played
from hazard.rendering.text import (
    BANNER,
    INK,
    PANEL,
    SOFT,
    Patch,
    baseline,
    blend,
    clock_text,
    elided,
    font_of,
    from_picture,
    line_of,
    percent_text,
    text_pixels,
    text_width,
)
from hazard.types import Event
from hazard.utils.prefetch import ahead

FPS = 25
"""Of films that are joined: sources of many rates end up in one."""

LARGEST = (1280, 720)
"""Of the picture above the caption."""


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a clip, and the events in it. Times are seconds of the clip, which begins at `begin` of its file."""

    path: str
    file: str
    begin: float
    start: float
    end: float
    events: tuple[Event, ...]
    is_unknown: bool = False


@dataclass(frozen=True)
class ExcerptTask:
    """One of several excerpts. Without an area it is only asked how large its picture is."""

    excerpt: Excerpt
    number: int
    of: int
    file: Path
    area: tuple[int, int] | None = None
    """Width and height of the picture above the caption, even."""


@dataclass(frozen=True)
class ExcerptJob:
    """What a worker does: gives the size (width, height), None once the film is written, or why there is none."""

    folder_fps: float = 25.0
    threads: int = 1

    def start(self) -> Callable[[ExcerptTask, Callable[[], None]], tuple[int, int] | str | EnvironmentStopped | None]:
        """Quiet libraries of one thread: parallelism is one process a core."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return self._make

    def _make(self, task: ExcerptTask, alive: Callable[[], None]) -> tuple[int, int] | str | EnvironmentStopped | None:
        try:
            if task.area is None:
                return self._size(task)
            self._film(task, task.area, alive)
            return None
        except ClipError as error:
            return f"{error.stage}: {error.reason}"
        except MemoryError:
            return "highlights: out of memory"
        except Exception as error:
            if isinstance(error, OSError) and is_full(error):
                return stopped(error, task.file)
            return f"highlights: {type(error).__name__}: {error}".splitlines()[0]

    def _size(self, task: ExcerptTask) -> tuple[int, int]:
        """Of its picture, upright, in square pixels, as far as it is of use."""
        with played(_source(task), _within_largest, span=_span(task), folder_fps=self.folder_fps) as (_, pieces):
            first = next(piece for piece in pieces if isinstance(piece, Shot))
        return first.image.shape[1], first.image.shape[0]

    def _film(self, task: ExcerptTask, area: tuple[int, int], alive: Callable[[], None]) -> None:
        def fit(width: float, height: float) -> tuple[int, int]:
            scale = min(area[0] / width, area[1] / height)
            return max(1, round(width * scale)), max(1, round(height * scale))

        film = Mp4(task.file, threads=self.threads, rate=FPS, options={"bf": "0"})  # so that films can be joined
        try:
            with (
                played(_source(task), fit, span=_span(task), folder_fps=self.folder_fps) as (_, pieces),
                ahead(pieces) as coming,
            ):
                seconds = 0.0
                for seconds, image in _steady(coming):
                    alive()
                    film.show(seconds, _composed(image, task, area, task.excerpt.start + seconds))
                film.finish(seconds + 1 / FPS)
        finally:
            film.abandon()


def _steady(pieces: Iterator[Piece]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """What is on the screen at each tick of FPS."""
    tick = 0
    image: NDArray[np.uint8] | None = None
    for piece in pieces:
        if not isinstance(piece, (Shot, End)):
            continue
        while image is not None and (tick / FPS < piece.seconds - 1e-6 or (tick == 0 and isinstance(piece, End))):
            yield tick / FPS, image
            tick += 1
        image = piece.image if isinstance(piece, Shot) else image


def _source(task: ExcerptTask) -> Path:
    if not task.excerpt.file:
        raise ClipError("open", "its video is not on this machine")
    return Path(task.excerpt.file)


def _span(task: ExcerptTask) -> tuple[float, float]:
    return task.excerpt.begin + task.excerpt.start, task.excerpt.begin + task.excerpt.end


def _within_largest(width: float, height: float) -> tuple[int, int]:
    scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


# ---- the picture ----------------------------------------------------------------------------------------------------


def _composed(image: NDArray[np.uint8], task: ExcerptTask, area: tuple[int, int], seconds: float) -> NDArray[np.uint8]:
    """(H, W, 3): the picture in the middle of its area, and the caption of this second of the clip below."""
    text = text_pixels(*area)
    bar = 2 * round(1.9 * text)
    canvas = np.zeros((area[1] + bar, area[0], 3), np.uint8)
    top, left = (area[1] - image.shape[0]) // 2, (area[0] - image.shape[1]) // 2
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    event, is_on = _event_at(task.excerpt.events, seconds)
    clock = clock_text(task.excerpt.begin + seconds)
    title = f"{event.label} · peak {percent_text(event.peak)}" + (" · unknown" if task.excerpt.is_unknown else "")
    place = f"{task.number + 1} / {task.of}" if task.of > 1 else ""
    caption = _caption(
        area[0], bar, text, title, _when(event, task.excerpt), place, task.excerpt.path, is_on, len(clock)
    )
    blend(canvas, caption, area[1], 0)
    words = line_of(clock, text)
    gap = round(0.55 * text)
    line = bar // 2
    blend(canvas, words, area[1] + line + (line - len(words.paint)) // 2, area[0] - gap - words.paint.shape[1])
    return canvas


def _event_at(events: tuple[Event, ...], seconds: float) -> tuple[Event, bool]:
    """The event that is on, else the next one, else the last; and whether it is on."""
    on = [event for event in events if event.start <= seconds < event.end]
    later = [event for event in events if event.start > seconds]
    return (on or later or list(events[-1:]))[0], bool(on)


def _when(event: Event, excerpt: Excerpt) -> str:
    """Where in its file the event lies, and whether only its beginning is shown."""
    start, end = excerpt.begin + event.start, excerpt.begin + event.end
    cut = " (its beginning)" if event.end > excerpt.end else ""
    return f"{clock_text(start)}–{clock_text(end)}{cut}"


@lru_cache(maxsize=8)
def _caption(
    width: int, height: int, text: int, title: str, when: str, place: str, path: str, is_on: bool, clock: int
) -> Patch:
    """Two lines: what, when, which of how many; the file, and room for the clock."""
    picture = Image.new("RGBA", (width, height), (*(BANNER if is_on else PANEL), 255))
    pen = ImageDraw.Draw(picture)
    bold, plain, gap = font_of(text, True), font_of(text, False), round(0.55 * text)
    first = baseline(height // 2, text)
    second = height // 2 + first
    soft = INK if is_on else SOFT
    pen.text((width - gap, first), place, fill=soft, font=plain, anchor="rs")
    room = width - 3 * gap - text_width(place, text)
    kept = elided(title, bold, room)
    pen.text((gap, first), kept, fill=INK, font=bold, anchor="ls")
    used = text_width(kept, text, bold=True) + gap
    if room - used > text_width(when, text):
        pen.text((gap + used, first), when, fill=soft, font=plain, anchor="ls")
    room = width - 3 * gap - text_width("0" * clock, text)
    pen.text((gap, second), _name(path, text, room), fill=soft, font=plain, anchor="ls")
    return from_picture(picture)


def _name(path: str, text: int, room: int) -> str:
    """As much of the end of a path as fits."""
    parts = path.split("/")
    shorter = [path, *("…/" + "/".join(parts[i:]) for i in range(1, len(parts)))]
    return next(
        (name for name in shorter if text_width(name, text) <= room), elided(parts[-1], font_of(text, False), room)
    )
