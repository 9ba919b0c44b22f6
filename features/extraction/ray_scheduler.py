"""Scheduling on a Ray cluster: clips to workers, decoded frames to encoders, and one outcome for each clip."""

import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.errors import RuntimeEnvironmentError
from features.extraction.local_engine import MAX_WAITING_BATCHES, make_failure
from features.extraction.ray_actor_pool import ActorHandle, ActorPool, format_ray_error, raise_user_error
from features.types import Clip, Outcome
from features.utils.worker_pool import LostTask

MAX_ATTEMPTS = 3
"""Attempts for a clip that kills its worker, or is lost with its node, before it is a failure."""
NO_WORKER_TIMEOUT_SECONDS = 600.0
"""Seconds that the cluster may be without a ready worker. Starting nodes can take minutes."""
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class _ClipAttempt:
    """A clip, how many workers died with it, and whether it must be tried alone.

    When an actor dies, any of its tasks may be the cause. The cause is certain only if it had a single task, because
    the result of a task that it had just finished may be lost.
    """

    clip: Clip
    worker_deaths: int = 0
    is_exclusive: bool = False


@dataclass(frozen=True)
class _RemoteFrames:
    """A clip whose decoded frames wait on a node."""

    attempt: _ClipAttempt
    rows: int
    frames: Any  # the reference of the frames


class Scheduler:
    """Gives clips to workers and decoded frames to encoders, with bounded queues, and yields the outcomes."""

    def __init__(self, clips: Sequence[Clip], workers: ActorPool, encoders: ActorPool | None) -> None:
        self._untried = map(_ClipAttempt, clips)
        self._retries: deque[_ClipAttempt] = deque()
        self._decoded: deque[_RemoteFrames] = deque()
        self._clips_left = len(clips)
        self._workers, self._encoders = workers, encoders
        self._pools = [workers, encoders] if encoders else [workers]

    def run(self, is_stopped: Callable[[], bool]) -> Iterator[Outcome]:
        """Yield outcomes as they come, until each clip has one or `is_stopped` returns True."""
        import ray

        while self._clips_left and not is_stopped():
            for pool in self._pools:
                pool.replenish()
                _check_has_workers(pool)
            self._assign_clips()
            self._assign_batches()
            refs = [ref for pool in self._pools for ref in pool.list_refs()]
            ray.wait(refs, timeout=_POLL_SECONDS)
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            for ref in done:
                for outcome in self._handle_result(ref):
                    self._clips_left -= 1
                    yield outcome

    def _assign_clips(self) -> None:
        while not self._is_full() and (handle := self._workers.find_free_handle()):
            if self._retries and self._retries[0].is_exclusive and handle.tasks_by_ref:
                return
            attempt = self._retries.popleft() if self._retries else next(self._untried, None)
            if attempt is None:
                return
            handle.is_exclusive = attempt.is_exclusive
            clip = replace(attempt.clip, file=Path(os.path.abspath(attempt.clip.file)))
            task = pickle.dumps(clip)
            if self._encoders:
                ref, frames = handle.actor.work_for_encoder.options(num_returns=2).remote(task)
                handle.tasks_by_ref[ref] = _RemoteFrames(attempt, 0, frames)
            else:
                handle.tasks_by_ref[handle.actor.work.remote(task)] = attempt

    def _is_full(self) -> bool:
        """Return whether enough decoded rows wait to fill MAX_WAITING_BATCHES for each encoder."""
        if not self._encoders:
            return False
        return sum(decoded.rows for decoded in self._decoded) >= MAX_WAITING_BATCHES * self._encoders.batch_rows

    def _assign_batches(self) -> None:
        while self._encoders and self._decoded and (handle := self._encoders.find_free_handle()):
            batch = self._take_batch(handle.batch_rows)
            if not batch:
                return
            handle.tasks_by_ref[handle.actor.work.remote(*(decoded.frames for decoded in batch))] = batch

    def _take_batch(self, rows: int) -> list[_RemoteFrames]:
        """Remove and return decoded clips that fill a batch of `rows`, or nothing if too few are waiting.

        The last clips of the job need not fill a batch. A clip that may have killed an encoder is returned alone.
        """
        handles = self._encoders.handles if self._encoders else []
        in_work = sum(len(batch) for handle in handles for batch in handle.tasks_by_ref.values())
        is_last = self._clips_left == len(self._decoded) + in_work
        if not is_last and sum(decoded.rows for decoded in self._decoded) < rows:
            return []
        batch = [self._decoded.popleft()]
        while self._decoded and sum(decoded.rows for decoded in batch) < rows:
            if batch[0].attempt.is_exclusive or self._decoded[0].attempt.is_exclusive:
                break
            batch.append(self._decoded.popleft())
        return batch

    def _handle_result(self, ref: Any) -> Iterator[Outcome]:
        """Yield the outcomes of a finished start or task, or handle its error."""
        import ray

        if any(pool.finish_start(ref) for pool in self._pools):
            return
        holders = [(pool, handle) for pool in self._pools for handle in pool.handles if ref in handle.tasks_by_ref]
        for pool, handle in holders:  # empty if the actor was removed
            try:
                value = ray.get(ref)
            except ray.exceptions.RayError as error:
                raise_user_error(error)
                yield from self._handle_actor_death(pool, handle, ref, error)
                return
            task = handle.tasks_by_ref.pop(ref)
            yield from pickle.loads(value) if pool is self._encoders else self._handle_worker_result(task, *value)  # noqa: S301

    def _handle_worker_result(self, task: Any, rows: int, content: bytes) -> Iterator[Outcome]:
        if rows:
            self._decoded.append(replace(task, rows=rows))
            return
        outcome = pickle.loads(content)  # noqa: S301
        yield make_failure(_get_attempts(task)[0].clip, outcome) if isinstance(outcome, LostTask) else outcome

    def _handle_actor_death(
        self, pool: ActorPool, handle: ActorHandle, ref: Any, error: Exception
    ) -> Iterator[Outcome]:
        """Schedule the tasks of a lost actor again, and count the loss against the task that was in work.

        Yields the failures of clips that have used up MAX_ATTEMPTS.
        """
        import ray

        cause = getattr(error, "cause", error)
        if isinstance(cause, ray.exceptions.ObjectLostError):  # frames that were lost with their node
            lost = [handle.tasks_by_ref.pop(ref)]
        else:
            lost = pool.remove(handle)
        for waiting in lost[1:]:
            self._retries.extend(replace(attempt, is_exclusive=True) for attempt in _get_attempts(waiting))
        for attempt in _get_attempts(lost[0]):
            if attempt.worker_deaths + 1 >= MAX_ATTEMPTS:
                stage = "encode" if pool is self._encoders else "decode"
                reason = f"the {stage}r crashed (its worker was lost {MAX_ATTEMPTS} times: {format_ray_error(error)})"
                yield make_failure(attempt.clip, LostTask(stage, reason))
            else:
                self._retries.append(replace(attempt, worker_deaths=attempt.worker_deaths + 1, is_exclusive=True))


def _get_attempts(task: Any) -> list[_ClipAttempt]:
    """Return the clips of a task: one for a worker, a batch of them for an encoder."""
    if isinstance(task, _ClipAttempt):
        return [task]
    return [task.attempt] if isinstance(task, _RemoteFrames) else [decoded.attempt for decoded in task]


def _check_has_workers(pool: ActorPool) -> None:
    if time.monotonic() - pool.last_ready_at > NO_WORKER_TIMEOUT_SECONDS:
        raise RuntimeEnvironmentError(
            f"the Ray cluster gave no core for {NO_WORKER_TIMEOUT_SECONDS / 60:.0f} minutes; `ray status` shows what "
            "uses them; run the same command again to continue, finished clips are kept"
        )
