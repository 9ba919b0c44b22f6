"""Threads that feed worker processes: each gives its own one task at a time, and outlives whatever becomes of it.

A worker that is silent for too long is killed by the pool; one that is alive but takes longer than a job may take, or
whose job was deleted, is killed because `is_stopped` says so. Either way another one takes its place.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from features.utils import worker_pool
from features.utils.worker_pool import run_tasks
from hazard.web.jobs.queue import Task, TaskQueue

STOP_TIMEOUT_SECONDS = 10.0
MAX_RETRY_SECONDS = 30.0

log = logging.getLogger(__name__)


class TaskHandler(Protocol):
    """What a thread's worker is for, and what is to be written down of each task."""

    @property
    def worker_job(self) -> worker_pool.PoolJob:
        """What its worker does."""
        ...

    @property
    def silence_seconds(self) -> float:
        """A worker that says nothing for longer is killed."""
        ...

    @property
    def limit_seconds(self) -> float:
        """How long one task may take."""
        ...

    def make_startup_messages(self) -> list[object]:
        """What a new worker is given before any task."""
        ...

    def start_task(self, task: Task) -> object | None:
        """What the worker is given; None where there is nothing to be done about the task any more."""
        ...

    def finish_task(self, task: Task | None, result: Any) -> None:
        """The worker's result, or `Lost`; the task is None for what `first` gave."""
        ...

    def is_wanted(self, task: Task) -> bool:
        """Whether anybody still waits for it."""
        ...

    def handle_timeout(self, task: Task) -> None:
        """It took too long."""
        ...

    def handle_interruption(self, task: Task) -> None:
        """Its worker could not be had, or is gone for no fault of the task's."""
        ...

    def handle_worker_failure(self, error: Exception) -> None:
        """No worker could be started."""
        ...


@dataclass
class WorkerThread:
    """One thread and its worker."""

    handler: TaskHandler
    queue: TaskQueue
    stop: threading.Event
    preload: Sequence[str] = ()
    """What the fork server imports for all workers."""
    is_eager: bool = True
    """Whether there is a worker before there is anything to do."""
    clock: Callable[[], float] = time.monotonic
    is_working: bool = True
    """Whether its last worker could be started."""
    _task: Task | None = None
    _started_at: float = 0.0
    _given_count: int = 0
    _failures: int = field(default=0)

    def run(self) -> None:
        """Until `stop` is set."""
        while not self.stop.is_set() and (self.is_eager or self.queue.wait_for_task()):
            try:
                for _, result in run_tasks(
                    self.handler.worker_job,
                    self._take_messages(),
                    workers=1,
                    deadline_seconds=self.handler.silence_seconds,
                    is_stopped=self._is_stopped,
                    preload=self.preload,
                ):
                    self._handle_result(result)
            except Exception as error:  # no process, no memory, whatever: the next attempt may go well
                self._handle_failure(error)
            self._handle_stopped_worker()

    def _take_messages(self) -> Iterator[object]:
        yield from self.handler.make_startup_messages()
        while not self.stop.is_set() and (task := self.queue.take()):
            self._task, self._started_at = task, self.clock()
            order = self.handler.start_task(task)
            if order is None:
                self._task = None
            else:
                yield order

    def _handle_result(self, result: object) -> None:
        task, self._task = self._task, None
        self.is_working, self._failures = True, 0
        self.handler.finish_task(task, result)

    def _is_stopped(self) -> bool:
        if self.stop.is_set():
            return True
        task = self._task
        return task is not None and (self._is_late() or not self.handler.is_wanted(task))

    def _is_late(self) -> bool:
        return self.clock() - self._started_at > self.handler.limit_seconds

    def _handle_stopped_worker(self) -> None:
        """Of a task whose worker was stopped."""
        task, self._task = self._task, None
        if task is None or self.stop.is_set():
            return
        if self._is_late():
            self.handler.handle_timeout(task)
        else:
            self.handler.handle_interruption(task)

    def _handle_failure(self, error: Exception) -> None:
        self._failures += 1
        self.is_working = False
        log.error("a worker of the server could not go on: %s", str(error) or type(error).__name__)
        self.handler.handle_worker_failure(error)
        self.stop.wait(min(0.5 * 2.0**self._failures, MAX_RETRY_SECONDS))
