"""Settings of training: section `train` of a settings file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from features.utils.text import suggest_name
from hazard.models.baselines import BASELINES, ScaleMode
from hazard.models.ensemble_spec import parse_ensemble_spec
from hazard.models.heads import HEADS
from hazard.models.heads.base import DEFAULT_INPUTS, STEP_INPUTS
from hazard.models.pooling import STATISTICS


@dataclass(frozen=True)
class AugmentOptions:
    """How much training clips are changed; nothing by default."""

    temporal_crop: float = 0.0
    """Largest share of a clip's steps that is cut from its ends."""
    frame_dropout: float = 0.0
    """Share of steps that are left out."""
    feature_dropout: float = 0.0
    """Share of channels that are hidden in a whole clip."""
    mixup: float = 0.0
    """α of the Beta distribution that shares of mixed clips are drawn from; 0: none are mixed."""

    @property
    def is_enabled(self) -> bool:
        """Whether anything is changed at all."""
        return any((self.temporal_crop, self.frame_dropout, self.feature_dropout, self.mixup))


@dataclass(frozen=True)
class LossOptions:
    """What a training step minimises."""

    kind: str = "cross_entropy"
    """cross_entropy | focal."""
    gamma: float = 2.0
    """Of the focal loss: how much less a clip counts the surer the head is of it."""
    label_smoothing: float = 0.1
    """Share of each target that is spread over all classes."""


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights move."""

    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: float = 0.0
    """Share of all steps in which the rate rises from zero."""
    ema: float = 0.0
    """Decay of the averaged weights a step; 0: none are kept."""


TRACKER_NAMES = ("none", "tensorboard", "wandb", "mlflow")


class TrainSettings(BaseModel):
    """What a training run depends on besides the cache. Nothing about preprocessing: the cache decides that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str = "lstm"
    """A name in HEADS."""
    baseline: str | None = None
    """A name in BASELINES: train that instead of a head."""
    pooled: tuple[str, ...] | None = None
    """Names in STATISTICS, what baselines are offered of each clip; none: each baseline's own."""
    pooled_scale: ScaleMode = "column"
    """Baselines take a spread out of each column, or a common one out of all columns of a `kind`: for PCA features."""
    jobs: int = Field(-1, ge=-1)
    """Threads that fit a baseline, -1: one a core; they change no prediction."""
    ensemble: str | None = None
    """Several models as one: NAME[:SEEDS][=WEIGHT],… of heads and baselines, `seeds:5` for five of the chosen one,
    `heads` or `baselines` for all."""
    keep: Literal["refit", "folds"] = "refit"
    """What is saved after folds: one model fitted again on all clips, or the folds' own models as an ensemble."""
    hidden_size: int | None = Field(None, ge=1, le=8192)
    """Width of the temporal part per direction. By default it follows the number of training clips (`auto_size`)."""
    layers: int = Field(1, ge=1, le=16)
    """Layers on top of each other."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of values that each training step hides; by the number of training clips by default."""
    inputs: tuple[str, ...] = DEFAULT_INPUTS
    """What a head is offered of each step: `features`, `differences`, `absolute_differences`."""
    bidirectional: bool = False
    """Whether recurrent layers also read the clip backwards; the other kinds, and `bilstm_attention`, see both ways."""
    projection: int | None = Field(None, ge=0, le=8192)
    """Width that the offered values are projected to first, 0: they are not; by the number of clips by default."""
    members: int | None = Field(None, ge=1, le=100)
    """Heads that are trained side by side on different inner splits and averaged; by the number of clips by default."""
    epochs: int = Field(30, ge=1)
    """At most this many passes over the training clips."""
    patience: int = Field(6, ge=1)
    """Epochs without a lower loss on the inner validation clips before training stops."""
    batch_size: int | None = Field(None, ge=1)
    """Clips a training step; by the number of training clips by default."""
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
    labels_file: Path | None = None
    """A CSV file (path, label, start, end) of corrections, such as a review writes: they outrank the cache's labels."""
    folds: int | None = Field(None, ge=2)
    """Grouped folds; none: the given split, the cache's own, or a hold-out."""
    repeats: int = Field(1, ge=1, le=100)
    """How often the folds are drawn, otherwise each time; figures are averaged over the repeats."""
    split: str | None = None
    """A CSV file (path, split), or `split` for the cache's own column."""
    split_files: Path | None = None
    """A folder of official lists (UCF101, HMDB51): one fold for each of their splits."""
    split_groups: Literal["refuse", "allow"] = "refuse"
    """What to do about official lists that put a group on two sides; any other split that does so is refused."""
    duplicates: Literal["report", "ignore", "group"] = "report"
    """Clips of different groups that look alike: named where a split parts them, or given one group beforehand."""
    random_folds: bool = False
    """Measure the model once more on random folds, which part groups, to show how much that would flatter it."""
    tune: int | None = Field(None, ge=1)
    """Trials of a search on inner folds of the training clips, over what in SPACE no file, `--set` or flag names."""
    tracker: str = "none"
    """A name in TRACKERS: where curves, figures and pictures are sent besides the run's own folder."""
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
    false_alarms_per_hour: float | None = Field(None, ge=0, allow_inf_nan=False)
    """The saved threshold is the lowest that raises no more of them an hour of harmless video; none: it is 0.5."""

    @field_validator("head")
    @classmethod
    def _check_head(cls, value: str) -> str:
        return _check_choice("head", value, HEADS)

    @field_validator("baseline")
    @classmethod
    def _check_baseline(cls, value: str | None) -> str | None:
        return value if value is None else _check_choice("baseline", value, BASELINES)

    @field_validator("ensemble")
    @classmethod
    def _check_ensemble(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            parse_ensemble_spec(value, selected_model=info.data.get("baseline") or info.data.get("head") or "lstm")
        return value

    @field_validator("tracker")
    @classmethod
    def _check_tracker(cls, value: str) -> str:
        return _check_choice("tracker", value, TRACKER_NAMES)

    @field_validator("inputs")
    @classmethod
    def _check_inputs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError(f"give one or more different inputs of {', '.join(STEP_INPUTS)}")
        for name in value:
            _check_choice("input", name, STEP_INPUTS)
        return value

    @field_validator("pooled")
    @classmethod
    def _check_statistics(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError(f"give one or more different statistics of {', '.join(STATISTICS)}")
        for name in value or ():
            _check_choice("statistic", name, STATISTICS)
        return value

    @field_validator("jobs")
    @classmethod
    def _check_jobs(cls, value: int) -> int:
        if value == 0:
            raise ValueError("give a number of threads, or -1 for one a core")
        return value

    @property
    def kind_and_name(self) -> tuple[Literal["head", "baseline", "ensemble"], str]:
        """What is to be fitted; of an ensemble the full list, so that `of` gives the same again."""
        if self.ensemble:
            places = parse_ensemble_spec(self.ensemble, selected_model=self.baseline or self.head)
            return "ensemble", ",".join(map(str, places))
        return ("baseline", self.baseline) if self.baseline else ("head", self.head)

    def for_model(self, kind: str, name: str) -> "TrainSettings":
        """The same settings for another head, baseline or ensemble."""
        return self.model_copy(update={"baseline": None, "ensemble": None} | {kind: name})

    def split_by_model(self) -> list[tuple["TrainSettings", float]]:
        """The settings of each model of an ensemble, with its weight; of a head or a baseline these alone."""
        if not self.ensemble:
            return [(self, 1.0)]
        return [
            (
                self.for_model(place.kind, place.name).model_copy(update={"seed": self.seed + i}),
                place.weight / place.seeds,
            )
            for place in parse_ensemble_spec(self.ensemble, selected_model=self.baseline or self.head)
            for i in range(place.seeds)
        ]

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
    def optimizer_options(self) -> OptimizerOptions:
        """The part that says how weights move."""
        return OptimizerOptions(lr=self.lr, weight_decay=self.weight_decay, warmup=self.warmup, ema=self.ema)


def _check_choice(kind: str, value: str, choices: Iterable[str]) -> str:
    if value not in choices:
        raise ValueError(f"unknown {kind}; {suggest_name(value, list(choices))}")
    return value
