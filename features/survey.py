"""One look at each clip: can it be read, how long is it, what does it show."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import av.logging
import cv2

from features.errors import ClipError
from features.footage import read_clip
from features.pool import Lost, run_tasks
from features.sampling import pick_rows
from features.similar import FRAMES, Prints, prints_of, small_grey
from features.spec import Sampling
from features.stamp import content_digest
from features.types import Clip, Failure

DEADLINE_SECONDS = 60.0
"""How long a clip may go without a single decoded frame before its worker is killed."""


@dataclass(frozen=True)
class Look:
    """A clip, its digest included, and what one look at it told."""

    clip: Clip
    duration: float  # seconds
    prints: Prints  # (N, 256), one row a frame that was looked at


@dataclass(frozen=True)
class LookJob:
    """What a worker process does to one clip."""

    folder_fps: float = 25.0

    def start(self) -> Callable[[Clip, Callable[[], None]], Look | Failure]:
        """Quiet, single-threaded libraries: parallelism is one process a core."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        digest_of = lru_cache(maxsize=8)(content_digest)  # the parts of one long video come one after the other
        return lambda clip, alive: self._look(clip, alive, digest_of)

    def _look(self, clip: Clip, alive: Callable[[], None], digest_of: Callable[[Path], str]) -> Look | Failure:
        try:
            batch = read_clip(
                clip,
                pick_rows(Sampling(kind="even", frames=FRAMES)),
                small_grey,
                folder_fps=self.folder_fps,
                alive=alive,
            )
            return Look(replace(clip, digest=digest_of(clip.file)), batch.duration, prints_of(batch.data))
        except ClipError as error:
            return Failure(clip, error.stage, error.reason)
        except OSError as error:
            return Failure(clip, "open", (error.strerror or str(error)).lower())
        except MemoryError:
            return Failure(clip, "decode", "out of memory")
        except Exception as error:  # whatever a file holds, it must not end the walk
            return Failure(clip, "internal", f"{type(error).__name__}: {error}".splitlines()[0])


def survey_clips(
    clips: Sequence[Clip],
    *,
    workers: int | None = None,
    folder_fps: float = 25.0,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Iterator[Look | Failure]:
    """A look at each clip, or why there is none, in the order they come; one worker process a core by default."""
    count = min(workers or _cores(), len(clips))
    for clip, result in run_tasks(LookJob(folder_fps), clips, workers=count, deadline_seconds=deadline_seconds):
        yield Failure(clip, result.stage, result.reason) if isinstance(result, Lost) else result  # type: ignore[misc]


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
