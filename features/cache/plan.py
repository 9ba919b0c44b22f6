"""Plans a run: which clips are new or changed, and whether the existing cache and its parts can be used."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from features.cache.consolidate import ClipIndex, build_clip_index
from features.cache.hdf5 import CacheHeader, read_header, verify_cache
from features.cache.parts import read_parts
from features.errors import ArtifactError, DamagedCacheError
from features.sources.shards import SINGLE_SHARD, Shard
from features.sources.urls import is_url
from features.spec import FeatureSpec
from features.types import Clip
from features.utils.file_identity import read_size_and_mtime
from features.utils.files import hold_lock


@dataclass(frozen=True)
class UpdatePlan:
    """What a run is going to do."""

    output: Path
    clips: list[Clip]
    shard: Shard
    total: int  # clips of this shard
    pending: list[Clip]  # of this shard; one with a digest was extracted before, but its file seems changed
    cached: int
    failed_before: int
    damaged_parts: list[Path]
    has_parts: bool
    damage: str = ""
    """Why the existing cache is damaged, or "". A damaged cache is renamed and built again."""
    unlisted: int = 0
    """Number of clips in the cache and its parts that are not among `clips`."""


def make_plan(
    clips: Sequence[Clip], output: Path, spec: FeatureSpec, *, retry_failed: bool = False, shard: Shard = SINGLE_SHARD
) -> UpdatePlan:
    """Find the clips that are new or changed.

    Raises ArtifactError if the cache or its parts were made with other settings.
    """
    state = _read_cache_state(output, spec)
    own = [clip for clip in clips if shard.contains(clip.path)]
    pending = [
        found for clip in own if (found := _find_pending(clip, state.index, retry_failed=retry_failed)) is not None
    ]
    pending_paths = {clip.path for clip in pending}
    failed_before = sum(clip.path in state.index.failures and clip.path not in pending_paths for clip in own)
    return UpdatePlan(
        output=output,
        clips=list(clips),
        shard=shard,
        total=len(own),
        pending=pending,
        cached=len(own) - len(pending) - failed_before,
        failed_before=failed_before,
        damaged_parts=state.damaged_parts,
        has_parts=state.has_parts,
        damage=state.damage,
        unlisted=len((state.index.tracks.keys() | state.index.failures.keys()) - {clip.path for clip in clips}),
    )


@dataclass(frozen=True)
class _CacheState:
    """The clips that a cache and its parts hold, and the damage found in them."""

    index: ClipIndex
    damaged_parts: list[Path]
    has_parts: bool
    damage: str  # of the cache


def _read_cache_state(output: Path, spec: FeatureSpec, *, with_features: bool = True) -> _CacheState:
    """Read the parts and the cache, and with `with_features` verify its features too.

    Raises ArtifactError if they were made with other settings.
    """
    # Parts first: those that another process consolidates meanwhile are then found in the cache.
    parts, damaged = read_parts(output, spec)
    cache, damage = None, ""
    try:
        if output.is_file():
            cache = _read_matching_header(output, spec, with_features=with_features)
    except DamagedCacheError as error:
        damage = str(error)
    return _CacheState(build_clip_index(output, cache, parts), damaged, bool(parts or damaged), damage)


def _read_matching_header(output: Path, spec: FeatureSpec, *, with_features: bool) -> CacheHeader:
    header = read_header(output)
    if header.spec.is_imported != spec.is_imported:
        kinds = ("extracted from videos", f"of another program ({header.spec.backbone})")
        raise ArtifactError(
            f"{output} holds features {kinds[header.spec.is_imported]}; other features cannot be added to it; "
            "give another output with -o"
        )
    if differences := header.spec.differences(spec):
        raise ArtifactError(
            f"{output} was made with other settings ({'; '.join(differences)}); "
            "use those settings, or give another output with -o"
        )
    return verify_cache(output) if with_features else header


def set_aside_damaged(output: Path, spec: FeatureSpec) -> None:
    """Rename a damaged cache, unless another process has just written a new one."""
    with hold_lock(output.with_name(f".{output.name}.lock")):
        if _read_cache_state(output, spec).damage:
            os.replace(output, damaged_path(output))


def damaged_path(output: Path) -> Path:
    """Return the path under which a damaged cache is kept."""
    return output.with_name(f"{output.name}.damaged")


def count_unknown(clips: Sequence[Clip], output: Path, spec: FeatureSpec) -> int:
    """Count the clips that neither the cache nor a part holds, as a track or as a failure."""
    index = _read_cache_state(output, spec, with_features=False).index
    return sum(clip.path not in index.tracks and clip.path not in index.failures for clip in clips)


def _find_pending(clip: Clip, index: ClipIndex, *, retry_failed: bool) -> Clip | None:
    """Return the clip if it must be read, with the digest it had when it was extracted, or None if it is unchanged."""
    views, failure = index.tracks.get(clip.path, {}), index.failures.get(clip.path)
    source = next(iter(views.values()), None)
    if failure and retry_failed:
        return clip
    stored = source.row if source else vars(failure.clip) if failure else None
    if stored is None:
        return clip
    try:
        now = read_size_and_mtime(clip.file)
    except OSError:
        return clip if source and not is_url(clip.path) else None  # downloaded files may be deleted
    if now == (stored["size_bytes"], stored["mtime_ns"]):
        return None
    return replace(clip, digest=str(stored["digest"]))
