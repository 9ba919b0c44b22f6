"""The queue of tasks that wait for a worker."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

TaskKind = Literal["fetch", "analyse", "annotate", "preview"]


@dataclass(frozen=True)
class Task:
    """One piece of work on a job."""

    kind: TaskKind
    id: str


class TaskQueue:
    """A first-in, first-out queue that knows the position of each task."""

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, task: Task, *, is_first: bool = False) -> None:
        """Add a task at the end, or at the front if `is_first`. A task that is already waiting is not added again."""
        with self._changed:
            if task not in self._tasks:
                (self._tasks.appendleft if is_first else self._tasks.append)(task)
                self._changed.notify()

    def take(self) -> Task | None:
        """Wait for the next task and return it. Return None when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._is_closed)
            return None if self._is_closed else self._tasks.popleft()

    def wait_for_task(self) -> bool:
        """Wait until there is a task. Return False when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._is_closed)
            return not self._is_closed

    def __len__(self) -> int:
        with self._changed:
            return len(self._tasks)

    def drop_job(self, job_id: str) -> None:
        """Remove all tasks of a job."""
        with self._changed:
            self._tasks = deque(task for task in self._tasks if task.id != job_id)

    def positions(self) -> dict[str, int]:
        """Return the position, from 1, of each job that waits to be fetched or analysed, by the job's id."""
        with self._changed:
            return {task.id: i for i, task in enumerate(self._tasks, 1) if task.kind in ("analyse", "fetch")}

    def close(self) -> None:
        """Close the queue and wake every thread that waits on it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
