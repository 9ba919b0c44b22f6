"""Clips to the workers of a Ray cluster, what they decoded to its encoders, and what became of each clip."""

import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.errors import EnvironmentStopped
from features.extraction.local_engine import BATCHES_AHEAD, failure_of
from features.extraction.ray_actor_pool import Crew, Member, raise_ours, reason_of
from features.types import Clip, Outcome
from features.utils.worker_pool import Lost

ATTEMPTS = 3
"""How often a clip may take its worker, or its worker's node, with it."""
PATIENCE_SECONDS = 600.0
"""How long the cluster may be without a single worker that works: nodes may have to be started."""
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class _Try:
    """A clip, how often it took its worker with it, and whether it is to be tried with no other beside it.

    Of all that an actor was given when it died, any may be the reason: what it was doing is only known where that was
    the only one, for what it had just done may be lost on the way.
    """

    clip: Clip
    deaths: int = 0
    alone: bool = False


@dataclass(frozen=True)
class _Decoded:
    """A clip whose frames wait on some node."""

    trial: _Try
    rows: int
    frames: Any  # the promise of them


class Schedule:
    """Gives clips to workers and what they decoded to encoders, never more than is bounded, and takes what comes."""

    def __init__(self, clips: Sequence[Clip], workers: Crew, encoders: Crew | None) -> None:
        self._fresh = map(_Try, clips)
        self._again: deque[_Try] = deque()
        self._decoded: deque[_Decoded] = deque()
        self._left = len(clips)
        self._workers, self._encoders = workers, encoders
        self._crews = [workers, encoders] if encoders else [workers]

    def run(self, is_stopped: Callable[[], bool]) -> Iterator[Outcome]:
        """Outcomes as they come, until each clip has one or somebody stops it."""
        import ray

        while self._left and not is_stopped():
            for crew in self._crews:
                crew.tend()
                _check_patience(crew)
            self._give_clips()
            self._give_batches()
            promises = [promise for crew in self._crews for promise in crew.promises()]
            ray.wait(promises, timeout=_POLL_SECONDS)
            done, _ = ray.wait(promises, num_returns=len(promises), timeout=0)
            for promise in done:
                for outcome in self._take(promise):
                    self._left -= 1
                    yield outcome

    def _give_clips(self) -> None:
        while not self._is_full() and (member := self._workers.free()):
            if self._again and self._again[0].alone and member.given:
                return
            trial = self._again.popleft() if self._again else next(self._fresh, None)
            if trial is None:
                return
            member.alone = trial.alone
            clip = replace(trial.clip, file=Path(os.path.abspath(trial.clip.file)))
            task = pickle.dumps(clip)
            if self._encoders:
                promise, frames = member.actor.work_for_encoder.options(num_returns=2).remote(task)
                member.given[promise] = _Decoded(trial, 0, frames)
            else:
                member.given[member.actor.work.remote(task)] = trial

    def _is_full(self) -> bool:
        """Whether as much is decoded as the encoders take for a while."""
        if not self._encoders:
            return False
        return sum(decoded.rows for decoded in self._decoded) >= BATCHES_AHEAD * self._encoders.batch_rows

    def _give_batches(self) -> None:
        while self._encoders and self._decoded and (member := self._encoders.free()):
            batch = self._next_batch(member.batch_rows)
            if not batch:
                return
            member.given[member.actor.work.remote(*(decoded.frames for decoded in batch))] = batch

    def _next_batch(self, rows: int) -> list[_Decoded]:
        """Decoded clips that make a batch; the last ones without; one that may have taken an encoder with it alone."""
        members = self._encoders.members if self._encoders else []
        is_last = self._left == len(self._decoded) + sum(len(batch) for m in members for batch in m.given.values())
        if not is_last and sum(decoded.rows for decoded in self._decoded) < rows:
            return []
        batch = [self._decoded.popleft()]
        while self._decoded and sum(decoded.rows for decoded in batch) < rows:
            if batch[0].trial.alone or self._decoded[0].trial.alone:
                break
            batch.append(self._decoded.popleft())
        return batch

    def _take(self, promise: Any) -> Iterator[Outcome]:
        """What a kept or broken promise gives."""
        import ray

        if any(crew.started(promise) for crew in self._crews):
            return
        holders = [(crew, m) for crew in self._crews for m in crew.members if promise in m.given]
        for crew, member in holders:  # none, where its actor is known to be gone
            try:
                value = ray.get(promise)
            except ray.exceptions.RayError as error:
                raise_ours(error)
                yield from self._after_death(crew, member, promise, error)
                return
            given = member.given.pop(promise)
            yield from pickle.loads(value) if crew is self._encoders else self._worked(given, *value)  # noqa: S301

    def _worked(self, given: Any, rows: int, content: bytes) -> Iterator[Outcome]:
        if rows:
            self._decoded.append(replace(given, rows=rows))
            return
        outcome = pickle.loads(content)  # noqa: S301
        yield failure_of(_trials(given)[0].clip, outcome) if isinstance(outcome, Lost) else outcome

    def _after_death(self, crew: Crew, member: Member, promise: Any, error: Exception) -> Iterator[Outcome]:
        """Everything that went with an actor is tried again; what it was just doing is counted against the clip."""
        import ray

        if isinstance(
            getattr(error, "cause", error), ray.exceptions.ObjectLostError
        ):  # frames, with the node they lay on
            lost = [member.given.pop(promise)]
        else:
            lost = crew.lose(member)
        for at_hand in lost[1:]:
            self._again.extend(replace(trial, alone=True) for trial in _trials(at_hand))
        for trial in _trials(lost[0]):
            if trial.deaths + 1 >= ATTEMPTS:
                said = f"the decoder crashed (it took its worker with it {ATTEMPTS} times: {reason_of(error)})"
                yield failure_of(trial.clip, Lost("encode" if crew is self._encoders else "decode", said))
            else:
                self._again.append(replace(trial, deaths=trial.deaths + 1, alone=True))


def _trials(given: Any) -> list[_Try]:
    """The clips of whatever an actor was given."""
    if isinstance(given, _Try):
        return [given]
    return [given.trial] if isinstance(given, _Decoded) else [decoded.trial for decoded in given]


def _check_patience(crew: Crew) -> None:
    if time.monotonic() - crew.worked_at > PATIENCE_SECONDS:
        raise EnvironmentStopped(
            f"the Ray cluster gave no core for {PATIENCE_SECONDS / 60:.0f} minutes; `ray status` says who holds them; "
            "run the same command again, finished work is kept"
        )
