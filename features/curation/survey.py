"""One look at each clip: can it be read, how long is it, what does it show."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import av.logging
import cv2

from features.curation.near_duplicates import FRAMES, Prints, prints_of, small_grey
from features.spec import Sampling
from features.types import Clip, Failure
from features.utils.file_identity import stamped
from features.utils.worker_pool import Lost, cores, run_tasks
from features.video.reader import read_clip
from features.video.sampling import pick_rows

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
        return self._look

    def _look(self, clip: Clip, alive: Callable[[], None]) -> Look | Failure:
        try:
            now = stamped(clip)
            batch = read_clip(
                now, pick_rows(Sampling(frames=FRAMES)), small_grey, folder_fps=self.folder_fps, alive=alive
            )
            return Look(now, batch.duration, prints_of(batch.data))
        except Exception as error:
            return Failure.of(clip, error)


def survey_clips(
    clips: Sequence[Clip],
    *,
    workers: int | None = None,
    folder_fps: float = 25.0,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Iterator[Look | Failure]:
    """A look at each clip, or why there is none, in the order they come; one worker process a core by default."""
    count = min(workers or cores(), len(clips))
    for clip, result in run_tasks(LookJob(folder_fps), clips, workers=count, deadline_seconds=deadline_seconds):
        yield Failure(clip, result.stage, result.reason) if isinstance(result, Lost) else result  # type: ignore[misc]
