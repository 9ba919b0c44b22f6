"""The batch job: clips to a cache. Resumable, with a failure ledger."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from features.addresses import is_address
from features.backbones import get_backbone
from features.cache import Header, read_header, verify_cache
from features.config import ExtractSettings
from features.consolidate import Merged, consolidate, merge
from features.encoder import pooled_width
from features.engines import check_engine, run_engine
from features.errors import ArtefactRefused, DamagedCache, SettingsError
from features.files import check_writable, locked
from features.jobs import Extracted, Unchanged
from features.network import Backbone
from features.parts import read_parts, write_part
from features.progress import progress_bar
from features.reduction import parse
from features.shards import WHOLE, Shard
from features.spec import FeatureSpec, Sampling
from features.stamp import size_and_time
from features.stream import Outcome
from features.types import Clip, Failure, FeatureTrack
from features.views import check_views
from features.weights import find_weights, weights_digest

DEFAULT_FRAMES = 12
PART_BYTES = 64 * 2**20
"""Features that are committed together at most, about; they are held in memory until then."""

Produce = Callable[[Sequence[Clip]], Iterable[Outcome]]
"""From the clips that must be looked at to what becomes of each, as they come."""


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    output: Path
    clips: list[Clip]
    shard: Shard
    total: int  # clips of this shard
    todo: list[Clip]  # of this shard; one with a digest is known, but its file looks touched
    kept: int
    failed_before: int
    damaged_parts: list[Path]
    has_parts: bool
    damage: str = ""
    """What is the matter with the cache that is there, if anything: it will be set aside and made anew."""
    others: int = 0
    """Clips that cache and parts know and that are not among `clips`."""


@dataclass
class Summary:
    """What a run did. The counts are of its shard's clips."""

    shard: Shard
    total: int
    kept: int
    failed_before: int = 0
    extracted: int = 0
    partial: int = 0
    frames: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0
    is_stopped: bool = False
    source_clips: int = 0
    unknown: int = 0  # clips of the source that other shards still owe
    header: Header | None = None

    @property
    def failed(self) -> int:
        """How many clips failed in this run."""
        return sum(self.failures.values())


def build_spec(settings: ExtractSettings) -> tuple[FeatureSpec, Path | None]:
    """The spec that the settings ask for, and the weights' file. Raises where a name or the weights are wrong."""
    backbone = get_backbone(settings.backbone)
    parse(settings.reduce, width=pooled_width(settings.backbone, settings.pooling))
    weights = find_weights(settings.backbone, settings.weights)
    sampling = _sampling(settings, backbone)
    spec = FeatureSpec(
        sampling=sampling,
        preprocessing=backbone.preprocessing.model_copy(update={"fit": settings.fit} if settings.fit else {}),
        backbone=settings.backbone,
        weights="random" if weights is None else "pretrained",
        weights_digest=weights_digest(settings.backbone, weights),
        pooling=settings.pooling,
        precision=settings.precision,
        views=check_views(settings.views, sampling),
        reduction=settings.reduce,
    )
    return spec, weights


def _sampling(settings: ExtractSettings, backbone: Backbone) -> Sampling:
    """The one way of sampling that the settings ask for. Raises SettingsError where they ask for two."""
    asked = {
        "fps": settings.fps is not None and not backbone.snippet,
        "every": settings.every is not None,
        "all_frames": settings.all_frames,
        "window_seconds": settings.window_seconds is not None,
    }
    names = [name for name, is_asked in asked.items() if is_asked]
    if backbone.snippet and names:
        raise SettingsError(
            f"backbone '{settings.backbone}' looks at snippets: set frames, fps or stride_seconds, not {names[0]}"
        )
    if len(names) > 1:
        raise SettingsError(f"give either {' or '.join(names)}, not both")
    common: dict[str, Any] = {"folder_fps": settings.folder_fps}
    if backbone.snippet:
        frames, fps = settings.frames or backbone.snippet[0], settings.fps or backbone.snippet[1]
        stride = settings.stride_seconds or frames / fps / 2
        return Sampling(kind="snippets", frames=frames, fps=fps, stride_seconds=stride, **common)
    if settings.fps is not None:
        return Sampling(kind="rate", frames=None, fps=settings.fps, **common)
    if settings.every is not None:
        return Sampling(kind="every", frames=None, every=settings.every, **common)
    if settings.all_frames:
        return Sampling(kind="all", frames=None, **common)
    frames = settings.frames or DEFAULT_FRAMES
    if settings.window_seconds is None:
        return Sampling(frames=frames, **common)
    stride = settings.stride_seconds or settings.window_seconds / 2
    return Sampling(
        kind="windows", frames=frames, window_seconds=settings.window_seconds, stride_seconds=stride, **common
    )


def make_plan(
    clips: Sequence[Clip], output: Path, spec: FeatureSpec, *, retry_failed: bool = False, shard: Shard = WHOLE
) -> Plan:
    """Which clips are new or changed. Raises ArtefactRefused where the cache or its parts have other settings."""
    known = _known(output, spec)
    own = [clip for clip in clips if shard.takes(clip.path)]
    todo = [task for clip in own if (task := _task(clip, known.clips, retry_failed=retry_failed)) is not None]
    waiting = {clip.path for clip in todo}
    failed_before = sum(clip.path in known.clips.failures and clip.path not in waiting for clip in own)
    return Plan(
        output=output,
        clips=list(clips),
        shard=shard,
        total=len(own),
        todo=todo,
        kept=len(own) - len(todo) - failed_before,
        failed_before=failed_before,
        damaged_parts=known.damaged_parts,
        has_parts=known.has_parts,
        damage=known.damage,
        others=len((known.clips.tracks.keys() | known.clips.failures.keys()) - {clip.path for clip in clips}),
    )


@dataclass(frozen=True)
class _Known:
    """What cache and parts know of each clip, and what is the matter with them."""

    clips: Merged
    damaged_parts: list[Path]
    has_parts: bool
    damage: str  # of the cache


def _known(output: Path, spec: FeatureSpec, *, with_features: bool = True) -> _Known:
    """Reads parts and cache, its features too where asked. Raises ArtefactRefused where they have other settings."""
    parts, damaged = read_parts(output, spec)  # before the cache, which has whatever is consolidated meanwhile
    cache, damage = None, ""
    try:
        if output.is_file():
            cache = _cache_of(output, spec, with_features=with_features)
    except DamagedCache as error:
        damage = str(error)
    return _Known(merge(output, cache, parts), damaged, bool(parts or damaged), damage)


def _cache_of(output: Path, spec: FeatureSpec, *, with_features: bool) -> Header:
    header = read_header(output)
    if header.spec.is_imported != spec.is_imported:
        kinds = ("extracted from videos", f"made elsewhere ({header.spec.backbone})")
        raise ArtefactRefused(
            f"{output} holds features {kinds[header.spec.is_imported]}; others cannot be added to them, "
            "give another output with -o"
        )
    if differences := header.spec.differences(spec):
        raise ArtefactRefused(
            f"{output} was made with other settings ({'; '.join(differences)}); "
            "use those settings, or give another output with -o"
        )
    return verify_cache(output) if with_features else header


def _set_aside(output: Path, spec: FeatureSpec) -> None:
    """Renames a damaged cache, unless another process has just made a new one."""
    with locked(output.with_name(f".{output.name}.lock")):
        if _known(output, spec).damage:
            os.replace(output, damaged_name(output))


def damaged_name(output: Path) -> Path:
    """Where a damaged cache is kept."""
    return output.with_name(f"{output.name}.damaged")


def _count_unknown(clips: Sequence[Clip], output: Path, spec: FeatureSpec) -> int:
    """Clips that neither the cache nor a part knows, as a track or as a failure."""
    known = _known(output, spec, with_features=False).clips
    return sum(clip.path not in known.tracks and clip.path not in known.failures for clip in clips)


def extract_to_cache(
    clips: Sequence[Clip],
    output: Path,
    settings: ExtractSettings,
    *,
    retry_failed: bool = False,
    shard: Shard = WHOLE,
    is_stopped: Callable[[], bool] = lambda: False,
    announce: Callable[[Plan], None] = lambda plan: None,
) -> Summary:
    """Extracts what is new or changed, commits it in parts, and consolidates the cache when all is done.

    Stopped half-way, it leaves the parts: running it again goes on from them. So does a shard while others still owe
    clips; `clips` are always those of the whole source, and whoever commits the last of them consolidates.
    """
    check_writable(output)
    spec, weights = build_spec(settings)
    check_engine(settings)
    return fill_cache(
        clips,
        output,
        spec,
        lambda todo: run_engine(todo, spec, weights, settings, is_stopped=is_stopped),
        settings,
        weights_file=str(weights.resolve()) if weights else "",
        retry_failed=retry_failed,
        shard=shard,
        is_stopped=is_stopped,
        announce=announce,
    )


def fill_cache(
    clips: Sequence[Clip],
    output: Path,
    spec: FeatureSpec,
    produce: Produce,
    settings: ExtractSettings,
    *,
    weights_file: str = "",
    retry_failed: bool = False,
    shard: Shard = WHOLE,
    is_stopped: Callable[[], bool] = lambda: False,
    announce: Callable[[Plan], None] = lambda plan: None,
) -> Summary:
    """What `extract_to_cache` does, whatever makes the features: `produce` is given the clips that need it."""
    plan = make_plan(clips, output, spec, retry_failed=retry_failed, shard=shard)
    announce(plan)
    if plan.damage:
        _set_aside(output, spec)
    for path in plan.damaged_parts:
        path.unlink(missing_ok=True)
    summary = Summary(
        shard, total=plan.total, kept=plan.kept, failed_before=plan.failed_before, source_clips=len(plan.clips)
    )
    began = time.monotonic()
    touched: dict[str, Clip] = {}
    if plan.todo:
        shown = _shown(produce(plan.todo), summary, touched, what="import" if spec.is_imported else "extract")
        _commit(shown, output, spec, settings, weights_file)
    summary.seconds = time.monotonic() - began
    summary.is_stopped = is_stopped()
    if summary.is_stopped:
        return summary
    if not shard.is_whole:
        summary.unknown = _count_unknown(clips, output, spec)
    if not summary.unknown:
        named = [touched.get(clip.path, clip) for clip in clips]
        summary.header = consolidate(output, spec, named, weights_file=weights_file)
    return summary


def _task(clip: Clip, known: Merged, *, retry_failed: bool) -> Clip | None:
    """The clip if it must be looked at, with the digest it had when it was extracted; None where nothing changed."""
    views, failure = known.tracks.get(clip.path, {}), known.failures.get(clip.path)
    source = next(iter(views.values()), None)
    if failure and retry_failed:
        return clip
    stored = source.row if source else vars(failure.clip) if failure else None
    if stored is None:
        return clip
    try:
        now = size_and_time(clip.file)
    except OSError:
        return clip if source and not is_address(clip.path) else None  # a download may be thrown away afterwards
    if now == (stored["size_bytes"], stored["mtime_ns"]):
        return None
    return replace(clip, digest=str(stored["digest"]))


def _shown(
    outcomes: Iterable[Outcome], summary: Summary, touched: dict[str, Clip], *, what: str
) -> Iterator[Extracted | Failure]:
    """Counts and shows what comes by; lets tracks and failures through."""
    todo = summary.total - summary.kept - summary.failed_before
    with progress_bar(todo, what=what, unit="clip") as bar:
        for outcome in outcomes:
            _count(outcome, summary)
            rate = summary.frames / max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix_str(f"{rate:.0f} frames/s, {summary.failed} failed", refresh=False)
            bar.update()
            if isinstance(outcome, Unchanged):
                touched[outcome.clip.path] = outcome.clip
            else:
                yield outcome


def _count(outcome: Outcome, summary: Summary) -> None:
    if isinstance(outcome, Unchanged):
        summary.kept += 1
    elif isinstance(outcome, Failure):
        summary.failures[f"{outcome.stage}: {outcome.reason}"] += 1
    else:
        summary.extracted += 1
        summary.partial += outcome.tracks[0].status == "partial"
        summary.frames += sum(len(track.features) for track in outcome.tracks)
        summary.decode_seconds += outcome.decode_seconds
        summary.encode_seconds += outcome.encode_seconds


def _commit(
    results: Iterable[Extracted | Failure], output: Path, spec: FeatureSpec, settings: ExtractSettings, hint: str
) -> None:
    tracks: list[FeatureTrack] = []
    failures: list[Failure] = []
    since, clips, held = time.monotonic(), 0, 0

    def commit() -> None:
        nonlocal since, clips, held
        if tracks or failures:
            write_part(output, tracks, failures, spec=spec, weights_file=hint)
        tracks.clear()
        failures.clear()
        since, clips, held = time.monotonic(), 0, 0

    try:
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                tracks.extend(result.tracks)
                clips += 1
                held += sum(track.features.nbytes for track in result.tracks)
            is_full = clips + len(failures) >= settings.part_clips or held >= PART_BYTES
            if is_full or time.monotonic() - since > settings.part_seconds:
                commit()
    finally:
        commit()
