"""Ensembles of fitted models: the weighted mean of their probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from hazard.models.baselines import predict_baseline
from hazard.models.ensemble_spec import ModelKind
from hazard.models.head_ensemble import HeadEnsemble, predict_head
from hazard.models.settings import TrainSettings
from hazard.types import StepFeatures

SingleModel: TypeAlias = HeadEnsemble | Pipeline


@dataclass(frozen=True)
class EnsembleMember:
    """One model of an ensemble, with its training settings and its weight."""

    settings: TrainSettings
    model: SingleModel
    weight: float = 1.0

    @property
    def kind(self) -> ModelKind:
        """Family of the model."""
        return "head" if isinstance(self.model, HeadEnsemble) else "baseline"

    @property
    def name(self) -> str:
        """Name in HEADS or BASELINES."""
        return self.settings.baseline or self.settings.head


@dataclass(frozen=True)
class Ensemble:
    """Models that were fitted for the same labels on the same features."""

    members: tuple[EnsembleMember, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("an ensemble needs one member or more")

    @property
    def normalized_weights(self) -> NDArray[np.float64]:
        """Weights of the members (M,), which sum to one."""
        weights = np.array([member.weight for member in self.members])
        return weights / weights.sum()

    def predict(
        self, x: StepFeatures, mask: NDArray[np.bool_], classes: int, *, batch_size: int
    ) -> NDArray[np.float64]:
        """Return probabilities (B, K) of x (B, T, D)."""
        each = [predict_single(member.model, x, mask, classes, batch_size=batch_size) for member in self.members]
        return np.tensordot(self.normalized_weights, np.stack(each), axes=1)  # (B, K)


def predict_single(
    model: SingleModel, x: StepFeatures, mask: NDArray[np.bool_], classes: int, *, batch_size: int
) -> NDArray[np.float64]:
    """Return probabilities (B, K) of a head or a baseline."""
    if isinstance(model, HeadEnsemble):
        return predict_head(model, x, mask, batch_size=batch_size)
    return predict_baseline(model, x, mask, classes=classes)


def combine_models(
    models: Sequence["SingleModel | Ensemble"], settings: Sequence[TrainSettings], weights: Sequence[float]
) -> Ensemble:
    """Combine models and ensembles into one flat ensemble, each with its settings and its weight.

    The members of a given ensemble share its weight.
    """
    members: list[EnsembleMember] = []
    for model, model_settings, weight in zip(models, settings, weights, strict=True):
        inner = model if isinstance(model, Ensemble) else Ensemble((EnsembleMember(model_settings, model),))
        members += [
            EnsembleMember(member.settings, member.model, weight * float(share))
            for member, share in zip(inner.members, inner.normalized_weights, strict=True)
        ]
    return Ensemble(tuple(members))
