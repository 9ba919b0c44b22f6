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

from features.errors import ClipError, EnvironmentStopped
from features.types import Span
from features.utils.file_identity import size_and_time
from features.utils.files import check_writable, is_full, move_whole, scratch_folder, stopped, sweep_temporary
from features.utils.progress import progress_bar
from features.utils.text import printable
from features.utils.worker_pool import Lost, cores, run_tasks
from features.video.timeline import WHOLE
from hazard.events.decision import Decision, alarming, one_threshold, quiet_label, window_cores
from hazard.rendering.mp4_writer import Mp4, sound_mode
from hazard.rendering.overlay import Shown, Track, draw
from hazard.rendering.playback import End, Piece, Shot, Sound, played, within
from hazard.rendering.text import clock_text, percent_text
from hazard.types import ClipPrediction
from hazard.utils.prefetch import ahead
from hazard.utils.safe_names import output_name

DEADLINE_SECONDS = 60.0
"""How long a video may go without a single frame before its worker is killed."""

DRAWING = 1
"""Counts up when the drawing changes, so that videos that lie there already are made anew."""

_PART = re.compile(r"#t=(\d*\.?\d+)?(?:,(\d*\.?\d+))?$")


def span_of(clip: ClipPrediction) -> Span:
    """The part of its file that a clip is: `a.mp4#t=12,15.5` begins at 12 s. A file may be called so itself."""
    found = _PART.search(clip.path)
    if found is None or clip.file.endswith(found[0]):
        return WHOLE
    return float(found[1] or 0), float(found[2]) if found[2] else WHOLE[1]


def shown_at(clip: ClipPrediction, decision: Decision) -> Callable[[float], Shown]:
    """What is to be seen at each second of a clip: the number is that of the window whose core holds the second."""
    if clip.windows is None or not len(clip.windows):
        return lambda seconds: Shown(seconds, clock_text(seconds), clip.label, _note(clip))
    spans, probs = window_cores(clip.windows.spans, clip.duration), clip.windows.probs  # (B, 2), (B, K)
    columns, threshold = alarming(decision), one_threshold(decision)
    chosen = np.array(columns or range(len(decision.labels)))[probs[:, columns or slice(None)].argmax(axis=1)]  # (B,)
    values = probs[np.arange(len(probs)), chosen]
    track = Track(0.0, float(spans[-1, 1]), spans, values, clip.events, threshold)

    def shown(seconds: float) -> Shown:
        at = seconds + 1e-6  # times of frames are sums
        window = max(0, int(np.searchsorted(spans[:, 0], at, side="right")) - 1)
        event = next((event for event in clip.events if event.start <= at < event.end), None)
        label = event.label if event else _label(clip, probs[window], decision)
        when = f"event {clock_text(event.start)}–{clock_text(event.end)}" if event else ""
        return Shown(
            seconds,
            clock_text(seconds),
            label="unknown" if clip.is_unknown and not event else label,
            note=" · ".join(filter(None, (when, _note(clip)))),
            probability=float(values[window]),
            of=decision.labels[int(chosen[window])],
            threshold=threshold,
            is_event=event is not None,
            track=track,
        )

    return shown


def _label(clip: ClipPrediction, probs: np.ndarray, decision: Decision) -> str:
    """Of a moment without an event."""
    if clip.windows is not None and len(clip.windows) == 1:
        return clip.label
    return quiet_label(probs, decision)


def _note(clip: ClipPrediction) -> str:
    if clip.zero_shot:
        name, probability = clip.zero_shot[0]
        return f"zero-shot: {name} {percent_text(probability)}"
    return "unlike the training clips" if clip.is_unknown else ""


def annotate_video(
    source: Path,
    target: Path,
    prediction: ClipPrediction,
    *,
    decision: Decision,
    span: Span = WHOLE,
    folder_fps: float = 25.0,
    threads: int = 1,
    stamp: str = "",
    alive: Callable[[], None] = lambda: None,
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Writes an MP4 of a video, or of its part `span`, with label, probability, events and timeline drawn in.

    Sound that MP4 can hold is kept as it is, other sound becomes AAC; sound that cannot be had at all is left out. What
    cannot be decoded is left out too. `target` is written whole or not at all. `alive` and `progress`, with the second
    reached, are called for every frame. Raises ClipError where there is nothing to show, EnvironmentStopped.
    """
    shown = shown_at(prediction, decision)
    with scratch_folder(target) as scratch:
        with played(source, within, span=span, folder_fps=folder_fps) as (sound, pieces), ahead(pieces) as coming:
            tags = {"title": printable(prediction.path), "comment": stamp}
            movie = Mp4(scratch / "video.mp4", sound=sound, mode=sound_mode(sound), threads=threads, tags=tags)
            try:
                for piece in coming:
                    alive()
                    _put(movie, piece, shown, progress)
            except OSError as error:
                raise (stopped(error, target) if is_full(error) else error) from error
            finally:
                movie.abandon()
        move_whole(scratch / "video.mp4", target)


def _put(movie: Mp4, piece: Piece, shown: Callable[[float], Shown], progress: Callable[[float], None]) -> None:
    match piece:
        case Shot(seconds, image):
            draw(image, shown(seconds))
            movie.show(seconds, image)
            progress(seconds)
        case Sound(seconds, packet):
            movie.hear(seconds, packet)
        case End(seconds):
            movie.finish(seconds)


def annotate_all(
    clips: Iterable[ClipPrediction],
    folder: Path,
    *,
    decision: Decision,
    folder_fps: float = 25.0,
    workers: int | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
    total: int | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[str, Path | str]]:
    """Yields each clip's path and its annotated video, named by `output_name` below `folder`, or why there is none.

    Clips that failed are passed over. A video that lies there already and shows the same is kept. With a `total` a bar
    shows how far it is. Raises EnvironmentStopped where the folder cannot be written to.
    """
    check_writable(folder / "video.mp4")
    sweep_temporary(folder.parent)
    count = workers or cores()
    job = AnnotateJob(decision, folder_fps, threads=max(1, cores() // count))
    bar = nullcontext() if total is None else progress_bar(total, what="annotate", unit="video")
    with scratch_folder(folder) as scratch, bar as shown:
        tasks = (_task(clip, folder, scratch) for clip in clips if clip.status != "failed")
        for task, outcome in run_tasks(
            job, tasks, workers=count, deadline_seconds=deadline_seconds, is_stopped=is_stopped
        ):
            if isinstance(outcome, EnvironmentStopped):
                raise outcome
            if shown is not None:
                shown.update()
            said = f"{outcome.stage}: {outcome.reason}" if isinstance(outcome, Lost) else str(outcome)
            yield task.clip.path, said or task.target


@dataclass(frozen=True)
class _Task:
    clip: ClipPrediction
    target: Path
    scratch: Path
    """A folder on the same disk, where what is unfinished may be left lying."""


def _task(clip: ClipPrediction, folder: Path, scratch: Path) -> _Task:
    name = output_name(clip.path)
    return _Task(replace(clip, thumbnails=(), thumbnail_times=()), folder / name, scratch)


@dataclass(frozen=True)
class AnnotateJob:
    """What a worker process does to one clip: gives nothing, or why there is no video."""

    decision: Decision
    folder_fps: float = 25.0
    threads: int = 1

    def start(self) -> Callable[[_Task, Callable[[], None]], str | EnvironmentStopped]:
        """Quiet libraries of one thread: parallelism is one process a core."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return self._annotate

    def _annotate(self, task: _Task, alive: Callable[[], None]) -> str | EnvironmentStopped:
        try:
            return self._write(task, alive)
        except EnvironmentStopped as error:
            return error
        except ClipError as error:
            return f"{error.stage}: {error.reason}"
        except MemoryError:
            return "annotate: out of memory"
        except Exception as error:
            return f"annotate: {type(error).__name__}: {error}".splitlines()[0]

    def _write(self, task: _Task, alive: Callable[[], None]) -> str:
        if not task.clip.file:
            raise ClipError("open", "its video is not on this machine")
        source, span = Path(task.clip.file), span_of(task.clip)
        stamp = _stamp(task.clip, self.decision, source)
        if _stamp_in(task.target) == stamp:
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
            stamp=stamp,
            alive=alive,
        )
        check_writable(task.target)
        move_whole(unfinished, task.target)
        return ""


def _stamp(clip: ClipPrediction, decision: Decision, source: Path) -> str:
    """What the annotated video depends on."""
    try:
        size_and_seconds = size_and_time(source)
    except OSError as error:
        raise ClipError("open", (error.strerror or str(error)).lower()) from None
    windows = clip.windows
    numbers = b"" if windows is None else windows.spans.tobytes() + windows.probs.tobytes()
    words = (DRAWING, size_and_seconds, decision, clip.path, clip.label, clip.events, clip.is_unknown, clip.zero_shot)
    return hashlib.sha256(numbers + repr(words).encode("utf-8", "surrogatepass")).hexdigest()


def _stamp_in(file: Path) -> str:
    """The stamp of a video that was written before; empty where there is none."""
    if not file.is_file():
        return ""
    with suppress(av.error.FFmpegError), av.open(str(file), metadata_errors="replace") as container:
        return container.metadata.get("comment", "")
    return ""
