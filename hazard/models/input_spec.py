"""The part of model.json that says which features a model needs, readable before the model is opened."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from features.backbones.weights import find_weights, weights_digest
from features.errors import ArtifactError, SettingsError
from features.spec import FeatureSpec

MODEL_JSON = "model.json"


class TrainingWindow(BaseModel):
    """The length of the training clips; inference cuts windows of the same length."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    duration_seconds: float = Field(ge=0, allow_inf_nan=False)
    """Median duration of the training clips."""
    steps: int = Field(ge=1)
    """Median number of steps of the training tracks."""
    longest_seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Duration of the longest training clip, if known."""


class ModelInputSpec(BaseModel):
    """The features that a model needs; `ModelInfo` adds what the model is."""

    model_config = ConfigDict(frozen=True)

    feature_spec: dict[str, Any]
    fingerprint: str
    weights_file: str
    """Path of the backbone's weights when the features were made; a hint that may be out of date."""
    window: TrainingWindow

    @property
    def spec(self) -> FeatureSpec:
        """Specification of the features."""
        return FeatureSpec.model_validate(self.feature_spec)


InputSpecT = TypeVar("InputSpecT", bound=ModelInputSpec)


def read_input_spec(folder: Path) -> ModelInputSpec:
    """Read which features the model of a folder needs, so that workers can begin while it is opened.

    Raises the same errors as `open_model`.
    """
    return read_model_json(folder, ModelInputSpec)


def read_model_json(folder: Path, model_type: type[InputSpecT]) -> InputSpecT:
    """Read a model folder's model.json, or the part of it that `model_type` describes.

    Raises SettingsError if there is none, ArtifactError if it is damaged, foreign or inconsistent.
    """
    file = folder / MODEL_JSON
    if not file.is_file():
        raise SettingsError(
            f"no model at {folder} (model.json does not exist); make one with: train-temporal CACHE -o {folder}"
        )
    try:
        input_spec = model_type.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{file} rejected: {where + ': ' if where else ''}{first['msg']}") from None
    except OSError as error:
        raise ArtifactError(f"{file} rejected: {error.strerror}") from None
    _check_spec(file, input_spec)
    return input_spec


def _check_spec(file: Path, input_spec: ModelInputSpec) -> None:
    """Check that the fingerprint is that of the features that model.json describes."""
    try:
        spec = input_spec.spec
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors()}))
        raise ArtifactError(
            f"{file} rejected: feature_spec belongs to another version, differing in: {fields}"
        ) from None
    if spec.fingerprint != input_spec.fingerprint:
        raise ArtifactError(
            f"{file} rejected: feature_spec was changed: its fingerprint is {spec.fingerprint}, not "
            f"{input_spec.fingerprint}; restore the model.json that training wrote"
        )


def check_model_spec(spec: FeatureSpec) -> None:
    """Check that videos can be turned into the features that the model needs.

    Raises ArtifactError for a model that was trained on imported features.
    """
    if spec.is_imported:
        raise ArtifactError(
            f"the model was trained on features of another program ({spec.backbone}) and cannot be used on videos; "
            "train one on a cache that extract-features made from videos"
        )


def find_model_weights(spec: FeatureSpec, weights: str, *, hint: str) -> Path | None:
    """Return the weights file that a model needs, after checking its digest; None for seeded random weights.

    `auto` tries the file that the features were made with, then the file that extraction would find. Raises
    ArtifactError if the weights are not those of training.
    """
    if spec.weights == "random" and weights in ("auto", "random"):
        file = None
    elif weights == "auto" and hint and Path(hint).is_file():
        if weights_digest(spec.backbone, Path(hint)) == spec.weights_digest:
            return Path(hint)
        file = find_weights(spec.backbone, weights)
    else:
        file = find_weights(spec.backbone, weights)
    digest = weights_digest(spec.backbone, file)
    if digest != spec.weights_digest:
        raise ArtifactError(
            f"the model was trained on features of other {spec.backbone} weights: expected "
            f"{spec.weights_digest[:24]}, found {digest[:24]} in {file or 'the random weights of this torch'}; "
            "give the right file with --weights"
        )
    return file
