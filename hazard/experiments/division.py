"""Clips → the division that the settings ask for, and what leaks across it all the same."""

from collections.abc import Callable
from typing import Any

from hazard.data import leakage
from hazard.data.official_splits import choose_division
from hazard.data.splits import Division
from hazard.models.settings import TrainSettings
from hazard.types import Sequences


def divide_honestly(
    sequences: Sequences, settings: TrainSettings, *, echo: Callable[[str], None] = print
) -> tuple[Sequences, Division, dict[str, Any]]:
    """The clips, with one group for those that look alike where asked for, their division, and `leakage.report` of it.

    Raises SettingsError for a division that cannot be made or puts a group on two sides.
    """
    alike = leakage.NONE if settings.duplicates == "ignore" else leakage.find_alike(sequences)
    if settings.duplicates == "group" and len(alike):
        echo(f"clips that look alike were given one group: {leakage.words(alike, sequences)}")
        sequences, alike = leakage.join_alike(sequences, alike), leakage.NONE
    division = choose_division(
        sequences,
        folds=settings.folds,
        repeats=settings.repeats,
        split=settings.split,
        split_files=settings.split_files,
        may_split_groups=settings.split_groups == "allow",
        seed=settings.seed,
    )
    return sequences, division, leakage.report(leakage.across(alike, division), sequences, division)
