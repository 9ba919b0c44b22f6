"""The part of model.json that says what a model must be fed: read before the model itself is opened."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from features.backbones.weights import find_weights, weights_digest
from features.errors import ArtifactError, SettingsError
from features.spec import FeatureSpec

MODEL_JSON = "model.json"


class TrainingWindow(BaseModel):
    """The stretch of video that the training clips covered: inference cuts windows like it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    duration_seconds: float = Field(ge=0, allow_inf_nan=False)
    """Median duration of the training clips."""
    steps: int = Field(ge=1)
    """Median number of steps of the training tracks."""
    longest_seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Duration of the longest training clip, where known."""


class ModelInputSpec(BaseModel):
    """What a model must be fed; `ModelInfo` adds what it is."""

    model_config = ConfigDict(frozen=True)

    feature_spec: dict[str, Any]
    fingerprint: str
    weights_file: str
    """Where the backbone's weights were when the features were made: a hint, not a promise."""
    window: TrainingWindow

    @property
    def spec(self) -> FeatureSpec:
        """How its features are made."""
        return FeatureSpec.model_validate(self.feature_spec)


InputSpecT = TypeVar("InputSpecT", bound=ModelInputSpec)


def read_input_spec(folder: Path) -> ModelInputSpec:
    """What the model of a folder must be fed, for workers to begin while it is opened. Raises as `open_model` does."""
    return read_model_json(folder, ModelInputSpec)


def read_model_json(folder: Path, kind: type[InputSpecT]) -> InputSpecT:
    """A model folder's model.json, or the part of it that `kind` asks for.

    Raises SettingsError where there is none, ArtefactRefused where it is damaged, foreign or inconsistent.
    """
    file = folder / MODEL_JSON
    if not file.is_file():
        raise SettingsError(
            f"no model at {folder} (no model.json there); make one with: train-temporal CACHE -o {folder}"
        )
    try:
        source = kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{file} refused: {where + ': ' if where else ''}{first['msg']}") from None
    except OSError as error:
        raise ArtifactError(f"{file} refused: {error.strerror}") from None
    _check_spec(file, source)
    return source


def _check_spec(file: Path, input_spec: ModelInputSpec) -> None:
    """The fingerprint must be that of the features that model.json describes."""
    try:
        spec = input_spec.spec
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors()}))
        raise ArtifactError(f"{file} refused: feature_spec is not of this version, differing in: {fields}") from None
    if spec.fingerprint != input_spec.fingerprint:
        raise ArtifactError(
            f"{file} refused: feature_spec was changed: its fingerprint is {spec.fingerprint}, not "
            f"{input_spec.fingerprint}; take the model.json that training wrote"
        )


def check_model_spec(spec: FeatureSpec) -> None:
    """Raises ArtefactRefused where no video can be put through what the model was trained on."""
    if spec.is_imported:
        raise ArtifactError(
            f"the model was trained on features made elsewhere ({spec.backbone}), which no video can be put through; "
            "train one on a cache that extract-features made of videos"
        )


def find_model_weights(spec: FeatureSpec, weights: str, *, hint: str) -> Path | None:
    """The weights' file that a model needs, its digest checked; None for seeded random weights.

    `auto` tries the file that the features were made with, then whatever extraction would find.
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
            f"the model was trained on features of other {spec.backbone} weights: {spec.weights_digest[:24]} there, "
            f"{digest[:24]} in {file or 'the random weights of this torch'}; name the right file with --weights"
        )
    return file
