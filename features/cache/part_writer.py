"""Results that are committed in parts as they come: by number, by size and by time."""

import time
from pathlib import Path
from types import TracebackType

from features.cache.parts import write_part
from features.spec import FeatureSpec
from features.types import Extracted, Failure, FeatureTrack

PART_BYTES = 64 * 2**20
"""Features that are committed together at most, about; they are held in memory until then."""


class PartWriter:
    """Takes results, and writes a part whenever enough has come; used in a `with`, which writes the last one.

    Raises EnvironmentStopped where the disk does not take a part.
    """

    def __init__(
        self, output: Path, spec: FeatureSpec, *, weights_file: str, clips: int = 128, seconds: float = 30.0
    ) -> None:
        self._output, self._spec, self._weights_file = output, spec, weights_file
        self._clips_a_part, self._seconds_a_part = clips, seconds
        self._tracks: list[FeatureTrack] = []
        self._failures: list[Failure] = []
        self._since, self._clips, self._bytes = time.monotonic(), 0, 0

    def add(self, result: Extracted | Failure) -> None:
        """One clip's tracks, or why there are none."""
        if isinstance(result, Failure):
            self._failures.append(result)
        else:
            tracks = list(result.all_tracks())
            self._tracks += tracks
            self._bytes += sum(track.features.nbytes for track in tracks)
        self._clips += 1
        is_full = self._clips >= self._clips_a_part or self._bytes >= PART_BYTES
        if is_full or time.monotonic() - self._since > self._seconds_a_part:
            self.commit()

    def commit(self) -> None:
        """Writes what has come since the last part."""
        if self._clips:
            write_part(self._output, self._tracks, self._failures, spec=self._spec, weights_file=self._weights_file)
        self._tracks.clear()
        self._failures.clear()
        self._since, self._clips, self._bytes = time.monotonic(), 0, 0

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.commit()
