"""Train / validation / test splits and folds, which never split a group."""

import csv
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from features.errors import SettingsError
from features.types import SPLITS
from hazard.types import Sequences

HOLD_OUT_PARTS = 5
"""Number of parts that clips are divided into for a hold-out, which is one part."""

RowIndices = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """One split of the clips. `val` serves early stopping only; `test` serves the final evaluation only."""

    train: RowIndices
    val: RowIndices
    test: RowIndices
    val_is_given: bool = False
    """True if the user chose the validation clips, so that no others may take their place."""
    repeat: int = 0
    """Number of the repeat. The folds of one repeat divide all clips; each repeat divides them differently."""

    def __post_init__(self) -> None:
        parts = np.concatenate([self.train, self.val, self.test])
        if len(np.unique(parts)) != len(parts):
            raise ValueError("train, val and test of a fold overlap")

    @property
    def training_clip_count(self) -> int:
        """Number of clips that training may use, either to fit or for early stopping."""
        return len(self.train) + len(self.val)


@dataclass(frozen=True)
class CrossValidationSplits:
    """Folds, with a description of how they were made."""

    folds: tuple[Fold, ...]
    description: str
    split_groups: tuple[str, ...] = ()
    """Groups that lie on two sides because an official list puts them there."""

    @property
    def repeats(self) -> int:
        """Number of times that the clips were divided into folds."""
        return len({fold.repeat for fold in self.folds})


def make_splits(
    sequences: Sequences, *, folds: int | None = None, repeats: int = 1, split: str | None = None, seed: int = 0
) -> CrossValidationSplits:
    """Return the splits that the settings ask for: grouped folds, a given split, the cache's own split, or a hold-out.

    The hold-out is grouped and used if nothing else is given. `repeats` is how often the folds are drawn, differently
    each time. `split` is a CSV file with the columns path and split, or the word `split` for the cache's own column.
    Raises SettingsError for a split that puts a group on two sides, or that cannot be made.
    """
    if folds is not None and split is not None:
        raise SettingsError("give either a number of folds or a split, not both")
    if repeats > 1 and folds is None:
        raise SettingsError(
            f"{repeats} repeats need folds that can be drawn again; give --folds N, or remove --repeats"
        )
    if folds is not None:
        drawn = [make_grouped_folds(sequences, folds, seed=seed, repeat=repeat) for repeat in range(repeats)]
        times = f", drawn {repeats} times" if repeats > 1 else ""
        return CrossValidationSplits(sum(drawn, ()), f"{folds} folds that never split a group{times}, seed {seed}")
    if split is not None:
        sides, description = _read_named_split(sequences, split)
        return CrossValidationSplits((make_given_fold(sequences, sides, seed=seed),), description)
    if (sequences.splits != "").any():
        return CrossValidationSplits(
            (make_given_fold(sequences, sequences.splits, seed=seed),), "the split column of the cache"
        )
    parts = max(2, min(HOLD_OUT_PARTS, len(np.unique(sequences.groups))))
    fold = make_grouped_folds(sequences, parts, seed=seed, purpose="a hold-out")[0]
    return CrossValidationSplits((fold,), f"hold-out of one part in {parts} that never splits a group, seed {seed}")


def make_grouped_folds(
    sequences: Sequences, count: int, *, seed: int, repeat: int = 0, purpose: str = "cross-validation"
) -> tuple[Fold, ...]:
    """Return `count` folds, stratified by label, whose test parts cover every clip once and never share a group.

    Each `repeat` gives other folds. Raises SettingsError if there are fewer groups than folds.
    """
    if count < 2:
        raise SettingsError(f"folds must be 2 or more, got {count}")
    groups = len(np.unique(sequences.groups))
    if groups < count:
        raise SettingsError(
            f"{purpose} with {count} parts needs {count} groups or more, "
            f"but the {len(sequences)} clips come from {groups}; "
            "use fewer --folds, or a group column that tells source videos apart"
        )
    parts = _iterate_grouped_parts(sequences.y, sequences.groups, count, _make_repeat_seed(seed, repeat))
    return tuple(Fold(*make_inner_split(sequences, rest, seed=seed), test=test, repeat=repeat) for rest, test in parts)


def make_inner_split(
    sequences: Sequences, rows: RowIndices, *, seed: int, part: int = 0
) -> tuple[RowIndices, RowIndices]:
    """Split `rows` into (train, val) for early stopping, no group in both; each `part` (0 to 4) is another split.

    val is empty if every split would leave train without some label of `rows`: no clip can be spared then.
    """
    count = min(HOLD_OUT_PARTS, len(np.unique(sequences.groups[rows])))
    if count < 2:
        return rows, rows[:0]
    labels = set(sequences.y[rows].tolist())
    parts = _iterate_grouped_parts(sequences.y[rows], sequences.groups[rows], count, seed)
    pairs = [(rows[rest], rows[part]) for rest, part in parts]
    usable = [(train, val) for train, val in pairs if set(sequences.y[train].tolist()) == labels]
    return usable[part % len(usable)] if usable else (rows, rows[:0])


def number_grouped_parts(y: NDArray[np.int64], groups: NDArray, *, seed: int) -> NDArray[np.int64]:
    """Return the number (B,) of each clip's part, of up to HOLD_OUT_PARTS parts that never split one of `groups` (B,).

    Labels y (B,) are shared out evenly as far as the groups allow.
    """
    numbers = np.zeros(len(y), np.int64)
    count = min(HOLD_OUT_PARTS, len(np.unique(groups)))
    if count > 1:
        for number, (_, part) in enumerate(_iterate_grouped_parts(y, groups, count, seed)):
            numbers[part] = number
    return numbers


def make_given_fold(
    sequences: Sequences, sides: NDArray[np.str_], *, seed: int, may_split_groups: bool = False
) -> Fold:
    """Return the fold that a column of train / val / test describes; clips with an empty entry take no part.

    The fold is tested on test, else on val. Early stopping uses val if there is a test part too, else a grouped part of
    train. Raises SettingsError for a column that cannot be used and, unless `may_split_groups`, for a group on two
    sides.
    """
    _check_split_names(sides)
    if not may_split_groups:
        _check_groups_not_split(sequences.groups, sides)
    train, val, test = (np.flatnonzero(sides == side) for side in SPLITS)
    if not len(train) or not len(val) + len(test):
        found = ", ".join(f"{side}: {int((sides == side).sum())}" for side in SPLITS)
        raise SettingsError(f"a split needs clips in train and in val or test, got {found}")
    if len(val) and len(test):
        return Fold(train, val, test, val_is_given=True)
    return Fold(*make_inner_split(sequences, train, seed=seed), test=np.concatenate([val, test]))


def _make_repeat_seed(seed: int, repeat: int) -> int:
    """Return the seed of a repeat. The first keeps `seed`; the others share no stream with any other seed."""
    return seed if repeat == 0 else int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])


def _iterate_grouped_parts(
    y: NDArray[np.int64], groups: NDArray, count: int, seed: int
) -> Iterator[tuple[RowIndices, RowIndices]]:
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    if np.bincount(y).max() < count:  # else scikit-learn raises; such rare labels cannot be balanced anyway
        y = np.zeros_like(y)
    with warnings.catch_warnings():  # a label rarer than the number of parts cannot be in every part
        warnings.simplefilter("ignore", UserWarning)
        yield from splitter.split(y, y, groups)


def _read_named_split(sequences: Sequences, split: str) -> tuple[NDArray[np.str_], str]:
    if Path(split).is_file():
        return read_split(Path(split), sequences.paths), f"split file {Path(split).name}"
    if split != "split":
        raise SettingsError(f"--split takes a CSV file or the word 'split'; file {split} does not exist")
    if not (sequences.splits != "").any():
        raise SettingsError("the split column of the cache is empty; give --split FILE or --folds N")
    return sequences.splits, "the split column of the cache"


def read_split(file: Path, paths: NDArray[np.str_]) -> NDArray[np.str_]:
    """Read a CSV file (columns path, split) as one side per clip, "" for a clip that it does not name.

    Raises SettingsError if the file cannot be read or used.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"split file {file} cannot be read: {error}") from None
    if not rows or not {"path", "split"} <= set(rows[0]):
        raise SettingsError(f"split file {file} needs the columns path and split")
    sides = {row["path"]: (row["split"] or "").strip().lower() for row in rows}
    if not set(sides) & set(paths.tolist()):
        raise SettingsError(f"split file {file} names none of the cache's clips, such as {paths[0]}")
    return np.array([sides.get(path, "") for path in paths.tolist()], dtype=np.str_)


def _check_split_names(sides: NDArray[np.str_]) -> None:
    unknown = sorted(set(sides.tolist()) - {"", *SPLITS})
    if unknown:
        raise SettingsError(f"unknown split '{unknown[0]}'; choose one of: {', '.join(SPLITS)}")


def find_split_groups(groups: NDArray[np.str_], sides: NDArray[np.str_]) -> list[str]:
    """Return the groups whose clips have more than one of train, val and test in `sides`."""
    used = sides != ""
    pairs = np.unique(np.stack([groups[used], sides[used]]).astype(str), axis=1)  # (2, distinct pairs)
    names, counts = np.unique(pairs[0], return_counts=True)
    return [str(name) for name in names[counts > 1]]


def _check_groups_not_split(groups: NDArray[np.str_], sides: NDArray[np.str_]) -> None:
    """Raise SettingsError if a group lies on two sides, which would make metrics look better than they are."""
    for group in find_split_groups(groups, sides)[:1]:
        found = np.unique(sides[(groups == group) & (sides != "")]).tolist()
        raise SettingsError(f"the split puts group '{group}' into {' and '.join(found)}; a group must stay on one side")
