"""Extraction of clips to a cache: resumable, with a failure table."""

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
    """Extract new and changed clips, commit them in parts, and consolidate the cache when all clips are done.

    If it is stopped, the parts stay, and the next run continues from them. A shard also leaves its parts while clips of
    other shards are missing. `clips` are always those of the whole source; the run that commits the last of them
    consolidates.
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
