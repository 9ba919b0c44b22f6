"""Annotated videos: predictions drawn into one MP4 per clip, by worker processes that are replaced if they hang."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import av
import av.error
import av.logging
import cv2
import numpy as np

from features.errors import ClipError, RuntimeEnvironmentError
from features.types import Span
from features.utils.file_identity import read_size_and_mtime
from features.utils.files import (
    check_writable,
    is_disk_full,
    make_scratch_folder,
    make_write_error,
    move_into_place,
    remove_stale_temporaries,
)
from features.utils.progress import make_progress_bar
from features.utils.text import make_printable
from features.utils.worker_pool import LostTask, count_cores, run_tasks
from features.video.timeline import FULL_SPAN
from hazard.events.decision import Decision, alarm_columns, common_threshold, label_without_event, window_cores
from hazard.rendering.mp4_writer import Mp4Writer, choose_audio_mode
from hazard.rendering.overlay import OverlayState, ScoreTimeline, draw_overlay
from hazard.rendering.playback import AudioPacket, EndOfPlayback, MediaItem, PlayedFrame, fit_size, open_playback
from hazard.rendering.text import format_percent, format_timecode
from hazard.types import ClipPrediction
from hazard.utils.prefetch import prefetch
from hazard.utils.safe_names import annotated_video_path

FRAME_DEADLINE_SECONDS = 60.0
"""Seconds that a worker may spend without a new frame before it is killed."""

DRAWING_VERSION = 1
"""Increased whenever the drawing changes, so that existing annotated videos are made anew."""

_MEDIA_FRAGMENT = re.compile(r"#t=(\d*\.?\d+)?(?:,(\d*\.?\d+))?$")


def parse_clip_span(clip: ClipPrediction) -> Span:
    """Return the seconds of its file that a clip covers: `a.mp4#t=12,15.5` is 12 to 15.5 s.

    A file whose own name ends like this is covered in full.
    """
    found = _MEDIA_FRAGMENT.search(clip.path)
    if found is None or clip.file.endswith(found[0]):
        return FULL_SPAN
    return float(found[1] or 0), float(found[2]) if found[2] else FULL_SPAN[1]


def make_overlay_function(clip: ClipPrediction, decision: Decision) -> Callable[[float], OverlayState]:
    """Return a function from seconds of the clip to the overlay at that time.

    The probability shown is that of the window whose core holds the second.
    """
    if clip.windows is None or not len(clip.windows):
        return lambda seconds: OverlayState(seconds, format_timecode(seconds), clip.label, _format_note(clip))
    spans, probs = window_cores(clip.windows.spans, clip.duration), clip.windows.probs  # (B, 2), (B, K)
    columns, threshold = alarm_columns(decision), common_threshold(decision)
    chosen = np.array(columns or range(len(decision.labels)))[probs[:, columns or slice(None)].argmax(axis=1)]  # (B,)
    values = probs[np.arange(len(probs)), chosen]
    timeline = ScoreTimeline(0.0, float(spans[-1, 1]), spans, values, clip.events, threshold)

    def state_at(seconds: float) -> OverlayState:
        at = seconds + 1e-6  # frame times are sums with rounding errors
        window = max(0, int(np.searchsorted(spans[:, 0], at, side="right")) - 1)
        event = next((event for event in clip.events if event.start <= at < event.end), None)
        label = event.label if event else _label_without_event(clip, probs[window], decision)
        event_times = f"event {format_timecode(event.start)}–{format_timecode(event.end)}" if event else ""
        return OverlayState(
            seconds,
            format_timecode(seconds),
            label="unknown" if clip.is_unknown and not event else label,
            note=" · ".join(filter(None, (event_times, _format_note(clip)))),
            probability=float(values[window]),
            probability_label=decision.labels[int(chosen[window])],
            threshold=threshold,
            is_event=event is not None,
            timeline=timeline,
        )

    return state_at


def _label_without_event(clip: ClipPrediction, probs: np.ndarray, decision: Decision) -> str:
    """Return the label to show while no event is active."""
    if clip.windows is not None and len(clip.windows) == 1:
        return clip.label
    return label_without_event(probs, decision)


def _format_note(clip: ClipPrediction) -> str:
    if clip.zero_shot:
        name, probability = clip.zero_shot[0]
        return f"zero-shot: {name} {format_percent(probability)}"
    return "unlike the training clips" if clip.is_unknown else ""


def annotate_video(
    source: Path,
    target: Path,
    prediction: ClipPrediction,
    *,
    decision: Decision,
    span: Span = FULL_SPAN,
    folder_fps: float = 25.0,
    threads: int = 1,
    fingerprint: str = "",
    report_alive: Callable[[], None] = lambda: None,
    report_progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Write an MP4 of a video, or of its part `span`, with label, probability, events and timeline drawn in.

    Audio that MP4 can hold is copied. Other audio is encoded as AAC, or left out if it cannot be decoded. Frames that
    cannot be decoded are left out too. `target` is written completely or not at all. `report_alive` is called for every
    item read, and `report_progress` for every frame with its second. Raises ClipError if there is nothing to show,
    and RuntimeEnvironmentError if the file cannot be written.
    """
    state_at = make_overlay_function(prediction, decision)
    with make_scratch_folder(target) as scratch:
        with (
            open_playback(source, fit_size, span=span, folder_fps=folder_fps) as (audio_stream, items),
            prefetch(items) as prefetched,
        ):
            tags = {"title": make_printable(prediction.path), "comment": fingerprint}
            writer = Mp4Writer(
                scratch / "video.mp4",
                audio_stream=audio_stream,
                audio_mode=choose_audio_mode(audio_stream),
                threads=threads,
                tags=tags,
            )
            try:
                for item in prefetched:
                    report_alive()
                    _write_item(writer, item, state_at, report_progress)
            except OSError as error:
                raise (make_write_error(error, target) if is_disk_full(error) else error) from error
            finally:
                writer.abandon()
        move_into_place(scratch / "video.mp4", target)


def _write_item(
    writer: Mp4Writer,
    item: MediaItem,
    state_at: Callable[[float], OverlayState],
    report_progress: Callable[[float], None],
) -> None:
    match item:
        case PlayedFrame(seconds, image):
            draw_overlay(image, state_at(seconds))
            writer.write_frame(seconds, image)
            report_progress(seconds)
        case AudioPacket(seconds, packet):
            writer.write_audio_packet(seconds, packet)
        case EndOfPlayback(seconds):
            writer.finish(seconds)


def annotate_all(
    clips: Iterable[ClipPrediction],
    folder: Path,
    *,
    decision: Decision,
    folder_fps: float = 25.0,
    workers: int | None = None,
    deadline_seconds: float = FRAME_DEADLINE_SECONDS,
    total: int | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[str, Path | str]]:
    """Yield each clip's path with its annotated video, or with the reason why there is none.

    Videos are named by `annotated_video_path` below `folder`. Failed clips are skipped. An existing video that shows
    the same is kept. With a `total` a progress bar is shown. Raises RuntimeEnvironmentError if the folder cannot be
    written.
    """
    check_writable(folder / "video.mp4")
    remove_stale_temporaries(folder.parent)
    worker_count = workers or count_cores()
    job = AnnotateJob(decision, folder_fps, threads=max(1, count_cores() // worker_count))
    bar = nullcontext() if total is None else make_progress_bar(total, description="annotate", unit="video")
    with make_scratch_folder(folder) as scratch, bar as progress_bar:
        tasks = (_make_task(clip, folder, scratch) for clip in clips if clip.status != "failed")
        for task, outcome in run_tasks(
            job, tasks, workers=worker_count, deadline_seconds=deadline_seconds, is_stopped=is_stopped
        ):
            if isinstance(outcome, RuntimeEnvironmentError):
                raise outcome
            if progress_bar is not None:
                progress_bar.update()
            reason = f"{outcome.stage}: {outcome.reason}" if isinstance(outcome, LostTask) else str(outcome)
            yield task.clip.path, reason or task.target


@dataclass(frozen=True)
class _AnnotateTask:
    clip: ClipPrediction
    target: Path
    scratch: Path
    """A folder on the same disk for unfinished files; its owner deletes it."""


def _make_task(clip: ClipPrediction, folder: Path, scratch: Path) -> _AnnotateTask:
    name = annotated_video_path(clip.path)
    return _AnnotateTask(replace(clip, thumbnails=(), thumbnail_times=()), folder / name, scratch)


@dataclass(frozen=True)
class AnnotateJob:
    """The task of a worker process for one clip; its result is empty, or the reason why there is no video."""

    decision: Decision
    folder_fps: float = 25.0
    threads: int = 1

    def start(self) -> Callable[[_AnnotateTask, Callable[[], None]], str | RuntimeEnvironmentError]:
        """Set up quiet, single-threaded libraries (there is one process per core); return the function to call."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return self._annotate

    def _annotate(self, task: _AnnotateTask, report_alive: Callable[[], None]) -> str | RuntimeEnvironmentError:
        try:
            return self._write(task, report_alive)
        except RuntimeEnvironmentError as error:
            return error
        except ClipError as error:
            return f"{error.stage}: {error.reason}"
        except MemoryError:
            return "annotate: out of memory"
        except Exception as error:
            return f"annotate: {type(error).__name__}: {error}".splitlines()[0]

    def _write(self, task: _AnnotateTask, report_alive: Callable[[], None]) -> str:
        if not task.clip.file:
            raise ClipError("open", "the video is not on this machine")
        source, span = Path(task.clip.file), parse_clip_span(task.clip)
        fingerprint = _compute_fingerprint(task.clip, self.decision, source)
        if _read_fingerprint(task.target) == fingerprint:
            return ""
        unfinished = task.scratch / f"{os.getpid()}.mp4"
        annotate_video(
            source,
            unfinished,
            task.clip,
            decision=self.decision,
            span=span,
            folder_fps=self.folder_fps,
            threads=self.threads,
            fingerprint=fingerprint,
            report_alive=report_alive,
        )
        check_writable(task.target)
        move_into_place(unfinished, task.target)
        return ""


def _compute_fingerprint(clip: ClipPrediction, decision: Decision, source: Path) -> str:
    """Return a digest of everything that the annotated video depends on. Raises ClipError if `source` is missing."""
    try:
        size_and_mtime = read_size_and_mtime(source)
    except OSError as error:
        raise ClipError("open", (error.strerror or str(error)).lower()) from None
    windows = clip.windows
    numbers = b"" if windows is None else windows.spans.tobytes() + windows.probs.tobytes()
    facts = (
        DRAWING_VERSION,
        size_and_mtime,
        decision,
        clip.path,
        clip.label,
        clip.events,
        clip.is_unknown,
        clip.zero_shot,
    )
    return hashlib.sha256(numbers + repr(facts).encode("utf-8", "surrogatepass")).hexdigest()


def _read_fingerprint(file: Path) -> str:
    """Return the fingerprint stored in an annotated video; empty if there is no such video."""
    if not file.is_file():
        return ""
    with suppress(av.error.FFmpegError), av.open(str(file), metadata_errors="replace") as container:
        return container.metadata.get("comment", "")
    return ""
