"""Ensemble specifications such as `lstm:5,logistic_regression=2`, parsed and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from features.utils.text import suggest_name
from hazard.models.baselines import BASELINES
from hazard.models.heads import HEADS

ModelKind = Literal["head", "baseline"]

MODEL_FAMILIES: Mapping[str, tuple[str, ...]] = {"heads": tuple(HEADS), "baselines": tuple(BASELINES)}
"""Words that stand for all models of a family."""


@dataclass(frozen=True)
class EnsembleEntry:
    """One entry of a specification: `seeds` models of that name share its weight."""

    name: str
    seeds: int = 1
    weight: float = 1.0

    @property
    def kind(self) -> ModelKind:
        """Family of the name."""
        return "head" if self.name in HEADS else "baseline"

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"={self.weight:g}"
        return self.name + ("" if self.seeds == 1 else f":{self.seeds}") + weight


def parse_ensemble_spec(text: str, *, selected_model: str) -> tuple[EnsembleEntry, ...]:
    """Parse NAME[:SEEDS][=WEIGHT],… where NAME is a head, a baseline, or `seeds` for the `selected_model`.

    `heads` and `baselines` stand for all of them. Raises ValueError.
    """
    parts = [part.strip() for item in text.split(",") for part in MODEL_FAMILIES.get(item.strip(), (item,))]
    entries = tuple(_parse_entry(part, selected_model) for part in parts)
    names = [entry.name for entry in entries]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{', '.join(duplicates)} is named twice; give seeds or a weight instead, as in {duplicates[0]}:3=2"
        )
    if sum(entry.seeds for entry in entries) < 2:
        raise ValueError(f"an ensemble needs two models or more, as in {names[0]}:5 or lstm,logistic_regression")
    return entries


def _parse_entry(text: str, selected_model: str) -> EnsembleEntry:
    name_and_seeds, _, weight = text.partition("=")
    name, _, seeds = name_and_seeds.partition(":")
    name = selected_model if name == "seeds" else name
    if name == "folds":
        raise ValueError("to save the models of all folds as one ensemble, use --keep folds")
    choices = [*HEADS, *BASELINES]
    if name not in choices:
        raise ValueError(f"unknown model '{name}'; {suggest_name(name, choices)}")
    if seeds and not (seeds.isdecimal() and 1 <= int(seeds) <= 100):
        raise ValueError(f"'{text}': expected a number of seeds, 1 to 100, after the colon, as in {name}:5")
    return EnsembleEntry(name, int(seeds or 1), _parse_weight(text, weight))


def _parse_weight(text: str, weight: str) -> float:
    try:
        value = float(weight) if weight else 1.0
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError(f"'{text}': expected a weight above 0 after the =, as in {text.partition('=')[0]}=2")
    return value
