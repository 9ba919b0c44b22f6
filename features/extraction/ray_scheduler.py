"""Clips to the workers of a Ray cluster, what they decoded to its encoders, and what became of each clip."""

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
"""How often a clip may take its worker, or its worker's node, with it."""
NO_WORKER_TIMEOUT_SECONDS = 600.0
"""How long the cluster may be without a single worker that works: nodes may have to be started."""
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class _ClipAttempt:
    """A clip, how often it took its worker with it, and whether it is to be tried with no other beside it.

    Of all that an actor was given when it died, any may be the reason: what it was doing is only known where that was
    the only one, for what it had just done may be lost on the way.
    """

    clip: Clip
    worker_deaths: int = 0
    is_exclusive: bool = False


@dataclass(frozen=True)
class _RemoteFrames:
    """A clip whose frames wait on some node."""

    attempt: _ClipAttempt
    rows: int
    frames: Any  # the promise of them


class Scheduler:
    """Gives clips to workers and what they decoded to encoders, never more than is bounded, and takes what comes."""

    def __init__(self, clips: Sequence[Clip], workers: ActorPool, encoders: ActorPool | None) -> None:
        self._untried = map(_ClipAttempt, clips)
        self._retries: deque[_ClipAttempt] = deque()
        self._decoded: deque[_RemoteFrames] = deque()
        self._clips_left = len(clips)
        self._workers, self._encoders = workers, encoders
        self._pools = [workers, encoders] if encoders else [workers]

    def run(self, is_stopped: Callable[[], bool]) -> Iterator[Outcome]:
        """Outcomes as they come, until each clip has one or somebody stops it."""
        import ray

        while self._clips_left and not is_stopped():
            for crew in self._pools:
                crew.replenish()
                _check_has_workers(crew)
            self._assign_clips()
            self._assign_batches()
            promises = [promise for crew in self._pools for promise in crew.list_refs()]
            ray.wait(promises, timeout=_POLL_SECONDS)
            done, _ = ray.wait(promises, num_returns=len(promises), timeout=0)
            for promise in done:
                for outcome in self._handle_result(promise):
                    self._clips_left -= 1
                    yield outcome

    def _assign_clips(self) -> None:
        while not self._is_full() and (member := self._workers.find_free_handle()):
            if self._retries and self._retries[0].is_exclusive and member.tasks_by_ref:
                return
            trial = self._retries.popleft() if self._retries else next(self._untried, None)
            if trial is None:
                return
            member.is_exclusive = trial.is_exclusive
            clip = replace(trial.clip, file=Path(os.path.abspath(trial.clip.file)))
            task = pickle.dumps(clip)
            if self._encoders:
                promise, frames = member.actor.work_for_encoder.options(num_returns=2).remote(task)
                member.tasks_by_ref[promise] = _RemoteFrames(trial, 0, frames)
            else:
                member.tasks_by_ref[member.actor.work.remote(task)] = trial

    def _is_full(self) -> bool:
        """Whether as much is decoded as the encoders take for a while."""
        if not self._encoders:
            return False
        return sum(decoded.rows for decoded in self._decoded) >= MAX_WAITING_BATCHES * self._encoders.batch_rows

    def _assign_batches(self) -> None:
        while self._encoders and self._decoded and (member := self._encoders.find_free_handle()):
            batch = self._take_batch(member.batch_rows)
            if not batch:
                return
            member.tasks_by_ref[member.actor.work.remote(*(decoded.frames for decoded in batch))] = batch

    def _take_batch(self, rows: int) -> list[_RemoteFrames]:
        """Decoded clips that make a batch; the last ones without; one that may have taken an encoder with it alone."""
        members = self._encoders.handles if self._encoders else []
        is_last = self._clips_left == len(self._decoded) + sum(
            len(batch) for m in members for batch in m.tasks_by_ref.values()
        )
        if not is_last and sum(decoded.rows for decoded in self._decoded) < rows:
            return []
        batch = [self._decoded.popleft()]
        while self._decoded and sum(decoded.rows for decoded in batch) < rows:
            if batch[0].attempt.is_exclusive or self._decoded[0].attempt.is_exclusive:
                break
            batch.append(self._decoded.popleft())
        return batch

    def _handle_result(self, ref: Any) -> Iterator[Outcome]:
        """What a kept or broken promise gives."""
        import ray

        if any(crew.finish_start(ref) for crew in self._pools):
            return
        holders = [(crew, m) for crew in self._pools for m in crew.handles if ref in m.tasks_by_ref]
        for crew, member in holders:  # none, where its actor is known to be gone
            try:
                value = ray.get(ref)
            except ray.exceptions.RayError as error:
                raise_user_error(error)
                yield from self._handle_actor_death(crew, member, ref, error)
                return
            given = member.tasks_by_ref.pop(ref)
            yield from pickle.loads(value) if crew is self._encoders else self._handle_worker_result(given, *value)  # noqa: S301

    def _handle_worker_result(self, task: Any, rows: int, content: bytes) -> Iterator[Outcome]:
        if rows:
            self._decoded.append(replace(task, rows=rows))
            return
        outcome = pickle.loads(content)  # noqa: S301
        yield make_failure(_get_attempts(task)[0].clip, outcome) if isinstance(outcome, LostTask) else outcome

    def _handle_actor_death(
        self, pool: ActorPool, handle: ActorHandle, ref: Any, error: Exception
    ) -> Iterator[Outcome]:
        """Everything that went with an actor is tried again; what it was just doing is counted against the clip."""
        import ray

        if isinstance(
            getattr(error, "cause", error), ray.exceptions.ObjectLostError
        ):  # frames, with the node they lay on
            lost = [handle.tasks_by_ref.pop(ref)]
        else:
            lost = pool.remove(handle)
        for at_hand in lost[1:]:
            self._retries.extend(replace(trial, is_exclusive=True) for trial in _get_attempts(at_hand))
        for trial in _get_attempts(lost[0]):
            if trial.worker_deaths + 1 >= MAX_ATTEMPTS:
                said = (
                    f"the decoder crashed (it took its worker with it {MAX_ATTEMPTS} times: {format_ray_error(error)})"
                )
                yield make_failure(trial.clip, LostTask("encode" if pool is self._encoders else "decode", said))
            else:
                self._retries.append(replace(trial, worker_deaths=trial.worker_deaths + 1, is_exclusive=True))


def _get_attempts(task: Any) -> list[_ClipAttempt]:
    """The clips of whatever an actor was given."""
    if isinstance(task, _ClipAttempt):
        return [task]
    return [task.attempt] if isinstance(task, _RemoteFrames) else [decoded.trial for decoded in task]


def _check_has_workers(pool: ActorPool) -> None:
    if time.monotonic() - pool.last_ready_at > NO_WORKER_TIMEOUT_SECONDS:
        raise RuntimeEnvironmentError(
            f"the Ray cluster gave no core for {NO_WORKER_TIMEOUT_SECONDS / 60:.0f} minutes; `ray status` says who holds them; "
            "run the same command again, finished work is kept"
        )
