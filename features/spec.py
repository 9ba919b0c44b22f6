"""FeatureSpec: everything that decides a feature's value, and its fingerprint."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from features.errors import ArtifactError

SCHEMA_VERSION = 2

ORIGINAL_VIEW = "none"
"""The view that is the clip as it is: always there, and the only one in evaluation and inference."""


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampling(_FrozenModel):
    """Which instants of a clip are read, by the stream's own timestamps."""

    kind: Literal["even", "every", "rate", "all", "windows", "snippets"] = "even"
    """`even`: `frames` instants, one in the middle of each of as many equal segments; `every`: one frame in `every`;
    `rate`: `fps` a second; `all`: each frame; `windows`: `frames` evenly in each window of `window_seconds`, a new one
    every `stride_seconds`; `snippets`: `frames` at `fps` each, a new one every `stride_seconds`, for 3D networks."""
    frames: int | None = 12
    every: int | None = None
    fps: float | None = None
    window_seconds: float | None = None
    stride_seconds: float | None = None
    folder_fps: float = 25.0
    """Frames a second of folders of images, which do not say so themselves."""


class Preprocessing(_FrozenModel):
    """What happens to an upright RGB frame before the backbone sees it."""

    size: int = 224
    """Side of the square input, in pixels."""
    fit: Literal["crop", "squash"] = "crop"
    """`crop`: the middle square, `size / resize` of the short side; `squash`: the whole frame, out of shape."""
    resize: int = 256
    """What the short side would have before the crop, in pixels."""
    interpolation: Literal["halving"] = "halving"
    """2 x 2 averages while the frame is at least twice as large, then bilinear: free of aliasing and cheap."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class FeatureSpec(_FrozenModel):
    """All that decides a feature's value. Two caches agree exactly when their fingerprints do."""

    schema_version: int = SCHEMA_VERSION
    sampling: Sampling
    preprocessing: Preprocessing
    backbone: str
    weights: Literal["pretrained", "random", "imported"]
    """`imported`: the features were made elsewhere, and no video can be put through the same."""
    weights_digest: str
    """sha256 over the backbone's tensors, whatever file they came from; of imported features, how wide they are."""
    pooling: Literal["avg", "max", "avg+max", "none"]
    """`none`: unknown, of features made elsewhere."""
    precision: Literal["fp32", "bf16"] = "fp32"
    views: tuple[str, ...] = (ORIGINAL_VIEW,)
    """The augmentation views of each clip, the plain one first."""
    reduction: str = "none"
    """As asked for, such as `select:512`."""
    reduction_digest: str = ""
    """sha256 over the fitted reduction; empty while it is not fitted, or where there is none."""

    @property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the sha256 of the canonical JSON."""
        tree = self.model_dump(mode="json", exclude_defaults=True)  # a field that comes later changes no older one
        text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_imported(self) -> bool:
        """Whether the features were made elsewhere."""
        return self.weights == "imported"

    def without_reduction(self) -> "FeatureSpec":
        """The same features before any reduction, as the parts of a running job hold them."""
        return self.model_copy(update={"reduction": "none", "reduction_digest": ""})

    def without_augmentation(self) -> "FeatureSpec":
        """The features of the plain view alone, as a model that is trained on them takes them."""
        return self.model_copy(update={"views": (ORIGINAL_VIEW,)})

    def differences(self, other: "FeatureSpec") -> list[str]:
        """One line a field that differs: `field: mine, not theirs`. An unfitted reduction equals any fitted one."""
        mine, theirs = dict(_flatten(self.model_dump())), dict(_flatten(other.model_dump()))
        if not (self.reduction_digest and other.reduction_digest):
            theirs["reduction_digest"] = mine["reduction_digest"]
        return [
            f"{key}: {_format_value(mine[key])}, not {_format_value(theirs[key])}"
            for key in mine
            if mine[key] != theirs[key]
        ]


def parse_spec(text: str) -> FeatureSpec:
    """A spec from JSON. Raises ArtefactRefused where it has other fields than this version of the program knows."""
    try:
        return FeatureSpec.model_validate_json(text)
    except ValidationError as error:
        fields = sorted({".".join(map(str, item["loc"])) for item in error.errors()})
        raise ArtifactError(
            f"made by another version of this program, its settings differ in: {', '.join(fields)}; extract it again "
            "to another path, or use that version"
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
"""What a reduction may have been fitted on."""


def describe_reduction(reduction: str, fitted_on: str) -> str:
    """`select:512, fitted on the training split`."""
    return f"{reduction}, fitted on {FITTED_ON_TEXTS[fitted_on]}" if fitted_on else reduction


def describe_spec(spec: FeatureSpec) -> list[tuple[str, str]]:
    """What decides the features before any reduction: a name and a few words each."""
    if spec.is_imported:
        each = f"{spec.sampling.fps:g} a second, unless a file says when"
        return [("features", f"{spec.backbone} ({spec.weights_digest})"), ("rows", each)]
    picture = spec.preprocessing
    side = f"{picture.size} x {picture.size}"
    fits = {
        "crop": f"short side to {picture.resize}, then the middle {side} (fit crop)",
        "squash": f"the whole frame squashed to {side} (fit squash)",
    }
    return [
        ("frames", _describe_sampling(spec.sampling)),
        ("picture", fits[picture.fit]),
        ("backbone", f"{spec.backbone}, {_describe_weights(spec)}"),
        ("pooling", spec.pooling),
        ("precision", spec.precision),
        *([("views", ",".join(spec.views))] if len(spec.views) > 1 else []),
    ]


def _describe_sampling(sampling: Sampling) -> str:
    stride = f"one every {sampling.stride_seconds:g} s" if sampling.stride_seconds else "back to back"
    match sampling.kind:
        case "rate":
            return f"{sampling.fps:g} a second"
        case "every":
            return f"one in {sampling.every}"
        case "all":
            return "all"
        case "windows":
            return f"{sampling.frames} evenly spaced in each window of {sampling.window_seconds:g} s, {stride}"
        case "snippets":
            return f"snippets of {sampling.frames} at {sampling.fps:g} a second, {stride}"
    return f"{sampling.frames} evenly spaced a clip"


def _describe_weights(spec: FeatureSpec) -> str:
    return "random weights" if spec.weights == "random" else f"pretrained weights, sha256 {spec.weights_digest[:12]}"
