"""Clips → the division that the settings ask for, and what leaks across it all the same."""

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
    """The clips, with one group for those that look alike where asked for, their division, and `leakage.report` of it.

    Raises SettingsError for a division that cannot be made or puts a group on two sides.
    """
    alike = leakage.NO_PAIRS if settings.duplicates == "ignore" else leakage.find_near_duplicates(sequences)
    if settings.duplicates == "group" and len(alike):
        echo(f"clips that look alike were given one group: {leakage.format_pairs(alike, sequences)}")
        sequences, alike = leakage.merge_near_duplicates(sequences, alike), leakage.NO_PAIRS
    division = choose_splits(
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
        division,
        leakage.make_leakage_report(leakage.select_across_split(alike, division), sequences, division),
    )
