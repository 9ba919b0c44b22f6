"""The official splits of UCF101 or HMDB51, all from one cache; the result is the mean over them with its deviation."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from features.sources.split_lists import (
    ListedClip,
    ListedClipKey,
    apply_split_lists,
    find_split_numbers,
    read_split_lists,
)
from features.types import Clip
from features.utils.text import format_count, truncate_list
from hazard.data.splits import CrossValidationSplits, find_split_groups, make_given_fold, make_splits
from hazard.types import Sequences


def choose_splits(
    sequences: Sequences,
    *,
    folds: int | None = None,
    repeats: int = 1,
    split: str | None = None,
    split_files: Path | None = None,
    may_split_groups: bool = False,
    seed: int = 0,
) -> CrossValidationSplits:
    """Return the splits that the settings ask for: official lists if a folder is given, else those of `make_splits`."""
    if split_files is None:
        return make_splits(sequences, folds=folds, repeats=repeats, split=split, seed=seed)
    if folds is not None or split is not None:
        raise SettingsError(
            "official lists already define the folds; give either --split-files, or --folds or --split, not both"
        )
    if repeats > 1:
        raise SettingsError("official lists cannot be drawn again; remove --repeats")
    return make_official_splits(sequences, split_files, may_split_groups=may_split_groups, seed=seed)


def make_official_splits(
    sequences: Sequences, folder: Path, *, may_split_groups: bool = False, seed: int = 0
) -> CrossValidationSplits:
    """Return one fold for each split of the lists in `folder`, tested on the clips that its list names.

    Early stopping uses a part of train. Each split is a repeat of its own, so that the headline is the mean of the
    splits' metrics, as the authors of both data sets ask. A clip that no list of a split names takes no part in it.
    Raises SettingsError for lists that cannot be read or match no clip, and, unless `may_split_groups`, for one that
    puts a group on two sides.
    """
    numbers = find_split_numbers(folder)
    folds, split_groups, absent = [], set(), 0
    for repeat, number in enumerate(numbers):
        lines = read_split_lists([folder], number=number)
        sides = _assign_sides(sequences, lines)
        absent += sum(line.split != "" for line in lines.values()) - int((sides != "").sum())
        split_groups |= set(find_split_groups(sequences.groups, sides))
        if split_groups and not may_split_groups:
            _raise_split_groups(sorted(split_groups), number)
        fold = make_given_fold(sequences, sides, seed=seed, may_split_groups=may_split_groups)
        folds.append(replace(fold, repeat=repeat))
    missing = f"; {absent} of the lists' entries are not in the cache" if absent else ""
    description = f"official split{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} of {folder.name}{missing}"
    return CrossValidationSplits(tuple(folds), description, tuple(sorted(split_groups)))


def _assign_sides(sequences: Sequences, lines: Mapping[ListedClipKey, ListedClip]) -> NDArray[np.str_]:
    """Return the side of each clip in one split's lists, "" for a clip that they do not name."""
    names = zip(sequences.paths.tolist(), sequences.y.tolist(), strict=True)
    clips = [Clip(path, Path(path), sequences.labels[k]) for path, k in names]
    return np.array([clip.split for clip in apply_split_lists(clips, lines, absent="ignore")], dtype="<U5")


def _raise_split_groups(split_groups: list[str], number: int) -> None:
    raise SettingsError(
        f"official split {number} puts {format_count(len(split_groups), 'group')} on two sides "
        f"({truncate_list(split_groups)}), which inflates the metrics; give groups that the split keeps together, "
        "or add --set split_groups=allow to follow the published protocol anyway"
    )
