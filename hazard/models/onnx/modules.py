"""Torch modules that are exported: any model from features to probabilities, and the whole chain from frames.

Shapes: B batch, T steps, D feature width, K classes, S side of the network's input.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.calibration import _SigmoidCalibration, _TemperatureScaling
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from torch import Tensor, nn

from features.cache.reduction import Reduction
from features.errors import SettingsError
from hazard.models.baselines import get_statistics
from hazard.models.ensemble import Ensemble, EnsembleMember, SingleModel
from hazard.models.head_ensemble import HeadEnsemble
from hazard.models.heads import base
from hazard.models.pooling import STATISTICS
from hazard.models.predictor import Model, Predictor


class FeaturesToProbabilities(nn.Module):
    """x (B, T, D), mask (B, T) → probabilities (B, K), at the model's temperature."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        model = predictor.model if isinstance(predictor.model, Ensemble) else _wrap_in_ensemble(predictor)
        classes = len(predictor.labels)
        self.members = nn.ModuleList(_make_module(member.model, member.name, classes) for member in model.members)
        self.register_buffer("shares", torch.from_numpy(model.normalized_weights).float())
        self.temperature = predictor.info.temperature

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return probabilities (B, K), whose rows sum to one."""
        each = torch.stack([member(x, mask) for member in self.members], dim=-1)  # (B, K, members)
        probs = (each * self.get_buffer("shares")).sum(-1)  # (B, K)
        return probs if self.temperature == 1.0 else (probs.log() / self.temperature).softmax(-1)


class FramesToProbabilities(nn.Module):
    """Frames uint8 (B, T, S, S, 3) as the network takes them, mask (B, T) → probabilities (B, K).

    A 3D network takes snippets (B, T, L, S, S, 3). Features are rounded to float16 in between, as in a cache.
    """

    def __init__(
        self, features: nn.Module, reduction: Reduction | None, probabilities: FeaturesToProbabilities
    ) -> None:
        super().__init__()
        self.features, self.probabilities = features, probabilities
        self.is_selection = reduction is not None and reduction.channels is not None
        for name, array in (reduction.to_arrays() if reduction else {}).items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return probabilities (B, K)."""
        rows = self._reduce(self.features(frames.flatten(0, 1)).half())  # (B T, D)
        x = rows.float().unflatten(0, (frames.shape[0], frames.shape[1]))  # (B, T, D)
        return self.probabilities(x * mask.unsqueeze(-1), mask)

    def _reduce(self, rows: Tensor) -> Tensor:
        if self.is_selection:
            return rows[:, self.get_buffer("channels")]
        if "components" not in self._buffers:
            return rows
        return ((rows.float() - self.get_buffer("mean")) @ self.get_buffer("components").T).half()


class HeadProbabilities(nn.Module):
    """Probabilities of a head ensemble."""

    def __init__(self, head: HeadEnsemble) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return probabilities (B, K)."""
        return self.head(x, mask).softmax(-1)


class LinearBaseline(nn.Module):
    """A linear scikit-learn pipeline on the pooled clip, with its PCA and calibration, as one matrix product."""

    def __init__(self, pipeline: Pipeline, name: str, classes: int) -> None:
        super().__init__()
        linear, calibrators = _get_linear_parts(pipeline, name)
        self.statistics = get_statistics(pipeline)
        mean, scale = _get_column_scaling(pipeline[0])
        weight, bias = np.atleast_2d(linear.coef_), np.atleast_1d(linear.intercept_)
        if len(pipeline) == 3:
            components = pipeline[1]
            weight, bias = weight @ components.components_, bias - weight @ components.components_ @ components.mean_
        last = pipeline[-1]
        self.has_temperature = last.method == "temperature"
        self.is_binary = len(last.classes_) == 2
        for key, array in {
            "mean": mean,
            "scale": scale,
            "weight": weight,
            "bias": bias,
            "slope": [slope for slope, _ in map(_get_slope_and_offset, calibrators)],
            "offset": [offset for _, offset in map(_get_slope_and_offset, calibrators)],
        }.items():
            self.register_buffer(key, torch.as_tensor(np.asarray(array)).float())
        met = np.zeros((len(last.classes_), classes), np.float32)  # a class that was absent from training gets zero
        met[np.arange(len(met)), last.classes_] = 1
        self.register_buffer("met", torch.from_numpy(met))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return probabilities (B, K)."""
        get = self.get_buffer
        pooled = torch.cat([STATISTICS[name](x, mask) for name in self.statistics], dim=-1)  # (B, S D)
        rows = (pooled - get("mean")) / get("scale")
        scores = nn.functional.linear(rows, get("weight"), get("bias")) * get("slope") + get("offset")
        return self._to_probs(scores) @ get("met")

    def _to_probs(self, scores: Tensor) -> Tensor:
        if self.has_temperature:
            return scores.softmax(-1)
        if self.is_binary:
            second = scores.sigmoid()  # (B, 1)
            return torch.cat([1 - second, second], dim=-1)
        each = scores.sigmoid()
        return each / each.sum(-1, keepdim=True)


def training_feature_stats(model: Model, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and deviation (D,) of the training features if the model has them, for probes that do not saturate.

    Other models give zeros and ones.
    """
    first = model.members[0].model if isinstance(model, Ensemble) else model
    if isinstance(first, HeadEnsemble):
        scales = [m for m in first.modules() if isinstance(m, base.Standardize) and len(m.mean) >= width]
        if scales:
            return scales[0].mean[:width].numpy(), scales[0].spread[:width].numpy()
    return np.zeros(width, np.float32), np.ones(width, np.float32)


def _wrap_in_ensemble(predictor: Predictor) -> Ensemble:
    assert not isinstance(predictor.model, Ensemble)
    settings = predictor.info.settings.for_model(predictor.info.kind, predictor.info.name)
    return Ensemble((EnsembleMember(settings, predictor.model),))


def _make_module(model: SingleModel, name: str, classes: int) -> nn.Module:
    return HeadProbabilities(model) if isinstance(model, HeadEnsemble) else LinearBaseline(model, name, classes)


def _get_linear_parts(pipeline: Pipeline, name: str) -> tuple[ClassifierMixin, list]:
    """Return the linear estimator of a pipeline and what calibrates it: one temperature, or a sigmoid per class.

    Two classes have one sigmoid. Several sigmoids are in models of more classes that were saved by earlier versions.
    Raises SettingsError if the estimator is not linear.
    """
    inner = pipeline[-1].calibrated_classifiers_[0]
    if hasattr(inner.estimator, "coef_") and not isinstance(inner.estimator, SVC):
        return inner.estimator, list(inner.calibrators)
    raise SettingsError(
        f"baseline {name} cannot be exported to ONNX; only heads, linear baselines (such as logistic_regression "
        "and linear_svm) and ensembles of these can"
    )


def _get_slope_and_offset(calibrator: _SigmoidCalibration | _TemperatureScaling) -> tuple[float, float]:
    if isinstance(calibrator, _TemperatureScaling):
        return float(calibrator.beta_), 0.0
    return -calibrator.a_, -calibrator.b_  # scikit-learn's sigmoid is 1 / (1 + exp(a f + b))


def _get_column_scaling(transformer: ColumnTransformer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what is subtracted from each column (S D,) of the pooled clip, and what it is then divided by."""
    weights = transformer.transformer_weights or {}
    means, scales = [], []
    for name, scaler, _ in transformer.transformers_:
        means.append(scaler.mean_)
        spread = np.ones_like(scaler.mean_) if scaler.scale_ is None else scaler.scale_
        scales.append(spread / weights.get(name, 1.0))
    return np.concatenate(means), np.concatenate(scales)
