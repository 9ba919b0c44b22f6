"""Actors of a Ray cluster, kept at a number: the dead are replaced, those that wait for a core are given nothing."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from features.errors import RuntimeEnvironmentError, UserFacingError

RESIZE_INTERVAL_SECONDS = 5.0
"""How often a crew looks at how large it may be."""
MAX_FAILED_STARTS = 5
"""So many in a row, and not one that worked, are no accident."""


@dataclass
class ActorHandle:
    """One actor and what it was given: the first in work, the others at hand."""

    actor: Any
    start_ref: Any  # the promise that it is ready; None once it is
    batch_rows: int = 0
    is_exclusive: bool = False
    """Whether what it was given last is to have no other beside it."""
    tasks_by_ref: dict[Any, Any] = field(default_factory=dict)  # by the promise of the result


class ActorPool:
    """`make` starts an actor that has a method `ready`; `wanted` says how many there should be now."""

    def __init__(
        self,
        make_actor: Callable[[], Any],
        get_target_size: Callable[[], int],
        *,
        sample_files: Sequence[str],
        tasks_per_actor: int,
    ) -> None:
        self.handles: list[ActorHandle] = []
        self.last_ready_at = time.monotonic()
        """When somebody was last there to work."""
        self._make_actor, self._get_target_size, self._sample_files, self._tasks_per_actor = (
            make_actor,
            get_target_size,
            sample_files,
            tasks_per_actor,
        )
        self._resized_at, self._failed_starts = 0.0, 0

    @property
    def ready_handles(self) -> list[ActorHandle]:
        """Those that are ready."""
        return [member for member in self.handles if member.start_ref is None]

    @property
    def batch_rows(self) -> int:
        """What all of them together take in one batch each."""
        return sum(member.batch_rows for member in self.ready_handles)

    def list_refs(self) -> list[Any]:
        """Whatever is being waited for."""
        starting = [member.start_ref for member in self.handles if member.start_ref is not None]
        return starting + [promise for member in self.handles for promise in member.tasks_by_ref]

    def replenish(self) -> None:
        """Fills up what is missing, now and then."""
        now = time.monotonic()
        if self.ready_handles:
            self.last_ready_at = now
        if now - self._resized_at < RESIZE_INTERVAL_SECONDS:
            return
        self._resized_at = now
        for _ in range(self._get_target_size() - len(self.handles)):
            actor = self._make_actor()
            self.handles.append(ActorHandle(actor, actor.ready.remote(self._sample_files)))

    def find_free_handle(self) -> ActorHandle | None:
        """The one with the least to do, if it may be given more."""
        able = [member for member in self.ready_handles if not (member.is_exclusive and member.tasks_by_ref)]
        member = min(able, key=lambda member: len(member.tasks_by_ref), default=None)
        return member if member and len(member.tasks_by_ref) < self._tasks_per_actor else None

    def finish_start(self, ref: Any) -> bool:
        """Whether that is the promise of one that was starting; it is ready now, or gone. Raises EnvironmentStopped."""
        import ray

        member = next((member for member in self.handles if member.start_ref == ref), None)
        if member is None:
            return False
        try:
            member.batch_rows = ray.get(ref)
            member.start_ref, self._failed_starts = None, 0
        except ray.exceptions.RayError as error:
            raise_user_error(error)
            self._failed_starts += 1
            self.remove(member)
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RuntimeEnvironmentError(
                    f"workers cannot start on the Ray cluster: {format_ray_error(error)}"
                ) from error
        return True

    def remove(self, handle: ActorHandle) -> list[Any]:
        """Takes one out that is gone or broken, to be replaced at once; what it had been given, oldest first."""
        import ray

        ray.kill(handle.actor)
        self.handles.remove(handle)
        self._resized_at = 0.0
        return list(handle.tasks_by_ref.values())


def raise_user_error(error: Exception) -> None:
    """Raises what an actor of ours raised for the user."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserFacingError):
        raise cause from None


def format_ray_error(error: Exception) -> str:
    """A Ray error in one line."""
    lines = [line.strip() for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
