"""A manifest of the clips that are there: labels, groups, a split and durations, for people to look at and edit."""

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
from features.types import Clip, Failure, format_seconds
from features.utils.files import check_writable, write_atomically
from features.utils.progress import make_progress_bar
from features.utils.text import format_count, make_printable

DEFAULT_SHARES: SplitShares = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class ManifestOptions:
    """How groups and splits are to be found."""

    group_from: str = "auto"
    """A name in WAYS."""
    group_pattern: str | None = None
    """A regular expression for `pattern`; UCF101's by default."""
    join_alike: bool = False
    """Groups that have clips of one scene become one."""
    alike: float = MIN_CORRELATION
    """How much two frames correlate that show one scene."""
    shares: SplitShares | None = None
    """Of train, val and test; None keeps the split that is there, or takes 70/15/15."""
    with_split: bool = True
    """Whether there is to be a split at all."""
    keep_split: bool = False
    """The split that is there must be kept."""
    seed: int = 0


@dataclass(frozen=True)
class Manifest:
    """The clips that can be read, in order of their path, and those that cannot."""

    scans: tuple[ClipScan, ...]
    scenes: NDArray[np.int64]  # (N,) the number of the scene that each clip shows
    failures: tuple[Failure, ...]
    how_grouped: str = ""
    how_split: str = ""
    shares: SplitShares | None = None
    """Those that were asked for; None where the split is the source's own."""


def make_manifest(
    sources: Sequence[Path],
    output: Path,
    options: ManifestOptions,
    *,
    workers: int | None = None,
    folder_fps: float = 25.0,
    with_force: bool = False,
) -> Manifest:
    """Looks at each clip of the sources once and writes the manifest, unless no clip can be read.

    Raises SettingsError where the output exists (`with_force` keeps the old one as `.bak`) or a wish does not fit.
    """
    if output.exists() and not with_force:
        raise SettingsError(
            f"{output} exists, and may have been edited; give another name, or --force to replace it "
            f"(the old one is then kept as {_backup_path(output).name})"
        )
    clips = find_clips(sources)
    _check_options(clips, options)
    check_writable(output)
    usable, unnamed = _select_nameable_clips(clips, output)
    looks, failures = _scan_with_progress(usable, workers=workers, folder_fps=folder_fps)
    failures = sorted([*unnamed, *failures], key=lambda failure: failure.clip.path)
    if not looks:
        return Manifest((), np.array([], np.int64), tuple(failures))
    manifest = build_manifest(looks, failures, options)
    if output.exists():
        write_atomically(_backup_path(output), output.read_bytes())
    write_atomically(output, _format_csv(manifest.scans, output))
    return manifest


def build_manifest(scans: Sequence[ClipScan], failures: Sequence[Failure], options: ManifestOptions) -> Manifest:
    """Groups and splits of clips that were looked at."""
    scenes = merge_near_duplicates(
        [look.fingerprints for look in scans], [look.clip.digest for look in scans], min_correlation=options.alike
    )
    clips = [look.clip for look in scans]
    groups, how_grouped = group_clips(clips, scenes, options.group_from, pattern=options.group_pattern)
    if options.join_alike:
        groups = merge_groups_by_scene(groups, scenes)
        how_grouped += ", those that show the same scene joined"
    splits, how_split, shares = _make_splits(clips, groups, options)
    named = [replace(clip, group=g, split=s) for clip, g, s in zip(clips, groups, splits, strict=True)]
    done = tuple(replace(look, clip=clip) for look, clip in zip(scans, named, strict=True))
    return Manifest(done, scenes, tuple(failures), how_grouped, how_split, shares)


def _check_options(clips: Sequence[Clip], options: ManifestOptions) -> None:
    if options.keep_split and not any(clip.split for clip in clips):
        raise SettingsError("--keep-split: the source has no split; leave it out, or give --split 70/15/15")


def _make_splits(
    clips: Sequence[Clip], groups: Sequence[str], options: ManifestOptions
) -> tuple[list[str], str, SplitShares | None]:
    is_there = any(clip.split for clip in clips)
    if is_there and options.shares is None and options.with_split:
        return [clip.split for clip in clips], "the source's own, kept", None
    instead = " instead of the source's own" if is_there else ""
    if not options.with_split:
        return [""] * len(clips), f"none{instead}", None
    shares = options.shares or DEFAULT_SHARES
    splits = assign_splits([clip.label for clip in clips], groups, shares, seed=options.seed)
    met, wanted = Counter(splits), zip(("train", "val", "test"), shares, strict=True)
    reached = ", ".join(f"{side} {met[side] / len(clips):.0%} ({share:.0%})" for side, share in wanted if share)
    return splits, f"made{instead}, no group divided, seed {options.seed}: {reached} of the clips", shares


def _scan_with_progress(
    clips: Sequence[Clip], *, workers: int | None, folder_fps: float
) -> tuple[list[ClipScan], list[Failure]]:
    looks: list[ClipScan] = []
    failures: list[Failure] = []
    if not clips:
        return looks, failures
    with make_progress_bar(len(clips), description="look", unit="clip") as bar:
        for result in scan_clips(clips, workers=workers, folder_fps=folder_fps):
            if isinstance(result, ClipScan):
                looks.append(result)
            else:
                failures.append(result)
                bar.set_postfix_str(f"{len(failures)} failed", refresh=False)
            bar.update()
    return sorted(looks, key=lambda look: look.clip.path), failures


def _select_nameable_clips(clips: Iterable[Clip], output: Path) -> tuple[list[Clip], list[Failure]]:
    """Clips whose file a CSV can name, and the others. Raises SettingsError where a clip comes from two sources."""
    usable: dict[tuple[str, float, float | None], Clip] = {}
    failures = []
    for clip in clips:
        name = _relative_path(clip.file, output)
        key = (name, clip.start_seconds, clip.end_seconds)
        if name != name.strip() or name != name.encode("utf-8", "replace").decode():
            reason = "a manifest cannot hold its name (not UTF-8, or a space at an end); rename it"
            failures.append(Failure(clip, "open", reason))
        elif key in usable:
            raise SettingsError(f"'{make_printable(name)}' comes from two of the sources; give each video once")
        else:
            usable[key] = clip
    return list(usable.values()), failures


def _relative_path(file: Path, output: Path) -> str:
    """The path from the manifest's folder; links are followed only where the way leads out of it."""
    folder = Path(os.path.abspath(output.parent))
    absolute = Path(os.path.abspath(file))
    if absolute.is_relative_to(folder):
        return absolute.relative_to(folder).as_posix()
    return Path(os.path.relpath(absolute.parent.resolve() / absolute.name, folder.resolve())).as_posix()


def _format_csv(scans: Sequence[ClipScan], output: Path) -> bytes:
    has_parts = any(look.clip.is_part for look in scans)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "group", "split", *(("start", "end") if has_parts else ()), "duration"])
    for look in scans:
        clip = look.clip
        part = (
            (format_seconds(clip.start_seconds), "" if clip.end_seconds is None else format_seconds(clip.end_seconds))
            if has_parts
            else ()
        )
        path = _relative_path(clip.file, output)
        writer.writerow([path, clip.label, clip.group, clip.split, *part, format_seconds(round(look.duration, 3))])
    return text.getvalue().encode()


def _backup_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.bak")


def describe_left_out(failures: Sequence[Failure]) -> list[str]:
    """One line a clip that is not in the manifest, and why."""
    return [f"left out: {make_printable(f.clip.path)}: {make_printable(f.reason)}" for f in failures]


def describe_written(manifest: Manifest, output: Path) -> str:
    """The closing lines."""
    if not manifest.scans:
        return f"no clip can be read; {output} was not written"
    groups = len({look.clip.group for look in manifest.scans})
    left_out = f"; {format_count(len(manifest.failures), 'clip')} left out" if manifest.failures else ""
    return (
        f"{output}: {format_count(len(manifest.scans), 'clip')}, {format_count(groups, 'group')}{left_out}\n"
        f"look at it, edit it, then: python extract_features.py {output} -o features.h5"
    )
