"""Which of two labels alarms are for: every row of the table in docs/training.md."""

import re
from pathlib import Path

import pytest

from hazard.metrics.positive_label import find_positive, is_harmless

PAGE = Path(__file__).parents[3] / "docs" / "training.md"
ROWS = re.findall(r"^\| `(.+)`, `(.+)` \| `(.+)`(, with a warning)? \|$", PAGE.read_text(), re.MULTILINE)


def test_the_table_is_read() -> None:
    assert len(ROWS) >= 30


@pytest.mark.parametrize(("first", "second", "positive", "warning"), ROWS)
def test_the_positive_label_of_two_names(first: str, second: str, positive: str, warning: str) -> None:
    for labels in ((first, second), (second, first)):
        found = find_positive(labels)
        assert (found.label, found.is_known) == (positive, not warning)


@pytest.mark.parametrize("name", ["NonFight", "nofights", "not-falling", "NON-VIOLENT", "normalFight", "okFight"])
def test_names_that_are_harmless(name: str) -> None:
    assert is_harmless(name)


@pytest.mark.parametrize(
    "name", ["fight_negative", "false-alarm", "no_event", "AccidentFree", "NoPPEViolation", "none"]
)
def test_what_a_name_denies(name: str) -> None:
    assert is_harmless(name)


@pytest.mark.parametrize("name", ["nosebleed", "noise", "free_fall", "abnormal", "without_mask", "not-normal", "walk"])
def test_names_that_are_not_harmless(name: str) -> None:
    assert not is_harmless(name)
