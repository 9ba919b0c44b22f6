"""The saved model: everything that inference needs, opened by its folder alone.

`model.json` is written last and holds the digests of the files beside it, so that a folder half overwritten is refused
and never read as a mixture of two models.
"""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import safetensors.numpy
import safetensors.torch
import skops.io
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sklearn.pipeline import Pipeline

from features.errors import ArtefactRefused, SettingsError
from features.files import check_writable, write_atomically
from features.reduction import Reduction
from hazard.baselines import BASELINES, is_baseline, predict_baseline
from hazard.calibration import apply_temperature
from hazard.config import TrainSettings
from hazard.heads import HEADS
from hazard.train import Committee, build, predict_head

FORMAT_VERSION: Literal[1] = 1
LIBRARIES = ("torch", "scikit-learn", "skops", "safetensors", "numpy")
TRUSTED = [
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
]
"""Types beyond skops's own list that a model.skops of ours may hold. Never taken from the file."""

WEIGHTS = {"head": "model.safetensors", "baseline": "model.skops"}
REDUCTION = "reduction.safetensors"

Model: TypeAlias = Committee | Pipeline
T = TypeVar("T")


class TrainedWindow(BaseModel):
    """The stretch of video that the training clips covered: inference cuts windows like it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    duration_seconds: float = Field(ge=0, allow_inf_nan=False)
    """Median duration of the training clips."""
    steps: int = Field(ge=1)
    """Median number of steps of the training tracks."""


class ModelInfo(BaseModel):
    """What model.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    kind: Literal["head", "baseline"]
    name: str
    settings: TrainSettings
    labels: tuple[str, ...] = Field(min_length=2)
    positive_label: str | None
    """The label that `threshold` is for; none with three labels or more."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0, le=100)
    """Logits are divided by it: see `hazard.calibration`."""
    width: int = Field(ge=1, le=1 << 20)
    """D, after the reduction."""
    feature_spec: dict[str, Any]
    fingerprint: str
    reduction_kind: str | None
    weights_file: str
    """Where the backbone's weights were when the features were made: a hint, not a promise."""
    window: TrainedWindow
    cache_digest: str
    """Content digest of the cache that it was trained on."""
    split: str
    groups_known: bool
    libraries: dict[str, str]
    digests: dict[str, str] = {}
    """sha256 of each file beside model.json."""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelInfo":
        known = HEADS if self.kind == "head" else BASELINES
        if self.name not in known:
            raise ValueError(f"unknown {self.kind} '{self.name}'")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels are not distinct")
        if self.positive_label is not None and self.positive_label not in self.labels:
            raise ValueError(f"positive label '{self.positive_label}' is not among the labels")
        return self


def library_versions() -> dict[str, str]:
    """Versions of the libraries that a saved model depends on."""
    return {name: version(name) for name in LIBRARIES}


@dataclass(frozen=True)
class Predictor:
    """A model that is ready to use."""

    info: ModelInfo
    model: Model
    reduction: Reduction | None

    @property
    def labels(self) -> tuple[str, ...]:
        """K names, in the order of the probabilities."""
        return self.info.labels

    @property
    def positive_label(self) -> str | None:
        """The label of two that an alarm is for."""
        return self.info.positive_label

    @property
    def threshold(self) -> float:
        """The least probability of the positive label that names a clip so."""
        return self.info.threshold

    @property
    def feature_spec(self) -> dict[str, Any]:
        """How its features were made, as `FeatureSpec` dumps it."""
        return self.info.feature_spec

    @property
    def fingerprint(self) -> str:
        """The fingerprint of those features."""
        return self.info.fingerprint

    def with_threshold(self, threshold: float | None) -> "Predictor":
        """The same model with another threshold on the positive label; None leaves it as it is."""
        if threshold is None:
            return self
        return replace(self, info=self.info.model_copy(update={"threshold": threshold}))

    def predict(self, x: NDArray[np.float32], mask: NDArray[np.bool_], *, batch_size: int = 256) -> NDArray[np.float64]:
        """x (B, T, D) after the reduction, mask (B, T) True = real → probabilities (B, K), rows sum to one.

        Raises ValueError for another width, and for a clip without a single real step.
        """
        if x.ndim != 3 or x.shape[2] != self.info.width or mask.shape != x.shape[:2]:
            raise ValueError(f"expected x (B, T, {self.info.width}) and its mask, got {x.shape} and {mask.shape}")
        if not mask.any(axis=1).all():
            raise ValueError("a clip has no real step")
        x = x.astype(np.float32, copy=False)
        probs = predict_probs(self.model, x, mask, len(self.labels), batch_size=batch_size)
        return apply_temperature(probs, self.info.temperature)

    def decide(self, probs: NDArray[np.float64]) -> list[str]:
        """The label of each row of probs (B, K): the positive one from the threshold on, else the most probable."""
        if self.positive_label is None or len(self.labels) != 2:
            return [self.labels[k] for k in probs.argmax(axis=1)]
        positive = self.labels.index(self.positive_label)
        return [self.labels[positive if p >= self.threshold else 1 - positive] for p in probs[:, positive]]


def predict_probs(
    model: Model, x: NDArray[np.float32], mask: NDArray[np.bool_], classes: int, *, batch_size: int = 256
) -> NDArray[np.float64]:
    """Probabilities (B, K) of a head or a baseline."""
    if not len(x):
        return np.zeros((0, classes))
    if isinstance(model, Committee):
        return predict_head(model, x, mask, batch_size=batch_size)
    return predict_baseline(model, x, mask, classes=classes)


def save_model(folder: Path, *, info: ModelInfo, model: Model, reduction: Reduction | None) -> ModelInfo:
    """Writes the model folder, each file whole or not at all, and returns `info` with the digests filled in.

    Raises EnvironmentStopped where the folder cannot be written.
    """
    check_writable(folder / "model.json")
    contents = {WEIGHTS[info.kind]: _dump(model)}
    if reduction is not None:
        contents[REDUCTION] = safetensors.numpy.save(
            {k: np.ascontiguousarray(v) for k, v in reduction.to_arrays().items()}
        )
    for name, content in contents.items():
        write_atomically(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    info = info.model_copy(update={"digests": digests})
    write_atomically(folder / "model.json", (info.model_dump_json(indent=2) + "\n").encode())
    for stale in {*WEIGHTS.values(), REDUCTION} - set(contents):  # left by an earlier model of another kind
        (folder / stale).unlink(missing_ok=True)
    return info


def open_model(folder: Path) -> Predictor:
    """The model of a folder that `save_model` wrote.

    Raises SettingsError where there is no model, ArtefactRefused where it is damaged, foreign or inconsistent.
    """
    file = folder / "model.json"
    if not file.is_file():
        raise SettingsError(
            f"no model at {folder} (no model.json there); make one with: train-temporal CACHE -o {folder}"
        )
    try:
        info = ModelInfo.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtefactRefused(f"{file} refused: {where + ': ' if where else ''}{first['msg']}") from None
    except OSError as error:
        raise ArtefactRefused(f"{file} refused: {error.strerror}") from None
    model = _load_head(folder, info) if info.kind == "head" else _load_baseline(folder, info)
    return Predictor(info, model, _load_reduction(folder, info))


def _dump(model: Model) -> bytes:
    if isinstance(model, Committee):
        return safetensors.torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    return skops.io.dumps(model, compression=zipfile.ZIP_DEFLATED)


def _load_head(folder: Path, info: ModelInfo) -> Committee:
    tensors = _parse(folder, WEIGHTS["head"], info, safetensors.torch.load)
    with torch.device("meta"):  # compare shapes before any memory is spent on what model.json claims
        expected = build(info.width, len(info.labels), _head_settings(info)).state_dict()
    if {k: (v.shape, v.dtype) for k, v in expected.items()} != {k: (v.shape, v.dtype) for k, v in tensors.items()}:
        raise ArtefactRefused(
            f"{folder / WEIGHTS['head']} refused: its tensors are not those that model.json describes"
        )
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ArtefactRefused(f"{folder / WEIGHTS['head']} refused: it holds NaN or infinity")
    head = build(info.width, len(info.labels), _head_settings(info))
    head.load_state_dict(tensors)
    return head.eval()


def _head_settings(info: ModelInfo) -> TrainSettings:
    return info.settings.model_copy(update={"head": info.name})


def _load_baseline(folder: Path, info: ModelInfo) -> Pipeline:
    model = _parse(folder, WEIGHTS["baseline"], info, lambda content: skops.io.loads(content, trusted=TRUSTED))
    if not is_baseline(model, info.name):
        raise ArtefactRefused(f"{folder / WEIGHTS['baseline']} refused: it does not hold a {info.name}")
    probe = np.zeros((1, 2, info.width), np.float32), np.ones((1, 2), np.bool_)
    probs = _guarded(folder / WEIGHTS["baseline"], lambda: predict_baseline(model, *probe, classes=len(info.labels)))
    if not np.isclose(probs.sum(), 1.0):
        raise ArtefactRefused(f"{folder / WEIGHTS['baseline']} refused: its probabilities do not sum to one")
    return model


def _load_reduction(folder: Path, info: ModelInfo) -> Reduction | None:
    if info.reduction_kind is None:
        return None
    arrays = _parse(folder, REDUCTION, info, safetensors.numpy.load)
    reduction = Reduction.from_arrays(info.reduction_kind, arrays)
    if reduction.width != info.width:
        raise ArtefactRefused(
            f"{folder / REDUCTION} refused: it gives {reduction.width} numbers, the model takes {info.width}"
        )
    return reduction


def _parse(folder: Path, name: str, info: ModelInfo, parse: Callable[[bytes], T]) -> T:
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ArtefactRefused(f"{folder / name} refused: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != info.digests.get(name):
        raise ArtefactRefused(f"{folder / name} refused: it is damaged, or belongs to another model.json")
    return _guarded(folder / name, lambda: parse(content))


def _guarded(file: Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtefactRefused(f"{file} refused: {said}") from None
