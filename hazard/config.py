"""Settings of stage two: section `train` of a settings file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from features.config import RunSettings, nearest
from hazard.augment import AugmentOptions
from hazard.baselines import BASELINES
from hazard.heads import HEADS
from hazard.heads.common import INPUTS, HeadOptions
from hazard.losses import LossOptions
from hazard.optimiser import OptimiserOptions


class TrainSettings(BaseModel):
    """What a training run depends on besides the cache. Nothing about preprocessing: the cache decides that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str = "lstm"
    """A name in HEADS."""
    baseline: str | None = None
    """A name in BASELINES: train that instead of a head."""
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
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of all training steps in which the rate rises from zero to `lr`."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay of AdamW; biases and norms do not decay."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay a step of averaged weights, such as 0.99, which are then the ones that are measured and kept; 0: none."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """What training minimises; early stopping looks at the plain cross entropy always."""
    focal_gamma: float = Field(2.0, ge=0)
    """Of the focal loss: how much less a clip counts the surer the head is of it."""
    balance: Literal["none", "weights", "sampling"] = "none"
    """Rare labels weigh more in the loss, or are drawn more often; probabilities then lean towards them."""
    temporal_crop: float = Field(0.0, ge=0, lt=1)
    """Training shows random stretches of clips, cut by at most this share of their steps."""
    frame_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of a clip's steps that training leaves out, others each time."""
    feature_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of channels that training hides in a whole clip, others each time."""
    mixup: float = Field(0.0, ge=0)
    """Training mixes pairs of clips and their labels, by shares drawn from Beta(mixup, mixup); 0: it does not."""
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
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of training; `auto`: bf16 where the device has instructions for it and the head is wide enough."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    threads: int = Field(1, ge=1)
    """CPU threads of torch: heads are small, and two threads that share busy cores are slower than one."""
    positive_label: str | None = None
    """The label of two that an alarm is for; none: guessed from the names."""

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

    @property
    def augment_options(self) -> AugmentOptions:
        """The part that changes training clips."""
        return AugmentOptions(
            temporal_crop=self.temporal_crop,
            frame_dropout=self.frame_dropout,
            feature_dropout=self.feature_dropout,
            mixup=self.mixup,
        )

    @property
    def loss_options(self) -> LossOptions:
        """The part that says what is minimised."""
        return LossOptions(kind=self.loss, gamma=self.focal_gamma, label_smoothing=self.label_smoothing)

    @property
    def optimiser_options(self) -> OptimiserOptions:
        """The part that says how weights move."""
        return OptimiserOptions(lr=self.lr, weight_decay=self.weight_decay, warmup=self.warmup, ema=self.ema)


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
