"""The engine behind the page and the API: it takes videos and returns answers. It does not depend on HTTP."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from features.errors import RuntimeEnvironmentError, SettingsError
from features.sources.download.http import DownloadLimits
from features.sources.download.policy import DownloadPolicy, ForbiddenUrlError, parse_url
from features.sources.urls import is_url
from features.utils.files import check_writable, hold_lock
from features.utils.settings import load_settings
from features.utils.text import make_printable, suggest_name
from features.utils.worker_pool import make_worker_context
from hazard.inference.settings import InferSettings
from hazard.models.input_spec import read_input_spec
from hazard.web.engine.answers import make_failed_answer, read_answer
from hazard.web.engine.handlers import AnalysisHandler, FetchHandler
from hazard.web.engine.model_facts import ModelFacts
from hazard.web.engine.worker_job import AnalysisWorkerJob
from hazard.web.engine.worker_thread import STOP_TIMEOUT_SECONDS, WorkerThread
from hazard.web.errors import RequestError
from hazard.web.jobs.progress import read_progress
from hazard.web.jobs.queue import Task, TaskQueue
from hazard.web.jobs.recovery import clear_folder, requeue_interrupted, requeue_unfinished
from hazard.web.jobs.store import JOB_FILES, JobStore, VideoJob
from hazard.web.settings import ServeSettings

PRELOAD = (
    "features.extraction.jobs",
    "features.encoders.torch_encoder",
    "hazard.inference.predict",
    "hazard.models.model_folder",
    "hazard.rendering.annotate",
)
JOBS_FOLDER, INCOMING_FOLDER, SCRATCH_FOLDER = "jobs", "incoming", "scratch"
TIDY_INTERVAL_SECONDS = 60.0
FETCH_THREADS = 2
"""The number of videos that are fetched at the same time."""
NO_MODEL_MESSAGE = "this server has no model, so it only shows cameras; start it with --model FOLDER to analyse videos"
EXAMPLE_URL = "https://example.org/video.mp4"
MAX_NAME_LENGTH = 200
"""The largest number of characters of a stored name."""

log = logging.getLogger(__name__)


class Engine:
    """All jobs and the threads that work on them; see `open_engine`. Its methods may be called from any thread."""

    def __init__(
        self,
        settings: ServeSettings,
        jobs: JobStore,
        analysis_handler: AnalysisHandler,
        fetch_handler: FetchHandler,
        worker_threads: Sequence[WorkerThread],
    ) -> None:
        self._settings, self._jobs, self._worker_threads = settings, jobs, worker_threads
        self._analysis_handler, self._fetch_handler = analysis_handler, fetch_handler

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """The models by name, in the order of the settings."""
        return {name: self._analysis_handler.facts[name] for name in self._settings.models}

    @property
    def default_model(self) -> str:
        """The model that is used if a request names none."""
        return self._analysis_handler.default_model

    @property
    def incoming_folder(self) -> Path:
        """A folder for unfinished uploads, on the same disk as the jobs. It is emptied when the server starts."""
        return self._settings.data.absolute() / INCOMING_FOLDER

    @property
    def workers(self) -> int:
        """The number of analysis workers that run."""
        return sum(thread.is_working for thread in self._worker_threads)

    @property
    def is_healthy(self) -> bool:
        """Whether a worker runs, or no worker is needed because there is no model."""
        return self.workers > 0 or not self._settings.models

    @property
    def queue_length(self) -> int:
        """The number of waiting videos."""
        return sum(job.state == "queued" for job in self._jobs.list_all())

    def make_room(self, size_bytes: int = 0) -> None:
        """Delete the oldest finished jobs until a video of `size_bytes` fits.

        Raises RequestError: 429 if the queue is full, 507 if there is not enough room.
        """
        if self.queue_length >= self._settings.queue:
            raise RequestError(429, self._queue_full_message)
        max_bytes = round(self._settings.keep_gigabytes * 1e9) - size_bytes
        for job_id in self._jobs.find_oldest_over(max_bytes):
            self._jobs.remove(job_id)
        if self._jobs.total_bytes > max_bytes:
            raise RequestError(507, "the server has no room for another video; try again later")

    def submit(self, file: Path, *, name: str, model: str = "") -> VideoJob:
        """Move a video into a new job and queue it for analysis. Return the job.

        Raises RequestError: 400 for an unknown model, 422 without a model, 429 if the queue is full, 507 without room.
        """
        model_name = self._resolve_model(model)
        self.make_room(_file_bytes(file))
        job = self._store_job(name=name, model=model_name, file=file)
        self._analysis_handler.queue.put(Task("analyse", job.id))
        return self._with_progress(job)

    def submit_url(self, url: str, *, model: str = "") -> VideoJob:
        """Queue the video at a URL for download and analysis. Return the job.

        Raises RequestError as `submit` does, and 400 for a URL that is never opened.
        """
        model_name, url = self._resolve_model(model), url.strip()
        try:
            target = parse_url(url)
            if target.host.replace(".", "").isdigit() or ":" in target.host:
                self._fetch_handler.policy.check_ip(target.host, target.port)
        except ForbiddenUrlError as error:
            reason = str(error).replace("download_networks", "networks") if is_url(url) else "not a URL"
            raise RequestError(400, f"{make_printable(reason)}; expected one such as {EXAMPLE_URL}") from None
        self.make_room()
        job = self._store_job(name=url, model=model_name, url=url)
        self._fetch_handler.queue.put(Task("fetch", job.id))
        return self._with_progress(job)

    def get_job(self, job_id: str) -> VideoJob | None:
        """Return a job with its progress and its position in the queue, or None if it does not exist."""
        job = self._jobs.get(job_id)
        return None if job is None else self._with_progress(job)

    def list_jobs(self) -> list[VideoJob]:
        """Return all jobs with their progress, newest first."""
        positions = self._queue_positions()
        return [self._with_progress(job, positions) for job in self._jobs.list_all()]

    def get_answer(self, job_id: str) -> dict[str, Any] | None:
        """Return the answer of a finished job, or None. The answer of a failed job has a reason and no segments."""
        job = self._jobs.get(job_id)
        if job is None or not job.is_over:
            return None
        return (
            make_failed_answer(job)
            if job.state == "failed"
            else read_answer(self._jobs.job_folder(job.id) / JOB_FILES["answer"])
        )

    def delete(self, job_id: str) -> bool:
        """Delete a job with its tasks and files. Return whether it existed."""
        self._analysis_handler.queue.drop_job(job_id)
        self._fetch_handler.queue.drop_job(job_id)
        return self._jobs.remove(job_id)

    def wait_for_job(self, job_id: str, seconds: float) -> VideoJob | None:
        """Wait until a job is finished, at most `seconds`, and return it. Return None if it does not exist."""

        def is_over() -> bool:
            job = self._jobs.get(job_id)
            return job is None or job.is_over

        with self._jobs.changed:
            self._jobs.changed.wait_for(is_over, seconds)
        return self.get_job(job_id)

    def request_annotation(self, job_id: str) -> VideoJob | None:
        """Queue the annotated video, unless it exists or is being made. Return the job, or None if it does not exist.

        Raises RequestError: 409 if the job is not done, 429 if the queue is full.
        """
        job = self._jobs.get(job_id)
        if job is None or job.has_annotated or job.is_annotating:
            return None if job is None else self._with_progress(job)
        if job.state != "done":
            raise RequestError(
                409, "the video is not done yet" if job.state != "failed" else f"it failed: {job.reason}"
            )
        if len(self._analysis_handler.queue) >= self._settings.queue:
            raise RequestError(429, self._queue_full_message)
        job = self._jobs.update(job_id, is_annotating=True, annotate_reason="")
        self._analysis_handler.queue.put(Task("annotate", job_id))
        return None if job is None else self._with_progress(job)

    def find_file(self, job_id: str, kind: str) -> Path | None:
        """Return a file of a job, or None if it does not exist.

        `kind` is `video` (the copy for browsers, else the upload), `upload`, `annotated`, `csv`, `picture` or `answer`.
        """
        job = self._jobs.get(job_id)
        if job is None:
            return None
        if kind == "video":
            kind = "preview" if job.has_preview else "upload"
        file = self._jobs.job_folder(job.id) / JOB_FILES[kind]
        return file if file.is_file() else None

    def get_media_type(self, job_id: str) -> str:
        """Return the media type of `find_file(job_id, "video")`."""
        job = self._jobs.get(job_id)
        upload_type = job.media if job else ""
        return "video/mp4" if job and job.has_preview else upload_type or "application/octet-stream"

    def tidy(self) -> None:
        """Delete expired jobs, and the oldest finished ones if the jobs take too much disk space."""
        max_bytes = round(self._settings.keep_gigabytes * 1e9)
        for job_id in (*self._jobs.find_expired(), *self._jobs.find_oldest_over(max_bytes)):
            self._jobs.remove(job_id)

    @property
    def _queue_full_message(self) -> str:
        return f"the queue is full: {self._settings.queue} videos wait; try again later"

    def _resolve_model(self, name: str) -> str:
        if not self._settings.models:
            raise RequestError(422, NO_MODEL_MESSAGE)
        if name and name not in self._settings.models:
            raise RequestError(
                400, f"no model '{make_printable(name)[:MAX_NAME_LENGTH]}'; {suggest_name(name, self._settings.models)}"
            )
        return name or self.default_model

    def _store_job(self, *, name: str, model: str, file: Path | None = None, url: str = "") -> VideoJob:
        printable_name = make_printable(name)[:MAX_NAME_LENGTH] or "video"
        try:
            return self._jobs.add(name=printable_name, model=model, file=file, url=url)
        except (OSError, RuntimeEnvironmentError) as error:
            log.error("a video could not be stored: %s", error)
            raise RequestError(507, "the server has no room to store the video; try again later") from None

    def _queue_positions(self) -> dict[str, int]:
        return self._fetch_handler.queue.positions() | self._analysis_handler.queue.positions()

    def _with_progress(self, job: VideoJob, positions: Mapping[str, int] | None = None) -> VideoJob:
        if job.state == "done":
            share = (read_progress(self._jobs.job_folder(job.id)) or 0.0) if job.is_annotating else 0.0
            return replace(job, progress=1.0, annotated_share=share)
        if job.state == "decoding":
            return replace(job, progress=read_progress(self._jobs.job_folder(job.id)) or 0.0)
        if positions is None:
            positions = self._queue_positions()
        return replace(job, place=positions.get(job.id, 0) if job.state == "queued" else 0)


@contextmanager
def open_engine(
    settings: ServeSettings,
    infer: InferSettings | None = None,
    *,
    clock: Callable[[], float] = time.time,
    make_worker_job: Callable[[Mapping[str, Path], InferSettings, Path], AnalysisWorkerJob] = AnalysisWorkerJob,
) -> Iterator[Engine]:
    """Yield an engine whose workers run during the block. Unfinished jobs continue at the next start.

    All models are opened once before the block begins. Without a model, the engine takes no videos and the server only
    shows cameras. `infer` are the inference settings, by default those of section `infer`. `make_worker_job` makes the
    job of the worker processes. Raises SettingsError, ArtifactError or RuntimeEnvironmentError.
    """
    infer = infer or load_settings(InferSettings, "infer")
    if not settings.models and not settings.monitors:
        raise SettingsError(
            "nothing to serve: give a model (--model FOLDER) or the folder of a monitor (--monitor FOLDER)"
        )
    for folder in settings.models.values():
        read_input_spec(folder)
    data = settings.data.absolute()
    for name in (JOBS_FOLDER, INCOMING_FOLDER, SCRATCH_FOLDER):
        check_writable(data / name / "file")
    busy_message = f"another server uses the folder {data}; stop it, or choose another folder (setting data)"
    with hold_lock(data / "lock", busy_message=busy_message):
        for name in (INCOMING_FOLDER, SCRATCH_FOLDER):
            clear_folder(data / name)
        jobs = JobStore(data / JOBS_FOLDER, keep_seconds=3600 * settings.keep_hours, clock=clock)
        analysis_queue, fetch_queue = TaskQueue(), TaskQueue()
        analysis_handler = AnalysisHandler(
            jobs,
            analysis_queue,
            make_worker_job(
                {name: folder.absolute() for name, folder in settings.models.items()}, infer, data / SCRATCH_FOLDER
            ),
            default_model=next(iter(settings.models), ""),
            limit_seconds=settings.job_seconds,
            silence_seconds=infer.deadline_seconds,
        )
        policy = DownloadPolicy(networks=tuple(map(str, (*settings.networks, *infer.download_networks))))
        limits = DownloadLimits(max_bytes=settings.max_bytes, max_seconds=settings.upload_seconds)
        fetch_handler = FetchHandler(jobs, fetch_queue, analysis_queue, policy, limits)
        preload, stop = list_preloads(infer), threading.Event()
        analysis_threads = [
            WorkerThread(analysis_handler, analysis_queue, stop, preload)
            for _ in range(settings.workers if settings.models else 0)
        ]
        fetch_threads = [
            WorkerThread(fetch_handler, fetch_queue, stop, preload, is_eager=False)
            for _ in range(FETCH_THREADS if settings.models else 0)
        ]
        worker_threads = [*analysis_threads, *fetch_threads]
        engine = Engine(settings, jobs, analysis_handler, fetch_handler, analysis_threads)
        requeue_unfinished(jobs, analysis_queue, fetch_queue)
        if worker_threads:
            make_worker_context(preload)  # from this thread, which may be the one that receives Ctrl-C
        try:
            with _run_threads(
                [*(thread.run for thread in worker_threads), lambda: _tidy_until_stopped(engine, stop)],
                stop,
                (analysis_queue, fetch_queue),
            ):
                if worker_threads:
                    analysis_handler.startup_done.wait()
                if analysis_handler.startup_error is not None:
                    raise analysis_handler.startup_error
                yield engine
        finally:
            requeue_interrupted(jobs)


@contextmanager
def _run_threads(
    targets: Sequence[Callable[[], None]], stop: threading.Event, queues: Sequence[TaskQueue]
) -> Iterator[None]:
    """Run each target in a thread during the block, then stop the threads and wait for them."""
    threads = [threading.Thread(target=target, daemon=True, name="serve") for target in targets]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        stop.set()
        for queue in queues:
            queue.close()
        for thread in threads:
            thread.join(STOP_TIMEOUT_SECONDS)


def list_preloads(infer: InferSettings) -> tuple[str, ...]:
    """Return the modules that the fork server imports once, so that workers start without seconds of imports.

    OpenVINO is never among them.
    """
    is_torch = infer.runtime == "torch" or find_spec("openvino") is None
    return (*PRELOAD, "torchvision.models") if is_torch else PRELOAD


def _tidy_until_stopped(engine: Engine, stop: threading.Event) -> None:
    while not stop.wait(TIDY_INTERVAL_SECONDS):
        engine.tidy()


def _file_bytes(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
