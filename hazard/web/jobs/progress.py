"""The progress of a job: a number in a small file that its worker process writes a few times a second."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRESS_NAME = "reached"
WRITE_INTERVAL_SECONDS = 0.25


@dataclass
class ProgressFile:
    """The file to which a worker writes its progress. Failed writes are ignored."""

    folder: Path
    clock: Callable[[], float] = time.monotonic
    _last_write: float = field(default=float("-inf"))

    def __call__(self, share: float) -> None:
        """Write the share of the work that is done, 0 to 1."""
        if (now := self.clock()) - self._last_write < WRITE_INTERVAL_SECONDS:
            return
        self._last_write = now
        part = self.folder / f".{PROGRESS_NAME}"
        with suppress(OSError):
            part.write_text(f"{min(max(share, 0.0), 1.0):.4f}")
            os.replace(part, self.folder / PROGRESS_NAME)


def read_progress(folder: Path) -> float | None:
    """Return the share that is done, 0 to 1, or None if no worker has started."""
    try:
        return min(max(float((folder / PROGRESS_NAME).read_text()), 0.0), 1.0)
    except (OSError, ValueError):
        return None


def delete_progress(folder: Path) -> None:
    """Delete the progress of an earlier attempt."""
    with suppress(OSError):
        (folder / PROGRESS_NAME).unlink(missing_ok=True)
