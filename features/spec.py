"""FeatureSpec: everything that decides the value of a feature, and its fingerprint."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from features.errors import ArtifactError

SCHEMA_VERSION = 2

ORIGINAL_VIEW = "none"
"""Name of the view that is the clip itself. It always exists; evaluation and inference use no other view."""


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampling(_FrozenModel):
    """Which frames of a clip are read, chosen by the stream's own timestamps."""

    kind: Literal["even", "every", "rate", "all", "windows", "snippets"] = "even"
    """`even`: `frames` instants, one in the middle of each of as many equal segments.
    `every`: one frame in `every`. `rate`: `fps` frames per second. `all`: every frame.
    `windows`: `frames` evenly spaced in each window of `window_seconds`, with a new window every `stride_seconds`.
    `snippets`: `frames` at `fps` each, with a new snippet every `stride_seconds`, for 3D networks."""
    frames: int | None = 12
    every: int | None = None
    fps: float | None = None
    window_seconds: float | None = None
    stride_seconds: float | None = None
    folder_fps: float = 25.0
    """Frames per second of image folders, which store no frame rate."""


class Preprocessing(_FrozenModel):
    """How an upright RGB frame becomes the input of the backbone."""

    size: int = 224
    """Side of the square input, in pixels."""
    fit: Literal["crop", "squash"] = "crop"
    """`crop`: the middle square, `size / resize` of the short side. `squash`: the whole frame, with a changed shape."""
    resize: int = 256
    """Length of the short side before the crop, in pixels."""
    interpolation: Literal["halving"] = "halving"
    """2 x 2 averages while the frame is at least twice too large, then bilinear: cheap and without aliasing."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class FeatureSpec(_FrozenModel):
    """Everything that decides the value of a feature.

    Two caches hold comparable features exactly if their fingerprints are equal.
    """

    schema_version: int = SCHEMA_VERSION
    sampling: Sampling
    preprocessing: Preprocessing
    backbone: str
    weights: Literal["pretrained", "random", "imported"]
    """`imported`: another program made the features, so that no video can be encoded in the same way."""
    weights_digest: str
    """sha256 over the backbone's tensors, independent of the file format. For imported features: their width."""
    pooling: Literal["avg", "max", "avg+max", "none"]
    """`none`: unknown, for imported features."""
    precision: Literal["fp32", "bf16"] = "fp32"
    views: tuple[str, ...] = (ORIGINAL_VIEW,)
    """Augmentation views of each clip, the original one first."""
    reduction: str = "none"
    """Reduction as requested, such as `select:512`."""
    reduction_digest: str = ""
    """sha256 over the fitted reduction. Empty before it is fitted and if there is no reduction."""

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the sha256 of the canonical JSON."""
        # Without defaults, so that a field added later leaves older fingerprints unchanged.
        tree = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_imported(self) -> bool:
        """Whether another program made the features."""
        return self.weights == "imported"

    def without_reduction(self) -> "FeatureSpec":
        """Return the spec of the same features before any reduction, as the parts of a running job hold them."""
        return self.model_copy(update={"reduction": "none", "reduction_digest": ""})

    def without_augmentation(self) -> "FeatureSpec":
        """Return the spec of the original view alone, as a model trained on these features expects it."""
        return self.model_copy(update={"views": (ORIGINAL_VIEW,)})

    def differences(self, other: "FeatureSpec") -> list[str]:
        """Return one line per field that differs: `field: mine, not theirs`.

        A reduction that is not fitted yet equals any fitted one.
        """
        mine, theirs = dict(_flatten(self.model_dump())), dict(_flatten(other.model_dump()))
        if not (self.reduction_digest and other.reduction_digest):
            theirs["reduction_digest"] = mine["reduction_digest"]
        return [
            f"{key}: {_format_value(mine[key])}, not {_format_value(theirs[key])}"
            for key in mine
            if mine[key] != theirs[key]
        ]


def parse_spec(text: str) -> FeatureSpec:
    """Return the spec of a JSON text. Raises ArtifactError if this version of the program has other fields."""
    try:
        return FeatureSpec.model_validate_json(text)
    except ValidationError as error:
        fields = sorted({".".join(map(str, item["loc"])) for item in error.errors()})
        raise ArtifactError(
            f"made by another version of this program (settings that differ: {', '.join(fields)}); extract again to "
            "another path, or use that version"
        ) from None


def _format_value(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


FITTED_ON_TEXTS = {
    "train": "the training split",
    "all": "all rows (no split is known)",
    "model": "a model's training clips",
}
"""Description of the rows that a reduction was fitted on, by the value stored in a cache."""


def describe_reduction(reduction: str, fitted_on: str) -> str:
    """Return a text such as `select:512, fitted on the training split`."""
    return f"{reduction}, fitted on {FITTED_ON_TEXTS[fitted_on]}" if fitted_on else reduction


def describe_spec(spec: FeatureSpec) -> list[tuple[str, str]]:
    """Return (name, description) pairs of all settings that decide the features before any reduction."""
    if spec.is_imported:
        rate = f"{spec.sampling.fps:g} per second, unless a file gives their times"
        return [("features", f"{spec.backbone} ({spec.weights_digest})"), ("rows", rate)]
    preprocessing = spec.preprocessing
    square = f"{preprocessing.size} x {preprocessing.size}"
    resizing = {
        "crop": f"short side to {preprocessing.resize}, then the middle {square} (fit crop)",
        "squash": f"the whole frame squashed to {square} (fit squash)",
    }
    return [
        ("frames", _describe_sampling(spec.sampling)),
        ("resizing", resizing[preprocessing.fit]),
        ("backbone", f"{spec.backbone}, {_describe_weights(spec)}"),
        ("pooling", spec.pooling),
        ("precision", spec.precision),
        *([("views", ",".join(spec.views))] if len(spec.views) > 1 else []),
    ]


def _describe_sampling(sampling: Sampling) -> str:
    stride = f"one every {sampling.stride_seconds:g} s" if sampling.stride_seconds else "back to back"
    match sampling.kind:
        case "rate":
            return f"{sampling.fps:g} per second"
        case "every":
            return f"one in {sampling.every}"
        case "all":
            return "all"
        case "windows":
            return f"{sampling.frames} evenly spaced in each window of {sampling.window_seconds:g} s, {stride}"
        case "snippets":
            return f"snippets of {sampling.frames} at {sampling.fps:g} frames per second, {stride}"
    return f"{sampling.frames} evenly spaced per clip"


def _describe_weights(spec: FeatureSpec) -> str:
    return "random weights" if spec.weights == "random" else f"pretrained weights, sha256 {spec.weights_digest[:12]}"
