"""Pool of worker processes that may hang or crash: each has one task at a time and is killed and replaced if needed.

No library serves. `concurrent.futures` and joblib give up the whole pool when a worker dies. Pebble's pool replaces the
worker, but limits the total time of a task. A healthy video may take hours, so here a task may take any time as long as
it sends heartbeats.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Protocol

from features.errors import RuntimeEnvironmentError
from features.utils.missing_libraries import describe_missing_library

if TYPE_CHECKING:  # Windows has no ForkServerContext
    from multiprocessing.context import ForkServerContext, SpawnContext

HEARTBEAT_SECONDS = 0.5
"""Shortest time between two heartbeats of a working task."""
_POLL_SECONDS = 0.25
START_TIMEOUT_SECONDS = 600.0
"""Time after which a worker that is not ready counts as failed, even on a busy machine."""

log = logging.getLogger(__name__)


class PoolJob(Protocol):
    """The work of a worker process. It is pickled and sent to the worker, where `start` runs once."""

    def start(self) -> Callable[[Any, Callable[[], None]], object]:
        """Load what the tasks need, and return the function of (task, report_alive) that does one task."""
        ...


@dataclass(frozen=True)
class LostTask:
    """A task whose worker hung or died."""

    stage: str
    reason: str


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    job: PoolJob,
    tasks: Iterable[Any],
    *,
    workers: int,
    deadline_seconds: float,
    is_stopped: Callable[[], bool] = lambda: False,
    preload: Sequence[str] = (),
) -> Iterator[tuple[Any, object]]:
    """Yield (task, result or LostTask) as they come. A worker silent for `deadline_seconds` is killed and replaced.

    `preload` names modules that are imported once for all workers. The loop ends early if `is_stopped` returns True.
    Raises RuntimeEnvironmentError if workers cannot start.
    """
    pending = iter(tasks)
    pool = [_PoolWorker(job, preload) for _ in range(workers)]
    try:
        while True:
            _assign_tasks(pool, pending)
            busy = [worker for worker in pool if worker.task is not None or not worker.is_ready]
            if not any(worker.task is not None for worker in pool) or is_stopped():
                return
            wait([worker.connection for worker in busy], timeout=_POLL_SECONDS)
            for i, worker in enumerate(pool):
                for result in worker.collect(deadline_seconds):
                    if worker.task is not None:  # an idle worker may die too
                        yield worker.finish(), result
                if worker.is_lost:
                    worker.kill()
                    pool[i] = _PoolWorker(job, preload)
    finally:
        for worker in pool:
            worker.kill()


def _assign_tasks(pool: list["_PoolWorker"], pending: Iterator[Any]) -> None:
    for worker in pool:
        if worker.task is None:
            task = next(pending, None)
            if task is None:
                return
            worker.assign(task)


class _PoolWorker:
    def __init__(self, job: PoolJob, preload: Sequence[str]) -> None:
        context = make_worker_context(preload)
        self.connection, theirs = context.Pipe()
        self.task: Any = None
        self.is_ready = self.is_alive = self.is_lost = False
        self._last_message_time = time.monotonic()
        self._process: BaseProcess = context.Process(target=_run_worker, args=(job, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def assign(self, task: Any) -> None:
        self.task, self._last_message_time = task, time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):  # `collect` finds the reason
            self.connection.send(task)

    def finish(self) -> Any:
        task, self.task = self.task, None
        return task

    def collect(self, deadline_seconds: float) -> Iterator[object]:
        """Yield the result of the task if it has come, or a LostTask if the worker hung or died."""
        try:
            while self.connection.poll():
                kind, value = self.connection.recv()
                self._last_message_time = time.monotonic()
                if kind == "ready":
                    self.is_ready = True
                    log.debug("a worker is ready")
                elif kind == "alive" and not self.is_alive:
                    self.is_alive = True
                    log.debug("a worker decoded its first frame")
                elif kind == "broken":
                    raise RuntimeEnvironmentError(f"a worker could not start: {value}")
                elif kind == "done":
                    yield value
                    return
        except (EOFError, ConnectionResetError):
            self.is_lost = True
            self._process.join(5)
            if not self.is_ready:
                raise RuntimeEnvironmentError(
                    f"a worker died while starting (exit code {self._process.exitcode})"
                ) from None
            yield LostTask("decode", f"the decoder crashed ({describe_exit(self._process.exitcode)})")
            return
        if not self.is_ready and time.monotonic() - self._last_message_time > START_TIMEOUT_SECONDS:
            raise RuntimeEnvironmentError(
                f"a worker did not start within {START_TIMEOUT_SECONDS:.0f} s; run the same command again"
            )
        if self.is_ready and self.task is not None and time.monotonic() - self._last_message_time > deadline_seconds:
            self.is_lost = True
            yield LostTask("decode", f"timeout: nothing decoded for {deadline_seconds:.0f} s")

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _run_worker(job: PoolJob, connection: Connection) -> None:
    """Do tasks until the parent closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        work = job.start()
    except Exception as error:
        connection.send(("broken", describe_missing_library(error) or f"{type(error).__name__}: {error}"))
        return
    connection.send(("ready", None))
    last_sent = 0.0

    def report_alive() -> None:
        nonlocal last_sent
        if (now := time.monotonic()) - last_sent > HEARTBEAT_SECONDS:
            last_sent = now
            connection.send(("alive", None))

    try:
        while True:
            connection.send(("done", work(connection.recv(), report_alive)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def end_with_parent() -> None:
    """End this process when its parent has ended, even if a decoder hangs."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def make_worker_context(preload: Sequence[str]) -> "ForkServerContext | SpawnContext":
    """Return the context that starts workers: a fork server if the system has one, else spawn.

    A fork server imports the modules of `preload` once, so that a replaced worker starts at once. A process has one
    fork server: the first caller decides what it imports, and the workers import the rest.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with _ignore_interrupts():
        forkserver.ensure_running()
    return context


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Start processes in this block that ignore Ctrl-C, which would make them print a traceback while they import."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def describe_exit(code: int | None) -> str:
    """Return how a process ended: the name of the signal that ended it, or its exit code."""
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
