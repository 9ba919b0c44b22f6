"""What a cache and the parts beside it know of clips already, for whoever needs features and not a cache."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.cache.consolidate import Merged, Source, merge
from features.cache.hdf5 import Header, RowReader, verify_cache
from features.cache.parts import read_parts
from features.cache.reduction import Reduction
from features.errors import ArtefactRefused
from features.sources.urls import is_address
from features.spec import PLAIN, FeatureSpec
from features.types import Clip, Extracted, Failure, FeatureTrack, WindowTracks, part_of
from features.utils.file_identity import size_and_time
from features.video.windows import Windows, window_spans


@dataclass
class Lookup:
    """Finds clips in a cache and its parts. Used in a `with`, for the files stay open."""

    spec: FeatureSpec
    """Of what may be added to the cache."""
    known: Merged
    reduction: Reduction | None
    reader: RowReader

    def find(self, clip: Clip, windows: Windows | None = None) -> Extracted | Failure | None:
        """The clip's *reduced* features, its windows' where it is cut, or its failure; None where it must be read.

        A clip whose file has another size or time than the cache knows must be read.
        """
        failure = self.known.failures.get(clip.path)
        if failure:
            known = vars(failure.clip)
            return Failure(_stamped(clip, known), failure.stage, failure.reason) if _is_current(clip, known) else None
        whole = self._source(clip.path)
        if whole is None or not _is_current(clip, whole.row):
            return None
        clip = _stamped(clip, whole.row)
        duration = float(str(whole.row["duration"]))
        if windows and windows.cuts(duration):
            found = self._windows(clip, whole, window_spans(clip.start_seconds, clip.start_seconds + duration, windows))
            return Extracted((), 0.0, 0.0, windows=found) if found else None
        features, times = self._read(whole)
        share = float(str(whole.row["decoded_share"]))
        return Extracted((FeatureTrack(clip, features, times, duration, decoded_share=share),), 0.0, 0.0)

    def _windows(self, clip: Clip, whole: Source, spans: NDArray[np.float64]) -> WindowTracks | None:
        """All windows of a video; None where one is missing, or of another version of the file."""
        sources = [self._source(part_of(clip.file_path, start, end)) for start, end in spans.tolist()]
        there = [source for source in sources if source and source.row["digest"] == whole.row["digest"]]
        if len(there) < len(spans):
            return None
        each = [self._read(source) for source in there]
        ends = np.cumsum([len(times) for _, times in each])
        starts = spans[:, 0] - clip.start_seconds
        return WindowTracks(
            clip=clip,
            features=np.concatenate([features for features, _ in each]),
            times=np.concatenate([times + start for (_, times), start in zip(each, starts, strict=True)]),
            spans=spans,
            rows=tuple(np.split(np.arange(ends[-1]), ends[:-1])),
            duration=float(str(whole.row["duration"])),
            decoded_share=float(str(whole.row["decoded_share"])),
        )

    def _source(self, path: str) -> Source | None:
        return self.known.tracks.get(path, {}).get(PLAIN)

    def _read(self, source: Source) -> tuple[NDArray[np.float16], NDArray[np.float64]]:
        features, times = self.reader.read_track(source.path, source.row)
        return (self.reduction.apply(features) if self.reduction and source.is_raw else features), times

    def __enter__(self) -> "Lookup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.reader.__exit__()


def open_lookup(output: Path, spec: FeatureSpec, reduction: Reduction | None) -> Lookup:
    """What `output`, which need not be there yet, knows of the features that `spec` and its fitted reduction make.

    Raises ArtefactRefused where the cache is damaged, or holds other features; its further views do not matter.
    """
    cache = _checked(output, spec) if output.exists() else None
    own = cache.spec if cache else spec
    parts, _ = read_parts(output, own) if output.parent.is_dir() else ([], [])
    return Lookup(own, merge(output, cache, parts), reduction, RowReader())


def _checked(output: Path, spec: FeatureSpec) -> Header:
    cache = verify_cache(output)
    if differences := cache.spec.plain().differences(spec):
        raise ArtefactRefused(
            f"{output} holds other features than the model was trained on ({'; '.join(differences)}); "
            "give the cache of that model, or a new path"
        )
    return cache


def _stamped(clip: Clip, row: Mapping[str, Any]) -> Clip:
    """The clip with what the cache knows its file by."""
    return replace(clip, digest=row["digest"], size_bytes=row["size_bytes"], mtime_ns=row["mtime_ns"])


def _is_current(clip: Clip, row: dict[str, object]) -> bool:
    try:
        return size_and_time(clip.file) == (row["size_bytes"], row["mtime_ns"])
    except OSError:
        return is_address(clip.path)  # a download may be thrown away afterwards
