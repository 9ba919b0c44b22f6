"""features.cache.update."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.cache.consolidate import consolidate
from features.cache.hdf5 import Header
from features.cache.part_writer import PartWriter
from features.cache.plan import Plan, count_unknown, make_plan, set_aside
from features.config import ExtractSettings
from features.sources.shards import WHOLE, Shard
from features.spec import FeatureSpec
from features.types import Clip, Extracted, Failure, Outcome, Unchanged
from features.utils.progress import progress_bar

Produce = Callable[[Sequence[Clip]], Iterable[Outcome]]
"""From the clips that must be looked at to what becomes of each, as they come."""


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
        set_aside(output, spec)
    for path in plan.damaged_parts:
        path.unlink(missing_ok=True)
    summary = Summary(
        shard, total=plan.total, kept=plan.kept, failed_before=plan.failed_before, source_clips=len(plan.clips)
    )
    began = time.monotonic()
    touched: dict[str, Clip] = {}
    if plan.todo:
        shown = _shown(produce(plan.todo), summary, touched, what="import" if spec.is_imported else "extract")
        with PartWriter(
            output, spec, weights_file=weights_file, clips=settings.part_clips, seconds=settings.part_seconds
        ) as writer:
            for result in shown:
                writer.add(result)
    summary.seconds = time.monotonic() - began
    summary.is_stopped = is_stopped()
    if summary.is_stopped:
        return summary
    if not shard.is_whole:
        summary.unknown = count_unknown(clips, output, spec)
    if not summary.unknown:
        named = [touched.get(clip.path, clip) for clip in clips]
        summary.header = consolidate(output, spec, named, weights_file=weights_file)
    return summary


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
