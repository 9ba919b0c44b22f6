"""A saved model as one ONNX file, checked against the model itself before it is written."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim

from features.backbones.loading import load_backbone
from features.encoders.base import FrameEncoder, frames_per_row
from features.encoders.torch_encoder import FeatureNetwork, build_encoder, fold_batch_norms
from features.errors import ArtifactError, SettingsError
from features.spec import FeatureSpec
from features.utils.files import check_writable, write_atomically
from hazard.data.sequences import pad_tracks
from hazard.models.input_spec import find_model_weights
from hazard.models.model_folder import open_model
from hazard.models.onnx.modules import FeaturesToProbabilities, FramesToProbabilities, training_feature_stats
from hazard.models.predictor import Predictor

REQUIRED_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
MAX_PROBABILITY_DIFFERENCE = 1e-4
"""Largest difference in probability between ONNX Runtime and the model itself that is let through."""

PROBE_SHAPES = ((3, 5), (1, 1), (4, 9))
"""Clips and steps of what both are asked. The first is also what the graph is traced with."""

ProbeArrays = tuple[NDArray[Any], NDArray[np.bool_]]  # x or frames (B, T, ...), mask (B, T)


@dataclass(frozen=True)
class OnnxExport:
    """What was written, and how far ONNX Runtime was from the model itself."""

    file: Path
    size_bytes: int
    difference: float
    inputs: dict[str, str]
    """Name → type and shape."""


def export_onnx(folder: Path, output: Path | None = None, *, whole: bool = False, weights: str = "auto") -> OnnxExport:
    """The model of `folder` from features to probabilities, or with `whole` from the network's frames on.

    Raises SettingsError where it cannot be exported or the extra `onnx` is missing, ArtefactRefused where the model is
    refused or ONNX Runtime gives other probabilities, EnvironmentStopped where the file cannot be written.
    """
    _check_libraries()
    predictor = open_model(folder)
    file = output or folder / ("whole.onnx" if whole else "model.onnx")
    check_writable(file)
    chain = _FrameExport.load(predictor, weights) if whole else _FeatureExport(predictor)
    content = _export_to_bytes(chain, predictor)
    difference = _largest_difference(chain, content)
    if not difference <= MAX_PROBABILITY_DIFFERENCE:
        raise ArtifactError(
            f"nothing was written to {file}: ONNX Runtime gave probabilities that differ by {difference:.2g} from the "
            f"model's own, at most {MAX_PROBABILITY_DIFFERENCE:g} is let through"
        )
    write_atomically(file, content)
    return OnnxExport(file, len(content), difference, chain.inputs)


class _FeatureExport:
    """From features on."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.graph: nn.Module = FeaturesToProbabilities(predictor).eval()
        self.inputs = {"x": f"float32 (B, T, {predictor.info.width})", "mask": "bool (B, T)"}

    def make_probe(self, clips: int, steps: int) -> ProbeArrays:
        """Clips that differ more from each other than within, of all lengths, around what training showed."""
        random = np.random.default_rng(clips)
        width = self.predictor.info.width
        mean, spread = training_feature_stats(self.predictor.model, width)
        noise = random.normal(size=(clips, 1, width)) + 0.3 * random.normal(size=(clips, steps, width))
        mask = _make_prefix_mask(clips, steps)
        return ((mean + spread * noise) * mask[..., None]).astype(np.float32), mask

    def predict_expected(self, x: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What the project itself says (B, K)."""
        return self.predictor.predict(x, mask)


class _FrameExport:
    """From the network's frames on."""

    def __init__(self, predictor: Predictor, spec: FeatureSpec, network: nn.Module, encoder: FrameEncoder) -> None:
        self.predictor, self.encoder = predictor, encoder
        features = FeatureNetwork(fold_batch_norms(network), spec.preprocessing, spec.pooling, torch.float32)
        self.graph: nn.Module = FramesToProbabilities(
            features, predictor.reduction, FeaturesToProbabilities(predictor)
        ).eval()
        side, frames = spec.preprocessing.size, frames_per_row(spec)
        self.row_shape = (*((frames,) if frames > 1 else ()), side, side, 3)  # of a row
        shape = ", ".join(map(str, self.row_shape))
        self.inputs = {"frames": f"uint8 RGB (B, T, {shape})", "mask": "bool (B, T)"}

    @classmethod
    def load(cls, predictor: Predictor, weights: str) -> "_FrameExport":
        spec = FeatureSpec.model_validate(predictor.feature_spec)
        if spec.is_imported:
            raise SettingsError(
                f"the model was trained on features made elsewhere ({spec.backbone}): leave out --whole, and the part "
                "from features on is exported"
            )
        if spec.precision != "fp32":
            raise SettingsError(
                f"its features were made in {spec.precision}, which ONNX Runtime would compute otherwise: leave out "
                "--whole, and the part from features on is exported"
            )
        file = find_model_weights(spec, weights, hint=predictor.info.weights_file)
        encoder = build_encoder(spec, file, device="cpu")
        return cls(predictor, spec, load_backbone(spec.backbone, file), encoder)

    def make_probe(self, clips: int, steps: int) -> ProbeArrays:
        """Coarse random pictures, so that features differ."""
        random = np.random.default_rng(clips)
        coarse = random.integers(0, 256, (clips, steps, *(4 if n > 3 else n for n in self.row_shape)), np.uint8)
        shape = (clips, steps, *self.row_shape)
        rows = np.ix_(*(np.arange(n) * m // n for n, m in zip(shape, coarse.shape, strict=True)))
        return coarse[rows], _make_prefix_mask(clips, steps)

    def predict_expected(self, frames: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """As inference does it: the encoder, the reduction, the model."""
        reduction = self.predictor.reduction
        raw = [self.encoder.encode(rows[real]) for rows, real in zip(frames, mask, strict=True)]
        return self.predictor.predict(*pad_tracks([reduction.apply(rows) if reduction else rows for rows in raw]))


def _make_prefix_mask(clips: int, steps: int) -> NDArray[np.bool_]:
    """A mask of clips of different lengths, the first as long as can be."""
    return np.arange(steps) < np.array([max(1, steps - 2 * clip) for clip in range(clips)])[:, None]


def _check_libraries() -> None:
    missing = [name for name in REQUIRED_LIBRARIES if find_spec(name) is None]
    if missing:
        raise SettingsError(f"export needs {', '.join(missing)}: pip install 'hazard-video[onnx]'")


def _export_to_bytes(target: _FeatureExport | _FrameExport, predictor: Predictor) -> bytes:
    import onnx

    arrays = tuple(torch.from_numpy(array) for array in target.make_probe(*PROBE_SHAPES[0]))
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    try:
        with _silence_exporter():
            program = torch.onnx.export(
                target.graph,
                arrays,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(target.inputs),
                output_names=["probabilities"],
                dynamic_shapes=(free, free),
            )
        assert program is not None
        proto = program.model_proto
    except Exception as error:  # whatever the exporter meets in a network that it does not know
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingsError(f"torch cannot export this model to ONNX: {said}") from error
    onnx.helper.set_model_props(proto, _make_metadata(target, predictor))
    return proto.SerializeToString()


def _make_metadata(target: _FeatureExport | _FrameExport, predictor: Predictor) -> dict[str, str]:
    """What whoever runs the file has to know; all values are text, lists and trees are JSON."""
    info = predictor.info
    is_whole = isinstance(target, _FrameExport)
    spec = info.feature_spec
    before = (
        "sample each clip's frames as feature_spec.sampling says (upright RGB), fit them to the square as "
        "feature_spec.preprocessing says (features.video.preprocess.preprocess_frame); scaling is part of this file"
        if is_whole
        else "features as feature_spec says, after the reduction (a cache's /features)"
    )
    return {
        "model": f"{info.kind} {info.name}",
        "labels": json.dumps(info.labels),
        "positive_label": info.positive_label or "",
        "threshold": repr(info.threshold),
        "fingerprint": info.fingerprint,
        "feature_spec": json.dumps(spec),
        "expects": before
        + "; clips longer than max_steps thinned evenly, shorter ones padded with zeros at the end, mask True = real",
        "max_steps": str(info.settings.max_steps or ""),
        "inputs": json.dumps(target.inputs),
    }


def _largest_difference(target: _FeatureExport | _FrameExport, content: bytes) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    differences = []
    for clips, steps in PROBE_SHAPES:
        arrays = target.make_probe(clips, steps)
        got = session.run(None, dict(zip(target.inputs, arrays, strict=True)))[0]
        differences.append(float(np.abs(got - target.predict_expected(*arrays)).max()))
    return float(np.max(differences))


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """The exporter tells its developers a lot that no user can act on."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
