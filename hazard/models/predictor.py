"""A model that is ready for use: head, baseline or ensemble, with labels, FeatureSpec and reduction."""

from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from features.cache.reduction import Reduction
from hazard.models.baselines import BASELINES
from hazard.models.calibration import apply_temperature
from hazard.models.ensemble import Ensemble, SingleModel, predict_single
from hazard.models.ensemble_spec import ModelKind
from hazard.models.head_ensemble import HeadEnsemble
from hazard.models.heads import HEADS
from hazard.models.heads.step_pooling import AttentionPooling
from hazard.models.input_spec import ModelInputSpec
from hazard.models.open_set import OpenSetDetector
from hazard.models.settings import TrainSettings
from hazard.types import StepFeatures

FORMAT_VERSION: Literal[1] = 1
RECORDED_LIBRARIES = ("torch", "scikit-learn", "skops", "safetensors", "numpy")

Model: TypeAlias = SingleModel | Ensemble


class MemberInfo(BaseModel):
    """The entry of one member of an ensemble in model.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ModelKind
    name: str
    settings: TrainSettings
    weight: float = Field(gt=0, allow_inf_nan=False)
    file: str = Field(pattern=r"^member-\d{2,}\.(safetensors|skops)$")
    """Name of its weights file, beside model.json."""

    @model_validator(mode="after")
    def _check_consistency(self) -> "MemberInfo":
        _check_name(self.kind, self.name)
        return self


class ModelInfo(ModelInputSpec):
    """The content of model.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    kind: Literal["head", "baseline", "ensemble"]
    name: str
    """Name in HEADS or BASELINES; for an ensemble, what it is made of."""
    settings: TrainSettings
    members: tuple[MemberInfo, ...] = ()
    """Members of an ensemble, filled in by `save_model`; empty for other models."""
    labels: tuple[str, ...] = Field(min_length=2)
    positive_label: str | None
    """Label that `threshold` applies to; None with three labels or more."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0, le=100)
    """Divisor of the logits; see `hazard.models.calibration`."""
    width: int = Field(ge=1, le=1 << 20)
    """Feature width D, after the reduction."""
    reduction_kind: str | None
    cache_digest: str
    """Content digest of the training cache."""
    split: str
    groups_known: bool
    libraries: dict[str, str]
    digests: dict[str, str] = Field(default={})
    """SHA-256 of each file beside model.json."""

    @model_validator(mode="after")
    def _check_consistency(self) -> "ModelInfo":
        if self.members and self.kind != "ensemble":
            raise ValueError(f"a {self.kind} has no members")
        if self.kind != "ensemble":
            _check_name(self.kind, self.name)
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels are not distinct")
        if self.positive_label is not None and self.positive_label not in self.labels:
            raise ValueError(f"positive label '{self.positive_label}' is not among the labels")
        return self


def _check_name(kind: ModelKind, name: str) -> None:
    if name not in (HEADS if kind == "head" else BASELINES):
        raise ValueError(f"unknown {kind} '{name}'")


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a saved model depends on."""
    return {name: version(name) for name in RECORDED_LIBRARIES}


@dataclass(frozen=True)
class Predictor:
    """A model that is ready for use."""

    info: ModelInfo
    model: Model
    reduction: Reduction | None
    open_set_detector: OpenSetDetector | None = None
    """Detector of unknown clips; None in older models, and if there were too few training clips."""

    @property
    def labels(self) -> tuple[str, ...]:
        """K label names, in the order of the probabilities."""
        return self.info.labels

    @property
    def positive_label(self) -> str | None:
        """The one of two labels that alarms are for."""
        return self.info.positive_label

    @property
    def threshold(self) -> float:
        """Lowest probability of the positive label at which a clip gets that label."""
        return self.info.threshold

    @property
    def feature_spec(self) -> dict[str, Any]:
        """Specification of its features, as `FeatureSpec` dumps it."""
        return self.info.feature_spec

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its features."""
        return self.info.fingerprint

    def with_threshold(self, threshold: float | None) -> "Predictor":
        """Return the same model with another threshold on the positive label; None changes nothing."""
        if threshold is None:
            return self
        return replace(self, info=self.info.model_copy(update={"threshold": threshold}))

    def predict(self, x: StepFeatures, mask: NDArray[np.bool_], *, batch_size: int = 256) -> NDArray[np.float64]:
        """Return probabilities (B, K), whose rows sum to one, of x (B, T, D) and mask (B, T) True = real.

        x must have been reduced already. Raises ValueError for another width, and for a clip without a real step.
        """
        self._check_shapes(x, mask)
        probs = predict_probs(self.model, x, mask, len(self.labels), batch_size=batch_size)
        return apply_temperature(probs, self.info.temperature)

    def ood_scores(self, x: StepFeatures, mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """Return how unlike all training clips each of x (B, T, D), mask (B, T) is, (B,); higher is less familiar.

        The score is that of `OpenSetDetector`, whatever the kind of model; None if the model has no detector. Raises
        ValueError as `predict` does.
        """
        self._check_shapes(x, mask)
        return None if self.open_set_detector is None else self.open_set_detector.scores(x, mask)

    def find_ood_threshold(self, share: float) -> float | None:
        """Return the score from which a clip is unknown, reached by about `share` of clips like those of training.

        Returns None for a share of 0, and if the model has no detector.
        """
        return None if self.open_set_detector is None else self.open_set_detector.threshold(share)

    def _check_shapes(self, x: StepFeatures, mask: NDArray[np.bool_]) -> None:
        if x.ndim != 3 or x.shape[2] != self.info.width or mask.shape != x.shape[:2]:
            raise ValueError(f"expected x (B, T, {self.info.width}) and its mask, got {x.shape} and {mask.shape}")
        if not mask.any(axis=1).all():
            raise ValueError("a clip has no real step")

    def attention(self, x: StepFeatures, mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """Return the weight of each step of x (B, T, D), (B, T) with rows that sum to one.

        Returns None if the model has no attention pooling.
        """
        heads = list(self.model.heads) if isinstance(self.model, HeadEnsemble) else []
        if not heads or not all(isinstance(getattr(head, "pooling", None), AttentionPooling) for head in heads):
            return None
        with torch.inference_mode():
            weights = self.model.attention(torch.from_numpy(x).float(), torch.from_numpy(mask))  # type: ignore[union-attr]
        return weights.double().numpy()

    def predict_labels(self, probs: NDArray[np.float64]) -> list[str]:
        """Return the label of each row of probs (B, K).

        With a positive label of two: positive if its probability is the threshold or more. Otherwise the most probable
        label.
        """
        if self.positive_label is None or len(self.labels) != 2:
            return [self.labels[k] for k in probs.argmax(axis=1)]
        positive = self.labels.index(self.positive_label)
        return [self.labels[positive if p >= self.threshold else 1 - positive] for p in probs[:, positive]]


def predict_probs(
    model: Model, x: StepFeatures, mask: NDArray[np.bool_], classes: int, *, batch_size: int = 256
) -> NDArray[np.float64]:
    """Return probabilities (B, K) of any kind of model."""
    if not len(x):
        return np.zeros((0, classes))
    predict = model.predict if isinstance(model, Ensemble) else partial(predict_single, model)
    return predict(x, mask, classes, batch_size=batch_size)
