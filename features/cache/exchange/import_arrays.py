"""Feature files made elsewhere become a cache, by the same parts and consolidation as features of videos."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from features.cache.exchange.array_files import (
    FEATURE_SUFFIXES,
    IMPORT_STAGE,
    TIMES_SUFFIX,
    StoredArray,
    find_array,
    read_rows,
    read_times,
)
from features.cache.hdf5 import read_header
from features.cache.parts import remove_parts, scan_parts
from features.cache.plan import UpdatePlan
from features.cache.reduction import parse_reduction
from features.cache.update import ExtractionSummary, fill_cache
from features.config import ExtractSettings
from features.errors import ClipError, SettingsError, UserFacingError
from features.sources.discover import DOWNLOADS_FOLDER, find_clips
from features.sources.manifests import read_manifest_rows
from features.spec import FeatureSpec, Preprocessing, Sampling, describe_reduction
from features.types import Clip, ExtractedClip, Failure, FeatureTrack, Outcome, UnchangedClip
from features.utils.file_identity import identify
from features.utils.files import check_writable
from features.utils.settings import load_settings
from features.utils.text import format_count, make_printable, merge_similar_reasons
from features.video.sampling import sample_instants

_MAX_LISTED_FAILURES = 10


@dataclass(frozen=True)
class ImportSettings:
    """How feature files are read, and what made them."""

    name: str = "features"
    """What made them, for people and for the fingerprint."""
    key: str = ""
    """The array of a file that holds several."""
    is_transposed: bool = False
    """Files hold (features, rows)."""
    fps: float = 1.0
    """Rows a second, where a file has no times beside it."""
    width: int | None = None
    """Numbers a row; that of most files by default."""
    reduce: str = "none"


def find_feature_files(sources: Sequence[Path | str]) -> list[Clip]:
    """As `find_clips`, for feature files; files of times are part of the files beside them."""
    return [
        clip for clip in find_clips(sources, suffixes=FEATURE_SUFFIXES) if not clip.file.name.endswith(TIMES_SUFFIX)
    ]


def find_clips_for_cache(
    cache: Path, sources: Sequence[Path | str], *, label_map: Path | None = None, downloads: Path = DOWNLOADS_FOLDER
) -> list[Clip]:
    """The clips of `sources` that a cache could have been made of: feature files, or videos."""
    try:
        is_imported = read_header(cache).spec.is_imported
    except UserFacingError:  # its reader says so
        is_imported = False
    return find_feature_files(sources) if is_imported else find_clips(sources, label_map=label_map, downloads=downloads)


def import_features(
    sources: Sequence[Path],
    output: Path,
    settings: ImportSettings,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
    announce: Callable[[str], None] = lambda text: None,
) -> ExtractionSummary:
    """Takes in what is new or changed, and what failed before. Raises as `extract_to_cache` does.

    Raises SettingsError where it is not clear how wide the features are.
    """
    if not (math.isfinite(settings.fps) and settings.fps > 0):
        raise SettingsError(f"--fps must be a number of rows a second above 0, got {settings.fps:g}")
    clips = find_feature_files(sources)
    durations = _read_durations(sources)
    check_writable(output)
    width = settings.width or find_common_width([clip.file for clip in clips], settings)
    spec = build_import_spec(settings, width)

    def produce(todo: Sequence[Clip]) -> Iterator[Outcome]:
        for clip in todo:
            if is_stopped():
                return
            yield _import_clip(
                clip, partial(_read_track, spec=spec, width=width, settings=settings, durations=durations)
            )

    summary = fill_cache(
        clips,
        output,
        spec,
        produce,
        load_settings(ExtractSettings, "extract"),
        retry_failed=True,
        is_stopped=is_stopped,
        announce=lambda plan: announce(_describe_plan(plan, width)),
    )
    if summary.header is None and not summary.is_stopped:  # else the next try, with other options, would be refused
        remove_parts(output, [part.path for part in scan_parts(output)[0]])
    return summary


def build_import_spec(settings: ImportSettings, width: int) -> FeatureSpec:
    """What is known of features made elsewhere; two imports agree where name, array, width and rate do."""
    parse_reduction(settings.reduce, width=width)
    array = f", array {settings.key}" if settings.key else ""
    return FeatureSpec(
        sampling=Sampling(kind="rate", frames=None, fps=settings.fps),
        preprocessing=Preprocessing(),
        backbone=f"imported:{settings.name}",
        weights="imported",
        weights_digest=f"{width} numbers a row{array}",
        pooling="none",
        reduction=settings.reduce,
    )


def find_common_width(files: Sequence[Path], settings: ImportSettings) -> int:
    """The numbers a row that more than half of the readable files have. Raises SettingsError where there is no such."""
    arrays = [stored for file in files if isinstance(stored := _find_array_or_reason(file, settings.key), StoredArray)]
    widths = Counter(stored.shape[0 if settings.is_transposed else 1] for stored in arrays)
    others = Counter(stored.shape[1 if settings.is_transposed else 0] for stored in arrays)
    if not arrays:
        reasons = Counter(str(_find_array_or_reason(file, settings.key)) for file in files)
        lines = "; ".join(f"{count} x {make_printable(reason)}" for reason, count in merge_similar_reasons(reasons)[:5])
        raise SettingsError(f"none of {format_count(len(files), 'file')} can be imported: {lines}")
    width, count = widths.most_common(1)[0]
    if 2 * count > len(arrays):
        return width
    met = ", ".join(f"{w} in {format_count(n, 'file')}" for w, n in widths.most_common(4))
    advice = "--width says which are right"
    if len(others) == 1:
        turned = "leave out --transpose" if settings.is_transposed else "use --transpose"
        advice = f"{turned} if each has {next(iter(others))} features a row, or {advice}"
    raise SettingsError(f"the files differ in how many numbers a row has ({met}); {advice}")


def describe_import(summary: ExtractionSummary, output: Path) -> str:
    """The closing lines: counts, what failed and why, what the cache is."""
    lines = [f"{summary.extracted} imported, {summary.cached} kept, {summary.failed} failed in {summary.seconds:.1f} s"]
    if summary.header is None:
        lines += [
            f"  failed {count} x {make_printable(reason)}" for reason, count in merge_similar_reasons(summary.failures)
        ]
        is_over = f"nothing could be imported; {output} was not written"
        return "\n".join([*lines, "stopped; run the same command again to go on" if summary.is_stopped else is_over])
    header = summary.header
    failures = list(zip(header.failures.path.tolist(), header.failures.reason.tolist(), strict=True))
    lines += [
        f"  failed {make_printable(path)}: {make_printable(reason)}" for path, reason in failures[:_MAX_LISTED_FAILURES]
    ]
    if len(failures) > _MAX_LISTED_FAILURES:
        lines.append(
            f"  … and {len(failures) - _MAX_LISTED_FAILURES} more (python -m features verify {output} --all names them)"
        )
    reduction = describe_reduction(header.spec.reduction, header.reduction_rows)
    held = f"{format_count(len(header.clips), 'clip')}, {int(header.clips.length.sum())} rows"
    return "\n".join([*lines, f"{output}: {held}, fingerprint {header.fingerprint}, reduction {reduction}"])


def _describe_plan(plan: UpdatePlan, width: int) -> str:
    line = f"{format_count(plan.total, 'file')}: {len(plan.pending)} to import, {plan.cached} in the cache already"
    damage = [f"{plan.damage}: it is set aside, and its files are imported again"] if plan.damage else []
    return "\n".join([*damage, f"{line}; {width} numbers a row"])


def _find_array_or_reason(file: Path, key: str) -> StoredArray | str:
    try:
        return find_array(file, key=key)
    except (ClipError, OSError) as error:
        return str(error)


def _read_durations(sources: Sequence[Path]) -> Mapping[Path, float]:
    """Of files in manifests with a column `duration`, in seconds."""
    durations = {}
    for manifest in (source for source in sources if source.suffix.lower() == ".csv" and source.is_file()):
        for number, row in enumerate(read_manifest_rows(manifest), start=2):
            if not (text := (row.get("duration") or "").strip()):
                continue
            try:
                seconds = float(text)
            except ValueError:
                seconds = math.nan
            if not (math.isfinite(seconds) and seconds >= 0):
                raise SettingsError(f"{manifest}, row {number}, column 'duration': '{text}'; expected seconds")
            durations[manifest.parent / row["path"].strip()] = seconds
    return durations


def _import_clip(clip: Clip, read: Callable[[Clip], FeatureTrack]) -> Outcome:
    try:
        now = identify(clip)
    except ClipError as error:
        return Failure(replace(clip, digest=""), IMPORT_STAGE, error.reason)
    if clip.digest and clip.digest == now.digest:
        return UnchangedClip(now)
    try:
        return ExtractedClip((read(now),), decode_seconds=0.0, encode_seconds=0.0)
    except ClipError as error:
        return Failure.from_error(now, error)
    except OSError as error:
        return Failure(now, IMPORT_STAGE, (error.strerror or str(error)).lower())


def _read_track(
    clip: Clip, *, spec: FeatureSpec, width: int, settings: ImportSettings, durations: Mapping[Path, float]
) -> FeatureTrack:
    rows = read_rows(clip.file, width=width, key=settings.key, is_transposed=settings.is_transposed)  # (N, D)
    length = len(rows) / settings.fps
    times = read_times(clip.file, len(rows))
    if times is None:
        times = sample_instants(0.0, length, spec.sampling)
    return FeatureTrack(clip, rows, times, duration=durations.get(clip.file, max(length, float(times[-1]))))
