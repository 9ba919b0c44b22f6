"""Updates a cache: plans the work, collects the results in parts, and consolidates."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.cache.consolidate import consolidate
from features.cache.hdf5 import CacheHeader
from features.cache.part_writer import PartWriter
from features.cache.plan import UpdatePlan, count_unknown, make_plan, set_aside_damaged
from features.config import ExtractSettings
from features.sources.shards import SINGLE_SHARD, Shard
from features.spec import FeatureSpec
from features.types import Clip, ExtractedClip, Failure, Outcome, UnchangedClip
from features.utils.progress import make_progress_bar

OutcomeProducer = Callable[[Sequence[Clip]], Iterable[Outcome]]
"""A function from the clips that must be read to their outcomes, in any order."""


@dataclass
class ExtractionSummary:
    """What a run did. The counts are of its shard's clips."""

    shard: Shard
    total: int
    cached: int
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
    unfinished: int = 0  # clips of the source that other shards have not finished
    header: CacheHeader | None = None

    @property
    def failed(self) -> int:
        """Number of clips that failed in this run."""
        return sum(self.failures.values())


def fill_cache(
    clips: Sequence[Clip],
    output: Path,
    spec: FeatureSpec,
    produce_outcomes: OutcomeProducer,
    settings: ExtractSettings,
    *,
    weights_file: str = "",
    retry_failed: bool = False,
    shard: Shard = SINGLE_SHARD,
    is_stopped: Callable[[], bool] = lambda: False,
    announce: Callable[[UpdatePlan], None] = lambda plan: None,
) -> ExtractionSummary:
    """Update the cache `output` with the features that `produce_outcomes` makes of the clips that need it.

    This is `extract_to_cache` without the choice of a network and an engine. A stopped run, or a shard while others are
    unfinished, leaves parts and does not build the cache.
    """
    plan = make_plan(clips, output, spec, retry_failed=retry_failed, shard=shard)
    announce(plan)
    if plan.damage:
        set_aside_damaged(output, spec)
    for path in plan.damaged_parts:
        path.unlink(missing_ok=True)
    summary = ExtractionSummary(
        shard, total=plan.total, cached=plan.cached, failed_before=plan.failed_before, source_clips=len(plan.clips)
    )
    started_at = time.monotonic()
    unchanged: dict[str, Clip] = {}
    if plan.pending:
        results = _track_progress(
            produce_outcomes(plan.pending), summary, unchanged, description="import" if spec.is_imported else "extract"
        )
        with PartWriter(
            output, spec, weights_file=weights_file, max_clips=settings.part_clips, max_seconds=settings.part_seconds
        ) as writer:
            for result in results:
                writer.add(result)
    summary.seconds = time.monotonic() - started_at
    summary.is_stopped = is_stopped()
    if summary.is_stopped:
        return summary
    if not shard.is_single:
        summary.unfinished = count_unknown(clips, output, spec)
    if not summary.unfinished:
        current = [unchanged.get(clip.path, clip) for clip in clips]
        summary.header = consolidate(output, spec, current, weights_file=weights_file)
    return summary


def _track_progress(
    outcomes: Iterable[Outcome], summary: ExtractionSummary, unchanged: dict[str, Clip], *, description: str
) -> Iterator[ExtractedClip | Failure]:
    """Count the outcomes and show a progress bar. Yields the tracks and failures."""
    pending_count = summary.total - summary.cached - summary.failed_before
    with make_progress_bar(pending_count, description=description, unit="clip") as bar:
        for outcome in outcomes:
            _count_outcome(outcome, summary)
            rate = summary.frames / max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix_str(f"{rate:.0f} frames/s, {summary.failed} failed", refresh=False)
            bar.update()
            if isinstance(outcome, UnchangedClip):
                unchanged[outcome.clip.path] = outcome.clip
            else:
                yield outcome


def _count_outcome(outcome: Outcome, summary: ExtractionSummary) -> None:
    if isinstance(outcome, UnchangedClip):
        summary.cached += 1
    elif isinstance(outcome, Failure):
        summary.failures[f"{outcome.stage}: {outcome.reason}"] += 1
    else:
        summary.extracted += 1
        summary.partial += outcome.tracks[0].status == "partial"
        summary.frames += sum(len(track.features) for track in outcome.tracks)
        summary.decode_seconds += outcome.decode_seconds
        summary.encode_seconds += outcome.encode_seconds
