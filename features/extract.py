"""The batch job: clips to a cache. Resumable, with a failure ledger."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from features.backbones import find_weights, get_backbone, weights_digest
from features.cache import Header, read_header
from features.config import ExtractSettings, RunSettings
from features.consolidate import Merged, consolidate, merge
from features.encoder import Encoder, build_encoder, pick_device, pooled_width
from features.errors import ArtefactRefused, ClipError
from features.files import check_writable
from features.jobs import Decoded, DecodeJob, Extracted, ExtractJob, Unchanged, track_of
from features.parts import parts_folder, read_parts, write_part
from features.pool import Lost, run_tasks
from features.progress import progress_bar
from features.reduction import parse
from features.spec import FeatureSpec, Sampling
from features.types import Clip, Failure, FeatureTrack

Outcome = Extracted | Failure | Unchanged


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    clips: list[Clip]
    todo: list[Clip]
    kept: int
    failed_before: int
    damaged_parts: list[Path]
    has_parts: bool


@dataclass
class Summary:
    """What a run did."""

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
    is_rate = settings.fps is not None
    sampling = Sampling(
        kind="rate" if is_rate else "even", frames=None if is_rate else settings.frames, fps=settings.fps
    )
    spec = FeatureSpec(
        sampling=sampling,
        preprocessing=backbone.preprocessing.model_copy(update={"fit": settings.fit} if settings.fit else {}),
        backbone=settings.backbone,
        weights="random" if weights is None else "pretrained",
        weights_digest=weights_digest(settings.backbone, weights),
        pooling=settings.pooling,
        precision=settings.precision,
        reduction=settings.reduce,
    )
    return spec, weights


def make_plan(clips: Sequence[Clip], output: Path, spec: FeatureSpec, *, retry_failed: bool = False) -> Plan:
    """Which clips are new or changed. Raises ArtefactRefused where the cache or its parts have other settings."""
    cache = read_header(output) if output.is_file() else None
    if cache and (differences := cache.spec.differences(spec)):
        raise ArtefactRefused(
            f"{output} was made with other settings ({'; '.join(differences)}); "
            "use those settings, or give another output with -o"
        )
    parts, damaged = read_parts(output, spec)
    known = merge(output, cache, parts)
    todo = [task for clip in clips if (task := _task(clip, known, retry_failed=retry_failed)) is not None]
    waiting = {clip.path for clip in todo}
    failed_before = sum(clip.path in known.failures and clip.path not in waiting for clip in clips)
    return Plan(
        clips=list(clips),
        todo=todo,
        kept=len(clips) - len(todo) - failed_before,
        failed_before=failed_before,
        damaged_parts=damaged,
        has_parts=bool(parts or damaged),
    )


def extract_to_cache(
    clips: Sequence[Clip],
    output: Path,
    settings: ExtractSettings,
    *,
    retry_failed: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
    announce: Callable[[Plan], None] = lambda plan: None,
) -> Summary:
    """Extracts what is new or changed, commits it in parts, and consolidates the cache when all is done.

    Stopped half-way, it leaves the parts: running it again goes on from them.
    """
    check_writable(output)
    spec, weights = build_spec(settings)
    device = pick_device(settings.device)
    plan = make_plan(clips, output, spec, retry_failed=retry_failed)
    announce(plan)
    for path in plan.damaged_parts:
        path.unlink(missing_ok=True)
    summary = Summary(total=len(plan.clips), kept=plan.kept, failed_before=plan.failed_before)
    began = time.monotonic()
    hint = str(weights.resolve()) if weights else ""
    touched: dict[str, Clip] = {}
    if plan.todo:
        outcomes = extract_clips(plan.todo, spec, weights, settings, device=device, is_stopped=is_stopped)
        _commit(_shown(outcomes, summary, touched), output, spec, settings, hint)
    summary.seconds = time.monotonic() - began
    summary.is_stopped = is_stopped()
    if not summary.is_stopped:
        named = [touched.get(clip.path, clip) for clip in plan.clips]
        summary.header = _consolidated(output, spec, named, plan, hint)
    return summary


def extract_clips(
    clips: Sequence[Clip],
    spec: FeatureSpec,
    weights: Path | None,
    settings: RunSettings,
    *,
    device: torch.device,
    with_pictures: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Raw, unreduced features of each clip, or its failure, as they come: the one path of training and inference."""
    decode = DecodeJob(spec, with_pictures)
    on_cpu = device.type == "cpu"
    job = ExtractJob(decode, weights) if on_cpu else decode
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(settings.workers or cores, len(clips))
    results = run_tasks(job, clips, workers=workers, deadline_seconds=settings.deadline_seconds, is_stopped=is_stopped)
    named = (
        Failure(clip, result.stage, result.reason) if isinstance(result, Lost) else result for clip, result in results
    )
    if on_cpu:
        return named  # type: ignore[return-value]
    encoder = build_encoder(spec, weights, device=device, batch_size=settings.batch_size)
    return encode_batches(named, encoder)  # type: ignore[arg-type]


def encode_batches(results: Iterable[Decoded | Failure | Unchanged], encoder: Encoder) -> Iterator[Outcome]:
    """Encodes frames of many clips in one batch, as large as the encoder's, and hands each clip its own rows."""
    waiting: list[Decoded] = []
    for result in results:
        if not isinstance(result, Decoded):
            yield result
            continue
        waiting.append(result)
        if sum(len(decoded.frames.data) for decoded in waiting) >= encoder.batch_size:
            yield from _encode_together(waiting, encoder)
            waiting = []
    yield from _encode_together(waiting, encoder)


def _encode_together(waiting: Sequence[Decoded], encoder: Encoder) -> Iterator[Outcome]:
    if not waiting:
        return
    began = time.process_time()
    try:
        features = encoder.encode(np.concatenate([decoded.frames.data for decoded in waiting]))
    except ClipError as error:
        if len(waiting) == 1:
            yield Failure(waiting[0].clip, error.stage, error.reason)
        else:  # find the one that did it
            for decoded in waiting:
                yield from _encode_together([decoded], encoder)
        return
    ends = np.cumsum([len(decoded.frames.data) for decoded in waiting])
    for decoded, rows in zip(waiting, np.split(features, ends[:-1]), strict=True):
        yield track_of(decoded, rows, began)
        began = time.process_time()


def _task(clip: Clip, known: Merged, *, retry_failed: bool) -> Clip | None:
    """The clip if it must be looked at, with the digest it had when it was extracted; None where nothing changed."""
    source, failure = known.tracks.get(clip.path), known.failures.get(clip.path)
    if failure and retry_failed:
        return clip
    stored = source.row if source else vars(failure.clip) if failure else None
    if stored is None:
        return clip
    try:
        status = os.stat(clip.file)
    except OSError:
        return clip if source else None
    if (status.st_size, status.st_mtime_ns) == (stored["size_bytes"], stored["mtime_ns"]):
        return None
    return replace(clip, digest=str(stored["digest"]))


def _shown(outcomes: Iterable[Outcome], summary: Summary, touched: dict[str, Clip]) -> Iterator[FeatureTrack | Failure]:
    """Counts and shows what comes by; lets tracks and failures through."""
    todo = summary.total - summary.kept - summary.failed_before
    with progress_bar(todo, what="extract", unit="clip") as bar:
        for outcome in outcomes:
            bar.update()
            if isinstance(outcome, Unchanged):
                summary.kept += 1
                touched[outcome.clip.path] = outcome.clip
                continue
            if isinstance(outcome, Failure):
                summary.failures[f"{outcome.stage}: {outcome.reason}"] += 1
                yield outcome
            else:
                summary.extracted += 1
                summary.partial += outcome.track.status == "partial"
                summary.frames += len(outcome.track.features)
                summary.decode_seconds += outcome.decode_seconds
                summary.encode_seconds += outcome.encode_seconds
                yield outcome.track
            rate = summary.frames / max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix_str(f"{rate:.0f} frames/s, {summary.failed} failed", refresh=False)


def _commit(
    results: Iterable[FeatureTrack | Failure], output: Path, spec: FeatureSpec, settings: ExtractSettings, hint: str
) -> None:
    tracks: list[FeatureTrack] = []
    failures: list[Failure] = []
    since = time.monotonic()

    def commit() -> None:
        nonlocal since
        if tracks or failures:
            write_part(output, tracks, failures, spec=spec, weights_file=hint)
        tracks.clear()
        failures.clear()
        since = time.monotonic()

    try:
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                tracks.append(result)
            if len(tracks) + len(failures) >= settings.part_clips or time.monotonic() - since > settings.part_seconds:
                commit()
    finally:
        commit()


def _consolidated(output: Path, spec: FeatureSpec, clips: Sequence[Clip], plan: Plan, hint: str) -> Header | None:
    cache = read_header(output) if output.is_file() else None
    if cache and not parts_folder(output).is_dir() and not _differ(cache, clips):
        return cache
    return consolidate(output, spec, clips, weights_file=hint)


def _differ(cache: Header, clips: Sequence[Clip]) -> bool:
    """Whether the clips are labelled otherwise than the cache says, or their files have new times."""
    table = cache.clips
    stored = {p: (la, g, s) for p, la, g, s in zip(table.path, table.label, table.group, table.split, strict=True)}
    return any(
        clip.path in stored and (clip.digest or stored[clip.path] != (clip.label, clip.group, clip.split))
        for clip in clips
    )
