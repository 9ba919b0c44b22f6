"""The threads that feed worker processes: each gives its own process one task at a time and survives its crash.

The pool kills a worker that is silent for too long. It also kills a worker when `is_stopped` is true: its task takes
longer than the limit, or its job was deleted. In each case a new worker replaces it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from features.utils import worker_pool
from features.utils.worker_pool import run_tasks
from hazard.web.jobs.queue import Task, TaskQueue

STOP_TIMEOUT_SECONDS = 10.0
MAX_RETRY_SECONDS = 30.0


class TaskHandler(Protocol):
    """What a worker thread needs to know about its tasks: their messages, their limits, and what to do with results."""

    @property
    def worker_job(self) -> worker_pool.PoolJob:
        """The job of the worker process."""
        ...

    @property
    def silence_seconds(self) -> float:
        """Seconds of silence after which a worker is killed."""
        ...

    @property
    def limit_seconds(self) -> float:
        """The longest time that one task may take, in seconds."""
        ...

    def make_startup_messages(self) -> list[object]:
        """Return the messages that a new worker gets before any task."""
        ...

    def start_task(self, task: Task) -> object | None:
        """Return the message for the worker, or None if there is nothing left to do for the task."""
        ...

    def finish_task(self, task: Task | None, result: Any) -> None:
        """Handle the worker's result, or `LostTask`. `task` is None for a result of `make_startup_messages`."""
        ...

    def is_wanted(self, task: Task) -> bool:
        """Return whether the task's job still exists."""
        ...

    def handle_timeout(self, task: Task) -> None:
        """Handle a task that took too long."""
        ...

    def handle_interruption(self, task: Task) -> None:
        """Handle a task whose worker could not be started, or stopped through no fault of the task."""
        ...

    def handle_worker_failure(self, error: Exception) -> None:
        """Handle the failure to start a worker."""
        ...


@dataclass
class WorkerThread:
    """One thread and its worker process."""

    handler: TaskHandler
    queue: TaskQueue
    stop: threading.Event
    preload: Sequence[str] = ()
    """The modules that the fork server imports for all workers."""
    is_eager: bool = True
    """Whether the worker is started before there is a task."""
    clock: Callable[[], float] = time.monotonic
    is_working: bool = True
    """Whether the last worker could be started."""
    _task: Task | None = None
    _started_at: float = 0.0
    _failures: int = 0

    def run(self) -> None:
        """Run tasks until `stop` is set."""
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
            except Exception as error:  # for example no process or no memory: the next attempt may succeed
                self._handle_failure(error)
            self._handle_stopped_worker()

    def _take_messages(self) -> Iterator[object]:
        yield from self.handler.make_startup_messages()
        while not self.stop.is_set() and (task := self.queue.take()):
            self._task, self._started_at = task, self.clock()
            message = self.handler.start_task(task)
            if message is None:
                self._task = None
            else:
                yield message

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
        """Report the task whose worker was stopped, if there is one, to the handler."""
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
        self.handler.handle_worker_failure(error)
        self.stop.wait(min(0.5 * 2.0**self._failures, MAX_RETRY_SECONDS))
