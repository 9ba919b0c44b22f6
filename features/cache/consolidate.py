"""Consolidation: merges the existing cache and the parts of a run into one new cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.cache.hdf5 import CacheHeader, RowReader, read_header, read_width, verify_cache, write_cache
from features.cache.parts import CachePart, parts_folder, read_parts, remove_parts
from features.cache.reduction import Reduction, fit
from features.cache.tables import make_clip_table, make_failure_table, row_to_dict, row_to_failure
from features.errors import ArtifactError, RuntimeEnvironmentError, SettingsError
from features.spec import ORIGINAL_VIEW, FeatureSpec
from features.types import Clip, Failure
from features.utils.files import hold_lock, open_atomically

_MAX_LISTED_CLIPS = 5
"""Number of missing clips that a message names."""
_CLIP_OVERHEAD_BYTES = 600
"""Approximate size of a clip in the file without its features."""


@dataclass(frozen=True)
class TrackLocation:
    """Where the rows of a track are stored, and whether they are raw (in a part) or already reduced (in the cache)."""

    path: Path
    row: dict[str, object]
    is_raw: bool


@dataclass(frozen=True)
class ClipIndex:
    """The newest track or failure of each clip."""

    tracks: dict[str, dict[str, TrackLocation]]  # by clip, then by view
    failures: dict[str, Failure]


def build_clip_index(output: Path, cache: CacheHeader | None, parts: Sequence[CachePart]) -> ClipIndex:
    """Collect the newest track or failure of each clip from a cache and its parts, oldest first."""
    tracks: dict[str, dict[str, TrackLocation]] = {}
    failures: dict[str, Failure] = {}
    sources = [(output, cache, False)] if cache else []
    for path, header, is_raw in [*sources, *((part.path, part.header, True) for part in parts)]:
        for name in set(header.clips.path.tolist()):
            tracks[name] = {}
            failures.pop(name, None)
        for i in range(len(header.clips)):
            source = TrackLocation(path, row_to_dict(header.clips, i), is_raw)
            tracks[str(header.clips.path[i])][str(header.clips.view[i])] = source
        for i in range(len(header.failures)):
            failure = row_to_failure(header.failures, i)
            failures[failure.clip.path] = failure
            tracks.pop(failure.clip.path, None)
    return ClipIndex(tracks, failures)


def consolidate(
    output: Path,
    spec: FeatureSpec,
    clips: Sequence[Clip],
    *,
    weights_file: str,
    model_reduction: Reduction | None = None,
) -> CacheHeader | None:
    """Rebuild the cache from itself and its parts, and rename it into place. Return None if no clip succeeded.

    `clips` carry the current labels, groups and splits, which replace stored ones. If the cache is new, the reduction
    is fitted here unless `model_reduction` is given; afterwards it never changes. Raises RuntimeEnvironmentError if one
    of `clips` is neither in the cache nor in the parts, ArtifactError if the cache is damaged. In both cases the cache
    is not changed.
    """
    with hold_lock(output.with_name(f".{output.name}.lock")):
        parts, _ = read_parts(output, spec)
        if not parts and output.is_file() and not _needs_update(header := read_header(output), clips):
            remove_parts(output, [])
            return header  # nothing is new, or another process has just consolidated
        cache = verify_cache(output) if output.is_file() else None
        index = build_clip_index(output, cache, parts)
        _check_complete(output, index, clips)
        if not index.tracks:
            return None
        clips_by_path = {clip.path: clip for clip in clips}
        sources = [source for path in sorted(index.tracks) for _, source in sorted(index.tracks[path].items())]
        rows = [_relabel_row(source.row, clips_by_path) for source in sources]
        if cache:
            spec, reduction, fitted_on = cache.spec, cache.reduction, cache.reduction_fitted_on
        elif model_reduction:
            reduction, fitted_on = model_reduction, "model"
        else:
            reduction, fitted_on = fit_reduction(spec.reduction, sources, rows)
            spec = spec.model_copy(update={"reduction_digest": reduction.digest if reduction else ""})
        _write_new_cache(output, sources, rows, index, clips_by_path, spec, reduction, fitted_on, weights_file)
        remove_parts(output, [part.path for part in parts])
        return read_header(output)


def _needs_update(cache: CacheHeader, clips: Sequence[Clip]) -> bool:
    """Check for clips that are missing, that have new labels, groups or splits, or whose files have new times."""
    stored = {
        path: labels
        for table in (cache.failures, cache.clips)
        for path, *labels in zip(*map(list, (table.path, table.label, table.group, table.split)), strict=True)
    }
    return any(clip.digest or stored.get(clip.path) != [clip.label, clip.group, clip.split] for clip in clips)


def _check_complete(output: Path, index: ClipIndex, clips: Sequence[Clip]) -> None:
    missing = [clip.path for clip in clips if clip.path not in index.tracks and clip.path not in index.failures]
    if missing:
        more = f" and {len(missing) - _MAX_LISTED_CLIPS} more" if len(missing) > _MAX_LISTED_CLIPS else ""
        raise RuntimeEnvironmentError(
            f"parts in {parts_folder(output)} are missing or damaged; {output} was not changed; "
            f"run the same command again to extract these clips: {', '.join(missing[:_MAX_LISTED_CLIPS])}{more}"
        )


def _write_new_cache(
    output: Path,
    sources: Sequence[TrackLocation],
    rows: list[dict[str, object]],
    index: ClipIndex,
    clips_by_path: dict[str, Clip],
    spec: FeatureSpec,
    reduction: Reduction | None,
    fitted_on: str,
    weights_file: str,
) -> None:
    table = make_clip_table(rows)
    failures = [index.failures[path] for path in sorted(index.failures)]
    renamed = [Failure(_relabel_clip(f.clip, clips_by_path), f.stage, f.reason) for f in failures]
    width = reduction.width if reduction else read_width(sources[0].path)
    size_bytes = int(table.length.sum()) * (2 * width + 8) + _CLIP_OVERHEAD_BYTES * (len(rows) + len(failures))
    with open_atomically(output, size_bytes=size_bytes) as file:
        write_cache(
            file,
            reduce_tracks(sources, reduction),
            width=width,
            spec=spec,
            reduction=reduction,
            reduction_fitted_on=fitted_on,
            clips=table,
            failures=make_failure_table(renamed),
            weights_file=weights_file,
        )


def fit_reduction(
    text: str, sources: Sequence[TrackLocation], rows: Sequence[dict[str, object]]
) -> tuple[Reduction | None, str]:
    """Fit a reduction on the original view of the training split, or of all clips if there is no training split.

    `rows` are the tracks' table rows with the current labels and splits. Returns the reduction and what it was fitted
    on, `train` or `all`.
    """
    plain = [(source, r["split"]) for source, r in zip(sources, rows, strict=True) if r["view"] == ORIGINAL_VIEW]
    training = [source for source, split in plain if split == "train"]
    raw = (features for _, features, _ in _read_tracks(training or [source for source, _ in plain]))
    reduction = fit(text, raw, width=read_width(sources[0].path))
    return reduction, ("train" if training else "all") if reduction else ""


def reduce_tracks(
    sources: Sequence[TrackLocation], reduction: Reduction | None
) -> Iterator[tuple[NDArray[np.float16], NDArray[np.float64]]]:
    """Yield the features and times of each track. Raises SettingsError if reduced features overflow float16."""
    for source, features, times in _read_tracks(sources):
        if reduction and source.is_raw:
            with np.errstate(over="ignore"):
                features = reduction.apply(features)
            if not np.isfinite(features).all():
                raise SettingsError(
                    f"{reduction.kind} produces numbers beyond float16's range ({np.finfo(np.float16).max:g}) for "
                    f"'{source.row['path']}'; scale the features, or use select, which does not change them"
                )
        yield features, times


def _read_tracks(
    sources: Sequence[TrackLocation],
) -> Iterator[tuple[TrackLocation, NDArray[np.float16], NDArray[np.float64]]]:
    """Yield each track with its features (n, D) and times (n,)."""
    with RowReader() as reader:
        for source in sources:
            try:
                features, times = reader.read_track(source.path, source.row)
            except (SettingsError, ArtifactError):
                if not source.is_raw:
                    raise
                raise RuntimeEnvironmentError(
                    f"{source.path} was deleted or damaged while it was being read; run the same command again"
                ) from None
            yield source, features, times


def _relabel_row(table_row: dict[str, object], clips_by_path: dict[str, Clip]) -> dict[str, object]:
    clip = clips_by_path.get(str(table_row["path"]))
    if clip is None:
        return dict(table_row)
    return {**table_row, **_current_fields(clip, str(table_row["digest"]))}


def _relabel_clip(clip: Clip, clips_by_path: dict[str, Clip]) -> Clip:
    known = clips_by_path.get(clip.path)
    return Clip(**{**vars(clip), **_current_fields(known, clip.digest)}) if known else clip


def _current_fields(clip: Clip, digest: str) -> dict[str, Any]:
    """Return the stored columns that the current `clip` replaces.

    File size and time are replaced only if the content is still the same.
    """
    file_stat = {"size_bytes": clip.size_bytes, "mtime_ns": clip.mtime_ns} if digest and clip.digest == digest else {}
    return {"label": clip.label, "group": clip.group, "split": clip.split, **file_stat}
