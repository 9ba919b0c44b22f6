"""Model sizes that follow the amount of data: a head for 200 clips is smaller than one for 13,000."""

import math
from typing import Any

from pydantic import Field

from hazard.models.heads.base import HeadOptions
from hazard.models.settings import TrainSettings

FEW_CLIPS, MANY_CLIPS = 1_000, 5_000

HEAD_LAYERS = {"tcn": 2}
"""Layers of heads that have more than one by default. Saved models whose settings name no number depend on it."""

STEPS, PATIENCE_STEPS = 1_500, 300
"""Gradient steps that a head is given, and those without a lower validation loss after which it stops. Order in time
takes hundreds of steps to learn, which 200 clips do not reach in 30 epochs."""
MIN_EPOCHS, MIN_PATIENCE = 30, 6
"""Least number of epochs of each, for many clips."""
TRAINING_SHARE = 0.8
"""Share of the clips that gradient steps learn from; the others are for early stopping."""


class SizedSettings(TrainSettings):
    """Settings in which every size is set."""

    hidden_size: int = Field(ge=1, le=8192)
    dropout: float = Field(ge=0, lt=1)
    projection: int = Field(ge=0, le=8192)
    members: int = Field(ge=1, le=100)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    patience: int = Field(ge=1)

    @property
    def head_options(self) -> HeadOptions:
        """The settings that decide a head's shape."""
        return HeadOptions(
            hidden_size=self.hidden_size,
            layers=self.layers or HEAD_LAYERS.get(self.head, 1),
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            inputs=self.inputs,
            projection=self.projection,
            pooling=self.pooling,
            pooled_path=self.pooled_path,
        )


def resolve_sizes(settings: TrainSettings, *, clips: int, classes: int) -> SizedSettings:
    """Return `settings` with each open size (None) chosen by the numbers of training clips and classes.

    | training clips | hidden_size, projection | dropout | members | batch_size |
    |---|---|---|---|---|
    | under 5,000 | 64 | 0.3 | 2 | 32 |
    | from 5,000 on | 256 | 0.3 | 1 | 256 |

    Few clips: small heads, several of which are averaged, since what a single one learns varies with the seed. Many
    clips: one wide head in large batches, which keep a processor busy. From 1,000 clips on, hidden_size and projection
    are at least the least power of two from `classes` on, up to 256. Given sizes are kept.

    `epochs` are as many as STEPS gradient steps need, but MIN_EPOCHS or more; `patience` likewise.
    """
    if isinstance(settings, SizedSettings):
        return settings
    chosen = _choose_sizes(clips)
    if clips >= FEW_CLIPS:
        chosen |= {name: max(chosen[name], _min_width(classes)) for name in ("hidden_size", "projection")}
    given = settings.model_dump()
    sized = given | {name: value for name, value in chosen.items() if given[name] is None}
    batches = max(1, math.ceil(clips * TRAINING_SHARE / sized["batch_size"]))
    limits = {
        "epochs": max(MIN_EPOCHS, math.ceil(STEPS / batches)),
        "patience": max(MIN_PATIENCE, math.ceil(PATIENCE_STEPS / batches)),
    }
    return SizedSettings(**sized | {name: value for name, value in limits.items() if given[name] is None})


def _choose_sizes(clips: int) -> dict[str, Any]:
    if clips < MANY_CLIPS:
        return {"hidden_size": 64, "projection": 64, "dropout": 0.3, "members": 2, "batch_size": 32}
    return {"hidden_size": 256, "projection": 256, "dropout": 0.3, "members": 1, "batch_size": 256}


def _min_width(classes: int) -> int:
    return min(256, 1 << (classes - 1).bit_length())
