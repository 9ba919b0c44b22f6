"""The batch job: clips to a cache. Resumable, with a failure ledger."""

from collections.abc import Callable, Sequence
from pathlib import Path

from features.cache.plan import UpdatePlan
from features.cache.update import ExtractionSummary, fill_cache
from features.config import ExtractSettings
from features.extraction.engines import check_engine, run_engine
from features.extraction.spec_builder import build_spec
from features.sources.shards import SINGLE_SHARD, Shard
from features.types import Clip
from features.utils.files import check_writable


def extract_to_cache(
    clips: Sequence[Clip],
    output: Path,
    settings: ExtractSettings,
    *,
    retry_failed: bool = False,
    shard: Shard = SINGLE_SHARD,
    is_stopped: Callable[[], bool] = lambda: False,
    announce: Callable[[UpdatePlan], None] = lambda plan: None,
) -> ExtractionSummary:
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
