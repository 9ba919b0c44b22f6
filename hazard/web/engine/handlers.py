"""What the threads of `crew.py` have their workers do, and what is written down of each task."""

import logging
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urldefrag

from features.errors import ClipError, EnvironmentStopped, UserFacingError
from features.sources.download.fetch import Fetch, FetchJob
from features.sources.download.http import Limits, timeout_reason
from features.sources.download.policy import Rules
from features.utils.files import sweep_temporary
from features.utils.text import printable
from features.utils.worker_pool import Lost
from hazard.web.engine.messages import Annotate, Look, Looked, Open, Preview
from hazard.web.engine.model_facts import ModelFacts
from hazard.web.engine.worker_job import WorkJob
from hazard.web.jobs.progress import forget_reached, read_reached
from hazard.web.jobs.queue import Task, Waiting
from hazard.web.jobs.store import VIDEO, Job, Jobs

MOST_ATTEMPTS = 3
"""A video that ended its worker, or the server, so often without a word is not tried again."""
SETTINGS = {"download_seconds": "upload_seconds", "download_bytes": "max_bytes", "download_networks": "networks"}
"""What the settings of a fetch are called here."""

log = logging.getLogger(__name__)


@dataclass
class Looking:
    """Videos looked at, annotated and made playable."""

    jobs: Jobs
    waiting: Waiting
    job: WorkJob
    default: str
    limit_seconds: float
    silence_seconds: float
    facts: dict[str, ModelFacts] = field(default_factory=dict)
    """Of the models that were opened."""
    problem: Exception | None = None
    """Why a model cannot be opened, or no worker started, before the server began."""
    checked: threading.Event = field(default_factory=threading.Event)
    """All models were opened, or there is a problem."""
    _asked: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def first(self) -> list[object]:
        """The first worker opens every model, so that a wrong one is known at once; others only the usual one."""
        with self._lock:
            others = [] if self._asked else [name for name in self.job.models if name != self.default]
            self._asked = True
        return [Open(name) for name in (*others, self.default)]

    def begin(self, task: Task) -> object | None:
        """The order, unless the job is gone, over, or was tried too often."""
        job, place = self.jobs.get(task.id), self.jobs.place(task.id)
        if job is None:
            return None
        forget_reached(place)
        sweep_temporary(place)
        if task.kind == "annotate":
            return None if job.has_annotated else Annotate(place, job.name)
        if task.kind == "preview":
            return None if job.has_preview else Preview(place)
        if job.is_over:
            return None
        if job.attempts >= MOST_ATTEMPTS:
            self._fail(task, "decode", f"the work on it was begun {MOST_ATTEMPTS} times and never ended")
            return None
        self.jobs.update(task.id, state="decoding", attempts=job.attempts + 1)
        return Look(place, job.id, job.name, job.model)

    def end(self, task: Task | None, result: Any) -> None:
        """Of a job, or of a model that was opened."""
        if task is None:
            self._opened(result)
        elif task.kind == "look" and isinstance(result, Lost) and read_reached(self.jobs.place(task.id)) is None:
            self.interrupted(task)  # the worker was gone before it had it
        elif isinstance(result, Lost | ClipError):
            self._fail(task, result.stage, result.reason)
        elif isinstance(result, UserFacingError):
            log.error("job %s: %s", task.id, result)
            self._fail(task, "server", _said(result))
        elif isinstance(result, Looked):
            self._done(task, result)
        else:
            is_preview = task.kind == "preview"
            made = {"has_preview": True} if is_preview else {"has_annotated": True, "is_annotating": False}
            self.jobs.update(task.id, **made)

    def is_wanted(self, task: Task) -> bool:
        """Whether its job was not deleted."""
        return self.jobs.get(task.id) is not None

    def late(self, task: Task) -> None:
        """It took longer than a job may."""
        self._fail(task, "decode", f"timeout: not done within {self.limit_seconds:g} s (job_seconds)")

    def interrupted(self, task: Task) -> None:
        """It is tried again, before all others, unless its job was deleted."""
        job = self.jobs.get(task.id)
        if job is not None:
            if task.kind == "look":
                self.jobs.update(task.id, state="queued", attempts=max(0, job.attempts - 1))
            self.waiting.put(task, is_first=True)
        else:
            self.jobs.sweep(task.id)

    def broke(self, error: Exception) -> None:
        """No worker could be started."""
        if not self.checked.is_set():
            self.problem = error
            self.checked.set()

    def _opened(self, result: object) -> None:
        if isinstance(result, ModelFacts):
            self.facts[result.name] = result
            if len(self.facts) == len(self.job.models):
                self.checked.set()
            return
        said = f"a model could not be opened: {result.reason}" if isinstance(result, Lost | ClipError) else ""
        self.broke(EnvironmentStopped(said) if said else result if isinstance(result, Exception) else TypeError(result))

    def _done(self, task: Task, found: Looked) -> None:
        self.jobs.update(
            task.id,
            state="done",
            seconds=found.seconds,
            label=found.label,
            confidence=found.confidence,
            is_unknown=found.is_unknown,
            reason=one_line(found.reason),
            media=found.media,
        )
        if not found.media:
            self.waiting.put(Task("preview", task.id))

    def _fail(self, task: Task, stage: str, reason: str) -> None:
        if task.kind == "look":
            log.info("job %s failed: %s: %s", task.id, stage, reason)
            self.jobs.update(task.id, state="failed", stage=stage, reason=one_line(f"{stage}: {reason}"))
        elif task.kind == "annotate":
            self.jobs.update(task.id, is_annotating=False, annotate_reason=one_line(f"{stage}: {reason}"))
        else:
            log.info("job %s: browsers may not play its video: %s: %s", task.id, stage, reason)


@dataclass
class Fetching:
    """Videos brought from their addresses, by a process that connects to nothing but what the rules allow."""

    jobs: Jobs
    waiting: Waiting
    looking: Waiting
    """Where they wait next."""
    rules: Rules
    limits: Limits

    @property
    def job(self) -> FetchJob:
        """What the process does."""
        return FetchJob(self.rules, self.limits)

    @property
    def silence_seconds(self) -> float:
        """It says nothing before the end."""
        return self.limits.seconds

    limit_seconds = float("inf")

    def first(self) -> list[object]:
        """Nothing."""
        return []

    def begin(self, task: Task) -> object | None:
        """The order, unless the job is gone or its video is there."""
        job = self.jobs.get(task.id)
        if job is None or job.is_over:
            return None
        place = self.jobs.place(task.id)
        if (place / VIDEO).is_file():
            self._came(job)
            return None
        self.jobs.update(task.id, state="fetching")
        return Fetch(urldefrag(job.address).url, place / VIDEO)

    def end(self, task: Task | None, result: Any) -> None:
        """It came, or not."""
        job = self.jobs.get(task.id) if task else None
        if job is None:
            return
        sweep_temporary(self.jobs.place(job.id))
        if result is None:
            self._came(job)
        elif isinstance(result, Lost):
            is_late = result.reason.startswith("timeout")
            self._fail(job, timeout_reason(self.limits) if is_late else "the process that fetched it crashed")
        elif isinstance(result, ClipError):
            self._fail(job, result.reason)
        else:
            log.error("job %s: %s", job.id, result)
            self._fail(job, _said(result))

    def is_wanted(self, task: Task) -> bool:
        """Whether its job was not deleted."""
        return self.jobs.get(task.id) is not None

    def late(self, task: Task) -> None:
        """The pool knows first."""

    def interrupted(self, task: Task) -> None:
        """It is tried again, unless its job was deleted."""
        if self.is_wanted(task):
            self.waiting.put(task, is_first=True)
        else:
            self.jobs.sweep(task.id)

    def broke(self, error: Exception) -> None:
        """The next attempt may go well."""

    def _came(self, job: Job) -> None:
        self.jobs.update(job.id, state="queued")
        self.looking.put(Task("look", job.id))

    def _fail(self, job: Job, reason: str) -> None:
        for name, ours in SETTINGS.items():
            reason = reason.replace(name, ours)
        log.info("job %s failed: fetch: %s", job.id, reason)
        self.jobs.update(job.id, state="failed", stage="fetch", reason=one_line(f"fetch: {reason}"))


def one_line(text: str) -> str:
    """For a page and a program, at most."""
    return printable(" ".join(text.split()))[:500]


def _said(error: UserFacingError) -> str:
    """What users are told of the server's own trouble: nothing of its paths, which its log has."""
    if isinstance(error, EnvironmentStopped) and str(error).startswith("no space"):
        return "the server's disk is full"
    return "the server could not work on it; its log says why"
