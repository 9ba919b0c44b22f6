"""A pool of Ray actors: lost actors are replaced, and only actors that are ready get tasks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from features.errors import RuntimeEnvironmentError, UserFacingError

RESIZE_INTERVAL_SECONDS = 5.0
"""Seconds between two checks of the target size."""
MAX_FAILED_STARTS = 5
"""Failed starts in a row, without one that worked, after which the job stops."""


@dataclass
class ActorHandle:
    """An actor and its tasks: the first one in work, the others waiting."""

    actor: Any
    start_ref: Any  # the reference of its start; None once it is ready
    batch_rows: int = 0
    """Rows that make a batch; 0 for a worker."""
    is_exclusive: bool = False
    """Whether its latest task must be the only one that it has."""
    tasks_by_ref: dict[Any, Any] = field(default_factory=dict)  # keyed by the reference of the result


class ActorPool:
    """Actors of one kind, kept at the number that `get_target_size` returns.

    `make_actor` starts an actor, which must have a method `set_up`.
    """

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
        """Monotonic time at which an actor was last ready."""
        self._make_actor, self._get_target_size, self._sample_files, self._tasks_per_actor = (
            make_actor,
            get_target_size,
            sample_files,
            tasks_per_actor,
        )
        self._resized_at, self._failed_starts = 0.0, 0

    @property
    def ready_handles(self) -> list[ActorHandle]:
        """The handles of the actors that are ready."""
        return [handle for handle in self.handles if handle.start_ref is None]

    @property
    def batch_rows(self) -> int:
        """Rows of one batch for each ready actor, added up."""
        return sum(handle.batch_rows for handle in self.ready_handles)

    def list_refs(self) -> list[Any]:
        """Return the references that are waited for: starts and results."""
        starting = [handle.start_ref for handle in self.handles if handle.start_ref is not None]
        return starting + [ref for handle in self.handles for ref in handle.tasks_by_ref]

    def replenish(self) -> None:
        """Start the missing actors, at most once per RESIZE_INTERVAL_SECONDS unless one was removed."""
        now = time.monotonic()
        if self.ready_handles:
            self.last_ready_at = now
        if now - self._resized_at < RESIZE_INTERVAL_SECONDS:
            return
        self._resized_at = now
        for _ in range(self._get_target_size() - len(self.handles)):
            actor = self._make_actor()
            self.handles.append(ActorHandle(actor, actor.set_up.remote(self._sample_files)))

    def find_free_handle(self) -> ActorHandle | None:
        """Return the handle with the fewest tasks, or None if it may not get another one."""
        free = [handle for handle in self.ready_handles if not (handle.is_exclusive and handle.tasks_by_ref)]
        least_busy = min(free, key=lambda handle: len(handle.tasks_by_ref), default=None)
        return least_busy if least_busy and len(least_busy.tasks_by_ref) < self._tasks_per_actor else None

    def finish_start(self, ref: Any) -> bool:
        """Handle the reference of a start and return True; return False for any other reference.

        The actor is then ready, or removed. Raises RuntimeEnvironmentError after MAX_FAILED_STARTS failed starts.
        """
        import ray

        handle = next((handle for handle in self.handles if handle.start_ref == ref), None)
        if handle is None:
            return False
        try:
            handle.batch_rows = ray.get(ref)
            handle.start_ref, self._failed_starts = None, 0
        except ray.exceptions.RayError as error:
            raise_user_error(error)
            self._failed_starts += 1
            self.remove(handle)
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RuntimeEnvironmentError(
                    f"workers cannot start on the Ray cluster: {format_ray_error(error)}"
                ) from error
        return True

    def remove(self, handle: ActorHandle) -> list[Any]:
        """Remove an actor that is lost or broken and return its tasks, oldest first. It is replaced at once."""
        import ray

        ray.kill(handle.actor)
        self.handles.remove(handle)
        self._resized_at = 0.0
        return list(handle.tasks_by_ref.values())


def raise_user_error(error: Exception) -> None:
    """Raise the cause of a Ray error if an actor raised it for the user."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserFacingError):
        raise cause from None


def format_ray_error(error: Exception) -> str:
    """Return a Ray error as one line."""
    lines = [line.strip() for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
