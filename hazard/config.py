"""Settings of stage two: section `train` of a settings file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from features.config import RunSettings, nearest
from hazard.baselines import BASELINES, Scale
from hazard.heads import HEADS
from hazard.heads.common import INPUTS, HeadOptions
from hazard.pooling import STATISTICS


class TrainSettings(BaseModel):
    """What a training run depends on besides the cache. Nothing about preprocessing: the cache decides that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str = "lstm"
    """A name in HEADS."""
    baseline: str | None = None
    """A name in BASELINES: train that instead of a head."""
    pooled: tuple[str, ...] | None = None
    """Names in STATISTICS, what baselines are offered of each clip; none: each baseline's own."""
    pooled_scale: Scale = "column"
    """Baselines take a spread out of each column, or a common one out of all columns of a `kind`: for PCA features."""
    jobs: int = Field(-1, ge=-1)
    """Threads that fit a baseline, -1: one a core; they change no prediction."""
    hidden_size: int = Field(64, ge=1, le=8192)
    """Width of the recurrent state, a direction each."""
    layers: int = Field(1, ge=1, le=16)
    """Recurrent layers on top of each other."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of values that each training step hides."""
    inputs: tuple[str, ...] = INPUTS
    """What a head is offered of each step: `features`, `differences`, `absolute_differences`."""
    bidirectional: bool = False
    """Whether recurrent layers also read the clip backwards; `bilstm_attention` always does."""
    projection: int = Field(64, ge=0, le=8192)
    """Width that the offered values are projected to before the recurrent layer; 0: they are not."""
    members: int = Field(5, ge=1, le=100)
    """Heads that are trained side by side on different inner splits and averaged."""
    epochs: int = Field(30, ge=1)
    """At most this many passes over the training clips."""
    patience: int = Field(6, ge=1)
    """Epochs without a lower loss on the inner validation clips before training stops."""
    batch_size: int = Field(32, ge=1)
    """Clips a training step."""
    lr: float = Field(1e-3, gt=0)
    """Highest learning rate; it falls to zero along a cosine."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay of AdamW."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of each target that is spread over all classes."""
    seed: int = Field(0, ge=0)
    """Seed of splits, initial weights, batches and baselines."""
    folds: int | None = Field(None, ge=2)
    """Grouped folds; none: the given split, the cache's own, or a hold-out."""
    split: str | None = None
    """A CSV file (path, split), or `split` for the cache's own column."""
    max_steps: int | None = Field(64, ge=1)
    """Longer tracks are thinned evenly to this many steps."""
    views: tuple[str, ...] | None = None
    """Augmentation views of the cache that training draws from, one a clip and epoch; all by default, [] for none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    threads: int = Field(1, ge=1)
    """CPU threads of torch: heads are small, and two threads that share busy cores are slower than one."""
    positive_label: str | None = None
    """The label of two that an alarm is for; none: guessed from the names."""
    false_alarms_per_hour: float | None = Field(None, ge=0, allow_inf_nan=False)
    """The saved threshold is the lowest that raises no more of them an hour of harmless video; none: it is 0.5."""

    @field_validator("head")
    @classmethod
    def _known_head(cls, value: str) -> str:
        return _known("head", value, HEADS)

    @field_validator("baseline")
    @classmethod
    def _known_baseline(cls, value: str | None) -> str | None:
        return value if value is None else _known("baseline", value, BASELINES)

    @field_validator("inputs")
    @classmethod
    def _known_inputs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError(f"give one or more different inputs of {', '.join(INPUTS)}")
        for name in value:
            _known("input", name, INPUTS)
        return value

    @field_validator("pooled")
    @classmethod
    def _known_statistics(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError(f"give one or more different statistics of {', '.join(STATISTICS)}")
        for name in value or ():
            _known("statistic", name, STATISTICS)
        return value

    @field_validator("jobs")
    @classmethod
    def _some_jobs(cls, value: int) -> int:
        if value == 0:
            raise ValueError("give a number of threads, or -1 for one a core")
        return value

    @property
    def head_options(self) -> HeadOptions:
        """The part that decides a head's shape."""
        return HeadOptions(
            hidden_size=self.hidden_size,
            layers=self.layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            inputs=self.inputs,
            projection=self.projection,
        )


class InferSettings(RunSettings):
    """Section `infer` of a settings file."""

    weights: str = "auto"
    """`auto` or the path of the backbone's weights."""
    label_map: Path | None = None
    """As in section `extract`: the classes of labelled clips, by the names that the model knows."""
    threshold: float | None = Field(None, ge=0, le=1)
    """Probability from which the positive label is given; the model's own by default."""


def _known(kind: str, value: str, choices: Iterable[str]) -> str:
    if value not in choices:
        raise ValueError(f"unknown {kind}; {nearest(value, list(choices))}")
    return value
