"""What waits to be done, in order."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

TaskKind = Literal["fetch", "look", "annotate", "preview"]


@dataclass(frozen=True)
class Task:
    """One thing to be done about a job."""

    kind: TaskKind
    id: str


class TaskQueue:
    """A queue that says where in it something stands. First come, first served."""

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, task: Task, *, is_first: bool = False) -> None:
        """At the end, or before all others; what waits already is not put twice."""
        with self._changed:
            if task not in self._tasks:
                (self._tasks.appendleft if is_first else self._tasks.append)(task)
                self._changed.notify()

    def take(self) -> Task | None:
        """The next one, as soon as there is one; None once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._is_closed)
            return None if self._is_closed else self._tasks.popleft()

    def wait_for_task(self) -> bool:
        """Once something waits; False once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._is_closed)
            return not self._is_closed

    def __len__(self) -> int:
        with self._changed:
            return len(self._tasks)

    def drop_job(self, job_id: str) -> None:
        """Whatever was to be done about a job."""
        with self._changed:
            self._tasks = deque(task for task in self._tasks if task.id != job_id)

    def positions(self) -> dict[str, int]:
        """By the id of each job that waits to be looked at, its place from 1."""
        with self._changed:
            return {task.id: i for i, task in enumerate(self._tasks, 1) if task.kind in ("look", "fetch")}

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
