"""The handlers of worker threads: the messages for each task, and how its result is stored in the job."""

import logging
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urldefrag

from features.errors import ClipError, RuntimeEnvironmentError, UserFacingError
from features.sources.download.fetch import DownloadJob, DownloadTask
from features.sources.download.http import DownloadLimits, format_timeout_reason
from features.sources.download.policy import DownloadPolicy
from features.utils.files import remove_stale_temporaries
from features.utils.text import make_printable
from features.utils.worker_pool import LostTask
from hazard.web.engine.messages import AnalyseTask, AnalysisResult, AnnotateTask, OpenModelTask, PreviewTask
from hazard.web.engine.model_facts import ModelFacts
from hazard.web.engine.worker_job import AnalysisWorkerJob
from hazard.web.jobs.progress import delete_progress, read_progress
from hazard.web.jobs.queue import Task, TaskQueue
from hazard.web.jobs.store import VIDEO_NAME, JobStore, VideoJob

MAX_ATTEMPTS = 3
"""The number of attempts for a video that crashes its worker or the server. It is not tried again after that."""
SERVE_SETTING_NAMES = {
    "download_seconds": "upload_seconds",
    "download_bytes": "max_bytes",
    "download_networks": "networks",
}
"""The names of the server's settings, by the names of the download settings that messages mention."""

log = logging.getLogger(__name__)


@dataclass
class AnalysisHandler:
    """The handler of tasks that analyse, annotate or convert videos."""

    jobs: JobStore
    queue: TaskQueue
    worker_job: AnalysisWorkerJob
    default_model: str
    limit_seconds: float
    silence_seconds: float
    facts: dict[str, ModelFacts] = field(default_factory=dict)
    """The facts of the opened models, by name."""
    startup_error: Exception | None = None
    """The error that stops the server at its start: a model could not be opened, or no worker started."""
    startup_done: threading.Event = field(default_factory=threading.Event)
    """Set when all models are open or the start failed."""
    _has_opened_all: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make_startup_messages(self) -> list[object]:
        """Return the models to open. The first worker opens all, to find errors early; others open the default one."""
        with self._lock:
            others = (
                [] if self._has_opened_all else [name for name in self.worker_job.models if name != self.default_model]
            )
            self._has_opened_all = True
        return [OpenModelTask(name) for name in (*others, self.default_model)]

    def start_task(self, task: Task) -> object | None:
        """Return the worker's message, or None if the job is deleted, finished, or was tried too often."""
        job, folder = self.jobs.get(task.id), self.jobs.job_folder(task.id)
        if job is None:
            return None
        delete_progress(folder)
        remove_stale_temporaries(folder)
        if task.kind == "annotate":
            return None if job.has_annotated else AnnotateTask(folder, job.name)
        if task.kind == "preview":
            return None if job.has_preview else PreviewTask(folder)
        if job.is_over:
            return None
        if job.attempts >= MAX_ATTEMPTS:
            self._fail_task(task, "decode", f"the analysis was started {MAX_ATTEMPTS} times and never finished")
            return None
        self.jobs.update(task.id, state="decoding", attempts=job.attempts + 1)
        return AnalyseTask(folder, job.id, job.name, job.model)

    def finish_task(self, task: Task | None, result: Any) -> None:
        """Store the result of a task in its job, or the facts of an opened model."""
        if task is None:
            self._handle_opened_model(result)
        elif (
            task.kind == "analyse"
            and isinstance(result, LostTask)
            and read_progress(self.jobs.job_folder(task.id)) is None
        ):
            self.handle_interruption(task)  # the worker died before it received the task
        elif isinstance(result, LostTask | ClipError):
            self._fail_task(task, result.stage, result.reason)
        elif isinstance(result, UserFacingError):
            log.error("job %s: %s", task.id, result)
            self._fail_task(task, "server", _public_reason(result))
        elif isinstance(result, AnalysisResult):
            self._finish_analysis(task, result)
        else:
            is_preview = task.kind == "preview"
            fields = {"has_preview": True} if is_preview else {"has_annotated": True, "is_annotating": False}
            self.jobs.update(task.id, **fields)

    def is_wanted(self, task: Task) -> bool:
        """Return whether the task's job still exists."""
        return self.jobs.get(task.id) is not None

    def handle_timeout(self, task: Task) -> None:
        """Fail the job, because it took longer than `job_seconds`."""
        self._fail_task(task, "decode", f"timeout: not done within {self.limit_seconds:g} s (job_seconds)")

    def handle_interruption(self, task: Task) -> None:
        """Put the task at the front of the queue, unless its job was deleted."""
        job = self.jobs.get(task.id)
        if job is not None:
            if task.kind == "analyse":
                self.jobs.update(task.id, state="queued", attempts=max(0, job.attempts - 1))
            self.queue.put(task, is_first=True)
        else:
            self.jobs.remove_leftovers(task.id)

    def handle_worker_failure(self, error: Exception) -> None:
        """Record the error if the server is still starting, which then ends with it; otherwise log it."""
        if not self.startup_done.is_set():
            self.startup_error = error
            self.startup_done.set()
        elif self.startup_error is None:
            _log_worker_failure(error)

    def _handle_opened_model(self, result: object) -> None:
        if isinstance(result, ModelFacts):
            self.facts[result.name] = result
            if len(self.facts) == len(self.worker_job.models):
                self.startup_done.set()
            return
        if isinstance(result, LostTask | ClipError):
            self.handle_worker_failure(RuntimeEnvironmentError(f"a model could not be opened: {result.reason}"))
        else:
            self.handle_worker_failure(result if isinstance(result, Exception) else TypeError(result))

    def _finish_analysis(self, task: Task, result: AnalysisResult) -> None:
        self.jobs.update(
            task.id,
            state="done",
            seconds=result.seconds,
            label=result.label,
            confidence=result.confidence,
            is_unknown=result.is_unknown,
            reason=join_to_one_line(result.reason),
            media=result.media,
        )
        if not result.media:
            self.queue.put(Task("preview", task.id))

    def _fail_task(self, task: Task, stage: str, reason: str) -> None:
        if task.kind == "analyse":
            log.info("job %s failed: %s: %s", task.id, stage, reason)
            self.jobs.update(task.id, state="failed", stage=stage, reason=join_to_one_line(f"{stage}: {reason}"))
        elif task.kind == "annotate":
            self.jobs.update(task.id, is_annotating=False, annotate_reason=join_to_one_line(f"{stage}: {reason}"))
        else:
            log.info("job %s: no copy of the video for browsers could be made: %s: %s", task.id, stage, reason)


@dataclass
class FetchHandler:
    """The handler of tasks that fetch videos from URLs. The process connects only to what the policy allows."""

    jobs: JobStore
    queue: TaskQueue
    analysis_queue: TaskQueue
    """The queue for fetched videos."""
    policy: DownloadPolicy
    limits: DownloadLimits

    @property
    def worker_job(self) -> DownloadJob:
        """The job of the download process."""
        return DownloadJob(self.policy, self.limits)

    @property
    def silence_seconds(self) -> float:
        """The longest time of a download, in seconds: the process does not report before its end."""
        return self.limits.max_seconds

    limit_seconds = float("inf")

    def make_startup_messages(self) -> list[object]:
        """Return no messages: a download needs no preparation."""
        return []

    def start_task(self, task: Task) -> object | None:
        """Return the worker's message, or None if the job is finished or deleted, or its video already exists."""
        job = self.jobs.get(task.id)
        if job is None or job.is_over:
            return None
        folder = self.jobs.job_folder(task.id)
        if (folder / VIDEO_NAME).is_file():
            self._queue_analysis(job)
            return None
        self.jobs.update(task.id, state="fetching")
        return DownloadTask(urldefrag(job.address).url, folder / VIDEO_NAME)

    def finish_task(self, task: Task | None, result: Any) -> None:
        """Queue the video for analysis, or fail its job."""
        job = self.jobs.get(task.id) if task else None
        if job is None:
            return
        remove_stale_temporaries(self.jobs.job_folder(job.id))
        if result is None:
            self._queue_analysis(job)
        elif isinstance(result, LostTask):
            is_late = result.reason.startswith("timeout")
            self._fail_job(job, format_timeout_reason(self.limits) if is_late else "the download process crashed")
        elif isinstance(result, ClipError):
            self._fail_job(job, result.reason)
        else:
            log.error("job %s: %s", job.id, result)
            self._fail_job(job, _public_reason(result))

    def is_wanted(self, task: Task) -> bool:
        """Return whether the task's job still exists."""
        return self.jobs.get(task.id) is not None

    def handle_timeout(self, task: Task) -> None:
        """Do nothing: the pool stops a late download first."""

    def handle_interruption(self, task: Task) -> None:
        """Put the task at the front of the queue, unless its job was deleted."""
        if self.is_wanted(task):
            self.queue.put(task, is_first=True)
        else:
            self.jobs.remove_leftovers(task.id)

    def handle_worker_failure(self, error: Exception) -> None:
        """Log it: the next attempt may succeed."""
        _log_worker_failure(error)

    def _queue_analysis(self, job: VideoJob) -> None:
        self.jobs.update(job.id, state="queued")
        self.analysis_queue.put(Task("analyse", job.id))

    def _fail_job(self, job: VideoJob, reason: str) -> None:
        for download_name, serve_name in SERVE_SETTING_NAMES.items():
            reason = reason.replace(download_name, serve_name)
        log.info("job %s failed: fetch: %s", job.id, reason)
        self.jobs.update(job.id, state="failed", stage="fetch", reason=join_to_one_line(f"fetch: {reason}"))


def join_to_one_line(text: str) -> str:
    """Return text as one printable line of at most 500 characters."""
    return make_printable(" ".join(text.split()))[:500]


def _public_reason(error: UserFacingError) -> str:
    """Return a reason for users when the server itself fails. Paths are only in the server's log."""
    if isinstance(error, RuntimeEnvironmentError) and str(error).startswith("no space"):
        return "the server's disk is full"
    return "the server could not process the video; see its log"


def _log_worker_failure(error: Exception) -> None:
    log.error("a worker process failed: %s", str(error) or type(error).__name__)
