"""The splits that the settings ask for, with a report of what leaks across them."""

from collections.abc import Callable
from typing import Any

from hazard.data import leakage
from hazard.data.official_splits import choose_splits
from hazard.data.splits import CrossValidationSplits
from hazard.models.settings import TrainSettings
from hazard.types import Sequences


def make_checked_splits(
    sequences: Sequences, settings: TrainSettings, *, echo: Callable[[str], None] = print
) -> tuple[Sequences, CrossValidationSplits, dict[str, Any]]:
    """Return the clips, their splits and the leakage report of `make_leakage_report`.

    With `duplicates=group` near-duplicate clips get one common group first. Raises SettingsError if the splits cannot
    be made or divide a group.
    """
    near_duplicates = leakage.NO_PAIRS if settings.duplicates == "ignore" else leakage.find_near_duplicates(sequences)
    if settings.duplicates == "group" and len(near_duplicates):
        echo(f"near-duplicate clips were put in one group: {leakage.format_pairs(near_duplicates, sequences)}")
        sequences = leakage.merge_near_duplicates(sequences, near_duplicates)
        near_duplicates = leakage.NO_PAIRS
    splits = choose_splits(
        sequences,
        folds=settings.folds,
        repeats=settings.repeats,
        split=settings.split,
        split_files=settings.split_files,
        may_split_groups=settings.split_groups == "allow",
        seed=settings.seed,
    )
    return (
        sequences,
        splits,
        leakage.make_leakage_report(leakage.select_across_split(near_duplicates, splits), sequences, splits),
    )
