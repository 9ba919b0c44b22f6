"""What the threads of `crew.py` have their workers do, and what is written down of each task."""

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
"""A video that ended its worker, or the server, so often without a word is not tried again."""
SERVE_SETTING_NAMES = {
    "download_seconds": "upload_seconds",
    "download_bytes": "max_bytes",
    "download_networks": "networks",
}
"""What the settings of a fetch are called here."""

log = logging.getLogger(__name__)


@dataclass
class AnalysisHandler:
    """Videos looked at, annotated and made playable."""

    jobs: JobStore
    queue: TaskQueue
    worker_job: AnalysisWorkerJob
    default_model: str
    limit_seconds: float
    silence_seconds: float
    facts: dict[str, ModelFacts] = field(default_factory=dict)
    """Of the models that were opened."""
    startup_error: Exception | None = None
    """Why a model cannot be opened, or no worker started, before the server began."""
    startup_done: threading.Event = field(default_factory=threading.Event)
    """All models were opened, or there is a problem."""
    _has_opened_all: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make_startup_messages(self) -> list[object]:
        """The first worker opens every model, so that a wrong one is known at once; others only the usual one."""
        with self._lock:
            others = (
                [] if self._has_opened_all else [name for name in self.worker_job.models if name != self.default_model]
            )
            self._has_opened_all = True
        return [OpenModelTask(name) for name in (*others, self.default_model)]

    def start_task(self, task: Task) -> object | None:
        """The order, unless the job is gone, over, or was tried too often."""
        job, place = self.jobs.get(task.id), self.jobs.job_folder(task.id)
        if job is None:
            return None
        delete_progress(place)
        remove_stale_temporaries(place)
        if task.kind == "annotate":
            return None if job.has_annotated else AnnotateTask(place, job.name)
        if task.kind == "preview":
            return None if job.has_preview else PreviewTask(place)
        if job.is_over:
            return None
        if job.attempts >= MAX_ATTEMPTS:
            self._fail_task(task, "decode", f"the work on it was begun {MAX_ATTEMPTS} times and never ended")
            return None
        self.jobs.update(task.id, state="decoding", attempts=job.attempts + 1)
        return AnalyseTask(place, job.id, job.name, job.model)

    def finish_task(self, task: Task | None, result: Any) -> None:
        """Of a job, or of a model that was opened."""
        if task is None:
            self._handle_opened_model(result)
        elif (
            task.kind == "look"
            and isinstance(result, LostTask)
            and read_progress(self.jobs.job_folder(task.id)) is None
        ):
            self.handle_interruption(task)  # the worker was gone before it had it
        elif isinstance(result, LostTask | ClipError):
            self._fail_task(task, result.stage, result.reason)
        elif isinstance(result, UserFacingError):
            log.error("job %s: %s", task.id, result)
            self._fail_task(task, "server", _public_reason(result))
        elif isinstance(result, AnalysisResult):
            self._finish_analysis(task, result)
        else:
            is_preview = task.kind == "preview"
            made = {"has_preview": True} if is_preview else {"has_annotated": True, "is_annotating": False}
            self.jobs.update(task.id, **made)

    def is_wanted(self, task: Task) -> bool:
        """Whether its job was not deleted."""
        return self.jobs.get(task.id) is not None

    def handle_timeout(self, task: Task) -> None:
        """It took longer than a job may."""
        self._fail_task(task, "decode", f"timeout: not done within {self.limit_seconds:g} s (job_seconds)")

    def handle_interruption(self, task: Task) -> None:
        """It is tried again, before all others, unless its job was deleted."""
        job = self.jobs.get(task.id)
        if job is not None:
            if task.kind == "look":
                self.jobs.update(task.id, state="queued", attempts=max(0, job.attempts - 1))
            self.queue.put(task, is_first=True)
        else:
            self.jobs.remove_leftovers(task.id)

    def handle_worker_failure(self, error: Exception) -> None:
        """No worker could be started."""
        if not self.startup_done.is_set():
            self.startup_error = error
            self.startup_done.set()

    def _handle_opened_model(self, result: object) -> None:
        if isinstance(result, ModelFacts):
            self.facts[result.name] = result
            if len(self.facts) == len(self.worker_job.models):
                self.startup_done.set()
            return
        said = f"a model could not be opened: {result.reason}" if isinstance(result, LostTask | ClipError) else ""
        self.handle_worker_failure(
            RuntimeEnvironmentError(said) if said else result if isinstance(result, Exception) else TypeError(result)
        )

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
        if task.kind == "look":
            log.info("job %s failed: %s: %s", task.id, stage, reason)
            self.jobs.update(task.id, state="failed", stage=stage, reason=join_to_one_line(f"{stage}: {reason}"))
        elif task.kind == "annotate":
            self.jobs.update(task.id, is_annotating=False, annotate_reason=join_to_one_line(f"{stage}: {reason}"))
        else:
            log.info("job %s: browsers may not play its video: %s: %s", task.id, stage, reason)


@dataclass
class FetchHandler:
    """Videos brought from their addresses, by a process that connects to nothing but what the rules allow."""

    jobs: JobStore
    queue: TaskQueue
    analysis_queue: TaskQueue
    """Where they wait next."""
    policy: DownloadPolicy
    limits: DownloadLimits

    @property
    def worker_job(self) -> DownloadJob:
        """What the process does."""
        return DownloadJob(self.policy, self.limits)

    @property
    def silence_seconds(self) -> float:
        """It says nothing before the end."""
        return self.limits.max_seconds

    limit_seconds = float("inf")

    def make_startup_messages(self) -> list[object]:
        """Nothing."""
        return []

    def start_task(self, task: Task) -> object | None:
        """The order, unless the job is gone or its video is there."""
        job = self.jobs.get(task.id)
        if job is None or job.is_over:
            return None
        place = self.jobs.job_folder(task.id)
        if (place / VIDEO_NAME).is_file():
            self._queue_analysis(job)
            return None
        self.jobs.update(task.id, state="fetching")
        return DownloadTask(urldefrag(job.address).url, place / VIDEO_NAME)

    def finish_task(self, task: Task | None, result: Any) -> None:
        """It came, or not."""
        job = self.jobs.get(task.id) if task else None
        if job is None:
            return
        remove_stale_temporaries(self.jobs.job_folder(job.id))
        if result is None:
            self._queue_analysis(job)
        elif isinstance(result, LostTask):
            is_late = result.reason.startswith("timeout")
            self._fail_job(
                job, format_timeout_reason(self.limits) if is_late else "the process that fetched it crashed"
            )
        elif isinstance(result, ClipError):
            self._fail_job(job, result.reason)
        else:
            log.error("job %s: %s", job.id, result)
            self._fail_job(job, _public_reason(result))

    def is_wanted(self, task: Task) -> bool:
        """Whether its job was not deleted."""
        return self.jobs.get(task.id) is not None

    def handle_timeout(self, task: Task) -> None:
        """The pool knows first."""

    def handle_interruption(self, task: Task) -> None:
        """It is tried again, unless its job was deleted."""
        if self.is_wanted(task):
            self.queue.put(task, is_first=True)
        else:
            self.jobs.remove_leftovers(task.id)

    def handle_worker_failure(self, error: Exception) -> None:
        """The next attempt may go well."""

    def _queue_analysis(self, job: VideoJob) -> None:
        self.jobs.update(job.id, state="queued")
        self.analysis_queue.put(Task("look", job.id))

    def _fail_job(self, job: VideoJob, reason: str) -> None:
        for name, ours in SERVE_SETTING_NAMES.items():
            reason = reason.replace(name, ours)
        log.info("job %s failed: fetch: %s", job.id, reason)
        self.jobs.update(job.id, state="failed", stage="fetch", reason=join_to_one_line(f"fetch: {reason}"))


def join_to_one_line(text: str) -> str:
    """For a page and a program, at most."""
    return make_printable(" ".join(text.split()))[:500]


def _public_reason(error: UserFacingError) -> str:
    """What users are told of the server's own trouble: nothing of its paths, which its log has."""
    if isinstance(error, RuntimeEnvironmentError) and str(error).startswith("no space"):
        return "the server's disk is full"
    return "the server could not work on it; its log says why"
