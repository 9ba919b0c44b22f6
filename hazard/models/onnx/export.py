"""Export of a saved model as one ONNX file, which is compared with the model before it is written."""

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
from features.encoders.base import FrameEncoder, count_frames_per_row
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
"""Largest difference in probability between ONNX Runtime and the model that is accepted."""

PROBE_SHAPES = ((3, 5), (1, 1), (4, 9))
"""Numbers of clips and steps on which the two are compared; the first is also used to trace the graph."""

ProbeArrays = tuple[NDArray[Any], NDArray[np.bool_]]  # x or frames (B, T, ...), mask (B, T)


@dataclass(frozen=True)
class OnnxExport:
    """The file that was written, and how far ONNX Runtime was from the model."""

    file: Path
    size_bytes: int
    difference: float
    inputs: dict[str, str]
    """Name → type and shape."""


def export_onnx(folder: Path, output: Path | None = None, *, whole: bool = False, weights: str = "auto") -> OnnxExport:
    """Export the model of `folder` from features to probabilities, or with `whole` from the network's frames on.

    Raises SettingsError if it cannot be exported or the extra `onnx` is missing, ArtifactError if the model is rejected
    or ONNX Runtime gives other probabilities, RuntimeEnvironmentError if the file cannot be written.
    """
    _check_libraries()
    predictor = open_model(folder)
    file = output or folder / ("whole.onnx" if whole else "model.onnx")
    check_writable(file)
    target = _FrameExport.load(predictor, weights) if whole else _FeatureExport(predictor)
    content = _export_to_bytes(target, predictor)
    difference = _compute_largest_difference(target, content)
    if not difference <= MAX_PROBABILITY_DIFFERENCE:
        raise ArtifactError(
            f"nothing was written to {file}: the probabilities of ONNX Runtime differ by {difference:.2g} from the "
            f"model's own; at most {MAX_PROBABILITY_DIFFERENCE:g} is accepted"
        )
    write_atomically(file, content)
    return OnnxExport(file, len(content), difference, target.inputs)


class _FeatureExport:
    """Export from features on."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.graph: nn.Module = FeaturesToProbabilities(predictor).eval()
        self.inputs = {"x": f"float32 (B, T, {predictor.info.width})", "mask": "bool (B, T)"}

    def make_probe(self, clips: int, steps: int) -> ProbeArrays:
        """Make clips of different lengths near the training features, which differ more from each other than within."""
        random = np.random.default_rng(clips)
        width = self.predictor.info.width
        mean, spread = training_feature_stats(self.predictor.model, width)
        noise = random.normal(size=(clips, 1, width)) + 0.3 * random.normal(size=(clips, steps, width))
        mask = _make_prefix_mask(clips, steps)
        return ((mean + spread * noise) * mask[..., None]).astype(np.float32), mask

    def predict_expected(self, x: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the probabilities (B, K) of the model."""
        return self.predictor.predict(x, mask)


class _FrameExport:
    """Export from the network's frames on."""

    def __init__(self, predictor: Predictor, spec: FeatureSpec, network: nn.Module, encoder: FrameEncoder) -> None:
        self.predictor, self.encoder = predictor, encoder
        features = FeatureNetwork(fold_batch_norms(network), spec.preprocessing, spec.pooling, torch.float32)
        self.graph: nn.Module = FramesToProbabilities(
            features, predictor.reduction, FeaturesToProbabilities(predictor)
        ).eval()
        side, frames = spec.preprocessing.size, count_frames_per_row(spec)
        self.row_shape = (*((frames,) if frames > 1 else ()), side, side, 3)  # of a row
        shape = ", ".join(map(str, self.row_shape))
        self.inputs = {"frames": f"uint8 RGB (B, T, {shape})", "mask": "bool (B, T)"}

    @classmethod
    def load(cls, predictor: Predictor, weights: str) -> "_FrameExport":
        spec = FeatureSpec.model_validate(predictor.feature_spec)
        if spec.is_imported:
            raise SettingsError(
                f"the model was trained on features of another program ({spec.backbone}); leave out --whole to export "
                "only the part from features on"
            )
        if spec.precision != "fp32":
            raise SettingsError(
                f"its features were made in {spec.precision}, which ONNX Runtime computes differently; leave out "
                "--whole to export only the part from features on"
            )
        file = find_model_weights(spec, weights, hint=predictor.info.weights_file)
        encoder = build_encoder(spec, file, device="cpu")
        return cls(predictor, spec, load_backbone(spec.backbone, file), encoder)

    def make_probe(self, clips: int, steps: int) -> ProbeArrays:
        """Make coarse random images, so that features differ."""
        random = np.random.default_rng(clips)
        coarse = random.integers(0, 256, (clips, steps, *(4 if n > 3 else n for n in self.row_shape)), np.uint8)
        shape = (clips, steps, *self.row_shape)
        rows = np.ix_(*(np.arange(n) * m // n for n, m in zip(shape, coarse.shape, strict=True)))
        return coarse[rows], _make_prefix_mask(clips, steps)

    def predict_expected(self, frames: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the probabilities (B, K) of encoder, reduction and model, computed as inference does."""
        reduction = self.predictor.reduction
        raw = [self.encoder.encode(rows[real]) for rows, real in zip(frames, mask, strict=True)]
        return self.predictor.predict(*pad_tracks([reduction.apply(rows) if reduction else rows for rows in raw]))


def _make_prefix_mask(clips: int, steps: int) -> NDArray[np.bool_]:
    """Make a mask of clips of different lengths, the first as long as possible."""
    return np.arange(steps) < np.array([max(1, steps - 2 * clip) for clip in range(clips)])[:, None]


def _check_libraries() -> None:
    missing = [name for name in REQUIRED_LIBRARIES if find_spec(name) is None]
    if missing:
        raise SettingsError(f"export needs {', '.join(missing)}: pip install {' '.join(missing)}")


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
    except Exception as error:  # the exporter raises many kinds for a network that it does not know
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingsError(f"torch cannot export this model to ONNX: {reason}") from error
    onnx.helper.set_model_props(proto, _make_metadata(target, predictor))
    return proto.SerializeToString()


def _make_metadata(target: _FeatureExport | _FrameExport, predictor: Predictor) -> dict[str, str]:
    """Return what a user of the file needs to know; all values are text, lists and trees are JSON."""
    info = predictor.info
    is_whole = isinstance(target, _FrameExport)
    spec = info.feature_spec
    expected_input = (
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
        "expects": expected_input
        + "; clips longer than max_steps thinned evenly, shorter ones padded with zeros at the end, mask True = real",
        "max_steps": str(info.settings.max_steps or ""),
        "inputs": json.dumps(target.inputs),
    }


def _compute_largest_difference(target: _FeatureExport | _FrameExport, content: bytes) -> float:
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
    """Silence the exporter's messages to its own developers, which a user cannot act on."""
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
