"""Settings of training: the section `train` of a settings file."""

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
from hazard.models.heads.step_pooling import POOLINGS
from hazard.models.pooling import STATISTICS


@dataclass(frozen=True)
class AugmentOptions:
    """How training clips are changed; by default they are not."""

    temporal_crop: float = 0.0
    """Largest share of a clip's steps that is cut from its ends."""
    frame_dropout: float = 0.0
    """Share of steps that are left out."""
    feature_dropout: float = 0.0
    """Share of channels that are hidden in a whole clip."""
    mixup: float = 0.0
    """α of the Beta distribution of the shares in which clips are mixed; 0: no mixing."""

    @property
    def is_enabled(self) -> bool:
        """True if anything is changed."""
        return any((self.temporal_crop, self.frame_dropout, self.feature_dropout, self.mixup))


@dataclass(frozen=True)
class LossOptions:
    """The loss that training minimises."""

    kind: str = "cross_entropy"
    """`cross_entropy` or `focal`."""
    gamma: float = 2.0
    """Exponent of the focal loss: how much less a clip counts the more confident the head is of it."""
    label_smoothing: float = 0.05
    """Share of each target that is spread over all classes."""


@dataclass(frozen=True)
class OptimizerOptions:
    """How the optimizer changes the weights."""

    lr: float = 3e-3
    weight_decay: float = 0.01
    warmup: float = 0.0
    """Share of all steps during which the learning rate rises from zero."""
    ema: float = 0.0
    """Decay per step of the averaged weights; 0: no averaging."""


TRACKER_NAMES = ("none", "tensorboard", "wandb", "mlflow")


class TrainSettings(BaseModel):
    """All settings of a training run except the cache. Preprocessing has none: the cache decides it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str = "lstm"
    """Name in HEADS."""
    baseline: str | None = None
    """Name in BASELINES: train this instead of a head."""
    pooled: tuple[str, ...] | None = None
    """Names in STATISTICS of what baselines take of each clip; None: each baseline's own."""
    pooled_scale: ScaleMode = "column"
    """`column`: baselines divide each column by its own standard deviation; `kind`: all columns of one statistic by
    a common one, for PCA features."""
    jobs: int = Field(-1, ge=-1)
    """Threads that fit a baseline, and processes that fit the heads of several folds, -1: one per core. They change no
    prediction."""
    ensemble: str | None = None
    """Several models as one: NAME[:SEEDS][=WEIGHT],… of heads and baselines. `seeds:5` takes five of the selected
    model, `heads` or `baselines` all of them."""
    keep: Literal["refit", "folds"] = "refit"
    """What is saved after cross-validation. `refit`: one model fitted again on all clips; `folds`: the folds' own
    models as an ensemble."""
    hidden_size: int | None = Field(None, ge=1, le=8192)
    """Width of the temporal part per direction; by default it follows the number of training clips (`auto_size`)."""
    layers: int | None = Field(None, ge=1, le=16)
    """Number of stacked layers; by default 2 for `tcn`, whose single layer sees three steps to each side, else 1."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of values that each training step hides; by default it follows the number of training clips."""
    inputs: tuple[str, ...] = DEFAULT_INPUTS
    """Names in STEP_INPUTS of what a head takes of each step, such as `features` and `differences`."""
    bidirectional: bool = False
    """Whether recurrent layers also read the clip backwards. Other heads, and `bilstm_attention`, always see both
    directions."""
    projection: int | None = Field(None, ge=0, le=8192)
    """Width that the inputs are projected to first, 0: no projection; by default it follows the number of training
    clips."""
    pooling: str | None = None
    """Name in POOLINGS of how a head makes one row of its states at all steps: `mean`, `last`, `max` or `attention`;
    None: each head's own way. The head `mean` always averages."""
    pooled_path: bool = True
    """Whether the pooled ridge takes part in a head. `off`: the temporal part alone, as in the classic pipeline."""
    members: int | None = Field(None, ge=1, le=100)
    """Number of heads that are trained side by side on different inner splits and averaged; by default it follows
    the number of training clips."""
    epochs: int | None = Field(None, ge=1)
    """Largest number of passes over the training clips; by default what 1,500 training steps need, 30 or more."""
    patience: int | None = Field(None, ge=1)
    """Epochs in which the loss on the inner validation clips has not fallen by 0.01 before training stops; by default
    what 300 training steps need, 6 or more."""
    batch_size: int | None = Field(None, ge=1)
    """Clips per training step; by default it follows the number of training clips."""
    lr: float = Field(3e-3, gt=0)
    """Highest learning rate; it falls to zero along a cosine."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of all training steps during which the learning rate rises from zero to `lr`."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of AdamW; biases and norms do not decay."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay per step of averaged weights, such as 0.99, which are then evaluated and kept; 0: no averaging."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Loss that training minimises. Early stopping always uses the plain cross entropy."""
    focal_gamma: float = Field(2.0, ge=0)
    """Exponent of the focal loss: how much less a clip counts the more confident the head is of it."""
    balance: Literal["none", "weights", "sampling"] = "none"
    """`weights`: rare labels weigh more in the loss; `sampling`: they are drawn more often. Probabilities then lean
    towards them."""
    temporal_crop: float = Field(0.0, ge=0, lt=1)
    """Training uses random segments of clips, with at most this share of their steps cut off."""
    frame_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of a clip's steps that training leaves out, others each time."""
    feature_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of channels that training hides in a whole clip, others each time."""
    mixup: float = Field(0.0, ge=0)
    """Training mixes pairs of clips and their labels, in shares drawn from Beta(mixup, mixup); 0: no mixing."""
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    """Share of each target that is spread over all classes."""
    seed: int = Field(0, ge=0)
    """Seed of splits, initial weights, batches and baselines."""
    labels_file: Path | None = None
    """CSV file (path, label, start, end) of corrections, such as a review writes. They override the cache's labels."""
    folds: int | None = Field(None, ge=2)
    """Number of grouped folds; None: the given split, the cache's own, or a hold-out."""
    repeats: int = Field(1, ge=1, le=100)
    """How often the folds are drawn, differently each time; metrics are averaged over the repeats."""
    split: str | None = None
    """CSV file (path, split), or `split` for the cache's own column."""
    split_files: Path | None = None
    """Folder of official lists (UCF101, HMDB51): one fold for each of their splits."""
    split_groups: Literal["refuse", "allow"] = "refuse"
    """`refuse` rejects official lists that put a group on two sides, `allow` uses them. Any other such split is
    rejected."""
    duplicates: Literal["report", "ignore", "group"] = "report"
    """Clips of different groups that look alike. `report`: name those that a split separates; `group`: give them one
    group first; `ignore`: do not look for them."""
    random_folds: bool = False
    """Whether to evaluate the model again on random folds, which split groups, to show how much that would inflate
    metrics."""
    tune: int | None = Field(None, ge=1)
    """Trials of a search on inner folds of the training clips, over what in SEARCH_SPACE no file, `--set` or flag
    sets."""
    tracker: str = "none"
    """Name in TRACKERS: where curves, metrics and pictures are sent besides the run's own folder."""
    max_steps: int | None = Field(64, ge=1)
    """Largest number of steps; longer tracks are subsampled evenly."""
    views: tuple[str, ...] | None = None
    """Augmentation views of the cache that training draws from, one per clip and epoch; None: all, []: none."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of training. `auto`: bf16 if the device has instructions for it and the head is wide enough."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    threads: int = Field(1, ge=1)
    """CPU threads of torch. Heads are small: two threads on busy cores are slower than one."""
    positive_label: str | None = None
    """The one of two labels that alarms are for; None: read from the names, with a warning if they do not tell."""
    false_alarms_per_hour: float | None = Field(None, ge=0, allow_inf_nan=False)
    """The saved threshold is the lowest with at most this many false alarms per hour (upper bound); None: 0.5."""

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
            raise ValueError(f"give one or more different inputs, out of {', '.join(STEP_INPUTS)}")
        for name in value:
            _check_choice("input", name, STEP_INPUTS)
        return value

    @field_validator("pooling")
    @classmethod
    def _check_pooling(cls, value: str | None) -> str | None:
        return value if value is None else _check_choice("pooling", value, POOLINGS)

    @field_validator("pooled")
    @classmethod
    def _check_statistics(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError(f"give one or more different statistics, out of {', '.join(STATISTICS)}")
        for name in value or ():
            _check_choice("statistic", name, STATISTICS)
        return value

    @field_validator("jobs")
    @classmethod
    def _check_jobs(cls, value: int) -> int:
        if value == 0:
            raise ValueError("give a number of threads, or -1 for one per core")
        return value

    @property
    def kind_and_name(self) -> tuple[Literal["head", "baseline", "ensemble"], str]:
        """Kind and name of the model to fit; of an ensemble the full list, so that `for_model` gives the same again."""
        if self.ensemble:
            entries = parse_ensemble_spec(self.ensemble, selected_model=self.baseline or self.head)
            return "ensemble", ",".join(map(str, entries))
        return ("baseline", self.baseline) if self.baseline else ("head", self.head)

    def for_model(self, kind: str, name: str) -> "TrainSettings":
        """Return the same settings for another head, baseline or ensemble."""
        return self.model_copy(update={"baseline": None, "ensemble": None} | {kind: name})

    def split_by_model(self) -> list[tuple["TrainSettings", float]]:
        """Return the settings of each model of an ensemble, with its weight; for a head or a baseline only these."""
        if not self.ensemble:
            return [(self, 1.0)]
        return [
            (
                self.for_model(entry.kind, entry.name).model_copy(update={"seed": self.seed + i}),
                entry.weight / entry.seeds,
            )
            for entry in parse_ensemble_spec(self.ensemble, selected_model=self.baseline or self.head)
            for i in range(entry.seeds)
        ]

    @property
    def augment_options(self) -> AugmentOptions:
        """Settings of augmentation."""
        return AugmentOptions(
            temporal_crop=self.temporal_crop,
            frame_dropout=self.frame_dropout,
            feature_dropout=self.feature_dropout,
            mixup=self.mixup,
        )

    @property
    def loss_options(self) -> LossOptions:
        """Settings of the loss."""
        return LossOptions(kind=self.loss, gamma=self.focal_gamma, label_smoothing=self.label_smoothing)

    @property
    def optimizer_options(self) -> OptimizerOptions:
        """Settings of the optimizer."""
        return OptimizerOptions(lr=self.lr, weight_decay=self.weight_decay, warmup=self.warmup, ema=self.ema)


def _check_choice(kind: str, value: str, choices: Iterable[str]) -> str:
    if value not in choices:
        raise ValueError(f"unknown {kind}; {suggest_name(value, list(choices))}")
    return value
