"""How far a worker process is with a job: a number in a small file, written a few times a second."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

NAME = "reached"
EVERY_SECONDS = 0.25


@dataclass
class Reached:
    """Written to by a worker. What the disk does not take is not missed."""

    folder: Path
    clock: Callable[[], float] = time.monotonic
    _last: float = field(default=float("-inf"))

    def __call__(self, share: float) -> None:
        """So much of the work, 0 to 1, is done."""
        if (now := self.clock()) - self._last < EVERY_SECONDS:
            return
        self._last = now
        part = self.folder / f".{NAME}"
        with suppress(OSError):
            part.write_text(f"{min(max(share, 0.0), 1.0):.4f}")
            os.replace(part, self.folder / NAME)


def read_reached(folder: Path) -> float | None:
    """How far it is; None where no worker has begun."""
    try:
        return min(max(float((folder / NAME).read_text()), 0.0), 1.0)
    except (OSError, ValueError):
        return None


def forget_reached(folder: Path) -> None:
    """Before a worker begins."""
    with suppress(OSError):
        (folder / NAME).unlink(missing_ok=True)
