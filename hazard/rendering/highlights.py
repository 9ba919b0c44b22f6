"""The highlights: one video of all events, each with a second or two before and after, above a caption.

Worker processes write each excerpt to its own file, and are replaced if they hang or crash. The files are then joined
without encoding them again. There is no audio: it would be cut off every few seconds.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path

import av

from features.errors import RuntimeEnvironmentError
from features.utils.files import (
    check_writable,
    is_disk_full,
    make_scratch_folder,
    make_write_error,
    move_into_place,
    remove_stale_temporaries,
)
from features.utils.text import format_count, format_duration, make_printable
from features.utils.worker_pool import LostTask, count_cores, run_tasks
from features.video.timeline import FULL_SPAN
from hazard.rendering.annotate import FRAME_DEADLINE_SECONDS, parse_clip_span
from hazard.rendering.excerpts import MAX_FRAME_SIZE, Excerpt, ExcerptJob, ExcerptTask
from hazard.types import ClipPrediction, Event

MIN_FRAME_SIZE = (480, 270)
"""Smallest width and height of the frame above the caption, so that the caption fits."""


@dataclass(frozen=True)
class HighlightReel:
    """The result of writing the highlights."""

    file: Path | None
    """None if there are no events, or if none of them could be shown."""
    events: int
    omitted_events: int
    """Events left out because of the limits; they are the least probable ones."""
    seconds: float
    failures: tuple[tuple[str, str], ...] = ()
    """Paths and reasons of the excerpts that could not be made."""

    @property
    def summary_text(self) -> str:
        """The result in one line."""
        if self.file is None and not self.failures:
            return "no highlights: there are no events"
        if self.file is None:
            return f"no highlights: none of {format_count(self.events, 'event')} could be shown ({self.failures[0][1]})"
        parts = [f"highlights: {format_count(self.events, 'event')} in {format_duration(self.seconds)}"]
        if self.omitted_events:
            total = self.events + self.omitted_events
            parts.append(f"the {self.omitted_events} least probable of {format_count(total, 'event')} left out")
        if self.failures:
            parts.append(f"{format_count(len(self.failures), 'excerpt')} failed ({self.failures[0][1]})")
        return "; ".join(parts)


def write_highlights(
    clips: Iterable[ClipPrediction],
    target: Path,
    *,
    around_seconds: float = 1.5,
    longest_seconds: float = 20.0,
    max_events: int = 50,
    max_seconds: float = 600.0,
    folder_fps: float = 25.0,
    workers: int | None = None,
    deadline_seconds: float = FRAME_DEADLINE_SECONDS,
) -> HighlightReel:
    """Write an MP4 of the events of all clips, in order of path and time, completely or not at all.

    Only the beginning of an event longer than `longest_seconds` is shown. If there are more than `max_events`, or more
    than about `max_seconds` of video, the most probable events are taken. `clips` are streamed. If there is nothing to
    show, no file is written and an older one is deleted. Raises RuntimeEnvironmentError if the target cannot be
    written.
    """
    check_writable(target)
    remove_stale_temporaries(target.parent)
    candidates, total = _select_most_probable(clips, max_events)
    kept = _limit_duration(candidates, max_seconds, around_seconds, longest_seconds)
    excerpts = list(_make_excerpts(kept, around_seconds, longest_seconds))
    with make_scratch_folder(target) as scratch:
        tasks = [ExcerptTask(e, i, len(excerpts), scratch / f"{i}.mp4") for i, e in enumerate(excerpts)]
        written, failures = _write_excerpts(tasks, folder_fps, workers or count_cores(), deadline_seconds)
        if not written:
            target.unlink(missing_ok=True)
            return HighlightReel(None, len(kept), total - len(kept), 0.0, failures)
        try:
            seconds = _join_videos([task.file for task in written], scratch / "reel.mp4")
        except OSError as error:
            raise (make_write_error(error, target) if is_disk_full(error) else error) from error
        move_into_place(scratch / "reel.mp4", target)
    shown = sum(len(task.excerpt.events) for task in written)
    return HighlightReel(target, shown, total - len(kept), seconds, failures)


EventInClip = tuple[Event, ClipPrediction]


def _select_most_probable(clips: Iterable[ClipPrediction], max_events: int) -> tuple[list[EventInClip], int]:
    """Return the `max_events` events with the highest peaks, highest first, and the total number of events.

    Of equal peaks the earlier event is kept.
    """
    best: list[tuple[float, int, EventInClip]] = []
    total = 0
    numbers = count()
    for clip in clips:
        light = replace(clip, thumbnails=(), thumbnail_times=(), windows=None, attention=(), attention_times=())
        for event in clip.events if clip.status != "failed" else ():
            total += 1
            heapq.heappush(best, (event.peak, -next(numbers), (event, light)))
            if len(best) > max_events:
                heapq.heappop(best)
    return [entry for _, _, entry in sorted(best, key=lambda item: item[:2], reverse=True)], total


def _limit_duration(
    ranked: Sequence[EventInClip], max_seconds: float, around: float, longest: float
) -> list[EventInClip]:
    """Return as many of the first events as fit, at least one, in order of path and time."""
    kept: list[EventInClip] = []
    seconds = 0.0
    for event, clip in ranked:
        seconds += min(event.end - event.start, longest) + 2 * around
        if kept and seconds > max_seconds:
            break
        kept.append((event, clip))
    return sorted(kept, key=lambda pair: (pair[1].path, pair[0].start, pair[0].end, pair[0].label))


def _make_excerpts(kept: Sequence[EventInClip], around: float, longest: float) -> Iterator[Excerpt]:
    """Yield one excerpt per event; events of a clip that are close together share one."""
    for _, group in groupby(kept, key=lambda pair: pair[1].path):
        current: Excerpt | None = None
        for event, clip in group:
            begin, end = parse_clip_span(clip)
            start = max(0.0, event.start - around)
            until = min(event.start + min(event.end - event.start, longest) + around, end - begin)
            if current is not None and start <= current.end:
                current = replace(current, end=max(current.end, until), events=(*current.events, event))
                continue
            if current is not None:
                yield current
            path = clip.path.rpartition("#t=")[0] if (begin, end) != FULL_SPAN else clip.path
            current = Excerpt(
                path=make_printable(path),
                file=clip.file,
                clip_start=begin,
                start=start,
                end=until,
                events=(event,),
                is_unknown=clip.is_unknown,
            )
        if current is not None:
            yield current


def _write_excerpts(
    tasks: Sequence[ExcerptTask], folder_fps: float, workers: int, deadline_seconds: float
) -> tuple[list[ExcerptTask], tuple[tuple[str, str], ...]]:
    """Measure, then write the excerpts; return the written ones in order, and paths and reasons of the others."""
    job = ExcerptJob(folder_fps, threads=max(1, count_cores() // max(1, min(workers, len(tasks)))))
    failures: list[tuple[str, str]] = []

    def run_each(given: Sequence[ExcerptTask]) -> Iterator[tuple[ExcerptTask, object]]:
        if not given:
            return
        worker_count = min(workers, len(given))
        for task, outcome in run_tasks(job, given, workers=worker_count, deadline_seconds=deadline_seconds):
            if isinstance(outcome, RuntimeEnvironmentError):
                raise outcome
            if isinstance(outcome, LostTask):
                outcome = f"{outcome.stage}: {outcome.reason}"
            if isinstance(outcome, str):
                failures.append((task.excerpt.path, outcome))
            else:
                yield task, outcome

    sizes = {task.index: size for task, size in run_each(tasks)}
    area = _find_common_frame_size([size for size in sizes.values() if isinstance(size, tuple)])
    sized = [replace(task, frame_area=area) for task in tasks if task.index in sizes]
    written = [task for task, _ in run_each(sized)]
    return sorted(written, key=lambda task: task.index), tuple(failures)


def _find_common_frame_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the even width and height that hold all frames, each at most MAX_FRAME_SIZE."""
    fitted = [
        (w * scale, h * scale) for w, h in sizes for scale in [min(1, MAX_FRAME_SIZE[0] / w, MAX_FRAME_SIZE[1] / h)]
    ]
    widths, heights = zip(MIN_FRAME_SIZE, *fitted, strict=True)
    return 2 * round(max(widths) / 2), 2 * round(max(heights) / 2)


def _join_videos(files: Sequence[Path], target: Path) -> float:
    """Join videos of one size, rate and encoder into one, packet by packet; return its length in seconds."""
    end = 0  # in ticks
    with av.open(str(target.absolute()), "w", format="mp4", options={"movflags": "+faststart"}) as joined:
        joined.metadata["title"] = "Highlights"
        out = None
        for file in files:
            with av.open(str(file.absolute())) as part:
                stream = part.streams.video[0]
                out = out or joined.add_stream_from_template(stream)
                begin = end
                for packet in part.demux(stream):
                    if packet.size and packet.pts is not None and packet.dts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + begin, packet.dts + begin, out
                        end = max(end, packet.pts + (packet.duration or 0))
                        seconds = float(end * packet.time_base)
                        joined.mux(packet)
    return seconds
