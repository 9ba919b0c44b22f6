"""Videos with what was seen drawn in, one MP4 a clip, made by worker processes that may hang or crash."""

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
"""How long a video may go without a single frame before its worker is killed."""

DRAWING_VERSION = 1
"""Counts up when the drawing changes, so that videos that lie there already are made anew."""

_MEDIA_FRAGMENT = re.compile(r"#t=(\d*\.?\d+)?(?:,(\d*\.?\d+))?$")


def parse_clip_span(clip: ClipPrediction) -> Span:
    """The part of its file that a clip is: `a.mp4#t=12,15.5` begins at 12 s. A file may be called so itself."""
    found = _MEDIA_FRAGMENT.search(clip.path)
    if found is None or clip.file.endswith(found[0]):
        return FULL_SPAN
    return float(found[1] or 0), float(found[2]) if found[2] else FULL_SPAN[1]


def make_overlay_function(clip: ClipPrediction, decision: Decision) -> Callable[[float], OverlayState]:
    """What is to be seen at each second of a clip: the number is that of the window whose core holds the second."""
    if clip.windows is None or not len(clip.windows):
        return lambda seconds: OverlayState(seconds, format_timecode(seconds), clip.label, _format_note(clip))
    spans, probs = window_cores(clip.windows.spans, clip.duration), clip.windows.probs  # (B, 2), (B, K)
    columns, threshold = alarm_columns(decision), common_threshold(decision)
    chosen = np.array(columns or range(len(decision.labels)))[probs[:, columns or slice(None)].argmax(axis=1)]  # (B,)
    values = probs[np.arange(len(probs)), chosen]
    track = ScoreTimeline(0.0, float(spans[-1, 1]), spans, values, clip.events, threshold)

    def state_at(seconds: float) -> OverlayState:
        at = seconds + 1e-6  # times of frames are sums
        window = max(0, int(np.searchsorted(spans[:, 0], at, side="right")) - 1)
        event = next((event for event in clip.events if event.start <= at < event.end), None)
        label = event.label if event else _label_without_event(clip, probs[window], decision)
        when = f"event {format_timecode(event.start)}–{format_timecode(event.end)}" if event else ""
        return OverlayState(
            seconds,
            format_timecode(seconds),
            label="unknown" if clip.is_unknown and not event else label,
            note=" · ".join(filter(None, (when, _format_note(clip)))),
            probability=float(values[window]),
            probability_label=decision.labels[int(chosen[window])],
            threshold=threshold,
            is_event=event is not None,
            timeline=track,
        )

    return state_at


def _label_without_event(clip: ClipPrediction, probs: np.ndarray, decision: Decision) -> str:
    """Of a moment without an event."""
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
    alive: Callable[[], None] = lambda: None,
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Writes an MP4 of a video, or of its part `span`, with label, probability, events and timeline drawn in.

    Sound that MP4 can hold is kept as it is, other sound becomes AAC; sound that cannot be had at all is left out. What
    cannot be decoded is left out too. `target` is written whole or not at all. `alive` and `progress`, with the second
    reached, are called for every frame. Raises ClipError where there is nothing to show, EnvironmentStopped.
    """
    shown = make_overlay_function(prediction, decision)
    with make_scratch_folder(target) as scratch:
        with (
            open_playback(source, fit_size, span=span, folder_fps=folder_fps) as (sound, pieces),
            prefetch(pieces) as coming,
        ):
            tags = {"title": make_printable(prediction.path), "comment": fingerprint}
            movie = Mp4Writer(
                scratch / "video.mp4",
                audio_stream=sound,
                audio_mode=choose_audio_mode(sound),
                threads=threads,
                tags=tags,
            )
            try:
                for piece in coming:
                    alive()
                    _write_item(movie, piece, shown, progress)
            except OSError as error:
                raise (make_write_error(error, target) if is_disk_full(error) else error) from error
            finally:
                movie.abandon()
        move_into_place(scratch / "video.mp4", target)


def _write_item(
    writer: Mp4Writer, item: MediaItem, state_at: Callable[[float], OverlayState], progress: Callable[[float], None]
) -> None:
    match item:
        case PlayedFrame(seconds, image):
            draw_overlay(image, state_at(seconds))
            writer.write_frame(seconds, image)
            progress(seconds)
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
    """Yields each clip's path and its annotated video, named by `annotated_video_path` below `folder`, or why there is none.

    Clips that failed are passed over. A video that lies there already and shows the same is kept. With a `total` a bar
    shows how far it is. Raises EnvironmentStopped where the folder cannot be written to.
    """
    check_writable(folder / "video.mp4")
    remove_stale_temporaries(folder.parent)
    count = workers or count_cores()
    job = AnnotateJob(decision, folder_fps, threads=max(1, count_cores() // count))
    bar = nullcontext() if total is None else make_progress_bar(total, description="annotate", unit="video")
    with make_scratch_folder(folder) as scratch, bar as shown:
        tasks = (_make_task(clip, folder, scratch) for clip in clips if clip.status != "failed")
        for task, outcome in run_tasks(
            job, tasks, workers=count, deadline_seconds=deadline_seconds, is_stopped=is_stopped
        ):
            if isinstance(outcome, RuntimeEnvironmentError):
                raise outcome
            if shown is not None:
                shown.update()
            said = f"{outcome.stage}: {outcome.reason}" if isinstance(outcome, LostTask) else str(outcome)
            yield task.clip.path, said or task.target


@dataclass(frozen=True)
class _AnnotateTask:
    clip: ClipPrediction
    target: Path
    scratch: Path
    """A folder on the same disk, where what is unfinished may be left lying."""


def _make_task(clip: ClipPrediction, folder: Path, scratch: Path) -> _AnnotateTask:
    name = annotated_video_path(clip.path)
    return _AnnotateTask(replace(clip, thumbnails=(), thumbnail_times=()), folder / name, scratch)


@dataclass(frozen=True)
class AnnotateJob:
    """What a worker process does to one clip: gives nothing, or why there is no video."""

    decision: Decision
    folder_fps: float = 25.0
    threads: int = 1

    def start(self) -> Callable[[_AnnotateTask, Callable[[], None]], str | RuntimeEnvironmentError]:
        """Quiet libraries of one thread: parallelism is one process a core."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return self._annotate

    def _annotate(self, task: _AnnotateTask, alive: Callable[[], None]) -> str | RuntimeEnvironmentError:
        try:
            return self._write(task, alive)
        except RuntimeEnvironmentError as error:
            return error
        except ClipError as error:
            return f"{error.stage}: {error.reason}"
        except MemoryError:
            return "annotate: out of memory"
        except Exception as error:
            return f"annotate: {type(error).__name__}: {error}".splitlines()[0]

    def _write(self, task: _AnnotateTask, alive: Callable[[], None]) -> str:
        if not task.clip.file:
            raise ClipError("open", "its video is not on this machine")
        source, span = Path(task.clip.file), parse_clip_span(task.clip)
        stamp = _compute_fingerprint(task.clip, self.decision, source)
        if _read_fingerprint(task.target) == stamp:
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
            fingerprint=stamp,
            alive=alive,
        )
        check_writable(task.target)
        move_into_place(unfinished, task.target)
        return ""


def _compute_fingerprint(clip: ClipPrediction, decision: Decision, source: Path) -> str:
    """What the annotated video depends on."""
    try:
        size_and_seconds = read_size_and_mtime(source)
    except OSError as error:
        raise ClipError("open", (error.strerror or str(error)).lower()) from None
    windows = clip.windows
    numbers = b"" if windows is None else windows.spans.tobytes() + windows.probs.tobytes()
    words = (
        DRAWING_VERSION,
        size_and_seconds,
        decision,
        clip.path,
        clip.label,
        clip.events,
        clip.is_unknown,
        clip.zero_shot,
    )
    return hashlib.sha256(numbers + repr(words).encode("utf-8", "surrogatepass")).hexdigest()


def _read_fingerprint(file: Path) -> str:
    """The stamp of a video that was written before; empty where there is none."""
    if not file.is_file():
        return ""
    with suppress(av.error.FFmpegError), av.open(str(file), metadata_errors="replace") as container:
        return container.metadata.get("comment", "")
    return ""
