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

from features.curation.grouping import group_clips, unite_groups
from features.curation.near_duplicates import ALIKE, join_alike
from features.curation.splitting import Shares, divide_groups
from features.curation.survey import Look, survey_clips
from features.errors import SettingsError
from features.sources.discover import find_clips
from features.types import Clip, Failure, in_words
from features.utils.files import check_writable, write_atomically
from features.utils.progress import progress_bar
from features.utils.text import counted, printable

DEFAULT_SHARES: Shares = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class Wishes:
    """How groups and splits are to be found."""

    group_from: str = "auto"
    """A name in WAYS."""
    group_pattern: str | None = None
    """A regular expression for `pattern`; UCF101's by default."""
    join_alike: bool = False
    """Groups that have clips of one scene become one."""
    alike: float = ALIKE
    """How much two frames correlate that show one scene."""
    shares: Shares | None = None
    """Of train, val and test; None keeps the split that is there, or takes 70/15/15."""
    with_split: bool = True
    """Whether there is to be a split at all."""
    keep_split: bool = False
    """The split that is there must be kept."""
    seed: int = 0


@dataclass(frozen=True)
class Manifest:
    """The clips that can be read, in order of their path, and those that cannot."""

    looks: tuple[Look, ...]
    scenes: NDArray[np.int64]  # (N,) the number of the scene that each clip shows
    failures: tuple[Failure, ...]
    how_grouped: str = ""
    how_split: str = ""
    shares: Shares | None = None
    """Those that were asked for; None where the split is the source's own."""


def make_manifest(
    sources: Sequence[Path],
    output: Path,
    wishes: Wishes,
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
            f"(the old one is then kept as {_backup(output).name})"
        )
    clips = find_clips(sources)
    _check_wishes(clips, wishes)
    check_writable(output)
    usable, unnamed = _nameable(clips, output)
    looks, failures = _look_at(usable, workers=workers, folder_fps=folder_fps)
    failures = sorted([*unnamed, *failures], key=lambda failure: failure.clip.path)
    if not looks:
        return Manifest((), np.array([], np.int64), tuple(failures))
    manifest = assemble(looks, failures, wishes)
    if output.exists():
        write_atomically(_backup(output), output.read_bytes())
    write_atomically(output, _as_csv(manifest.looks, output))
    return manifest


def assemble(looks: Sequence[Look], failures: Sequence[Failure], wishes: Wishes) -> Manifest:
    """Groups and splits of clips that were looked at."""
    scenes = join_alike([look.prints for look in looks], [look.clip.digest for look in looks], alike=wishes.alike)
    clips = [look.clip for look in looks]
    groups, how_grouped = group_clips(clips, scenes, wishes.group_from, pattern=wishes.group_pattern)
    if wishes.join_alike:
        groups = unite_groups(groups, scenes)
        how_grouped += ", those that show the same scene joined"
    splits, how_split, shares = _split(clips, groups, wishes)
    named = [replace(clip, group=g, split=s) for clip, g, s in zip(clips, groups, splits, strict=True)]
    done = tuple(replace(look, clip=clip) for look, clip in zip(looks, named, strict=True))
    return Manifest(done, scenes, tuple(failures), how_grouped, how_split, shares)


def _check_wishes(clips: Sequence[Clip], wishes: Wishes) -> None:
    if wishes.keep_split and not any(clip.split for clip in clips):
        raise SettingsError("--keep-split: the source has no split; leave it out, or give --split 70/15/15")


def _split(clips: Sequence[Clip], groups: Sequence[str], wishes: Wishes) -> tuple[list[str], str, Shares | None]:
    is_there = any(clip.split for clip in clips)
    if is_there and wishes.shares is None and wishes.with_split:
        return [clip.split for clip in clips], "the source's own, kept", None
    instead = " instead of the source's own" if is_there else ""
    if not wishes.with_split:
        return [""] * len(clips), f"none{instead}", None
    shares = wishes.shares or DEFAULT_SHARES
    splits = divide_groups([clip.label for clip in clips], groups, shares, seed=wishes.seed)
    met, wanted = Counter(splits), zip(("train", "val", "test"), shares, strict=True)
    reached = ", ".join(f"{side} {met[side] / len(clips):.0%} ({share:.0%})" for side, share in wanted if share)
    return splits, f"made{instead}, no group divided, seed {wishes.seed}: {reached} of the clips", shares


def _look_at(clips: Sequence[Clip], *, workers: int | None, folder_fps: float) -> tuple[list[Look], list[Failure]]:
    looks: list[Look] = []
    failures: list[Failure] = []
    if not clips:
        return looks, failures
    with progress_bar(len(clips), what="look", unit="clip") as bar:
        for result in survey_clips(clips, workers=workers, folder_fps=folder_fps):
            if isinstance(result, Look):
                looks.append(result)
            else:
                failures.append(result)
                bar.set_postfix_str(f"{len(failures)} failed", refresh=False)
            bar.update()
    return sorted(looks, key=lambda look: look.clip.path), failures


def _nameable(clips: Iterable[Clip], output: Path) -> tuple[list[Clip], list[Failure]]:
    """Clips whose file a CSV can name, and the others. Raises SettingsError where a clip comes from two sources."""
    usable: dict[tuple[str, float, float | None], Clip] = {}
    failures = []
    for clip in clips:
        name = _relative(clip.file, output)
        key = (name, clip.start_seconds, clip.end_seconds)
        if name != name.strip() or name != name.encode("utf-8", "replace").decode():
            reason = "a manifest cannot hold its name (not UTF-8, or a space at an end); rename it"
            failures.append(Failure(clip, "open", reason))
        elif key in usable:
            raise SettingsError(f"'{printable(name)}' comes from two of the sources; give each video once")
        else:
            usable[key] = clip
    return list(usable.values()), failures


def _relative(file: Path, output: Path) -> str:
    """The path from the manifest's folder; links are followed only where the way leads out of it."""
    folder = Path(os.path.abspath(output.parent))
    absolute = Path(os.path.abspath(file))
    if absolute.is_relative_to(folder):
        return absolute.relative_to(folder).as_posix()
    return Path(os.path.relpath(absolute.parent.resolve() / absolute.name, folder.resolve())).as_posix()


def _as_csv(looks: Sequence[Look], output: Path) -> bytes:
    has_parts = any(look.clip.is_part for look in looks)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "group", "split", *(("start", "end") if has_parts else ()), "duration"])
    for look in looks:
        clip = look.clip
        part = (
            (in_words(clip.start_seconds), "" if clip.end_seconds is None else in_words(clip.end_seconds))
            if has_parts
            else ()
        )
        path = _relative(clip.file, output)
        writer.writerow([path, clip.label, clip.group, clip.split, *part, in_words(round(look.duration, 3))])
    return text.getvalue().encode()


def _backup(output: Path) -> Path:
    return output.with_name(f"{output.name}.bak")


def describe_left_out(failures: Sequence[Failure]) -> list[str]:
    """One line a clip that is not in the manifest, and why."""
    return [f"left out: {printable(f.clip.path)}: {printable(f.reason)}" for f in failures]


def describe_written(manifest: Manifest, output: Path) -> str:
    """The closing lines."""
    if not manifest.looks:
        return f"no clip can be read; {output} was not written"
    groups = len({look.clip.group for look in manifest.looks})
    left_out = f"; {counted(len(manifest.failures), 'clip')} left out" if manifest.failures else ""
    return (
        f"{output}: {counted(len(manifest.looks), 'clip')}, {counted(groups, 'group')}{left_out}\n"
        f"look at it, edit it, then: python extract_features.py {output} -o features.h5"
    )
