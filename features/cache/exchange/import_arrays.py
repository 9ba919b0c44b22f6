"""Feature files made elsewhere become a cache, by the same parts and consolidation as features of videos."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from features.cache.exchange.array_files import (
    FEATURE_SUFFIXES,
    STAGE,
    TIMES_SUFFIX,
    Stored,
    find_array,
    read_rows,
    read_times,
)
from features.cache.hdf5 import read_header
from features.cache.parts import remove_parts, scan_parts
from features.cache.plan import Plan
from features.cache.reduction import parse
from features.cache.update import Summary, fill_cache
from features.config import ExtractSettings
from features.errors import ClipError, SettingsError, UserFacingError
from features.sources.discover import DOWNLOADS, find_clips
from features.sources.manifests import manifest_rows
from features.spec import FeatureSpec, Preprocessing, Sampling, describe_reduction
from features.types import Clip, Extracted, Failure, FeatureTrack, Outcome, Unchanged
from features.utils.file_identity import stamped
from features.utils.files import check_writable
from features.utils.settings import load_settings
from features.utils.text import by_kind, counted, printable
from features.video.sampling import instants

_SHOWN = 10


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


def find_features(sources: Sequence[Path | str]) -> list[Clip]:
    """As `find_clips`, for feature files; files of times are part of the files beside them."""
    return [
        clip for clip in find_clips(sources, suffixes=FEATURE_SUFFIXES) if not clip.file.name.endswith(TIMES_SUFFIX)
    ]


def find_what_fits(
    cache: Path, sources: Sequence[Path | str], *, label_map: Path | None = None, downloads: Path = DOWNLOADS
) -> list[Clip]:
    """The clips of `sources` that a cache could have been made of: feature files, or videos."""
    try:
        is_imported = read_header(cache).spec.is_imported
    except UserFacingError:  # its reader says so
        is_imported = False
    return find_features(sources) if is_imported else find_clips(sources, label_map=label_map, downloads=downloads)


def import_features(
    sources: Sequence[Path],
    output: Path,
    settings: ImportSettings,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
    announce: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Takes in what is new or changed, and what failed before. Raises as `extract_to_cache` does.

    Raises SettingsError where it is not clear how wide the features are.
    """
    if not (math.isfinite(settings.fps) and settings.fps > 0):
        raise SettingsError(f"--fps must be a number of rows a second above 0, got {settings.fps:g}")
    clips = find_features(sources)
    durations = _durations(sources)
    check_writable(output)
    width = settings.width or common_width([clip.file for clip in clips], settings)
    spec = build_import_spec(settings, width)

    def produce(todo: Sequence[Clip]) -> Iterator[Outcome]:
        for clip in todo:
            if is_stopped():
                return
            yield _outcome(clip, partial(_track, spec=spec, width=width, settings=settings, durations=durations))

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
    parse(settings.reduce, width=width)
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


def common_width(files: Sequence[Path], settings: ImportSettings) -> int:
    """The numbers a row that more than half of the readable files have. Raises SettingsError where there is no such."""
    arrays = [stored for file in files if isinstance(stored := _peek(file, settings.key), Stored)]
    widths = Counter(stored.shape[0 if settings.is_transposed else 1] for stored in arrays)
    others = Counter(stored.shape[1 if settings.is_transposed else 0] for stored in arrays)
    if not arrays:
        reasons = Counter(str(_peek(file, settings.key)) for file in files)
        lines = "; ".join(f"{count} x {printable(reason)}" for reason, count in by_kind(reasons)[:5])
        raise SettingsError(f"none of {counted(len(files), 'file')} can be imported: {lines}")
    width, count = widths.most_common(1)[0]
    if 2 * count > len(arrays):
        return width
    met = ", ".join(f"{w} in {counted(n, 'file')}" for w, n in widths.most_common(4))
    advice = "--width says which are right"
    if len(others) == 1:
        turned = "leave out --transpose" if settings.is_transposed else "use --transpose"
        advice = f"{turned} if each has {next(iter(others))} features a row, or {advice}"
    raise SettingsError(f"the files differ in how many numbers a row has ({met}); {advice}")


def describe_import(summary: Summary, output: Path) -> str:
    """The closing lines: counts, what failed and why, what the cache is."""
    lines = [f"{summary.extracted} imported, {summary.kept} kept, {summary.failed} failed in {summary.seconds:.1f} s"]
    if summary.header is None:
        lines += [f"  failed {count} x {printable(reason)}" for reason, count in by_kind(summary.failures)]
        is_over = f"nothing could be imported; {output} was not written"
        return "\n".join([*lines, "stopped; run the same command again to go on" if summary.is_stopped else is_over])
    header = summary.header
    failures = list(zip(header.failures.path.tolist(), header.failures.reason.tolist(), strict=True))
    lines += [f"  failed {printable(path)}: {printable(reason)}" for path, reason in failures[:_SHOWN]]
    if len(failures) > _SHOWN:
        lines.append(f"  … and {len(failures) - _SHOWN} more (python -m features verify {output} --all names them)")
    reduction = describe_reduction(header.spec.reduction, header.reduction_rows)
    held = f"{counted(len(header.clips), 'clip')}, {int(header.clips.length.sum())} rows"
    return "\n".join([*lines, f"{output}: {held}, fingerprint {header.fingerprint}, reduction {reduction}"])


def _describe_plan(plan: Plan, width: int) -> str:
    line = f"{counted(plan.total, 'file')}: {len(plan.todo)} to import, {plan.kept} in the cache already"
    damage = [f"{plan.damage}: it is set aside, and its files are imported again"] if plan.damage else []
    return "\n".join([*damage, f"{line}; {width} numbers a row"])


def _peek(file: Path, key: str) -> Stored | str:
    try:
        return find_array(file, key=key)
    except (ClipError, OSError) as error:
        return str(error)


def _durations(sources: Sequence[Path]) -> Mapping[Path, float]:
    """Of files in manifests with a column `duration`, in seconds."""
    durations = {}
    for manifest in (source for source in sources if source.suffix.lower() == ".csv" and source.is_file()):
        for number, row in enumerate(manifest_rows(manifest), start=2):
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


def _outcome(clip: Clip, read: Callable[[Clip], FeatureTrack]) -> Outcome:
    try:
        now = stamped(clip)
    except ClipError as error:
        return Failure(replace(clip, digest=""), STAGE, error.reason)
    if clip.digest and clip.digest == now.digest:
        return Unchanged(now)
    try:
        return Extracted((read(now),), decode_seconds=0.0, encode_seconds=0.0)
    except ClipError as error:
        return Failure.of(now, error)
    except OSError as error:
        return Failure(now, STAGE, (error.strerror or str(error)).lower())


def _track(
    clip: Clip, *, spec: FeatureSpec, width: int, settings: ImportSettings, durations: Mapping[Path, float]
) -> FeatureTrack:
    rows = read_rows(clip.file, width=width, key=settings.key, is_transposed=settings.is_transposed)  # (N, D)
    length = len(rows) / settings.fps
    times = read_times(clip.file, len(rows))
    if times is None:
        times = instants(0.0, length, spec.sampling)
    return FeatureTrack(clip, rows, times, duration=durations.get(clip.file, max(length, float(times[-1]))))
