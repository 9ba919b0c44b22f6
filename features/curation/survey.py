"""One look at each clip: can it be read, how long is it, what does it show."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import av.logging
import cv2

from features.curation.near_duplicates import FRAMES_PER_CLIP, Fingerprints, make_fingerprints, make_grey_thumbnail
from features.spec import Sampling
from features.types import Clip, Failure
from features.utils.file_identity import identify
from features.utils.worker_pool import LostTask, count_cores, run_tasks
from features.video.reader import read_clip
from features.video.sampling import make_row_sampler

DEADLINE_SECONDS = 60.0
"""How long a clip may go without a single decoded frame before its worker is killed."""


@dataclass(frozen=True)
class ClipScan:
    """A clip, its digest included, and what one look at it told."""

    clip: Clip
    duration: float  # seconds
    fingerprints: Fingerprints  # (N, 256), one row a frame that was looked at


@dataclass(frozen=True)
class ScanJob:
    """What a worker process does to one clip."""

    folder_fps: float = 25.0

    def start(self) -> Callable[[Clip, Callable[[], None]], ClipScan | Failure]:
        """Quiet, single-threaded libraries: parallelism is one process a core."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return self._scan

    def _scan(self, clip: Clip, alive: Callable[[], None]) -> ClipScan | Failure:
        try:
            now = identify(clip)
            batch = read_clip(
                now,
                make_row_sampler(Sampling(frames=FRAMES_PER_CLIP)),
                make_grey_thumbnail,
                folder_fps=self.folder_fps,
                report_alive=alive,
            )
            return ClipScan(now, batch.duration, make_fingerprints(batch.data))
        except Exception as error:
            return Failure.from_error(clip, error)


def scan_clips(
    clips: Sequence[Clip],
    *,
    workers: int | None = None,
    folder_fps: float = 25.0,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Iterator[ClipScan | Failure]:
    """A look at each clip, or why there is none, in the order they come; one worker process a core by default."""
    count = min(workers or count_cores(), len(clips))
    for clip, result in run_tasks(ScanJob(folder_fps), clips, workers=count, deadline_seconds=deadline_seconds):
        yield Failure(clip, result.stage, result.reason) if isinstance(result, LostTask) else result  # type: ignore[misc]
