"""Reads features of known clips from a cache and its parts, for callers that need features but write no cache."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.cache.consolidate import ClipIndex, TrackLocation, build_clip_index
from features.cache.hdf5 import CacheHeader, RowReader, verify_cache
from features.cache.parts import read_parts
from features.cache.reduction import Reduction
from features.errors import ArtifactError
from features.sources.urls import is_url
from features.spec import ORIGINAL_VIEW, FeatureSpec
from features.types import Clip, ExtractedClip, Failure, FeatureTrack, WindowTracks, add_time_fragment
from features.utils.file_identity import read_size_and_mtime
from features.video.windows import Windowing, window_spans


@dataclass
class FeatureLookup:
    """Finds clips in a cache and its parts. Use it in a `with` block: the files stay open until its end."""

    spec: FeatureSpec
    """Settings of the features that may be added to the cache."""
    index: ClipIndex
    reduction: Reduction | None
    reader: RowReader

    def find(self, clip: Clip, windows: Windowing | None = None) -> ExtractedClip | Failure | None:
        """Return the clip's *reduced* features, or those of its windows if it is split, or its recorded failure.

        Returns None if the clip must be read: it is unknown, or its file has another size or modification time than
        recorded.
        """
        failure = self.index.failures.get(clip.path)
        if failure:
            stored = vars(failure.clip)
            if not _is_current(clip, stored):
                return None
            return Failure(_copy_file_identity(clip, stored), failure.stage, failure.reason)
        whole = self._find_location(clip.path)
        if whole is None or not _is_current(clip, whole.row):
            return None
        clip = _copy_file_identity(clip, whole.row)
        duration = float(str(whole.row["duration"]))
        if windows and windows.splits_into_windows(duration):
            found = self._find_windows(
                clip, whole, window_spans(clip.start_seconds, clip.start_seconds + duration, windows)
            )
            return ExtractedClip((), 0.0, 0.0, windows=found) if found else None
        features, times = self._read_features(whole)
        share = float(str(whole.row["decoded_share"]))
        return ExtractedClip((FeatureTrack(clip, features, times, duration, decoded_share=share),), 0.0, 0.0)

    def _find_windows(self, clip: Clip, location: TrackLocation, spans: NDArray[np.float64]) -> WindowTracks | None:
        """Return all windows of a video, or None if one is missing or belongs to another version of the file."""
        sources = [self._find_location(add_time_fragment(clip.file_path, start, end)) for start, end in spans.tolist()]
        found = [source for source in sources if source and source.row["digest"] == location.row["digest"]]
        if len(found) < len(spans):
            return None
        windows = [self._read_features(source) for source in found]
        ends = np.cumsum([len(times) for _, times in windows])
        starts = spans[:, 0] - clip.start_seconds
        return WindowTracks(
            clip=clip,
            features=np.concatenate([features for features, _ in windows]),
            times=np.concatenate([times + start for (_, times), start in zip(windows, starts, strict=True)]),
            spans=spans,
            rows=tuple(np.split(np.arange(ends[-1]), ends[:-1])),
            duration=float(str(location.row["duration"])),
            decoded_share=float(str(location.row["decoded_share"])),
        )

    def _find_location(self, path: str) -> TrackLocation | None:
        return self.index.tracks.get(path, {}).get(ORIGINAL_VIEW)

    def _read_features(self, source: TrackLocation) -> tuple[NDArray[np.float16], NDArray[np.float64]]:
        features, times = self.reader.read_track(source.path, source.row)
        return (self.reduction.apply(features) if self.reduction and source.is_raw else features), times

    def __enter__(self) -> "FeatureLookup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.reader.__exit__()


def open_lookup(output: Path, spec: FeatureSpec, reduction: Reduction | None) -> FeatureLookup:
    """Open the cache `output`, which need not exist yet, to look up features made with `spec` and its fitted reduction.

    Raises ArtifactError if the cache is damaged or holds different features. Additional augmentation views do not
    matter.
    """
    cache = _verify_matching_cache(output, spec) if output.exists() else None
    own = cache.spec if cache else spec
    parts, _ = read_parts(output, own) if output.parent.is_dir() else ([], [])
    return FeatureLookup(own, build_clip_index(output, cache, parts), reduction, RowReader())


def _verify_matching_cache(output: Path, spec: FeatureSpec) -> CacheHeader:
    cache = verify_cache(output)
    if differences := cache.spec.without_augmentation().differences(spec):
        raise ArtifactError(
            f"{output} holds different features from those the model was trained on ({'; '.join(differences)}); "
            "give that model's cache, or a new path"
        )
    return cache


def _copy_file_identity(clip: Clip, row: Mapping[str, Any]) -> Clip:
    """Return the clip with the digest, size and modification time that the cache recorded."""
    return replace(clip, digest=row["digest"], size_bytes=row["size_bytes"], mtime_ns=row["mtime_ns"])


def _is_current(clip: Clip, row: dict[str, object]) -> bool:
    try:
        return read_size_and_mtime(clip.file) == (row["size_bytes"], row["mtime_ns"])
    except OSError:
        return is_url(clip.path)  # downloaded files may be deleted
