"""Writing of a manifest: the labels, groups, split and durations of clips, for people to check and edit."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.curation.grouping import group_clips, merge_groups_by_scene
from features.curation.near_duplicates import MIN_CORRELATION, merge_near_duplicates
from features.curation.splitting import SplitShares, assign_splits
from features.curation.survey import ClipScan, scan_clips
from features.errors import SettingsError
from features.sources.discover import find_clips
from features.types import SPLITS, Clip, Failure, format_seconds
from features.utils.files import check_writable, write_atomically
from features.utils.progress import make_progress_bar
from features.utils.text import format_count, make_printable

DEFAULT_SHARES: SplitShares = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class ManifestOptions:
    """How groups and the split are made."""

    group_from: str = "auto"
    """A name in GROUP_METHODS."""
    group_pattern: str | None = None
    """Regular expression for the method `pattern`; UCF101's by default."""
    merge_by_scene: bool = False
    """Whether groups that have clips of one scene are merged."""
    min_correlation: float = MIN_CORRELATION
    """Least correlation of two frames that show one scene."""
    shares: SplitShares | None = None
    """Shares of train, val and test. None keeps the split of the source, or uses 70/15/15 if it has none."""
    with_split: bool = True
    """Whether the manifest has a split."""
    keep_split: bool = False
    """Whether the source must have a split, which is kept."""
    seed: int = 0


@dataclass(frozen=True)
class Manifest:
    """Clips that can be read, sorted by path, and clips that cannot."""

    scans: tuple[ClipScan, ...]
    scenes: NDArray[np.int64]  # (N,) number of the scene that each clip shows
    failures: tuple[Failure, ...]
    how_grouped: str = ""
    how_split: str = ""
    shares: SplitShares | None = None
    """Shares that were requested; None if the split is that of the source."""


def make_manifest(
    sources: Sequence[Path],
    output: Path,
    options: ManifestOptions,
    *,
    workers: int | None = None,
    folder_fps: float = 25.0,
    with_force: bool = False,
) -> Manifest:
    """Scan the clips of the sources and write the manifest, unless no clip can be read.

    Raises SettingsError if the output exists (`with_force` replaces it and keeps the old file as `.bak`) or an option
    does not fit the clips.
    """
    if output.exists() and not with_force:
        raise SettingsError(
            f"{output} exists and may contain your edits; choose another name, or add --force to replace it "
            f"(the old file is kept as {_backup_path(output).name})"
        )
    clips = find_clips(sources)
    _check_options(clips, options)
    check_writable(output)
    usable, unnamed = _select_nameable_clips(clips, output)
    scans, failures = _scan_with_progress(usable, workers=workers, folder_fps=folder_fps)
    failures = sorted([*unnamed, *failures], key=lambda failure: failure.clip.path)
    if not scans:
        return Manifest((), np.array([], np.int64), tuple(failures))
    manifest = build_manifest(scans, failures, options)
    if output.exists():
        write_atomically(_backup_path(output), output.read_bytes())
    write_atomically(output, _format_csv(manifest.scans, output))
    return manifest


def build_manifest(scans: Sequence[ClipScan], failures: Sequence[Failure], options: ManifestOptions) -> Manifest:
    """Return the manifest of scanned clips: group them and make or keep their split."""
    scenes = merge_near_duplicates(
        [scan.fingerprints for scan in scans],
        [scan.clip.digest for scan in scans],
        min_correlation=options.min_correlation,
    )
    clips = [scan.clip for scan in scans]
    groups, how_grouped = group_clips(clips, scenes, options.group_from, pattern=options.group_pattern)
    if options.merge_by_scene:
        groups = merge_groups_by_scene(groups, scenes)
        how_grouped += "; groups that show the same scene merged"
    splits, how_split, shares = _make_splits(clips, groups, options)
    finished = tuple(
        replace(scan, clip=replace(scan.clip, group=group, split=split))
        for scan, group, split in zip(scans, groups, splits, strict=True)
    )
    return Manifest(finished, scenes, tuple(failures), how_grouped, how_split, shares)


def _check_options(clips: Sequence[Clip], options: ManifestOptions) -> None:
    if options.keep_split and not any(clip.split for clip in clips):
        raise SettingsError("--keep-split: the source has no split; remove the option, or use --split 70/15/15")


def _make_splits(
    clips: Sequence[Clip], groups: Sequence[str], options: ManifestOptions
) -> tuple[list[str], str, SplitShares | None]:
    has_split = any(clip.split for clip in clips)
    if has_split and options.shares is None and options.with_split:
        return [clip.split for clip in clips], "kept from the source", None
    replaced = ", instead of that of the source" if has_split else ""
    if not options.with_split:
        return [""] * len(clips), f"none{replaced}", None
    shares = options.shares or DEFAULT_SHARES
    splits = assign_splits([clip.label for clip in clips], groups, shares, seed=options.seed)
    counts, requested = Counter(splits), zip(SPLITS, shares, strict=True)
    reached = ", ".join(
        f"{side} {counts[side] / len(clips):.0%} (requested {share:.0%})" for side, share in requested if share
    )
    return splits, f"new{replaced}; groups kept together; seed {options.seed}; {reached} of the clips", shares


def _scan_with_progress(
    clips: Sequence[Clip], *, workers: int | None, folder_fps: float
) -> tuple[list[ClipScan], list[Failure]]:
    scans: list[ClipScan] = []
    failures: list[Failure] = []
    if not clips:
        return scans, failures
    with make_progress_bar(len(clips), description="scan", unit="clip") as bar:
        for result in scan_clips(clips, workers=workers, folder_fps=folder_fps):
            if isinstance(result, ClipScan):
                scans.append(result)
            else:
                failures.append(result)
                bar.set_postfix_str(f"{len(failures)} failed", refresh=False)
            bar.update()
    return sorted(scans, key=lambda scan: scan.clip.path), failures


def _select_nameable_clips(clips: Iterable[Clip], output: Path) -> tuple[list[Clip], list[Failure]]:
    """Return clips whose file name a CSV can hold, and failures of the others.

    Raises SettingsError if a clip comes from two sources.
    """
    usable: dict[tuple[str, float, float | None], Clip] = {}
    failures = []
    for clip in clips:
        name = _relative_path(clip.file, output)
        key = (name, clip.start_seconds, clip.end_seconds)
        if name != name.strip() or name != name.encode("utf-8", "replace").decode():
            reason = "a manifest cannot store its name (not UTF-8, or a space at the start or end); rename the file"
            failures.append(Failure(clip, "open", reason))
        elif key in usable:
            raise SettingsError(f"'{make_printable(name)}' comes from two of the sources; name each video once")
        else:
            usable[key] = clip
    return list(usable.values()), failures


def _relative_path(file: Path, output: Path) -> str:
    """Return the path relative to the folder of the manifest. Resolve links only if the path leaves that folder."""
    folder = Path(os.path.abspath(output.parent))
    absolute = Path(os.path.abspath(file))
    if absolute.is_relative_to(folder):
        return absolute.relative_to(folder).as_posix()
    return Path(os.path.relpath(absolute.parent.resolve() / absolute.name, folder.resolve())).as_posix()


def _format_csv(scans: Sequence[ClipScan], output: Path) -> bytes:
    has_parts = any(scan.clip.is_part for scan in scans)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "group", "split", *(("start", "end") if has_parts else ()), "duration"])
    for scan in scans:
        clip = scan.clip
        part = (
            (format_seconds(clip.start_seconds), "" if clip.end_seconds is None else format_seconds(clip.end_seconds))
            if has_parts
            else ()
        )
        path = _relative_path(clip.file, output)
        writer.writerow([path, clip.label, clip.group, clip.split, *part, format_seconds(round(scan.duration, 3))])
    return text.getvalue().encode()


def _backup_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.bak")


def describe_left_out(failures: Sequence[Failure]) -> list[str]:
    """Return one line per clip that is not in the manifest, with the reason."""
    return [f"left out: {make_printable(f.clip.path)}: {make_printable(f.reason)}" for f in failures]


def describe_written(manifest: Manifest, output: Path) -> str:
    """Return the closing lines of the command."""
    if not manifest.scans:
        return f"no clip can be read; {output} was not written"
    groups = len({scan.clip.group for scan in manifest.scans})
    left_out = f"; {format_count(len(manifest.failures), 'clip')} left out" if manifest.failures else ""
    return (
        f"{output}: {format_count(len(manifest.scans), 'clip')}, {format_count(groups, 'group')}{left_out}\n"
        f"check and edit it, then run: python extract_features.py {output} -o features.h5"
    )
