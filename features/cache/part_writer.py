"""Writes extraction results in parts, each limited by number of clips, by size and by age."""

import time
from pathlib import Path
from types import TracebackType

from features.cache.parts import write_part
from features.spec import FeatureSpec
from features.types import ExtractedClip, Failure, FeatureTrack

MAX_PART_BYTES = 64 * 2**20
"""Approximate size of the features in one part. They are held in memory until the part is written."""


class PartWriter:
    """A buffer of results that writes a part whenever it is full.

    Use it in a `with` block: leaving the block writes the last part. Raises RuntimeEnvironmentError if a part cannot be
    written to disk.
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
        """Add the tracks of one clip, or the reason why it has none, and write a part if the buffer is full."""
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
        """Write everything that was added since the last part."""
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
