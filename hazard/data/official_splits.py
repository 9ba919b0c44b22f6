"""Official protocols: every split of UCF101's or HMDB51's lists from one cache, a mean over them with its deviation."""

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
    """The division that was asked for: official lists where a folder of them is given, else `divide`'s."""
    if split_files is None:
        return make_splits(sequences, folds=folds, repeats=repeats, split=split, seed=seed)
    if folds is not None or split is not None:
        raise SettingsError("official lists are the division; give --split-files, or --folds or --split, not both")
    if repeats > 1:
        raise SettingsError("official lists cannot be drawn again; leave out --repeats")
    return make_official_splits(sequences, split_files, may_split_groups=may_split_groups, seed=seed)


def make_official_splits(
    sequences: Sequences, folder: Path, *, may_split_groups: bool = False, seed: int = 0
) -> CrossValidationSplits:
    """One fold a split of the lists in `folder`, tested on what its list says; early stopping takes a part of train.

    Each split is a repeat of its own, so that the headline is the mean of the splits' figures, as the two data sets'
    authors ask for. A clip that no list of a split names takes no part in it. Raises SettingsError for lists that
    cannot be read or fit no clip, and, unless `may_split_groups`, for one that puts a group on two sides.
    """
    numbers = find_split_numbers(folder)
    folds, torn, absent = [], set(), 0
    for repeat, number in enumerate(numbers):
        lines = read_split_lists([folder], number=number)
        sides = _assign_sides(sequences, lines)
        absent += sum(line.split != "" for line in lines.values()) - int((sides != "").sum())
        torn |= set(find_split_groups(sequences.groups, sides))
        if torn and not may_split_groups:
            _raise_split_groups(sorted(torn), number)
        fold = make_given_fold(sequences, sides, seed=seed, may_split_groups=may_split_groups)
        folds.append(replace(fold, repeat=repeat))
    lacking = f"; {absent} of the lists' entries are not in the cache" if absent else ""
    how = f"official split{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} of {folder.name}{lacking}"
    return CrossValidationSplits(tuple(folds), how, tuple(sorted(torn)))


def _assign_sides(sequences: Sequences, lines: Mapping[ListedClipKey, ListedClip]) -> NDArray[np.str_]:
    """The side of each clip by one split's lists, "" for a clip that they do not name."""
    names = zip(sequences.paths.tolist(), sequences.y.tolist(), strict=True)
    clips = [Clip(path, Path(path), sequences.labels[k]) for path, k in names]
    return np.array([clip.split for clip in apply_split_lists(clips, lines, absent="ignore")], dtype="<U5")


def _raise_split_groups(split_groups: list[str], number: int) -> None:
    raise SettingsError(
        f"official split {number} puts {format_count(len(split_groups), 'group')} on two sides ({truncate_list(split_groups)}), so that its figures "
        "would be too good; give groups that it keeps whole, or, to have the published protocol all the same, "
        "--set split_groups=allow"
    )
