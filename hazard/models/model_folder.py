"""The model folder: everything that inference needs, opened by its path alone.

`model.json` is written last and holds the digests of the files beside it. A folder that was half overwritten is
therefore rejected and never read as a mixture of two models.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from features.cache.reduction import Reduction
from features.errors import ArtifactError
from features.utils.files import check_writable, write_atomically
from hazard.models.baselines import is_baseline, predict_baseline
from hazard.models.ensemble import Ensemble, EnsembleMember, SingleModel
from hazard.models.head_ensemble import HeadEnsemble, build_head_ensemble
from hazard.models.input_spec import read_model_json
from hazard.models.open_set import OpenSetDetector
from hazard.models.predictor import MemberInfo, Model, ModelInfo, Predictor
from hazard.models.settings import TrainSettings

TRUSTED_TYPES = [
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
]
"""Types besides skops's own list that a model.skops may hold. They are never taken from the file."""

WEIGHTS_SUFFIXES = {"head": ".safetensors", "baseline": ".skops"}
REDUCTION_FILE = "reduction.safetensors"
OPEN_SET_FILE = "unknown.safetensors"

T = TypeVar("T")


def save_model(
    folder: Path,
    *,
    info: ModelInfo,
    model: Model,
    reduction: Reduction | None,
    open_set_detector: OpenSetDetector | None = None,
) -> ModelInfo:
    """Write the model folder, each file whole or not at all, and return `info` with members and digests filled in.

    Raises RuntimeEnvironmentError if the folder cannot be written.
    """
    check_writable(folder / "model.json")
    if isinstance(model, Ensemble):
        members = tuple(_make_member_info(number, member) for number, member in enumerate(model.members))
        contents = {
            entry.file: _serialize_model(member.model) for entry, member in zip(members, model.members, strict=True)
        }
    else:
        members, contents = (), {_model_file_name(info.kind): _serialize_model(model)}
    if reduction is not None:
        contents[REDUCTION_FILE] = safetensors.numpy.save(
            {k: np.ascontiguousarray(v) for k, v in reduction.to_arrays().items()}
        )
    if open_set_detector is not None:
        contents[OPEN_SET_FILE] = safetensors.numpy.save(open_set_detector.to_arrays())
    for name, content in contents.items():
        write_atomically(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    info = info.model_copy(update={"digests": digests, "members": members})
    write_atomically(folder / "model.json", (info.model_dump_json(indent=2) + "\n").encode())
    for stale in _find_model_files(folder) - {folder / name for name in contents}:  # left by an earlier model
        stale.unlink(missing_ok=True)
    return info


def open_model(folder: Path) -> Predictor:
    """Open the model of a folder that `save_model` wrote.

    Raises SettingsError if there is no model, ArtifactError if it is damaged, foreign or inconsistent.
    """
    info = read_model_json(folder, ModelInfo)
    if info.kind == "ensemble" and not info.members:
        raise ArtifactError(f"{folder / 'model.json'} rejected: members: an ensemble needs one or more")
    if info.kind == "ensemble":
        model: Model = Ensemble(tuple(_load_member(folder, info, member) for member in info.members))
    else:
        model = _load_single(folder, info, _model_file_name(info.kind), info.name, info.settings)
    return Predictor(info, model, _load_reduction(folder, info), _load_open_set_detector(folder, info))


def _model_file_name(kind: str) -> str:
    return f"model{WEIGHTS_SUFFIXES[kind]}"


def _find_model_files(folder: Path) -> set[Path]:
    patterns = [f"{stem}{suffix}" for stem in ("model", "member-*") for suffix in WEIGHTS_SUFFIXES.values()]
    return {file for pattern in [*patterns, REDUCTION_FILE, OPEN_SET_FILE] for file in folder.glob(pattern)}


def _make_member_info(number: int, member: EnsembleMember) -> MemberInfo:
    return MemberInfo(
        kind=member.kind,
        name=member.name,
        settings=member.settings,
        weight=member.weight,
        file=f"member-{number:02d}{WEIGHTS_SUFFIXES[member.kind]}",
    )


def _load_member(folder: Path, info: ModelInfo, member: MemberInfo) -> EnsembleMember:
    model = _load_single(folder, info, member.file, member.name, member.settings)
    return EnsembleMember(member.settings, model, member.weight)


def _serialize_model(model: SingleModel) -> bytes:
    if isinstance(model, HeadEnsemble):
        return safetensors.torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    import skops.io

    return skops.io.dumps(model, compression=zipfile.ZIP_DEFLATED)


def _load_single(folder: Path, info: ModelInfo, file: str, name: str, settings: TrainSettings) -> SingleModel:
    if file.endswith(WEIGHTS_SUFFIXES["head"]):
        return _load_head(folder, info, file, settings.for_model("head", name))
    return _load_baseline(folder, info, file, name)


def _load_head(folder: Path, info: ModelInfo, file: str, settings: TrainSettings) -> HeadEnsemble:
    tensors = _read_verified(folder, file, info, safetensors.torch.load)
    with torch.device("meta"):  # compare shapes before allocating the memory that model.json claims
        expected = build_head_ensemble(info.width, len(info.labels), settings).state_dict()
    if differing := _describe_mismatch(expected, tensors):
        raise ArtifactError(
            f"{folder / file} rejected: its tensors are not those that model.json describes: {differing}"
        )
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ArtifactError(f"{folder / file} rejected: {name} contains NaN or infinity")
    head = build_head_ensemble(info.width, len(info.labels), settings)
    head.load_state_dict(tensors)
    return head.eval()


def _describe_mismatch(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> str:
    """Describe the first tensor that is missing, unexpected, or of another shape or type; empty if all match."""

    def describe(tensors: dict[str, torch.Tensor], name: str) -> str:
        if name not in tensors:
            return "nothing"
        return f"{str(tensors[name].dtype).removeprefix('torch.')} {tuple(tensors[name].shape)}"

    for name in (*expected, *got):
        if describe(expected, name) != describe(got, name):
            return f"{name}: expected {describe(expected, name)}, got {describe(got, name)}"
    return ""


def _load_baseline(folder: Path, info: ModelInfo, file: str, name: str) -> Pipeline:
    import skops.io  # imported here: it takes half a second, and heads do not need it

    model = _read_verified(folder, file, info, lambda content: skops.io.loads(content, trusted=TRUSTED_TYPES))
    if not is_baseline(model, name):
        raise ArtifactError(f"{folder / file} rejected: it does not contain a {name} baseline")
    if not all(bool(np.isfinite(array).all()) for array in _iterate_arrays(model)):
        raise ArtifactError(f"{folder / file} rejected: it contains NaN or infinity")
    probe = np.zeros((1, 2, info.width), np.float32), np.ones((1, 2), np.bool_)
    probs = _run_or_reject(folder / file, lambda: predict_baseline(model, *probe, classes=len(info.labels)))
    if not np.isclose(probs.sum(), 1.0):
        raise ArtifactError(f"{folder / file} rejected: its probabilities do not sum to one")
    return model


def _iterate_arrays(part: object) -> Iterator[NDArray[np.floating]]:
    """Yield all arrays of floats in an estimator and in the estimators within it."""
    if isinstance(part, np.ndarray):
        if np.issubdtype(part.dtype, np.floating):
            yield part
    elif isinstance(part, list | tuple):
        for item in part:
            yield from _iterate_arrays(item)
    elif type(part).__module__.startswith("sklearn."):
        yield from _iterate_arrays(list(getattr(part, "__dict__", {}).values()))


def _load_reduction(folder: Path, info: ModelInfo) -> Reduction | None:
    if info.reduction_kind is None:
        return None
    file, kind = folder / REDUCTION_FILE, info.reduction_kind
    arrays = _read_verified(folder, REDUCTION_FILE, info, safetensors.numpy.load)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ArtifactError(f"{file} rejected: it contains NaN or infinity")
    reduction = _run_or_reject(file, lambda: Reduction.from_arrays(kind, arrays))
    if reduction.width != info.width:
        raise ArtifactError(f"{file} rejected: it gives {reduction.width} features, the model expects {info.width}")
    digest = info.feature_spec.get("reduction_digest")
    if digest and digest != reduction.digest:
        raise ArtifactError(
            f"{file} rejected: reduction_digest is {reduction.digest[:12]}…, model.json expects {digest[:12]}…"
        )
    return reduction


def _load_open_set_detector(folder: Path, info: ModelInfo) -> OpenSetDetector | None:
    """Load the open-set detector.

    Returns None for an older folder without the file, and if training had too few clips for one.
    """
    if OPEN_SET_FILE not in info.digests:
        return None
    arrays = _read_verified(folder, OPEN_SET_FILE, info, safetensors.numpy.load)
    detector = _run_or_reject(folder / OPEN_SET_FILE, lambda: OpenSetDetector.from_arrays(arrays))
    if detector.width != info.width:
        raise ArtifactError(
            f"{folder / OPEN_SET_FILE} rejected: it expects {detector.width} features, the model has {info.width}"
        )
    return detector


def _read_verified(folder: Path, name: str, info: ModelInfo, parse: Callable[[bytes], T]) -> T:
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{folder / name} rejected: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != info.digests.get(name):
        raise ArtifactError(f"{folder / name} rejected: it is damaged, or belongs to another model.json")
    return _run_or_reject(folder / name, lambda: parse(content))


def _run_or_reject(file: Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(f"{file} rejected: {reason}") from None
