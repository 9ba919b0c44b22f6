"""Which models make an ensemble: `lstm:5,logistic_regression=2` and the like, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from features.utils.text import suggest_name
from hazard.models.baselines import BASELINES
from hazard.models.heads import HEADS

ModelKind = Literal["head", "baseline"]

MODEL_FAMILIES: Mapping[str, tuple[str, ...]] = {"heads": tuple(HEADS), "baselines": tuple(BASELINES)}
"""Words that stand for a whole family."""


@dataclass(frozen=True)
class EnsembleEntry:
    """One name in a lineup: `seeds` models of it share its weight."""

    name: str
    seeds: int = 1
    weight: float = 1.0

    @property
    def kind(self) -> ModelKind:
        """The family that the name belongs to."""
        return "head" if self.name in HEADS else "baseline"

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"={self.weight:g}"
        return self.name + ("" if self.seeds == 1 else f":{self.seeds}") + weight


def parse_ensemble_spec(text: str, *, selected_model: str) -> tuple[EnsembleEntry, ...]:
    """NAME[:SEEDS][=WEIGHT], comma-separated, NAME being a head, a baseline, or `seeds` for the `chosen` one.

    `heads` and `baselines` stand for all of them. Raises ValueError.
    """
    parts = [part.strip() for item in text.split(",") for part in MODEL_FAMILIES.get(item.strip(), (item,))]
    places = tuple(_parse_entry(part, selected_model) for part in parts)
    names = [place.name for place in places]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is named twice; give a weight or seeds instead, as in {twice[0]}:3=2")
    if sum(place.seeds for place in places) < 2:
        raise ValueError(f"an ensemble takes two models or more, as in {names[0]}:5 or lstm,logistic_regression")
    return places


def _parse_entry(text: str, selected_model: str) -> EnsembleEntry:
    front, _, weight = text.partition("=")
    name, _, seeds = front.partition(":")
    name = selected_model if name == "seeds" else name
    if name == "folds":
        raise ValueError("to keep the models of all folds as one, use --keep folds")
    choices = [*HEADS, *BASELINES]
    if name not in choices:
        raise ValueError(f"unknown model '{name}'; {suggest_name(name, choices)}")
    if seeds and not (seeds.isdecimal() and 1 <= int(seeds) <= 100):
        raise ValueError(f"'{text}': after the colon comes how many seeds, 1 to 100, as in {name}:5")
    return EnsembleEntry(name, int(seeds or 1), _parse_weight(text, weight))


def _parse_weight(text: str, weight: str) -> float:
    try:
        value = float(weight) if weight else 1.0
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError(f"'{text}': after the = comes a weight above 0, as in {text.partition('=')[0]}=2")
    return value
