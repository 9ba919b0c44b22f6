"""The search space of `--tune`. To search one more setting, add a line to SEARCH_SPACE."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

from hazard.models.heads import HEADS
from hazard.models.heads.base import DEFAULT_INPUTS, STEP_INPUTS
from hazard.models.heads.step_pooling import POOLINGS


class ValueSuggester(Protocol):
    """The methods of an Optuna trial that draw values."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of `choices`."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from `low` to `high`."""


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def draw(self, trial: ValueSuggester, name: str) -> Any:
        """Return the value that `trial` suggests."""
        named = {format_value(value): value for value in self.values}
        return named[trial.suggest_categorical(name, list(named))]

    def with_value(self, value: Any) -> "Choice":
        """Return the choice with `value` added if it is missing."""
        return self if value in self.values else replace(self, values=(value, *self.values))

    def is_allowed(self, value: Any) -> bool:
        """Return whether a trial can be given `value`."""
        return value in self.values


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`; with `log` each order of magnitude is as likely as any other."""

    low: float
    high: float
    log: bool = False

    def draw(self, trial: ValueSuggester, name: str) -> float:
        """Return the value that `trial` suggests."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def with_value(self, value: Any) -> "Range":
        """Return the range extended to include `value`, if it is a number that the range can include."""
        if value is None or (self.log and value <= 0):
            return self
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def is_allowed(self, value: Any) -> bool:
        """Return whether a trial can be given `value`."""
        return value is not None and self.low <= value <= self.high


def format_value(value: Any) -> Any:
    """Return a value as trials and trials.csv write it: a tuple as `features+differences`, others unchanged."""
    return "+".join(map(str, value)) if isinstance(value, tuple) else value


SEARCH_SPACE: dict[str, Choice | Range] = {
    "head": Choice(tuple(HEADS)),
    "hidden_size": Choice((16, 32, 64, 128)),
    "projection": Choice((0, 32, 64, 128)),
    "layers": Choice((1, 2)),
    "bidirectional": Choice((False, True)),
    "inputs": Choice((DEFAULT_INPUTS, STEP_INPUTS[:2], STEP_INPUTS[:3], STEP_INPUTS[1:3])),
    "pooling": Choice((None, *POOLINGS)),
    "dropout": Choice((0.1, 0.3, 0.5, 0.7)),
    "lr": Range(1e-4, 1e-2, log=True),
    "weight_decay": Range(1e-3, 1.0, log=True),
    "label_smoothing": Choice((0.0, 0.1, 0.2)),
    "mixup": Choice((0.0, 0.2)),
    "ema": Choice((0.0, 0.98)),
}
"""Setting → the values to search. The value in the given settings is always added."""
