"""Groups of clips that a split must not divide, found by names, by folders or by what the clips show."""

import re
from collections.abc import Sequence
from itertools import count
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from features.errors import SettingsError
from features.types import Clip
from features.utils.text import format_count, make_printable

GROUP_PATTERN = r"_(g\d+)_"
"""How UCF101 names the source video of a clip: v_ApplyEyeMakeup_g01_c01.avi."""

GROUP_METHODS = ("auto", "column", "pattern", "folder", "frames")

_UCF_NAME = re.compile(r"v_(?P<label>.+?)_g\d+_c\d+$")


def group_clips(
    clips: Sequence[Clip], scenes: NDArray[np.int64], method: str, *, pattern: str | None = None
) -> tuple[list[str], str]:
    """Return the group of each clip and a text that says how the groups were found.

    `scenes` holds the number of the scene (N,) that each clip shows. `auto` uses the groups of the clips if there are
    any, else UCF101-style names if all clips have them, else the scenes. Raises SettingsError if a method does not fit
    every clip.
    """
    if method == "auto":
        method = "pattern" if pattern else _choose_method(clips)
    if method == "column":
        if not any(clip.group for clip in clips):
            raise SettingsError("--group-from column: no clip has a group; give a manifest with a column 'group'")
        return _group_by_column(clips, scenes)
    if method == "pattern":
        return _group_by_pattern(clips, pattern or GROUP_PATTERN)
    if method == "folder":
        return [_find_group_folder(clip) for clip in clips], "the folder between class and clip"
    return [
        _make_scene_name(scene) for scene in scenes.tolist()
    ], "near-duplicate frames: clips that show the same scene"


def merge_groups_by_scene(groups: Sequence[str], scenes: NDArray[np.int64]) -> list[str]:
    """Merge groups that have clips of one scene; the merged group has the name that sorts first. Return all groups."""
    names, numbers = np.unique(np.array(groups), return_inverse=True)
    size = len(names) + int(scenes.max()) + 1
    links = csr_array((np.ones(len(scenes), bool), (numbers, len(names) + scenes)), shape=(size, size))
    merged = connected_components(links, directed=False)[1][: len(names)]
    first = {part: str(name) for name, part in reversed(list(zip(names, merged.tolist(), strict=True)))}
    return [first[part] for part in merged[numbers].tolist()]


def _choose_method(clips: Sequence[Clip]) -> str:
    if any(clip.group for clip in clips):
        return "column"
    return "pattern" if all(re.search(GROUP_PATTERN, _stem(clip)) for clip in clips) else "frames"


def _group_by_column(clips: Sequence[Clip], scenes: NDArray[np.int64]) -> tuple[list[str], str]:
    """Return the group of each clip. A clip without one gets that of a clip of its scene, or else a new group."""
    known = {scene: clip.group for clip, scene in zip(clips, scenes.tolist(), strict=True) if clip.group}
    taken = {clip.group for clip in clips}
    free = (name for name in map(_make_scene_name, count()) if name not in taken)
    groups = []
    for clip, scene in zip(clips, scenes.tolist(), strict=True):
        if not clip.group and scene not in known:
            known[scene] = next(free)
        groups.append(clip.group or known[scene])
    without = sum(not clip.group for clip in clips)
    filled = f"; for {format_count(without, 'clip')} without one: near-duplicate frames" if without else ""
    return groups, f"those of the source (a column 'group', or UCF101-style names){filled}"


def _group_by_pattern(clips: Sequence[Clip], pattern: str) -> tuple[list[str], str]:
    try:
        matcher = re.compile(pattern)
    except re.error as error:
        raise SettingsError(f"--group-pattern '{pattern}' is not a regular expression: {error}") from None
    matches = [matcher.search(clip.file_path) for clip in clips]
    missed = [clip.path for clip, match in zip(clips, matches, strict=True) if match is None]
    if missed:
        raise SettingsError(
            f"--group-pattern '{pattern}' matches {len(clips) - len(missed)} of {format_count(len(clips), 'clip')}, "
            f"not '{make_printable(missed[0])}'; give a pattern that matches every path, or use --group-from frames"
        )
    found = [(match[1] if matcher.groups else match[0]) or "" for match in matches if match]
    if "" in found:
        raise SettingsError(f"--group-pattern '{pattern}' finds an empty group in '{clips[found.index('')].path}'")
    ucf = [_UCF_NAME.match(_stem(clip)) for clip in clips]
    if not all(ucf):
        return found, f"the pattern '{pattern}' in each path"
    labels = [clip.label or (name["label"] if name else "") for clip, name in zip(clips, ucf, strict=True)]
    groups = [f"{label}_{group}" for label, group in zip(labels, found, strict=True)]
    return groups, f"the pattern '{pattern}' in each name, separately for each class, as UCF101 numbers its groups"


def _find_group_folder(clip: Clip) -> str:
    above = PurePosixPath(clip.file_path).parts[:-1]
    labels = [i for i, part in enumerate(above) if clip.label and part == clip.label]
    inner = above[labels[-1] + 1 :] if labels else above
    if not inner:
        raise SettingsError(
            f"--group-from folder: '{make_printable(clip.path)}' has no folder between class and clip; "
            "expected class/scene/clip, or use --group-from frames"
        )
    return "/".join(inner)


def _stem(clip: Clip) -> str:
    return PurePosixPath(clip.file_path).stem


def _make_scene_name(number: int) -> str:
    return f"scene{number + 1:04d}"
