"""Imports feature files made by other programs into a cache, with the same parts and consolidation as extraction."""

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
    """How feature files are read, and which program made them."""

    name: str = "features"
    """Name of the program or network that made them. It is part of the fingerprint."""
    key: str = ""
    """Name of the array to read from files that hold several."""
    is_transposed: bool = False
    """True if files hold (features, rows) instead of (rows, features)."""
    fps: float = 1.0
    """Rows per second of files without a file of times."""
    width: int | None = None
    """Features in a row. By default the width of most files."""
    reduce: str = "none"


def find_feature_files(sources: Sequence[Path | str]) -> list[Clip]:
    """Find feature files as `find_clips` finds videos. Files of times are left out."""
    return [
        clip for clip in find_clips(sources, suffixes=FEATURE_SUFFIXES) if not clip.file.name.endswith(TIMES_SUFFIX)
    ]


def find_clips_for_cache(
    cache: Path, sources: Sequence[Path | str], *, label_map: Path | None = None, downloads: Path = DOWNLOADS_FOLDER
) -> list[Clip]:
    """Find the clips of `sources` that a cache may have been made from: feature files, or videos."""
    try:
        is_imported = read_header(cache).spec.is_imported
    except UserFacingError:  # reported when the cache is read
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
    """Import files that are new or changed, and retry those that failed before.

    Raises SettingsError if the width of the features is unclear or the sources are unusable, ArtifactError if the cache
    was made with other settings, RuntimeEnvironmentError if the disk fails.
    """
    if not (math.isfinite(settings.fps) and settings.fps > 0):
        raise SettingsError(f"--fps must be a positive number of rows per second, got {settings.fps:g}")
    clips = find_feature_files(sources)
    durations = _read_durations(sources)
    check_writable(output)
    width = settings.width or find_common_width([clip.file for clip in clips], settings)
    spec = build_import_spec(settings, width)

    def import_clips(pending: Sequence[Clip]) -> Iterator[Outcome]:
        for clip in pending:
            if is_stopped():
                return
            yield _import_clip(
                clip, partial(_read_track, spec=spec, width=width, settings=settings, durations=durations)
            )

    summary = fill_cache(
        clips,
        output,
        spec,
        import_clips,
        load_settings(ExtractSettings, "extract"),
        retry_failed=True,
        is_stopped=is_stopped,
        announce=lambda plan: announce(_describe_plan(plan, width)),
    )
    if summary.header is None and not summary.is_stopped:  # otherwise a retry with other options would be rejected
        remove_parts(output, [part.path for part in scan_parts(output)[0]])
    return summary


def build_import_spec(settings: ImportSettings, width: int) -> FeatureSpec:
    """Build the settings of imported features.

    Two imports have the same fingerprint if name, array, width, rate and reduction agree.
    """
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
    """Find the width of the rows that more than half of the readable files have.

    Raises SettingsError if there is none.
    """
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
    found = ", ".join(f"{w} in {format_count(n, 'file')}" for w, n in widths.most_common(4))
    advice = "set the width with --width"
    if len(others) == 1:
        transpose_advice = "leave out --transpose" if settings.is_transposed else "use --transpose"
        advice = f"{transpose_advice} if each has {next(iter(others))} features a row, or {advice}"
    raise SettingsError(f"the files have rows of different widths ({found}); {advice}")


def describe_import(summary: ExtractionSummary, output: Path) -> str:
    """Return the closing lines: counts, failures with their reasons, and a summary of the cache."""
    lines = [f"{summary.extracted} imported, {summary.cached} kept, {summary.failed} failed in {summary.seconds:.1f} s"]
    if summary.header is None:
        lines += [
            f"  failed {count} x {make_printable(reason)}" for reason, count in merge_similar_reasons(summary.failures)
        ]
        nothing = f"nothing could be imported; {output} was not written"
        return "\n".join([*lines, "stopped; run the same command again to continue" if summary.is_stopped else nothing])
    header = summary.header
    failures = list(zip(header.failures.path.tolist(), header.failures.reason.tolist(), strict=True))
    lines += [
        f"  failed {make_printable(path)}: {make_printable(reason)}" for path, reason in failures[:_MAX_LISTED_FAILURES]
    ]
    if len(failures) > _MAX_LISTED_FAILURES:
        lines.append(
            f"  … and {len(failures) - _MAX_LISTED_FAILURES} more (python -m features verify {output} --all lists them)"
        )
    reduction = describe_reduction(header.spec.reduction, header.reduction_fitted_on)
    counts = f"{format_count(len(header.clips), 'clip')}, {int(header.clips.length.sum())} rows"
    return "\n".join([*lines, f"{output}: {counts}, fingerprint {header.fingerprint}, reduction {reduction}"])


def _describe_plan(plan: UpdatePlan, width: int) -> str:
    line = f"{format_count(plan.total, 'file')}: {len(plan.pending)} to import, {plan.cached} in the cache already"
    damage = [f"{plan.damage}: the cache is renamed, and its files are imported again"] if plan.damage else []
    return "\n".join([*damage, f"{line}; {width} numbers a row"])


def _find_array_or_reason(file: Path, key: str) -> StoredArray | str:
    try:
        return find_array(file, key=key)
    except (ClipError, OSError) as error:
        return str(error)


def _read_durations(sources: Sequence[Path]) -> Mapping[Path, float]:
    """Read the durations in seconds of files in manifests that have a column `duration`."""
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
        current = identify(clip)
    except ClipError as error:
        return Failure(replace(clip, digest=""), IMPORT_STAGE, error.reason)
    if clip.digest and clip.digest == current.digest:
        return UnchangedClip(current)
    try:
        return ExtractedClip((read(current),), decode_seconds=0.0, encode_seconds=0.0)
    except ClipError as error:
        return Failure.from_error(current, error)
    except OSError as error:
        return Failure(current, IMPORT_STAGE, (error.strerror or str(error)).lower())


def _read_track(
    clip: Clip, *, spec: FeatureSpec, width: int, settings: ImportSettings, durations: Mapping[Path, float]
) -> FeatureTrack:
    rows = read_rows(clip.file, width=width, key=settings.key, is_transposed=settings.is_transposed)  # (N, D)
    length = len(rows) / settings.fps
    times = read_times(clip.file, len(rows))
    if times is None:
        times = sample_instants(0.0, length, spec.sampling)
    return FeatureTrack(clip, rows, times, duration=durations.get(clip.file, max(length, float(times[-1]))))
