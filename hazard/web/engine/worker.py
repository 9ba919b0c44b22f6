"""The code that runs inside a worker process: one method per kind of task."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import av.logging
import cv2
import numpy as np

from features.errors import ClipError, RuntimeEnvironmentError, UserFacingError
from features.types import Clip, ExtractedClip, Failure, UnchangedClip
from features.utils.files import write_atomically
from features.utils.missing_libraries import describe_missing_library
from features.video.container import open_video
from features.video.sampling import make_row_sampler
from features.video.windows import make_window_sampler
from hazard.events.decision import Decision, decide_clip
from hazard.inference.predict import predict_outcomes
from hazard.inference.result_store import FileStat, open_result_store
from hazard.inference.settings import InferSettings
from hazard.rendering.annotate import annotate_video
from hazard.types import ClipPrediction
from hazard.web.engine.answers import format_segments_csv, label_confidence, make_answer
from hazard.web.engine.messages import (
    AliveCallback,
    AnalyseTask,
    AnalysisResult,
    AnnotateTask,
    OpenModelTask,
    PreviewTask,
    TaskResult,
)
from hazard.web.engine.model_cache import ModelCache, OpenModel
from hazard.web.engine.preview import find_media_type, write_preview
from hazard.web.jobs.progress import ProgressFile
from hazard.web.jobs.store import JOB_FILES, VIDEO_NAME

if TYPE_CHECKING:
    from hazard.inference.zero_shot import ZeroShotNamer


FRAMES_DONE_SHARE = 0.99
"""The progress of a video whose frames are all encoded, while its answer is written."""


class AnalysisWorker:
    """The worker that runs one task at a time."""

    def __init__(self, models: Mapping[str, Path], infer: InferSettings, scratch: Path) -> None:
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        self._models = ModelCache(models, infer, scratch)

    def run_task(
        self, task: OpenModelTask | AnalyseTask | AnnotateTask | PreviewTask, report_alive: AliveCallback
    ) -> TaskResult:
        """Run a task and return its result or its error.

        Any exception that a library raises on a video fails this video; it never ends the process.
        """
        try:
            match task:
                case OpenModelTask():
                    return self._models.get(task.model, report_alive).facts
                case AnalyseTask():
                    return self._analyse(task, report_alive)
                case AnnotateTask():
                    self._annotate(task, report_alive)
                case PreviewTask():
                    self._write_preview(task, report_alive)
            return None
        except (ClipError, UserFacingError) as error:
            return error
        except MemoryError:
            return ClipError("decode", "out of memory")
        except Exception as error:
            if missing := describe_missing_library(error):
                return RuntimeEnvironmentError(missing)
            return ClipError("internal", f"{type(error).__name__}: {error}".splitlines()[0])

    def _analyse(self, task: AnalyseTask, report_alive: AliveCallback) -> AnalysisResult:
        write_progress = ProgressFile(task.folder)
        write_progress(0.0)
        model = self._models.get(task.model, report_alive)
        video = task.folder / VIDEO_NAME
        clip = Clip(path=task.name, file=video)
        meter = _ProgressMeter(write_progress, report_alive, *_estimate_frames_and_rows(video, model))
        model.counting_encoder.on_encoded = meter.count_encoded
        outcome = model.analyse(clip, meter.count_decoded)
        assert not isinstance(outcome, UnchangedClip)
        if isinstance(outcome, Failure):
            raise ClipError(outcome.stage, outcome.reason)
        prediction = self._make_prediction(outcome, model, clip, report_alive)
        return _write_results(task, prediction, model.recognizer.decision)

    def _make_prediction(
        self, outcome: ExtractedClip, model: OpenModel, clip: Clip, report_alive: AliveCallback
    ) -> ClipPrediction:
        decision, namer = model.recognizer.decision, model.recognizer.namer
        prediction = decide_clip(predict_outcomes([outcome], model.recognizer.predictor)[0], decision)
        if namer and prediction.is_unknown:
            return replace(prediction, zero_shot=_find_zero_shot_names(clip, namer, report_alive))
        return prediction

    def _annotate(self, task: AnnotateTask, report_alive: AliveCallback) -> None:
        write_progress = ProgressFile(task.folder)
        write_progress(0.0)
        with open_result_store(task.folder) as results:
            stored_clip, decision = next(iter(results)), Decision.from_json(results.read_fact("decision"))
            names = results.read_fact("zero_shot")
        clip = replace(decide_clip(stored_clip, decision), zero_shot=tuple((name, p) for name, p in names))
        video, target = task.folder / VIDEO_NAME, task.folder / JOB_FILES["annotated"]
        length = max(clip.duration, 1e-6)
        annotate_video(
            video,
            target,
            clip,
            decision=decision,
            report_alive=report_alive,
            report_progress=lambda seconds: write_progress(seconds / length),
        )

    def _write_preview(self, task: PreviewTask, report_alive: AliveCallback) -> None:
        ProgressFile(task.folder)(0.0)  # shows that the task has started
        write_preview(task.folder / VIDEO_NAME, task.folder / JOB_FILES["preview"], report_alive=report_alive)


class _ProgressMeter:
    """The progress of a video: the share of decoded frames or of encoded rows, whichever is larger."""

    def __init__(
        self,
        write_progress: Callable[[float], None],
        report_alive: AliveCallback,
        expected_frames: int,
        expected_rows: int,
    ) -> None:
        self._write_progress, self._report_alive = write_progress, report_alive
        self._expected_frames, self._expected_rows = max(expected_frames, 1), max(expected_rows, 1)
        self._decoded_frames = self._encoded_rows = 0

    def count_decoded(self) -> None:
        self._decoded_frames += 1
        self._report_progress()

    def count_encoded(self, rows: int) -> None:
        self._encoded_rows += rows
        self._report_progress()

    def _report_progress(self) -> None:
        self._report_alive()
        self._write_progress(
            min(
                max(self._decoded_frames / self._expected_frames, self._encoded_rows / self._expected_rows),
                FRAMES_DONE_SHARE,
            )
        )


def _estimate_frames_and_rows(video: Path, model: OpenModel) -> tuple[int, int]:
    """Return about how many frames a video has, by its header, and how many rows of it will be encoded."""
    with open_video(video) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        seconds = float(container.duration or 0) / 1e6
        if seconds <= 0 or not 0 < rate < 1000:
            return stream.frames, stream.frames
    spec, windows = model.decoder.spec, model.decoder.windows
    pick = make_window_sampler(spec.sampling, windows) if windows else make_row_sampler(spec.sampling)
    times = np.arange(0.0, min(seconds, MAX_VIDEO_SECONDS), 1 / rate)
    rows = pick(times, 0.0, seconds)
    return len(times), len(np.unique(np.concatenate([each.reshape(len(each), -1) for each in rows.values()]), axis=0))


MAX_VIDEO_SECONDS = 48 * 3600.0
"""The longest duration that the estimate believes, whatever a header says."""


def _write_results(task: AnalyseTask, clip: ClipPrediction, decision: Decision) -> AnalysisResult:
    """Write all files of a job except its record, each completely or not at all, and return the summary."""
    folder = task.folder
    with open_result_store(folder) as results:
        results.clear()
        results.add(clip, FileStat(-1, -1))
        results.write_fact("decision", decision.to_json())
        results.write_fact("zero_shot", clip.zero_shot)
    answer = make_answer(task.id, task.name, task.model, clip, decision)
    write_atomically(folder / JOB_FILES["csv"], format_segments_csv(clip, decision).encode("utf-8", "backslashreplace"))
    if (picture := _pick_thumbnail(clip)) is not None:
        write_atomically(folder / JOB_FILES["picture"], picture)
    write_atomically(folder / JOB_FILES["answer"], json.dumps(answer).encode())
    return AnalysisResult(
        clip.duration,
        clip.label,
        label_confidence(clip, decision),
        clip.is_unknown,
        clip.reason if clip.status == "partial" else "",
        find_media_type(folder / VIDEO_NAME),
    )


def _pick_thumbnail(clip: ClipPrediction) -> bytes | None:
    """Return the thumbnail nearest to the middle of the event with the highest peak, or of the video."""
    if not clip.thumbnails:
        return None
    event = max(clip.events, key=lambda event: event.peak, default=None)
    middle = (event.start + event.end) / 2 if event else clip.duration / 2
    nearest = int(np.abs(np.array(clip.thumbnail_times) - middle).argmin())
    return clip.thumbnails[nearest]


def _find_zero_shot_names(
    clip: Clip, namer: "ZeroShotNamer", report_alive: AliveCallback
) -> tuple[tuple[str, float], ...]:
    """Return CLIP's labels and probabilities for a clip; empty if its frames cannot be read again."""
    from hazard.inference.zero_shot import read_sampled_frames

    try:
        return namer.name_frames(read_sampled_frames(clip, namer.preprocessing, report_alive))
    except ClipError:
        return ()
