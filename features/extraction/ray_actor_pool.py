"""Actors of a Ray cluster, kept at a number: the dead are replaced, those that wait for a core are given nothing."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from features.errors import EnvironmentStopped, UserFacingError

LOOK_SECONDS = 5.0
"""How often a crew looks at how large it may be."""
FAILED_STARTS = 5
"""So many in a row, and not one that worked, are no accident."""


@dataclass
class Member:
    """One actor and what it was given: the first in work, the others at hand."""

    actor: Any
    starting: Any  # the promise that it is ready; None once it is
    batch_rows: int = 0
    alone: bool = False
    """Whether what it was given last is to have no other beside it."""
    given: dict[Any, Any] = field(default_factory=dict)  # by the promise of the result


class Crew:
    """`make` starts an actor that has a method `ready`; `wanted` says how many there should be now."""

    def __init__(
        self, make: Callable[[], Any], wanted: Callable[[], int], *, samples: Sequence[str], ahead: int
    ) -> None:
        self.members: list[Member] = []
        self.worked_at = time.monotonic()
        """When somebody was last there to work."""
        self._make, self._wanted, self._samples, self._ahead = make, wanted, samples, ahead
        self._looked_at, self._failed_starts = 0.0, 0

    @property
    def working(self) -> list[Member]:
        """Those that are ready."""
        return [member for member in self.members if member.starting is None]

    @property
    def batch_rows(self) -> int:
        """What all of them together take in one batch each."""
        return sum(member.batch_rows for member in self.working)

    def promises(self) -> list[Any]:
        """Whatever is being waited for."""
        starting = [member.starting for member in self.members if member.starting is not None]
        return starting + [promise for member in self.members for promise in member.given]

    def tend(self) -> None:
        """Fills up what is missing, now and then."""
        now = time.monotonic()
        if self.working:
            self.worked_at = now
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        for _ in range(self._wanted() - len(self.members)):
            actor = self._make()
            self.members.append(Member(actor, actor.ready.remote(self._samples)))

    def free(self) -> Member | None:
        """The one with the least to do, if it may be given more."""
        able = [member for member in self.working if not (member.alone and member.given)]
        member = min(able, key=lambda member: len(member.given), default=None)
        return member if member and len(member.given) < self._ahead else None

    def started(self, promise: Any) -> bool:
        """Whether that is the promise of one that was starting; it is ready now, or gone. Raises EnvironmentStopped."""
        import ray

        member = next((member for member in self.members if member.starting == promise), None)
        if member is None:
            return False
        try:
            member.batch_rows = ray.get(promise)
            member.starting, self._failed_starts = None, 0
        except ray.exceptions.RayError as error:
            raise_ours(error)
            self._failed_starts += 1
            self.lose(member)
            if self._failed_starts >= FAILED_STARTS:
                raise EnvironmentStopped(f"workers cannot start on the Ray cluster: {reason_of(error)}") from error
        return True

    def lose(self, member: Member) -> list[Any]:
        """Takes one out that is gone or broken, to be replaced at once; what it had been given, oldest first."""
        import ray

        ray.kill(member.actor)
        self.members.remove(member)
        self._looked_at = 0.0
        return list(member.given.values())


def raise_ours(error: Exception) -> None:
    """Raises what an actor of ours raised for the user."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserFacingError):
        raise cause from None


def reason_of(error: Exception) -> str:
    """A Ray error in one line."""
    lines = [line.strip() for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
