"""Results that are committed in parts as they come: by number, by size and by time."""

import time
from pathlib import Path
from types import TracebackType

from features.cache.parts import write_part
from features.spec import FeatureSpec
from features.types import ExtractedClip, Failure, FeatureTrack

MAX_PART_BYTES = 64 * 2**20
"""Features that are committed together at most, about; they are held in memory until then."""


class PartWriter:
    """Takes results, and writes a part whenever enough has come; used in a `with`, which writes the last one.

    Raises EnvironmentStopped where the disk does not take a part.
    """

    def __init__(
        self, output: Path, spec: FeatureSpec, *, weights_file: str, max_clips: int = 128, max_seconds: float = 30.0
    ) -> None:
        self._output, self._spec, self._weights_file = output, spec, weights_file
        self._max_clips, self._max_seconds = max_clips, max_seconds
        self._tracks: list[FeatureTrack] = []
        self._failures: list[Failure] = []
        self._started_at, self._clip_count, self._byte_count = time.monotonic(), 0, 0

    def add(self, result: ExtractedClip | Failure) -> None:
        """One clip's tracks, or why there are none."""
        if isinstance(result, Failure):
            self._failures.append(result)
        else:
            tracks = list(result.all_tracks())
            self._tracks += tracks
            self._byte_count += sum(track.features.nbytes for track in tracks)
        self._clip_count += 1
        is_full = self._clip_count >= self._max_clips or self._byte_count >= MAX_PART_BYTES
        if is_full or time.monotonic() - self._started_at > self._max_seconds:
            self.commit()

    def commit(self) -> None:
        """Writes what has come since the last part."""
        if self._clip_count:
            write_part(self._output, self._tracks, self._failures, spec=self._spec, weights_file=self._weights_file)
        self._tracks.clear()
        self._failures.clear()
        self._started_at, self._clip_count, self._byte_count = time.monotonic(), 0, 0

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.commit()
