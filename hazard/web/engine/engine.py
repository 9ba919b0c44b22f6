"""The engine behind the page and the API: videos in, answers out. It knows nothing of HTTP."""

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
"""Videos that are fetched side by side."""
NO_MODEL_MESSAGE = "this server has no model, it only shows cameras; whoever runs it can add one (--model)"
MAX_NAME_LENGTH = 200
"""Characters of a name that are kept."""

log = logging.getLogger(__name__)


class Engine:
    """All jobs and who works on them; see `open_engine`. Its functions may be called from any thread."""

    def __init__(
        self,
        settings: ServeSettings,
        jobs: JobStore,
        analysis_handler: AnalysisHandler,
        fetch_handler: FetchHandler,
        worker_threads: Sequence[WorkerThread],
    ) -> None:
        self._settings, self._jobs, self._analysis_handler, self._fetch_handler = (
            settings,
            jobs,
            analysis_handler,
            fetch_handler,
        )
        self._worker_threads = worker_threads

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """By name, in the order of the settings."""
        return {name: self._analysis_handler.facts[name] for name in self._settings.models}

    @property
    def default_model(self) -> str:
        """The model where none is chosen."""
        return self._analysis_handler.default_model

    @property
    def incoming_folder(self) -> Path:
        """A folder for uploads that are under way, on the same disk; it is emptied when the server starts."""
        return self._settings.data.absolute() / INCOMING_FOLDER

    @property
    def workers(self) -> int:
        """Workers that work."""
        return sum(hand.is_working for hand in self._worker_threads)

    @property
    def is_healthy(self) -> bool:
        """Whether what is given is worked on, where there is a model to work with."""
        return self.workers > 0 or not self._settings.models

    @property
    def queue_length(self) -> int:
        """Videos that wait."""
        return sum(job.state == "queued" for job in self._jobs.list_all())

    def make_room(self, size_bytes: int = 0) -> None:
        """Makes room for a video of so many bytes. Raises Refused: 429 where too many wait, 507 without room."""
        if self.queue_length >= self._settings.queue:
            raise RequestError(429, f"{self._settings.queue} videos wait already; try again later")
        most = round(self._settings.keep_gigabytes * 1e9) - size_bytes
        for identity in self._jobs.find_oldest_over(most):
            self._jobs.remove(identity)
        if self._jobs.total_bytes > most:
            raise RequestError(507, "there is no room on the server for another video; try again later")

    def submit(self, file: Path, *, name: str, model: str = "") -> VideoJob:
        """Takes a video on; the file is moved away. Raises Refused: 400 for an unknown model, 429, 507."""
        chosen = self._resolve_model(model)
        self.make_room(_file_bytes(file))
        job = self._store_job(name=name, model=chosen, file=file)
        self._analysis_handler.queue.put(Task("look", job.id))
        return self._with_progress(job)

    def submit_url(self, url: str, *, model: str = "") -> VideoJob:
        """The same for an address. Raises Refused: 400 for what is no address that is ever opened."""
        chosen, address = self._resolve_model(model), url.strip()
        try:
            target = parse_url(address)
            if target.host.replace(".", "").isdigit() or ":" in target.host:
                self._fetch_handler.policy.check_ip(target.host, target.port)
        except ForbiddenUrlError as error:
            said = str(error).replace("download_networks", "networks") if is_url(address) else "not an address"
            raise RequestError(400, f"{make_printable(said)}; give one such as https://example.org/video.mp4") from None
        self.make_room()
        job = self._store_job(name=address, model=chosen, url=address)
        self._fetch_handler.queue.put(Task("fetch", job.id))
        return self._with_progress(job)

    def job(self, job_id: str) -> VideoJob | None:
        """With its progress and place in the queue."""
        job = self._jobs.get(job_id)
        return None if job is None else self._with_progress(job)

    def jobs(self) -> list[VideoJob]:
        """Newest first."""
        places = self._queue_positions()
        return [self._with_progress(job, places) for job in self._jobs.list_all()]

    def answer(self, job_id: str) -> dict[str, Any] | None:
        """What came of a job that is over; of a failed one an answer without segments, with its reason."""
        job = self._jobs.get(job_id)
        if job is None or not job.is_over:
            return None
        return (
            make_failed_answer(job)
            if job.state == "failed"
            else read_answer(self._jobs.job_folder(job.id) / JOB_FILES["answer"])
        )

    def delete(self, job_id: str) -> bool:
        """Whether there was such a job; nothing of it is left, and nobody works on it any longer."""
        self._analysis_handler.queue.drop_job(job_id)
        self._fetch_handler.queue.drop_job(job_id)
        return self._jobs.remove(job_id)

    def wait_for_job(self, job_id: str, seconds: float) -> VideoJob | None:
        """The job as soon as it is over, or as it is after so many seconds; None where there is none."""

        def is_over() -> bool:
            job = self._jobs.get(job_id)
            return job is None or job.is_over

        with self._jobs.changed:
            self._jobs.changed.wait_for(is_over, seconds)
        return self.job(job_id)

    def request_annotation(self, job_id: str) -> VideoJob | None:
        """Has the annotated video made, unless it is there. Raises Refused 409 where the job is not done, 429."""
        job = self._jobs.get(job_id)
        if job is None or job.has_annotated or job.is_annotating:
            return None if job is None else self._with_progress(job)
        if job.state != "done":
            raise RequestError(
                409, "the video is not done yet" if job.state != "failed" else f"it failed: {job.reason}"
            )
        if len(self._analysis_handler.queue) >= self._settings.queue:
            raise RequestError(429, f"{self._settings.queue} videos wait already; try again later")
        changed = self._jobs.update(job_id, is_annotating=True, annotate_reason="")
        self._analysis_handler.queue.put(Task("annotate", job_id))
        return None if changed is None else self._with_progress(changed)

    def find_file(self, job_id: str, kind: str) -> Path | None:
        """`video` (what a browser plays, else the upload), `upload`, `annotated`, `csv`, `picture`; None if absent."""
        job = self._jobs.get(job_id)
        if job is None:
            return None
        if kind == "video":
            kind = "preview" if job.has_preview else "upload"
        file = self._jobs.job_folder(job.id) / JOB_FILES[kind]
        return file if file.is_file() else None

    def media_type(self, job_id: str) -> str:
        """Of `file(identity, "video")`."""
        job = self._jobs.get(job_id)
        own = job.media if job else ""
        return "video/mp4" if job and job.has_preview else own or "application/octet-stream"

    def tidy(self) -> None:
        """Removes what is past its time, and the oldest of what is too much."""
        most = round(self._settings.keep_gigabytes * 1e9)
        for identity in (*self._jobs.find_expired(), *self._jobs.find_oldest_over(most)):
            self._jobs.remove(identity)

    def _resolve_model(self, name: str) -> str:
        if not self._settings.models:
            raise RequestError(422, NO_MODEL_MESSAGE)
        if name and name not in self._settings.models:
            raise RequestError(
                400, f"no model '{make_printable(name)[:MAX_NAME_LENGTH]}'; {suggest_name(name, self._settings.models)}"
            )
        return name or self.default_model

    def _store_job(self, *, name: str, model: str, file: Path | None = None, url: str = "") -> VideoJob:
        shown = make_printable(name)[:MAX_NAME_LENGTH] or "video"
        try:
            return self._jobs.add(name=shown, model=model, file=file, url=url)
        except (OSError, RuntimeEnvironmentError) as error:
            log.error("a video could not be kept: %s", error)
            raise RequestError(507, "the server has no room to keep the video; try again later") from None

    def _queue_positions(self) -> dict[str, int]:
        return self._fetch_handler.queue.positions() | self._analysis_handler.queue.positions()

    def _with_progress(self, job: VideoJob, places: Mapping[str, int] | None = None) -> VideoJob:
        if job.state == "done":
            reached = (read_progress(self._jobs.job_folder(job.id)) or 0.0) if job.is_annotating else 0.0
            return replace(job, progress=1.0, annotated_share=reached)
        if job.state == "decoding":
            return replace(job, progress=read_progress(self._jobs.job_folder(job.id)) or 0.0)
        where = self._queue_positions() if places is None else places
        return replace(job, place=where.get(job.id, 0) if job.state == "queued" else 0)


@contextmanager
def open_engine(
    settings: ServeSettings,
    infer: InferSettings | None = None,
    *,
    clock: Callable[[], float] = time.time,
    make_worker_job: Callable[[Mapping[str, Path], InferSettings, Path], AnalysisWorkerJob] = AnalysisWorkerJob,
) -> Iterator[Engine]:
    """Workers that work while the block runs; what is unfinished then is gone on with the next time.

    All models are opened once before it begins; without any it takes no videos, as a server of cameras does. `infer`
    says how they judge, as section `infer` does for reports; `work` is what worker processes do. Raises SettingsError,
    ArtefactRefused or EnvironmentStopped.
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
    said = f"another server works in {data}; stop it, or give this one a folder of its own (data)"
    with hold_lock(data / "lock", busy_message=said):
        for name in (INCOMING_FOLDER, SCRATCH_FOLDER):
            clear_folder(data / name)
        jobs = JobStore(data / JOBS_FOLDER, keep_seconds=3600 * settings.keep_hours, clock=clock)
        looks, fetches = TaskQueue(), TaskQueue()
        looking = AnalysisHandler(
            jobs,
            looks,
            make_worker_job(
                {name: folder.absolute() for name, folder in settings.models.items()}, infer, data / SCRATCH_FOLDER
            ),
            default_model=next(iter(settings.models), ""),
            limit_seconds=settings.job_seconds,
            silence_seconds=infer.deadline_seconds,
        )
        rules = DownloadPolicy(networks=tuple(map(str, (*settings.networks, *infer.download_networks))))
        limits = DownloadLimits(max_bytes=settings.max_bytes, max_seconds=settings.upload_seconds)
        fetching = FetchHandler(jobs, fetches, looks, rules, limits)
        imports, stop = list_preloads(infer), threading.Event()
        hands = [WorkerThread(looking, looks, stop, imports) for _ in range(settings.workers)]
        fetchers = [WorkerThread(fetching, fetches, stop, imports, is_eager=False) for _ in range(FETCH_THREADS)]
        staff = [*hands, *fetchers] if settings.models else []
        engine = Engine(settings, jobs, looking, fetching, hands if settings.models else [])
        requeue_unfinished(jobs, looks, fetches)
        if staff:
            make_worker_context(imports)  # from this thread, which may be the one that hears Ctrl-C
        try:
            with _run_threads(
                [*(hand.run for hand in staff), lambda: _tidy_until_stopped(engine, stop)], stop, (looks, fetches)
            ):
                if staff:
                    looking.startup_done.wait()
                if looking.startup_error is not None:
                    raise looking.startup_error
                yield engine
        finally:
            requeue_interrupted(jobs)


@contextmanager
def _run_threads(
    targets: Sequence[Callable[[], None]], stop: threading.Event, queues: Sequence[TaskQueue]
) -> Iterator[None]:
    """A thread for each while the block runs; then they are told to stop, and waited for."""
    threads = [threading.Thread(target=each, daemon=True, name="serve") for each in targets]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        stop.set()
        for waiting in queues:
            waiting.close()
        for thread in threads:
            thread.join(STOP_TIMEOUT_SECONDS)


def list_preloads(infer: InferSettings) -> tuple[str, ...]:
    """What the fork server imports once, which takes seconds, so that a worker takes none; never OpenVINO."""
    is_torch = infer.runtime == "torch" or find_spec("openvino") is None
    return (*PRELOAD, "torchvision.models") if is_torch else PRELOAD


def _tidy_until_stopped(engine: Engine, stop: threading.Event) -> None:
    while not stop.wait(TIDY_INTERVAL_SECONDS):
        engine.tidy()


def _file_bytes(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
