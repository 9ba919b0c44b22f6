"""What a run would do: which clips are new or changed, and what lies in the way."""

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
    """What a run would do."""

    output: Path
    clips: list[Clip]
    shard: Shard
    total: int  # clips of this shard
    pending: list[Clip]  # of this shard; one with a digest is known, but its file looks touched
    cached: int
    failed_before: int
    damaged_parts: list[Path]
    has_parts: bool
    damage: str = ""
    """What is the matter with the cache that is there, if anything: it will be set aside and made anew."""
    unlisted: int = 0
    """Clips that cache and parts know and that are not among `clips`."""


def make_plan(
    clips: Sequence[Clip], output: Path, spec: FeatureSpec, *, retry_failed: bool = False, shard: Shard = SINGLE_SHARD
) -> UpdatePlan:
    """Which clips are new or changed. Raises ArtefactRefused where the cache or its parts have other settings."""
    known = _read_cache_state(output, spec)
    own = [clip for clip in clips if shard.contains(clip.path)]
    todo = [task for clip in own if (task := _find_pending(clip, known.index, retry_failed=retry_failed)) is not None]
    waiting = {clip.path for clip in todo}
    failed_before = sum(clip.path in known.index.failures and clip.path not in waiting for clip in own)
    return UpdatePlan(
        output=output,
        clips=list(clips),
        shard=shard,
        total=len(own),
        pending=todo,
        cached=len(own) - len(todo) - failed_before,
        failed_before=failed_before,
        damaged_parts=known.damaged_parts,
        has_parts=known.has_parts,
        damage=known.damage,
        unlisted=len((known.index.tracks.keys() | known.index.failures.keys()) - {clip.path for clip in clips}),
    )


@dataclass(frozen=True)
class _CacheState:
    """What cache and parts know of each clip, and what is the matter with them."""

    index: ClipIndex
    damaged_parts: list[Path]
    has_parts: bool
    damage: str  # of the cache


def _read_cache_state(output: Path, spec: FeatureSpec, *, with_features: bool = True) -> _CacheState:
    """Reads parts and cache, its features too where asked. Raises ArtefactRefused where they have other settings."""
    parts, damaged = read_parts(output, spec)  # before the cache, which has whatever is consolidated meanwhile
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
        kinds = ("extracted from videos", f"made elsewhere ({header.spec.backbone})")
        raise ArtifactError(
            f"{output} holds features {kinds[header.spec.is_imported]}; others cannot be added to them, "
            "give another output with -o"
        )
    if differences := header.spec.differences(spec):
        raise ArtifactError(
            f"{output} was made with other settings ({'; '.join(differences)}); "
            "use those settings, or give another output with -o"
        )
    return verify_cache(output) if with_features else header


def set_aside_damaged(output: Path, spec: FeatureSpec) -> None:
    """Renames a damaged cache, unless another process has just made a new one."""
    with hold_lock(output.with_name(f".{output.name}.lock")):
        if _read_cache_state(output, spec).damage:
            os.replace(output, damaged_path(output))


def damaged_path(output: Path) -> Path:
    """Where a damaged cache is kept."""
    return output.with_name(f"{output.name}.damaged")


def count_unknown(clips: Sequence[Clip], output: Path, spec: FeatureSpec) -> int:
    """Clips that neither the cache nor a part knows, as a track or as a failure."""
    known = _read_cache_state(output, spec, with_features=False).index
    return sum(clip.path not in known.tracks and clip.path not in known.failures for clip in clips)


def _find_pending(clip: Clip, index: ClipIndex, *, retry_failed: bool) -> Clip | None:
    """The clip if it must be looked at, with the digest it had when it was extracted; None where nothing changed."""
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
        return clip if source and not is_url(clip.path) else None  # a download may be thrown away afterwards
    if now == (stored["size_bytes"], stored["mtime_ns"]):
        return None
    return replace(clip, digest=str(stored["digest"]))
