"""Scan of clips: whether each can be read, how long it is, and fingerprints of what it shows."""

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
"""Seconds without a decoded frame after which the worker of a clip is killed."""


@dataclass(frozen=True)
class ClipScan:
    """A clip with its digest, and the results of its scan."""

    clip: Clip
    duration: float  # seconds
    fingerprints: Fingerprints  # (N, 256), one row per scanned frame


@dataclass(frozen=True)
class ScanJob:
    """The work of one worker process: scan clips."""

    folder_fps: float = 25.0

    def start(self) -> Callable[[Clip, Callable[[], None]], ClipScan | Failure]:
        """Return the function that scans a clip. Libraries use one thread, because there is one process per core."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        return self._scan

    def _scan(self, clip: Clip, report_alive: Callable[[], None]) -> ClipScan | Failure:
        try:
            identified = identify(clip)
            batch = read_clip(
                identified,
                make_row_sampler(Sampling(frames=FRAMES_PER_CLIP)),
                make_grey_thumbnail,
                folder_fps=self.folder_fps,
                report_alive=report_alive,
            )
            return ClipScan(identified, batch.duration, make_fingerprints(batch.data))
        except Exception as error:
            return Failure.from_error(clip, error)


def scan_clips(
    clips: Sequence[Clip],
    *,
    workers: int | None = None,
    folder_fps: float = 25.0,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Iterator[ClipScan | Failure]:
    """Yield a scan of each clip, or a Failure if it cannot be read, in the order in which they finish.

    By default there is one worker process per core.
    """
    count = min(workers or count_cores(), len(clips))
    for clip, result in run_tasks(ScanJob(folder_fps), clips, workers=count, deadline_seconds=deadline_seconds):
        yield Failure(clip, result.stage, result.reason) if isinstance(result, LostTask) else result  # type: ignore[misc]
